//! A socket that the listener handed over, as tonic wants it: vsock or Unix, it is one descriptor to read and write.

use std::{
    io::{self, IoSlice},
    os::fd::OwnedFd,
    pin::Pin,
    task::{Context, Poll, ready},
};

use nix::{errno::Errno, sys::uio::writev, unistd};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf, unix::AsyncFd};
use tonic::transport::server::Connected;

use super::activity::ConnectionGuard;
use crate::sys::{descriptors, readiness::watch};

/// A connection of the worker's user. Counts as activity until it is dropped.
#[derive(Debug)]
pub(super) struct HandedSocket {
    fd: AsyncFd<OwnedFd>,
    _open: ConnectionGuard,
}

impl HandedSocket {
    pub(super) fn new(fd: OwnedFd, open: ConnectionGuard) -> io::Result<Self> {
        descriptors::set_nonblocking(&fd)?;
        Ok(Self {
            fd: watch(fd, Interest::READABLE | Interest::WRITABLE)?,
            _open: open,
        })
    }

    fn poll_write_with(
        &self,
        context: &mut Context<'_>,
        write: impl Fn(&OwnedFd) -> Result<usize, Errno>,
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.fd.poll_write_ready(context))?;
            if let Ok(result) = ready.try_io(|fd| Ok(write(fd.get_ref())?)) {
                return Poll::Ready(result);
            }
        }
    }
}

impl AsyncRead for HandedSocket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.fd.poll_read_ready(context))?;
            let unfilled = buf.initialize_unfilled();
            if let Ok(result) = ready.try_io(|fd| Ok(unistd::read(fd.get_ref(), unfilled)?)) {
                return Poll::Ready(result.map(|length| buf.advance(length)));
            }
        }
    }
}

impl AsyncWrite for HandedSocket {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_with(context, |fd| unistd::write(fd, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_with(context, |fd| writev(fd, slices))
    }

    /// So that HTTP/2 sends a frame's head and its data without copying them together.
    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        use nix::sys::socket::{Shutdown, shutdown};
        use std::os::fd::AsRawFd;
        match shutdown(self.fd.as_raw_fd(), Shutdown::Write) {
            Ok(()) | Err(Errno::ENOTCONN) => Poll::Ready(Ok(())),
            Err(errno) => Poll::Ready(Err(errno.into())),
        }
    }
}

impl Connected for HandedSocket {
    type ConnectInfo = ();

    fn connect_info(&self) -> Self::ConnectInfo {}
}
