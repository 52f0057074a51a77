//! What happens below a directory, as inotify(7) tells it.
//!
//! ```text
//! open a directory ──► watch it ──► read its names ──► the same for its subdirectories     (BFS, one open at a time)
//! event: a directory was made ──► the same from there; what has been made in it meanwhile is reported
//! event: a directory was renamed ──► its place in the tree changes, its watch stays
//! ```
//!
//! A directory is watched before its names are read, so that nothing that is made in it is missed; what is made between
//! the two may be told twice.

mod queue;
mod tree;
mod watcher;

use std::{os::fd::AsFd, path::PathBuf};

use nix::{
    fcntl::{AT_FDCWD, OFlag},
    sys::inotify::{InitFlags, Inotify},
};

use self::watcher::{End, Watcher, id, open};
use super::error::{At, FileError, Operation};

/// The most directories of a watch: some 10 MiB of memory.
const MAX_DIRECTORIES: usize = 65_536;

/// What is watched.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) path: PathBuf,
    pub(crate) recursive: bool,
}

/// What a watch tells.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Happened {
    /// First: what comes after it is told.
    Ready {
        directories: u64,
        refused: u64,
    },
    Changed(Change),
    /// Some changes were lost.
    Overflow,
}

/// What happened to one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) kind: ChangeKind,
    /// Relative to the watched directory; empty for that itself.
    pub(crate) path: PathBuf,
    pub(crate) directory: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ChangeKind {
    Created,
    Modified,
    Attributes,
    Removed,
    /// With the old name.
    Renamed(PathBuf),
    /// The last: the watched directory was removed, renamed or unmounted.
    Gone,
}

/// Watches until the directory is gone, `stop` is readable or closed at its other end, or `receive` says that nobody
/// listens.
pub(crate) fn watch(
    watch: &Watch,
    stop: impl AsFd,
    receive: impl FnMut(Happened) -> bool,
) -> Result<(), FileError> {
    watch_at_most(MAX_DIRECTORIES, watch, stop, receive)
}

fn watch_at_most(
    most: usize,
    watch: &Watch,
    stop: impl AsFd,
    mut receive: impl FnMut(Happened) -> bool,
) -> Result<(), FileError> {
    let path = &watch.path;
    let root = open(AT_FDCWD, path.as_os_str(), OFlag::empty()).and_then(id);
    let root = root.at(Operation::Watch, path)?;
    let mut again = false;
    loop {
        let init = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC);
        let inotify = init.at(Operation::Watch, path)?;
        let mut watcher = Watcher::new(watch, &inotify, root, most, &mut receive);
        watcher.begin(again)?;
        match watcher.run(stop.as_fd())? {
            End::Done => return Ok(()),
            // What was watched, and where, is not certain any more: anew.
            End::Overflow => again = true,
        }
    }
}

#[cfg(test)]
mod tests;
