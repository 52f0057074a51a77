//! Pseudo-terminals, opened without a path and closed on exec from the first moment.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    libc,
    pty::{grantpt, posix_openpt, unlockpt},
};

/// In characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WindowSize {
    pub(crate) columns: u16,
    pub(crate) rows: u16,
}

/// Both ends of a new pseudo-terminal: ours, nonblocking, and the child's.
pub(crate) fn open(size: WindowSize) -> Result<(OwnedFd, OwnedFd), Errno> {
    let master =
        posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER (Linux 4.13) takes open flags as an integer.
    let peer = Errno::result(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) })?;
    // SAFETY: the kernel just made this descriptor, and nobody else owns it.
    let peer = unsafe { OwnedFd::from_raw_fd(peer) };
    let master = OwnedFd::from(master);
    resize(std::os::fd::AsFd::as_fd(&master), size)?;
    Ok((master, peer))
}

/// The kernel sends SIGWINCH to the foreground group.
pub(crate) fn resize(master: BorrowedFd<'_>, size: WindowSize) -> Result<(), Errno> {
    let size = libc::winsize {
        ws_row: size.rows,
        ws_col: size.columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCSWINSZ reads one winsize, which is alive.
    Errno::result(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSWINSZ, &size) }).map(drop)
}
