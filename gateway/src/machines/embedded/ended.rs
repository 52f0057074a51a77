//! Machines that ended by themselves: the guest powered off, or QEMU crashed.

use super::{
    Embedded,
    find::{recorded, running},
};
use crate::{
    ids::VmId,
    machines::{MachineFailure, Machines},
    store::{Vm, VmState},
};

impl Machines {
    /// Looks which of ours did. One that may still run, as far as we can see, is left alone.
    pub(in crate::machines) async fn note_dead_machines(&self) -> Result<(), MachineFailure> {
        let Some(embedded) = &self.embedded else {
            return Ok(());
        };
        let mut quiet: Vec<VmId> =
            embedded.with_running(|running| running.keys().cloned().collect());
        quiet.retain(|id| recorded(id).is_none_or(|record| !record.is_running()));
        if quiet.is_empty() {
            return Ok(());
        }
        let running = running().await;
        for id in quiet {
            match embedded.find_among(&id, &running) {
                Ok(None) => self.note_dead(embedded, &id).await?,
                Ok(Some(_)) => {}
                // Said when it began.
                Err(error) => tracing::debug!(vm = %id, %error, "a VM may run, or not"),
            }
        }
        Ok(())
    }

    /// Claimed while what is left of it is cleared away: whoever wants to wake it waits for that.
    async fn note_dead(&self, embedded: &Embedded, id: &VmId) -> Result<(), MachineFailure> {
        let Some(vm) = self.store.vm(id).await? else {
            return Ok(());
        };
        if !matches!(vm.state, VmState::Running | VmState::Suspended) {
            return Ok(());
        }
        let Some(claimed) = self.store.change_state(&vm, VmState::Suspending).await? else {
            return Ok(());
        };
        // It may have been started anew before the claim.
        if !matches!(embedded.find(id).await, Ok(None)) {
            self.store.change_state(&claimed, vm.state).await?;
            return Ok(());
        }
        tracing::warn!(vm = %id, "a VM ended by itself");
        self.guests.forget(id);
        if vm.is_not_kept(VmState::Stopped) {
            return self.forget_for_good(embedded, &claimed).await;
        }
        let cleared = embedded.stop(id).await;
        self.store.change_state(&claimed, VmState::Stopped).await?;
        cleared
    }

    /// Removes one that is not kept, and has ended. `claimed` is ours.
    pub(in crate::machines) async fn forget_for_good(
        &self,
        embedded: &Embedded,
        claimed: &Vm,
    ) -> Result<(), MachineFailure> {
        if let Err(failure) = embedded.delete(&claimed.id).await {
            self.store.change_state(claimed, VmState::Stopped).await?;
            return Err(failure);
        }
        self.store.delete_vm(&claimed.id).await?;
        embedded.deleted(&claimed.id);
        tracing::info!(vm = %claimed.id, "a VM that is not kept was deleted");
        Ok(())
    }
}
