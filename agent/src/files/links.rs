//! Hard and symbolic links.

use std::{ffi::OsString, fs, os::unix::fs::symlink, path::Path};

use nix::fcntl::readlink;

use super::error::{At, FileError, Operation};

/// link(2): a second name of an existing file, which is not followed if it is a symbolic link.
pub(crate) fn hard_link(existing: &Path, path: &Path) -> Result<(), FileError> {
    // Linux's link(2), and with it the standard library, does not follow.
    fs::hard_link(existing, path).at(Operation::Link, path)
}

/// symlink(2): the text is kept as it is.
pub(crate) fn symbolic_link(text: &Path, path: &Path) -> Result<(), FileError> {
    symlink(text, path).at(Operation::Link, path)
}

/// readlink(2): the text of a symbolic link.
pub(crate) fn read_link(path: &Path) -> Result<OsString, FileError> {
    readlink(path).at(Operation::ReadLink, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn links_are_made_as_they_are_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name| directory.path().join(name);
        fs::write(at("file"), "").unwrap();
        symbolic_link(Path::new("file"), &at("soft")).unwrap();
        assert_eq!(read_link(&at("soft")).unwrap(), "file");
        hard_link(&at("file"), &at("hard")).unwrap();
        assert_eq!(fs::metadata(at("file")).unwrap().nlink(), 2);
        hard_link(&at("soft"), &at("soft-too")).unwrap();
        assert!(at("soft-too").is_symlink());
        assert!(read_link(&at("file")).is_err());
    }
}
