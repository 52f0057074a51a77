//! A started child: a descriptor that tells of its end, its status without reaping it, and what waits in its pipes.

use std::{
    mem::MaybeUninit,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    time::Duration,
};

use nix::{
    errno::Errno,
    libc,
    sys::{
        signal::Signal,
        time::{TimeVal, TimeValLike},
    },
    unistd::Pid,
};
use serde::{Deserialize, Serialize};

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Status {
    /// 0 to 255.
    Code(i32),
    Signal {
        number: i32,
        core_dumped: bool,
    },
}

/// getrusage(2) of the child and of the children it waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Usage {
    pub(crate) user_time: Duration,
    pub(crate) system_time: Duration,
    /// Bytes.
    pub(crate) max_resident: u64,
}

/// A descriptor that becomes readable when the child ends (pidfd_open(2), Linux 5.3). It closes on exec.
pub(crate) fn open_pidfd(pid: Pid) -> Result<OwnedFd, Errno> {
    // SAFETY: plain numbers.
    let raw = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) })?;
    // SAFETY: the kernel just made this descriptor, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw as i32) })
}

/// pidfd_send_signal(2), Linux 5.1: to that very process, even if its number has gone to another.
pub(crate) fn signal(pidfd: BorrowedFd<'_>, signal: Signal) -> Result<(), Errno> {
    // SAFETY: plain numbers, and no siginfo_t.
    let done = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal as libc::c_int,
            std::ptr::null::<libc::c_void>(),
            0,
        )
    };
    Errno::result(done).map(drop)
}

/// The same with SIGKILL: to the very process that the descriptor was opened for, or to nobody.
pub(crate) fn kill_process(pidfd: BorrowedFd<'_>) -> Result<(), Errno> {
    signal(pidfd, Signal::SIGKILL)
}

/// How the child ended and what it used, `None` while it runs. It stays a zombie, so that its pid and its group's
/// number remain its own: the raw waitid(2) gives the usage even with WNOWAIT, which wait4(2) does not take.
pub(crate) fn peek_exit(pid: Pid) -> Result<Option<(Status, Usage)>, Errno> {
    wait(pid, libc::WNOHANG)
}

/// Waits for the child's end, and leaves it a zombie as [`peek_exit`] does.
pub(crate) fn await_exit(pid: Pid) -> Result<(Status, Usage), Errno> {
    loop {
        match wait(pid, 0) {
            Ok(Some(exit)) => return Ok(exit),
            Ok(None) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

fn wait(pid: Pid, flags: libc::c_int) -> Result<Option<(Status, Usage)>, Errno> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: both buffers are alive, writable and of the kernel's type.
    let done = unsafe {
        libc::syscall(
            libc::SYS_waitid,
            libc::P_PID,
            pid.as_raw(),
            info.as_mut_ptr(),
            libc::WEXITED | libc::WNOWAIT | flags,
            usage.as_mut_ptr(),
        )
    };
    Errno::result(done)?;
    // SAFETY: zeroed, then perhaps filled by the kernel: every bit pattern of it is valid.
    let info = unsafe { info.assume_init() };
    // SAFETY: the same.
    let usage = unsafe { usage.assume_init() };
    // SAFETY: of all layouts of siginfo_t, waitid fills that of SIGCHLD, or leaves zeros.
    if unsafe { info.si_pid() } == 0 {
        return Ok(None);
    }
    // SAFETY: the same.
    let value = unsafe { info.si_status() };
    let status = match info.si_code {
        libc::CLD_EXITED => Status::Code(value),
        code => Status::Signal {
            number: value,
            core_dumped: code == libc::CLD_DUMPED,
        },
    };
    Ok(Some((status, usage_of(&usage))))
}

fn usage_of(usage: &libc::rusage) -> Usage {
    let duration = |time: libc::timeval| {
        let micros = TimeVal::from(time).num_microseconds();
        Duration::from_micros(micros.try_into().unwrap_or(0))
    };
    Usage {
        user_time: duration(usage.ru_utime),
        system_time: duration(usage.ru_stime),
        // Linux counts in kibibytes.
        max_resident: u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024,
    }
}

/// Whose child a process is, by the fourth field of /proc/PID/stat (proc(5)).
pub(crate) fn parent(pid: i32) -> Option<i32> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    let stat = String::from_utf8_lossy(&stat);
    // The name before it is in parentheses and may have any.
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').nth(1)?.parse().ok()
}

/// How many bytes can be read from the pipe now (FIONREAD).
pub(crate) fn available(pipe: BorrowedFd<'_>) -> Result<usize, Errno> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int, which is alive.
    Errno::result(unsafe { libc::ioctl(pipe.as_raw_fd(), libc::FIONREAD, &mut bytes) })?;
    Ok(usize::try_from(bytes).unwrap_or(0))
}

/// kill(2) with any number, real-time signals too, which `nix` has no names for. A negative pid is a group.
pub(crate) fn kill(pid: i32, signal: i32) -> Result<(), Errno> {
    // SAFETY: plain numbers.
    Errno::result(unsafe { libc::kill(pid, signal) }).map(drop)
}
