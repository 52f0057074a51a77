//! Renaming, atomically.

use std::path::Path;

use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, renameat},
};

use super::error::{At, FileError, Operation};
use crate::sys::{self, RenameFlags};

/// What becomes of the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RenameMode {
    Replace,
    NoReplace,
    Exchange,
}

/// renameat2(2).
pub(crate) fn rename(from: &Path, to: &Path, mode: RenameMode) -> Result<(), FileError> {
    let renamed = match mode {
        RenameMode::Replace => renameat(AT_FDCWD, from, AT_FDCWD, to),
        RenameMode::NoReplace => {
            sys::renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::NoReplace)
        }
        RenameMode::Exchange => sys::renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::Exchange),
    };
    let about = match renamed {
        // These can only be about the target.
        Err(Errno::EEXIST | Errno::ENOTEMPTY | Errno::EISDIR) => to,
        _ => from,
    };
    renamed.at(Operation::Rename, about)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn each_mode_treats_the_target_as_it_says() {
        let directory = tempfile::tempdir().unwrap();
        let (one, two) = (directory.path().join("one"), directory.path().join("two"));
        let read = |path: &Path| fs::read_to_string(path).unwrap();
        fs::write(&one, "1").unwrap();
        let error = rename(&one, &two, RenameMode::Exchange).unwrap_err();
        assert!(matches!(
            error,
            FileError::Refused {
                errno: Errno::ENOENT,
                ..
            }
        ));
        fs::write(&two, "2").unwrap();
        let error = rename(&one, &two, RenameMode::NoReplace).unwrap_err();
        assert!(matches!(
            error,
            FileError::Refused {
                errno: Errno::EEXIST,
                ..
            }
        ));
        assert_eq!((read(&one), read(&two)), ("1".into(), "2".into()));
        rename(&one, &two, RenameMode::Exchange).unwrap();
        assert_eq!((read(&one), read(&two)), ("2".into(), "1".into()));
        rename(&one, &two, RenameMode::Replace).unwrap();
        assert!(!one.exists());
        assert_eq!(read(&two), "2");
        rename(&two, &one, RenameMode::NoReplace).unwrap();
        assert_eq!(read(&one), "2");
    }
}
