//! What the guest and the agent use at one moment, from /proc. What a guest does not have, or does not show this user, is
//! empty or zero.

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use super::info::{self, Disk, Memory, text};
use crate::roster::Enrolled;

/// USER_HZ: the unit of /proc's times is this part of a second on every architecture that we build for (time(7)).
const USER_HZ: u64 = 100;

/// What the listener is called.
const LISTENER: &str = "guestline-agent";

/// One look.
#[derive(Debug)]
pub(crate) struct Sample {
    /// Of all cores together, in USER_HZ, since boot.
    pub(crate) cpu_busy: u64,
    pub(crate) cpu_total: u64,
    /// Over 1, 5 and 15 minutes.
    pub(crate) load: [f64; 3],
    pub(crate) memory: Memory,
    pub(crate) disks: Vec<Disk>,
    /// Of cpu, memory and io.
    pub(crate) pressure: [f64; 3],
    /// The listener and the workers, by pid.
    pub(crate) agent: Vec<AgentProcess>,
}

/// A process of the agent's own.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct AgentProcess {
    /// Whom the worker serves; empty for the listener.
    pub(crate) user: Vec<u8>,
    pub(crate) uid: u32,
    pub(crate) pid: i32,
    /// Bytes.
    pub(crate) resident: u64,
    pub(crate) threads: u32,
    /// Of user and system together, without children.
    pub(crate) cpu_time: Duration,
}

/// Looks at everything once; `roster` is where the listener keeps a file for each worker. May block on a mounted disk that
/// hangs.
pub(crate) fn sample(roster: &Path) -> Sample {
    let (cpu_busy, cpu_total) = cpu(&text("/proc/stat"));
    Sample {
        cpu_busy,
        cpu_total,
        load: info::load(&text("/proc/loadavg")),
        memory: info::memory(&text("/proc/meminfo")),
        disks: info::disks(),
        pressure: ["cpu", "memory", "io"]
            .map(|name| pressure(&text(&format!("/proc/pressure/{name}")))),
        agent: agent(roster),
    }
}

/// The first line: user nice system idle iowait irq softirq steal, then guest times, which are in user and nice already.
fn cpu(stat: &str) -> (u64, u64) {
    let line = stat.lines().next().unwrap_or_default();
    let times: Vec<u64> = line
        .split_whitespace()
        .skip(1)
        .take(8)
        .map(|time| time.parse().unwrap_or(0))
        .collect();
    let total: u64 = times.iter().sum();
    let idle: u64 = times.iter().skip(3).take(2).sum();
    (total - idle, total)
}

/// avg10 of the line "some".
fn pressure(text: &str) -> f64 {
    let share = text
        .lines()
        .find_map(|line| line.strip_prefix("some avg10="))
        .and_then(|rest| rest.split(' ').next());
    share.and_then(|share| share.parse().ok()).unwrap_or(0.0)
}

/// The workers by the listener's own roster, which only root writes: a program may call itself as a worker is called. The
/// listener is their parent, unless it was restarted and has started none yet.
fn agent(roster: &Path) -> Vec<AgentProcess> {
    let mut found = Vec::new();
    let mut listeners = BTreeSet::new();
    for entry in fs::read_dir(roster).into_iter().flatten().flatten() {
        let Some(worker) = Enrolled::read(&entry.path()) else {
            continue;
        };
        if let Some(status) = status(worker.pid) {
            listeners.insert(status.parent);
            found.push(process(worker.pid, worker.user.into(), &status));
        }
    }
    for pid in listeners {
        if let Some(status) = status(pid).filter(|status| status.name == LISTENER) {
            found.push(process(pid, Vec::new(), &status));
        }
    }
    found.sort_by_key(|process| process.pid);
    found
}

fn process(pid: i32, user: Vec<u8>, status: &Status) -> AgentProcess {
    AgentProcess {
        user,
        uid: status.uid,
        pid,
        resident: status.resident,
        threads: status.threads,
        cpu_time: cpu_time(&text(&format!("/proc/{pid}/stat"))),
    }
}

/// What we want of /proc/PID/status.
#[derive(Debug, Default, PartialEq, Eq)]
struct Status {
    name: String,
    parent: i32,
    uid: u32,
    resident: u64,
    threads: u32,
}

/// `None`: there is no such process, or it is not shown to this user.
fn status(pid: i32) -> Option<Status> {
    let status = fs::read(format!("/proc/{pid}/status")).ok()?;
    Some(parse_status(&String::from_utf8_lossy(&status)))
}

fn parse_status(text: &str) -> Status {
    let value = |key: &str| {
        let mut lines = text.lines();
        let value = lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(":\t"));
        value.unwrap_or_default()
    };
    let number = |key| value(key).split_whitespace().next().unwrap_or_default();
    Status {
        name: value("Name").to_owned(),
        parent: number("PPid").parse().unwrap_or(0),
        uid: number("Uid").parse().unwrap_or(0),
        // In KiB.
        resident: number("VmRSS").parse().map_or(0, |size: u64| size * 1024),
        threads: number("Threads").parse().unwrap_or(0),
    }
}

/// utime and stime of /proc/PID/stat.
fn cpu_time(stat: &str) -> Duration {
    let ticks = |number| field(stat, number).parse().unwrap_or(0);
    let ticks: u64 = ticks(14) + ticks(15);
    Duration::from_millis(ticks * 1000 / USER_HZ)
}

/// A field of /proc/PID/stat after the second, by its number in proc_pid_stat(5). The second is a name in parentheses, which
/// may have any.
fn field(stat: &str, number: usize) -> &str {
    let (_, fields) = stat.rsplit_once(") ").unwrap_or_default();
    fields.split(' ').nth(number - 3).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn procs_files_are_read_as_the_kernel_writes_them() {
        assert_eq!(
            cpu("cpu  10 1 20 300 40 5 6 7 9 9\ncpu0 1 1 1\n"),
            (49, 389)
        );
        assert_eq!(cpu(""), (0, 0));
        let some = "some avg10=42.50 avg60=1.00 avg300=0.00 total=5\nfull avg10=7.00\n";
        assert_eq!(pressure(some), 42.5);
        assert_eq!(pressure(""), 0.0);
        let stat = "7 (a) b) S 1 7 7 0 -1 0 0 0 0 0 150 50 9 9 20 0 3 0 1 1 1";
        assert_eq!(cpu_time(stat), Duration::from_secs(2));
        let status = parse_status(
            "Name:\tguestline-agent\nPPid:\t5\nUid:\t1000\t0\t0\t0\nVmRSS:\t    12 kB\nThreads:\t3\n",
        );
        assert_eq!(
            status,
            Status {
                name: "guestline-agent".into(),
                parent: 5,
                uid: 1000,
                resident: 12 * 1024,
                threads: 3,
            }
        );
    }

    #[test]
    fn a_process_that_is_not_the_rosters_is_no_worker() {
        let roster = tempfile::tempdir().unwrap();
        let pid = std::process::id().cast_signed();
        let file = roster.path().join(pid.to_string());
        let stat = text("/proc/self/stat");
        fs::write(&file, format!("{} 1000 alice\n", field(&stat, 22))).unwrap();
        let found = agent(roster.path());
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((&found[0].user[..], found[0].pid), (&b"alice"[..], pid));
        assert!(found[0].resident > 0 && found[0].threads > 0);
        fs::write(&file, "1 1000 alice\n").unwrap();
        assert_eq!(agent(roster.path()), []);
    }
}
