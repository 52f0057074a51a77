//! What an earlier gateway left of its machines, taken up by the next one on its data folder.
//!
//! A machine whose QEMU lives goes on. One whose QEMU has ended, with the host or by itself, is stopped; that is the end of an
//! ephemeral one. Where neither is certain, nothing is done: it is looked for again while the gateway runs (`ended.rs`).

use std::fs;

use guestline_machine::Record;

use super::{Embedded, EmbeddedError, blocking, end::START_LIMIT, find::running};
use crate::{
    ids::VmId,
    store::{Store, StoreError, Vm, VmState},
};

impl Embedded {
    pub(super) async fn adopt(&self, store: &Store) -> Result<(), EmbeddedError> {
        self.go_on_deleting(store).await?;
        let running = running().await;
        for vm in store.vms().await?.into_iter().filter(|vm| self.owns(vm)) {
            match self.find_among(&vm.id, &running) {
                Ok(found) => self.take_up(vm, found, store).await?,
                Err(uncertain) => {
                    self.unsure(&vm.id, &uncertain);
                    self.look_after(&vm.id);
                }
            }
        }
        Ok(())
    }

    async fn go_on_deleting(&self, store: &Store) -> Result<(), StoreError> {
        for id in self.deletions() {
            tracing::warn!(vm = %id, "a VM whose deletion was cut off is deleted");
            self.remove(&id, store).await?;
        }
        Ok(())
    }

    /// One whose creation was cut off never came to be; one that died meanwhile is stopped.
    async fn take_up(
        &self,
        vm: Vm,
        found: Option<Record>,
        store: &Store,
    ) -> Result<(), StoreError> {
        let is_created = vm.instance.is_some();
        if is_created && vm.is_not_kept(left_as(vm.state, found.is_some())) {
            tracing::warn!(vm = %vm.id, "a VM that is not kept has ended, and is removed");
            return self.remove(&vm.id, store).await;
        }
        match (vm.state, found) {
            (VmState::Running | VmState::Suspended, Some(_)) => {
                tracing::info!(vm = %vm.id, "found a VM again");
                self.look_after(&vm.id);
            }
            (VmState::Starting | VmState::Suspending | VmState::Stopped, _) if !is_created => {
                tracing::warn!(vm = %vm.id, "a VM whose creation was cut off is removed");
                self.remove(&vm.id, store).await?;
            }
            // It was being started, resumed, suspended or stopped. Whichever it was, nothing of it is lost this way.
            (VmState::Starting | VmState::Suspending, Some(record)) => {
                tracing::warn!(vm = %vm.id, "a VM that was changing its state is suspended");
                match blocking(move || record.pause()).await {
                    Ok(()) => {
                        store.change_state(&vm, VmState::Suspended).await?;
                        self.look_after(&vm.id);
                    }
                    Err(error) => {
                        tracing::warn!(vm = %vm.id, %error, "it does not even do that, and is ended");
                        self.end_left(&vm, store).await?;
                    }
                }
            }
            (VmState::Stopped, None) => {}
            (VmState::Stopped, Some(_)) => self.end_left(&vm, store).await?,
            (_, None) => {
                tracing::warn!(vm = %vm.id, "a VM ended while no gateway looked after it");
                self.end_left(&vm, store).await?;
            }
        }
        Ok(())
    }

    /// With what is left of it.
    async fn end_left(&self, vm: &Vm, store: &Store) -> Result<(), StoreError> {
        match self.stop(&vm.id).await {
            Ok(()) if vm.state == VmState::Stopped => {}
            Ok(()) => drop(store.change_state(vm, VmState::Stopped).await?),
            Err(error) => tracing::warn!(vm = %vm.id, %error, "a VM could not be ended"),
        }
        Ok(())
    }

    /// One that is no more. What cannot be removed stays known.
    async fn remove(&self, id: &VmId, store: &Store) -> Result<(), StoreError> {
        // Nobody of ours is starting it.
        match self.delete_within(id, START_LIMIT).await {
            Ok(()) => {
                store.delete_vm(id).await?;
                self.deleted(id);
            }
            Err(error) => tracing::warn!(vm = %id, %error, "a VM could not be removed, and stays"),
        }
        Ok(())
    }

    /// Those that were begun and not ended.
    fn deletions(&self) -> Vec<VmId> {
        let files = fs::read_dir(&self.disks).into_iter().flatten().flatten();
        let names = files.filter_map(|file| file.file_name().into_string().ok());
        let of = |name: String| VmId::parse(name.strip_suffix(".deleted")?);
        names.filter_map(of).collect()
    }
}

/// What the next gateway makes of a machine in that state.
fn left_as(state: VmState, runs: bool) -> VmState {
    match (state, runs) {
        (VmState::Running | VmState::Suspended, true) => state,
        (VmState::Starting | VmState::Suspending, true) => VmState::Suspended,
        (VmState::Stopped, _) | (_, false) => VmState::Stopped,
    }
}
