//! Each mode of a write, and what is left of one that did not end.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};

use nix::unistd::mkfifo;
use tempfile::TempDir;

use super::*;

fn request(path: impl Into<PathBuf>, mode: WriteMode) -> Write {
    Write {
        path: path.into(),
        mode,
        permissions: None,
        parents: false,
        sync: false,
    }
}

fn pieces(content: &'static str) -> impl Iterator<Item = Piece> {
    let (one, two) = content.split_at(content.len() / 2);
    let data = [one, two].map(|part| Piece::Data(Bytes::from(part)));
    let finish = Piece::Finish(content.len() as u64);
    data.into_iter().chain([finish])
}

/// A directory with a file of a known content.
fn with_file(content: &str) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    fs::write(&path, content).unwrap();
    (directory, path)
}

fn names(directory: &TempDir) -> Vec<String> {
    let entries = fs::read_dir(directory.path()).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn mode_of(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn each_mode_treats_what_is_there_as_it_says() {
    for (mode, after) in [
        (WriteMode::Replace, "NEW"),
        (WriteMode::Truncate, "NEW"),
        (WriteMode::Append, "0123456789NEW"),
        (WriteMode::At(4), "0123NEW789"),
        (WriteMode::At(12), "0123456789\0\0NEW"),
    ] {
        let (directory, path) = with_file("0123456789");
        let mut request = request(&path, mode);
        request.sync = true;
        let written = write(&request, pieces("NEW")).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), after, "{mode:?}");
        assert_eq!(written.bytes, 3);
        assert_eq!(written.metadata.size, after.len() as u64);
        assert_eq!(written.metadata.inode, fs::metadata(&path).unwrap().ino());
        assert_eq!(names(&directory), ["file"]);
    }
}

#[test]
fn each_mode_creates_what_is_missing_with_its_parents() {
    for mode in [
        WriteMode::Replace,
        WriteMode::Truncate,
        WriteMode::Append,
        WriteMode::CreateNew,
        WriteMode::At(0),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b/file");
        let mut request = request(&path, mode);
        let error = write(&request, pieces("x")).unwrap_err();
        assert!(matches!(
            error,
            FileError::Refused {
                errno: Errno::ENOENT,
                ..
            }
        ));
        request.parents = true;
        request.sync = true;
        request.permissions = Some(0o640);
        write(&request, pieces("content")).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "content", "{mode:?}");
        assert_eq!(mode_of(&path), 0o640);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }
}

#[test]
fn create_new_refuses_even_a_dangling_link() {
    let (directory, path) = with_file("old");
    let link = directory.path().join("link");
    symlink("nowhere", &link).unwrap();
    for path in [path, link] {
        let error = write(&request(path, WriteMode::CreateNew), pieces("new")).unwrap_err();
        assert!(matches!(
            error,
            FileError::Refused {
                errno: Errno::EEXIST,
                ..
            }
        ));
    }
    assert_eq!(names(&directory), ["file", "link"]);
}

#[test]
fn create_new_refuses_a_name_that_was_taken_meanwhile() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    let taken = pieces("new").inspect(|piece| {
        if matches!(piece, Piece::Finish(_)) {
            fs::write(&path, "theirs").unwrap();
        }
    });
    let error = write(&request(&path, WriteMode::CreateNew), taken).unwrap_err();
    assert!(matches!(
        error,
        FileError::Refused {
            errno: Errno::EEXIST,
            ..
        }
    ));
    assert_eq!(fs::read_to_string(&path).unwrap(), "theirs");
    assert_eq!(names(&directory), ["file"]);
}

#[test]
fn an_aborted_write_leaves_the_old_content_and_nothing_else() {
    let (directory, path) = with_file("old");
    let other = directory.path().join("other");
    for (path, mode) in [
        (&path, WriteMode::Replace),
        (&other, WriteMode::Replace),
        (&other, WriteMode::CreateNew),
    ] {
        let cut = pieces("new content").take(2);
        let error = write(&request(path, mode), cut).unwrap_err();
        assert_eq!(error, FileError::Incomplete { path: path.clone() });
        let wrong = [Piece::Data(Bytes::from("12")), Piece::Finish(3)];
        let error = write(&request(path, mode), wrong.into_iter()).unwrap_err();
        assert!(matches!(
            error,
            FileError::SizeMismatch {
                sent: 3,
                arrived: 2,
                ..
            }
        ));
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), "old");
    assert_eq!(names(&directory), ["file"]);
}

#[test]
fn the_old_content_is_there_until_the_new_one_is_whole() {
    let (directory, path) = with_file("old");
    let watched = pieces("new").inspect(|_| {
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(names(&directory), ["file"]);
    });
    write(&request(&path, WriteMode::Replace), watched).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "new");
}

#[test]
fn replace_writes_through_links_also_dangling_ones() {
    let (directory, path) = with_file("old");
    fs::create_dir(directory.path().join("sub")).unwrap();
    let link = directory.path().join("sub/link");
    symlink("../file", &link).unwrap();
    write(&request(&link, WriteMode::Replace), pieces("new")).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "new");
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());

    let dangling = directory.path().join("dangling");
    symlink("sub/made", &dangling).unwrap();
    write(&request(&dangling, WriteMode::Replace), pieces("made")).unwrap();
    assert!(fs::symlink_metadata(&dangling).unwrap().is_symlink());
    let made = directory.path().join("sub/made");
    assert_eq!(fs::read_to_string(made).unwrap(), "made");
}

#[test]
fn replace_keeps_mode_and_owner_without_set_id_bits() {
    let (_directory, path) = with_file("old");
    if nix::unistd::geteuid().is_root() {
        chown(&path, Some(12), Some(34)).unwrap();
    }
    let before = fs::metadata(&path).unwrap();
    set_mode(&path, 0o6751);
    write(&request(&path, WriteMode::Replace), pieces("new")).unwrap();
    let after = fs::metadata(&path).unwrap();
    assert_eq!(after.mode() & 0o7777, 0o751);
    assert_eq!((after.uid(), after.gid()), (before.uid(), before.gid()));
    assert_ne!(after.ino(), before.ino());
}

#[test]
fn permissions_that_are_given_are_the_result_of_replace() {
    let (directory, path) = with_file("old");
    let new = directory.path().join("new");
    for path in [path, new] {
        let mut request = request(&path, WriteMode::Replace);
        request.permissions = Some(0o4777);
        write(&request, pieces("new")).unwrap();
        assert_eq!(mode_of(&path), 0o4777);
    }
}

#[test]
fn no_mode_writes_to_what_is_no_file() {
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("fifo");
    mkfifo(&fifo, Mode::from_bits_truncate(0o600)).unwrap();
    let to_fifo = directory.path().join("link");
    symlink("fifo", &to_fifo).unwrap();
    for mode in [WriteMode::Replace, WriteMode::Append, WriteMode::At(1)] {
        for path in [&fifo, &to_fifo] {
            let error = write(&request(path, mode), pieces("x")).unwrap_err();
            assert_eq!(error, FileError::SpecialFile { path: path.clone() });
        }
        for path in [directory.path().to_owned(), directory.path().join("")] {
            let error = write(&request(path, mode), pieces("x")).unwrap_err();
            assert!(matches!(
                error,
                FileError::Refused {
                    errno: Errno::EISDIR,
                    ..
                }
            ));
        }
    }
    assert_eq!(names(&directory), ["fifo", "link"]);
}
