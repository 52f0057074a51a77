//! Waking, exactly once however many ask.
//!
//! ```text
//! request ─► runs? ──yes──► endpoint
//!              │ no
//!              ▼
//!           is somebody of this gateway at it? ──yes──► wait for what comes of it ─► endpoint or failure
//!              │ no: a task, which no request's end cancels
//!              ▼
//!           state in the store: suspended, stopped ─(compare and set)─► starting ─► start it ─► running
//!                               starting, suspending: another gateway is at it: look again soon;
//!                               for too long: its gateway died, take it over
//! ```
//!
//! All who waited for one wake share its failure; whoever asks later tries again.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use guestline_client::Endpoint;
use tokio::sync::watch;

use super::{MachineFailure, Machines};
use crate::{
    ids::{InstanceId, VmId},
    store::{Vm, VmKind, VmState},
};

/// Between two looks at a machine that another gateway starts.
const POLL: Duration = Duration::from_millis(200);

type Outcome = Option<Result<Endpoint, MachineFailure>>;

/// The wakes under way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wakes {
    running: Arc<Mutex<HashMap<VmId, watch::Receiver<Outcome>>>>,
}

impl Machines {
    /// Where the machine's agent answers; wakes it if it sleeps.
    pub(crate) async fn awake(&self, vm: &Vm) -> Result<Endpoint, MachineFailure> {
        self.check_place(vm)?;
        if let (VmState::Running, Some(endpoint)) = (vm.state, &vm.endpoint)
            && self.note_use(vm).await?
        {
            return Ok(endpoint.clone());
        }
        let mut outcome = self.join_wake(&vm.id);
        match outcome.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(result)) => result.clone(),
            // The task ended without a word: it panicked, or the runtime ends.
            _ => Err(MachineFailure::Start("the start was interrupted".into())),
        }
    }

    fn join_wake(&self, id: &VmId) -> watch::Receiver<Outcome> {
        let mut running = self
            .wakes
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match running.entry(id.clone()) {
            Entry::Occupied(wake) => wake.get().clone(),
            Entry::Vacant(place) => {
                let (sender, receiver) = watch::channel(None);
                let (machines, id) = (self.clone(), id.clone());
                tokio::spawn(async move {
                    let guard = Remove {
                        wakes: machines.wakes.clone(),
                        id: id.clone(),
                    };
                    let result = machines.wake(&id).await;
                    if let Err(error) = &result {
                        tracing::warn!(vm = %id, %error, "a VM could not be woken");
                    }
                    // Forgotten before it is told: who asks after a failure tries anew.
                    drop(guard);
                    let _ = sender.send(Some(result));
                });
                place.insert(receiver).clone()
            }
        }
    }

    async fn wake(&self, id: &VmId) -> Result<Endpoint, MachineFailure> {
        let limit = self.wake_limit;
        let end = Instant::now() + limit;
        let late = || MachineFailure::TimedOut {
            doing: "start",
            limit,
        };
        loop {
            let vm = self
                .store
                .vm(id)
                .await?
                .ok_or_else(|| MachineFailure::Deleted(id.clone()))?;
            match (vm.state, &vm.endpoint) {
                (VmState::Running, Some(endpoint)) => return Ok(endpoint.clone()),
                (VmState::Starting | VmState::Suspending, _) if !self.is_abandoned(&vm) => {
                    if Instant::now() >= end {
                        return Err(late());
                    }
                    tokio::time::sleep(POLL).await;
                }
                _ => {
                    if let Some(starting) = self.store.change_state(&vm, VmState::Starting).await? {
                        return self.start_claimed(&vm, &starting, end).await;
                    }
                }
            }
        }
    }

    /// Whoever was changing its state has died.
    pub(super) fn is_abandoned(&self, vm: &Vm) -> bool {
        vm.state_since.elapsed().unwrap_or_default() > self.wake_limit + self.grace
    }

    /// The machine is ours to start. After a failure it sleeps again, or has ended; where that cannot be told, it is as before.
    async fn start_claimed(
        &self,
        before: &Vm,
        starting: &Vm,
        end: Instant,
    ) -> Result<Endpoint, MachineFailure> {
        let begun = Instant::now();
        let remaining = end.saturating_duration_since(begun);
        let started = match tokio::time::timeout(remaining, self.start(before)).await {
            Ok(started) => started,
            Err(_) => Err(MachineFailure::TimedOut {
                doing: "start",
                limit: self.wake_limit,
            }),
        };
        let failure = match started {
            Ok(endpoint) => {
                let instance = InstanceId::random();
                if self
                    .store
                    .set_running(&starting.id, &instance, &endpoint)
                    .await?
                {
                    tracing::info!(vm = %starting.id, took = ?begun.elapsed(), "woke a VM");
                    self.metrics.woken(begun.elapsed());
                    return Ok(endpoint);
                }
                MachineFailure::Deleted(starting.id.clone())
            }
            Err(failure) => failure,
        };
        if before.is_in_its_only_run() {
            return Err(self.put_back(starting, failure).await?);
        }
        let is_uncertain = |failure: &MachineFailure| matches!(failure, MachineFailure::Uncertain);
        let may_run = is_uncertain(&failure)
            || self
                .end_quietly(before)
                .await
                .is_err_and(|failure| is_uncertain(&failure));
        let asleep = match (before.state, &before.kind) {
            // Nothing of it was ended, and it has its memory if it had it.
            (state, _) if may_run => state,
            // An orchestrator's machine may still have its memory; ours was ended.
            (VmState::Suspended, VmKind::External { .. }) => VmState::Suspended,
            _ => VmState::Stopped,
        };
        if self.store.change_state(starting, asleep).await?.is_none() {
            self.remove_if_deleted(starting).await?;
        }
        Err(failure)
    }

    /// Notes in the store that the machine is used, where that decides when it goes to sleep. `false`: it sleeps by now.
    async fn note_use(&self, vm: &Vm) -> Result<bool, MachineFailure> {
        let Some(limit) = vm.idle_timeout else {
            return Ok(true);
        };
        let age = SystemTime::now()
            .duration_since(vm.last_activity)
            .unwrap_or_default();
        // Most of the time it is known to be in use, and the store is spared a write.
        if age < limit / 4 {
            return Ok(true);
        }
        Ok(self.store.touch_vm(&vm.id).await?)
    }
}

/// Removes the wake even if its task panics.
struct Remove {
    wakes: Wakes,
    id: VmId,
}

impl Drop for Remove {
    fn drop(&mut self) {
        self.wakes
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.id);
    }
}
