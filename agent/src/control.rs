//! What listener and worker say to each other over the control socket, a SOCK_SEQPACKET pair: one message a packet, at
//! most [`MAX_MESSAGE`] bytes, in order, each way.
//!
//! ```text
//! listener → worker   Become(account)             first, once
//!                     Serve + a socket            a connection of this user's, past its hello
//!                     Drain                       the user changed: no new work, end when the old is done
//!                     Retire                      you may end: no Serve comes after this
//!                     Confined(ticket, name)      answer to Confine
//!                     Renew(generation)           the guest was resumed: tell your connections to go, and serve on
//!                     Session(ticket) + a socket  answer to Session: the way to the process in it
//! worker → listener   Ready | Failed(step)        answer to Become, once
//!                     Back(account, services)     first, to a listener that was started after the worker
//!                     Idle(served)                I have nothing to do, having got `served` connections
//!                     Log(level, text)            a line for the agent's log
//!                     Confine(ticket, child)      a cgroup for this child of mine, which waits for it
//!                     Kill(group), Release(group) SIGKILL to all in it; it is needed no more
//!                     Resumed                     the guest was resumed, says root's worker
//!                     Session(ticket)             a login session for me
//! ```
//!
//! A worker that loses its listener goes on with what it has and comes [`Report::Back`] through its [`rendezvous`] when there is
//! one again, perhaps of another version: variants are added at the end, and never changed but for Become's, whose two
//! ends are always the same binary.
//!
//! A worker is a user's process, so that what it says is a stranger's word: bounded, parsed, and never obeyed beyond this.

use std::{
    io::{IoSlice, IoSliceMut},
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr,
        connect, recv, recvmsg, sendmsg, socket,
    },
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use thiserror::Error;
use tokio::io::{Interest, unix::AsyncFd};

use crate::{
    sys::{cgroup::Limits, descriptors, errno_of, readiness::watch},
    system::accounts::Account,
};

/// Room for an account with some ten thousand groups; well under the socket buffer's default of 208 KiB.
pub(crate) const MAX_MESSAGE: usize = 64 * 1024;

/// The socket in the listener's runtime directory to which the workers of a uid come back.
pub(crate) fn rendezvous(uid: u32) -> String {
    format!("workers-{uid}.sock")
}

/// The longest log line a worker may ask for; longer ones are cut.
pub(crate) const MAX_LOG_TEXT: usize = 1024;

/// From the listener to a worker.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    Become {
        account: Account,
        services: Services,
        idle_timeout: std::time::Duration,
        /// Where the [`rendezvous`] is.
        runtime_directory: PathBuf,
        /// The soft RLIMIT_NOFILE that programs get.
        open_files: u64,
    },
    Serve,
    Drain,
    Retire,
    /// The name of the group, or an errno.
    Confined {
        ticket: u64,
        group: Result<String, i32>,
    },
    /// The guest was resumed: connections of before are told to go.
    Renew {
        generation: u64,
    },
    /// A login session is being opened, with a socket to who will be in it; or an errno.
    Session {
        ticket: u64,
        opening: Result<(), i32>,
    },
}

/// Which services the guest's owner leaves on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Services {
    pub(crate) files: bool,
    pub(crate) processes: bool,
    pub(crate) system: bool,
    pub(crate) network: bool,
}

impl Default for Services {
    fn default() -> Self {
        Self {
            files: true,
            processes: true,
            system: true,
            network: true,
        }
    }
}

/// From a worker to the listener.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    Ready,
    Failed {
        step: String,
        errno: i32,
    },
    Idle {
        served: u64,
    },
    Log {
        level: LogLevel,
        text: String,
    },
    Back {
        account: Account,
        services: Services,
    },
    Confine {
        ticket: u64,
        child: i32,
        limits: Limits,
    },
    Kill {
        group: String,
    },
    Release {
        group: String,
    },
    Resumed,
    /// A login session for this worker's user.
    Session {
        ticket: u64,
    },
}

/// How loud a worker's line is.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum LogLevel {
    Warn,
    Error,
}

/// Why a message did not get through.
#[derive(Debug, Error)]
pub(crate) enum ControlError {
    #[error("the other side is gone")]
    Closed,
    #[error("the message does not fit into {MAX_MESSAGE} bytes")]
    TooLarge,
    #[error("the message makes no sense")]
    Malformed,
    #[error("the control socket failed")]
    Socket(#[source] Errno),
}

/// The worker's end of a control socket; the listener's is `listener::worker_socket`.
#[derive(Debug)]
pub(crate) struct ControlSocket(AsyncFd<OwnedFd>);

impl ControlSocket {
    /// Takes one end of a pair. Must be called within a tokio runtime.
    pub(crate) fn new(fd: OwnedFd) -> Result<Self, ControlError> {
        descriptors::set_nonblocking(&fd).map_err(ControlError::Socket)?;
        let fd = watch(fd, Interest::READABLE)
            .map_err(|error| ControlError::Socket(errno_of(&error)))?;
        Ok(Self(fd))
    }

    /// Comes back to a listener that was started after this worker. Does not wait: the listener's queue has room, or
    /// it is not there.
    pub(crate) fn come_back(runtime_directory: &Path, uid: u32) -> Result<Self, ControlError> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)
            .map_err(ControlError::Socket)?;
        let address = UnixAddr::new(&runtime_directory.join(rendezvous(uid)));
        let address = address.map_err(ControlError::Socket)?;
        connect(fd.as_raw_fd(), &address).map_err(ControlError::Socket)?;
        Self::new(fd)
    }

    /// Sends a message, with a socket in its hands if there is one. Never waits: a full queue is an error
    /// (EAGAIN), because a worker that does not read must not hold the listener up.
    pub(crate) fn send<M: Serialize>(
        &self,
        message: &M,
        socket: Option<BorrowedFd<'_>>,
    ) -> Result<(), ControlError> {
        send(self.0.get_ref().as_raw_fd(), message, socket)
    }

    /// The worker's side: the next order, and the socket that came with it. Cancel-safe.
    pub(crate) async fn receive_order(&self) -> Result<(Order, Option<OwnedFd>), ControlError> {
        let received = self
            .0
            .async_io(Interest::READABLE, |fd| receive(fd).map_err(Into::into))
            .await;
        let (bytes, socket) = received.map_err(|error| ControlError::Socket(errno_of(&error)))?;
        decode(&bytes).map(|order| (order, socket))
    }
}

/// Waits for the first order on a blocking control socket, before there is a runtime.
pub(crate) fn receive_blocking(fd: &OwnedFd) -> Result<Order, ControlError> {
    let (bytes, _) = receive(fd).map_err(ControlError::Socket)?;
    decode(&bytes)
}

/// Sends on a control socket before there is a runtime.
pub(crate) fn send_blocking<M: Serialize>(fd: &OwnedFd, message: &M) -> Result<(), ControlError> {
    send(fd.as_raw_fd(), message, None)
}

/// Sends a message, with a socket in its hands if there is one.
pub(crate) fn send<M: Serialize>(
    fd: i32,
    message: &M,
    socket: Option<BorrowedFd<'_>>,
) -> Result<(), ControlError> {
    let bytes = postcard::to_stdvec(message).map_err(|_| ControlError::Malformed)?;
    if bytes.len() > MAX_MESSAGE {
        return Err(ControlError::TooLarge);
    }
    let sockets = socket.map(|socket| [socket.as_raw_fd()]);
    let rights = sockets
        .as_ref()
        .map(|sockets| [ControlMessage::ScmRights(sockets)]);
    let rights = rights.as_ref().map_or(&[][..], |rights| &rights[..]);
    match sendmsg::<()>(
        fd,
        &[IoSlice::new(&bytes)],
        rights,
        MsgFlags::MSG_NOSIGNAL,
        None,
    ) {
        Ok(_) => Ok(()),
        Err(Errno::EPIPE | Errno::ECONNRESET) => Err(ControlError::Closed),
        Err(errno) => Err(ControlError::Socket(errno)),
    }
}

fn receive(fd: &OwnedFd) -> Result<(Vec<u8>, Option<OwnedFd>), Errno> {
    let mut bytes = room_for_next(fd)?;
    let mut space = nix::cmsg_space!([std::os::fd::RawFd; 1]);
    let mut slices = [IoSliceMut::new(&mut bytes)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(fd.as_raw_fd(), &mut slices, Some(&mut space), flags)?;
    let mut socket = None;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = control {
            // There is room for two in the padding; each that was installed is owned, and the last one kept.
            for fd in fds {
                socket = Some(descriptors::own_received(fd));
            }
        }
    }
    let length = message.bytes;
    bytes.truncate(length);
    Ok((bytes, socket))
}

/// Room for the next packet, which is waited for where the socket blocks: as much as it has, and at most [`MAX_MESSAGE`]. To clear
/// that for the longest each time costs more than all else that a message does.
fn room_for_next(fd: &OwnedFd) -> Result<Vec<u8>, Errno> {
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC;
    let length = recv(fd.as_raw_fd(), &mut [], flags)?;
    Ok(vec![0; length.min(MAX_MESSAGE)])
}

/// A message; none at all is the other side's end.
pub(crate) fn decode<M: DeserializeOwned>(bytes: &[u8]) -> Result<M, ControlError> {
    if bytes.is_empty() {
        return Err(ControlError::Closed);
    }
    postcard::from_bytes(bytes).map_err(|_| ControlError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    use std::os::fd::AsFd;

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .unwrap()
    }

    #[tokio::test]
    async fn a_socket_travels_with_its_order() {
        let (left, right) = pair();
        let (left, right) = (
            ControlSocket::new(left).unwrap(),
            ControlSocket::new(right).unwrap(),
        );
        let (passed, other) = pair();
        left.send(&Order::Serve, Some(passed.as_fd())).unwrap();
        drop(passed);
        let (order, socket) = right.receive_order().await.unwrap();
        assert!(matches!(order, Order::Serve));
        nix::unistd::write(socket.unwrap(), b"x").unwrap();
        assert_eq!(nix::unistd::read(&other, &mut [0; 8]), Ok(1));
    }

    #[tokio::test]
    async fn a_worker_that_does_not_read_is_an_error_not_a_wait() {
        let (left, _right) = pair();
        let left = ControlSocket::new(left).unwrap();
        let error = (0..100_000).find_map(|_| left.send(&Order::Serve, None).err());
        assert!(
            matches!(error, Some(ControlError::Socket(Errno::EAGAIN))),
            "{error:?}"
        );
    }
}
