//! Why there is no connection, why one broke, and why listeners could not be listed.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use nix::errno::Errno;
use thiserror::Error;

use super::connect::TCP_LIMIT;

/// Why there is no connection.
#[derive(Debug, Error)]
pub(crate) enum ConnectError {
    #[error("{to}: {source}")]
    Tcp { to: SocketAddr, source: Errno },
    #[error("{to} did not answer within {} s", TCP_LIMIT.as_secs())]
    NoAnswer { to: SocketAddr },
    #[error("{}: {source}", path.display())]
    Unix { path: PathBuf, source: Errno },
}

/// What broke a connection that was open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum StreamError {
    #[error("cannot read from the socket")]
    Read(#[source] Errno),
    #[error("cannot write to the socket")]
    Write(#[source] Errno),
}

/// The kernel did not say who listens.
#[derive(Debug, Error)]
pub(crate) enum PortsError {
    #[error("cannot read {}", table.display())]
    Table { table: &'static Path, source: Errno },
    #[error("cannot ask the kernel for its Unix sockets")]
    List(#[source] Errno),
}
