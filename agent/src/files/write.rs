//! Writing a regular file, whole or in place, from pieces as they come.

use std::{
    fs::{self, File},
    io::{Seek, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use guestline_archive::Staged;
use nix::{
    errno::Errno,
    fcntl::OFlag,
    sys::stat::{Mode, fchmod},
    unistd::{Gid, Uid, fchown},
};

use super::{
    error::{At, FileError, Operation},
    metadata::{Kind, Metadata, stat},
    place::{Place, split},
    read::open,
};
use crate::switches;

/// What a new file gets, less the umask.
const NEW_FILE: u32 = 0o666;

/// How a write treats what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WriteMode {
    /// Old or new content, at every moment.
    Replace,
    Truncate,
    Append,
    /// Whole or not at all, and only if nothing is there.
    CreateNew,
    /// From an offset on, at most `i64::MAX`.
    At(u64),
}

/// One write.
#[derive(Debug)]
pub(crate) struct Write {
    pub(crate) path: PathBuf,
    pub(crate) mode: WriteMode,
    pub(crate) permissions: Option<u32>,
    pub(crate) parents: bool,
    pub(crate) sync: bool,
}

/// What comes, in order. The end without `Finish` is an aborted write.
#[derive(Debug)]
pub(crate) enum Piece {
    Data(Bytes),
    /// All of it, and how many bytes that was.
    Finish(u64),
}

/// What a write came to.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) bytes: u64,
    pub(crate) metadata: Metadata,
}

/// Writes the pieces to the file. Blocks between the pieces for as long as the iterator does.
pub(crate) fn write(
    request: &Write,
    pieces: impl Iterator<Item = Piece>,
) -> Result<Written, FileError> {
    let (parent, name) = split(&request.path);
    if request.parents && !name.is_empty() {
        fs::create_dir_all(parent).at(Operation::MakeDirectory, parent)?;
    }
    match request.mode {
        WriteMode::Replace if switches::is_off("atomic replace") => {
            write_in_place(request, pieces, 0)
        }
        WriteMode::Replace | WriteMode::CreateNew => write_whole(request, pieces),
        WriteMode::Truncate => write_in_place(request, pieces, 0),
        WriteMode::Append => write_in_place(request, pieces, 0),
        WriteMode::At(offset) => write_in_place(request, pieces, offset),
    }
}

fn write_whole(request: &Write, pieces: impl Iterator<Item = Piece>) -> Result<Written, FileError> {
    let path = &request.path;
    let new = request.mode == WriteMode::CreateNew;
    let place = if new {
        // As open(2) with O_EXCL, for which `.` and `..` are there already.
        Place::of(path).map_err(|errno| match (errno, split(path).1.is_empty()) {
            (Errno::EISDIR, false) => Errno::EEXIST,
            _ => errno,
        })
    } else {
        Place::through_links(path)
    }
    .at(Operation::Open, path)?;
    match &place.existing {
        // The kernel decides again at the end; this saves the client the sending.
        Some(_) if new => return Err(Errno::EEXIST).at(Operation::Create, path),
        Some(existing) => check(path, existing)?,
        None => {}
    }
    let first = match &place.existing {
        None => request.permissions.unwrap_or(NEW_FILE),
        // Nobody may read more of it before it has the old one's mode than afterwards.
        Some(_) => 0o600,
    };
    let first = Mode::from_bits_truncate(first);
    let mut staged = Staged::new(&place.directory, first).at(Operation::Create, path)?;
    switches::point("write: made");
    let bytes = receive(path, &mut staged.file, pieces)?;
    switches::point("write: received");
    adopt(request, place.existing.as_ref(), &staged.file)?;
    switches::point("write: adopted");
    if request.sync {
        staged.file.sync_all().at(Operation::Sync, path)?;
    }
    if new {
        staged.create(&place.name).at(Operation::Create, path)?;
    } else {
        staged.replace(&place.name).at(Operation::Rename, path)?;
    }
    switches::point("write: placed");
    if request.sync {
        place.sync_directory().at(Operation::Sync, path)?;
    }
    finished(path, &staged.file, bytes)
}

/// Gives a new file owner and mode of the old one, as far as this user may. After the last write, which would clear
/// set-id bits that were asked for; owner first, because a change of owner clears them too.
fn adopt(request: &Write, old: Option<&Metadata>, file: &File) -> Result<(), FileError> {
    let path = &request.path;
    if let Some(old) = old {
        let now = Metadata::of_open(file).at(Operation::Stat, path)?;
        keep_owner(old, &now, file).at(Operation::ChangeOwner, path)?;
    }
    let asked = match request.mode {
        WriteMode::Replace => request.permissions,
        _ => None,
    };
    match asked.or(old.map(|old| old.mode & 0o777)) {
        Some(mode) => fchmod(file, Mode::from_bits_truncate(mode)).at(Operation::ChangeMode, path),
        None => Ok(()),
    }
}

/// Owner and group; or the group alone, which a user may give who is in it; or neither.
fn keep_owner(old: &Metadata, now: &Metadata, file: &File) -> Result<(), Errno> {
    if (old.uid, old.gid) == (now.uid, now.gid) {
        return Ok(());
    }
    let group = Some(Gid::from_raw(old.gid));
    let result = match fchown(file, Some(Uid::from_raw(old.uid)), group) {
        // EINVAL is an id that this user namespace does not have.
        Err(Errno::EPERM | Errno::EINVAL) => fchown(file, None, group),
        result => result,
    };
    match result {
        Err(Errno::EPERM | Errno::EINVAL) => Ok(()),
        result => result,
    }
}

fn write_in_place(
    request: &Write,
    pieces: impl Iterator<Item = Piece>,
    offset: u64,
) -> Result<Written, FileError> {
    let path = &request.path;
    let created = match stat(path, true) {
        Ok(metadata) => {
            check(path, &metadata)?;
            false
        }
        Err(FileError::Refused {
            errno: Errno::ENOENT,
            ..
        }) => true,
        Err(error) => return Err(error),
    };
    let mut flags = OFlag::O_WRONLY | OFlag::O_CREAT;
    flags.set(OFlag::O_TRUNC, request.mode == WriteMode::Truncate);
    flags.set(OFlag::O_APPEND, request.mode == WriteMode::Append);
    let mode = Mode::from_bits_retain(request.permissions.unwrap_or(NEW_FILE));
    let file = open(path, flags, mode).at(Operation::Open, path)?;
    let mut file = File::from(file);
    // Another file may have taken the name since.
    check(path, &Metadata::of_open(&file).at(Operation::Stat, path)?)?;
    if offset > 0 {
        let to = SeekFrom::Start(offset);
        file.seek(to).at(Operation::Write, path)?;
    }
    let bytes = receive(path, &mut file, pieces)?;
    if request.sync {
        file.sync_all().at(Operation::Sync, path)?;
        if created {
            let place = Place::through_links(path).at(Operation::Sync, path)?;
            place.sync_directory().at(Operation::Sync, path)?;
        }
    }
    finished(path, &file, bytes)
}

fn receive(
    path: &Path,
    file: &mut File,
    pieces: impl Iterator<Item = Piece>,
) -> Result<u64, FileError> {
    let mut arrived = 0;
    for piece in pieces {
        match piece {
            Piece::Data(data) => {
                file.write_all(&data).at(Operation::Write, path)?;
                arrived += data.len() as u64;
                switches::point("write: receiving");
            }
            Piece::Finish(sent) if sent == arrived => return Ok(arrived),
            Piece::Finish(sent) => {
                return Err(FileError::SizeMismatch {
                    path: path.into(),
                    sent,
                    arrived,
                });
            }
        }
    }
    Err(FileError::Incomplete { path: path.into() })
}

fn finished(path: &Path, file: &File, bytes: u64) -> Result<Written, FileError> {
    let metadata = Metadata::of_open(file).at(Operation::Stat, path)?;
    Ok(Written { bytes, metadata })
}

fn check(path: &Path, metadata: &Metadata) -> Result<(), FileError> {
    match metadata.kind {
        Kind::Regular => Ok(()),
        Kind::Directory => Err(Errno::EISDIR).at(Operation::Open, path),
        _ => Err(FileError::SpecialFile { path: path.into() }),
    }
}

#[cfg(test)]
#[path = "write_tests.rs"]
mod tests;
