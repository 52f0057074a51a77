//! How an error of the domain `files` is told to the client.

use std::{os::unix::ffi::OsStringExt, path::PathBuf};

use guestline_proto::v1::ErrorReason;
use nix::errno::Errno;

use crate::{
    files::{FileError, archive},
    rpc::status::Failure,
};

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        let refused = |reason, operation, text: String, path: PathBuf| {
            Self::refused(reason, operation, text).on(path.into_os_string().into_vec())
        };
        match error {
            FileError::Refused {
                operation,
                path,
                errno,
            } => Self::kernel(operation.name(), path.into_os_string().into_vec(), errno),
            FileError::SpecialFile { path } => {
                let text = "a FIFO, socket or device, where a file's bytes are asked for";
                refused(ErrorReason::SpecialFile, "open", text.into(), path)
            }
            FileError::Incomplete { path } => {
                let text = "the stream ended without `finish`";
                refused(ErrorReason::Incomplete, "write", text.into(), path)
            }
            FileError::SizeMismatch {
                path,
                sent,
                arrived,
            } => {
                let text = format!("{sent} bytes were sent, and {arrived} arrived");
                refused(ErrorReason::ChecksumMismatch, "write", text, path)
            }
            FileError::IntoItself { path } => {
                let text = "the target is below the directory that is copied";
                refused(ErrorReason::InvalidArgument, "copy", text.into(), path)
            }
            FileError::TooDeep { path } => {
                let text = "the tree is deeper than a copy goes";
                refused(ErrorReason::Limit, "copy", text.into(), path)
            }
            FileError::TooManyDirectories { path } => {
                let text = "there are more directories than a watch has";
                refused(ErrorReason::Limit, "watch", text.into(), path)
            }
            FileError::NoMoreWatches { path } => {
                let text = "the guest's fs.inotify.max_user_watches is reached";
                Self {
                    errno: Errno::ENOSPC as i32,
                    ..refused(ErrorReason::Limit, "watch", text.into(), path)
                }
            }
            FileError::TooManyAttributes { path } => {
                let text = "all attributes together are more than 1 MiB; ask for them by name";
                let operation = "get extended attributes";
                refused(ErrorReason::Limit, operation, text.into(), path)
            }
        }
    }
}

impl From<archive::Error> for Failure {
    fn from(error: archive::Error) -> Self {
        use archive::Error;
        let bytes = |path: PathBuf| path.into_os_string().into_vec();
        match error {
            Error::Refused {
                operation,
                path,
                errno,
            } => Self::kernel(operation, bytes(path), errno),
            Error::Unsafe { path, why } => {
                Self::invalid("unpack", format!("the entry {why}")).on(bytes(path))
            }
            Error::Malformed(why) => Self::invalid("unpack", why),
            Error::CutShort | Error::Stream(_) => {
                let text = "the stream ended before the tar stream did, or without `finish`";
                Self::refused(ErrorReason::Incomplete, "unpack", text)
            }
            Error::TooDeep { path } => {
                let text = format!("it is more than {} directories deep", archive::MAX_DEPTH);
                Self::refused(ErrorReason::Limit, "open", text).on(bytes(path))
            }
            Error::SpecialFile { path } => {
                let text = "a FIFO, socket or device, where a directory or file is to be packed";
                Self::refused(ErrorReason::SpecialFile, "open", text).on(bytes(path))
            }
            Error::Shrank { path } => {
                let text = "it became shorter while it was read; try again";
                Self::refused(ErrorReason::Busy, "read", text).on(bytes(path))
            }
        }
    }
}
