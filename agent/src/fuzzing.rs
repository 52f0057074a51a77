//! The parsers of strangers' bytes, as fuzz/ reaches them. Only in a build for that (`cfg(fuzzing)`).

use crate::{listener, rpc, system, system::accounts::Accounts};

/// The messages of all rpcs, as far as values of the domain.
pub fn requests(bytes: &[u8]) {
    rpc::fuzzing::convert(bytes);
}

/// A connection's bytes before it belongs to a user, and how many of them were left for a worker. `None`: it was turned
/// away.
pub async fn opening(bytes: &[u8], secret: Option<&str>) -> Option<usize> {
    listener::fuzzing::introduce(bytes, secret).await
}

/// passwd(5) and group(5), and a look for a user in them; and what the guest's getent says of groups.
pub fn accounts(passwd: &[u8], group: &[u8], name: &str) {
    let accounts = Accounts::parse(passwd, group);
    if let Some(account) = accounts.find(name) {
        assert_eq!(account.name, name);
        assert_eq!(account.groups.first(), Some(&account.gid));
    }
    system::directory::fuzzing::parse(group, name);
}
