//! Processes of this host, as /proc tells of them (proc(5)).

use std::{
    fs,
    io::{self, ErrorKind},
    os::unix::fs::MetadataExt,
    path::Path,
};

use nix::unistd::geteuid;

/// A process, told from a later one of the same number by its start time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    /// Field 22 of /proc/PID/stat (proc(5)).
    pub(crate) started: u64,
}

/// A process with what it was told.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    pub(crate) process: Process,
    /// With its name as the first.
    pub(crate) arguments: Vec<String>,
}

impl Program {
    /// By a part of its name; also one that setsid(1) is about to become.
    pub(crate) fn is(&self, name: &str) -> bool {
        let mut words = self.arguments.iter();
        let mut program = words.next();
        if program.is_some_and(|program| program == "setsid") {
            program = words.find(|word| *word != "--");
        }
        program.is_some_and(|program| program.contains(name))
    }
}

impl Process {
    /// Of a pid and a start time.
    pub(crate) fn parse<'a>(mut words: impl Iterator<Item = &'a str>) -> Option<Self> {
        Some(Self {
            pid: words.next()?.parse().ok()?,
            started: words.next()?.parse().ok()?,
        })
    }

    pub(crate) fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name, field 2, may have spaces and brackets: count from the last of them.
        let mut rest = stat.rsplit_once(')')?.1.split_whitespace();
        let state = rest.next()?;
        let started = rest.nth(18)?.parse().ok()?;
        (state != "Z").then_some(Self { pid, started })
    }

    pub(crate) fn lives(&self) -> bool {
        Self::of(self.pid) == Some(*self)
    }
}

/// All programs of this user that run. An error says that some may be missing: who is not in this list is not there.
pub(crate) fn all() -> io::Result<Vec<Program>> {
    // A /proc that is not mounted, or is of another PID namespace, knows nothing of us either (pid_namespaces(7)).
    let own = fs::read_link("/proc/self")?;
    if own != Path::new(&std::process::id().to_string()) {
        return Err(io::Error::other("/proc is of another PID namespace"));
    }
    let mut all = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let read = arguments(pid);
        match read {
            Ok(Some(arguments)) => {
                all.extend(Process::of(pid).map(|process| Program { process, arguments }))
            }
            Ok(None) => {}
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

/// `None`: it is another user's.
fn arguments(pid: i32) -> io::Result<Option<Vec<String>>> {
    let folder = format!("/proc/{pid}");
    if fs::metadata(&folder)?.uid() != geteuid().as_raw() {
        return Ok(None);
    }
    let line = fs::read(format!("{folder}/cmdline"))?;
    let line = String::from_utf8_lossy(&line);
    Ok(Some(line.split_terminator('\0').map(Into::into).collect()))
}

/// It ended while we looked.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotFound
        || error.raw_os_error() == Some(nix::errno::Errno::ESRCH as i32)
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
    fn we_are_among_all() {
        let own = Process::of(std::process::id() as i32).unwrap();
        let all = all().unwrap();
        let ours = all.iter().find(|program| program.process == own).unwrap();
        let arguments: Vec<String> = std::env::args().collect();
        assert_eq!(ours.arguments, arguments);
    }
}
