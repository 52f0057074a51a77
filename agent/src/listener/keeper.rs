//! The task that owns the groups. A write to cgroupfs may wait for a grace period of the kernel (cgroup.procs does), which the
//! listener's one thread must not: each wish is fulfilled on a thread beside it, one after another.

use std::time::Duration;

use tokio::{
    sync::{mpsc, oneshot},
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};

use super::groups::{GroupError, Groups, Killing, Wisher};
use crate::sys::cgroup::Limits;

/// How often the groups are looked at that were released while something still lived in them.
const SWEEP_INTERVAL: Duration = Duration::from_secs(2);

/// The way to the groups. At most one wish waits in the queue, and each worker has at most one in hand: whoever wishes a lot
/// waits behind everybody else each time.
#[derive(Clone, Debug)]
pub(super) struct Keeper(mpsc::Sender<Job>);

#[derive(Debug)]
enum Job {
    Confine {
        wisher: Wisher,
        child: i32,
        limits: Limits,
        answer: oneshot::Sender<Result<String, GroupError>>,
    },
    Kill {
        wisher: Wisher,
        group: String,
        answer: oneshot::Sender<Option<Killing>>,
    },
    GoOn {
        killing: Killing,
        answer: oneshot::Sender<Option<Killing>>,
    },
    Release(Wisher, String),
    ReleaseAll(u32),
    Sweep,
}

impl Keeper {
    /// `None` where the guest has no cgroup v2 that we may use.
    pub(super) fn start() -> Option<Self> {
        let groups = Groups::open()?;
        let (jobs, queue) = mpsc::channel(1);
        tokio::spawn(keep(groups, queue));
        Some(Self(jobs))
    }

    /// Puts a worker's child into a new group: its name, or an errno.
    pub(super) async fn confine(
        &self,
        wisher: Wisher,
        child: i32,
        limits: Limits,
    ) -> Result<String, GroupError> {
        let (answer, answered) = oneshot::channel();
        let job = Job::Confine {
            wisher,
            child,
            limits,
            answer,
        };
        self.wish(job).await;
        answered.await.unwrap_or(Err(GroupError::Unkept))
    }

    /// Until it is done. A kernel that kills one by one takes long over a large group: each step waits behind others' wishes.
    pub(super) async fn kill(&self, wisher: Wisher, group: String) {
        let (answer, mut answered) = oneshot::channel();
        let job = Job::Kill {
            wisher,
            group,
            answer,
        };
        self.wish(job).await;
        while let Ok(Some(killing)) = answered.await {
            let (answer, next) = oneshot::channel();
            self.wish(Job::GoOn { killing, answer }).await;
            answered = next;
        }
    }

    pub(super) async fn release(&self, wisher: Wisher, group: String) {
        self.wish(Job::Release(wisher, group)).await;
    }

    /// The last worker of a user is gone.
    pub(super) async fn release_all(&self, uid: u32) {
        self.wish(Job::ReleaseAll(uid)).await;
    }

    async fn wish(&self, job: Job) {
        // The task ends with the process, or by a panic, which its thread has told.
        let _ = self.0.send(job).await;
    }
}

async fn keep(mut groups: Groups, mut queue: mpsc::Receiver<Job>) {
    let mut sweeping = interval(SWEEP_INTERVAL);
    sweeping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let job = tokio::select! {
            job = queue.recv() => match job {
                Some(job) => job,
                None => return,
            },
            _ = sweeping.tick(), if groups.has_leftovers() => Job::Sweep,
        };
        let done = spawn_blocking(move || {
            groups.fulfil(job);
            groups
        });
        match done.await {
            Ok(kept) => groups = kept,
            Err(_) => return,
        }
    }
}

impl Groups {
    fn fulfil(&mut self, job: Job) {
        match job {
            Job::Confine {
                wisher,
                child,
                limits,
                answer,
            } => {
                // Who waited may be gone: the group is empty then, and released with the worker.
                let _ = answer.send(self.confine(wisher, child, limits));
            }
            // Whoever wished it waits for the answer: see `Keeper::kill`.
            Job::Kill {
                wisher,
                group,
                answer,
            } => drop(answer.send(self.kill(wisher, &group))),
            Job::GoOn { killing, answer } => drop(answer.send(killing.go_on())),
            Job::Release(wisher, group) => self.release(wisher, &group),
            Job::ReleaseAll(uid) => self.release_all(uid),
            Job::Sweep => self.sweep(),
        }
    }
}
