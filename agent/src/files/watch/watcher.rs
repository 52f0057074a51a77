//! One watch while nothing of it is lost: which directories are watched, and what each event means.

use std::{
    collections::VecDeque,
    ffi::OsStr,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use nix::{
    dir::Dir,
    errno::Errno,
    fcntl::{AT_FDCWD, OFlag, openat},
    sys::{
        inotify::{AddWatchFlags, Inotify, InotifyEvent, WatchDescriptor},
        stat::Mode,
    },
};

use super::{Change, ChangeKind, Happened, Watch, queue::EventQueue, tree::WatchedTree};
use crate::files::{
    error::{At, FileError, Operation},
    list::next_name,
    metadata::{Kind, Metadata},
};

/// Why a watcher ended.
pub(super) enum End {
    Done,
    Overflow,
}

pub(super) struct Watcher<'a> {
    watch: &'a Watch,
    inotify: &'a Inotify,
    /// Which directory it is. Not an open one: the kernel tells the end of a directory only when nobody has it open.
    root: Id,
    tree: WatchedTree,
    most: usize,
    /// Directories that may not be read.
    refused: u64,
    receive: &'a mut dyn FnMut(Happened) -> bool,
    /// Whether anybody does.
    listening: bool,
}

impl<'a> Watcher<'a> {
    pub(super) fn new(
        watch: &'a Watch,
        inotify: &'a Inotify,
        root: Id,
        most: usize,
        receive: &'a mut dyn FnMut(Happened) -> bool,
    ) -> Self {
        Self {
            watch,
            inotify,
            root,
            tree: WatchedTree::default(),
            most,
            refused: 0,
            receive,
            listening: true,
        }
    }

    /// Watches all that is there, and tells that it does; `again` after an overflow.
    pub(super) fn begin(&mut self, again: bool) -> Result<(), FileError> {
        let path = &self.watch.path;
        let root = self.open(Path::new(""));
        let root = match root.and_then(|root| add(self.inotify, &root)) {
            // Its end is among what was lost.
            Err(Errno::ENOENT) if again => {
                self.gone();
                return Ok(());
            }
            added => added.map_err(|errno| refused(path, errno))?,
        };
        self.tree.insert_root(root);
        self.descend(root, false)?;
        let happened = match again {
            true => Happened::Overflow,
            false => Happened::Ready {
                directories: self.tree.len() as u64,
                refused: self.refused,
            },
        };
        self.listening = (self.receive)(happened);
        if self.open(Path::new("")).is_err() {
            // Its end came before it was watched.
            self.gone();
        }
        Ok(())
    }

    /// The last that is told.
    fn gone(&mut self) {
        self.tell(ChangeKind::Gone, PathBuf::new(), true);
        self.listening = false;
    }

    pub(super) fn run(&mut self, stop: BorrowedFd<'_>) -> Result<End, FileError> {
        let path = &self.watch.path;
        let mut queue = EventQueue::new(self.inotify, stop);
        while self.listening {
            let Some(event) = queue.next().at(Operation::Watch, path)? else {
                break;
            };
            if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                return Ok(End::Overflow);
            }
            if self.is_end(&event) {
                self.gone();
                break;
            }
            self.event(event, &mut queue)?;
        }
        Ok(End::Done)
    }

    /// Whether the watched directory itself is not what the path names any more.
    fn is_end(&self, event: &InotifyEvent) -> bool {
        let gone = AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_UNMOUNT
            | AddWatchFlags::IN_IGNORED;
        self.tree.is_root(event.wd) && event.mask.intersects(gone)
    }

    fn event(&mut self, event: InotifyEvent, queue: &mut EventQueue<'_>) -> Result<(), FileError> {
        let mask = event.mask;
        if mask.contains(AddWatchFlags::IN_IGNORED) {
            self.tree.forget(event.wd);
            return Ok(());
        }
        // What is not known any more was told as removed.
        let Some(parent) = self.tree.path(event.wd) else {
            return Ok(());
        };
        let is_directory = mask.contains(AddWatchFlags::IN_ISDIR);
        let Some(name) = &event.name else {
            // Of other directories than the root, the one above tells it by name.
            if mask.contains(AddWatchFlags::IN_ATTRIB) && self.tree.is_root(event.wd) {
                self.tell(ChangeKind::Attributes, parent, true);
            }
            return Ok(());
        };
        let path = parent.join(name);
        if mask.contains(AddWatchFlags::IN_MOVED_FROM) {
            let to = queue.moved_to(event.cookie).at(Operation::Watch, &path)?;
            return self.moved(event.wd, name, path, is_directory, to);
        }
        if mask.intersects(AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO) {
            return self.created(event.wd, name, path, is_directory);
        }
        if mask.contains(AddWatchFlags::IN_DELETE) {
            self.tell(ChangeKind::Removed, path, is_directory);
        } else if mask.contains(AddWatchFlags::IN_ATTRIB) {
            self.tell(ChangeKind::Attributes, path, is_directory);
        } else if mask.contains(AddWatchFlags::IN_MODIFY) && !queue.repeats(&event) {
            self.tell(ChangeKind::Modified, path, is_directory);
        }
        Ok(())
    }

    fn created(
        &mut self,
        parent: WatchDescriptor,
        name: &OsStr,
        path: PathBuf,
        is_directory: bool,
    ) -> Result<(), FileError> {
        self.tell(ChangeKind::Created, path, is_directory);
        if is_directory && self.watch.recursive {
            self.enter(parent, name, true)?;
        }
        Ok(())
    }

    /// A name went away from a directory; `to` says where it came, if that is watched.
    fn moved(
        &mut self,
        from: WatchDescriptor,
        name: &OsStr,
        path: PathBuf,
        is_directory: bool,
        to: Option<InotifyEvent>,
    ) -> Result<(), FileError> {
        let moved = self.tree.child(from, name);
        let to = to.and_then(|to| Some((to.wd, self.tree.path(to.wd)?, to.name?)));
        let Some((to, parent, to_name)) = to else {
            self.tell(ChangeKind::Removed, path, is_directory);
            self.unwatch(moved);
            return Ok(());
        };
        self.tell(
            ChangeKind::Renamed(path),
            parent.join(&to_name),
            is_directory,
        );
        match moved {
            Some(moved) => {
                self.tree.insert(moved, to, &to_name);
            }
            // It was not readable before, or it came and went faster than it could be watched.
            None if is_directory && self.watch.recursive => self.enter(to, &to_name, true)?,
            None => {}
        }
        Ok(())
    }

    /// Stops to watch what left the tree.
    fn unwatch(&mut self, directory: Option<WatchDescriptor>) {
        let Some(directory) = directory else {
            return;
        };
        for directory in self.tree.with_all_below(directory) {
            // Gone already where it was removed meanwhile.
            let _ = self.inotify.rm_watch(directory);
            self.tree.forget(directory);
        }
    }

    /// Watches a directory by its name in a watched one, and all below it.
    fn enter(
        &mut self,
        parent: WatchDescriptor,
        name: &OsStr,
        report: bool,
    ) -> Result<(), FileError> {
        match self.add_child(parent, name)? {
            Some(added) => self.descend(added, report),
            None => Ok(()),
        }
    }

    /// Watches all directories below a watched one, and reports what is there if that may be new.
    fn descend(&mut self, directory: WatchDescriptor, report: bool) -> Result<(), FileError> {
        let mut waiting = VecDeque::from([directory]);
        while let Some(directory) = waiting.pop_front() {
            if !self.listening || (!report && !self.watch.recursive) {
                return Ok(());
            }
            let Some(path) = self.tree.path(directory) else {
                continue;
            };
            // Gone since, or not to be read: then so is what would be in it.
            let opened = self.open(&path).and_then(Dir::from_fd);
            let Ok(mut names) = opened else {
                continue;
            };
            while let Ok(Some((name, kind))) = next_name(&mut names) {
                let name = OsStr::from_bytes(name.to_bytes());
                let kind = kind.or_else(|| Some(Metadata::of_name(&names, name, false).ok()?.kind));
                let is_directory = kind == Some(Kind::Directory);
                if report {
                    self.tell(ChangeKind::Created, path.join(name), is_directory);
                }
                if is_directory && self.watch.recursive {
                    waiting.extend(self.add_child(directory, name)?);
                }
            }
        }
        Ok(())
    }

    /// Watches a directory; `None` where there is none, or it may not be read, or it is watched already.
    fn add_child(
        &mut self,
        parent: WatchDescriptor,
        name: &OsStr,
    ) -> Result<Option<WatchDescriptor>, FileError> {
        let Some(path) = self.tree.path(parent).map(|path| path.join(name)) else {
            return Ok(None);
        };
        let full = self.watch.path.join(&path);
        let added = self.open(&path).and_then(|open| add(self.inotify, &open));
        let added = match added {
            Ok(added) => added,
            Err(Errno::EACCES) => {
                self.refused += 1;
                return Ok(None);
            }
            // Gone since, or it is no directory now.
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => return Ok(None),
            Err(errno) => return Err(refused(&full, errno)),
        };
        let new = self.tree.insert(added, parent, name);
        if self.tree.len() > self.most {
            return Err(FileError::TooManyDirectories { path: full });
        }
        Ok(Some(added).filter(|_| new))
    }

    /// A directory below the root, by its names, never through a link; ENOENT where the root's path is another one's.
    fn open(&self, path: &Path) -> Result<OwnedFd, Errno> {
        let root = self.watch.path.as_os_str();
        let mut directory = open(AT_FDCWD, root, OFlag::empty())?;
        if id(&directory)? != self.root {
            return Err(Errno::ENOENT);
        }
        for name in path {
            directory = open(&directory, name, OFlag::O_NOFOLLOW)?;
        }
        Ok(directory)
    }

    fn tell(&mut self, kind: ChangeKind, path: PathBuf, directory: bool) {
        let change = Change {
            kind,
            path,
            directory,
        };
        self.listening = self.listening && (self.receive)(Happened::Changed(change));
    }
}

/// The file system and inode of a directory.
pub(super) type Id = (u64, u64);

/// Which directory an open one is.
pub(super) fn id(directory: impl AsFd) -> Result<Id, Errno> {
    let stat = Metadata::of_open(directory)?;
    Ok((stat.device, stat.inode))
}

/// Watches an open directory: inotify takes only paths, and this one leads to the descriptor whatever has its name.
fn add(inotify: &Inotify, directory: &OwnedFd) -> Result<WatchDescriptor, Errno> {
    let what = AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_MODIFY
        | AddWatchFlags::IN_ATTRIB
        | AddWatchFlags::IN_MOVE
        | AddWatchFlags::IN_DELETE_SELF
        | AddWatchFlags::IN_MOVE_SELF
        | AddWatchFlags::IN_ONLYDIR;
    let path = format!("/proc/self/fd/{}", directory.as_raw_fd());
    inotify.add_watch(path.as_str(), what)
}

fn refused(path: &Path, errno: Errno) -> FileError {
    match errno {
        // It is about watches, and not about disks.
        Errno::ENOSPC => FileError::NoMoreWatches { path: path.into() },
        errno => FileError::Refused {
            operation: Operation::Watch,
            path: path.into(),
            errno,
        },
    }
}

/// A directory by its name.
pub(super) fn open(at: impl AsFd, name: &OsStr, flags: OFlag) -> Result<OwnedFd, Errno> {
    let always = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    openat(at, name, always | flags, Mode::empty())
}
