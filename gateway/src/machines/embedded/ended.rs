//! Machines that ended by themselves: the guest powered off, or QEMU crashed. One rule for those that are not kept, whoever
//! finds out: one whose QEMU has ended has stopped, one whose QEMU lives and that is not used is suspended, and the store's
//! [`Vm::is_not_kept`] says which of these is its end.

use super::{
    Embedded, blocking,
    find::{running, running_as_recorded},
};
use crate::{
    ids::VmId,
    machines::{MachineFailure, Machines},
    store::{Vm, VmKind, VmState},
};

impl Machines {
    /// Those of ours that did. One that may still run, as far as we can see, is left alone.
    pub(in crate::machines) async fn dead_machines(&self) -> Vec<VmId> {
        let Some(embedded) = &self.embedded else {
            return Vec::new();
        };
        let mut quiet: Vec<VmId> =
            embedded.with_running(|running| running.keys().cloned().collect());
        quiet.retain(|id| !matches!(running_as_recorded(id), Ok(Some(_))));
        if quiet.is_empty() {
            return quiet;
        }
        let running = running().await;
        quiet.retain(|id| match embedded.find_among(id, &running) {
            Ok(found) => found.is_none(),
            Err(uncertain) => {
                embedded.unsure(id, &uncertain);
                false
            }
        });
        quiet
    }

    /// Stopped, or deleted if it is not kept.
    pub(in crate::machines) async fn note_dead(&self, id: &VmId) {
        if let Err(error) = self.clear_up(id).await {
            tracing::warn!(vm = %id, %error, "a VM that has ended could not be cleared away");
        }
    }

    /// Claimed meanwhile: whoever wants to wake it waits for that.
    async fn clear_up(&self, id: &VmId) -> Result<(), MachineFailure> {
        let Some(embedded) = &self.embedded else {
            return Ok(());
        };
        let Some(vm) = self.store.vm(id).await? else {
            embedded.look_no_more_after(id);
            return Ok(());
        };
        match vm.state {
            VmState::Running | VmState::Suspended => {}
            VmState::Starting | VmState::Suspending if self.is_abandoned(&vm) => {}
            // Who is at it says what becomes of it.
            VmState::Starting | VmState::Suspending => return Ok(()),
            VmState::Stopped => {
                embedded.look_no_more_after(id);
                return Ok(());
            }
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
        // One whose creation was cut off never came to be.
        if vm.is_not_kept(VmState::Stopped) || vm.instance.is_none() {
            return self.forget_for_good(embedded, &claimed).await;
        }
        let cleared = embedded.stop(id).await;
        self.store.change_state(&claimed, VmState::Stopped).await?;
        cleared
    }

    /// After a wake that failed, of one that cannot be booted again. While its QEMU lives, it is suspended as before, and who
    /// asks next tries again. Gives what there is to say of it.
    pub(in crate::machines) async fn put_back(
        &self,
        starting: &Vm,
        failure: MachineFailure,
    ) -> Result<MachineFailure, MachineFailure> {
        let embedded = self.own(starting)?;
        let found = embedded.find(&starting.id).await;
        let to = match &found {
            Ok(None) => VmState::Stopped,
            Ok(Some(_)) | Err(_) => VmState::Suspended,
        };
        if found.is_ok() && starting.is_not_kept(to) {
            tracing::warn!(vm = %starting.id, "a VM that is not kept could not go on");
            self.forget_for_good(embedded, starting).await?;
            return Ok(MachineFailure::Deleted(starting.id.clone()));
        }
        if let Ok(Some(record)) = found
            && let Err(error) = blocking(move || record.pause()).await
        {
            tracing::warn!(vm = %starting.id, %error, "a VM that was not woken does not stand still");
        }
        if self.store.change_state(starting, to).await?.is_none() {
            self.remove_if_deleted(starting).await?;
        }
        Ok(failure)
    }

    /// What a start has made since the machine was deleted.
    pub(in crate::machines) async fn remove_if_deleted(
        &self,
        vm: &Vm,
    ) -> Result<(), MachineFailure> {
        if let VmKind::Embedded { .. } = vm.kind
            && self.store.vm(&vm.id).await?.is_none()
        {
            let embedded = self.own(vm)?;
            embedded.delete(&vm.id).await?;
            embedded.deleted(&vm.id);
        }
        Ok(())
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
