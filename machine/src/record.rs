//! What is known of machines that run without their owner: a folder each, with the processes, the endpoint and the console.
//! Whoever starts or ends a machine holds a lock on its folder (flock(2)), which goes with the process that holds it.
//!
//! The folder is short, because a Unix socket's path has at most 107 bytes (unix(7)), and for this user alone.

#[cfg(test)]
mod tests;

use std::{
    env,
    fs::{self, File, TryLockError},
    io::{self, ErrorKind, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, geteuid},
};

use crate::{
    MachineError, locks,
    process::{self, Process, Program},
};

/// For a lock that was let go of: a process of ours that another thread is just forking has it too, until its exec.
const FORK: Duration = Duration::from_millis(100);

/// How long processes get to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(5);

/// The role without which a machine does not run.
pub(crate) const QEMU: &str = "qemu";

/// What a machine's processes run, by a part of the program's name.
const PROGRAMS: [&str; 2] = [QEMU_PROGRAM, "vhost-device-vsock"];
pub(crate) const QEMU_PROGRAM: &str = "qemu-system";

/// The process whose machine it is, in a machine that was not detached.
const OWNER: &str = "owner";
/// The file with the machine's secret. Where the agent is reached by a socket, this is beside it, where `guestline` looks.
const SECRET: &str = "vsock.sock.secret";

/// How much of a console is shown with an error.
const CONSOLE_END: usize = 3000;

/// A machine's folder.
#[derive(Clone, Debug)]
pub struct Record {
    name: String,
    folder: PathBuf,
}

/// A machine's name, while it is started or ended.
#[derive(Debug)]
pub(crate) struct Held {
    _folder: File,
}

/// All machines of this user that left a record, by name. What is left of those whose owner was killed is removed.
pub fn list() -> Result<Vec<Record>, MachineError> {
    let mut records = all()?;
    records.retain(|record| !record.forget_if_abandoned());
    records.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(records)
}

fn all() -> Result<Vec<Record>, MachineError> {
    let folder = machines()?;
    let entries = fs::read_dir(&folder)
        .map_err(MachineError::file("read", &folder))?
        .flatten();
    let records = entries.map(|entry| Record {
        name: entry.file_name().to_string_lossy().into_owned(),
        folder: entry.path(),
    });
    Ok(records.collect())
}

/// A machine that left a record.
pub fn find(name: &str) -> Result<Record, MachineError> {
    let record = Record::of(name)?;
    let is_there = record.folder.try_exists();
    match is_there.map_err(MachineError::file("look at", &record.folder))? {
        true => Ok(record),
        false => Err(MachineError::Unknown { name: name.into() }),
    }
}

/// Ends a machine and forgets it.
pub fn stop(name: &str) -> Result<(), MachineError> {
    find(name)?.end()
}

impl Record {
    pub(crate) fn of(name: &str) -> Result<Self, MachineError> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if name.is_empty() || name.len() > 32 || name.starts_with('-') || !name.bytes().all(plain) {
            return Err(MachineError::InvalidName { name: name.into() });
        }
        Ok(Self {
            name: name.into(),
            folder: machines()?.join(name),
        })
    }

    /// One whose folder may be elsewhere than this process would make it.
    pub(crate) fn at(name: &str, folder: &Path) -> Self {
        Self {
            name: name.into(),
            folder: folder.into(),
        }
    }

    /// Ends the machine and forgets it. After a failure its folder is there.
    pub fn end(&self) -> Result<(), MachineError> {
        let _held = match self.hold() {
            // The place of its folder is gone, and nobody holds what is not there.
            Err(MachineError::File { source, .. }) if source.kind() == ErrorKind::NotFound => None,
            held => Some(held?),
        };
        self.remove()
    }

    /// Makes the folder, without what a machine that is gone left there. The name is taken for as long as the result
    /// lives, and from then on as long as the machine does.
    pub(crate) fn begin(&self) -> Result<Held, MachineError> {
        for other in all()?.iter().filter(|other| other.name != self.name) {
            other.forget_if_abandoned();
        }
        let held = self.hold()?;
        if self.is_running()? {
            return Err(MachineError::Running {
                name: self.name.clone(),
            });
        }
        self.end_processes()?;
        let entries = fs::read_dir(&self.folder)
            .map_err(MachineError::file("read", &self.folder))?
            .flatten();
        for path in entries.map(|entry| entry.path()) {
            fs::remove_file(&path).map_err(MachineError::file("remove", &path))?;
        }
        Ok(held)
    }

    /// Locks the folder, made if it is missing.
    fn hold(&self) -> Result<Held, MachineError> {
        let end = Instant::now() + FORK;
        loop {
            make_private(&self.folder)?;
            let folder = match File::open(&self.folder) {
                Ok(folder) => folder,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(MachineError::file("open", &self.folder)(error)),
            };
            match folder.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) if Instant::now() < end => {
                    thread::sleep(Duration::from_millis(1));
                    continue;
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(MachineError::Busy {
                        name: self.name.clone(),
                    });
                }
                Err(TryLockError::Error(error)) => {
                    return Err(MachineError::file("lock", &self.folder)(error));
                }
            }
            // Who held it before may have removed it, and another has been made since.
            let of = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
            let (ours, there) = (folder.metadata(), fs::metadata(&self.folder));
            if ours.is_ok_and(|ours| there.is_ok_and(|there| of(ours) == of(there))) {
                return Ok(Held { _folder: folder });
            }
        }
    }

    /// Forgets a machine whose QEMU this was, unless another has been started under the name since.
    pub(crate) fn forget(&self, qemu: u32) {
        let end = Instant::now() + GRACE;
        let held = loop {
            match self.hold() {
                // Somebody looks whether it runs, or is ending it too.
                Err(MachineError::Busy { .. }) if Instant::now() < end => {
                    thread::sleep(Duration::from_millis(10));
                }
                held => break held,
            }
        };
        let is_other = |recorded: Vec<Process>| {
            let mut recorded = recorded.iter();
            recorded.any(|process| process.pid != qemu as i32)
        };
        let is_ours = self.processes(Some(QEMU)).is_ok_and(|it| !is_other(it));
        if held.is_ok() && is_ours {
            // Whoever wants the name next tries again.
            let _ = self.remove();
        }
    }

    /// Removes what is left of a machine whose owner is gone and did not end it (SIGKILL; the kernel ended the machine then).
    /// Whether it did.
    fn forget_if_abandoned(&self) -> bool {
        let owner = fs::read_to_string(self.path(OWNER));
        let is_abandoned = owner.is_ok_and(|owner| {
            let owner = Process::parse(owner.split_whitespace());
            owner.is_some_and(|owner| owner.lives().is_ok_and(|lives| !lives))
        });
        // Who holds it is at it.
        let held = is_abandoned.then(|| self.hold().ok()).flatten();
        held.is_some() && self.remove().is_ok()
    }

    /// This process owns the machine.
    pub(crate) fn own(&self) -> Result<(), MachineError> {
        let own = Process::of(std::process::id() as i32).map_err(cannot_look())?;
        match own {
            Some(own) => self.write(OWNER, &format!("{} {}\n", own.pid, own.started)),
            None => Ok(()),
        }
    }

    /// Its processors stand still until [`Record::resume`]; its clock goes on, if the host's does. By stopping QEMU's process:
    /// QEMU's own `stop` also stops the back end of a vhost-user vsock, and vhost-device-vsock (0.3.0) does not come back
    /// from that.
    pub fn pause(&self) -> Result<(), MachineError> {
        self.signal_qemu(Signal::SIGSTOP)
    }

    /// Its processors go on.
    pub fn resume(&self) -> Result<(), MachineError> {
        self.signal_qemu(Signal::SIGCONT)
    }

    fn signal_qemu(&self, signal: Signal) -> Result<(), MachineError> {
        let not_running = || MachineError::NotRunning {
            name: self.name.clone(),
        };
        let mut qemu = living(&self.processes(Some(QEMU))?)?;
        if qemu.is_empty() {
            qemu = self.unrecorded(&[QEMU_PROGRAM])?;
        }
        let qemu = qemu.first().ok_or_else(not_running)?;
        kill(Pid::from_raw(qemu.pid), signal).map_err(|_| not_running())
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its agent is reached, once that is known.
    pub fn endpoint(&self) -> Option<String> {
        fs::read_to_string(self.path("endpoint")).ok()
    }

    /// The file with its secret, if it has one. This user alone can read it.
    pub fn secret_file(&self) -> Option<PathBuf> {
        let path = self.path(SECRET);
        path.exists().then_some(path)
    }

    /// Draws the machine's secret, into a file that is this user's alone from its first moment.
    pub(crate) fn make_secret(&self) -> Result<PathBuf, MachineError> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(|error| MachineError::Random {
            name: self.name.clone(),
            source: error.into(),
        })?;
        let secret: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let path = self.path(SECRET);
        let file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path);
        let written = file.and_then(|mut file| file.write_all(secret.as_bytes()));
        written.map_err(MachineError::file("write", &path))?;
        Ok(path)
    }

    /// Whether its QEMU lives.
    pub fn is_running(&self) -> Result<bool, MachineError> {
        let qemu = living(&self.processes(Some(QEMU))?)?;
        Ok(!qemu.is_empty())
    }

    /// Whether a QEMU has it, be it in another PID namespace, where its process is not to be seen: it holds a lock on its
    /// console.
    pub fn is_in_use(&self) -> Result<bool, MachineError> {
        locks::is_locked(&self.console())
    }

    pub(crate) fn console(&self) -> PathBuf {
        self.path("console.log")
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.folder.join(file)
    }

    pub(crate) fn write(&self, file: &str, text: &str) -> Result<(), MachineError> {
        let path = self.path(file);
        fs::write(&path, text).map_err(MachineError::file("write", path))
    }

    /// A process of the machine's, by what it is there for.
    pub(crate) fn add_process(&self, role: &str, pid: u32) -> Result<(), MachineError> {
        // One that is gone already needs no line.
        let Some(process) = Process::of(pid as i32).map_err(cannot_look())? else {
            return Ok(());
        };
        let mut text = self.processes_file()?;
        text.push_str(&format!("{role} {} {}\n", process.pid, process.started));
        self.write("processes", &text)
    }

    /// Those of a role, or all.
    fn processes(&self, role: Option<&str>) -> Result<Vec<Process>, MachineError> {
        let parse = |line: &str| {
            let [of, pid, started] = line.split(' ').collect::<Vec<_>>()[..] else {
                return None;
            };
            role.is_none_or(|role| role == of).then_some(())?;
            Process::parse([pid, started].into_iter())
        };
        let file = self.processes_file()?;
        Ok(file.lines().filter_map(parse).collect())
    }

    /// Empty if it is not there.
    fn processes_file(&self) -> Result<String, MachineError> {
        let path = self.path("processes");
        match fs::read_to_string(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
            read => read.map_err(MachineError::file("read", path)),
        }
    }

    /// Whether the machine has printed that.
    pub(crate) fn console_has(&self, text: &str) -> bool {
        let bytes = fs::read(self.console()).unwrap_or_default();
        bytes
            .windows(text.len())
            .any(|window| window == text.as_bytes())
    }

    /// The end of what the machine printed.
    pub(crate) fn console_end(&self) -> String {
        let bytes = fs::read(self.console()).unwrap_or_default();
        String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(CONSOLE_END)..]).into_owned()
    }

    /// Ends the processes and removes the folder, which stays where it is not certain that they have ended. For who holds it.
    pub(crate) fn remove(&self) -> Result<(), MachineError> {
        self.end_processes()?;
        match fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(MachineError::file("remove", &self.folder)),
        }
    }

    /// Those of some programs that are not in the record: whoever started them was killed before it could note them, or the
    /// record is gone. Known by their arguments: both programs are told of a file in the machine's folder.
    fn unrecorded(&self, programs: &[&str]) -> Result<Vec<Process>, MachineError> {
        let folder = format!("{}/", self.folder.display());
        let is_ours = |other: &Program| {
            programs.iter().any(|program| other.is(program))
                && other.arguments.iter().any(|word| word.contains(&folder))
        };
        let all = process::all().map_err(cannot_look())?.into_iter();
        let ours = all.filter(is_ours).map(|other| other.process);
        Ok(ours.collect())
    }

    /// After a success there are none.
    fn end_processes(&self) -> Result<(), MachineError> {
        let mut processes = self.processes(None)?;
        processes.extend(self.unrecorded(&PROGRAMS)?);
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            for process in living(&processes)? {
                let _ = kill(Pid::from_raw(process.pid), signal);
                // One that was paused hears nothing else before it goes on.
                let _ = kill(Pid::from_raw(process.pid), Signal::SIGCONT);
            }
            let end = Instant::now() + GRACE;
            while !living(&processes)?.is_empty() && Instant::now() < end {
                thread::sleep(Duration::from_millis(10));
            }
        }
        // The threads of one that was killed have its files a little longer than its process is there.
        let limit = if processes.is_empty() { FORK } else { GRACE };
        let end = Instant::now() + limit;
        while self.is_in_use()? && Instant::now() < end {
            thread::sleep(Duration::from_millis(10));
        }
        if !living(&processes)?.is_empty() || self.is_in_use()? {
            return Err(MachineError::Lives {
                name: self.name.clone(),
            });
        }
        Ok(())
    }
}

/// Those of them that live. One that cannot be looked at could be one.
fn living(processes: &[Process]) -> Result<Vec<Process>, MachineError> {
    let mut living = Vec::new();
    for process in processes {
        if process.lives().map_err(cannot_look())? {
            living.push(*process);
        }
    }
    Ok(living)
}

/// For `map_err` on what looks at processes.
fn cannot_look() -> impl FnOnce(io::Error) -> MachineError {
    MachineError::file("look at the processes in", "/proc")
}

/// `$XDG_RUNTIME_DIR/guestline`, or `/tmp/guestline-UID`.
fn machines() -> Result<PathBuf, MachineError> {
    let folder = match env::var_os("XDG_RUNTIME_DIR") {
        Some(runtime) if Path::new(&runtime).is_dir() => Path::new(&runtime).join("guestline"),
        _ => PathBuf::from(format!("/tmp/guestline-{}", geteuid())),
    };
    make_private(&folder)?;
    Ok(folder)
}

/// A folder of mode 0700 that is ours; another's in its place is an error.
fn make_private(folder: &Path) -> Result<(), MachineError> {
    let made = fs::DirBuilder::new().mode(0o700).create(folder);
    match made {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let metadata =
                fs::symlink_metadata(folder).map_err(MachineError::file("look at", folder))?;
            if metadata.is_dir() && metadata.uid() == geteuid().as_raw() {
                return Ok(());
            }
            Err(MachineError::file("use", folder)(error))
        }
        other => other.map_err(MachineError::file("make", folder)),
    }
}
