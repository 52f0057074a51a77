//! What is known of one program while it lives, and for some time after.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use tokio::time::Instant;

use super::{client::Exit, leader::Leader, spec::ProcessSpec};

/// Bytes of a command that are kept for List: the start of an argument vector says what it is.
const MAX_COMMAND: usize = 4096;

/// Names a process to this worker; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ProcessId(pub(crate) u64);

impl fmt::Display for ProcessId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// What the registry and the owning task know of one program.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) id: ProcessId,
    pub(super) leader: Leader,
    command: Vec<Vec<u8>>,
    name: String,
    labels: BTreeMap<String, String>,
    started: SystemTime,
    pub(super) stdout_bytes: Arc<AtomicU64>,
    pub(super) stderr_bytes: Arc<AtomicU64>,
    exit: Mutex<Option<(Exit, Instant)>>,
}

impl Record {
    pub(super) fn new(
        id: ProcessId,
        leader: Leader,
        command: Vec<Vec<u8>>,
        spec: &ProcessSpec,
    ) -> Self {
        Self {
            id,
            leader,
            command: beginning(command),
            name: spec.name.clone(),
            labels: spec.labels.clone(),
            started: SystemTime::now(),
            stdout_bytes: Arc::default(),
            stderr_bytes: Arc::default(),
            exit: Mutex::default(),
        }
    }

    pub(super) fn ended(&self, exit: Exit) {
        *lock(&self.exit) = Some((exit, Instant::now()));
    }

    /// When [`Record::ended`] was called.
    pub(super) fn ended_at(&self) -> Option<Instant> {
        lock(&self.exit).map(|(_, at)| at)
    }

    pub(super) fn summary(&self) -> Summary {
        Summary {
            id: self.id,
            pid: self.leader.pid(),
            command: self.command.clone(),
            name: self.name.clone(),
            labels: self.labels.clone(),
            started: self.started,
            exit: lock(&self.exit).map(|(exit, _)| exit),
            stdout_bytes: self.stdout_bytes.load(Ordering::Relaxed),
            stderr_bytes: self.stderr_bytes.load(Ordering::Relaxed),
        }
    }
}

/// One program, as List tells of it.
#[derive(Clone, Debug)]
pub(crate) struct Summary {
    pub(crate) id: ProcessId,
    pub(crate) pid: i32,
    /// Its first arguments.
    pub(crate) command: Vec<Vec<u8>>,
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) started: SystemTime,
    pub(crate) exit: Option<Exit>,
    pub(crate) stdout_bytes: u64,
    pub(crate) stderr_bytes: u64,
}

fn beginning(mut command: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let mut room = MAX_COMMAND;
    command.retain_mut(|argument| {
        let kept = room > 0;
        argument.truncate(room);
        // An empty argument takes room too.
        room = room.saturating_sub(argument.len().max(1));
        kept
    });
    command.iter_mut().for_each(Vec::shrink_to_fit);
    command
}

/// Nothing panics under these locks; if it did, what they hold would still be whole.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
