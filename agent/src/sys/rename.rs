//! renameat2(2), which `nix` has for glibc alone, and musl as a function only of late.

use std::os::fd::{AsFd, AsRawFd};

use nix::{NixPath, errno::Errno, libc};

/// What becomes of the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RenameFlags {
    /// RENAME_NOREPLACE of include/uapi/linux/fs.h: EEXIST if it is there.
    NoReplace = 1,
    /// RENAME_EXCHANGE: both change places.
    Exchange = 2,
}

/// Renames from one open directory to another.
pub(crate) fn renameat2<P: NixPath + ?Sized, Q: NixPath + ?Sized>(
    from_directory: impl AsFd,
    from: &P,
    to_directory: impl AsFd,
    to: &Q,
    flags: RenameFlags,
) -> Result<(), Errno> {
    let from_directory = from_directory.as_fd().as_raw_fd();
    let to_directory = to_directory.as_fd().as_raw_fd();
    let result = from.with_nix_path(|from| {
        to.with_nix_path(|to| {
            // SAFETY: both strings end with NUL and outlive the call, which keeps neither; the kernel checks the
            // descriptors and flags, and writes no memory of ours.
            unsafe {
                libc::syscall(
                    libc::SYS_renameat2,
                    from_directory,
                    from.as_ptr(),
                    to_directory,
                    to.as_ptr(),
                    flags as libc::c_uint,
                )
            }
        })
    })??;
    Errno::result(result).map(drop)
}
