//! Freezing the guest's file systems for a snapshot, and thawing them. What is frozen is asked of the kernel, never
//! remembered here: the worker that froze may have ended by the time somebody thaws.
//!
//! ```text
//! worker ──exec──► freezer (system::freezer): locks, freezes, answers ──► thaws after the limit, by itself
//!                     ▲
//! any worker of root's: FITHAW everywhere, then SIGTERM to whoever holds the lock
//! ```
//!
//! The freezer is a process of its own, so that neither a client nor a worker that vanishes leaves the guest frozen. Only
//! its own SIGKILL, which is root's to send, does; `thaw` then still helps.

use std::{
    fs::{File, OpenOptions},
    io::Read,
    os::{
        fd::AsFd,
        unix::{ffi::OsStringExt, fs::OpenOptionsExt, process::CommandExt},
    },
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::Signal,
    unistd::Pid,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::mounts::{self, MountError};
use crate::sys::{child, errno_of, freeze};

/// Whose write lock is held by the freezer for as long as it lives. In a directory of root's, so that nobody else holds it.
const LOCK: &str = "/run/guestline-freeze.lock";

/// The freezer's answer: some mount points and an errno.
const MAX_ANSWER: u64 = 1024 * 1024;

/// How many milliseconds a freezer may take to thaw and go: it does nothing else.
const DISMISSAL: u16 = 10_000;

/// What was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Operation {
    Lock,
    Open,
    Freeze,
    Thaw,
}

impl Operation {
    /// As the client is told, in lower case.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Lock => "lock",
            Self::Open => "open",
            Self::Freeze => "freeze",
            Self::Thaw => "thaw",
        }
    }
}

/// Why the file systems were not frozen, or not thawed.
#[derive(Debug, Error, Serialize, Deserialize)]
pub(crate) enum FreezeError {
    #[error("the guest's file systems are frozen already")]
    Busy,
    #[error("no file system of this guest stands on a block device and can freeze")]
    Nothing,
    #[error("no file system is frozen")]
    NotFrozen,
    #[error(
        "the time was over, or Thaw was called, before all file systems were frozen; they are thawed"
    )]
    Overtaken,
    #[error("{} failed", operation.name())]
    Refused {
        operation: Operation,
        path: Vec<u8>,
        errno: i32,
    },
    #[error("the process that freezes could not be started")]
    Start { errno: i32 },
    #[error("the process that freezes was ended; call Thaw")]
    Lost,
}

impl FreezeError {
    pub(super) fn refused(operation: Operation, path: impl Into<Vec<u8>>, errno: Errno) -> Self {
        Self::Refused {
            operation,
            path: path.into(),
            errno: errno as i32,
        }
    }
}

impl From<MountError> for FreezeError {
    fn from(error: MountError) -> Self {
        let path = error.path.into_os_string().into_vec();
        Self::refused(Operation::Open, path, error.errno)
    }
}

/// The freezer's one message to the worker that started it.
pub(super) type Answer = Result<Vec<Vec<u8>>, FreezeError>;

/// Freezes all file systems that can, for at most `limit`, and gives their mount points. All or none: after an error
/// nothing is frozen that was not before. Blocks while the kernel writes out what is dirty, at most until `limit`.
pub(crate) fn freeze(limit: Duration) -> Answer {
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("guestline-agent")
        .args(["freezer", &limit.as_millis().to_string()])
        .env_clear()
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut freezer = command.spawn().map_err(|error| FreezeError::Start {
        errno: errno_of(&error) as i32,
    })?;
    let stdout = freezer.stdout.take();
    // It lives on after its answer. Where no thread is to be had, it stays a zombie as long as this worker lives.
    let _ = thread::Builder::new().spawn(move || freezer.wait());
    let mut answer = Vec::new();
    let read = stdout.map(|stdout| stdout.take(MAX_ANSWER).read_to_end(&mut answer));
    match read {
        Some(Ok(_)) => postcard::from_bytes(&answer).unwrap_or(Err(FreezeError::Lost)),
        Some(Err(_)) | None => Err(FreezeError::Lost),
    }
}

/// Thaws every file system that is frozen, whoever froze it, gives their mount points, and dismisses the freezer.
pub(crate) fn thaw() -> Answer {
    let mut thawed = Vec::new();
    let mut refused = None;
    for mounted in mounts::on_block_devices()? {
        let point = mounted.point.into_os_string().into_vec();
        match freeze::thaw(&mounted.file) {
            Ok(()) => thawed.push(point),
            // Not frozen, or of a kind that cannot be.
            Err(Errno::EINVAL | Errno::EOPNOTSUPP) => {}
            // The others must not stay frozen for that.
            Err(errno) => {
                refused.get_or_insert(FreezeError::refused(Operation::Thaw, point, errno));
            }
        }
    }
    if let Some(refused) = refused {
        return Err(refused);
    }
    if dismiss_freezer()? || !thawed.is_empty() {
        Ok(thawed)
    } else {
        Err(FreezeError::NotFrozen)
    }
}

/// The lock is the file's from then on, until it is closed. `None`: somebody else has it.
pub(super) fn lock() -> Result<Option<File>, FreezeError> {
    let refused = |errno| FreezeError::refused(Operation::Lock, LOCK, errno);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(OFlag::O_NOFOLLOW.bits())
        .open(LOCK)
        .map_err(|error| refused(errno_of(&error)))?;
    match fcntl(&file, FcntlArg::F_SETLK(&whole_file())) {
        Ok(_) => Ok(Some(file)),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(None),
        Err(errno) => Err(refused(errno)),
    }
}

fn whole_file() -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

/// The process that has the lock: a lock of fcntl(2)'s first kind, since the others do not say whose they are.
fn holder(file: &File) -> Result<Option<Pid>, Errno> {
    let mut lock = whole_file();
    fcntl(file, FcntlArg::F_GETLK(&mut lock))?;
    let held = lock.l_type != libc::F_UNLCK as libc::c_short;
    Ok(held.then(|| Pid::from_raw(lock.l_pid)))
}

/// Whether there was one.
fn dismiss_freezer() -> Result<bool, FreezeError> {
    let opened = OpenOptions::new().read(true).write(true).open(LOCK);
    let dismissed = match opened.map_err(|error| errno_of(&error)) {
        Ok(file) => dismiss(&file),
        Err(Errno::ENOENT) => Ok(false),
        Err(errno) => Err(errno),
    };
    dismissed.map_err(|errno| FreezeError::refused(Operation::Lock, LOCK, errno))
}

fn dismiss(lock: &File) -> Result<bool, Errno> {
    let Some(pid) = holder(lock)? else {
        return Ok(false);
    };
    let freezer = match child::open_pidfd(pid) {
        Err(Errno::ESRCH) => return Ok(false),
        opened => opened?,
    };
    // The descriptor is the freezer's only if that number has not gone to somebody else meanwhile.
    if holder(lock)? != Some(pid) {
        return Ok(false);
    }
    child::signal(freezer.as_fd(), Signal::SIGTERM)?;
    // One that the kernel holds in a FIFREEZE thaws when it is let go.
    let mut watched = [PollFd::new(freezer.as_fd(), PollFlags::POLLIN)];
    while poll(&mut watched, PollTimeout::from(DISMISSAL)) == Err(Errno::EINTR) {}
    Ok(true)
}
