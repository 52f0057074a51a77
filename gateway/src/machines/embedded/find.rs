//! Whether a machine runs on this host: by its record, by the host's processes, and by who has its console and its disk. "No"
//! is certain here: what is started or deleted while it runs is lost. "It cannot be told" is an answer of its own.

use std::{path::PathBuf, sync::Arc};

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

impl From<Uncertain> for MachineFailure {
    fn from(uncertain: Uncertain) -> Self {
        let error = &uncertain as &dyn std::error::Error;
        tracing::warn!(error, "it cannot be told whether a VM runs");
        Self::Uncertain
    }
}

impl Embedded {
    /// The machine, if its QEMU lives. `None` is certain: then it has ended, and may be started anew or deleted.
    pub(in crate::machines) async fn find(&self, id: &VmId) -> Result<Option<Record>, Uncertain> {
        // Most of the time its record is where it should be.
        let found = running_as_recorded(id)?;
        if found.is_some() {
            return Ok(found);
        }
        self.find_among(id, &running().await)
    }

    /// The same of many machines, after one look at what runs.
    pub(super) fn find_among(
        &self,
        id: &VmId,
        running: &Running,
    ) -> Result<Option<Record>, Uncertain> {
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
        let console = recorded(id)?.map(|record| record.is_in_use());
        if console
            .transpose()
            .map_err(Uncertain::Record)?
            .is_some_and(|it| it)
        {
            return Err(Uncertain::ConsoleInUse);
        }
        match self.disk(id, None).is_in_use() {
            Ok(false) => Ok(None),
            Ok(true) => Err(Uncertain::DiskInUse),
            Err(error) => Err(Uncertain::Disk(error)),
        }
    }
}

/// What runs on this host, as somebody saw it; an error says that it cannot be seen.
pub(super) type Running = Result<Vec<Record>, Arc<MachineError>>;

pub(super) async fn running() -> Running {
    blocking(guestline_machine::running).await.map_err(Arc::new)
}

/// Where a machine's record should be. That there is none says nothing: see [`Embedded::find`].
pub(super) fn recorded(id: &VmId) -> Result<Option<Record>, Uncertain> {
    match guestline_machine::find(id.as_str()) {
        Ok(record) => Ok(Some(record)),
        Err(MachineError::Unknown { .. }) => Ok(None),
        Err(error) => Err(Uncertain::Record(error)),
    }
}

/// If the QEMU lives that is in its record.
pub(super) fn running_as_recorded(id: &VmId) -> Result<Option<Record>, Uncertain> {
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
