//! A QEMU machine: started, waited for, stopped. Its vsock comes from the kernel where the host has vhost-vsock, else from
//! vhost-device-vsock; it runs on KVM where that works, else on QEMU's own emulation.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{
    Disk, ImageKind, MachineError, Record, Setup,
    images::{self, DRIVER_IS_UP, Image},
    locks,
    probe::{Answer, Vsock},
    record::QEMU,
    running::NAME_WORD,
    setup::say,
};

/// An emulated processor. Without the hints that copying and clearing are quickest byte by byte: QEMU does that byte by byte,
/// and where the page had been a program's, looks at each byte for what it had translated of that page. The kernel cleared
/// single pages for a minute.
const EMULATED: &str = "max,-erms,-fsrm";

/// The agent's default port.
const PORT: u32 = 777;

/// The guest's CID where vhost-device-vsock gives it one: each such machine is alone on its own.
const PRIVATE_CID: u32 = 3;

/// For vhost-device-vsock to listen, on a host that is busy with other machines.
const VSOCK_PATIENCE: Duration = Duration::from_secs(30);

/// Unless the spec says otherwise.
const CPUS: u32 = 2;

/// What to start.
#[derive(Clone, Debug)]
pub struct MachineSpec {
    /// a-z, 0-9 and `-`.
    pub name: String,
    /// Which image.
    pub image: ImageKind,
    /// Users to create, with uids from 1000 on and a home each.
    pub users: Vec<String>,
    /// In MiB.
    pub memory: u32,
    /// Processors; 2 otherwise.
    pub cpus: Option<u32>,
    /// The static agent.
    pub agent: PathBuf,
    /// A disk of the machine's own, which the first start makes of the image's. What a machine without one writes is gone
    /// when it ends. Images that boot without a disk ignore it.
    pub disk: Option<Disk>,
    /// Debian packages beyond those that the debian image has; each set is an image of its own, made once. The minimal
    /// image has no packages.
    pub packages: Vec<String>,
    /// Serial channels of virtio besides the vsock, as QEMU's own guest agent wants one.
    pub channels: Vec<Channel>,
    /// Whether it gets a secret, a new one at each start, without which its agent serves nobody. QEMU hands it in.
    pub secret: bool,
}

/// A virtio serial port: `/dev/virtio-ports/NAME` in the guest, and here a Unix socket at which QEMU listens.
#[derive(Clone, Debug)]
pub struct Channel {
    /// Without a comma.
    pub name: String,
    /// At most 107 bytes (unix(7)), without a comma.
    pub socket: PathBuf,
}

/// A running machine. Dropping it ends it, and so does the end of the thread that started it, unless it was detached.
#[derive(Debug)]
pub struct Machine {
    record: Record,
    vsock: Vsock,
    qemu: Child,
    helper: Option<Child>,
    detached: bool,
}

impl Machine {
    /// Starts a machine. After a failure nothing of it is left.
    ///
    /// `detached`: it lives on without this process, until [`stop`](crate::stop).
    pub fn start(setup: &Setup, spec: &MachineSpec, detached: bool) -> Result<Self, MachineError> {
        let record = Record::of(&spec.name)?;
        let _held = record.begin()?;
        let started = Self::launch(setup, spec, &record, detached);
        if started.is_err() {
            // What it failed of counts. What is left of it is in its record, which stays then.
            let _ = record.remove();
        }
        started
    }

    fn launch(
        setup: &Setup,
        spec: &MachineSpec,
        record: &Record,
        detached: bool,
    ) -> Result<Self, MachineError> {
        let mut image = setup.base_image(spec.image, &spec.packages)?;
        if let (Some(base), Some(own)) = (&image.disk, &spec.disk) {
            own.make_once(setup, base)?;
            image.disk = Some(own.path.clone());
        }
        let initramfs = record.path("initramfs");
        let mut bytes =
            fs::read(&image.initramfs).map_err(MachineError::file("read", &image.initramfs))?;
        bytes.extend(images::overlay(&spec.agent, &spec.users)?);
        fs::write(&initramfs, bytes).map_err(MachineError::file("write", &initramfs))?;

        let (vsock, helper) = start_vsock(setup, record, detached)?;
        let qemu = setup.qemu()?;
        let kvm = kvm_works();
        let accelerator = if kvm {
            "KVM"
        } else {
            "QEMU's emulation (no usable KVM)"
        };
        let transport = if helper.is_some() {
            "vhost-device-vsock"
        } else {
            "the kernel's vhost-vsock"
        };
        say(&format!(
            "starting {} ({}): {accelerator}, vsock by {transport}",
            spec.name,
            spec.image.name()
        ));
        let mut command = supervised(&qemu, detached);
        add_arguments(&mut command, spec, &image, &initramfs, &vsock, record, kvm);
        if spec.secret {
            // By a file: the arguments of a process are everybody's to read.
            let path = record.make_secret()?;
            let path = path.to_string_lossy().replace(',', ",,");
            let secret = format!("name=opt/guestline/secret,file={path}");
            command.args(["-fw_cfg", &secret]);
        }
        record.write("endpoint", &vsock.endpoint(PORT))?;
        if !detached {
            record.own()?;
        }
        let qemu = spawn(command, record, QEMU)?;
        Ok(Self {
            record: record.clone(),
            vsock,
            qemu,
            helper,
            detached,
        })
    }

    /// Where its agent is, in the client's words.
    pub fn endpoint(&self) -> String {
        self.vsock.endpoint(PORT)
    }

    /// Its processors stand still until [`Machine::resume`]; its clock goes on, if the host's does.
    pub fn pause(&self) -> Result<(), MachineError> {
        self.record.pause()
    }

    /// Its processors go on.
    pub fn resume(&self) -> Result<(), MachineError> {
        self.record.resume()
    }

    /// The file with its secret, if it has one.
    pub fn secret_file(&self) -> Option<PathBuf> {
        self.record.secret_file()
    }

    /// Ends it, a detached one too.
    pub fn end(mut self) {
        self.detached = false;
    }

    /// Waits until the agent answers. A machine that does not get there is ended, and the error shows its console.
    pub fn wait_ready(&mut self, limit: Duration) -> Result<(), MachineError> {
        let end = Instant::now() + limit;
        // A connection while the driver sets up its queues ends vhost-device-vsock's one thread (0.3.0: any error of an
        // event is its last), and nothing would ever answer: ask first when the driver has said that it is up.
        let wanted = match self.record.secret_file() {
            Some(_) => Answer::Closed,
            None => Answer::Open,
        };
        loop {
            let answer = match self.record.console_has(DRIVER_IS_UP) {
                true => self.vsock.ask(PORT),
                false => Answer::None,
            };
            if answer == wanted {
                return Ok(());
            }
            let name = self.record.name().to_owned();
            if answer == Answer::Open {
                self.detached = false;
                return Err(MachineError::Unguarded {
                    name,
                    console: self.record.console_end(),
                });
            }
            if !matches!(self.qemu.try_wait(), Ok(None)) {
                self.detached = false;
                return Err(MachineError::Died {
                    name,
                    console: self.record.console_end(),
                });
            }
            if Instant::now() > end {
                self.detached = false;
                return Err(MachineError::NotReady {
                    name,
                    limit,
                    console: self.record.console_end(),
                });
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if self.detached {
            return;
        }
        for child in std::iter::once(&mut self.qemu).chain(&mut self.helper) {
            let _ = child.kill();
            let _ = child.wait();
        }
        self.record.forget(self.qemu.id());
    }
}

/// Whether machines run on KVM here, and not on QEMU's emulation.
///
/// `/dev/kvm` may be there and never boot a kernel: without the processor's own support it is of no use.
pub fn kvm_works() -> bool {
    let flags = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let supported = flags
        .split_whitespace()
        .any(|flag| flag == "vmx" || flag == "svm");
    supported
        && File::options()
            .read(true)
            .write(true)
            .open("/dev/kvm")
            .is_ok()
}

/// The vsock, and the process that gives it where the kernel does not.
fn start_vsock(
    setup: &Setup,
    record: &Record,
    detached: bool,
) -> Result<(Vsock, Option<Child>), MachineError> {
    if kernel_vsock_works() {
        return Ok((
            Vsock::Kernel {
                cid: own_cid(record.name()),
            },
            None,
        ));
    }
    let program = setup.vhost_device_vsock()?;
    let (socket, path) = (record.path("vhost.sock"), record.path("vsock.sock"));
    let mut command = supervised(&program, detached);
    let vm = format!(
        "guest-cid={PRIVATE_CID},socket={},uds-path={}",
        socket.display(),
        path.display()
    );
    command.args(["--vm", &vm]);
    let mut helper = spawn(command, record, "vsock")?;
    let end = Instant::now() + VSOCK_PATIENCE;
    while !socket.exists() {
        if Instant::now() > end || !matches!(helper.try_wait(), Ok(None)) {
            let _ = helper.kill();
            let _ = helper.wait();
            let name = record.name().into();
            return Err(MachineError::Died {
                name,
                console: record.console_end(),
            });
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok((Vsock::Hybrid { path }, Some(helper)))
}

/// Whether the host's kernel carries vsocks by itself.
pub fn kernel_vsock_works() -> bool {
    let device = File::options()
        .read(true)
        .write(true)
        .open("/dev/vhost-vsock");
    device.is_ok()
}

/// A CID of the machine's own, from its name and our process: QEMU says so if another has it.
fn own_cid(name: &str) -> u32 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    (name, std::process::id()).hash(&mut hasher);
    0x1000 + (hasher.finish() as u32 >> 2)
}

/// A command that ends with the thread that starts it, by prctl(2)'s PR_SET_PDEATHSIG, unless it is detached.
///
/// A detached one is in a session of its own. In ours, its process group would be orphaned by our end, and the kernel sends
/// SIGHUP to such a group if it stands still, as a paused machine does (setpgid(2)).
fn supervised(program: &Path, detached: bool) -> Command {
    // Both exec the program: it has the pid that we see.
    let (wrapper, words): (_, &[&str]) = match detached {
        true => ("setsid", &["--"]),
        false => ("setpriv", &["--pdeathsig", "KILL", "--"]),
    };
    let mut command = Command::new(wrapper);
    command.args(words).arg(program);
    command
}

/// Recorded from its start on, so that whatever fails later ends it too.
fn spawn(mut command: Command, record: &Record, role: &str) -> Result<Child, MachineError> {
    let path = record.console();
    let log = || {
        File::options()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(MachineError::file("open", &path))
    };
    let out = log()?;
    if role == QEMU {
        // Says that it lives where its process is not to be seen: see [`Record::is_in_use`].
        locks::lock(&out).map_err(MachineError::file("lock", &path))?;
    }
    command.stdin(Stdio::null()).stdout(out).stderr(log()?);
    let child = command.spawn().map_err(|_| MachineError::Missing {
        program: command.get_program().to_string_lossy().into_owned(),
        install: "apt-get install util-linux qemu-system-x86".into(),
    })?;
    record.add_process(role, child.id())?;
    Ok(child)
}

fn add_arguments(
    command: &mut Command,
    spec: &MachineSpec,
    image: &Image,
    initramfs: &Path,
    vsock: &Vsock,
    record: &Record,
    kvm: bool,
) {
    let memory = format!(
        "memory-backend-memfd,id=memory,size={}M,share=on",
        spec.memory
    );
    let mut line = format!("console=ttyS0 panic=-1 {NAME_WORD}{}", spec.name);
    if spec.image == ImageKind::Minimal {
        line.push_str(" quiet");
    }
    if !kvm {
        // An emulated processor speculates nothing, so that what guards against that only costs time.
        line.push_str(" mitigations=off");
    }
    command.args([
        "-nodefaults",
        "-nographic",
        "-no-reboot",
        "-serial",
        "stdio",
    ]);
    command.args(["-accel", if kvm { "kvm" } else { "tcg,thread=multi" }]);
    command.args([
        "-cpu",
        if kvm { "host" } else { EMULATED },
        "-smp",
        &spec.cpus.unwrap_or(CPUS).to_string(),
        "-m",
        &format!("{}M", spec.memory),
    ]);
    command.args(["-object", &memory, "-machine", "q35,memory-backend=memory"]);
    command
        .arg("-kernel")
        .arg(&image.kernel)
        .arg("-initrd")
        .arg(initramfs)
        .args(["-append", &line]);
    if let Some(disk) = &image.disk {
        // What a machine without a disk of its own writes goes to a temporary file of QEMU's.
        let snapshot = if spec.disk.is_some() { "off" } else { "on" };
        let disk = disk.to_string_lossy().replace(',', ",,");
        command.arg("-drive").arg(format!(
            "file={disk},format=raw,if=virtio,snapshot={snapshot}"
        ));
    }
    if !spec.channels.is_empty() {
        command.args(["-device", "virtio-serial-pci"]);
    }
    for (number, Channel { name, socket }) in spec.channels.iter().enumerate() {
        let socket = socket.display();
        command.arg("-chardev").arg(format!(
            "socket,id=channel{number},path={socket},server=on,wait=off"
        ));
        command.arg("-device").arg(format!(
            "virtserialport,chardev=channel{number},name={name}"
        ));
    }
    match vsock {
        Vsock::Kernel { cid } => {
            command
                .arg("-device")
                .arg(format!("vhost-vsock-pci,guest-cid={cid}"));
        }
        Vsock::Hybrid { .. } => {
            let socket = record.path("vhost.sock");
            command
                .arg("-chardev")
                .arg(format!("socket,id=vsock,path={}", socket.display()));
            command.args(["-device", "vhost-user-vsock-pci,chardev=vsock"]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::soon::comes_true;

    #[test]
    fn a_detached_program_has_a_session_of_its_own() {
        let mut program = supervised(Path::new("sleep"), true);
        let mut program = program.arg("3600").spawn().unwrap();
        let session = || {
            let stat = fs::read_to_string(format!("/proc/{}/stat", program.id())).unwrap();
            // Field 6 (proc(5)); the name, field 2, has no spaces.
            stat.split(' ').nth(5).unwrap().parse::<u32>().unwrap()
        };
        comes_true(|| session() == program.id());
        let session = session();
        program.kill().unwrap();
        program.wait().unwrap();
        assert_eq!(session, program.id());
    }

    #[test]
    fn a_record_is_in_use_while_its_qemu_lives_where_that_cannot_be_seen() {
        let record = Record::of(&format!("test-in-use-{}", std::process::id())).unwrap();
        let held = record.begin().unwrap();
        let sleep = || {
            let mut sleep = supervised(Path::new("sleep"), true);
            sleep.arg("3600");
            sleep
        };
        // What gives it its vsock may outlive it.
        let mut helper = spawn(sleep(), &record, "vsock").unwrap();
        assert!(!record.is_in_use().unwrap());
        let mut qemu = spawn(sleep(), &record, QEMU).unwrap();
        assert!(record.is_in_use().unwrap());
        helper.kill().unwrap();
        helper.wait().unwrap();
        // As it is in another PID namespace: no process here.
        record.write("processes", "").unwrap();
        drop(held);
        assert!(matches!(record.begin(), Err(MachineError::Lives { .. })));
        assert!(matches!(record.end(), Err(MachineError::Lives { .. })));
        assert!(record.is_in_use().unwrap());
        qemu.kill().unwrap();
        qemu.wait().unwrap();
        record.end().unwrap();
        assert!(!record.path("").exists());
    }
}
