//! Takes the events that are in the file to the store, in batches.

use std::time::Duration;

use tokio::{sync::mpsc, time::Instant};

use super::{LogFile, Logged};
use crate::store::Store;

/// Rows in one transaction.
pub(super) const BATCH: usize = 256;

/// How long events wait for others to share a transaction with. They are in the file already, which is what counts after a
/// crash; a transaction of its own for each would cost the disk a flush, and requests the processor.
const GATHER: Duration = Duration::from_millis(100);

/// Between tries while the database does not answer. The file goes on meanwhile, until the queue is full.
const RETRY: Duration = Duration::from_millis(500);

/// How often a batch is tried at the end, when the gateway waits for it.
const LAST_TRIES: u32 = 6;

/// How long ago the checkpoint is at the most on a busy gateway.
const CHECKPOINT: Duration = Duration::from_secs(1);

/// The one writer.
#[derive(Debug)]
pub(crate) struct AuditWriter {
    log: LogFile,
    store: Store,
    events: mpsc::Receiver<Logged>,
}

impl AuditWriter {
    pub(crate) fn new(log: LogFile, store: Store, events: mpsc::Receiver<Logged>) -> Self {
        Self { log, store, events }
    }

    /// Writes until all who could add an event are gone, and everything is written.
    pub(crate) async fn run(mut self) {
        let mut logged = Vec::with_capacity(BATCH);
        let mut saved = Instant::now();
        while self.events.recv_many(&mut logged, BATCH).await > 0 {
            self.gather(&mut logged).await;
            let (places, batch): (Vec<_>, Vec<_>) = logged
                .drain(..)
                .map(|logged| (logged.place, logged.event))
                .unzip();
            if self.store(&batch).await {
                self.log.stored(places);
            }
            if saved.elapsed() >= CHECKPOINT {
                self.log.save_checkpoint();
                saved = Instant::now();
            }
        }
        self.log.save_checkpoint();
    }

    /// Those that come soon, while there are not many yet.
    async fn gather(&mut self, logged: &mut Vec<Logged>) {
        if logged.len() < BATCH && self.events.is_empty() && !self.events.is_closed() {
            tokio::time::sleep(GATHER).await;
        }
        while logged.len() < BATCH
            && let Ok(next) = self.events.try_recv()
        {
            logged.push(next);
        }
    }

    /// `false` if the gateway ends before the database comes back: the next one stores what is in the file.
    async fn store(&self, batch: &[super::Event]) -> bool {
        let mut tries = 0;
        while let Err(error) = self.store.add_events(batch).await {
            tries += 1;
            if self.events.is_closed() && tries >= LAST_TRIES {
                tracing::error!(%error, events = batch.len(), "audit events are in the file and not in the store");
                return false;
            }
            tracing::warn!(%error, "the audit log waits for the database");
            tokio::time::sleep(RETRY).await;
        }
        true
    }
}
