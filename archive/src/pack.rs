//! A tree as a stream: its directories are walked open, each opened below the last one and never through a link.

use std::{
    collections::HashMap,
    ffi::{CStr, OsStr},
    fs::File,
    io::Write,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::FileExt},
    },
    path::Path,
};

use nix::{
    NixPath,
    dir::Dir,
    errno::Errno,
    fcntl::{AT_FDCWD, AtFlags, OFlag, readlinkat},
    sys::stat::{FileStat, Mode, SFlag, fstat, fstatat},
};
use tar::EntryType;

use crate::{
    Error, LeftOut, MAX_DEPTH, Observer,
    entry::{Attributes, Time},
    error::{At, broken},
    next_name,
    opening::open_harmlessly,
    sparse::{self, Extent},
    write::{self, Head},
};

/// How much of a file is read at once.
const READ_SIZE: usize = 256 * 1024;

/// Bytes of names that are remembered of files with more than one name; further ones become files of their own.
const MAX_LINK_NAMES: usize = 16 * 1024 * 1024;

/// How a tree is packed.
#[derive(Clone, Copy, Debug, Default)]
pub struct PackOptions {
    /// Leaves out what is below a directory of another file system; the directory itself is there.
    pub one_file_system: bool,
}

/// What was packed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    /// Entries of the stream.
    pub entries: u64,
    /// Bytes of regular files, without holes.
    pub bytes: u64,
}

/// Packs what is below a directory, or a single regular file. A link is followed as `path` itself and packed below it.
///
/// Names are relative to the directory, which is `./` itself; a file has its own name. What vanishes meanwhile is not
/// there; FIFOs, sockets and devices are left out, which the observer is told; whatever else cannot be read ends it.
pub fn pack(
    path: &Path,
    options: PackOptions,
    output: &mut impl Write,
    observer: &mut impl Observer,
) -> Result<Packed, Error> {
    let none = Path::new("");
    let kind = SFlag::S_IFMT & flags(&fstatat(AT_FDCWD, path, AtFlags::empty()).at("stat", none)?);
    let mut packer = Packer {
        output,
        observer,
        options,
        links: HashMap::new(),
        link_bytes: 0,
        device: 0,
        buffer: vec![0; READ_SIZE],
        packed: Packed::default(),
    };
    match kind {
        SFlag::S_IFDIR => {
            let open = open(AT_FDCWD, path, OFlag::O_DIRECTORY).at("open", none)?;
            let stat = fstat(&open).at("stat", none)?;
            packer.device = stat.st_dev;
            packer.directory(open, &stat, &mut Vec::new(), 0)?;
        }
        SFlag::S_IFREG => {
            let open = open(AT_FDCWD, path, OFlag::empty()).at("open", none)?;
            let name = path.file_name().unwrap_or(OsStr::new("file"));
            packer.file(open, name.as_bytes())?;
        }
        _ => return Err(Error::SpecialFile { path: none.into() }),
    }
    write::end(packer.output).map_err(broken)?;
    packer.output.flush().map_err(broken)?;
    Ok(packer.packed)
}

struct Packer<'a, W, O> {
    output: &'a mut W,
    observer: &'a mut O,
    options: PackOptions,
    /// The first name of each file that has more.
    links: HashMap<(u64, u64), Vec<u8>>,
    link_bytes: usize,
    /// The file system of the root.
    device: u64,
    buffer: Vec<u8>,
    packed: Packed,
}

impl<W: Write, O: Observer> Packer<'_, W, O> {
    /// `path` is without a slash at its end, and empty for the root.
    fn directory(
        &mut self,
        open: OwnedFd,
        stat: &FileStat,
        path: &mut Vec<u8>,
        depth: usize,
    ) -> Result<(), Error> {
        let name = match path.is_empty() {
            true => b"./".to_vec(),
            false => [path, &b"/"[..]].concat(),
        };
        self.head(EntryType::Directory, &name, b"", stat, 0, None)?;
        if self.options.one_file_system && stat.st_dev != self.device {
            return Ok(());
        }
        if depth == MAX_DEPTH {
            let path = as_path(path).into();
            return Err(Error::TooDeep { path });
        }
        let mut open = Dir::from_fd(open).at("list", as_path(path))?;
        let length = path.len();
        while let Some((name, _)) = next_name(&mut open).at("list", as_path(path))? {
            if length > 0 {
                path.push(b'/');
            }
            path.extend_from_slice(name.to_bytes());
            let packed = self.child(&open, &name, path, depth + 1);
            path.truncate(length);
            packed?;
        }
        Ok(())
    }

    fn child(
        &mut self,
        parent: &Dir,
        name: &CStr,
        path: &mut Vec<u8>,
        depth: usize,
    ) -> Result<(), Error> {
        let stat = match fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            // Gone since the directory was read.
            Err(Errno::ENOENT) => return Ok(()),
            stat => stat.at("stat", as_path(path))?,
        };
        match flags(&stat) & SFlag::S_IFMT {
            SFlag::S_IFLNK => match readlinkat(parent, name) {
                Err(Errno::ENOENT | Errno::EINVAL) => Ok(()),
                text => {
                    let text = text.at("read link", as_path(path))?;
                    self.head(EntryType::Symlink, path, text.as_bytes(), &stat, 0, None)
                }
            },
            kind @ (SFlag::S_IFDIR | SFlag::S_IFREG) => {
                let directory = kind == SFlag::S_IFDIR;
                let only = match directory {
                    true => OFlag::O_DIRECTORY,
                    false => OFlag::empty(),
                };
                let open = match open(parent, name, OFlag::O_NOFOLLOW | only) {
                    // Gone, or something else took its name: what it was is not there any more.
                    Err(Errno::ENOENT | Errno::ELOOP | Errno::ENOTDIR | Errno::ENXIO) => {
                        return Ok(());
                    }
                    open => open.at("open", as_path(path))?,
                };
                match directory {
                    true => {
                        let stat = fstat(&open).at("stat", as_path(path))?;
                        self.directory(open, &stat, path, depth)
                    }
                    false => self.file(open, path),
                }
            }
            _ => {
                let why = LeftOut::SpecialFile(stat.st_mode);
                self.observer.left_out(as_path(path), why);
                Ok(())
            }
        }
    }

    fn file(&mut self, open: OwnedFd, path: &[u8]) -> Result<(), Error> {
        let stat = fstat(&open).at("stat", as_path(path))?;
        if flags(&stat) & SFlag::S_IFMT != SFlag::S_IFREG {
            let why = LeftOut::SpecialFile(stat.st_mode);
            self.observer.left_out(as_path(path), why);
            return Ok(());
        }
        if stat.st_nlink > 1 {
            let id = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&id) {
                let first = first.clone();
                return self.head(EntryType::Link, path, &first, &stat, 0, None);
            }
            if self.link_bytes + path.len() <= MAX_LINK_NAMES {
                self.link_bytes += path.len();
                self.links.insert(id, path.into());
            }
        }
        let file = File::from(open);
        // Never negative.
        let size = stat.st_size.unsigned_abs();
        let full = u64::try_from(stat.st_blocks).unwrap_or(0) >= size.div_ceil(512);
        let extents = match full {
            true => None,
            false => sparse::extents(&file, size).at("read", as_path(path))?,
        };
        self.observer.file(as_path(path), size);
        match extents {
            None => {
                self.head(EntryType::Regular, path, b"", &stat, size, None)?;
                let whole = Extent {
                    offset: 0,
                    length: size,
                };
                self.data(&file, path, whole)?;
                write::pad(self.output, size).map_err(broken)?;
            }
            Some(extents) => self.sparse(&file, path, &stat, &extents)?,
        }
        self.observer.file_done();
        Ok(())
    }

    fn sparse(
        &mut self,
        file: &File,
        path: &[u8],
        stat: &FileStat,
        extents: &[Extent],
    ) -> Result<(), Error> {
        let size = stat.st_size.unsigned_abs();
        let map = sparse::map(extents);
        let stored = map.len() as u64 + extents.iter().map(|it| it.length).sum::<u64>();
        self.head(EntryType::Regular, path, b"", stat, stored, Some(size))?;
        self.output.write_all(&map).map_err(broken)?;
        let mut at = 0;
        for &extent in extents {
            self.observer.hole(extent.offset - at);
            self.data(file, path, extent)?;
            at = extent.offset + extent.length;
        }
        self.observer.hole(size - at);
        write::pad(self.output, stored).map_err(broken)
    }

    /// A part of a file: neither more nor less than was announced.
    fn data(&mut self, file: &File, path: &[u8], extent: Extent) -> Result<(), Error> {
        let Extent {
            mut offset,
            mut length,
        } = extent;
        while length > 0 {
            let most = usize::try_from(length).unwrap_or(usize::MAX);
            let most = most.min(self.buffer.len());
            let read = match file.read_at(&mut self.buffer[..most], offset) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                read => read.at("read", as_path(path))?,
            };
            if read == 0 {
                let path = as_path(path).into();
                return Err(Error::Shrank { path });
            }
            let bytes = &self.buffer[..read];
            self.output.write_all(bytes).map_err(broken)?;
            self.observer.data(bytes);
            offset += read as u64;
            length -= read as u64;
            self.packed.bytes += read as u64;
        }
        Ok(())
    }

    fn head(
        &mut self,
        kind: EntryType,
        path: &[u8],
        link: &[u8],
        stat: &FileStat,
        stored: u64,
        sparse: Option<u64>,
    ) -> Result<(), Error> {
        self.packed.entries += 1;
        let head = Head {
            kind,
            path,
            link,
            attributes: attributes(stat),
            stored,
            sparse,
        };
        write::head(self.output, &head).map_err(broken)
    }
}

fn open<P: NixPath + ?Sized>(at: impl AsFd, name: &P, flags: OFlag) -> Result<OwnedFd, Errno> {
    open_harmlessly(at, name, OFlag::O_RDONLY | flags, Mode::empty())
}

fn flags(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode)
}

#[allow(
    clippy::useless_conversion,
    reason = "the types of these fields differ between architectures"
)]
fn attributes(stat: &FileStat) -> Attributes {
    Attributes {
        mode: stat.st_mode & 0o7777,
        uid: Some(stat.st_uid),
        gid: Some(stat.st_gid),
        modified: Time {
            seconds: stat.st_mtime.into(),
            nanoseconds: stat.st_mtime_nsec.into(),
        },
    }
}

fn as_path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}
