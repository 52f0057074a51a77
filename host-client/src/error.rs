//! What can go wrong with an operation, as a caller can match on it.

use std::{error::Error as StdError, io, os::unix::ffi::OsStringExt, path::PathBuf};

use guestline_proto::decode_error_detail;
pub use guestline_proto::{hello::RefusalReason, v1::ErrorReason};
use thiserror::Error;
use tonic::{Code, Status};

use crate::{ConnectError, Endpoint};

/// Why an operation failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// No connection to an agent came about: nothing was done in the guest.
    #[error("no agent answers at {endpoint}")]
    Connect {
        /// Where it was looked for.
        endpoint: Endpoint,
        /// Why.
        source: ConnectError,
    },
    /// The agent would not let the connection be that user: nothing was done in the guest.
    #[error("the agent refused to act as {user}: {text}")]
    Refused {
        /// The user asked for.
        user: String,
        /// Why; absent if a newer agent knows more reasons than this client.
        reason: Option<RefusalReason>,
        /// The agent's words.
        text: String,
    },
    /// The guest tried, and it failed there.
    #[error("{message}")]
    Operation {
        /// What went wrong, to match on.
        reason: ErrorReason,
        /// The guest kernel's errno, 0 where the kernel was not the one that refused.
        errno: i32,
        /// The step: "open", "rename", "exec", …
        operation: String,
        /// The path it was tried on; empty where there is none.
        path: PathBuf,
        /// The agent's words.
        message: String,
    },
    /// The connection ended while the operation was under way: whether it happened is unknown.
    #[error("the connection to the agent was lost")]
    Lost(#[source] Option<Box<Status>>),
    /// The agent answered what the protocol does not allow.
    #[error("the agent broke the protocol: {0}")]
    Protocol(String),
    /// More output than the caller wanted to hold in memory.
    #[error("the program wrote more than {limit} bytes of output")]
    OutputTooLarge {
        /// The limit that was set.
        limit: usize,
    },
    /// A list is longer than what is held of one in memory, and nothing of it is given. A guest's words: it may have made it up.
    #[error("the guest's list has more than {items} items, or more than {bytes} bytes")]
    ListTooLong {
        /// The most items.
        items: usize,
        /// The most bytes, as they were sent.
        bytes: usize,
    },
    /// The host's folder could not be packed, or what the guest sent not be unpacked there.
    #[error("the copy failed on the host")]
    Folder(#[source] guestline_archive::Error),
    /// The host's side of a copy could not be read.
    #[error("cannot read what is to be sent")]
    Source(#[source] io::Error),
}

impl Error {
    /// What went wrong in the guest, if it went wrong there.
    pub fn reason(&self) -> Option<ErrorReason> {
        match self {
            Self::Operation { reason, .. } => Some(*reason),
            _ => None,
        }
    }

    /// The guest kernel's errno, if the kernel refused.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Operation { errno, .. } if *errno != 0 => Some(*errno),
            _ => None,
        }
    }

    /// Whether the path is not there.
    pub fn is_not_found(&self) -> bool {
        self.reason() == Some(ErrorReason::NotFound)
    }

    /// Whether the guest's kernel does not let the user do it.
    pub fn is_permission_denied(&self) -> bool {
        self.reason() == Some(ErrorReason::PermissionDenied)
    }

    /// Makes an error of what tonic gives; `endpoint` and `user` are those of the connection.
    pub(crate) fn from_status(status: Status, endpoint: &Endpoint, user: &str) -> Self {
        if let Some(detail) = decode_error_detail(status.details()) {
            return Self::Operation {
                reason: detail.reason(),
                errno: detail.errno,
                operation: detail.operation.clone(),
                path: std::ffi::OsString::from_vec(detail.path.to_vec()).into(),
                message: status.message().into(),
            };
        }
        match find_connect_error(&status) {
            Some(error) => Self::from_connecting(error.clone(), endpoint, user),
            // tonic gives a source to what went wrong on the way, and none to what the agent said.
            None if status.source().is_some() || status.code() == Code::Unavailable => {
                Self::Lost(Some(Box::new(status)))
            }
            None => without_detail(&status),
        }
    }

    /// No connection came about.
    pub(crate) fn from_connecting(error: ConnectError, endpoint: &Endpoint, user: &str) -> Self {
        match error {
            ConnectError::Refused { reason, text } => Self::Refused {
                user: user.into(),
                reason,
                text,
            },
            source => Self::Connect {
                endpoint: endpoint.clone(),
                source,
            },
        }
    }

    /// What an agent answers that lacks something; for what an older one would pass over, which must not be sent to it.
    pub(crate) fn lacking(operation: &str, message: impl Into<String>) -> Self {
        Self::Operation {
            reason: ErrorReason::Unsupported,
            errno: 0,
            operation: operation.into(),
            path: PathBuf::new(),
            message: message.into(),
        }
    }
}

fn find_connect_error(status: &Status) -> Option<&ConnectError> {
    let mut next = status.source();
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// What gRPC's own layers answer, without our detail.
fn without_detail(status: &Status) -> Error {
    let reason = match status.code() {
        Code::Unimplemented => ErrorReason::Unsupported,
        Code::DeadlineExceeded => ErrorReason::DeadlineExceeded,
        Code::ResourceExhausted => ErrorReason::ResourceExhausted,
        code => return Error::Protocol(format!("{code:?} without a detail: {}", status.message())),
    };
    Error::Operation {
        reason,
        errno: 0,
        operation: "call".into(),
        path: PathBuf::new(),
        message: status.message().into(),
    }
}
