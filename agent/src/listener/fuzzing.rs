//! For fuzz/: a connection's first bytes, on a real socket, as far as to whom it would belong.

use std::os::fd::AsRawFd;

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use tokio::io::Interest;

use super::{
    connections::prove,
    opening::{Opening, read_opening},
};
use crate::sys::readiness::watch;

/// How many bytes are left for a worker; `None`: the connection is turned away. `bytes` are all that the peer sends.
pub(crate) async fn introduce(bytes: &[u8], secret: Option<&str>) -> Option<usize> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let (ours, peers) = socketpair(AddressFamily::Unix, SockType::Stream, None, flags).ok()?;
    if !bytes.is_empty() {
        send(peers.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL).ok()?;
    }
    drop(peers);
    let socket = watch(ours, Interest::READABLE).ok()?;
    match (read_opening(&socket).await.ok()?, secret) {
        (Opening::Plain, Some(_)) => return None,
        (Opening::Plain | Opening::Hello { .. }, None) => {}
        (Opening::Hello { hello, line }, Some(secret)) => {
            let secrets = [secret.parse().ok()?];
            prove(&socket, &hello, &line, &secrets).await.ok()?;
        }
    }
    let mut rest = vec![0; bytes.len() + 1];
    Some(recv(socket.as_raw_fd(), &mut rest, MsgFlags::MSG_DONTWAIT).unwrap_or(0))
}
