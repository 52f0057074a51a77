//! FIFREEZE and FITHAW of linux/fs.h, which `nix` has no calls for. Both want CAP_SYS_ADMIN.

use std::os::fd::{AsFd, AsRawFd};

use nix::{errno::Errno, libc};

/// `_IOWR('X', 119, int)` and `_IOWR('X', 120, int)`.
const FIFREEZE: libc::c_ulong = 0xc004_5877;
const FITHAW: libc::c_ulong = 0xc004_5878;

/// Writes out the file system of that descriptor and holds every writer from then on. EBUSY if it is frozen, EOPNOTSUPP if
/// it cannot freeze.
pub(crate) fn freeze(descriptor: impl AsFd) -> Result<(), Errno> {
    // SAFETY: FIFREEZE takes no argument, whatever its number says.
    let done = unsafe { libc::ioctl(descriptor.as_fd().as_raw_fd(), FIFREEZE as _, 0) };
    Errno::result(done).map(drop)
}

/// Lets writers go on. EINVAL if it is not frozen.
pub(crate) fn thaw(descriptor: impl AsFd) -> Result<(), Errno> {
    // SAFETY: the same.
    let done = unsafe { libc::ioctl(descriptor.as_fd().as_raw_fd(), FITHAW as _, 0) };
    Errno::result(done).map(drop)
}
