//! What comes after the leader's exit: the rest of its output, the word to the client, and its leftovers.

use std::{
    os::fd::OwnedFd,
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::{
    io::unix::AsyncFd,
    task::JoinHandle,
    time::{Instant, sleep, sleep_until},
};

use crate::switches;

use super::{client::Exit, output::drop_rest, record::Record, sink::Sink};

/// When a group with leftovers is looked at again, at first and at last.
const FIRST_LOOK: Duration = Duration::from_millis(100);
const LATE_LOOKS: Duration = Duration::from_secs(10);

/// An output as its task leaves it: `Some` where other processes hold it open.
pub(super) type Delivery = JoinHandle<Option<AsyncFd<OwnedFd>>>;

/// A program whose leader has exited and is not reaped yet.
pub(super) struct Ending {
    pub(super) record: Arc<Record>,
    pub(super) outputs: Vec<Delivery>,
    pub(super) sink: Sink,
    /// When the group, which was asked to end, is killed.
    pub(super) kill_at: Option<Instant>,
    pub(super) keep_leftovers: bool,
}

impl Ending {
    /// Tells the exit, if it is known, behind all output. Ends when nothing of the program is left to look after.
    pub(super) async fn end(self, exit: Option<Exit>) {
        let Self {
            record,
            outputs,
            sink,
            mut kill_at,
            keep_leftovers,
        } = self;
        let leader = &record.leader;
        let grace_pending = kill_at.is_some();
        let tell = async {
            let rest = collect(outputs).await;
            let survivors = match record.group() {
                Some(group) if !keep_leftovers => group.survivors().await,
                _ => 0,
            };
            if !grace_pending {
                leader.reap();
            }
            let exit = exit.map(|exit| Exit {
                output_held: !rest.is_empty(),
                survivors,
                ..exit
            });
            if let Some(exit) = exit {
                record.ended(exit);
            }
            switches::point("run: collected");
            sink.end(exit).await;
            rest
        };
        let rest = with_grace(&record, &mut kill_at, tell).await;
        if let Some(at) = kill_at {
            sleep_until(at).await;
            record.kill();
            if let Some(group) = record.group() {
                group.survivors().await;
            }
        }
        // Not before: until now the group's number had to stay the group's.
        leader.reap();
        if keep_leftovers {
            drop_all(rest).await;
        }
        if !record.release_empty_group() {
            tokio::spawn(release_when_empty(Arc::downgrade(&record)));
        }
    }
}

/// Of what a leader left behind, the last may end at any time. Looked for less and less often, until the program is forgotten:
/// that gives its group away too. No reason for a worker to stay, whose end does as well.
async fn release_when_empty(record: Weak<Record>) {
    let mut pause = FIRST_LOOK;
    loop {
        sleep(pause).await;
        pause = (2 * pause).min(LATE_LOOKS);
        match record.upgrade() {
            Some(record) if !record.release_empty_group() => {}
            _ => return,
        }
    }
}

/// Never, where there is no such time.
pub(super) async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Does the work, and kills the group meanwhile if its grace passes.
async fn with_grace<T>(
    record: &Record,
    kill_at: &mut Option<Instant>,
    work: impl Future<Output = T>,
) -> T {
    tokio::pin!(work);
    loop {
        tokio::select! {
            biased;
            result = &mut work => return result,
            () = at(*kill_at) => {
                *kill_at = None;
                record.kill();
            }
        }
    }
}

async fn collect(outputs: Vec<Delivery>) -> Vec<AsyncFd<OwnedFd>> {
    let mut rest = Vec::new();
    for output in outputs {
        // A task that panicked holds nothing any more.
        rest.extend(output.await.ok().flatten());
    }
    rest
}

/// Both at once: a leftover may write to the one while it holds the other.
async fn drop_all(rest: Vec<AsyncFd<OwnedFd>>) {
    let tasks: Vec<_> = rest
        .into_iter()
        .map(|source| tokio::spawn(drop_rest(source)))
        .collect();
    for task in tasks {
        let _ = task.await;
    }
}
