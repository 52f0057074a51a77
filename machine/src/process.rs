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

    /// `None`: there is none, or it has ended. An error says neither.
    pub(crate) fn of(pid: i32) -> io::Result<Option<Self>> {
        match fs::read(format!("/proc/{pid}/stat")) {
            Ok(stat) => Self::parse_stat(pid, &String::from_utf8_lossy(&stat)),
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn parse_stat(pid: i32, stat: &str) -> io::Result<Option<Self>> {
        // The name, field 2, may have spaces and brackets: count from the last of them.
        let rest = stat.rsplit_once(')').map(|(_, rest)| rest);
        let mut rest = rest.unwrap_or_default().split_whitespace();
        let state = rest.next();
        let started = rest.nth(18).and_then(|started| started.parse().ok());
        match (state, started) {
            (Some("Z"), _) => Ok(None),
            (Some(_), Some(started)) => Ok(Some(Self { pid, started })),
            _ => Err(ErrorKind::InvalidData.into()),
        }
    }

    pub(crate) fn lives(&self) -> io::Result<bool> {
        Ok(Self::of(self.pid)? == Some(*self))
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
        match arguments(pid) {
            Ok(Some(arguments)) => {
                let process = Process::of(pid)?;
                all.extend(process.map(|process| Program { process, arguments }));
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
    use std::{fs::File, iter, process::Command};

    use super::*;

    #[test]
    fn a_process_is_known_by_its_start_too() {
        let own = own();
        let other = Process {
            started: own.started + 1,
            ..own
        };
        assert!(own.lives().unwrap() && !other.lives().unwrap());
    }

    #[test]
    fn what_cannot_be_read_is_not_taken_for_one_that_has_ended() {
        let stat = |stat: &str| Process::parse_stat(7, stat);
        let line = |state: &str| format!("7 (a) b) {state} {} 42 9", ["0"; 18].join(" "));
        let (pid, started) = (7, 42);
        let process = Process { pid, started };
        assert_eq!(stat(&line("S")).unwrap(), Some(process));
        assert_eq!(stat(&line("Z")).unwrap(), None);
        for torn in ["", "7 (a", "7 (a) S 1", &line("S").replace("42", "x")] {
            assert!(stat(torn).is_err(), "{torn:?}");
        }
        // The kernel gives out no such number (proc_sys_kernel(5), pid_max).
        assert_eq!(Process::of(i32::MAX).unwrap(), None);
    }

    #[test]
    fn without_descriptors_nobody_is_taken_for_ended() {
        const ALONE: &str = "GUESTLINE_TEST_ALONE";
        if std::env::var_os(ALONE).is_none() {
            // In a process of its own: the other tests need theirs.
            let name = "process::tests::without_descriptors_nobody_is_taken_for_ended";
            let test = Command::new("sh")
                .args(["-c", "ulimit -n 64; exec \"$0\" --exact \"$1\""])
                .arg(std::env::current_exe().unwrap())
                .arg(name)
                .env(ALONE, "")
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&test.stdout);
            assert!(test.status.success() && said.contains("1 passed"), "{said}");
            return;
        }
        let own = own();
        let opened: Vec<_> = iter::from_fn(|| File::open("/dev/null").ok()).collect();
        let seen = (Process::of(own.pid), own.lives(), all().map(drop));
        drop(opened);
        assert!(seen.0.is_err() && seen.1.is_err() && seen.2.is_err());
    }

    fn own() -> Process {
        Process::of(std::process::id() as i32).unwrap().unwrap()
    }

    #[test]
    fn we_are_among_all() {
        let own = own();
        let all = all().unwrap();
        let ours = all.iter().find(|program| program.process == own).unwrap();
        let arguments: Vec<String> = std::env::args().collect();
        assert_eq!(ours.arguments, arguments);
    }
}
