//! Wishes of programs' owners, on their way to the listener, and its answers on their way back.

use std::{collections::HashMap, os::fd::OwnedFd, time::Duration};

use nix::errno::Errno;
use tokio::sync::{mpsc, oneshot};

use super::link::Link;
use crate::{
    control::{ControlError, Report},
    processes::{Wish, kill_members},
};

/// Until a listener that had no room for a wish is tried again.
const PAUSE: Duration = Duration::from_millis(2);

/// The children that wait for their cgroup, by ticket.
#[derive(Debug, Default)]
pub(super) struct Confining {
    last: u64,
    /// For which the listener had no room.
    stuck: Option<Wish>,
    waiting: HashMap<u64, oneshot::Sender<Result<String, Errno>>>,
    /// The programs that wait for their login session.
    outside: HashMap<u64, oneshot::Sender<Result<OwnedFd, Errno>>>,
}

impl Confining {
    /// The next wish to pass on. Cancel-safe.
    pub(super) async fn next(&mut self, wishes: &mut mpsc::Receiver<Wish>) -> Wish {
        if self.stuck.is_some() {
            tokio::time::sleep(PAUSE).await;
        }
        match self.stuck.take() {
            Some(wish) => wish,
            None => match wishes.recv().await {
                Some(wish) => wish,
                // The registry holds a sender.
                None => std::future::pending().await,
            },
        }
    }

    /// Without a listener, whoever waits for an answer is told so by the end of its channel.
    pub(super) fn pass_on(&mut self, wish: Wish, link: &Link) {
        let is_full = |sent: &Result<(), ControlError>| {
            matches!(sent, Err(ControlError::Socket(Errno::EAGAIN)))
        };
        match wish {
            Wish::Confine {
                child,
                limits,
                answer,
            } => {
                self.last += 1;
                let ticket = self.last;
                let report = Report::Confine {
                    ticket,
                    child,
                    limits,
                };
                let sent = link.send(&report);
                if is_full(&sent) {
                    self.stuck = Some(Wish::Confine {
                        child,
                        limits,
                        answer,
                    });
                } else if sent.is_ok() {
                    self.waiting.insert(ticket, answer);
                }
            }
            Wish::Session { answer } => {
                self.last += 1;
                let ticket = self.last;
                let sent = link.send(&Report::Session { ticket });
                if is_full(&sent) {
                    self.stuck = Some(Wish::Session { answer });
                } else if sent.is_ok() {
                    self.outside.insert(ticket, answer);
                }
            }
            Wish::Kill(group) => {
                let report = Report::Kill {
                    group: group.clone(),
                };
                let sent = link.send(&report);
                if is_full(&sent) {
                    self.stuck = Some(Wish::Kill(group));
                } else if sent.is_err() {
                    kill_members(&group);
                }
            }
            Wish::Release(group) => {
                let report = Report::Release {
                    group: group.clone(),
                };
                // Without a listener: the next one removes what is empty.
                if is_full(&link.send(&report)) {
                    self.stuck = Some(Wish::Release(group));
                }
            }
        }
    }

    /// There is no listener any more that could answer.
    pub(super) fn give_up(&mut self) {
        self.waiting.clear();
        self.outside.clear();
    }

    /// The way into a login session, or why there is none.
    pub(super) fn open(&mut self, ticket: u64, opening: Result<(), i32>, socket: Option<OwnedFd>) {
        if let Some(answer) = self.outside.remove(&ticket) {
            // The kernel had no descriptor for it.
            let socket = socket.ok_or(Errno::EMFILE);
            let _ = answer.send(opening.map_err(Errno::from_raw).and(socket));
        }
    }

    pub(super) fn answer(&mut self, ticket: u64, group: Result<String, i32>) {
        if let Some(answer) = self.waiting.remove(&ticket) {
            // Who waited may have given up.
            let _ = answer.send(group.map_err(Errno::from_raw));
        }
    }
}
