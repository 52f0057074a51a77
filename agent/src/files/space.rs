//! Size and free space of the file system that holds a path.

use std::path::Path;

use nix::sys::statvfs::{Statvfs, statvfs};

use super::error::{At, FileError, Operation};

/// statvfs(3).
pub(crate) fn space(path: &Path) -> Result<Statvfs, FileError> {
    statvfs(path).at(Operation::Space, path)
}
