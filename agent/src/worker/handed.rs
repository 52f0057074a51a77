//! A socket that the listener handed over, as the server wants it: vsock or Unix, it is one descriptor to read and write.

use std::{
    io::{self, IoSlice},
    os::fd::OwnedFd,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use nix::{errno::Errno, sys::uio::writev, unistd};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf, unix::AsyncFd};

use super::{activity::ConnectionGuard, traffic::Traffic};
use crate::sys::{
    descriptors, errno_of,
    readiness::{read_into, watch},
};

/// A write that does not wait for others: an answer, and not file data.
const SMALL: usize = 16 * 1024;

/// A connection of the worker's user. Counts as activity until it is dropped.
#[derive(Debug)]
pub(super) struct HandedSocket {
    fd: AsyncFd<OwnedFd>,
    /// The same socket, watched for room while a large write waits for that. Not all the time: each small answer that the
    /// peer takes makes room, and would wake the worker for nothing.
    room: Option<AsyncFd<OwnedFd>>,
    traffic: Arc<Traffic>,
    _open: ConnectionGuard,
}

impl HandedSocket {
    pub(super) fn new(
        fd: OwnedFd,
        traffic: Arc<Traffic>,
        open: ConnectionGuard,
    ) -> io::Result<Self> {
        descriptors::set_nonblocking(&fd)?;
        Ok(Self {
            fd: watch(fd, Interest::READABLE)?,
            room: None,
            traffic,
            _open: open,
        })
    }

    /// Writes of `size` bytes what there is room for, which may have to be waited for.
    fn poll_write_with(
        &mut self,
        context: &mut Context<'_>,
        size: usize,
        write: impl Fn(&OwnedFd) -> Result<usize, Errno>,
    ) -> Poll<io::Result<usize>> {
        loop {
            let written = match &self.room {
                None => write(self.fd.get_ref()),
                Some(room) => {
                    let mut ready = ready!(room.poll_write_ready(context))?;
                    let tried = ready.try_io(|room| Ok(write(room.get_ref())?));
                    let Ok(result) = tried else { continue };
                    result.map_err(|error| errno_of(&error))
                }
            };
            match written {
                Err(Errno::EAGAIN) => {
                    let copy = self.fd.get_ref().try_clone()?;
                    self.room = Some(watch(copy, Interest::WRITABLE)?);
                }
                Err(errno) => return Poll::Ready(Err(errno.into())),
                Ok(length) => {
                    if size <= SMALL && length == size {
                        self.room = None;
                    }
                    self.traffic.add(length);
                    return Poll::Ready(Ok(length));
                }
            }
        }
    }
}

impl Drop for HandedSocket {
    fn drop(&mut self) {
        self.traffic.end();
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
            let room = buf.remaining();
            if let Ok(result) = ready.try_io(|fd| Ok(read_into(fd.get_ref(), buf)?)) {
                if result
                    .as_ref()
                    .is_ok_and(|&length| 0 < length && length < room)
                {
                    // There was no more (epoll(7), "edge-triggered"); what comes is told.
                    ready.clear_ready();
                }
                return Poll::Ready(result.map(|length| self.traffic.add(length)));
            }
        }
    }
}

impl AsyncWrite for HandedSocket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_with(context, bytes.len(), |fd| unistd::write(fd, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let size = slices.iter().map(|slice| slice.len()).sum();
        self.poll_write_with(context, size, |fd| writev(fd, slices))
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
