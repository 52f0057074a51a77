//! The child that leads a process group: signalled as long as its numbers are its own, reaped once.

use std::sync::{Mutex, PoisonError};

use nix::{errno::Errno, sys::wait::waitpid, unistd::Pid};

use crate::sys::child;

/// A Linux signal number, 1 to 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SignalNumber(i32);

impl SignalNumber {
    pub(crate) const HANG_UP: Self = Self(1);
    pub(crate) const KILL: Self = Self(9);
    pub(crate) const TERMINATE: Self = Self(15);

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
}

/// Until [`Leader::reap`], at least a zombie holds the pid and the group's number, so that no signal can reach a
/// stranger that got the number next. The lock makes that hold between threads; nothing waits under it.
#[derive(Debug)]
pub(crate) struct Leader {
    pid: Pid,
    unreaped: Mutex<bool>,
}

impl Leader {
    pub(super) fn new(pid: Pid) -> Self {
        Self {
            pid,
            unreaped: Mutex::new(true),
        }
    }

    pub(super) fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// ESRCH once it was reaped.
    pub(super) fn signal(&self, signal: SignalNumber, target: Target) -> Result<(), Errno> {
        let unreaped = self.unreaped.lock().unwrap_or_else(PoisonError::into_inner);
        if !*unreaped {
            return Err(Errno::ESRCH);
        }
        let pid = match target {
            Target::Group => -self.pid(),
            Target::Leader => self.pid(),
        };
        child::kill(pid, signal.0)
    }

    /// To the group, where only a group that is gone, or that became another user's, could refuse: nothing to do then.
    pub(super) fn signal_group(&self, signal: SignalNumber) {
        if let Err(error) = self.signal(signal, Target::Group) {
            tracing::debug!(pid = self.pid(), signal = signal.0, %error, "the group took no signal");
        }
    }

    /// Frees the numbers of a leader that has exited.
    pub(super) fn reap(&self) {
        let mut unreaped = self.unreaped.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::take(&mut *unreaped) {
            while waitpid(self.pid, None) == Err(Errno::EINTR) {}
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
            self.signal_group(SignalNumber::KILL);
            self.reap();
        }
    }
}
