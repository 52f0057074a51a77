//! Machines that nobody uses go to sleep: after their idle timeout, and never under an operation, whichever gateway it is on.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{MachineFailure, Machines};
use crate::{
    ids::VmId,
    store::{Vm, VmState},
};

/// Between two looks. An operation that lasts notes the machine's use as often.
const INTERVAL: Duration = Duration::from_secs(2);

/// Machines on their way to sleep at once, each of which may take a minute: a power-off or a hook each, and one host or
/// orchestrator behind most of them. The others stay awake until there is room.
const MAX_FALLING_ASLEEP: usize = 64;

/// Of these, those for machines that ended by themselves. They take seconds, and whoever wants such a machine waits for them,
/// which must not come to waiting for an orchestrator.
const ROOM_FOR_THE_DEAD: usize = 16;

/// Which machines this gateway uses at the moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Uses {
    counts: Arc<Mutex<HashMap<VmId, usize>>>,
}

/// An operation's use of a machine.
#[derive(Debug)]
pub(super) struct Use {
    uses: Uses,
    vm: VmId,
}

impl Uses {
    pub(super) fn begin(&self, vm: &VmId) -> Use {
        *self
            .counts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(vm.clone())
            .or_default() += 1;
        Use {
            uses: self.clone(),
            vm: vm.clone(),
        }
    }

    fn used(&self) -> Vec<VmId> {
        self.counts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .keys()
            .cloned()
            .collect()
    }

    fn uses(&self, vm: &VmId) -> bool {
        self.counts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains_key(vm)
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        let mut counts = self
            .uses
            .counts
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.vm) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.vm);
            }
        }
    }
}

impl Machines {
    /// Puts idle machines to sleep, and closes idle connections, until `stop`. Up to [`MAX_FALLING_ASLEEP`], none that takes
    /// long to end holds up another; beyond, those that were used last wait. Those that have begun get to their end.
    pub(crate) async fn watch_idle(self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut falling_asleep = JoinSet::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = ticks.tick() => {}
            }
            self.guests.close_idle();
            if let Err(error) = self.look_for_idle(&mut falling_asleep).await {
                tracing::warn!(%error, "idle VMs could not be looked for");
            }
        }
        while falling_asleep.join_next().await.is_some() {}
    }

    pub(super) async fn look_for_idle(
        &self,
        falling_asleep: &mut JoinSet<()>,
    ) -> Result<(), MachineFailure> {
        while falling_asleep.try_join_next().is_some() {}
        for vm in self.uses.used() {
            self.store.touch_vm(&vm).await?;
        }
        for dead in self.dead_machines().await {
            if falling_asleep.len() < MAX_FALLING_ASLEEP {
                let this = self.clone();
                falling_asleep.spawn(async move { this.note_dead(&dead).await });
            }
        }
        for vm in self.store.idle_vms(SystemTime::now()).await? {
            let Some(to) = self.sleep_of(&vm) else {
                continue;
            };
            if falling_asleep.len() >= MAX_FALLING_ASLEEP - ROOM_FOR_THE_DEAD {
                break;
            }
            if !self.uses.uses(&vm.id) && !self.is_unsure(&vm).await {
                self.put_idle_to_sleep(vm, to, falling_asleep).await?;
            }
        }
        Ok(())
    }

    /// It cannot be told whether it runs, and was tried already.
    async fn is_unsure(&self, vm: &Vm) -> bool {
        match self.own(vm) {
            Ok(embedded) => embedded.is_unsure(&vm.id).await,
            Err(_) => false,
        }
    }

    /// With its memory where that is possible, else off; not at all where it is neither, or not ours.
    fn sleep_of(&self, vm: &Vm) -> Option<VmState> {
        [VmState::Suspended, VmState::Stopped]
            .into_iter()
            .find(|&to| self.check_can(vm, to).is_ok())
    }

    /// Claimed at once: the next look does not find it again.
    async fn put_idle_to_sleep(
        &self,
        vm: Vm,
        to: VmState,
        falling_asleep: &mut JoinSet<()>,
    ) -> Result<(), MachineFailure> {
        let Some(changing) = self
            .store
            .change_state_if_unused(&vm, VmState::Suspending)
            .await?
        else {
            return Ok(());
        };
        tracing::info!(vm = %vm.id, to = to.as_str(), "an idle VM goes to sleep");
        let this = self.clone();
        falling_asleep.spawn(async move {
            if let Err(error) = this.finish_sleep(&vm, &changing, to).await {
                tracing::warn!(vm = %vm.id, %error, "an idle VM could not be put to sleep");
            }
        });
        Ok(())
    }
}
