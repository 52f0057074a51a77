//! Why a program was not started, or not signalled.

use nix::errno::Errno;
use thiserror::Error;

use super::{detached::BeyondEnd, record::ProcessId, registry::MAX_LIVE};

/// Why there is no program.
#[derive(Debug, Error)]
pub(crate) enum RunError {
    #[error("{MAX_LIVE} programs of this user run already")]
    Limit,
    #[error(
        "the output that is kept of this user's programs leaves no room; ask for smaller rings"
    )]
    Memory,
    #[error("{operation} failed")]
    Start {
        operation: &'static str,
        /// The program or directory; empty where it is neither.
        subject: Vec<u8>,
        source: Errno,
    },
    #[error("{}", no_session(*.0))]
    LoginSession(Errno),
    #[error("the task that starts the program was ended")]
    Stopped,
}

fn no_session(errno: Errno) -> &'static str {
    match errno {
        Errno::EOPNOTSUPP => "this guest does not run systemd, which opens login sessions",
        Errno::EAGAIN => "this user has as many login sessions as there may be",
        Errno::ETIMEDOUT => "systemd and PAM opened no login session in time",
        Errno::EIO => "systemd or PAM opened no login session; the guest's journal has the reason",
        other => other.desc(),
    }
}

/// Why a signal was not sent.
#[derive(Debug, Error)]
pub(crate) enum SignalError {
    #[error("no process {0} is known")]
    Unknown(ProcessId),
    #[error("process {0} has ended")]
    Ended(ProcessId),
    #[error("process {0} has no cgroup, so that nobody knows all that it started")]
    Ungrouped(ProcessId),
    #[error("cannot signal process {id}")]
    Kernel { id: ProcessId, source: Errno },
}

/// Why a client was not attached.
#[derive(Debug, Error)]
pub(crate) enum AttachError {
    #[error("no process {0} is known")]
    Unknown(ProcessId),
    #[error("process {0} has a client of its own: it was run, not started detached")]
    Attended(ProcessId),
    #[error(transparent)]
    BeyondEnd(#[from] BeyondEnd),
}
