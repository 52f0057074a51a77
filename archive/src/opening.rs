//! Opening what somebody else may have a say in.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::{
    NixPath,
    errno::Errno,
    fcntl::{OFlag, open, openat},
    sys::stat::{Mode, SFlag, fstat},
};

/// openat(2) that waits for no FIFO's other end, and gives no terminal and no descriptor to a program.
///
/// It does wait for a regular file that somebody has a lease on (F_SETLEASE, fcntl(2)), as an ordinary open does: until the
/// holder gives it up, or the kernel takes it after /proc/sys/fs/lease-break-time, which is 45 s unless changed. Otherwise
/// a lease on one file of a tree would be enough to keep anybody from copying the tree.
pub fn open_harmlessly<P: NixPath + ?Sized>(
    at: impl AsFd,
    name: &P,
    flags: OFlag,
    mode: Mode,
) -> Result<OwnedFd, Errno> {
    let always = OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    match openat(&at, name, flags | always | OFlag::O_NONBLOCK, mode) {
        Err(Errno::EWOULDBLOCK) => {}
        opened => return opened,
    }
    let follow = flags & OFlag::O_NOFOLLOW;
    let held = openat(at, name, OFlag::O_PATH | always | follow, Mode::empty())?;
    if SFlag::from_bits_truncate(fstat(&held)?.st_mode) & SFlag::S_IFMT != SFlag::S_IFREG {
        return Err(Errno::EWOULDBLOCK);
    }
    // What is held stays what it is; the name may be a FIFO's by now.
    let itself = format!("/proc/self/fd/{}", held.as_raw_fd());
    let of_names = OFlag::O_NOFOLLOW | OFlag::O_CREAT | OFlag::O_EXCL;
    loop {
        match open(itself.as_str(), (flags - of_names) | always, Mode::empty()) {
            Err(Errno::EINTR) => {}
            opened => return opened,
        }
    }
}
