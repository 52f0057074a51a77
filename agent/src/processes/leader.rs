//! The program that leads a process group: signalled as long as its numbers are its own, reaped once. It is a child of the
//! worker's, or in a login session one of the usher's, who tells its end and keeps it until it is to be reaped.

use std::{
    io,
    net::Shutdown,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    sync::{Mutex, PoisonError},
};

use nix::{
    errno::Errno,
    sys::{
        socket::{MsgFlags, recv},
        wait::waitpid,
    },
    unistd::Pid,
};
use tokio::io::{Interest, unix::AsyncFd};

use crate::{
    session::{Ended, ended},
    sys::{
        child::{self, Status, Usage, open_pidfd, peek_exit},
        descriptors::set_nonblocking,
        readiness::watch,
    },
};

/// More than what an usher says of an end.
const MAX_END: usize = 256;

/// A Linux signal number, 1 to 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SignalNumber(i32);

impl SignalNumber {
    pub(crate) const HANG_UP: Self = Self(1);
    pub(crate) const KILL: Self = Self(9);
    pub(crate) const TERMINATE: Self = Self(15);

    pub(super) fn number(self) -> i32 {
        self.0
    }

    /// `None` where Linux has no such signal.
    pub(crate) fn new(number: i32) -> Option<Self> {
        (1..=64).contains(&number).then_some(Self(number))
    }
}

/// Who gets a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Group,
    Leader,
    /// All in its cgroup.
    All,
}

/// Until [`Leader::reap`], at least a zombie holds the pid and the group's number, so that no signal can reach a
/// stranger that got the number next. The lock makes that hold between threads; nothing waits under it.
#[derive(Debug)]
pub(crate) struct Leader {
    pid: Pid,
    unreaped: Mutex<bool>,
    /// The way to its parent, where that is an usher.
    usher: Option<UnixStream>,
}

impl Leader {
    /// A child of this process.
    pub(super) fn child(pid: Pid) -> Self {
        Self {
            pid,
            unreaped: Mutex::new(true),
            usher: None,
        }
    }

    /// A child of an usher, who is at the other end.
    pub(super) fn in_session(pid: i32, usher: UnixStream) -> Self {
        Self {
            pid: Pid::from_raw(pid),
            unreaped: Mutex::new(true),
            usher: Some(usher),
        }
    }

    /// Begins to wait for its end.
    pub(super) fn watch_exit(&self) -> io::Result<ExitWatch> {
        match &self.usher {
            None => {
                let pidfd = watch(open_pidfd(self.pid)?, Interest::READABLE)?;
                Ok(ExitWatch::OfChild(pidfd, self.pid))
            }
            Some(usher) => {
                let usher = OwnedFd::from(usher.try_clone()?);
                set_nonblocking(&usher)?;
                Ok(ExitWatch::InSession(watch(usher, Interest::READABLE)?))
            }
        }
    }

    pub(super) fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// To the leader alone. ESRCH once it was reaped.
    pub(super) fn signal(&self, signal: SignalNumber) -> Result<(), Errno> {
        self.kill(self.pid(), signal)
    }

    /// To its process group. ESRCH once the leader was reaped.
    pub(super) fn signal_group(&self, signal: SignalNumber) -> Result<(), Errno> {
        self.kill(-self.pid(), signal)
    }

    fn kill(&self, pid: i32, signal: SignalNumber) -> Result<(), Errno> {
        let unreaped = self.unreaped.lock().unwrap_or_else(PoisonError::into_inner);
        if !*unreaped {
            return Err(Errno::ESRCH);
        }
        child::kill(pid, signal.0)
    }

    /// Frees the numbers of a leader that has exited.
    pub(super) fn reap(&self) {
        let mut unreaped = self.unreaped.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::take(&mut *unreaped) {
            match &self.usher {
                None => while waitpid(self.pid, None) == Err(Errno::EINTR) {},
                // It reaps when it hears the end.
                Some(usher) => drop(usher.shutdown(Shutdown::Both)),
            }
        }
    }
}

/// Tells of a leader's end.
#[derive(Debug)]
pub(super) enum ExitWatch {
    OfChild(AsyncFd<OwnedFd>, Pid),
    InSession(AsyncFd<OwnedFd>),
}

impl ExitWatch {
    /// How it ended, and what it used. It is still to be reaped. An error: nobody knows. Cancel-safe.
    pub(super) async fn exited(&self) -> io::Result<(Status, Usage)> {
        let not_yet = || io::Error::from(io::ErrorKind::WouldBlock);
        match self {
            Self::OfChild(pidfd, pid) => {
                let peek = |_: &OwnedFd| peek_exit(*pid)?.ok_or_else(not_yet);
                pidfd.async_io(Interest::READABLE, peek).await
            }
            Self::InSession(usher) => {
                let peek = |usher: &OwnedFd| {
                    let mut bytes = [0; MAX_END];
                    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
                    match recv(usher.as_raw_fd(), &mut bytes, flags)? {
                        0 => Err(io::ErrorKind::UnexpectedEof.into()),
                        length => ended(&bytes[..length]).unwrap_or_else(|| Err(not_yet())),
                    }
                };
                let Ended { status, usage } = usher.async_io(Interest::READABLE, peek).await?;
                Ok((status, usage))
            }
        }
    }
}

impl Drop for Leader {
    /// Its task ended early (the runtime stops, or a start failed half-way): no orphan, no zombie.
    fn drop(&mut self) {
        if *self
            .unreaped
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
        {
            let _ = self.signal_group(SignalNumber::KILL);
            self.reap();
        }
    }
}
