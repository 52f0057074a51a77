//! How many descriptors a process may have (RLIMIT_NOFILE, getrlimit(2)). The agent uses what it may; a program gets what the
//! agent was started with, since a high soft limit breaks programs that use select(2), or close all that they might have.

use nix::{
    errno::Errno,
    sys::resource::{Resource, getrlimit, rlim_t, setrlimit},
};

/// Raises this process's soft limit to its hard one, which needs no privilege. Gives the soft limit of before.
pub(crate) fn raise_limit() -> Result<rlim_t, Errno> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(soft)
}
