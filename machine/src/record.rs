//! What is known of machines that run without their owner: a folder each, with the processes, the endpoint and the console.
//!
//! The folder is short, because a Unix socket's path has at most 107 bytes (unix(7)), and for this user alone.

use std::{
    env, fs,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, geteuid},
};

use crate::MachineError;

/// How long processes get to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(5);

/// The role without which a machine does not run.
pub(crate) const QEMU: &str = "qemu";

/// How much of a console is shown with an error.
const CONSOLE_END: usize = 3000;

/// A machine's folder.
#[derive(Clone, Debug)]
pub struct Record {
    name: String,
    folder: PathBuf,
}

/// A process, told from a later one of the same number by its start time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pid: i32,
    /// Field 22 of /proc/PID/stat (proc(5)).
    started: u64,
}

/// All machines of this user that left a record, by name.
pub fn list() -> Result<Vec<Record>, MachineError> {
    let folder = machines()?;
    let entries = fs::read_dir(&folder)
        .map_err(MachineError::file("read", &folder))?
        .flatten();
    let mut records: Vec<Record> = entries
        .map(|entry| Record {
            name: entry.file_name().to_string_lossy().into_owned(),
            folder: entry.path(),
        })
        .collect();
    records.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(records)
}

/// Ends a machine and forgets it.
pub fn stop(name: &str) -> Result<(), MachineError> {
    let record = Record::of(name)?;
    if !record.folder.exists() {
        return Err(MachineError::Unknown { name: name.into() });
    }
    record.remove();
    Ok(())
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

    /// Makes the folder. What a machine that is gone left there is removed first.
    pub(crate) fn begin(&self) -> Result<(), MachineError> {
        if self.is_running() {
            return Err(MachineError::Running {
                name: self.name.clone(),
            });
        }
        self.remove();
        make_private(&self.folder)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its agent is reached, once that is known.
    pub fn endpoint(&self) -> Option<String> {
        fs::read_to_string(self.path("endpoint")).ok()
    }

    /// Whether its QEMU lives.
    pub fn is_running(&self) -> bool {
        let qemu = self.processes(Some(QEMU));
        qemu.iter().any(Process::lives)
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
        let Some(process) = Process::of(pid as i32) else {
            return Ok(());
        };
        let mut text = self.processes_file();
        text.push_str(&format!("{role} {} {}\n", process.pid, process.started));
        self.write("processes", &text)
    }

    /// Those of a role, or all.
    fn processes(&self, role: Option<&str>) -> Vec<Process> {
        let parse = |line: &str| {
            let [of, pid, started] = line.split(' ').collect::<Vec<_>>()[..] else {
                return None;
            };
            role.is_none_or(|role| role == of).then_some(())?;
            Some(Process {
                pid: pid.parse().ok()?,
                started: started.parse().ok()?,
            })
        };
        self.processes_file().lines().filter_map(parse).collect()
    }

    fn processes_file(&self) -> String {
        fs::read_to_string(self.path("processes")).unwrap_or_default()
    }

    /// The end of what the machine printed.
    pub(crate) fn console_end(&self) -> String {
        let bytes = fs::read(self.path("console.log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(CONSOLE_END)..]).into_owned()
    }

    /// Ends the processes and removes the folder.
    pub(crate) fn remove(&self) {
        let processes = self.processes(None);
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            for process in processes.iter().filter(|process| process.lives()) {
                let _ = kill(Pid::from_raw(process.pid), signal);
            }
            let end = Instant::now() + GRACE;
            while processes.iter().any(|process| process.lives()) && Instant::now() < end {
                thread::sleep(Duration::from_millis(10));
            }
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Process {
    fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name, field 2, may have spaces and brackets: count from the last of them.
        let mut rest = stat.rsplit_once(')')?.1.split_whitespace();
        let state = rest.next()?;
        let started = rest.nth(18)?.parse().ok()?;
        (state != "Z").then_some(Self { pid, started })
    }

    fn lives(&self) -> bool {
        Self::of(self.pid) == Some(*self)
    }
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
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_start_too() {
        let own = Process::of(std::process::id() as i32).unwrap();
        assert!(own.lives());
        assert!(
            !Process {
                started: own.started + 1,
                ..own
            }
            .lives()
        );
    }

    #[test]
    fn names_stay_within_their_folder() {
        for name in ["", "..", "a/b", "A", "-x", &"x".repeat(33)] {
            assert!(
                matches!(Record::of(name), Err(MachineError::InvalidName { .. })),
                "{name:?}"
            );
        }
    }
}
