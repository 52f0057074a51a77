//! What becomes of machines whose QEMU has ended, runs, or may run. No VM is booted: a QEMU is a shell with its name and words.

use std::{
    fs::{DirBuilder, File},
    os::unix::{fs::DirBuilderExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant, SystemTime},
};

use guestline_machine::{ImageKind, Setup};
use nix::{
    fcntl::{FcntlArg, fcntl},
    libc,
    unistd::geteuid,
};
use tokio::task::JoinSet;

use super::{Embedded, EmbeddedConfig, end::START_LIMIT};
use crate::{
    ids::{GatewayId, InstanceId, VmId},
    machines::{MachineFailure, Machines},
    metrics::Metrics,
    store::{KeptUntil, Location, Store, Vm, VmKind, VmState},
};

/// A gateway's data folder with machines that were never booted.
struct Fixture {
    folder: tempfile::TempDir,
    gateway: GatewayId,
    store: Store,
}

impl Fixture {
    async fn new() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("machines")).unwrap();
        let location = Location::Sqlite(folder.path().join("gateway.db"));
        Self {
            gateway: GatewayId::random(),
            store: Store::open(&location).await.unwrap(),
            folder,
        }
    }

    /// The next gateway on the folder.
    async fn gateway(&self) -> Machines {
        let embedded = Embedded {
            gateway: self.gateway.clone(),
            config: EmbeddedConfig {
                agent: "/nonexistent/agent".into(),
                cache: self.folder.path().into(),
                image: ImageKind::Debian,
                memory_mib: 1,
            },
            setup: Setup::new(self.folder.path()),
            disks: self.folder.path().join("machines"),
            running: Default::default(),
            unsure: Default::default(),
        };
        embedded.adopt(&self.store).await.unwrap();
        let limit = Duration::from_secs(2);
        Machines::new(self.store.clone(), Some(embedded), Metrics::new(), limit).unwrap()
    }

    /// A machine that has run, with its disk.
    async fn vm(&self, state: VmState, kept_until: Option<KeptUntil>) -> VmId {
        let now = SystemTime::now();
        let vm = Vm {
            id: VmId::random(),
            kind: VmKind::Embedded {
                gateway: self.gateway.clone(),
                image: "debian".into(),
                memory_mib: 1,
                cpus: None,
                packages: Vec::new(),
                users: Vec::new(),
                disk_gib: None,
                kept_until,
            },
            state,
            state_since: now,
            instance: Some(InstanceId::random()),
            endpoint: Some("unix:/nonexistent/agent.sock".parse().unwrap()),
            workdir: None,
            idle_timeout: None,
            last_activity: now,
            created_at: now,
        };
        self.store.add_vm(&vm).await.unwrap();
        File::create(self.disk(&vm.id)).unwrap();
        vm.id
    }

    fn disk(&self, id: &VmId) -> PathBuf {
        let disks = self.folder.path().join("machines");
        disks.join(format!("{id}.disk"))
    }

    /// The state, if it is not deleted; its disk is there or gone with it.
    async fn state(&self, id: &VmId) -> Option<VmState> {
        let vm = self.store.vm(id).await.unwrap();
        assert_eq!(vm.is_some(), self.disk(id).exists());
        vm.map(|vm| vm.state)
    }

    /// What runs of a machine, with a record where this process would not look for it.
    fn qemu(&self, id: &VmId) -> Qemu {
        let mut command = Command::new("sh");
        command
            .arg0("qemu-system-x86_64")
            .args(["-c", "read line", "sh", "-initrd"])
            .arg(self.folder.path().join(format!("records/{id}/initramfs")))
            .args(["-append", &format!("guestline.name={id}")])
            .stdin(Stdio::piped());
        let qemu = Qemu(command.spawn().unwrap());
        // Its words are in /proc a moment after the exec has let its parent go on.
        let end = Instant::now() + Duration::from_secs(10);
        while !is_running(id) {
            assert!(Instant::now() < end, "it does not run");
        }
        qemu
    }
}

/// Ends with its value.
struct Qemu(Child);

impl Qemu {
    fn lives(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    /// By a signal, as a machine does that is suspended: some time after the signal was sent.
    async fn comes_to_stand_still(&self) -> bool {
        let stands_still = || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
            stat.rsplit_once(") ").unwrap().1.starts_with('T')
        };
        let end = Instant::now() + Duration::from_secs(30);
        while !stands_still() && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        stands_still()
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn is_running(id: &VmId) -> bool {
    let running = guestline_machine::running().unwrap();
    running.iter().any(|record| record.name() == id.as_str())
}

/// As QEMU has its disk, where we cannot see it.
fn lock(disk: &Path) -> File {
    let file = File::open(disk).unwrap();
    let lock = libc::flock {
        l_type: libc::F_RDLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 100,
        l_len: 1,
        l_pid: 0,
    };
    fcntl(&file, FcntlArg::F_OFD_SETLK(&lock)).unwrap();
    file
}

async fn note_dead(gateway: &Machines) {
    for id in gateway.dead_machines().await {
        gateway.note_dead(&id).await;
    }
}

const EPHEMERAL: [Option<KeptUntil>; 2] = [Some(KeptUntil::Suspended), Some(KeptUntil::Stopped)];

#[tokio::test]
async fn a_machine_that_has_ended_is_stopped_or_deleted_as_its_persistence_says() {
    let fixture = Fixture::new().await;
    let state = VmState::Running;
    let kept = fixture.vm(state, None).await;
    let ephemeral = [
        fixture.vm(state, EPHEMERAL[0]).await,
        fixture.vm(state, EPHEMERAL[1]).await,
    ];
    fixture.gateway().await;
    assert_eq!(fixture.state(&kept).await, Some(VmState::Stopped));
    for id in &ephemeral {
        assert_eq!(fixture.state(id).await, None);
    }
}

#[tokio::test]
async fn a_machine_whose_record_is_gone_goes_on_while_its_qemu_lives() {
    let fixture = Fixture::new().await;
    let mut machines = Vec::new();
    for kept_until in [None, EPHEMERAL[0], EPHEMERAL[1]] {
        let id = fixture.vm(VmState::Running, kept_until).await;
        machines.push((fixture.qemu(&id), id));
    }
    let gateway = fixture.gateway().await;
    note_dead(&gateway).await;
    for (qemu, id) in &mut machines {
        assert_eq!(fixture.state(id).await, Some(VmState::Running));
        assert!(qemu.lives());
    }
    // It is ended and deleted on demand, and when it ends by itself.
    let (mut qemu, id) = machines.pop().unwrap();
    let vm = fixture.store.vm(&id).await.unwrap().unwrap();
    gateway.delete(&vm).await.unwrap();
    assert_eq!(fixture.state(&id).await, None);
    assert!(!qemu.lives());
    let (qemu, id) = machines.pop().unwrap();
    drop(qemu);
    note_dead(&gateway).await;
    assert_eq!(fixture.state(&id).await, None);
}

#[tokio::test]
async fn what_may_still_run_is_neither_started_nor_deleted() {
    let fixture = Fixture::new().await;
    let state = VmState::Running;
    let kept = fixture.vm(state, None).await;
    let ephemeral = fixture.vm(state, EPHEMERAL[0]).await;
    let both = [&kept, &ephemeral];
    let locks = both.map(|id| lock(&fixture.disk(id)));
    // Processes that are none here, and what it is reached by.
    let records = both.map(record);
    for record in &records {
        std::fs::write(record.join("processes"), "qemu 2147483647 1\n").unwrap();
        File::create(record.join("vsock.sock")).unwrap();
    }
    let gateway = fixture.gateway().await;
    note_dead(&gateway).await;
    for (id, record) in both.into_iter().zip(&records) {
        assert_eq!(fixture.state(id).await, Some(VmState::Running));
        let vm = fixture.store.vm(id).await.unwrap().unwrap();
        let failure = gateway.delete(&vm).await.unwrap_err();
        assert!(matches!(failure, MachineFailure::Uncertain), "{failure}");
        assert_eq!(fixture.state(id).await, Some(VmState::Running));
        assert!(["processes", "vsock.sock"].map(|file| record.join(file).exists()) == [true; 2]);
    }
    // As soon as it can be told, it is as if it had been told at once.
    drop(locks);
    note_dead(&gateway).await;
    assert_eq!(fixture.state(&kept).await, Some(VmState::Stopped));
    assert_eq!(fixture.state(&ephemeral).await, None);
    assert_eq!(records.map(|record| record.exists()), [false; 2]);
}

#[tokio::test]
async fn a_suspended_machine_that_may_still_run_is_not_given_up_by_a_wake() {
    let fixture = Fixture::new().await;
    let vm = async |id: &VmId| fixture.store.vm(id).await.unwrap().unwrap();
    let id = fixture.vm(VmState::Suspended, None).await;
    let lock = lock(&fixture.disk(&id));
    let gateway = fixture.gateway().await;
    for _ in 0..2 {
        let failure = gateway.awake(&vm(&id).await).await.unwrap_err();
        assert!(matches!(failure, MachineFailure::Uncertain), "{failure}");
        assert_eq!(fixture.state(&id).await, Some(VmState::Suspended));
    }
    drop(lock);
    gateway.delete(&vm(&id).await).await.unwrap();
    assert_eq!(fixture.state(&id).await, None);
}

/// Whoever wants to use it meanwhile would find it on its way to sleep, and the log would say so every other second.
#[tokio::test]
async fn an_idle_machine_that_may_run_is_not_put_to_sleep_again_and_again() {
    let fixture = Fixture::new().await;
    let id = fixture.vm(VmState::Running, None).await;
    let lock = lock(&fixture.disk(&id));
    let gateway = fixture.gateway().await;
    let idle = Some(Duration::ZERO);
    fixture.store.set_idle_timeout(&id, idle).await.unwrap();
    let vm = async || fixture.store.vm(&id).await.unwrap().unwrap();
    let look = async || {
        let mut falling_asleep = JoinSet::new();
        gateway.look_for_idle(&mut falling_asleep).await.unwrap();
        while let Some(done) = falling_asleep.join_next().await {
            done.unwrap();
        }
    };
    let before = vm().await;
    for _ in 0..2 {
        look().await;
        let now = vm().await;
        assert_eq!(now.state, VmState::Running);
        assert_eq!(now.state_since, before.state_since);
    }
    drop(lock);
    fixture.store.set_idle_timeout(&id, None).await.unwrap();
    look().await;
    assert_eq!(vm().await.state, VmState::Stopped);
}

/// What is looked after has the host's processes listed, every other second.
#[tokio::test]
async fn what_has_certainly_ended_is_looked_after_no_more() {
    let fixture = Fixture::new().await;
    let starting = fixture.vm(VmState::Starting, None).await;
    let running = fixture.vm(VmState::Running, None).await;
    let locks = [&starting, &running].map(|id| lock(&fixture.disk(id)));
    let mut gateway = fixture.gateway().await;
    gateway.grace = Duration::from_secs(3600);
    let count = |gateway: &Machines| {
        let embedded = gateway.embedded.as_ref().unwrap();
        embedded.with_running(|running| running.len())
    };
    assert_eq!(count(&gateway), 2);
    let embedded = gateway.embedded.clone().unwrap();
    // A stop that failed, of one that the store has as stopped already.
    let vm = fixture.store.vm(&running).await.unwrap().unwrap();
    embedded.stop(&running).await.unwrap_err();
    fixture
        .store
        .change_state(&vm, VmState::Stopped)
        .await
        .unwrap();
    assert_eq!(count(&gateway), 2);
    drop(locks);
    note_dead(&gateway).await;
    assert_eq!(count(&gateway), 1);
    // Somebody may be at the other.
    assert_eq!(fixture.state(&starting).await, Some(VmState::Starting));
    gateway.wake_limit = Duration::ZERO;
    gateway.grace = Duration::ZERO;
    note_dead(&gateway).await;
    assert_eq!(fixture.state(&starting).await, Some(VmState::Stopped));
    assert_eq!(count(&gateway), 0);
}

#[tokio::test]
async fn an_ephemeral_machine_that_cannot_go_on_is_suspended_again_or_deleted() {
    let fixture = Fixture::new().await;
    let vm = async |id: &VmId| fixture.store.vm(id).await.unwrap().unwrap();
    let id = fixture.vm(VmState::Suspended, EPHEMERAL[1]).await;
    let mut qemu = fixture.qemu(&id);
    let gateway = fixture.gateway().await;
    // It goes on, and no agent answers: it is not known to be lost.
    let failure = gateway.awake(&vm(&id).await).await.unwrap_err();
    assert!(
        matches!(failure, MachineFailure::TimedOut { .. }),
        "{failure}"
    );
    assert_eq!(fixture.state(&id).await, Some(VmState::Suspended));
    assert!(qemu.lives() && qemu.comes_to_stand_still().await);
    // The next gateway thinks so too.
    drop(gateway);
    let gateway = fixture.gateway().await;
    assert_eq!(fixture.state(&id).await, Some(VmState::Suspended));
    drop(qemu);
    let failure = gateway.awake(&vm(&id).await).await.unwrap_err();
    assert!(matches!(failure, MachineFailure::Deleted(_)), "{failure}");
    assert_eq!(fixture.state(&id).await, None);
}

#[tokio::test]
async fn a_deletion_waits_for_a_start_and_takes_what_that_leaves() {
    let fixture = Fixture::new().await;
    let gateway = fixture.gateway().await;
    let id = fixture.vm(VmState::Starting, None).await;
    let vm = fixture.store.vm(&id).await.unwrap().unwrap();
    // Whoever starts a machine holds its record's folder.
    let record = record(&id);
    let starting = File::open(&record).unwrap();
    starting.lock().unwrap();
    let deleting = tokio::spawn(async move { gateway.delete(&vm).await });
    let file = |kind: &str| fixture.folder.path().join(format!("machines/{id}.{kind}"));
    // Longer than a stop does.
    let end = Instant::now() + START_LIMIT + Duration::from_secs(2);
    while Instant::now() < end || !file("deleted").exists() {
        assert!(!deleting.is_finished(), "it did not wait");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    File::create(file("part")).unwrap();
    drop(starting);
    deleting.await.unwrap().unwrap();
    assert_eq!(fixture.state(&id).await, None);
    assert_eq!(
        ["disk", "part", "deleted"].map(|kind| file(kind).exists()),
        [false; 3]
    );
    assert!(!record.exists());
}

/// A start makes a missing image to its end, for minutes, and holds the record.
#[tokio::test]
async fn what_a_stop_waits_for_a_start_has_a_limit() {
    let fixture = Fixture::new().await;
    let id = fixture.vm(VmState::Running, None).await;
    let gateway = fixture.gateway().await;
    let vm = fixture.store.vm(&id).await.unwrap().unwrap();
    let starting = File::open(record(&id)).unwrap();
    starting.lock().unwrap();
    let embedded = gateway.own(&vm).unwrap();
    let stopped = tokio::time::timeout(Duration::from_secs(120), embedded.stop(&id)).await;
    let failure = stopped.expect("a limit").unwrap_err();
    assert!(matches!(failure, MachineFailure::Stop), "{failure}");
    drop(starting);
    embedded.stop(&id).await.unwrap();
    assert!(!record_path(&id).exists());
}

/// A record where this process keeps those of its machines.
fn record(id: &VmId) -> PathBuf {
    let record = record_path(id);
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&record)
        .unwrap();
    record
}

fn record_path(id: &VmId) -> PathBuf {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let records = match runtime.filter(|folder| folder.is_dir()) {
        Some(folder) => folder.join("guestline"),
        None => format!("/tmp/guestline-{}", geteuid()).into(),
    };
    records.join(id.as_str())
}

#[tokio::test]
async fn a_machine_of_another_gateway_is_not_touched_by_who_cannot_wake_it() {
    let fixture = Fixture::new().await;
    let id = fixture.vm(VmState::Suspended, EPHEMERAL[1]).await;
    let vm = fixture.store.vm(&id).await.unwrap().unwrap();
    let _qemu = fixture.qemu(&id);
    let limit = Duration::from_secs(2);
    let other = Machines::new(fixture.store.clone(), None, Metrics::new(), limit).unwrap();
    let failure = other.awake(&vm).await.unwrap_err();
    assert!(matches!(failure, MachineFailure::Elsewhere), "{failure}");
    assert_eq!(fixture.state(&id).await, Some(VmState::Suspended));
}
