//! Descriptors that the runtime waits for.

use std::{io, os::fd::OwnedFd};

use tokio::io::unix::AsyncFd;

/// Has the runtime watch a descriptor, which must not block.
pub(crate) fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is one open descriptor, the same number until it is dropped, which is after its registration.
    let watched = unsafe { AsyncFd::register(fd) };
    Ok(watched?)
}
