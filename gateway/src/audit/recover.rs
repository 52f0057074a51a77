//! After a crash: what the file has and the store has not is stored, and operations without an end get one.

use std::{collections::HashMap, time::SystemTime};

use super::{AuditError, End, Event, LogFile, Phase, writer::BATCH};
use crate::{
    ids::OperationId,
    store::{Store, StoreError, to_millis},
};

/// The result of an operation whose gateway died: how it ended in the guest is not known.
pub(super) const LOST: &str = "lost";

/// Why the log cannot be taken up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecoverError {
    #[error(transparent)]
    File(#[from] AuditError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Before anything else is logged, and while no other gateway has the folder.
pub(crate) async fn recover(log: &LogFile, store: &Store) -> Result<(), RecoverError> {
    let mut open: HashMap<OperationId, Event> = HashMap::new();
    let mut batch = Vec::with_capacity(BATCH);
    for event in log.events_since_checkpoint()? {
        let event = event?;
        match event.phase {
            Phase::Start => open.insert(event.operation.clone(), event.clone()),
            Phase::End => open.remove(&event.operation),
        };
        batch.push(event);
        if batch.len() == BATCH {
            store.add_events(&batch).await?;
            batch.clear();
        }
    }
    store.add_events(&batch).await?;
    if !open.is_empty() {
        tracing::warn!(
            operations = open.len(),
            "operations of a gateway that was killed: their ends are not known"
        );
    }
    let ends: Vec<Event> = open.into_values().map(lost).collect();
    let places: Vec<u64> = ends.iter().map(|end| log.append(end)).collect();
    for some in ends.chunks(BATCH) {
        store.add_events(some).await?;
    }
    log.stored(places);
    log.save_checkpoint();
    Ok(())
}

fn lost(start: Event) -> Event {
    let now = SystemTime::now();
    Event {
        time: humantime::format_rfc3339_millis(now).to_string(),
        at_millis: to_millis(now),
        phase: Phase::End,
        end: Some(End {
            result: LOST.into(),
            ..End::default()
        }),
        ..start
    }
}
