//! Opening one connection: the socket, the VMM's `CONNECT`, the hello. Called by tonic's channel whenever it needs a
//! connection; what goes wrong here becomes the error of the operation that needed it.

use std::{io, sync::Arc, time::Duration};

use guestline_proto::hello::{Hello, HelloError, MAX_LINE, Reply, Username};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::UnixStream,
    time::timeout,
};
use tokio_vsock::{VsockAddr, VsockStream};

use crate::{Endpoint, RefusalReason};

/// The longest answer to CONNECT: `OK` and a port take 14 bytes, and this leaves room for a VMM's words.
const MAX_CONNECT_ANSWER: usize = 128;

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
    /// The whole connecting took too long.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// The VMM did not answer CONNECT with OK.
    #[error("the VMM's socket answered {0:?} to CONNECT")]
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
    /// An agent that speaks another version of the protocol.
    #[error("the agent speaks another version of the protocol")]
    OtherVersion(#[source] HelloError),
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

/// A connected byte stream of any kind.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// Connects and becomes `user`: HTTP/2 follows on the stream. Takes at most `limit`.
pub(crate) async fn connect(
    endpoint: &Endpoint,
    user: &str,
    limit: Duration,
) -> Result<Box<dyn Io>, ConnectError> {
    let user = Username::try_from(user).map_err(|source| ConnectError::InvalidUser {
        user: user.into(),
        source,
    })?;
    let connecting = async {
        let mut stream = open(endpoint).await?;
        greet(&mut stream, user).await?;
        Ok(stream)
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

/// `CONNECT port` and its `OK …`, no byte more.
async fn connect_through(stream: &mut (impl Io + ?Sized), port: u32) -> Result<(), ConnectError> {
    // A VMM that closes under our write may have said why before.
    let request = format!("CONNECT {port}\n");
    let _ = stream.write_all(request.as_bytes()).await;
    let line = match read_line(stream, MAX_CONNECT_ANSWER).await {
        Ok(line) => line,
        Err(LineError::Closed) => return Err(ConnectError::NobodyInGuest),
        Err(LineError::TooLong(start)) => return Err(ConnectError::Handshake(printable(&start))),
        Err(LineError::Io(error)) => return Err(socket_error(error)),
    };
    match line.strip_prefix(b"OK") {
        Some(rest) if rest.is_empty() || rest[0] == b' ' => Ok(()),
        _ => Err(ConnectError::Handshake(printable(&line))),
    }
}

/// The hello and its reply, no byte more.
async fn greet(stream: &mut (impl Io + ?Sized), user: Username) -> Result<(), ConnectError> {
    let hello = Hello { user }.to_line();
    // A peer that refuses before it reads may close under our write; its words are still there to be read.
    let sent = stream.write_all(hello.as_bytes()).await;
    let line = match (read_line(stream, MAX_LINE).await, sent) {
        (Ok(line), _) => line,
        (Err(LineError::Closed), Ok(())) => return Err(ConnectError::Closed),
        (Err(LineError::TooLong(_)), _) => {
            return Err(ConnectError::NotAnAgent(HelloError::NotAReply));
        }
        (Err(LineError::Io(error)), _) | (Err(LineError::Closed), Err(error)) => {
            return Err(socket_error(error));
        }
    };
    if line.starts_with(b"guestline/") {
        let other = HelloError::OtherProtocol(printable(&line));
        return Err(ConnectError::OtherVersion(other));
    }
    match Reply::parse(&line).map_err(ConnectError::NotAnAgent)? {
        Reply::Ok { .. } => Ok(()),
        Reply::Refused { reason, text } => {
            let text = printable(text.as_bytes());
            Err(ConnectError::Refused { reason, text })
        }
    }
}

enum LineError {
    Closed,
    TooLong(Vec<u8>),
    Io(io::Error),
}

/// A line without its `\n`. Byte by byte, because what follows belongs to HTTP/2.
async fn read_line(stream: &mut (impl Io + ?Sized), max: usize) -> Result<Vec<u8>, LineError> {
    let mut line = Vec::with_capacity(64);
    loop {
        match stream.read_u8().await {
            Ok(b'\n') => return Ok(line),
            Ok(_) if line.len() + 1 >= max => return Err(LineError::TooLong(line)),
            Ok(byte) => line.push(byte),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(LineError::Closed);
            }
            Err(error) => return Err(LineError::Io(error)),
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

/// A stranger's bytes, fit to be shown.
fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests;
