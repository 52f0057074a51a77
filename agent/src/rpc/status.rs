//! The one table from what went wrong to a gRPC code. No other file of the agent names `tonic::Code`.

use guestline_proto::{
    encode_error_detail,
    v1::{ErrorDetail, ErrorReason},
};
use nix::errno::Errno;
use tonic::{Code, Status};

/// A failed operation on its way to the client: what was tried, on what, and why it failed.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    /// What a program matches on.
    pub(crate) reason: ErrorReason,
    /// 0 where the kernel was not the one that refused.
    pub(crate) errno: i32,
    /// In lower case, such as "open".
    pub(crate) operation: &'static str,
    /// Empty where there is none.
    pub(crate) path: Vec<u8>,
    /// Why, for a person, without operation and path.
    pub(crate) text: String,
}

impl Failure {
    /// The kernel said no.
    pub(crate) fn kernel(operation: &'static str, path: impl Into<Vec<u8>>, errno: Errno) -> Self {
        let reason = reason_of(errno);
        Self {
            reason,
            errno: errno as i32,
            operation,
            path: path.into(),
            text: errno.desc().into(),
        }
    }

    /// We said no, for a reason of the protocol.
    pub(crate) fn refused(
        reason: ErrorReason,
        operation: &'static str,
        text: impl Into<String>,
    ) -> Self {
        Self {
            reason,
            errno: 0,
            operation,
            path: Vec::new(),
            text: text.into(),
        }
    }

    /// The request is wrong in a field.
    pub(crate) fn invalid(operation: &'static str, text: impl Into<String>) -> Self {
        Self::refused(ErrorReason::InvalidArgument, operation, text)
    }

    /// The same, about a path.
    pub(crate) fn on(mut self, path: impl Into<Vec<u8>>) -> Self {
        self.path = path.into();
        self
    }

    /// As it is told inside a message, such as an entry of a listing.
    pub(crate) fn into_detail(self) -> ErrorDetail {
        ErrorDetail {
            reason: self.reason.into(),
            errno: self.errno,
            operation: self.operation.into(),
            path: self.path.into(),
        }
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        let code = code_of(failure.reason);
        let text = if failure.path.is_empty() {
            format!("{}: {}", failure.operation, failure.text)
        } else {
            format!(
                "{} {:?}: {}",
                failure.operation,
                String::from_utf8_lossy(&failure.path),
                failure.text
            )
        };
        let detail = encode_error_detail(code as i32, &text, &failure.into_detail());
        Status::with_details(code, text, detail)
    }
}

fn reason_of(errno: Errno) -> ErrorReason {
    match errno {
        Errno::EACCES | Errno::EPERM => ErrorReason::PermissionDenied,
        Errno::ENOENT => ErrorReason::NotFound,
        Errno::EEXIST => ErrorReason::AlreadyExists,
        Errno::ENOTDIR => ErrorReason::NotADirectory,
        Errno::EISDIR => ErrorReason::IsADirectory,
        Errno::ENOTEMPTY => ErrorReason::DirectoryNotEmpty,
        Errno::ENXIO | Errno::ENODEV => ErrorReason::SpecialFile,
        Errno::ENOSPC => ErrorReason::NoSpace,
        Errno::EDQUOT => ErrorReason::QuotaExceeded,
        Errno::EFBIG => ErrorReason::FileTooLarge,
        Errno::EROFS => ErrorReason::ReadOnlyFileSystem,
        Errno::ELOOP => ErrorReason::SymlinkLoop,
        Errno::ENAMETOOLONG => ErrorReason::NameTooLong,
        Errno::EXDEV => ErrorReason::CrossDevice,
        Errno::EBUSY | Errno::ETXTBSY => ErrorReason::Busy,
        Errno::EIO | Errno::EREMOTEIO | Errno::EUCLEAN => ErrorReason::Io,
        Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::EAGAIN => {
            ErrorReason::ResourceExhausted
        }
        Errno::ENOEXEC => ErrorReason::ExecFormat,
        Errno::EINVAL => ErrorReason::InvalidArgument,
        Errno::EOPNOTSUPP | Errno::ENOSYS => ErrorReason::Unsupported,
        _ => ErrorReason::Errno,
    }
}

fn code_of(reason: ErrorReason) -> Code {
    match reason {
        ErrorReason::PermissionDenied
        | ErrorReason::ReadOnlyFileSystem
        | ErrorReason::SwitchedOff => Code::PermissionDenied,
        ErrorReason::NotFound | ErrorReason::NoSuchProcess | ErrorReason::NoSuchUser => {
            Code::NotFound
        }
        ErrorReason::AlreadyExists => Code::AlreadyExists,
        ErrorReason::NotADirectory
        | ErrorReason::IsADirectory
        | ErrorReason::DirectoryNotEmpty
        | ErrorReason::SpecialFile
        | ErrorReason::SymlinkLoop
        | ErrorReason::CrossDevice
        | ErrorReason::Busy
        | ErrorReason::NotFrozen
        | ErrorReason::ToolFailed
        | ErrorReason::ExecFormat => Code::FailedPrecondition,
        ErrorReason::NoSpace
        | ErrorReason::QuotaExceeded
        | ErrorReason::FileTooLarge
        | ErrorReason::ResourceExhausted
        | ErrorReason::Limit => Code::ResourceExhausted,
        ErrorReason::NameTooLong | ErrorReason::InvalidArgument => Code::InvalidArgument,
        ErrorReason::Incomplete => Code::Aborted,
        ErrorReason::DeadlineExceeded => Code::DeadlineExceeded,
        ErrorReason::Unsupported => Code::Unimplemented,
        ErrorReason::Draining => Code::Unavailable,
        ErrorReason::Io | ErrorReason::ChecksumMismatch => Code::DataLoss,
        ErrorReason::Internal => Code::Internal,
        ErrorReason::Errno | ErrorReason::Unspecified => Code::Unknown,
    }
}
