//! A connected socket of the guest: bytes both ways at the same time, each way ended by itself.
//!
//! ```text
//! connected ──finish──► half closed ──► dropped: an orderly end
//!     └─────────────────────────────► dropped: TCP resets, so that a cut stream is no complete one
//! ```

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use bytes::{Buf, Bytes};
use nix::{
    errno::Errno,
    libc,
    sys::socket::{MsgFlags, Shutdown, send, setsockopt, shutdown, sockopt::Linger},
    unistd,
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    net::TcpStream,
};

use super::{connect::UnixPeer, error::StreamError};
use crate::{
    sys::{child::available, errno_of},
    wary::WarySocket,
};

/// The largest piece that one read gives: a quarter of the largest frame carries vsock nearly as well, and bounds what a
/// stream holds.
pub(crate) const MAX_READ: usize = 256 * 1024;

/// Closed when it is dropped.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: WarySocket,
    is_tcp: bool,
}

impl Connection {
    pub(super) fn tcp(stream: TcpStream) -> io::Result<Self> {
        // The client's messages are its pieces: none waits for the acknowledgement of another.
        stream.set_nodelay(true)?;
        let connection = Self::new(stream.into_std()?.into(), true, true)?;
        connection.reset_on_drop(true)?;
        Ok(connection)
    }

    /// What [`super::connect_unix`] gives.
    pub(crate) fn unix(UnixPeer { socket, is_clean }: UnixPeer) -> io::Result<Self> {
        Self::new(socket, false, is_clean)
    }

    fn new(socket: OwnedFd, is_tcp: bool, is_clean: bool) -> io::Result<Self> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        let socket = WarySocket::new(socket, interest, is_clean)?;
        Ok(Self { socket, is_tcp })
    }

    /// What the guest sent, at most [`MAX_READ`]; nothing at its end. Cancel-safe.
    pub(crate) async fn read(&self) -> Result<Vec<u8>, StreamError> {
        let read = self.socket.read(read, MAX_READ).await;
        read.map_err(|error| StreamError::Read(errno_of(&error)))
    }

    /// Waits until the kernel has taken all.
    pub(crate) async fn write(&self, mut bytes: Bytes) -> Result<(), StreamError> {
        while !bytes.is_empty() {
            let sent = self.socket.get().async_io(Interest::WRITABLE, |socket| {
                let flags = MsgFlags::MSG_NOSIGNAL;
                send(socket.as_raw_fd(), &bytes, flags).map_err(io::Error::from)
            });
            let sent = sent
                .await
                .map_err(|error| StreamError::Write(errno_of(&error)))?;
            bytes.advance(sent);
        }
        Ok(())
    }

    /// Tells the guest that no more comes.
    pub(crate) fn finish(&self) -> Result<(), StreamError> {
        self.end_writing().map_err(StreamError::Write)
    }

    fn end_writing(&self) -> Result<(), Errno> {
        shutdown(self.socket.get().as_raw_fd(), Shutdown::Write)?;
        self.reset_on_drop(false)
    }

    fn reset_on_drop(&self, reset: bool) -> Result<(), Errno> {
        if !self.is_tcp {
            return Ok(());
        }
        // socket(7): closing with a linger time of zero discards what waits; TCP then sends a reset.
        let linger = libc::linger {
            l_onoff: reset.into(),
            l_linger: 0,
        };
        setsockopt(self.socket.get(), Linger, &linger)
    }
}

fn read(socket: &AsyncFd<OwnedFd>, most: usize) -> Result<Vec<u8>, Errno> {
    // Allocated to measure: an idle stream holds no buffer. A socket that is at its end has 0, and says so.
    let size = available(socket.as_fd()).unwrap_or(most);
    let mut chunk = vec![0; size.clamp(1, most)];
    let length = unistd::read(socket, &mut chunk)?;
    chunk.truncate(length);
    Ok(chunk)
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, UnixListener},
    };

    use super::{
        super::{ConnectError, connect_tcp, connect_unix},
        *,
    };

    async fn tcp_pair() -> (Connection, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (connection, accepted) = tokio::join!(connect_tcp(None, port), listener.accept());
        (connection.unwrap(), accepted.unwrap().0)
    }

    #[tokio::test]
    async fn each_way_ends_by_itself() {
        let (connection, mut guest) = tcp_pair().await;
        guest.write_all(b"first").await.unwrap();
        guest.shutdown().await.unwrap();
        assert_eq!(connection.read().await.unwrap(), b"first");
        assert_eq!(connection.read().await.unwrap(), b"");
        connection.write("second".into()).await.unwrap();
        connection.finish().unwrap();
        drop(connection);
        let mut rest = Vec::new();
        guest.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"second");
    }

    #[tokio::test]
    async fn a_dropped_connection_is_a_reset_and_not_an_end() {
        let (connection, mut guest) = tcp_pair().await;
        connection.write("half".into()).await.unwrap();
        guest.read_exact(&mut [0; 4]).await.unwrap();
        drop(connection);
        let error = guest.read(&mut [0; 1]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn a_unix_socket_is_connected_by_its_path_and_its_refusals_have_their_errno() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let errno = |path: &std::path::Path| match connect_unix(path).unwrap_err() {
            ConnectError::Unix { source, .. } => source,
            other => panic!("{other:?}"),
        };
        assert_eq!(errno(&path), Errno::ENOENT);
        assert_eq!(
            errno(&folder.path().join("x".repeat(108))),
            Errno::ENAMETOOLONG
        );
        let listener = UnixListener::bind(&path).unwrap();
        let connection = Connection::unix(connect_unix(&path).unwrap()).unwrap();
        let (mut guest, _) = listener.accept().await.unwrap();
        guest.write_all(b"hello").await.unwrap();
        assert_eq!(connection.read().await.unwrap(), b"hello");
        drop(listener);
        assert_eq!(errno(&path), Errno::ECONNREFUSED);
    }
}
