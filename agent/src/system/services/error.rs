//! How a call on services fails.

use thiserror::Error;

use super::{BOOTED, UnitName, change::UNITS};
use crate::{
    files::FileError,
    system::tool::{Finished, ToolError},
};

/// EXIT_NOPERMISSION and EXIT_NOTINSTALLED of the Linux Standard Base, which systemctl follows where it can.
const NO_PERMISSION: i32 = 4;

/// systemd's words for a caller who may not: AccessDenied and InteractiveAuthorizationRequired of D-Bus, EACCES and EPERM.
const DENIALS: [&str; 5] = [
    "Access denied",
    "nteractive authentication required",
    "ermission denied",
    "not permitted",
    "insufficient permissions",
];

/// Why a call on services failed.
#[derive(Debug, Error)]
pub(crate) enum ServiceError {
    #[error("this guest does not run systemd ({BOOTED} is not there)")]
    NoSystemd,
    #[error("the service's name {0}")]
    InvalidName(&'static str),
    #[error("the pattern {0}")]
    InvalidPattern(&'static str),
    #[error("systemd knows no {0}")]
    Unknown(UnitName),
    #[error("{0} is there already")]
    Exists(UnitName),
    #[error(
        "{0} has no unit file of its own in {UNITS}; what a package brought is the package's to remove"
    )]
    NotOurs(UnitName),
    #[error("the unit file has more than {max} bytes, or a NUL", max = super::change::MAX_UNIT)]
    InvalidUnit,
    #[error("systemd finds the unit file wrong ({0}), and it was removed again")]
    BadUnit(String),
    #[error("{0} services match; name a pattern that fewer do")]
    TooMany(usize),
    /// systemd, polkit or the journal's files.
    #[error("{0}")]
    Denied(String),
    #[error("{verb} failed: {words}")]
    Failed { verb: &'static str, words: String },
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Tool(#[from] ToolError),
}

impl ServiceError {
    /// Of a program that ended with another code than 0.
    pub(super) fn refused(verb: &'static str, output: &Finished) -> Self {
        let words = output.words.clone();
        let denied = output.code == Some(NO_PERMISSION)
            || DENIALS.iter().any(|denial| words.contains(denial));
        if denied {
            Self::Denied(words)
        } else {
            Self::Failed { verb, words }
        }
    }
}
