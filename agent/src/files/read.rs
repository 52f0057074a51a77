//! The bytes of a regular file or block device, in chunks.

use std::{
    fs::File,
    io::{self, Seek, SeekFrom},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use guestline_archive::open_harmlessly;
use guestline_proto::MAX_CHUNK_SIZE;
use nix::{
    errno::Errno,
    fcntl::{self, AT_FDCWD, OFlag},
    sys::stat::Mode,
};
use rustix::buffer::spare_capacity;

use super::{
    error::{At, FileError, Operation},
    metadata::{Kind, Metadata, stat},
};
use crate::switches;

/// The first chunk where the size is not known, or false as in /proc; doubled as long as they are filled.
const FIRST_CHUNK_SIZE: usize = 64 * 1024;

/// Which part of a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Range {
    pub(crate) offset: u64,
    /// Absent: to the end.
    pub(crate) length: Option<u64>,
}

/// An open file that is read once, from start to end.
#[derive(Debug)]
pub(crate) struct Reader {
    path: PathBuf,
    file: File,
    metadata: Metadata,
    /// How much more may be given.
    wanted: u64,
    /// How much more the file should have by its size.
    expected: u64,
    chunk_size: usize,
}

impl Reader {
    /// Opens a file. What is neither file nor directory is refused before it is opened: opening a device can do things, and
    /// a FIFO waits. A directory is refused afterwards, so that who may not read it hears that first, as from the kernel.
    pub(crate) fn open(path: &Path, range: Range) -> Result<Self, FileError> {
        let there = stat(path, true)?;
        if there.kind != Kind::Directory {
            check(path, &there)?;
        }
        let file = open(path, OFlag::O_RDONLY, Mode::empty());
        let mut file = File::from(file.at(Operation::Open, path)?);
        let metadata = Metadata::of_open(&file).at(Operation::Stat, path)?;
        // Another file may have taken the name between the two.
        check(path, &metadata)?;
        let mut wanted = range.length.unwrap_or(u64::MAX);
        if range.offset > i64::MAX as u64 {
            // Past the end of any file.
            wanted = 0;
        } else if range.offset > 0 {
            let to = SeekFrom::Start(range.offset);
            file.seek(to).at(Operation::Read, path)?;
        }
        Ok(Self {
            path: path.into(),
            file,
            expected: metadata.size.saturating_sub(range.offset),
            metadata,
            wanted,
            chunk_size: FIRST_CHUNK_SIZE,
        })
    }

    /// What was opened.
    pub(crate) fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The next bytes, at most so many, and at most [`MAX_CHUNK_SIZE`]; `None` at the end.
    pub(crate) fn next_chunk(&mut self, most: usize) -> Result<Option<Bytes>, FileError> {
        let most = most.min(MAX_CHUNK_SIZE);
        let size = match usize::try_from(self.expected) {
            Ok(0) => self.chunk_size.min(most),
            Ok(expected) => expected.min(most),
            Err(_) => most,
        };
        let size = size.min(usize::try_from(self.wanted).unwrap_or(usize::MAX));
        if size == 0 {
            return Ok(None);
        }
        let mut chunk = Vec::with_capacity(size);
        let read = read(&self.file, &mut chunk).at(Operation::Read, &self.path)?;
        // The allocator may have given more room than was wanted.
        chunk.truncate(size);
        let read = read.min(size);
        if read == 0 {
            return Ok(None);
        }
        if read == self.chunk_size {
            self.chunk_size = (self.chunk_size * 2).min(MAX_CHUNK_SIZE);
        }
        self.wanted -= read as u64;
        self.expected = self.expected.saturating_sub(read as u64);
        Ok(Some(chunk.into()))
    }
}

/// How whatever may stand behind a path is opened.
pub(super) fn open(path: &Path, flags: OFlag, mode: Mode) -> Result<OwnedFd, Errno> {
    match switches::is_off("O_NONBLOCK") {
        true => fcntl::open(path, flags | OFlag::O_NOCTTY | OFlag::O_CLOEXEC, mode),
        false => open_harmlessly(AT_FDCWD, path, flags, mode),
    }
}

/// Into memory that nobody has cleared for it.
fn read(file: &File, chunk: &mut Vec<u8>) -> io::Result<usize> {
    loop {
        match rustix::io::read(file, spare_capacity(chunk)) {
            Err(rustix::io::Errno::INTR) => {}
            result => return Ok(result?),
        }
    }
}

fn check(path: &Path, metadata: &Metadata) -> Result<(), FileError> {
    match metadata.kind {
        Kind::Regular | Kind::BlockDevice => Ok(()),
        Kind::Directory => Err(Errno::EISDIR).at(Operation::Read, path),
        Kind::Symlink | Kind::Fifo | Kind::Socket | Kind::CharacterDevice | Kind::Unknown => {
            Err(FileError::SpecialFile { path: path.into() })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use nix::{sys::stat::Mode, unistd::mkfifo};

    use super::*;

    const ALL: Range = Range {
        offset: 0,
        length: None,
    };

    fn read_all(path: &Path, range: Range) -> Result<Vec<u8>, FileError> {
        let mut reader = Reader::open(path, range)?;
        let mut content = Vec::new();
        while let Some(chunk) = reader.next_chunk(usize::MAX)? {
            assert!(chunk.len() <= MAX_CHUNK_SIZE);
            content.extend_from_slice(&chunk);
        }
        Ok(content)
    }

    #[test]
    fn a_file_of_proc_with_a_false_size_is_read_to_its_end() {
        for path in ["/proc/filesystems", "/proc/kallsyms", "/proc/self/environ"] {
            let path = Path::new(path);
            assert_eq!(fs::metadata(path).unwrap().len(), 0);
            assert_eq!(read_all(path, ALL).unwrap(), fs::read(path).unwrap());
        }
    }

    #[test]
    fn offset_and_length_are_honoured_across_chunks() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let content: Vec<u8> = (0..3 * MAX_CHUNK_SIZE + 5)
            .map(|n| (n % 251) as u8)
            .collect();
        fs::write(&path, &content).unwrap();
        assert!(read_all(&path, ALL).unwrap() == content);
        let range = |offset, length| Range { offset, length };
        let part = read_all(&path, range(7, Some(2 * MAX_CHUNK_SIZE as u64))).unwrap();
        assert!(part == content[7..7 + 2 * MAX_CHUNK_SIZE]);
        let end = content.len() as u64;
        assert_eq!(read_all(&path, range(end - 3, Some(9))).unwrap().len(), 3);
        for past in [end, end + 1, u64::MAX] {
            assert!(read_all(&path, range(past, None)).unwrap().is_empty());
        }
        assert!(read_all(&path, range(0, Some(0))).unwrap().is_empty());
    }

    #[test]
    fn no_chunk_is_larger_than_is_wanted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, [7; 10_000]).unwrap();
        for path in [path.as_path(), Path::new("/proc/kallsyms")] {
            let mut reader = Reader::open(path, ALL).unwrap();
            let first = reader.next_chunk(4096).unwrap().unwrap();
            // A file of /proc gives whole lines.
            assert!((1..=4096).contains(&first.len()), "{}", first.len());
        }
    }

    #[test]
    fn what_is_no_file_is_refused_without_opening_it() {
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("fifo");
        mkfifo(&fifo, Mode::from_bits_truncate(0o600)).unwrap();
        for path in [fifo.as_path(), Path::new("/dev/zero")] {
            let error = Reader::open(path, ALL).unwrap_err();
            assert_eq!(error, FileError::SpecialFile { path: path.into() });
        }
        let error = Reader::open(directory.path(), ALL).unwrap_err();
        assert!(matches!(
            error,
            FileError::Refused {
                errno: Errno::EISDIR,
                ..
            }
        ));
    }
}
