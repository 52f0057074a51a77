//! Connecting as the worker's user. TCP never blocks; a Unix socket's path may lie in a file system that hangs, and so
//! its connect(2) is a call for a blocking thread.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsRawFd, OwnedFd},
    path::Path,
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::{
        socket::{
            AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket,
            sockopt::SendTimeout,
        },
        time::{TimeVal, TimeValLike},
    },
};
use tokio::{net::TcpStream, time::timeout};

use super::{connection::Connection, error::ConnectError};
use crate::{sys::errno_of, wary::refuse_descriptors};

/// The kernel itself would go on asking for some two minutes.
pub(super) const TCP_LIMIT: Duration = Duration::from_secs(30);

/// How long a full queue of a Unix listener is waited for.
const UNIX_LIMIT_SECONDS: i64 = 10;

/// Without an address: the loopback of the one family, then of the other; the error is then the first one's.
pub(crate) async fn connect_tcp(
    address: Option<IpAddr>,
    port: u16,
) -> Result<Connection, ConnectError> {
    let first = address.unwrap_or(Ipv4Addr::LOCALHOST.into());
    match connect_to(SocketAddr::new(first, port)).await {
        Err(error) if address.is_none() => {
            let second = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), port);
            connect_to(second).await.map_err(|_| error)
        }
        result => result,
    }
}

async fn connect_to(to: SocketAddr) -> Result<Connection, ConnectError> {
    let failed = |error| ConnectError::Tcp {
        to,
        source: errno_of(&error),
    };
    let connected = timeout(TCP_LIMIT, TcpStream::connect(to)).await;
    let stream = connected
        .map_err(|_| ConnectError::NoAnswer { to })?
        .map_err(failed)?;
    Connection::tcp(stream).map_err(failed)
}

/// A connected Unix socket, for [`Connection::unix`]. Who listens may be any user of the guest.
#[derive(Debug)]
pub(crate) struct UnixPeer {
    pub(super) socket: OwnedFd,
    /// Whether the kernel refuses descriptors from there.
    pub(super) is_clean: bool,
}

/// Connects to a path. May block for as long as the path's file system hangs.
pub(crate) fn connect_unix(path: &Path) -> Result<UnixPeer, ConnectError> {
    let connected = || -> Result<UnixPeer, Errno> {
        let address = UnixAddr::new(path)?;
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        setsockopt(&socket, SendTimeout, &TimeVal::seconds(UNIX_LIMIT_SECONDS))?;
        // Before anybody can send something.
        let is_clean = refuse_descriptors(&socket);
        connect(socket.as_raw_fd(), &address)?;
        Ok(UnixPeer { socket, is_clean })
    };
    connected().map_err(|source| ConnectError::Unix {
        path: path.into(),
        source,
    })
}
