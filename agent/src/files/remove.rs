//! Removing files, links and trees.

use std::{ffi::OsStr, fs, os::unix::ffi::OsStrExt, path::Path};

use nix::{
    errno::Errno,
    fcntl::AT_FDCWD,
    unistd::{UnlinkatFlags, unlinkat},
};

use super::{
    error::{At, FileError, Operation},
    metadata::Kind,
    place::split,
    stat,
};

/// Removes what the path names, never what a link there leads to.
pub(crate) fn remove(path: &Path, recursive: bool, missing_ok: bool) -> Result<(), FileError> {
    match remove_existing(path, recursive) {
        Err(FileError::Refused {
            errno: Errno::ENOENT,
            ..
        }) if missing_ok => Ok(()),
        result => result,
    }
}

fn remove_existing(path: &Path, recursive: bool) -> Result<(), FileError> {
    let (path, must_be_directory) = without_trailing_slashes(path);
    let kind = stat(path, false)?.kind;
    if must_be_directory && kind != Kind::Directory {
        return Err(Errno::ENOTDIR).at(Operation::Remove, path);
    }
    let (_, name) = split(path);
    // As rmdir(2) does; a recursive removal would find out after all else is gone.
    if name == "." {
        return Err(Errno::EINVAL).at(Operation::Remove, path);
    }
    if name == ".." {
        return Err(Errno::ENOTEMPTY).at(Operation::Remove, path);
    }
    match kind {
        // Holds each directory open on the way down and refuses links there.
        Kind::Directory if recursive => fs::remove_dir_all(path).at(Operation::Remove, path),
        Kind::Directory => {
            unlinkat(AT_FDCWD, path, UnlinkatFlags::RemoveDir).at(Operation::Remove, path)
        }
        _ => unlinkat(AT_FDCWD, path, UnlinkatFlags::NoRemoveDir).at(Operation::Remove, path),
    }
}

/// With a slash behind it the kernel follows even a link that must not be followed.
fn without_trailing_slashes(path: &Path) -> (&Path, bool) {
    let bytes = path.as_os_str().as_bytes();
    let end = bytes.iter().rposition(|&byte| byte != b'/');
    match end {
        Some(last) if last + 1 < bytes.len() => {
            (Path::new(OsStr::from_bytes(&bytes[..=last])), true)
        }
        _ => (path, false),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn errno(result: Result<(), FileError>) -> Errno {
        match result {
            Err(FileError::Refused { errno, .. }) => errno,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_tree_goes_and_what_its_links_lead_to_stays() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name| directory.path().join(name);
        fs::create_dir_all(at("tree/sub")).unwrap();
        fs::create_dir(at("kept")).unwrap();
        fs::write(at("kept/file"), "").unwrap();
        symlink(at("kept"), at("tree/sub/link")).unwrap();
        symlink("tree", at("to-tree")).unwrap();
        assert_eq!(errno(remove(&at("tree"), false, false)), Errno::ENOTEMPTY);
        assert_eq!(errno(remove(&at("to-tree/"), true, false)), Errno::ENOTDIR);
        assert_eq!(errno(remove(&at("tree/sub/."), true, false)), Errno::EINVAL);
        remove(&at("to-tree"), true, false).unwrap();
        assert!(at("tree/sub/link").is_symlink() && !at("to-tree").is_symlink());
        remove(&at("tree/"), true, false).unwrap();
        assert!(!at("tree").exists() && at("kept/file").exists());
    }

    #[test]
    fn what_is_missing_is_a_success_only_where_that_is_asked() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("missing");
        for recursive in [false, true] {
            assert_eq!(errno(remove(&path, recursive, false)), Errno::ENOENT);
            remove(&path, recursive, true).unwrap();
        }
        fs::write(&path, "").unwrap();
        remove(&path, true, false).unwrap();
        fs::create_dir(&path).unwrap();
        remove(&path, false, false).unwrap();
        assert!(!path.exists());
    }
}
