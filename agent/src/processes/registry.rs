//! The programs that this worker started: how many live, and what is known of each by its number.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use nix::errno::Errno;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::spawn_blocking,
};

use super::{
    client::{Client, event_queue},
    controls::{Controls, FEED_QUEUE},
    detached::{Attachment, Budget, Detached},
    error::{AttachError, RunError, SignalError},
    group::Wishes,
    launch::{Surroundings, arguments, launch},
    leader::{SignalNumber, Target},
    record::{Begun, ProcessId, Record, SignalFailure, Summary, lock},
    run::Running,
    sink::Sink,
    spec::{OnDisconnect, ProcessSpec},
};
use crate::{switches, sys::errno_of, system::accounts::Account};

/// Programs at once. Each takes up to seven descriptors, and 256 KiB of output that waits for its client.
pub(crate) const MAX_LIVE: usize = 1024;

/// Ended programs that are remembered: not longer than this, and not more than that, so that a client that runs many
/// small programs fills no memory.
const REMEMBERED_FOR: Duration = Duration::from_secs(600);
const REMEMBERED_SHORTLY: Duration = Duration::from_secs(2);
const MAX_REMEMBERED: usize = 1024;

/// Cheap to clone; all clones are one.
#[derive(Clone, Debug, Default)]
pub(crate) struct ProcessRegistry(Arc<State>);

#[derive(Debug, Default)]
struct State {
    /// Programs that run, and detached ones that are remembered.
    busy: watch::Sender<usize>,
    known: Mutex<Known>,
    budget: Arc<Budget>,
    surroundings: Surroundings,
}

#[derive(Debug, Default)]
struct Known {
    last: u64,
    /// Programs that run, and ended ones whose leftovers still hold their output.
    live: usize,
    records: BTreeMap<ProcessId, Arc<Record>>,
}

/// Keeps the worker from ending until it is dropped.
#[derive(Debug)]
pub(super) struct Busy(Arc<State>);

impl Busy {
    fn new(state: &Arc<State>) -> Self {
        state.busy.send_modify(|busy| *busy += 1);
        Self(Arc::clone(state))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.send_modify(|busy| *busy -= 1);
    }
}

/// Counts as one live program until it is dropped.
#[derive(Debug)]
struct Place(Busy);

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.0.0.known).live -= 1;
    }
}

impl ProcessRegistry {
    /// Numbers the programs from there on, and wishes a cgroup for each.
    pub(crate) fn new(last: u64, wishes: Wishes, open_files: u64) -> Self {
        let known = Known {
            last,
            ..Known::default()
        };
        Self(Arc::new(State {
            known: Mutex::new(known),
            surroundings: Surroundings {
                wishes: Some(wishes),
                open_files: Some(open_files),
            },
            ..State::default()
        }))
    }

    #[cfg(test)]
    pub(crate) fn live(&self) -> usize {
        lock(&self.0.known).live
    }

    /// Tells of each change of how many programs keep the worker: those that run, ended ones whose leftovers still hold
    /// their output, and detached ones that are remembered.
    pub(crate) fn watch_busy(&self) -> watch::Receiver<usize> {
        self.0.busy.subscribe()
    }

    /// Starts a program for a client. Dropping this future, or the client's events, is a client that vanished: a
    /// program that was begun is ended as `on_disconnect` says.
    pub(crate) async fn run(
        &self,
        account: Arc<Account>,
        spec: ProcessSpec,
        on_disconnect: OnDisconnect,
    ) -> Result<Client, RunError> {
        let place = self.admit()?;
        let registry = self.clone();
        let (answer, answered) = oneshot::channel();
        tokio::spawn(async move {
            let (client, events) = mpsc::channel(event_queue());
            let sink = Sink::Client(client);
            match registry
                .start(account, spec, on_disconnect, sink, None)
                .await
            {
                Ok((running, record)) => {
                    let client = Client {
                        id: record.id,
                        pid: record.leader.pid(),
                        events,
                        input: Controls::new(record),
                    };
                    // If nobody waits for the client, it is dropped here, and `own` sees that it vanished.
                    let _ = answer.send(Ok(client));
                    registry.forget_if_lost(running.own().await);
                }
                Err(error) => {
                    let _ = answer.send(Err(error));
                }
            }
            drop(place);
        });
        answered.await.unwrap_or(Err(RunError::Stopped))
    }

    /// Starts a program that lives on without a client and keeps `ring_size` bytes of each of its outputs. Dropping
    /// this future changes nothing for a program that was begun.
    pub(crate) async fn run_detached(
        &self,
        account: Arc<Account>,
        spec: ProcessSpec,
        ring_size: usize,
    ) -> Result<(ProcessId, i32), RunError> {
        let place = self.admit()?;
        let detached = Arc::new(self.promise_memory(ring_size)?);
        let registry = self.clone();
        let (answer, answered) = oneshot::channel();
        tokio::spawn(async move {
            let sink = Sink::Rings(Arc::clone(&detached));
            let detached = Some((detached, Busy::new(&registry.0)));
            let started = registry.start(account, spec, OnDisconnect::Keep, sink, detached);
            match started.await {
                Ok((running, record)) => {
                    let _ = answer.send(Ok((record.id, record.leader.pid())));
                    drop(record);
                    registry.forget_if_lost(running.own().await);
                    drop(place);
                    tokio::time::sleep(remembered_for()).await;
                    forget_old(&mut lock(&registry.0.known).records);
                }
                Err(error) => {
                    let _ = answer.send(Err(error));
                }
            }
        });
        answered.await.unwrap_or(Err(RunError::Stopped))
    }

    /// Joins a detached program: its output from these offsets on (`None`: from the oldest that is kept), and its input.
    pub(crate) fn attach(
        &self,
        id: ProcessId,
        stdout: Option<u64>,
        stderr: Option<u64>,
    ) -> Result<(Attachment, Controls), AttachError> {
        let record = self.find(id).ok_or(AttachError::Unknown(id))?;
        let detached = record.detached.as_ref().map(Arc::clone);
        let detached = detached.ok_or(AttachError::Attended(id))?;
        let attachment = Attachment::new(detached, stdout, stderr)?;
        Ok((attachment, Controls::new(record)))
    }

    /// All that are known, the oldest first.
    pub(crate) fn list(&self) -> Vec<Summary> {
        let mut known = lock(&self.0.known);
        forget_old(&mut known.records);
        known
            .records
            .values()
            .map(|record| record.summary())
            .collect()
    }

    pub(crate) fn signal(
        &self,
        id: ProcessId,
        signal: SignalNumber,
        target: Target,
    ) -> Result<(), SignalError> {
        let record = self.find(id).ok_or(SignalError::Unknown(id))?;
        record
            .signal(signal, target)
            .map_err(|failure| match failure {
                SignalFailure::Ungrouped => SignalError::Ungrouped(id),
                SignalFailure::Kernel(Errno::ESRCH) => SignalError::Ended(id),
                SignalFailure::Kernel(source) => SignalError::Kernel { id, source },
            })
    }

    fn find(&self, id: ProcessId) -> Option<Arc<Record>> {
        let mut known = lock(&self.0.known);
        forget_old(&mut known.records);
        known.records.get(&id).map(Arc::clone)
    }

    fn admit(&self) -> Result<Place, RunError> {
        let mut known = lock(&self.0.known);
        if known.live >= MAX_LIVE {
            return Err(RunError::Limit);
        }
        known.live += 1;
        Ok(Place(Busy::new(&self.0)))
    }

    /// Where memory is short, ended programs are forgotten for it, the oldest first.
    fn promise_memory(&self, ring_size: usize) -> Result<Detached, RunError> {
        loop {
            if let Some(detached) = Detached::new(ring_size, &self.0.budget) {
                return Ok(detached);
            }
            let mut known = lock(&self.0.known);
            let ended = known.records.values().filter_map(|record| {
                record.detached.as_ref()?;
                Some((record.ended_at()?, record.id))
            });
            let (_, oldest) = ended.min().ok_or(RunError::Memory)?;
            known.records.remove(&oldest);
        }
    }

    async fn start(
        &self,
        account: Arc<Account>,
        spec: ProcessSpec,
        on_disconnect: OnDisconnect,
        sink: Sink,
        detached: Option<(Arc<Detached>, Busy)>,
    ) -> Result<(Running, Arc<Record>), RunError> {
        let command = arguments(&account, &spec.command);
        let surroundings = self.0.surroundings.clone();
        let launching = spawn_blocking(move || {
            let child = launch(&account, &spec, &surroundings)?;
            Ok((child, spec))
        });
        let ((leader, group, mut ends), spec) =
            launching.await.unwrap_or(Err(RunError::Stopped))?;
        let (feed, fed) = mpsc::channel(FEED_QUEUE);
        let begun = Begun {
            leader,
            group,
            command,
            terminal: ends.terminal.take(),
            feed,
            detached,
        };
        let record = self.remember(|id| Record::new(id, begun, &spec));
        match Running::new(Arc::clone(&record), ends, &spec, on_disconnect, sink, fed) {
            Ok(running) => Ok((running, record)),
            Err(error) => {
                lock(&self.0.known).records.remove(&record.id);
                Err(not_watched(&error))
            }
        }
    }

    /// One whose exit could not be seen would be listed as running for ever.
    fn forget_if_lost(&self, id: ProcessId) {
        let mut known = lock(&self.0.known);
        let records = &mut known.records;
        if records
            .get(&id)
            .is_some_and(|record| record.ended_at().is_none())
        {
            records.remove(&id);
        }
    }

    fn remember(&self, record: impl FnOnce(ProcessId) -> Record) -> Arc<Record> {
        let mut known = lock(&self.0.known);
        forget_old(&mut known.records);
        known.last += 1;
        let id = ProcessId(known.last);
        let record = Arc::new(record(id));
        known.records.insert(id, Arc::clone(&record));
        record
    }
}

/// The child started, but we could not watch it.
fn not_watched(error: &io::Error) -> RunError {
    RunError::Start {
        operation: "watch",
        subject: Vec::new(),
        source: errno_of(error),
    }
}

fn remembered_for() -> Duration {
    match switches::is_off("long memory") {
        true => REMEMBERED_SHORTLY,
        false => REMEMBERED_FOR,
    }
}

fn forget_old(records: &mut BTreeMap<ProcessId, Arc<Record>>) {
    records.retain(|_, record| {
        record
            .ended_at()
            .is_none_or(|at| at.elapsed() < remembered_for())
    });
    let mut remembered: Vec<_> = records
        .values()
        .filter_map(|record| Some((record.ended_at()?, record.id)))
        .collect();
    if remembered.len() >= MAX_REMEMBERED {
        remembered.sort_unstable();
        let surplus = remembered.len() + 1 - MAX_REMEMBERED;
        for (_, id) in &remembered[..surplus] {
            records.remove(id);
        }
    }
}
