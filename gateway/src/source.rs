//! Where a connection comes from, as limits count it.

use std::net::{IpAddr, Ipv6Addr};

/// An address, or the network of it that one customer has: a /64 to change addresses in, with IPv6.
pub(crate) fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => {
            let network = u128::from(address) & (u128::MAX << 64);
            IpAddr::V6(Ipv6Addr::from(network))
        }
        address => address,
    }
}
