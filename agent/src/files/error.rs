//! How a call on files fails: the operation, the path, and the kernel's errno or our own reason.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use nix::errno::Errno;
use thiserror::Error;

use crate::sys::errno_of;

/// Why a call on files failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum FileError {
    /// The kernel refused.
    #[error("{operation} {}", path.display())]
    Refused {
        operation: Operation,
        path: PathBuf,
        #[source]
        errno: Errno,
    },
    /// A FIFO, socket or device where a file's bytes were asked for.
    #[error("{} is no regular file", path.display())]
    SpecialFile { path: PathBuf },
    /// The stream of a write ended before it said that it was whole.
    #[error("the content of {} was cut short", path.display())]
    Incomplete { path: PathBuf },
    /// Not as many bytes came as were sent.
    #[error("{sent} bytes were sent to {} and {arrived} arrived", path.display())]
    SizeMismatch {
        path: PathBuf,
        sent: u64,
        arrived: u64,
    },
    /// A directory cannot be copied to a place below itself.
    #[error("{} is below the directory that is copied", path.display())]
    IntoItself { path: PathBuf },
    /// The tree is deeper than a copy goes.
    #[error("{} is too deep", path.display())]
    TooDeep { path: PathBuf },
    /// More extended attributes than one answer holds.
    #[error("{} has more extended attributes than one answer holds", path.display())]
    TooManyAttributes { path: PathBuf },
    /// More directories than a watch has.
    #[error("{} is one directory more than a watch has", path.display())]
    TooManyDirectories { path: PathBuf },
    /// The guest lets its users watch so much, and no more.
    #[error("no more watches for {}", path.display())]
    NoMoreWatches { path: PathBuf },
}

/// What was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Open,
    Stat,
    Read,
    Write,
    Create,
    List,
    MakeDirectory,
    Remove,
    Rename,
    Copy,
    Link,
    ReadLink,
    ChangeOwner,
    ChangeMode,
    Truncate,
    SetTimes,
    Sync,
    Space,
    GetExtendedAttributes,
    SetExtendedAttributes,
    Watch,
}

impl Operation {
    /// As the client is told, in lower case.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Stat => "stat",
            Self::Read => "read",
            Self::Write => "write",
            Self::Create => "create",
            Self::List => "list",
            Self::MakeDirectory => "make directory",
            Self::Remove => "remove",
            Self::Rename => "rename",
            Self::Copy => "copy",
            Self::Link => "link",
            Self::ReadLink => "read link",
            Self::ChangeOwner => "change owner",
            Self::ChangeMode => "change mode",
            Self::Truncate => "truncate",
            Self::SetTimes => "set times",
            Self::Sync => "sync",
            Self::Space => "space",
            Self::GetExtendedAttributes => "get extended attributes",
            Self::SetExtendedAttributes => "set extended attributes",
            Self::Watch => "watch",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Says what was tried, and on what, of an error that only knows its errno.
pub(super) trait At<T> {
    fn at(self, operation: Operation, path: &Path) -> Result<T, FileError>;
}

impl<T> At<T> for Result<T, Errno> {
    fn at(self, operation: Operation, path: &Path) -> Result<T, FileError> {
        self.map_err(|errno| FileError::Refused {
            operation,
            path: path.into(),
            errno,
        })
    }
}

impl<T> At<T> for io::Result<T> {
    fn at(self, operation: Operation, path: &Path) -> Result<T, FileError> {
        self.map_err(|error| errno_of(&error)).at(operation, path)
    }
}
