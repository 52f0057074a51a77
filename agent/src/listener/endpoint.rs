//! Where the listener listens, and the first question to whoever connects: are you the host?

use std::{
    fs, io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::FileTypeExt},
    },
    path::{Path, PathBuf},
    str::FromStr,
};

use guestline_proto::DEFAULT_PORT;
use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, Backlog, SockFlag, SockType, UnixAddr, VsockAddr, accept4, bind,
        getpeername, getsockopt, listen, socket, sockopt::PeerCredentials,
    },
    unistd::Uid,
};
use thiserror::Error;
use tokio::io::{Interest, unix::AsyncFd};

use crate::{
    switches,
    sys::{descriptors::own_received, readiness::watch},
};

/// VMADDR_CID_HOST of vsock(7): the host, and nobody else.
const CID_HOST: u32 = 2;

/// VMADDR_CID_ANY of vsock(7): the guest's CID may change when it is restored elsewhere.
const CID_ANY: u32 = u32::MAX;

/// Connections that the kernel keeps until they are accepted.
const BACKLOG: i32 = 128;

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ListenAddress {
    /// A vsock port, for the host.
    Vsock(u32),
    /// A Unix socket, for development and tests: for root and the agent's own user.
    Unix(PathBuf),
}

impl Default for ListenAddress {
    fn default() -> Self {
        Self::Vsock(DEFAULT_PORT)
    }
}

impl FromStr for ListenAddress {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let invalid = || EndpointError::Invalid(text.into());
        match text.split_once(':') {
            Some(("vsock", port)) => Ok(Self::Vsock(port.parse().map_err(|_| invalid())?)),
            Some(("unix", path)) if !path.is_empty() => Ok(Self::Unix(path.into())),
            _ => Err(invalid()),
        }
    }
}

/// Why listening or accepting failed.
#[derive(Debug, Error)]
pub(crate) enum EndpointError {
    #[error("{0:?} is neither vsock:PORT nor unix:PATH")]
    Invalid(String),
    #[error("cannot listen on vsock port {port}{}", hint(*.source))]
    Vsock { port: u32, source: Errno },
    #[error("cannot listen on {}", path.display())]
    Unix { path: PathBuf, source: Errno },
    #[error("cannot accept a connection")]
    Accept(#[source] io::Error),
}

fn hint(errno: Errno) -> &'static str {
    match errno {
        Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL => {
            ": the kernel has no vsock; load vmw_vsock_virtio_transport"
        }
        Errno::EACCES => ": ports below 1024 need CAP_NET_BIND_SERVICE",
        _ => "",
    }
}

/// A listening socket.
#[derive(Debug)]
pub(super) struct Endpoint {
    socket: AsyncFd<OwnedFd>,
    address: ListenAddress,
}

impl Endpoint {
    /// Binds and listens. A Unix socket file that nobody serves any more is replaced.
    pub(super) fn listen(address: &ListenAddress) -> Result<Self, EndpointError> {
        let socket = match address {
            ListenAddress::Vsock(port) => {
                listen_vsock(*port).map_err(|source| EndpointError::Vsock {
                    port: *port,
                    source,
                })?
            }
            ListenAddress::Unix(path) => {
                listen_unix(path).map_err(|source| EndpointError::Unix {
                    path: path.clone(),
                    source,
                })?
            }
        };
        let socket = watch(socket, Interest::READABLE).map_err(EndpointError::Accept)?;
        Ok(Self {
            socket,
            address: address.clone(),
        })
    }

    /// The next connection that comes from the host; others are closed here, before a byte of theirs is read.
    pub(super) async fn accept(&self) -> Result<OwnedFd, EndpointError> {
        loop {
            let accepted = self.socket.async_io(Interest::READABLE, accept_one).await;
            let connection = accepted.map_err(EndpointError::Accept)?;
            match self.peer_is_the_host(&connection) {
                Ok(true) => return Ok(connection),
                Ok(false) => tracing::warn!("closed a connection that does not come from the host"),
                Err(errno) => tracing::warn!(%errno, "closed a connection without a peer address"),
            }
        }
    }

    fn peer_is_the_host(&self, connection: &OwnedFd) -> Result<bool, Errno> {
        if switches::is_off("peer check") {
            return Ok(true);
        }
        match self.address {
            ListenAddress::Vsock(_) => {
                Ok(getpeername::<VsockAddr>(connection.as_raw_fd())?.cid() == CID_HOST)
            }
            ListenAddress::Unix(_) => {
                let uid = Uid::from_raw(getsockopt(connection, PeerCredentials)?.uid());
                Ok(uid.is_root() || uid == Uid::effective())
            }
        }
    }
}

fn listen_vsock(port: u32) -> Result<OwnedFd, Errno> {
    let socket = stream_socket(AddressFamily::Vsock)?;
    bind(socket.as_raw_fd(), &VsockAddr::new(CID_ANY, port))?;
    listen(&socket, Backlog::new(BACKLOG)?)?;
    Ok(socket)
}

fn listen_unix(path: &Path) -> Result<OwnedFd, Errno> {
    let socket = stream_socket(AddressFamily::Unix)?;
    let address = UnixAddr::new(path.as_os_str().as_bytes())?;
    if is_abandoned(path, &address) {
        let _ = fs::remove_file(path);
    }
    bind(socket.as_raw_fd(), &address)?;
    listen(&socket, Backlog::new(BACKLOG)?)?;
    Ok(socket)
}

/// Whether a socket file is there that nobody accepts on.
fn is_abandoned(path: &Path, address: &UnixAddr) -> bool {
    let is_socket =
        fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    let Ok(probe) = stream_socket(AddressFamily::Unix) else {
        return false;
    };
    is_socket && nix::sys::socket::connect(probe.as_raw_fd(), address) == Err(Errno::ECONNREFUSED)
}

fn stream_socket(family: AddressFamily) -> Result<OwnedFd, Errno> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    socket(family, SockType::Stream, flags, None)
}

pub(super) fn accept_one(listening: &OwnedFd) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    Ok(own_received(accept4(listening.as_fd().as_raw_fd(), flags)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_or_refused() {
        assert_eq!(
            "vsock:9".parse::<ListenAddress>().unwrap(),
            ListenAddress::Vsock(9)
        );
        assert_eq!(
            "unix:/a:b".parse::<ListenAddress>().unwrap(),
            ListenAddress::Unix("/a:b".into())
        );
        for wrong in ["", "vsock:", "vsock:x", "unix:", "tcp:1", "/run/a"] {
            assert!(wrong.parse::<ListenAddress>().is_err(), "{wrong:?}");
        }
    }
}
