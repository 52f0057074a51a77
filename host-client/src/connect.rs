//! Opening one connection: the socket, then the handshakes. Called by tonic's channel whenever it needs a connection; what
//! goes wrong here becomes the error of the operation that needed it.

mod corked;
pub(crate) mod handshake;

use std::{io, sync::Arc, time::Duration};

use guestline_proto::{
    hello::{HelloError, Username},
    proof::ProofError,
    secret::Secret,
};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixStream,
    time::timeout,
};
use tokio_vsock::{VsockAddr, VsockStream};

use crate::{Endpoint, RefusalReason};
pub(crate) use corked::Corked;
use handshake::{connect_through, greet};

/// Why no connection to an agent came about.
#[derive(Clone, Debug, Error)]
pub enum ConnectError {
    /// The socket's file is not there, or there is no such vsock guest.
    #[error("there is no such socket or guest")]
    NoSuchSocket(#[source] Arc<io::Error>),
    /// Nobody listens.
    #[error("nobody listens there")]
    NobodyListens(#[source] Arc<io::Error>),
    /// The host's kernel does not let this process use the socket.
    #[error("this host does not let you use that socket")]
    NotPermitted(#[source] Arc<io::Error>),
    /// Another failure of the host's sockets.
    #[error("the connection failed")]
    Socket(#[source] Arc<io::Error>),
    /// HTTP/2 did not begin on the connection.
    #[error("HTTP/2 did not begin on the connection")]
    Http2(#[source] Arc<hyper::Error>),
    /// The whole connecting took too long.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// The VMM did not answer CONNECT with OK.
    #[error("the VMM's socket answered \"{0}\" to CONNECT")]
    Handshake(String),
    /// The VMM closed its socket at CONNECT, as it does when nobody listens in the guest.
    #[error("the VMM closed the connection: nothing listens on that port in the guest")]
    NobodyInGuest,
    /// The peer closed instead of answering the hello.
    #[error("the peer closed the connection instead of answering")]
    Closed,
    /// The peer is something else.
    #[error("the peer is not a Guestline agent")]
    NotAnAgent(#[source] HelloError),
    /// The agent did not prove that it has the VM's secret, and so is not the VM that was meant: one whose agent has no
    /// secret, or another's, or somebody in between.
    #[error("the agent did not prove that it has the VM's secret")]
    Unproven(#[source] ProofError),
    /// This host has no random bytes to begin a proof with.
    #[error("this host gives no random bytes")]
    NoRandom(#[source] Arc<io::Error>),
    /// A name that cannot be sent.
    #[error("{user:?} cannot be a Linux user's name")]
    InvalidUser {
        /// The name.
        user: String,
        /// What names look like.
        source: HelloError,
    },
    /// The agent answered, and said no.
    #[error("the agent refused: {text}")]
    Refused {
        /// Why; absent if a newer agent knows more reasons than this client.
        reason: Option<RefusalReason>,
        /// The agent's words.
        text: String,
    },
}

impl ConnectError {
    /// The task that connects was ended, as it is with its runtime.
    pub(crate) fn stopped(error: tokio::task::JoinError) -> Self {
        Self::Socket(Arc::new(io::Error::other(error)))
    }
}

/// A connected byte stream of any kind.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// Connects and becomes `user`, who has the uid that comes back: HTTP/2 follows on the stream. With a secret, both sides have
/// proved that they have it. Takes at most `limit`.
pub(crate) async fn connect(
    endpoint: &Endpoint,
    user: &str,
    secret: Option<&Secret>,
    limit: Duration,
) -> Result<(Box<dyn Io>, u32), ConnectError> {
    let user = Username::try_from(user).map_err(|source| ConnectError::InvalidUser {
        user: user.into(),
        source,
    })?;
    let connecting = async {
        let mut stream = open(endpoint).await?;
        let uid = greet(&mut stream, user, secret).await?;
        Ok((stream, uid))
    };
    timeout(limit, connecting)
        .await
        .map_err(|_| ConnectError::TimedOut(limit))?
}

async fn open(endpoint: &Endpoint) -> Result<Box<dyn Io>, ConnectError> {
    match endpoint {
        Endpoint::Vsock { cid, port } => {
            let stream = VsockStream::connect(VsockAddr::new(*cid, *port)).await;
            Ok(Box::new(stream.map_err(socket_error)?))
        }
        Endpoint::Unix { path } => Ok(Box::new(
            UnixStream::connect(path).await.map_err(socket_error)?,
        )),
        Endpoint::Hybrid { path, port } => {
            let mut stream = UnixStream::connect(path).await.map_err(socket_error)?;
            connect_through(&mut stream, *port).await?;
            Ok(Box::new(stream))
        }
    }
}

fn socket_error(error: io::Error) -> ConnectError {
    // connect(2) to a vsock CID that no guest has is ENODEV.
    const ENODEV: i32 = 19;
    let kind = error.kind();
    let no_device = error.raw_os_error() == Some(ENODEV);
    let error = Arc::new(error);
    match kind {
        _ if no_device => ConnectError::NoSuchSocket(error),
        io::ErrorKind::NotFound => ConnectError::NoSuchSocket(error),
        // What a vsock connect gives where nobody listens.
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => {
            ConnectError::NobodyListens(error)
        }
        io::ErrorKind::PermissionDenied => ConnectError::NotPermitted(error),
        _ => ConnectError::Socket(error),
    }
}

#[cfg(test)]
mod tests;
