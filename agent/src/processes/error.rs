//! Why a program was not started, or not signalled.

use nix::errno::Errno;
use thiserror::Error;

use super::{record::ProcessId, registry::MAX_LIVE};

/// Why there is no program.
#[derive(Debug, Error)]
pub(crate) enum RunError {
    #[error("{MAX_LIVE} programs of this user run already")]
    Limit,
    #[error("{operation} failed")]
    Start {
        operation: &'static str,
        /// The program or directory; empty where it is neither.
        subject: Vec<u8>,
        source: Errno,
    },
    #[error("the task that starts the program was ended")]
    Stopped,
}

/// Why a signal was not sent.
#[derive(Debug, Error)]
pub(crate) enum SignalError {
    #[error("no process {0} is known")]
    Unknown(ProcessId),
    #[error("process {0} has ended")]
    Ended(ProcessId),
    #[error("cannot signal process {id}")]
    Kernel { id: ProcessId, source: Errno },
}
