//! Whether a machine runs on this host: by its record, by the host's processes, and by who has its console and its disk. "No"
//! is certain here: what is started or deleted while it runs is lost. "It cannot be told" is an answer of its own.

use std::{
    collections::HashSet,
    path::PathBuf,
    sync::{Arc, PoisonError},
};

use guestline_machine::{MachineError, Record};
use thiserror::Error;

use super::{Embedded, blocking};
use crate::{ids::VmId, machines::MachineFailure};

/// Why it cannot be told whether a machine runs. Nothing of it is started or deleted then.
#[derive(Debug, Error)]
pub(in crate::machines) enum Uncertain {
    #[error("the processes of this host cannot be listed")]
    Processes(#[source] Arc<MachineError>),
    #[error("what its record says cannot be looked at")]
    Record(#[source] MachineError),
    #[error("its console is in use, by a process that cannot be seen here")]
    ConsoleInUse,
    #[error("its disk is in use, by a process that cannot be seen here")]
    DiskInUse,
    #[error("it cannot be seen whether its disk is in use")]
    Disk(#[source] MachineError),
}

impl Embedded {
    /// The machine, if its QEMU lives. `None` is certain: then it has ended, and may be started anew or deleted.
    pub(in crate::machines) async fn find(&self, id: &VmId) -> Found {
        match running_as_recorded(id) {
            Ok(None) => self.find_among(id, &running().await),
            // Most of the time its record is where it should be.
            found => self.keep_whether_told(id, found),
        }
    }

    /// The same of many machines, after one look at what runs.
    pub(super) fn find_among(&self, id: &VmId, running: &Running) -> Found {
        self.keep_whether_told(id, self.look_among(id, running))
    }

    fn look_among(&self, id: &VmId, running: &Running) -> Found {
        let found = running_as_recorded(id)?;
        if found.is_some() {
            return Ok(found);
        }
        let running = running
            .as_ref()
            .map_err(|error| Uncertain::Processes(error.clone()))?;
        if let Some(record) = running.iter().find(|record| record.name() == id.as_str()) {
            return Ok(Some(record.clone()));
        }
        if let Some(record) = recorded(id)?
            && record.is_in_use().map_err(Uncertain::Record)?
        {
            return Err(Uncertain::ConsoleInUse);
        }
        match self.disk(id, None).is_in_use() {
            Ok(false) => Ok(None),
            Ok(true) => Err(Uncertain::DiskInUse),
            Err(error) => Err(Uncertain::Disk(error)),
        }
    }

    /// What is said of one of which nothing can be told: once, until something can be. It is looked for every other second.
    pub(in crate::machines) fn unsure(&self, id: &VmId, uncertain: &Uncertain) -> MachineFailure {
        if self.with_unsure(|unsure| unsure.insert(id.clone())) {
            let error = uncertain as &dyn std::error::Error;
            tracing::warn!(vm = %id, error, "it cannot be told whether a VM runs: it is left as it is");
        }
        MachineFailure::Uncertain
    }

    /// Whether that was said, and it is still so.
    pub(in crate::machines) async fn is_unsure(&self, id: &VmId) -> bool {
        self.with_unsure(|unsure| unsure.contains(id)) && self.find(id).await.is_err()
    }

    fn keep_whether_told(&self, id: &VmId, found: Found) -> Found {
        if found.is_ok() {
            self.with_unsure(|unsure| unsure.remove(id));
        }
        found
    }

    fn with_unsure<T>(&self, action: impl FnOnce(&mut HashSet<VmId>) -> T) -> T {
        action(&mut self.unsure.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A machine, or what there is of one.
pub(in crate::machines) type Found = Result<Option<Record>, Uncertain>;

/// What runs on this host, as somebody saw it; an error says that it cannot be seen.
pub(super) type Running = Result<Vec<Record>, Arc<MachineError>>;

pub(super) async fn running() -> Running {
    blocking(guestline_machine::running).await.map_err(Arc::new)
}

/// Where a machine's record should be. That there is none says nothing: see [`Embedded::find`].
pub(super) fn recorded(id: &VmId) -> Found {
    match guestline_machine::find(id.as_str()) {
        Ok(record) => Ok(Some(record)),
        Err(MachineError::Unknown { .. }) => Ok(None),
        Err(error) => Err(Uncertain::Record(error)),
    }
}

/// If the QEMU lives that is in its record.
pub(super) fn running_as_recorded(id: &VmId) -> Found {
    let Some(record) = recorded(id)? else {
        return Ok(None);
    };
    let is_running = record.is_running().map_err(Uncertain::Record)?;
    Ok(is_running.then_some(record))
}

/// Of a machine that runs.
pub(in crate::machines) fn secret_file(id: &VmId) -> Option<PathBuf> {
    let recorded = recorded(id).ok().flatten();
    let secret = recorded.and_then(|record| record.secret_file());
    secret.or_else(|| {
        let running = guestline_machine::running().ok()?;
        let record = running.iter().find(|record| record.name() == id.as_str())?;
        record.secret_file()
    })
}
