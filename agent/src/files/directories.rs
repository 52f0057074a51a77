//! Making directories.

use std::{
    fs::{self, DirBuilder},
    os::unix::fs::DirBuilderExt,
    path::Path,
};

use super::error::{At, FileError, Operation};

/// What a new directory gets, less the umask.
const NEW_DIRECTORY: u32 = 0o777;

/// mkdir(2); with `parents`, what is missing above it too, and then a directory that is there is a success.
pub(crate) fn make_directory(
    path: &Path,
    parents: bool,
    permissions: Option<u32>,
) -> Result<(), FileError> {
    if parents && let Some(parent) = path.parent() {
        fs::create_dir_all(parent).at(Operation::MakeDirectory, parent)?;
    }
    let made = DirBuilder::new()
        .mode(permissions.unwrap_or(NEW_DIRECTORY))
        .create(path);
    match made {
        Err(_) if parents && path.is_dir() => Ok(()),
        made => made.at(Operation::MakeDirectory, path),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use nix::errno::Errno;

    use super::*;

    #[test]
    fn parents_are_made_and_what_is_there_is_a_success_only_with_them() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b");
        let errno = |result| match result {
            Err(FileError::Refused { errno, .. }) => errno,
            other => panic!("{other:?}"),
        };
        assert_eq!(errno(make_directory(&path, false, None)), Errno::ENOENT);
        make_directory(&path, true, Some(0o700)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o700);
        make_directory(&path, true, None).unwrap();
        assert_eq!(errno(make_directory(&path, false, None)), Errno::EEXIST);
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        assert_eq!(errno(make_directory(&file, true, None)), Errno::EEXIST);
    }
}
