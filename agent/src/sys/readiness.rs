//! Descriptors whose readiness the runtime watches.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use nix::{errno::Errno, libc};
use tokio::io::{Interest, ReadBuf, unix::AsyncFd};

/// Watches the descriptor until the result is dropped, which closes it. Must be called on a runtime.
pub(crate) fn watch(descriptor: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd names one descriptor, always the same, which stays open for as long as the result owns it.
    let watched = unsafe { AsyncFd::register_with_interest(descriptor, interest) };
    watched.map_err(io::Error::from)
}

/// read(2) into memory that nobody has cleared for it: to clear a mebibyte before each read of some kibibytes costs more
/// than the read.
pub(crate) fn read_into(descriptor: &OwnedFd, buffer: &mut ReadBuf<'_>) -> Result<usize, Errno> {
    // SAFETY: nothing but the kernel's bytes is written there.
    let room = unsafe { buffer.unfilled_mut() };
    let (start, length) = (room.as_mut_ptr().cast(), room.len());
    // SAFETY: the memory is ours, and as long as said.
    let read = Errno::result(unsafe { libc::read(descriptor.as_raw_fd(), start, length) })?;
    let read = read.cast_unsigned();
    // SAFETY: the kernel has just written so many bytes.
    unsafe { buffer.assume_init(read) };
    buffer.advance(read);
    Ok(read)
}
