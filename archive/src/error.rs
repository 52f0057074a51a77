//! How packing and unpacking fail.

use std::{
    io,
    path::{Path, PathBuf},
};

use nix::errno::Errno;
use thiserror::Error;

/// Why a tree could not be packed or a stream not be unpacked.
#[derive(Debug, Error)]
pub enum Error {
    /// The kernel refused.
    #[error("{operation} {}", path.display())]
    Refused {
        /// What was tried, in lower case, such as "open".
        operation: &'static str,
        /// On what; relative to the directory.
        path: PathBuf,
        /// Why.
        #[source]
        errno: Errno,
    },
    /// An entry that would touch something outside of the directory, or is none that may be unpacked.
    #[error("the entry {} {why}", path.display())]
    Unsafe {
        /// As the stream names it.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// What came is no tar stream, or one in a format that is not read here.
    #[error("not a tar stream that can be read: {0}")]
    Malformed(&'static str),
    /// The stream ended before its end.
    #[error("the tar stream is cut short")]
    CutShort,
    /// The tree has more levels than [`crate::MAX_DEPTH`].
    #[error("{} is too deep", path.display())]
    TooDeep {
        /// The directory below which it would go on.
        path: PathBuf,
    },
    /// A FIFO, socket or device, where a directory or file is to be packed.
    #[error("{} is neither a directory nor a regular file", path.display())]
    SpecialFile {
        /// What was to be packed.
        path: PathBuf,
    },
    /// A file lost bytes that the stream had already announced.
    #[error("{} became shorter while it was read", path.display())]
    Shrank {
        /// Which file.
        path: PathBuf,
    },
    /// The stream could not be read or written further.
    #[error("the stream broke")]
    Stream(#[source] io::Error),
}

impl Error {
    /// The same with its path, if it is relative to the directory, below `root`.
    #[must_use]
    pub fn below(mut self, root: &Path) -> Self {
        match &mut self {
            Self::Refused { path, .. }
            | Self::TooDeep { path }
            | Self::SpecialFile { path }
            | Self::Shrank { path } => {
                *path = match path.as_os_str().is_empty() {
                    true => root.into(),
                    false => root.join(&path),
                };
            }
            Self::Unsafe { .. } | Self::Malformed(_) | Self::CutShort | Self::Stream(_) => {}
        }
        self
    }
}

/// Says what was tried, and on what, of an error that only knows its errno.
pub(crate) trait At<T> {
    fn at(self, operation: &'static str, path: &Path) -> Result<T, Error>;
}

impl<T> At<T> for Result<T, Errno> {
    fn at(self, operation: &'static str, path: &Path) -> Result<T, Error> {
        self.map_err(|errno| Error::Refused {
            operation,
            path: path.into(),
            errno,
        })
    }
}

impl<T> At<T> for io::Result<T> {
    fn at(self, operation: &'static str, path: &Path) -> Result<T, Error> {
        // The standard library makes a few errors itself (a write of no bytes, say).
        let errno = |error: io::Error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
        self.map_err(errno).at(operation, path)
    }
}

/// An end before the end is a cut stream, and anything else the stream's own trouble.
pub(crate) fn broken(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Error::CutShort,
        _ => Error::Stream(error),
    }
}
