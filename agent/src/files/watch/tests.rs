//! What a watch tells of what somebody does.

use std::{
    fs,
    io::{Write, pipe},
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    sync::mpsc,
    thread,
    time::Duration,
};

use nix::errno::Errno;

use super::*;

/// A watch on a thread of its own, which ends with this.
struct Watched {
    events: mpsc::Receiver<Happened>,
    thread: Option<thread::JoinHandle<Result<(), FileError>>>,
    stop: Option<std::io::PipeWriter>,
}

impl Watched {
    /// Begins, up to `Ready` with that many directories.
    fn begin(path: &Path, recursive: bool, most: usize, expected: u64) -> Self {
        let watch = Watch {
            path: path.into(),
            recursive,
        };
        let (stopped, stop) = pipe().unwrap();
        let (sender, events) = mpsc::channel();
        let thread = thread::spawn(move || {
            watch_at_most(most, &watch, stopped, |event| sender.send(event).is_ok())
        });
        let watched = Self {
            events,
            thread: Some(thread),
            stop: Some(stop),
        };
        let ready = Happened::Ready {
            directories: expected,
            refused: 0,
        };
        assert_eq!(watched.next(), ready);
        watched
    }

    fn next(&self) -> Happened {
        self.events.recv_timeout(Duration::from_secs(60)).unwrap()
    }

    fn change(&self) -> (ChangeKind, PathBuf, bool) {
        match self.next() {
            Happened::Changed(change) => (change.kind, change.path, change.directory),
            other => panic!("{other:?}"),
        }
    }

    /// Waits for its end, whatever is told until then.
    fn end(mut self) -> Result<(), FileError> {
        drop(self.stop.take());
        self.thread.take().unwrap().join().unwrap()
    }
}

fn change(kind: ChangeKind, path: &str, directory: bool) -> (ChangeKind, PathBuf, bool) {
    (kind, path.into(), directory)
}

#[test]
fn each_thing_that_happens_is_told_in_order() {
    let top = tempfile::tempdir().unwrap();
    let at = |name: &str| top.path().join(name);
    let watched = Watched::begin(top.path(), false, 10, 1);
    fs::write(at("file"), "x").unwrap();
    assert_eq!(watched.change(), change(ChangeKind::Created, "file", false));
    assert_eq!(
        watched.change(),
        change(ChangeKind::Modified, "file", false)
    );
    fs::set_permissions(at("file"), fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(
        watched.change(),
        change(ChangeKind::Attributes, "file", false)
    );
    fs::rename(at("file"), at("other")).unwrap();
    let renamed = ChangeKind::Renamed("file".into());
    assert_eq!(watched.change(), change(renamed, "other", false));
    fs::remove_file(at("other")).unwrap();
    assert_eq!(
        watched.change(),
        change(ChangeKind::Removed, "other", false)
    );
    fs::create_dir(at("sub")).unwrap();
    assert_eq!(watched.change(), change(ChangeKind::Created, "sub", true));
    // Not recursive: what is in it is not told.
    fs::write(at("sub/file"), "x").unwrap();
    symlink("nowhere", at("link")).unwrap();
    assert_eq!(watched.change(), change(ChangeKind::Created, "link", false));
    watched.end().unwrap();
}

#[test]
fn new_directories_are_watched_and_what_was_made_in_them_before_is_told() {
    let top = tempfile::tempdir().unwrap();
    let at = |name: &str| top.path().join(name);
    fs::create_dir_all(at("a/b")).unwrap();
    let outside = tempfile::tempdir().unwrap();
    fs::create_dir_all(outside.path().join("tree/deep")).unwrap();
    fs::write(outside.path().join("tree/deep/file"), "x").unwrap();
    symlink(outside.path(), at("a/link")).unwrap();
    let watched = Watched::begin(top.path(), true, 100, 3);
    fs::write(at("a/b/file"), "").unwrap();
    assert_eq!(
        watched.change(),
        change(ChangeKind::Created, "a/b/file", false)
    );
    // A whole tree appears at once; it may be on another file system, and is then made piece by piece.
    if fs::rename(outside.path().join("tree"), at("a/tree")).is_ok() {
        assert_eq!(
            watched.change(),
            change(ChangeKind::Created, "a/tree", true)
        );
        assert_eq!(
            watched.change(),
            change(ChangeKind::Created, "a/tree/deep", true)
        );
        let file = change(ChangeKind::Created, "a/tree/deep/file", false);
        assert_eq!(watched.change(), file);
    }
    fs::create_dir_all(at("new/one/two")).unwrap();
    loop {
        let (kind, path, directory) = watched.change();
        assert!(kind == ChangeKind::Created && directory, "{path:?}");
        if path == Path::new("new/one/two") {
            break;
        }
    }
    fs::remove_dir(at("new/one/two")).unwrap();
    // What was reported twice comes before.
    while watched.change() != change(ChangeKind::Removed, "new/one/two", true) {}
    watched.end().unwrap();
}

#[test]
fn a_renamed_directory_takes_along_what_is_below_it() {
    let top = tempfile::tempdir().unwrap();
    let at = |name: &str| top.path().join(name);
    fs::create_dir_all(at("a/b/c")).unwrap();
    fs::create_dir(at("z")).unwrap();
    let watched = Watched::begin(top.path(), true, 100, 5);
    fs::rename(at("a/b"), at("z/moved")).unwrap();
    let renamed = ChangeKind::Renamed("a/b".into());
    assert_eq!(watched.change(), change(renamed, "z/moved", true));
    fs::write(at("z/moved/c/file"), "").unwrap();
    let file = change(ChangeKind::Created, "z/moved/c/file", false);
    assert_eq!(watched.change(), file);
    watched.end().unwrap();
}

#[test]
fn what_is_moved_away_is_watched_no_more() {
    let top = tempfile::tempdir().unwrap();
    let at = |name: &str| top.path().join(name);
    fs::create_dir_all(at("in/sub/deep")).unwrap();
    fs::create_dir(at("out")).unwrap();
    let watched = Watched::begin(&at("in"), true, 3, 3);
    fs::rename(at("in/sub"), at("out/sub")).unwrap();
    assert_eq!(watched.change(), change(ChangeKind::Removed, "sub", true));
    fs::write(at("out/sub/deep/file"), "").unwrap();
    // Their places are free again.
    fs::create_dir(at("in/new")).unwrap();
    assert_eq!(watched.change(), change(ChangeKind::Created, "new", true));
    fs::write(at("in/new/file"), "").unwrap();
    while watched.change() != change(ChangeKind::Created, "new/file", false) {}
    watched.end().unwrap();
}

#[test]
fn the_end_of_the_directory_itself_is_the_last_that_is_told() {
    for recursive in [false, true] {
        for rename in [false, true] {
            let top = tempfile::tempdir().unwrap();
            let root = top.path().join("root");
            fs::create_dir(&root).unwrap();
            let watched = Watched::begin(&root, recursive, 10, 1);
            match rename {
                true => fs::rename(&root, top.path().join("other")).unwrap(),
                false => fs::remove_dir(&root).unwrap(),
            }
            while watched.change() != change(ChangeKind::Gone, "", true) {}
            assert!(watched.events.recv().is_err());
            watched.end().unwrap();
        }
    }
}

#[test]
fn one_directory_too_many_ends_it() {
    let top = tempfile::tempdir().unwrap();
    let at = |name: &str| top.path().join(name);
    fs::create_dir(at("a")).unwrap();
    let watched = Watched::begin(top.path(), true, 2, 2);
    fs::create_dir(at("a/b")).unwrap();
    assert_eq!(watched.change(), change(ChangeKind::Created, "a/b", true));
    assert!(watched.events.recv().is_err());
    let path = at("a/b");
    let expected = FileError::TooManyDirectories { path };
    assert_eq!(watched.end().unwrap_err(), expected);
}

#[test]
fn lost_changes_are_told_and_the_watch_goes_on_with_what_is_there_then() {
    let top = tempfile::tempdir().unwrap();
    let at = |name: &str| top.path().join(name);
    let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let limit: usize = limit.trim().parse().unwrap();
    let watch = Watch {
        path: top.path().into(),
        recursive: true,
    };
    let (stopped, _stop) = pipe().unwrap();
    let (mut overflown, mut after) = (false, false);
    let each = |event| {
        match event {
            Happened::Ready { .. } => {
                // More than the queue holds, none the same as the one before; and a directory among what is lost.
                let mut files = ["one", "two"].map(|name| fs::File::create(at(name)).unwrap());
                for n in 0..limit {
                    files[n % 2].write_all(b"x").unwrap();
                }
                fs::create_dir(at("new")).unwrap();
            }
            Happened::Overflow => {
                overflown = true;
                fs::write(at("new/file"), "").unwrap();
            }
            Happened::Changed(change) => after = change.path == Path::new("new/file"),
        }
        !after
    };
    super::watch(&watch, stopped, each).unwrap();
    assert!(overflown && after);
}

#[test]
fn what_is_no_directory_cannot_be_watched() {
    let (stopped, _stop) = pipe().unwrap();
    let watch = Watch {
        path: "/proc/self/status".into(),
        recursive: true,
    };
    let error = super::watch(&watch, stopped, |_| true).unwrap_err();
    assert!(matches!(
        error,
        FileError::Refused {
            errno: Errno::ENOTDIR,
            ..
        }
    ));
}
