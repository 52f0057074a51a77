//! The host's side of a forwarding: a listener of TCP, or a Unix socket whose file goes with it.

use std::{
    fmt, fs,
    io::{self, ErrorKind},
    net::SocketAddr,
    path::PathBuf,
    pin::Pin,
    task::{Context, Poll},
};

use nix::sys::stat::{Mode, umask};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
};

use super::{super::failure::Failure, spec::LocalAddress};

/// Listens until it is dropped.
#[derive(Debug)]
pub(super) enum Local {
    Tcp(TcpListener, SocketAddr),
    Unix(UnixListener, SocketFile),
}

/// Removed with its listener.
#[derive(Debug)]
pub(super) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Somebody else may have removed it.
        let _ = fs::remove_file(&self.0);
    }
}

impl Local {
    pub(super) fn listen(address: &LocalAddress) -> Result<Self, Failure> {
        match address {
            LocalAddress::Tcp(address) => listen_tcp(*address).map_err(|error| Failure::Host {
                attempt: format!("cannot listen on {address} on this host"),
                error,
            }),
            LocalAddress::Unix(path) => {
                // Whoever connects is the user in the guest: the file is for its owner alone, from its beginning.
                let before = umask(Mode::from_bits_truncate(0o177));
                let bound = UnixListener::bind(path);
                umask(before);
                let listener = bound.map_err(|error| {
                    let next = match error.kind() {
                        ErrorKind::AddrInUse => "; remove the file if nobody listens there",
                        _ => "",
                    };
                    let path = super::super::output::printable_path(path);
                    Failure::Told(format!(
                        "cannot listen on {path} on this host: {error}{next}"
                    ))
                })?;
                Ok(Self::Unix(listener, SocketFile(path.clone())))
            }
        }
    }

    /// Cancel-safe.
    pub(super) async fn accept(&self) -> io::Result<LocalStream> {
        Ok(match self {
            Self::Tcp(listener, _) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                LocalStream::Tcp(stream)
            }
            Self::Unix(listener, _) => LocalStream::Unix(listener.accept().await?.0),
        })
    }
}

fn listen_tcp(address: SocketAddr) -> io::Result<Local> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let address = listener.local_addr()?;
    Ok(Local::Tcp(listener, address))
}

impl fmt::Display for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(_, address) => address.fmt(f),
            Self::Unix(_, file) => write!(f, "unix:{}", file.0.display()),
        }
    }
}

/// A connection of this host's.
#[derive(Debug)]
pub(super) enum LocalStream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl LocalStream {
    /// Closing it is then a reset and no orderly end; Unix sockets know no reset.
    pub(super) fn reset_on_drop(&self) {
        if let Self::Tcp(stream) = self {
            // It may be broken already.
            let _ = stream.set_zero_linger();
        }
    }
}

impl AsyncRead for LocalStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for LocalStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Self::Unix(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
