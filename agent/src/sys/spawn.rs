//! fork(2) and execve(2), as an agent must do them: every allocation before the fork, and only async-signal-safe calls
//! (signal-safety(7)) in the child, which is a copy of one thread of many and may hold anybody's lock.
//!
//! ```text
//! parent: make the status pipe; block all signals; fork; restore the mask; read the status pipe to its end
//! child:  1 every signal to its default, none blocked   4 dup2 to 0, 1, 2; everything else closes on exec
//!         2 setsid                  "session"           5 RLIMIT_NOFILE, umask
//!         3 TIOCSCTTY               "terminal"          6 chdir            "directory"
//!                                   "descriptors": 4, 5 7 wait at the gate "cgroup": the parent
//!                                                       8 execve           "exec"
//! ```
//!
//! The status pipe closes on a successful exec; otherwise it carries the step and the errno.

use std::{
    ffi::{CStr, CString},
    fs::File,
    io::Read,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    ptr,
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    libc,
    sys::{
        resource::{Resource, getrlimit},
        signal::{SigSet, SigmaskHow},
        wait::waitpid,
    },
    unistd::{Pid, pipe2},
};
use serde::{Deserialize, Serialize};

use crate::switches;

/// CLOSE_RANGE_CLOEXEC of linux/close_range.h, since Linux 5.11.
const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;

/// How many descriptors the loop for older kernels marks at the most, whatever RLIMIT_NOFILE says.
const MAX_MARKED: RawFd = 65_536;

/// The highest signal number of Linux, `_NSIG`.
const LAST_SIGNAL: libc::c_int = 64;

/// The kernel's `struct sigaction` for SIG_DFL, and the size of its `sigset_t` (64 signals).
const DEFAULT_ACTION: [u64; 4] = [0; 4];
const SIGNAL_SET_SIZE: usize = 8;

/// What to start.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Program {
    /// Tried in turn, as execvp(3) does.
    pub(crate) candidates: Vec<CString>,
    pub(crate) arguments: Vec<CString>,
    pub(crate) environment: Vec<CString>,
    /// The first that can be entered becomes the working directory.
    pub(crate) directories: Vec<CString>,
    pub(crate) umask: u32,
    /// The soft limit of descriptors, if not that of this process.
    pub(crate) open_files: Option<u64>,
}

/// The step of a start that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Step {
    /// fork(2), or what comes before it.
    Fork,
    /// setsid(2).
    Session,
    /// The pseudo-terminal.
    Terminal,
    /// Pipes, dup2(2).
    Descriptors,
    /// chdir(2).
    Directory,
    /// What the parent does with the child before it lets it go on.
    Cgroup,
    /// execve(2).
    Exec,
}

impl Step {
    const ALL: [Self; 7] = [
        Self::Fork,
        Self::Session,
        Self::Terminal,
        Self::Descriptors,
        Self::Directory,
        Self::Cgroup,
        Self::Exec,
    ];

    /// As it is told to the client.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Fork => "fork",
            Self::Session => "session",
            Self::Terminal => "terminal",
            Self::Descriptors => "descriptors",
            Self::Directory => "directory",
            Self::Cgroup => "cgroup",
            Self::Exec => "exec",
        }
    }
}

/// A step that the kernel refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StepError {
    pub(crate) step: Step,
    pub(crate) errno: Errno,
}

impl Step {
    /// For `map_err`.
    pub(crate) fn failed(self) -> impl Fn(Errno) -> StepError {
        move |errno| StepError { step: self, errno }
    }
}

/// Everything that the child touches, made before the fork.
struct Prepared<'a> {
    candidates: Vec<&'a CStr>,
    arguments: Vec<*const libc::c_char>,
    environment: Vec<*const libc::c_char>,
    directories: Vec<&'a CStr>,
    umask: libc::mode_t,
    open_files: libc::rlimit,
    descriptors: [RawFd; 3],
    terminal: bool,
    /// Read before the exec; its end means that there will be none.
    gate: RawFd,
    opener: RawFd,
    status: RawFd,
    marked: RawFd,
}

/// Starts the program with these descriptors as its 0, 1 and 2; with `terminal`, the first is a terminal and becomes the
/// controlling one. Before its exec the child waits until `hold` has done with it what it wants. Blocks until the exec
/// succeeded or failed. After a failure there is no child left.
pub(crate) fn spawn(
    program: &Program,
    descriptors: [BorrowedFd<'_>; 3],
    terminal: bool,
    hold: impl FnOnce(Pid) -> Result<(), Errno>,
) -> Result<Pid, StepError> {
    let [stdin, stdout, stderr] = descriptors;
    let above = [
        above_stdio(stdin)?,
        above_stdio(stdout)?,
        above_stdio(stderr)?,
    ];
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC).map_err(Step::Fork.failed())?;
    let status = above_stdio(writer.as_fd())?;
    drop(writer);
    let (low_gate, low_opener) = pipe2(OFlag::O_CLOEXEC).map_err(Step::Fork.failed())?;
    let (gate, opener) = (
        above_stdio(low_gate.as_fd())?,
        above_stdio(low_opener.as_fd())?,
    );
    // The last copy of the opener is the gate's end.
    drop((low_gate, low_opener));
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(Step::Descriptors.failed())?;
    let prepared = Prepared {
        candidates: program.candidates.iter().map(CString::as_c_str).collect(),
        arguments: pointers(&program.arguments),
        environment: pointers(&program.environment),
        directories: program.directories.iter().map(CString::as_c_str).collect(),
        umask: program.umask as libc::mode_t,
        open_files: libc::rlimit {
            rlim_cur: program.open_files.unwrap_or(soft).min(hard),
            rlim_max: hard,
        },
        descriptors: [&above[0], &above[1], &above[2]].map(AsRawFd::as_raw_fd),
        terminal,
        gate: gate.as_raw_fd(),
        opener: opener.as_raw_fd(),
        status: status.as_raw_fd(),
        marked: RawFd::try_from(soft).unwrap_or(MAX_MARKED).min(MAX_MARKED),
    };
    let pid = fork_into(&prepared).map_err(Step::Fork.failed())?;
    drop(status);
    drop(gate);
    let held = hold(pid).and_then(|()| nix::unistd::write(&opener, b"!").map(drop));
    drop(opener);
    let error = match (held, read_status(reader)) {
        (Ok(()), None) => return Ok(pid),
        // What it failed at before it came to the gate says more than that it was not there.
        (Ok(()), Some(error)) => error,
        (Err(_), Some(error)) if error.step != Step::Cgroup => error,
        (Err(errno), _) => Step::Cgroup.failed()(errno),
    };
    // It called _exit: this does not block for longer than that takes.
    while waitpid(pid, None) == Err(Errno::EINTR) {}
    Err(error)
}

/// A copy of the descriptor beyond 0, 1 and 2, so that no dup2 of the child overwrites what it still needs.
fn above_stdio(descriptor: BorrowedFd<'_>) -> Result<OwnedFd, StepError> {
    let raw =
        fcntl(descriptor, FcntlArg::F_DUPFD_CLOEXEC(3)).map_err(Step::Descriptors.failed())?;
    // SAFETY: fcntl just made this descriptor, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    let strings = strings.iter().map(|string| string.as_ptr());
    strings.chain([ptr::null()]).collect()
}

fn fork_into(prepared: &Prepared<'_>) -> Result<Pid, Errno> {
    // No handler of ours may run in the child before its dispositions are reset.
    let mask = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    // SAFETY: the child branch below makes only async-signal-safe calls on memory made before, and never returns.
    let forked = Errno::result(unsafe { libc::fork() });
    if forked == Ok(0) {
        run_child(prepared);
    }
    mask.thread_set_mask()?;
    forked.map(Pid::from_raw)
}

/// The child: no allocation, no lock, no return.
fn run_child(prepared: &Prepared<'_>) -> ! {
    let (step, errno) = match become_program(prepared) {
        Ok(never) => match never {},
        Err(failed) => failed,
    };
    let [a, b, c, d] = (errno as i32).to_ne_bytes();
    let report = [step as u8, a, b, c, d];
    // SAFETY: the buffer is alive and as long as said; write is async-signal-safe. 5 bytes fit an empty pipe.
    unsafe { libc::write(prepared.status, report.as_ptr().cast(), report.len()) };
    // SAFETY: _exit is async-signal-safe and runs no handlers of the parent's.
    unsafe { libc::_exit(127) }
}

fn become_program(prepared: &Prepared<'_>) -> Result<std::convert::Infallible, (Step, Errno)> {
    if !switches::is_off("signal reset") {
        reset_signals();
    }
    // SAFETY: takes no arguments; async-signal-safe.
    Errno::result(unsafe { libc::setsid() }).map_err(|errno| (Step::Session, errno))?;
    if prepared.terminal {
        // SAFETY: TIOCSCTTY takes an integer; the descriptor is open.
        Errno::result(unsafe { libc::ioctl(prepared.descriptors[0], libc::TIOCSCTTY, 0) })
            .map_err(|errno| (Step::Terminal, errno))?;
    }
    for (target, source) in (0..).zip(prepared.descriptors) {
        // SAFETY: both are plain numbers, all sources are above 2; async-signal-safe.
        Errno::result(unsafe { libc::dup2(source, target) })
            .map_err(|errno| (Step::Descriptors, errno))?;
    }
    close_others_on_exec(prepared.marked);
    // SAFETY: the limit is alive; a system call and nothing more.
    Errno::result(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const prepared.open_files) })
        .map_err(|errno| (Step::Descriptors, errno))?;
    // SAFETY: always succeeds; async-signal-safe.
    unsafe { libc::umask(prepared.umask) };
    enter(&prepared.directories).map_err(|errno| (Step::Directory, errno))?;
    wait_at(prepared.gate, prepared.opener).map_err(|errno| (Step::Cgroup, errno))?;
    Err((Step::Exec, execute(prepared)))
}

/// Ignored signals would stay ignored over an exec, and Rust ignores SIGPIPE. Asked of the kernel itself, because libc
/// refuses 32 and 33, which it keeps for itself, and which somebody before us may have ignored.
fn reset_signals() {
    for signal in 1..=LAST_SIGNAL {
        // SAFETY: the kernel reads one sigaction of its own layout, at most 32 bytes, which are alive and zero:
        // SIG_DFL, no flags, nothing blocked. SIGKILL and SIGSTOP refuse, rightly. A system call and nothing more.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                DEFAULT_ACTION.as_ptr(),
                ptr::null_mut::<libc::c_void>(),
                SIGNAL_SET_SIZE,
            )
        };
    }
    let none = SigSet::empty();
    // SAFETY: the set is alive, the old one is not asked for; async-signal-safe.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, none.as_ref(), ptr::null_mut()) };
}

fn close_others_on_exec(marked: RawFd) {
    // SAFETY: plain numbers; it marks descriptors that only an exec in this process will close.
    let done = unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, CLOSE_RANGE_CLOEXEC) };
    if done == 0 {
        return;
    }
    for descriptor in 3..marked {
        // SAFETY: plain numbers; EBADF is the answer for those that are not open.
        unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}

/// Until the parent opens the gate. That it went away, or decided otherwise, is an error.
fn wait_at(gate: RawFd, opener: RawFd) -> Result<(), Errno> {
    // SAFETY: the child's own copy, which nothing else in it uses; async-signal-safe.
    unsafe { libc::close(opener) };
    let mut byte = 0_u8;
    loop {
        // SAFETY: one byte of live memory; async-signal-safe.
        match Errno::result(unsafe { libc::read(gate, (&raw mut byte).cast(), 1) }) {
            Ok(1) => return Ok(()),
            Ok(_) => return Err(Errno::ECANCELED),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

fn enter(directories: &[&CStr]) -> Result<(), Errno> {
    let mut refused = Errno::ENOENT;
    for directory in directories {
        // SAFETY: the string is alive and ends in NUL; async-signal-safe.
        match Errno::result(unsafe { libc::chdir(directory.as_ptr()) }) {
            Ok(_) => return Ok(()),
            Err(errno) => refused = errno,
        }
    }
    Err(refused)
}

/// As execvp(3) searches, but without its detour through /bin/sh for ENOEXEC.
fn execute(prepared: &Prepared<'_>) -> Errno {
    let (arguments, environment) = (prepared.arguments.as_ptr(), prepared.environment.as_ptr());
    let mut refused = Errno::ENOENT;
    for program in &prepared.candidates {
        // SAFETY: all strings are alive, and both arrays end in a null pointer.
        unsafe { libc::execve(program.as_ptr(), arguments, environment) };
        match Errno::last() {
            Errno::ENOENT | Errno::ENOTDIR => {}
            Errno::EACCES => refused = Errno::EACCES,
            errno => return errno,
        }
    }
    refused
}

/// `None`: the exec succeeded, which closed the pipe.
fn read_status(reader: OwnedFd) -> Option<StepError> {
    let mut report = [0; 5];
    File::from(reader).read_exact(&mut report).ok()?;
    let [step, errno @ ..] = report;
    Some(StepError {
        step: *Step::ALL.get(usize::from(step))?,
        errno: Errno::from_raw(i32::from_ne_bytes(errno)),
    })
}
