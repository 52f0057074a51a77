//! What to run, valid by construction of its maker (`rpc::processes`): no NUL in a string, names without `=`.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use super::group::Limits;
pub(crate) use crate::sys::terminal::WindowSize;

/// What to run, and how. See `ProcessSpec` of processes.proto, which says it in full.
#[derive(Clone, Debug)]
pub(crate) struct ProcessSpec {
    pub(crate) command: Command,
    pub(crate) environment: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) unset_environment: Vec<String>,
    /// Relative to the home.
    pub(crate) directory: Option<PathBuf>,
    pub(crate) terminal: Option<TerminalSpec>,
    pub(crate) stdin: bool,
    pub(crate) merge_stderr: bool,
    pub(crate) timeout: Option<Duration>,
    pub(crate) umask: u32,
    pub(crate) leftovers: Leftovers,
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) limits: Limits,
    /// In a login session of its own, which systemd opens. Without limits.
    pub(crate) login_session: bool,
}

/// Never one made from the other.
#[derive(Clone, Debug)]
pub(crate) enum Command {
    /// Not empty.
    Arguments(Vec<Vec<u8>>),
    ShellLine {
        line: Vec<u8>,
        /// With the start-up files of a login shell.
        login: bool,
    },
    LoginShell,
}

/// A pseudo-terminal.
#[derive(Clone, Debug)]
pub(crate) struct TerminalSpec {
    pub(crate) term: Vec<u8>,
    pub(crate) size: WindowSize,
}

/// What becomes of the group's other members when the leader exits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leftovers {
    Keep,
    Kill,
}

/// What becomes of the program when its client vanishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnDisconnect {
    /// SIGHUP to the group, SIGKILL after the grace.
    HangUp,
    Kill,
    /// It lives on; its output is read and dropped.
    Keep,
}
