//! A stream as a tree. Whatever it says, and whatever somebody does to the tree meanwhile, nothing outside of the root
//! is touched: every name is used in an open directory that was reached from the root without following a link.

use std::{
    ffi::OsStr,
    io::{Read, Seek, SeekFrom, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, readlinkat},
    sys::stat::{FileStat, Mode, SFlag, fstatat},
    unistd::{linkat, symlinkat},
};

use crate::{
    Error, HeldLink, LeftOut, Observer, Root, Staged, Temporary,
    entry::{Attributes, Entry, Kind},
    error::{At, broken},
    levels::{Levels, owner, set, times},
    path::{leads_out, names},
    read::Reader,
    sparse::{self, Extent},
};

/// How much of a file is written at once.
const WRITE_SIZE: usize = 256 * 1024;

/// What becomes of symbolic links whose text leads out of the directory. None is ever followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutsideLinks {
    /// They end it.
    #[default]
    Refuse,
    /// They are not made, which the observer is told.
    LeaveOut,
    /// They are made, as they are.
    Keep,
}

/// How a stream is unpacked.
#[derive(Clone, Copy, Debug, Default)]
pub struct UnpackOptions {
    /// Gives what is made the owners of the stream, by number, and set-id bits with them.
    pub owners: bool,
    /// What becomes of links that lead out.
    pub outside_links: OutsideLinks,
    /// Bits that no mode of the stream's gets, as of a umask. Without owners, set-id bits are never given.
    pub mask: u32,
}

/// What was unpacked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Entries, without those left out.
    pub entries: u64,
    /// Bytes of regular files, without holes.
    pub bytes: u64,
}

/// Unpacks a stream to its end, and reads what fills it up after that.
///
/// Each file appears whole or not at all, in the place of a file or link that has its name; a directory that is there
/// stays, and takes the entry's attributes, except the root, which takes them only if it was made for this. A directory
/// has its attributes when the stream leaves it: that of a stream which comes back to it later has another time.
/// What an error leaves is what came before it.
pub fn unpack(
    root: &Root,
    options: UnpackOptions,
    input: impl Read,
    observer: &mut impl Observer,
) -> Result<Unpacked, Error> {
    let mut reader = Reader::new(input);
    let mut unpacker = Unpacker {
        levels: Levels::new(root, options),
        options,
        observer,
        buffer: vec![0; WRITE_SIZE],
        unpacked: Unpacked::default(),
    };
    while let Some(entry) = reader.next()? {
        unpacker.entry(entry, &mut reader)?;
    }
    unpacker.levels.finish()?;
    reader.drain()?;
    Ok(unpacker.unpacked)
}

struct Unpacker<'a, O> {
    levels: Levels<'a>,
    options: UnpackOptions,
    observer: &'a mut O,
    buffer: Vec<u8>,
    unpacked: Unpacked,
}

/// Where an entry goes.
struct Target<'a> {
    name: &'a OsStr,
    parents: &'a [&'a OsStr],
    path: PathBuf,
}

impl<O: Observer> Unpacker<'_, O> {
    fn entry<R: Read>(&mut self, entry: Entry, data: &mut Reader<R>) -> Result<(), Error> {
        let Entry {
            path,
            kind,
            attributes,
            stored,
        } = entry;
        let names = names(&path)?;
        let refuse = |why| {
            let path = Path::new(OsStr::from_bytes(&path)).into();
            Err(Error::Unsafe { path, why })
        };
        if kind == Kind::Directory {
            self.levels.enter_with(&names, attributes)?;
            self.unpacked.entries += 1;
            return Ok(());
        }
        let Some((name, parents)) = names.split_last() else {
            return refuse("is the directory itself, and no directory");
        };
        let target = Target {
            name,
            parents,
            path: names.iter().collect(),
        };
        let made = match kind {
            Kind::File => {
                let whole = Extent {
                    offset: 0,
                    length: stored,
                };
                self.file(&target, &attributes, &[whole], stored, data)?;
                true
            }
            Kind::SparseFile(size) => {
                let extents = sparse::read_map(data, stored, size)?;
                self.file(&target, &attributes, &extents, size, data)?;
                true
            }
            Kind::Symlink(text) => self.symlink(&target, &text, &attributes)?,
            Kind::HardLink(to) => self.hard_link(&target, &to, &attributes)?,
            Kind::Special => return refuse("is a FIFO or device"),
            // Went its way above.
            Kind::Directory => false,
        };
        self.unpacked.entries += u64::from(made);
        Ok(())
    }

    fn file<R: Read>(
        &mut self,
        target: &Target<'_>,
        attributes: &Attributes,
        extents: &[Extent],
        size: u64,
        data: &mut Reader<R>,
    ) -> Result<(), Error> {
        let Self {
            levels,
            observer,
            buffer,
            unpacked,
            options,
        } = self;
        let path = &target.path;
        let parent = levels.enter(target.parents)?;
        // Nobody else reads of it before it has its mode.
        let mut staged = Staged::new(parent, Mode::from_bits_truncate(0o600)).at("create", path)?;
        observer.file(path, size);
        let mut at = 0;
        for &Extent { offset, length } in extents {
            if offset > at {
                observer.hole(offset - at);
                let to = SeekFrom::Start(offset);
                staged.file.seek(to).at("write", path)?;
            }
            let mut left = length;
            while left > 0 {
                let most = usize::try_from(left).unwrap_or(usize::MAX);
                let most = most.min(buffer.len());
                let read = match data.read(&mut buffer[..most]) {
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                    read => read.map_err(broken)?,
                };
                staged.file.write_all(&buffer[..read]).at("write", path)?;
                observer.data(&buffer[..read]);
                left -= read as u64;
                unpacked.bytes += read as u64;
            }
            at = offset + length;
        }
        if size > at {
            observer.hole(size - at);
        }
        // What ends with a hole is longer than what was written.
        if !matches!(extents, [whole] if whole.length == size) {
            staged.file.set_len(size).at("truncate", path)?;
        }
        set(&staged.file, attributes, *options).at("set attributes", path)?;
        staged.replace(target.name).at("create", path)?;
        observer.file_done();
        Ok(())
    }

    /// Whether it was made.
    fn symlink(
        &mut self,
        target: &Target<'_>,
        text: &[u8],
        attributes: &Attributes,
    ) -> Result<bool, Error> {
        let path = &target.path;
        if leads_out(text, target.parents.len()) {
            match self.options.outside_links {
                OutsideLinks::Refuse => {
                    let path = path.clone();
                    let why = "is a symbolic link that leads out of the directory";
                    return Err(Error::Unsafe { path, why });
                }
                OutsideLinks::LeaveOut => {
                    let text = Path::new(OsStr::from_bytes(text)).into();
                    self.observer.left_out(path, LeftOut::OutsideLink(text));
                    return Ok(false);
                }
                OutsideLinks::Keep => {}
            }
        }
        let text = OsStr::from_bytes(text);
        let parent = self.levels.enter(target.parents)?;
        match symlinkat(text, parent, target.name) {
            Err(Errno::EEXIST) => {
                let make = |name: &OsStr| symlinkat(text, parent, name);
                Temporary::make(parent.as_fd(), make)
                    .and_then(|((), temporary)| temporary.rename(target.name))
            }
            made => made,
        }
        .at("create", path)?;
        let set = set_on_link(parent, target.name, attributes, self.options.owners);
        set.at("set attributes", path)?;
        Ok(true)
    }

    fn hard_link(
        &mut self,
        target: &Target<'_>,
        to: &[u8],
        attributes: &Attributes,
    ) -> Result<bool, Error> {
        let unsafe_because = |why| {
            let path = target.path.clone();
            Err(Error::Unsafe { path, why })
        };
        let Ok(to) = names(to) else {
            return unsafe_because("is a hard link that leads out of the directory");
        };
        let Some((to, to_parents)) = to.split_last() else {
            return unsafe_because("is a hard link to the directory");
        };
        let path = &target.path;
        let from = self.levels.open(to_parents)?;
        let stat = fstatat(&from, *to, AtFlags::AT_SYMLINK_NOFOLLOW).at("link", path)?;
        match kind(&stat) {
            SFlag::S_IFREG => {}
            SFlag::S_IFLNK => {
                // Its text may lead elsewhere from here, and is looked at as that of any link.
                let text = readlinkat(&from, *to).at("link", path)?;
                return self.symlink(target, text.as_bytes(), attributes);
            }
            _ => return unsafe_because("is a hard link to what is no file"),
        }
        let parent = self.levels.enter(target.parents)?;
        let link = |name: &OsStr| linkat(&from, *to, parent, name, AtFlags::empty());
        match link(target.name) {
            Err(Errno::EEXIST) => replace_by_link(parent, target.name, &stat, link),
            linked => linked,
        }
        .at("link", path)?;
        Ok(true)
    }
}

/// Nothing, where both names are of that one file already: rename(2) would do nothing and leave the temporary name.
fn replace_by_link(
    parent: &OwnedFd,
    name: &OsStr,
    wanted: &FileStat,
    link: impl Fn(&OsStr) -> Result<(), Errno>,
) -> Result<(), Errno> {
    let there = fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    if (there.st_dev, there.st_ino) == (wanted.st_dev, wanted.st_ino) {
        return Ok(());
    }
    let ((), temporary) = Temporary::make(parent.as_fd(), link)?;
    temporary.rename(name)
}

/// Owner and time of a link itself. What took its name meanwhile gets nothing of ours.
fn set_on_link(
    parent: &OwnedFd,
    name: &OsStr,
    attributes: &Attributes,
    owners: bool,
) -> Result<(), Errno> {
    let Some(link) = HeldLink::open(parent, name)? else {
        return Ok(());
    };
    if owners {
        let (uid, gid) = owner(attributes);
        link.set_owner(uid, gid)?;
    }
    let (accessed, modified) = times(attributes);
    link.set_times(accessed, modified)
}

fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}
