//! Machines that this gateway runs itself, under QEMU by `guestline-machine`. A machine's name there is its VM id; it lives
//! on when the gateway ends, and is found again by the next one on the same data folder (`adopt.rs`).
//!
//! A machine is started, and its disk deleted, when it is certain that no QEMU of it runs: `find.rs`.

mod adopt;
mod end;
mod ended;
mod find;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use guestline_client::Endpoint;
use guestline_machine::{Disk, ImageKind, Machine, MachineError, MachineSpec, Setup};
use thiserror::Error;
use tokio::sync::oneshot;

use super::{MachineFailure, Machines};
use crate::{
    ids::{GatewayId, VmId},
    store::{KeptUntil, Store, StoreError, Vm, VmKind, VmState},
};
pub(super) use find::secret_file;

/// What a stop leaves of a start's limit: the machine's own deadline ends before ours, so that it clears up itself.
const MARGIN: Duration = Duration::from_millis(500);

/// What running machines takes.
#[derive(Clone, Debug)]
pub(crate) struct EmbeddedConfig {
    /// The static agent that goes into each machine.
    pub(crate) agent: PathBuf,
    /// Where images are cached.
    pub(crate) cache: PathBuf,
    pub(crate) image: ImageKind,
    pub(crate) memory_mib: u32,
}

/// Why no machines can be run here.
#[derive(Debug, Error)]
pub(crate) enum EmbeddedError {
    #[error("cannot keep this gateway's id in {path}")]
    Id { path: PathBuf, source: io::Error },
    #[error("cannot make the folder {path} for the machines' disks")]
    Disks { path: PathBuf, source: io::Error },
    #[error("there is no static agent at {0}: build it with `cargo xtask agent`")]
    NoAgent(PathBuf),
    #[error("cannot make the machines' image")]
    Image(#[source] MachineError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The machines of this gateway.
#[derive(Debug)]
pub(crate) struct Embedded {
    gateway: GatewayId,
    config: EmbeddedConfig,
    setup: Setup,
    /// Of machines with a disk.
    disks: PathBuf,
    /// Those that run. One without a value was started by an earlier gateway: its QEMU is not our child.
    running: Mutex<HashMap<VmId, Option<Machine>>>,
    /// Those of which it was said that nothing can be told.
    unsure: Mutex<HashSet<VmId>>,
}

/// A machine to be made.
#[derive(Clone, Debug)]
pub(crate) struct NewMachine {
    pub(crate) id: VmId,
    /// Plain users, in the order of their uids from 1000 on.
    pub(crate) users: Vec<String>,
    pub(crate) memory_mib: Option<u32>,
    pub(crate) cpus: Option<u32>,
    /// As large as the image's otherwise.
    pub(crate) disk_gib: Option<u32>,
    /// Debian packages beyond the image's.
    pub(crate) packages: Vec<String>,
    pub(crate) workdir: Option<String>,
    pub(crate) idle_timeout: Option<Duration>,
    /// Absent: until it is deleted.
    pub(crate) kept_until: Option<KeptUntil>,
}

impl Embedded {
    /// Makes the image if it is missing, which may take a minute, and takes up what an earlier gateway left.
    pub(crate) async fn open(
        config: EmbeddedConfig,
        data: &Path,
        store: &Store,
    ) -> Result<Self, EmbeddedError> {
        if !config.agent.is_file() {
            return Err(EmbeddedError::NoAgent(config.agent));
        }
        let gateway = gateway_id(data)?;
        let setup = Setup::new(&config.cache);
        let disks = data.join("machines");
        fs::create_dir_all(&disks).map_err(|source| EmbeddedError::Disks {
            path: disks.clone(),
            source,
        })?;
        let (image, for_image) = (config.image, setup.clone());
        blocking(move || for_image.image(image))
            .await
            .map_err(EmbeddedError::Image)?;
        let this = Self {
            gateway,
            config,
            setup,
            disks,
            running: Mutex::default(),
            unsure: Mutex::default(),
        };
        this.adopt(store).await?;
        Ok(this)
    }

    pub(crate) fn gateway(&self) -> &GatewayId {
        &self.gateway
    }

    fn owns(&self, vm: &Vm) -> bool {
        matches!(&vm.kind, VmKind::Embedded { gateway, .. } if *gateway == self.gateway)
    }

    /// Lets a suspended machine go on. `None` if its memory is gone, and it must be booted.
    pub(super) async fn resume(&self, vm: &Vm) -> Result<Option<Endpoint>, MachineFailure> {
        // One that cannot be booted again goes on in whatever state its gateway has left it.
        let may_go_on = vm.state == VmState::Suspended || vm.is_in_its_only_run();
        let Some(endpoint) = vm.endpoint.as_ref().filter(|_| may_go_on) else {
            return Ok(None);
        };
        let found = self.find(&vm.id).await;
        let Some(record) = found.map_err(|it| self.unsure(&vm.id, &it))? else {
            return Ok(None);
        };
        blocking(move || record.resume())
            .await
            .map_err(|error| start_failure(&error, MARGIN))?;
        Ok(Some(endpoint.clone()))
    }

    /// Has it stand still with what it has in memory, on which it goes on later.
    pub(super) async fn suspend(&self, id: &VmId) -> Result<(), MachineFailure> {
        let found = self.find(id).await.map_err(|it| self.unsure(id, &it))?;
        let record = found.ok_or(MachineFailure::NotRunning)?;
        blocking(move || record.pause()).await.map_err(|error| {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(vm = %id, error, "a VM could not be suspended");
            MachineFailure::Suspend
        })
    }

    /// Boots the machine and waits for its agent. After a failure nothing of it runs.
    pub(super) async fn start(
        &self,
        id: &VmId,
        kind: &VmKind,
        limit: Duration,
    ) -> Result<Endpoint, MachineFailure> {
        let VmKind::Embedded {
            memory_mib,
            cpus,
            packages,
            users,
            disk_gib,
            ..
        } = kind
        else {
            return Err(MachineFailure::NoMachines);
        };
        // Its disk may be gone already, and the next gateway would delete what ran without it.
        if self.deletion(id).exists() {
            return Err(MachineFailure::Deleted(id.clone()));
        }
        let end = Instant::now() + limit.saturating_sub(MARGIN);
        self.stop_within(id, limit).await?;
        let spec = MachineSpec {
            name: id.to_string(),
            image: self.config.image,
            users: users.clone(),
            memory: *memory_mib,
            cpus: *cpus,
            agent: self.config.agent.clone(),
            disk: self.keeps_files().then(|| self.disk(id, *disk_gib)),
            packages: packages.clone(),
            channels: Vec::new(),
            secret: true,
        };
        let machine = boot(self.setup.clone(), spec, end)
            .await
            .map_err(|error| start_failure(&error, limit))?;
        let endpoint = machine.endpoint().parse();
        self.with_running(|running| running.insert(id.clone(), Some(machine)));
        endpoint.map_err(|error| MachineFailure::Start(format!("{error}").into()))
    }

    /// Whether a machine that is powered off keeps its files.
    pub(super) fn keeps_files(&self) -> bool {
        self.config.image == ImageKind::Debian
    }

    fn disk(&self, id: &VmId, size: Option<u32>) -> Disk {
        Disk {
            path: self.disks.join(format!("{id}.disk")),
            size,
        }
    }

    /// What may run is looked after (`ended.rs`) until it is known to have ended.
    fn look_after(&self, id: &VmId) {
        self.with_running(|running| {
            running.entry(id.clone()).or_insert(None);
        });
    }

    /// One of an earlier gateway's that has ended, as the store says too. One of ours is taken up by who ends it.
    fn look_no_more_after(&self, id: &VmId) {
        self.with_running(|running| {
            if let Some(None) = running.get(id) {
                running.remove(id);
            }
        });
    }

    fn with_running<T>(&self, action: impl FnOnce(&mut HashMap<VmId, Option<Machine>>) -> T) -> T {
        action(&mut self.running.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Machines {
    /// Makes a machine and boots it. After a failure there is none.
    pub(crate) async fn create(&self, new: NewMachine) -> Result<Vm, MachineFailure> {
        let embedded = self.embedded.as_ref().ok_or(MachineFailure::NoMachines)?;
        if new.disk_gib.is_some() && !embedded.keeps_files() {
            return Err(MachineFailure::Spec(
                "this gateway's image has no disk".into(),
            ));
        }
        // An image with packages of its own takes minutes, once: that is no part of a start.
        let (setup, image) = (embedded.setup.clone(), embedded.config.image);
        let packages = new.packages.clone();
        blocking(move || setup.prepare(image, &packages))
            .await
            .map_err(|error| start_failure(&error, self.wake_limit))?;
        let now = SystemTime::now();
        let vm = Vm {
            id: new.id,
            kind: VmKind::Embedded {
                gateway: embedded.gateway.clone(),
                image: embedded.config.image.name().into(),
                memory_mib: new.memory_mib.unwrap_or(embedded.config.memory_mib),
                cpus: new.cpus,
                packages: new.packages,
                users: new.users,
                disk_gib: new.disk_gib,
                kept_until: new.kept_until,
            },
            state: VmState::Stopped,
            state_since: now,
            instance: None,
            endpoint: None,
            workdir: new.workdir,
            idle_timeout: new.idle_timeout,
            last_activity: now,
            created_at: now,
        };
        // Known before it runs: what is not in the store could be forgotten.
        self.store.add_vm(&vm).await?;
        match self.awake(&vm).await {
            Ok(_) => Ok(vm),
            Err(failure) => {
                self.discard(&vm, embedded).await;
                Err(failure)
            }
        }
    }

    async fn discard(&self, vm: &Vm, embedded: &Arc<Embedded>) {
        let discarded = async {
            embedded.delete(&vm.id).await?;
            self.store.delete_vm(&vm.id).await?;
            embedded.deleted(&vm.id);
            Ok::<(), MachineFailure>(())
        };
        if let Err(error) = discarded.await {
            tracing::warn!(vm = %vm.id, %error, "a VM that could not be created was left behind");
        }
    }
}

/// At its limit, or given up, it ends what it started and leaves nothing: nobody else knows of it.
async fn boot(setup: Setup, spec: MachineSpec, end: Instant) -> Result<Machine, MachineError> {
    let setup = setup.until(end);
    let (sender, booted) = oneshot::channel();
    tokio::task::spawn_blocking(move || {
        // It had to wait for a thread.
        if sender.is_closed() {
            return;
        }
        let started = Machine::start(&setup, &spec, true).and_then(|mut machine| {
            machine.wait_ready(end.saturating_duration_since(Instant::now()))?;
            Ok(machine)
        });
        if let Err(Ok(machine)) = sender.send(started) {
            machine.end();
        }
    });
    booted.await.expect("the start sends its result")
}

/// The console and the host's paths are the admin's, and in the log: whoever waits for a wake gets this.
fn start_failure(error: &MachineError, limit: Duration) -> MachineFailure {
    tracing::warn!(%error, "a VM did not start");
    match error {
        MachineError::NotReady { .. } | MachineError::Late { .. } => MachineFailure::TimedOut {
            doing: "start",
            limit,
        },
        MachineError::InvalidPackage { .. }
        | MachineError::NoPackages { .. }
        | MachineError::InvalidUser { .. } => MachineFailure::Spec(error.to_string().into()),
        MachineError::Died { .. } => {
            MachineFailure::Start("it ended before its agent answered".into())
        }
        MachineError::Unguarded { .. } => {
            MachineFailure::Start("its agent does not ask for the VM's secret".into())
        }
        _ => MachineFailure::Start("the gateway's host cannot run it; its log says why".into()),
    }
}

/// This data folder's own id, made once.
fn gateway_id(data: &Path) -> Result<GatewayId, EmbeddedError> {
    let path = data.join("gateway-id");
    let failed = |source| EmbeddedError::Id {
        path: path.clone(),
        source,
    };
    match fs::read_to_string(&path) {
        Ok(text) => match GatewayId::parse(text.trim()) {
            Some(id) => Ok(id),
            None => Err(failed(io::ErrorKind::InvalidData.into())),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let id = GatewayId::random();
            fs::write(&path, id.as_str()).map_err(failed)?;
            Ok(id)
        }
        Err(error) => Err(failed(error)),
    }
}

/// Machines are started and ended by calls that block.
async fn blocking<T: Send + 'static>(action: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(action).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
