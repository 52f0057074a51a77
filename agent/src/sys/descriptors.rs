//! Descriptors: taking ownership of received ones, flags, and closing what a fresh process must not have.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    libc,
};

use super::errno_of;

/// Owns a descriptor that the kernel has just given this process in an SCM_RIGHTS message.
pub(crate) fn own_received(fd: RawFd) -> OwnedFd {
    // SAFETY: recvmsg(2) has just installed this descriptor, and its number was taken out of the message once.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// SO_PASSRIGHTS of asm-generic/socket.h: 1 unless set to 0.
const SO_PASSRIGHTS: i32 = 83;

/// Has the kernel refuse (EPERM) what is sent to this Unix socket with descriptors. Linux 6.16; ENOPROTOOPT before.
pub(crate) fn refuse_passed(socket: BorrowedFd<'_>) -> Result<(), Errno> {
    let off: i32 = 0;
    // SAFETY: the option is an int, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PASSRIGHTS,
            (&raw const off).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    Errno::result(result).map(drop)
}

/// Sets O_NONBLOCK.
pub(crate) fn set_nonblocking(fd: impl AsFd) -> Result<(), Errno> {
    let flags = OFlag::from_bits_retain(fcntl(fd.as_fd(), FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).map(drop)
}

/// Closes every descriptor from `first` on: close_range(2), Linux 5.9. Only for a process that has just been executed and
/// owns none of them.
pub(crate) fn close_from(first: u32) -> Result<(), Errno> {
    // SAFETY: no Rust value owns a descriptor from `first` on: the caller is at the start of `main`.
    let result = unsafe { libc::close_range(first, u32::MAX, 0) };
    Errno::result(result).map(drop)
}

/// A duplicate of descriptor 0, close-on-exec; 0 itself then reads from /dev/null.
pub(crate) fn take_stdin() -> Result<OwnedFd, Errno> {
    let taken = std::io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .map_err(|error| errno_of(&error))?;
    let null = std::fs::File::open("/dev/null").map_err(|error| errno_of(&error))?;
    // SAFETY: both are open; descriptor 0 has no owner in Rust but the standard handle, which stays valid.
    let result = unsafe { libc::dup2(null.as_raw_fd(), 0) };
    Errno::result(result)?;
    Ok(taken)
}

/// What is written to descriptors 1 and 2 goes nowhere from now on.
pub(crate) fn silence_output() -> Result<(), Errno> {
    let null = std::fs::File::options().write(true).open("/dev/null");
    let null = null.map_err(|error| errno_of(&error))?;
    for target in [1, 2] {
        // SAFETY: both are open or may be; they have no owner in Rust but the standard handles, which stay valid.
        Errno::result(unsafe { libc::dup2(null.as_raw_fd(), target) })?;
    }
    Ok(())
}
