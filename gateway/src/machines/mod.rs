//! Machines: from a permitted session to a guest that answers. Two kinds: those of an orchestrator, by endpoint and hooks
//! (`hooks.rs`), and those that this gateway runs itself under QEMU (`embedded.rs`).
//!
//! ```text
//!            start                    stop, suspend
//! stopped ─────────► starting ─► running ─────────► suspending ─► stopped | suspended ─► (wake.rs) ─► starting …
//! ```
//!
//! The store has the state, and it changes by compare-and-set: of all requests on all gateways, one moves a machine.

mod embedded;
mod error;
mod guests;
mod hooks;
mod idle;
mod wake;

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use guestline_client::{ConnectError, Endpoint, Error as GuestError, Username, Vm as Guest};
use tokio::time::timeout;

pub(crate) use embedded::{Embedded, EmbeddedConfig, NewMachine};
pub(crate) use error::MachineFailure;

use crate::{
    audit::Operation,
    ids::VmId,
    metrics::Metrics,
    sessions::Session,
    store::{Hooks, Store, Vm, VmKind, VmState},
};
use guests::Guests;
use hooks::HookCaller;
use wake::Wakes;

/// Between two tries to reach the agent of a machine that was just started.
const AGENT_POLL: Duration = Duration::from_millis(100);

/// What a start may take beyond its limit before another gateway takes the machine over: clocks differ, and ends take time.
const GRACE: Duration = Duration::from_secs(15);

/// An orchestrator may take this long to stop, suspend or delete.
const HOOK_LIMIT: Duration = Duration::from_secs(60);

/// How long a resumed machine may take until its agent answers. After that its memory is given up for its disk: a guest whose
/// vsock did not outlive the pause is reached by nobody any more.
const RESUME_PATIENCE: Duration = Duration::from_secs(30);

/// Bytes for the random pool of a guest that was resumed.
const ENTROPY: usize = 256;

/// All machines. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Machines {
    store: Store,
    guests: Arc<Guests>,
    wakes: Wakes,
    uses: idle::Uses,
    hooks: HookCaller,
    embedded: Option<Arc<Embedded>>,
    metrics: Metrics,
    wake_limit: Duration,
    grace: Duration,
}

/// A guest, awake. The machine does not go to sleep while this lives.
#[derive(Debug)]
pub(crate) struct AwakeGuest {
    guest: Guest,
    workdir: Option<String>,
    _use: idle::Use,
}

impl AwakeGuest {
    /// The guest as the session's user.
    pub(crate) fn vm(&self) -> &Guest {
        &self.guest
    }

    /// Where relative paths and commands begin, if that is not the user's home.
    pub(crate) fn workdir(&self) -> Option<&str> {
        self.workdir.as_deref()
    }
}

impl Machines {
    pub(crate) fn new(
        store: Store,
        embedded: Option<Embedded>,
        metrics: Metrics,
        wake_limit: Duration,
    ) -> Result<Self, reqwest::Error> {
        Ok(Self {
            store,
            guests: Arc::default(),
            wakes: Wakes::default(),
            uses: idle::Uses::default(),
            hooks: HookCaller::new()?,
            embedded: embedded.map(Arc::new),
            metrics,
            wake_limit,
            grace: GRACE,
        })
    }

    /// The guest of a session, woken if it sleeps. The operation is told whom it acts through.
    pub(crate) async fn guest(
        &self,
        session: &Session,
        operation: &Operation,
    ) -> Result<AwakeGuest, MachineFailure> {
        let vm = session.vm().ok_or(MachineFailure::NotRunning)?;
        // Before the look at its state, so that it is not put to sleep in between.
        let in_use = self.uses.begin(&vm.id);
        let endpoint = self.awake(vm).await?;
        let guest = self.guests.get(vm, &endpoint, session.user())?;
        operation.acts_through(&guest);
        Ok(AwakeGuest {
            guest,
            workdir: vm.workdir.clone(),
            _use: in_use,
        })
    }

    /// A machine's guest as root, for the gateway's own work in it: setting up a machine that nobody has yet.
    pub(crate) async fn root_of(&self, vm: &Vm) -> Result<AwakeGuest, MachineFailure> {
        // Setting up may take longer than the machine may be idle.
        let in_use = self.uses.begin(&vm.id);
        let endpoint = self.awake(vm).await?;
        Ok(AwakeGuest {
            guest: guests::connection(vm, &endpoint, &Username::root())?,
            workdir: None,
            _use: in_use,
        })
    }

    /// A machine of an orchestrator. Nothing is asked of it.
    pub(crate) async fn register(
        &self,
        endpoint: Endpoint,
        hooks: Hooks,
        secret_file: Option<PathBuf>,
        state: VmState,
        workdir: Option<String>,
        idle_timeout: Option<Duration>,
    ) -> Result<Vm, MachineFailure> {
        let now = SystemTime::now();
        let vm = Vm {
            id: VmId::random(),
            kind: VmKind::External { hooks, secret_file },
            state,
            state_since: now,
            instance: None,
            endpoint: Some(endpoint),
            workdir,
            idle_timeout,
            last_activity: now,
            created_at: now,
        };
        self.store.add_vm(&vm).await?;
        Ok(vm)
    }

    /// Powers the machine off. What it had in memory is gone.
    pub(crate) async fn stop(&self, vm: &Vm) -> Result<(), MachineFailure> {
        let (this, vm) = (self.clone(), vm.clone());
        whole(async move { this.put_to_sleep(&vm, VmState::Stopped).await }).await
    }

    /// Puts the machine to sleep with its memory.
    pub(crate) async fn suspend(&self, vm: &Vm) -> Result<(), MachineFailure> {
        let (this, vm) = (self.clone(), vm.clone());
        whole(async move { this.put_to_sleep(&vm, VmState::Suspended).await }).await
    }

    /// Ends and forgets a machine, in whatever state. After a failure it is as it was.
    pub(crate) async fn delete(&self, vm: &Vm) -> Result<(), MachineFailure> {
        let (this, vm) = (self.clone(), vm.clone());
        whole(async move { this.delete_claimed(&vm).await }).await
    }

    async fn delete_claimed(&self, vm: &Vm) -> Result<(), MachineFailure> {
        let gone = || MachineFailure::Deleted(vm.id.clone());
        // Claimed first, so that nobody wakes it meanwhile. Whoever is at it loses it.
        let (before, claimed) = loop {
            let before = self.store.vm(&vm.id).await?.ok_or_else(gone)?;
            if let Some(claimed) = self
                .store
                .change_state(&before, VmState::Suspending)
                .await?
            {
                break (before, claimed);
            }
        };
        self.guests.forget(&vm.id);
        if let Err(failure) = self.remove(&before).await {
            self.store.change_state(&claimed, before.state).await?;
            return Err(failure);
        }
        let deleted = self.store.delete_vm(&vm.id).await?;
        if let VmKind::Embedded { .. } = &vm.kind {
            self.own(vm)?.deleted(&vm.id);
        }
        if deleted { Ok(()) } else { Err(gone()) }
    }

    /// Wherever it runs.
    async fn remove(&self, vm: &Vm) -> Result<(), MachineFailure> {
        match &vm.kind {
            VmKind::External { hooks, .. } => match &hooks.delete {
                Some(url) => {
                    let called = self.hooks.call(url, "delete", &vm.id, vm.state, HOOK_LIMIT);
                    called.await.map(drop)
                }
                None => Ok(()),
            },
            VmKind::Embedded { .. } => self.own(vm)?.delete(&vm.id).await,
        }
    }

    async fn put_to_sleep(&self, vm: &Vm, to: VmState) -> Result<(), MachineFailure> {
        match vm.state {
            VmState::Running => {}
            VmState::Suspending => return Err(MachineFailure::Suspending),
            // A machine that sleeps with its memory can still be powered off.
            VmState::Suspended if to == VmState::Stopped => {}
            VmState::Starting | VmState::Suspended | VmState::Stopped => {
                return Err(MachineFailure::NotRunning);
            }
        }
        self.check_can(vm, to)?;
        let changing = self.store.change_state(vm, VmState::Suspending).await?;
        let changing = changing.ok_or(MachineFailure::Suspending)?;
        self.finish_sleep(vm, &changing, to).await
    }

    /// `changing` is ours. What it was before, it is again after a failure.
    async fn finish_sleep(
        &self,
        before: &Vm,
        changing: &Vm,
        to: VmState,
    ) -> Result<(), MachineFailure> {
        self.guests.forget(&before.id);
        if before.is_not_kept(to) {
            return self.end_for_good(before, changing).await;
        }
        let done = match &before.kind {
            VmKind::External { hooks, .. } => {
                let (url, action) = sleep_hook(hooks, to);
                let url = url.ok_or(MachineFailure::NoHook(action));
                match url {
                    Ok(url) => self
                        .hooks
                        .call(url, action, &before.id, before.state, HOOK_LIMIT)
                        .await
                        .map(drop),
                    Err(error) => Err(error),
                }
            }
            VmKind::Embedded { .. } => match self.own(before) {
                Ok(embedded) if to == VmState::Suspended => embedded.suspend(&before.id).await,
                Ok(embedded) => self.power_off(embedded, before).await,
                Err(error) => Err(error),
            },
        };
        let state = if done.is_ok() { to } else { before.state };
        self.store.change_state(changing, state).await?;
        done
    }

    /// `changing` is ours, and not kept. After a failure it is what it was before.
    async fn end_for_good(&self, before: &Vm, changing: &Vm) -> Result<(), MachineFailure> {
        let ended = async {
            let embedded = self.own(before)?;
            self.power_off(embedded, before).await?;
            Ok(embedded)
        };
        match ended.await {
            Ok(embedded) => self.forget_for_good(embedded, changing).await,
            Err(failure) => {
                self.store.change_state(changing, before.state).await?;
                Err(failure)
            }
        }
    }

    async fn power_off(&self, embedded: &Embedded, vm: &Vm) -> Result<(), MachineFailure> {
        // One that is suspended must go on to end in order.
        let endpoint = match embedded.resume(vm).await? {
            Some(endpoint) => Some(endpoint),
            None => vm.endpoint.clone(),
        };
        if let Some(endpoint) = endpoint {
            let root = guests::connection(vm, &endpoint, &Username::root())?;
            embedded.power_off(&vm.id, &root).await;
        }
        embedded.stop(&vm.id).await
    }

    fn check_can(&self, vm: &Vm, to: VmState) -> Result<(), MachineFailure> {
        match &vm.kind {
            VmKind::External { hooks, .. } => match sleep_hook(hooks, to) {
                (Some(_), _) => Ok(()),
                (None, action) => Err(MachineFailure::NoHook(action)),
            },
            VmKind::Embedded { .. } => self.own(vm).map(drop),
        }
    }

    /// Starts or resumes, and waits until an agent answers. The caller has claimed the machine and bounds the time.
    async fn start(&self, vm: &Vm) -> Result<Endpoint, MachineFailure> {
        match &vm.kind {
            VmKind::External { hooks, .. } => {
                // Taken over from a gateway that died: the orchestrator may have done it.
                if let (VmState::Starting, Some(endpoint)) = (vm.state, &vm.endpoint)
                    && agent_answers(endpoint).await
                {
                    return Ok(endpoint.clone());
                }
                let url = hooks
                    .start
                    .as_ref()
                    .ok_or(MachineFailure::NoHook("start"))?;
                let answered = self
                    .hooks
                    .call(url, "start", &vm.id, vm.state, self.wake_limit)
                    .await?;
                let endpoint = answered
                    .or(vm.endpoint.clone())
                    .ok_or(MachineFailure::NoAgent)?;
                wait_for_agent(&endpoint).await;
                Ok(endpoint)
            }
            VmKind::Embedded { .. } => {
                let embedded = self.own(vm)?;
                let Some(endpoint) = embedded.resume(vm).await? else {
                    if vm.is_in_its_only_run() {
                        return Err(MachineFailure::Deleted(vm.id.clone()));
                    }
                    return embedded.start(&vm.id, &vm.kind, self.wake_limit).await;
                };
                let answers = wait_for_agent(&endpoint);
                if vm.is_in_its_only_run() {
                    // There is no disk to give its memory up for.
                    answers.await;
                } else if timeout(RESUME_PATIENCE, answers).await.is_err() {
                    tracing::warn!(vm = %vm.id, "a resumed VM is out of reach: booting it anew");
                    return embedded.start(&vm.id, &vm.kind, self.wake_limit).await;
                }
                catch_up(vm, &endpoint).await?;
                Ok(endpoint)
            }
        }
    }

    /// A start that failed leaves nothing running. That it does is in the log.
    async fn end_quietly(&self, vm: &Vm) -> Result<(), MachineFailure> {
        let ended = match &vm.kind {
            VmKind::External {
                hooks: Hooks {
                    stop: Some(url), ..
                },
                ..
            } => self
                .hooks
                .call(url, "stop", &vm.id, VmState::Starting, HOOK_LIMIT)
                .await
                .map(drop),
            VmKind::External { .. } => Ok(()),
            VmKind::Embedded { .. } => match self.own(vm) {
                Ok(embedded) => embedded.stop(&vm.id).await,
                Err(error) => Err(error),
            },
        };
        if let Err(error) = &ended {
            tracing::warn!(vm = %vm.id, %error, "a VM that could not be started could not be stopped either");
        }
        ended
    }

    /// Embedded machines live on one gateway's host, and their endpoints mean nothing elsewhere.
    fn check_place(&self, vm: &Vm) -> Result<(), MachineFailure> {
        match vm.kind {
            VmKind::External { .. } => Ok(()),
            VmKind::Embedded { .. } => self.own(vm).map(drop),
        }
    }

    fn own(&self, vm: &Vm) -> Result<&Arc<Embedded>, MachineFailure> {
        let embedded = self.embedded.as_ref();
        match &vm.kind {
            VmKind::Embedded { gateway, .. } => {
                let here = embedded.filter(|embedded| embedded.gateway() == gateway);
                here.ok_or(MachineFailure::Elsewhere)
            }
            VmKind::External { .. } => embedded.ok_or(MachineFailure::NoMachines),
        }
    }
}

fn sleep_hook(hooks: &Hooks, to: VmState) -> (Option<&String>, &'static str) {
    match to {
        VmState::Suspended => (hooks.suspend.as_ref(), "suspend"),
        _ => (hooks.stop.as_ref(), "stop"),
    }
}

/// Tells a guest that stood still: its clock may be behind, and its connections of before are dead.
async fn catch_up(vm: &Vm, endpoint: &Endpoint) -> Result<(), MachineFailure> {
    let mut entropy = vec![0; ENTROPY];
    getrandom::fill(&mut entropy).expect("the kernel gives random bytes (getrandom(2))");
    let root = guests::connection(vm, endpoint, &Username::root())?;
    if let Err(error) = root.system().resumed(SystemTime::now(), entropy).await {
        tracing::warn!(vm = %vm.id, %error, "a resumed VM's clock could not be set");
    }
    Ok(())
}

/// Until an agent answers. The caller bounds the time.
async fn wait_for_agent(endpoint: &Endpoint) {
    while !agent_answers(endpoint).await {
        tokio::time::sleep(AGENT_POLL).await;
    }
}

/// Whether one does, in whatever words: one that refuses root, or wants a secret, is one too.
async fn agent_answers(endpoint: &Endpoint) -> bool {
    match guests::without_secret(endpoint).system().info().await {
        Err(GuestError::Connect { source, .. }) => {
            matches!(source, ConnectError::InvalidUser { .. })
        }
        Err(GuestError::Lost(_)) => false,
        Ok(_) | Err(_) => true,
    }
}
/// To its end, though whoever asked for it goes away: half a change of a machine's state is none.
async fn whole(
    change: impl Future<Output = Result<(), MachineFailure>> + Send + 'static,
) -> Result<(), MachineFailure> {
    let done = tokio::spawn(change).await;
    done.unwrap_or_else(|_| Err(MachineFailure::Start("the change was interrupted".into())))
}
