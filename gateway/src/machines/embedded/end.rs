//! Ends machines and deletes them. What may run where we cannot see it is not touched: `find.rs`.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use guestline_client::Vm as Guest;
use guestline_machine::{MachineError, Record};

use super::{
    Embedded, blocking,
    find::{Found, recorded},
};
use crate::{ids::VmId, machines::MachineFailure};

/// To hear the wish to power off, and to do it.
const POWEROFF_ASK: Duration = Duration::from_secs(5);
const POWEROFF_LIMIT: Duration = Duration::from_secs(20);
const POWEROFF_POLL: Duration = Duration::from_millis(100);

/// How long what was ended may still be seen.
const SETTLE_LIMIT: Duration = Duration::from_secs(5);
const SETTLE_POLL: Duration = Duration::from_millis(50);

/// What a stop waits for a start under way: one that was given up ends what it started by itself, but may be making a missing
/// image before.
pub(super) const START_LIMIT: Duration = Duration::from_secs(5);
const START_POLL: Duration = Duration::from_millis(200);

/// What a deletion waits for it, which nobody need ask for again then.
const DELETE_LIMIT: Duration = Duration::from_secs(180);

impl Embedded {
    /// Ends it as a power cut does, if it runs. After a success it certainly does not.
    pub(in crate::machines) async fn stop(&self, id: &VmId) -> Result<(), MachineFailure> {
        self.stop_within(id, START_LIMIT).await
    }

    /// The same, which waits so long for a start under way.
    pub(super) async fn stop_within(
        &self,
        id: &VmId,
        limit: Duration,
    ) -> Result<(), MachineFailure> {
        if let Some(machine) = self.with_running(|running| running.remove(id)).flatten() {
            blocking(move || machine.end()).await;
            return Ok(());
        }
        let ended = self.end_unowned(id, Instant::now() + limit).await;
        if ended.is_err() {
            self.look_after(id);
        }
        ended
    }

    /// Ends a machine that is not our child, and clears up after one that ended by itself. Of one that may run where we
    /// cannot see it, nothing is touched.
    async fn end_unowned(&self, id: &VmId, start_limit: Instant) -> Result<(), MachineFailure> {
        let mut limit = Instant::now() + SETTLE_LIMIT;
        loop {
            let left = self.find_left(id).await;
            let now = Instant::now();
            match left {
                Ok(None) => return Ok(()),
                Ok(Some(record)) if now < limit => match end(record).await {
                    // It ends in a machine or in nothing: that is to be ended then.
                    Ending::Busy if now < start_limit => {
                        tokio::time::sleep(START_POLL).await;
                        limit = Instant::now() + SETTLE_LIMIT;
                    }
                    Ending::Busy => return Err(MachineFailure::Stop),
                    Ending::Done => {}
                    Ending::Failed => tokio::time::sleep(SETTLE_POLL).await,
                },
                Ok(Some(_)) => return Err(MachineFailure::Stop),
                // The threads of one that was killed have its disk a little longer than its process is there.
                Err(_) if now < limit => tokio::time::sleep(SETTLE_POLL).await,
                Err(uncertain) => return Err(self.unsure(id, &uncertain)),
            }
        }
    }

    /// The machine, or what is left of one that has certainly ended: a start that is under way is in a record, too.
    async fn find_left(&self, id: &VmId) -> Found {
        match self.find(id).await? {
            Some(record) => Ok(Some(record)),
            None => recorded(id),
        }
    }

    /// Powers off, and removes all that is left of it. A mark says so until [`Embedded::deleted`]: cut off in between, the
    /// next gateway goes on, and does not start it once more without its disk.
    pub(in crate::machines) async fn delete(&self, id: &VmId) -> Result<(), MachineFailure> {
        self.delete_within(id, DELETE_LIMIT).await
    }

    /// The same, which waits so long for a start under way.
    pub(super) async fn delete_within(
        &self,
        id: &VmId,
        limit: Duration,
    ) -> Result<(), MachineFailure> {
        let failed = |error: &(dyn std::error::Error + 'static)| {
            tracing::warn!(vm = %id, error, "a VM's disk could not be removed");
            MachineFailure::Disk
        };
        let removed = async {
            let marked = tokio::fs::write(self.deletion(id), "").await;
            marked.map_err(|error| failed(&error))?;
            self.stop_within(id, limit).await?;
            let disk = self.disk(id, None);
            let removed = blocking(move || disk.remove()).await;
            removed.map_err(|error| failed(&error))
        };
        let removed = removed.await;
        if removed.is_err() {
            // It has its disk, and is not deleted.
            self.deleted(id);
        }
        removed
    }

    /// The store has forgotten it.
    pub(in crate::machines) fn deleted(&self, id: &VmId) {
        if let Err(error) = fs::remove_file(self.deletion(id)) {
            tracing::warn!(vm = %id, %error, "the mark of a deletion stays");
        }
    }

    pub(super) fn deletion(&self, id: &VmId) -> PathBuf {
        self.disks.join(format!("{id}.deleted"))
    }

    /// Lets the guest write back and end by itself, within [`POWEROFF_LIMIT`]; what does not is ended anyway.
    pub(in crate::machines) async fn power_off(&self, id: &VmId, root: &Guest) {
        if !self.keeps_files() {
            return;
        }
        // It may go down before it answers.
        let command = root.shell("sync; poweroff");
        let _ = tokio::time::timeout(POWEROFF_ASK, command.output()).await;
        let end = Instant::now() + POWEROFF_LIMIT;
        while matches!(self.find(id).await, Ok(Some(_))) && Instant::now() < end {
            tokio::time::sleep(POWEROFF_POLL).await;
        }
    }
}

/// What an end has come to.
enum Ending {
    Done,
    /// A start is under way, or another end.
    Busy,
    Failed,
}

/// Ends what a record knows of.
async fn end(record: Record) -> Ending {
    let ending = record.clone();
    match blocking(move || ending.end()).await {
        Ok(()) => Ending::Done,
        Err(MachineError::Busy { .. }) => Ending::Busy,
        Err(error) => {
            tracing::warn!(vm = record.name(), %error, "a VM could not be ended");
            Ending::Failed
        }
    }
}
