//! What comes after the leader's exit: the rest of its output, the word to the client, and its leftovers.

use std::{os::fd::OwnedFd, sync::Arc};

use tokio::{
    io::unix::AsyncFd,
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, sleep_until},
};

use super::{
    client::{Event, Exit},
    leader::{Leader, SignalNumber},
    output::drop_rest,
    record::Record,
};

/// An output as its task leaves it: `Some` where other processes hold it open.
pub(super) type Delivery = JoinHandle<Option<AsyncFd<OwnedFd>>>;

/// A program whose leader has exited and is not reaped yet.
pub(super) struct Ending {
    pub(super) record: Arc<Record>,
    pub(super) outputs: Vec<Delivery>,
    pub(super) client: mpsc::Sender<Event>,
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
            client,
            mut kill_at,
            keep_leftovers,
        } = self;
        let leader = &record.leader;
        let grace_pending = kill_at.is_some();
        let tell = async {
            let rest = collect(outputs).await;
            if !grace_pending {
                leader.reap();
            }
            if let Some(mut exit) = exit {
                exit.output_held = !rest.is_empty();
                record.ended(exit);
                // A client that vanished needs no answer.
                let _ = client.send(Event::Exited(exit)).await;
            }
            // The end of the client's stream.
            drop(client);
            rest
        };
        let rest = with_grace(leader, &mut kill_at, tell).await;
        if let Some(at) = kill_at {
            sleep_until(at).await;
            leader.signal_group(SignalNumber::KILL);
        }
        // Not before: until now the group's number had to stay the group's.
        leader.reap();
        if keep_leftovers {
            drop_all(rest).await;
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
    leader: &Leader,
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
                leader.signal_group(SignalNumber::KILL);
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
