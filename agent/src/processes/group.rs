//! The cgroup of one program. It is root's: what changes it is wished for, and the listener decides; what it tells is read.

use std::{io, os::fd::OwnedFd, time::Duration};

use nix::errno::Errno;
use tokio::{
    runtime::Handle,
    sync::{
        mpsc::{self, error::TrySendError},
        oneshot,
    },
    time::{Instant, sleep},
};

pub(crate) use crate::sys::cgroup::{GroupUsage, Limits};
use crate::{
    switches,
    sys::{cgroup, child},
};

use super::leader::SignalNumber;

/// How long the members of a killed group may take to be gone; longer takes who waits for a device.
const KILL_TIME: Duration = Duration::from_secs(2);

/// Between two looks at a killed group.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// What a worker wishes of the listener.
#[derive(Debug)]
pub(crate) enum Wish {
    /// A new group with this child in it; the answer is its name. No answer: there is no listener now.
    Confine {
        child: i32,
        limits: Limits,
        answer: oneshot::Sender<Result<String, Errno>>,
    },
    Kill(String),
    Release(String),
    /// A login session; the answer is the way to the usher in it. No answer: there is no listener now.
    Session {
        answer: oneshot::Sender<Result<OwnedFd, Errno>>,
    },
}

/// Passes wishes on.
#[derive(Clone, Debug)]
pub(crate) struct Wishes(pub(crate) mpsc::Sender<Wish>);

/// Why a child has no group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unconfined {
    /// The guest has no cgroup v2, or there is no listener now.
    Unavailable,
    /// The listener tried.
    Refused(Errno),
}

/// What a program and all that it started are in.
#[derive(Debug)]
pub(crate) struct Group {
    files: cgroup::Group,
    owner: Owner,
}

/// Whose group it is.
#[derive(Debug)]
enum Owner {
    /// The listener's, with that name. Released when it is dropped.
    Listener { name: String, wishes: Wishes },
    /// The login session's. In it are the usher too and PAM's own process, a child of the usher's, which are not the
    /// program's.
    Session { usher: i32, leader: i32 },
}

impl Wishes {
    /// Puts a child that waits for it into a new group. Blocks until the listener has answered.
    pub(super) fn confine(&self, child: i32, limits: Limits) -> Result<Group, Unconfined> {
        if !cgroup::is_available() {
            return Err(Unconfined::Unavailable);
        }
        let (answer, answered) = oneshot::channel();
        let wish = Wish::Confine {
            child,
            limits,
            answer,
        };
        let unavailable = |_| Unconfined::Unavailable;
        self.0
            .blocking_send(wish)
            .map_err(|_| Unconfined::Unavailable)?;
        let name = answered.blocking_recv().map_err(unavailable)?;
        let name = name.map_err(Unconfined::Refused)?;
        let files = cgroup::Group::named(&name).ok_or(Unconfined::Unavailable)?;
        let wishes = self.clone();
        Ok(Group {
            files,
            owner: Owner::Listener { name, wishes },
        })
    }

    /// The way into a new login session of this user's. Blocks until the listener has answered.
    pub(super) fn open_session(&self) -> Result<OwnedFd, Errno> {
        let (answer, answered) = oneshot::channel();
        let unavailable = Errno::ECONNREFUSED;
        self.0
            .blocking_send(Wish::Session { answer })
            .map_err(|_| unavailable)?;
        answered.blocking_recv().map_err(|_| unavailable)?
    }
}

impl Group {
    /// That of a login session in which a program has been started. `None` where the guest has no cgroup v2.
    pub(super) fn of_session(usher: i32, leader: i32) -> Option<Self> {
        let files = cgroup::Group::of_process(leader)?;
        let owner = Owner::Session { usher, leader };
        Some(Self { files, owner })
    }

    /// All in it that came of the program.
    fn members(&self) -> io::Result<Vec<i32>> {
        let mut members = self.files.members()?;
        if let Owner::Session { usher, leader } = self.owner {
            let attends = |pid| pid == usher || pid != leader && child::parent(pid) == Some(usher);
            members.retain(|&pid| !attends(pid));
        }
        Ok(members)
    }

    pub(super) fn usage(&self) -> GroupUsage {
        self.files.usage()
    }

    /// Whether anything lives in it, or may. Once nothing does, nothing will: only who is in it could start something there.
    pub(super) fn is_populated(&self) -> bool {
        match self.owner {
            Owner::Listener { .. } => self.files.is_populated(),
            Owner::Session { .. } => match self.members() {
                Ok(members) => !members.is_empty(),
                Err(error) => !cgroup::is_gone(&error),
            },
        }
    }

    /// SIGKILL to all in it: through the listener, who can reach also what runs as somebody else. A full queue has a
    /// worker behind it that kills and releases as fast as it can; the wish is then this user's own to fulfil.
    pub(super) fn kill(&self) {
        if switches::is_off("group kill") {
            return;
        }
        match &self.owner {
            Owner::Listener { name, wishes } => {
                if wishes.0.try_send(Wish::Kill(name.clone())).is_err() {
                    kill_members(name);
                }
            }
            Owner::Session { .. } => kill_all(|| self.members().unwrap_or_default()),
        }
    }

    /// Any signal to all in it, by this user's own right.
    pub(super) fn signal(&self, signal: SignalNumber) -> Result<(), Errno> {
        if signal == SignalNumber::KILL {
            self.kill();
            return Ok(());
        }
        let members = self.members().map_err(|_| Errno::ESRCH)?;
        let mut result = if members.is_empty() {
            Err(Errno::ESRCH)
        } else {
            Ok(())
        };
        for pid in members {
            match child::kill(pid, signal.number()) {
                // It ended meanwhile.
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(errno) => result = Err(errno),
            }
        }
        result
    }

    /// Waits until nothing lives in a group that was killed: how many survive that.
    pub(super) async fn survivors(&self) -> u32 {
        let end = Instant::now() + KILL_TIME;
        while self.is_populated() {
            if Instant::now() >= end {
                let members = self.members().map_or(1, |members| members.len());
                return u32::try_from(members).unwrap_or(u32::MAX);
            }
            sleep(LOOK_INTERVAL).await;
        }
        0
    }
}

/// SIGKILL to all in a group by this user's own right, for as long as it helps: there is no listener.
pub(crate) fn kill_members(name: &str) {
    if let Some(group) = cgroup::Group::named(name) {
        kill_all(|| group.members().unwrap_or_default());
    }
}

fn kill_all(members: impl Fn() -> Vec<i32>) {
    const ROUNDS: usize = 100;
    for _ in 0..ROUNDS {
        let members = members();
        let mut killed = members.iter().filter(|pid| child::kill(**pid, 9).is_ok());
        if killed.by_ref().count() == 0 {
            return;
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let Owner::Listener { name, wishes } = &mut self.owner else {
            return;
        };
        let wish = Wish::Release(std::mem::take(name));
        // When many programs end at once there is no room for all of their wishes; each waits for some. No runtime, no worker.
        if let Err(TrySendError::Full(wish)) = wishes.0.try_send(wish)
            && let Ok(runtime) = Handle::try_current()
        {
            let wishes = wishes.0.clone();
            runtime.spawn(async move { wishes.send(wish).await });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_group_is_released_however_many_end_at_once() {
        let (sender, mut wishes) = mpsc::channel(1);
        let names = ["u1-p1", "u1-p2", "u1-p3"];
        let groups = names.map(|name| Group {
            files: cgroup::Group::named(name).unwrap(),
            owner: Owner::Listener {
                name: name.into(),
                wishes: Wishes(sender.clone()),
            },
        });
        drop(groups);
        let mut released = Vec::new();
        for _ in names {
            match wishes.recv().await {
                Some(Wish::Release(name)) => released.push(name),
                other => panic!("{other:?}"),
            }
        }
        released.sort();
        assert_eq!(released, names);
    }
}
