//! The kernel's word in an error of the standard library.

use std::io;

use nix::errno::Errno;

/// Its errno. The standard library makes a few errors itself (a write of no bytes, say): those are EIO.
pub(crate) fn errno_of(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
