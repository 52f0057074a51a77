//! What is known of one program while it lives, and for some time after.

use std::{
    collections::BTreeMap,
    fmt,
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use nix::errno::Errno;
use tokio::{sync::mpsc, time::Instant};

use super::{
    client::Exit,
    controls::Feed,
    detached::Detached,
    group::Group,
    leader::{Leader, SignalNumber, Target},
    now::{Now, now},
    registry::Busy,
    spec::ProcessSpec,
};

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
    since: Instant,
    pub(super) stdout_bytes: Arc<AtomicU64>,
    pub(super) stderr_bytes: Arc<AtomicU64>,
    /// The master of its terminal, while the leader lives.
    pub(super) terminal: Mutex<Option<OwnedFd>>,
    /// Where its input goes.
    pub(super) feed: mpsc::Sender<Feed>,
    /// `None` where the guest has no cgroup v2, and once nothing is left in it.
    group: Mutex<Option<Arc<Group>>>,
    /// The output of a program that Start began.
    pub(super) detached: Option<Arc<Detached>>,
    exit: Mutex<Option<(Exit, Instant)>>,
    /// Keeps the worker for as long as a detached program's output may be asked for.
    _busy: Option<Busy>,
}

/// A program that has just been started.
pub(super) struct Begun {
    pub(super) leader: Leader,
    pub(super) group: Option<Group>,
    pub(super) command: Vec<Vec<u8>>,
    pub(super) terminal: Option<OwnedFd>,
    pub(super) feed: mpsc::Sender<Feed>,
    /// Of one that lives on without a client.
    pub(super) detached: Option<(Arc<Detached>, Busy)>,
}

impl Record {
    pub(super) fn new(id: ProcessId, begun: Begun, spec: &ProcessSpec) -> Self {
        let (detached, busy) = begun.detached.unzip();
        Self {
            id,
            leader: begun.leader,
            group: Mutex::new(begun.group.map(Arc::new)),
            command: beginning(begun.command),
            name: spec.name.clone(),
            labels: spec.labels.clone(),
            started: SystemTime::now(),
            since: Instant::now(),
            stdout_bytes: Arc::default(),
            stderr_bytes: Arc::default(),
            terminal: Mutex::new(begun.terminal),
            feed: begun.feed,
            detached,
            exit: Mutex::default(),
            _busy: busy,
        }
    }

    pub(super) fn signal(&self, signal: SignalNumber, target: Target) -> Result<(), SignalFailure> {
        let sent = match target {
            Target::Leader => self.leader.signal(signal),
            Target::Group => self.leader.signal_group(signal),
            Target::All => match self.group() {
                Some(group) => group.signal(signal),
                None => return Err(SignalFailure::Ungrouped),
            },
        };
        sent.map_err(SignalFailure::Kernel)
    }

    /// SIGKILL to the process group, and with a cgroup to all that the program ever started. Only a process group that is
    /// gone, or that became another user's, could refuse: nothing to do then.
    pub(super) fn kill(&self) {
        let _ = self.leader.signal_group(SignalNumber::KILL);
        if let Some(group) = self.group() {
            group.kill();
        }
    }

    /// The same to what a leader that has exited left over. Mostly that is nothing, and then nobody is asked for it.
    pub(super) fn kill_leftovers(&self) {
        let _ = self.leader.signal_group(SignalNumber::KILL);
        if let Some(group) = self.group().filter(|group| group.is_populated()) {
            group.kill();
        }
    }

    pub(super) fn group(&self) -> Option<Arc<Group>> {
        lock(&self.group).clone()
    }

    /// The leader has been reaped: a cgroup in which something is left stays, for whoever wants to signal that. Whether there is
    /// none any more.
    pub(super) fn release_empty_group(&self) -> bool {
        let mut group = lock(&self.group);
        if group.as_ref().is_some_and(|group| !group.is_populated()) {
            *group = None;
        }
        group.is_none()
    }

    pub(super) fn ended(&self, exit: Exit) {
        *lock(&self.exit) = Some((exit, Instant::now()));
    }

    /// When [`Record::ended`] was called.
    pub(super) fn ended_at(&self) -> Option<Instant> {
        lock(&self.exit).map(|(_, at)| at)
    }

    pub(super) fn summary(&self) -> Summary {
        let exit = lock(&self.exit).map(|(exit, _)| exit);
        // Without an exit the leader is not reaped, or about to get one.
        let now = match exit {
            None => now(self.leader.pid(), self.since.elapsed()),
            Some(_) => None,
        };
        Summary {
            id: self.id,
            pid: self.leader.pid(),
            command: self.command.clone(),
            name: self.name.clone(),
            labels: self.labels.clone(),
            started: self.started,
            exit,
            now,
            detached: self.detached.is_some(),
            stdout_bytes: self.stdout_bytes.load(Ordering::Relaxed),
            stderr_bytes: self.stderr_bytes.load(Ordering::Relaxed),
        }
    }
}

/// Why a signal was not sent.
#[derive(Debug)]
pub(super) enum SignalFailure {
    /// There is no cgroup whose all could be signalled.
    Ungrouped,
    Kernel(Errno),
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
    /// Of one that runs.
    pub(crate) now: Option<Now>,
    pub(crate) detached: bool,
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
