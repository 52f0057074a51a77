//! How an error of the domain `files` is told to the client.

use std::{os::unix::ffi::OsStringExt, path::PathBuf};

use guestline_proto::v1::ErrorReason;

use crate::{files::FileError, rpc::status::Failure};

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
        }
    }
}
