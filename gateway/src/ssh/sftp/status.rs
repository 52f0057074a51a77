//! How a request went, in SFTP's few codes. The one table from the guest's errors to them.

use guestline_client::{Error as GuestError, ErrorReason};

use super::super::failure::{Failure, full};

/// SSH_FX_*.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Code {
    Ok = 0,
    Eof = 1,
    NoSuchFile = 2,
    PermissionDenied = 3,
    Failure = 4,
    BadMessage = 5,
    Unsupported = 8,
}

/// A code, and words for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) code: Code,
    pub(super) text: String,
}

impl Status {
    pub(super) fn new(code: Code, text: impl Into<String>) -> Self {
        Self {
            code,
            text: text.into(),
        }
    }

    pub(super) fn ok() -> Self {
        Self::new(Code::Ok, "")
    }

    pub(super) fn eof() -> Self {
        Self::new(Code::Eof, "end of file")
    }

    pub(super) fn failure(text: &str) -> Self {
        Self::new(Code::Failure, text)
    }

    pub(super) fn no_handle() -> Self {
        Self::failure("there is no such handle")
    }

    /// For the audit log.
    pub(super) fn result(&self) -> &'static str {
        match self.code {
            Code::Ok | Code::Eof => "ok",
            Code::NoSuchFile => "NOT_FOUND",
            Code::PermissionDenied => "FORBIDDEN",
            Code::Failure => "FAILED",
            Code::BadMessage => "BAD_REQUEST",
            Code::Unsupported => "UNSUPPORTED",
        }
    }
}

impl From<GuestError> for Status {
    fn from(error: GuestError) -> Self {
        let code = match error.reason() {
            Some(ErrorReason::NotFound | ErrorReason::NotADirectory) => Code::NoSuchFile,
            Some(ErrorReason::PermissionDenied | ErrorReason::SwitchedOff) => {
                Code::PermissionDenied
            }
            Some(ErrorReason::Unsupported) => Code::Unsupported,
            _ => Code::Failure,
        };
        match error.reason() {
            Some(_) => Self::new(code, full(&error)),
            // A connection's failure names where this host looks for its guests.
            None => Self::new(code, Failure::from(error).text),
        }
    }
}
