//! The open directories from the root down to where the stream is. A directory gets its attributes when the stream
//! leaves it, so that what is made in it does not change its time and a mode without the write bit does not refuse it.

use std::{
    ffi::{OsStr, OsString},
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, openat},
    sys::{
        stat::{Mode, SFlag, fchmod, fstat, fstatat, futimens, mkdirat},
        time::TimeSpec,
    },
    unistd::{Gid, Uid, fchown},
};

use crate::{Error, MAX_DEPTH, Root, UnpackOptions, entry::Attributes, error::At};

/// The mode of a directory under way: it must let us in.
const UNDER_WAY: u32 = 0o700;

#[derive(Debug)]
struct Level {
    name: OsString,
    directory: OwnedFd,
    attributes: Option<Attributes>,
}

/// The directories that are open, the root first.
#[derive(Debug)]
pub(crate) struct Levels<'a> {
    root: &'a Root,
    root_attributes: Option<Attributes>,
    below: Vec<Level>,
    options: UnpackOptions,
}

impl<'a> Levels<'a> {
    pub(crate) fn new(root: &'a Root, options: UnpackOptions) -> Self {
        Self {
            root,
            root_attributes: None,
            below: Vec::new(),
            options,
        }
    }

    /// The directory of those names, as it is below the root now. Those that are missing are made.
    pub(crate) fn enter(&mut self, names: &[&OsStr]) -> Result<&OwnedFd, Error> {
        let open = self.below.iter().zip(names);
        let common = open
            .take_while(|(level, name)| level.name == **name)
            .count();
        self.leave(common)?;
        for (depth, name) in names.iter().enumerate().skip(common) {
            let path: PathBuf = names[..=depth].iter().collect();
            if depth == MAX_DEPTH {
                return Err(Error::TooDeep { path });
            }
            let directory = self.step(name, 0o777, &path)?;
            self.below.push(Level {
                name: name.into(),
                directory,
                attributes: None,
            });
        }
        Ok(self.current())
    }

    /// The same for a directory that the stream has as an entry: it gets these attributes when it is left.
    pub(crate) fn enter_with(
        &mut self,
        names: &[&OsStr],
        attributes: Attributes,
    ) -> Result<(), Error> {
        let Some((name, parents)) = names.split_last() else {
            // One that was there before keeps its own.
            self.root_attributes = Some(attributes).filter(|_| self.root.made);
            return Ok(());
        };
        let parent = self.enter(parents)?.as_fd();
        let path: PathBuf = names.iter().collect();
        match mkdirat(parent, *name, Mode::from_bits_truncate(UNDER_WAY)) {
            Ok(()) => {}
            Err(Errno::EEXIST) => self.let_in(name, &path)?,
            Err(errno) => return Err(errno).at("make directory", &path),
        }
        self.enter(names)?;
        if let Some(level) = self.below.last_mut() {
            level.attributes = Some(attributes);
        }
        Ok(())
    }

    /// Leaves all directories.
    pub(crate) fn finish(&mut self) -> Result<(), Error> {
        self.leave(0)?;
        match self.root_attributes.take() {
            Some(attributes) => set(&self.root.directory, &attributes, self.options)
                .at("set attributes", Path::new("")),
            None => Ok(()),
        }
    }

    /// The directory of those names, opened anew from the root; nothing is made.
    pub(crate) fn open(&self, names: &[&OsStr]) -> Result<OwnedFd, Error> {
        let none = Path::new("");
        let mut directory = self.root.directory.try_clone().at("open", none)?;
        for depth in 0..names.len() {
            let path: PathBuf = names[..=depth].iter().collect();
            directory = open_below(&directory, names[depth], &path)?;
        }
        Ok(directory)
    }

    fn current(&self) -> &OwnedFd {
        match self.below.last() {
            Some(level) => &level.directory,
            None => &self.root.directory,
        }
    }

    fn step(&self, name: &OsStr, mode: u32, path: &Path) -> Result<OwnedFd, Error> {
        let parent = self.current();
        match mkdirat(parent, name, Mode::from_bits_truncate(mode)) {
            Ok(()) | Err(Errno::EEXIST) => open_below(parent, name, path),
            Err(errno) => Err(errno).at("make directory", path),
        }
    }

    /// A directory that was there already may be one that nothing can be made in, left so by an earlier stream.
    fn let_in(&self, name: &OsStr, path: &Path) -> Result<(), Error> {
        let directory = open_below(self.current(), name, path)?;
        let stat = fstat(&directory).at("stat", path)?;
        let mode = stat.st_mode & 0o7777;
        if mode & UNDER_WAY != UNDER_WAY {
            // Where it is not ours, what is made in it will tell.
            let _ = fchmod(&directory, Mode::from_bits_truncate(mode | UNDER_WAY));
        }
        Ok(())
    }

    fn leave(&mut self, depth: usize) -> Result<(), Error> {
        while self.below.len() > depth {
            let path: PathBuf = self.below.iter().map(|level| &level.name).collect();
            let level = self.below.pop();
            if let Some((level, attributes)) =
                level.and_then(|it| Some((it.directory, it.attributes?)))
            {
                set(&level, &attributes, self.options).at("set attributes", &path)?;
            }
        }
        Ok(())
    }
}

impl Drop for Levels<'_> {
    /// After a failure: what is there has its own mode, as far as it can.
    fn drop(&mut self) {
        while !self.below.is_empty() {
            let _ = self.leave(0);
        }
    }
}

/// A directory below an open one, never through a link.
fn open_below(parent: impl AsFd, name: &OsStr, path: &Path) -> Result<OwnedFd, Error> {
    let parent = parent.as_fd();
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    match openat(parent, name, flags, Mode::empty()) {
        Err(errno @ (Errno::ENOTDIR | Errno::ELOOP)) => {
            let stat = fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW);
            let link = |mode| SFlag::from_bits_truncate(mode) & SFlag::S_IFMT == SFlag::S_IFLNK;
            if stat.is_ok_and(|stat| link(stat.st_mode)) {
                return Err(Error::Unsafe {
                    path: path.into(),
                    why: "is to be a directory, and a symbolic link is there",
                });
            }
            Err(errno).at("open", path)
        }
        opened => opened.at("open", path),
    }
}

/// Owner, mode and time, in this order: a change of owner clears set-id bits. Without owners those would be somebody
/// else's than they were, and go.
pub(crate) fn set(
    file: impl AsFd,
    attributes: &Attributes,
    options: UnpackOptions,
) -> Result<(), Errno> {
    let file = file.as_fd();
    let mut mode = attributes.mode & !options.mask;
    if options.owners {
        let (uid, gid) = owner(attributes);
        fchown(file, uid, gid)?;
    } else {
        mode &= 0o1777;
    }
    fchmod(file, Mode::from_bits_truncate(mode))?;
    let (accessed, modified) = times(attributes);
    futimens(file, &accessed, &modified)
}

pub(crate) fn owner(attributes: &Attributes) -> (Option<Uid>, Option<Gid>) {
    let Attributes { uid, gid, .. } = attributes;
    (uid.map(Uid::from_raw), gid.map(Gid::from_raw))
}

/// The time of access stays as it is.
pub(crate) fn times(attributes: &Attributes) -> (TimeSpec, TimeSpec) {
    let modified = attributes.modified;
    let modified = TimeSpec::new(modified.seconds, modified.nanoseconds);
    (TimeSpec::UTIME_OMIT, modified)
}
