//! The programs that this worker started: how many live, and what is known of each by its number.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use nix::errno::Errno;
use tokio::{
    sync::{oneshot, watch},
    task::spawn_blocking,
};

use super::{
    client::Client,
    error::{RunError, SignalError},
    launch::{arguments, launch},
    leader::{SignalNumber, Target},
    record::{ProcessId, Record, Summary, lock},
    run::Running,
    spec::{OnDisconnect, ProcessSpec},
};
use crate::{sys::errno_of, system::accounts::Account};

/// Programs at once. Each takes up to seven descriptors, and 256 KiB of output that waits for its client.
pub(crate) const MAX_LIVE: usize = 1024;

/// Ended programs that are remembered: not longer than this, and not more than that, so that a client that runs many
/// small programs fills no memory.
const REMEMBERED_FOR: Duration = Duration::from_secs(600);
const MAX_REMEMBERED: usize = 1024;

/// Cheap to clone; all clones are one.
#[derive(Clone, Debug, Default)]
pub(crate) struct ProcessRegistry(Arc<State>);

#[derive(Debug, Default)]
struct State {
    live: watch::Sender<usize>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    last: u64,
    records: BTreeMap<ProcessId, Arc<Record>>,
}

/// Counts as one live program until it is dropped.
#[derive(Debug)]
struct Place(Arc<State>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.live.send_modify(|live| *live -= 1);
    }
}

impl ProcessRegistry {
    /// Programs that run, and ended ones whose leftovers still hold their output.
    #[cfg(test)]
    pub(crate) fn live(&self) -> usize {
        *self.0.live.borrow()
    }

    /// Tells of each change of how many there are: programs that run, and ended ones whose leftovers still hold their output.
    pub(crate) fn watch_live(&self) -> watch::Receiver<usize> {
        self.0.live.subscribe()
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
            match registry.start(account, spec, on_disconnect).await {
                Ok((running, client)) => {
                    // If nobody waits for the client, it is dropped here, and `own` sees that it vanished.
                    let _ = answer.send(Ok(client));
                    let id = running.own().await;
                    registry.forget_if_lost(id);
                }
                Err(error) => {
                    let _ = answer.send(Err(error));
                }
            }
            drop(place);
        });
        answered.await.unwrap_or(Err(RunError::Stopped))
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
        let record = lock(&self.0.known).records.get(&id).map(Arc::clone);
        let record = record.ok_or(SignalError::Unknown(id))?;
        record
            .leader
            .signal(signal, target)
            .map_err(|errno| match errno {
                Errno::ESRCH => SignalError::Ended(id),
                source => SignalError::Kernel { id, source },
            })
    }

    fn admit(&self) -> Result<Place, RunError> {
        let admitted = self.0.live.send_if_modified(|live| {
            let room = *live < MAX_LIVE;
            *live += usize::from(room);
            room
        });
        admitted
            .then(|| Place(Arc::clone(&self.0)))
            .ok_or(RunError::Limit)
    }

    async fn start(
        &self,
        account: Arc<Account>,
        spec: ProcessSpec,
        on_disconnect: OnDisconnect,
    ) -> Result<(Running, Client), RunError> {
        let command = arguments(&account, &spec.command);
        let launching = spawn_blocking(move || launch(&account, &spec).map(|child| (child, spec)));
        let ((leader, ends), spec) = launching.await.unwrap_or(Err(RunError::Stopped))?;
        let record = self.remember(|id| Record::new(id, leader, command, &spec));
        let id = record.id;
        Running::new(record, ends, &spec, on_disconnect).map_err(|error| {
            lock(&self.0.known).records.remove(&id);
            not_watched(&error)
        })
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

fn forget_old(records: &mut BTreeMap<ProcessId, Arc<Record>>) {
    records.retain(|_, record| {
        record
            .ended_at()
            .is_none_or(|at| at.elapsed() < REMEMBERED_FOR)
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
