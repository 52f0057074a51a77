//! A Unix socket whose other end may be a hostile user's.
//!
//! With what is sent there may come descriptors. They are not taken: the kernel discards them, and closes each. That close may
//! wait for as long as the user wants (a TCP socket with SO_LINGER, socket(7); a file of a FUSE that does not answer),
//! and it is in the thread that reads, or that closes this end with something unread. So the kernel is asked to refuse
//! descriptors where it can (Linux 6.16); otherwise both are done on a thread of their own, and only this socket's user
//! waits.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use nix::errno::Errno;
use tokio::{
    io::{Interest, unix::AsyncFd},
    runtime::Handle,
    sync::Mutex,
    task::{JoinHandle, spawn_blocking},
};

use crate::sys::{descriptors, readiness::watch};

/// Reads once, without waiting.
pub(crate) type Read = fn(&AsyncFd<OwnedFd>, usize) -> Result<Vec<u8>, Errno>;

/// The socket, watched for readiness.
#[derive(Debug)]
pub(crate) struct WarySocket {
    /// `None` from its drop on.
    socket: Option<Arc<AsyncFd<OwnedFd>>>,
    /// Whether nothing that is sent can hold a descriptor.
    is_clean: bool,
    /// A read that is under way on a thread of its own. Whoever gave it up leaves it to the next.
    reading: Mutex<Option<JoinHandle<io::Result<Vec<u8>>>>>,
}

/// Has the kernel refuse descriptors from now on. Whether it does, for [`WarySocket::new`].
pub(crate) fn refuse_descriptors(socket: impl AsFd) -> bool {
    descriptors::refuse_passed(socket.as_fd()).is_ok()
}

impl WarySocket {
    /// `is_clean`: nothing that was or will be sent can hold a descriptor. Must be called within a tokio runtime.
    pub(crate) fn new(socket: OwnedFd, interest: Interest, is_clean: bool) -> io::Result<Self> {
        descriptors::set_nonblocking(&socket)?;
        Ok(Self {
            socket: Some(Arc::new(watch(socket, interest)?)),
            is_clean,
            reading: Mutex::default(),
        })
    }

    /// For all but reading.
    pub(crate) fn get(&self) -> &Arc<AsyncFd<OwnedFd>> {
        self.socket.as_ref().expect("it is there until the drop")
    }

    /// Waits until there is something, and reads it, at most so many bytes. Cancel-safe.
    pub(crate) async fn read(&self, read: Read, limit: usize) -> io::Result<Vec<u8>> {
        loop {
            let mut ready = self.get().readable().await?;
            match self.read_now(read, limit).await {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                result => return result,
            }
        }
    }

    /// What is there already, else WouldBlock. Cancel-safe.
    pub(crate) async fn read_now(&self, read: Read, limit: usize) -> io::Result<Vec<u8>> {
        if self.is_clean {
            return Ok(read(self.get(), limit)?);
        }
        let mut reading = self.reading.lock().await;
        let under_way = reading.get_or_insert_with(|| {
            let socket = Arc::clone(self.get());
            spawn_blocking(move || Ok(read(&socket, limit)?))
        });
        let result = under_way.await;
        *reading = None;
        result.map_err(io::Error::other)?
    }
}

impl Drop for WarySocket {
    fn drop(&mut self) {
        let socket = self.socket.take();
        if let (false, Ok(runtime)) = (self.is_clean, Handle::try_current()) {
            runtime.spawn_blocking(move || drop(socket));
        }
    }
}
