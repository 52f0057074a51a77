//! What a running program is doing and has used, from /proc/PID/stat and /proc/PID/status (proc(5)).

use std::{fs, time::Duration};

use crate::sys::child::Usage;

/// USER_HZ of all of Linux's architectures but one: the unit of times in /proc.
const TICKS_PER_SECOND: u64 = 100;

/// A program at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Now {
    /// The letter of proc(5).
    pub(crate) state: u8,
    pub(crate) usage: Usage,
    /// Since its start.
    pub(crate) wall_time: Duration,
}

/// `None` when it is gone. The pid must be held: that of a child which was not reaped.
pub(super) fn now(pid: i32, wall_time: Duration) -> Option<Now> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let (state, user_time, system_time) = parse_stat(&stat)?;
    let max_resident = peak_of(&status);
    let usage = Usage {
        user_time,
        system_time,
        max_resident,
    };
    Some(Now {
        state,
        usage,
        wall_time,
    })
}

/// State, user and system time. The name before them is in parentheses and may have any, also parentheses.
fn parse_stat(stat: &str) -> Option<(u8, Duration, Duration)> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    let state = *fields.next()?.as_bytes().first()?;
    // The fields 14 and 15, after pid, name and state.
    let mut fields = fields.skip(10);
    let mut time = || {
        let ticks: u64 = fields.next()?.parse().ok()?;
        Some(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
    };
    Some((state, time()?, time()?))
}

/// VmHWM, in bytes; 0 where there is none, as in a zombie.
fn peak_of(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
    kibibytes.unwrap_or(0_u64) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let stat = "42 (a) R (b) T 1 42 42 0 -1 4194304 101 0 0 0 150 25 0 0 20 0 1 0 100";
        let expected = (
            b'T',
            Duration::from_millis(1500),
            Duration::from_millis(250),
        );
        assert_eq!(parse_stat(stat), Some(expected));
        assert_eq!(parse_stat("42 (cut) R 1 2"), None);
    }

    #[test]
    fn this_process_runs_and_uses_memory() {
        let pid = std::process::id().cast_signed();
        let now = now(pid, Duration::ZERO).unwrap();
        assert!(matches!(now.state, b'R' | b'S'), "{now:?}");
        assert!(now.usage.max_resident > 100_000, "{now:?}");
    }
}
