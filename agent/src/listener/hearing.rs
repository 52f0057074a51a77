//! What one worker says, heard by a task of its own: its wishes for groups are passed to their keeper, its lines to the log,
//! the rest to the table, and at last that it is gone.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
    time::{Duration, Instant},
};

use nix::errno::Errno;
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::mpsc,
    time::timeout,
};

use super::{
    allowance::Allowance,
    groups::Wisher,
    keeper::Keeper,
    sessions::Sessions,
    worker_log::WorkerLog,
    worker_socket::WorkerSocket,
    workers::{Event, WorkerId},
};
use crate::{
    control::{ControlError, LogLevel, MAX_LOG_TEXT, Order, Report},
    switches,
    sys::{child::kill_process, readiness::watch},
    system::accounts::Account,
};

/// The longest report of a worker that has begun: a line for the log, cut by the worker, and some room.
const MAX_REPORT: usize = 2 * MAX_LOG_TEXT;

/// Reports that one worker gets heard in a second: more than of a thousand programs that start and end in it. A user who has the
/// worker in hand, and more to say, waits, and the listener has its time for others.
const MAX_REPORTS: u32 = 4000;
const REPORTS_INTERVAL: Duration = Duration::from_secs(1);

/// How long an order may wait for a worker that does not read, and how often it is tried.
const ORDER_PATIENCE: Duration = Duration::from_secs(5);
const ORDER_INTERVAL: Duration = Duration::from_millis(5);

/// How long a worker that has closed its control socket may live on.
const END_PATIENCE: Duration = Duration::from_secs(1);

/// How much of what a worker said before its exit is heard after it. A copy of its socket may be another's, who never ends.
const LAST_WORDS: usize = 64;

/// The listener's side of one worker.
pub(super) struct Hearing {
    pub(super) id: WorkerId,
    pub(super) account: Account,
    pub(super) wisher: Wisher,
    pub(super) control: Arc<WorkerSocket>,
    pub(super) pidfd: Arc<OwnedFd>,
    /// Of a worker that this listener started.
    pub(super) child: Option<tokio::process::Child>,
    pub(super) keeper: Option<Keeper>,
    pub(super) sessions: Sessions,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) log: WorkerLog,
    /// Whether it has said how its start went, which it says once.
    pub(super) has_answered: bool,
}

impl Hearing {
    /// Until the worker is gone. One that breaks off its talk, or that does not make sense, is ended: it would go on
    /// uncounted otherwise.
    pub(super) async fn listen(mut self) {
        let exit = self.pidfd.try_clone();
        let exit = exit.and_then(|pidfd| watch(pidfd, Interest::READABLE));
        let told = match &exit {
            Ok(exit) => self.hear(exit).await,
            Err(_) => Err(ControlError::Malformed),
        };
        if let Err(error) = &told {
            if !matches!(error, ControlError::Closed) {
                tracing::warn!(user = self.account.name, %error, "ending a worker");
            }
            // One that ends closes its socket a moment before.
            let ended = exit
                .as_ref()
                .map(|exit| timeout(END_PATIENCE, exit.readable()));
            let ended = match ended {
                Ok(ended) => ended.await.is_ok(),
                Err(_) => false,
            };
            if !ended {
                let _ = kill_process(self.pidfd.as_fd());
            }
        }
        if let Ok(exit) = &exit {
            let _ = exit.readable().await;
        }
        let status = match &mut self.child {
            Some(child) => Some(child.wait().await),
            None => None,
        };
        let _ = self.events.send(Event::Gone(self.id, status)).await;
    }

    /// Until the worker has exited, or its talk ends in an error.
    async fn hear(&mut self, exit: &AsyncFd<OwnedFd>) -> Result<(), ControlError> {
        let mut reports = Allowance::new(MAX_REPORTS, REPORTS_INTERVAL);
        loop {
            let report = tokio::select! {
                biased;
                _ = exit.readable() => break,
                report = self.control.receive(MAX_REPORT) => report?,
            };
            while !switches::is_off("bound on reports")
                && let Err(wait) = reports.take()
            {
                tokio::time::sleep(wait).await;
            }
            self.heard(report).await?;
        }
        for _ in 0..LAST_WORDS {
            let report = timeout(END_PATIENCE, self.control.take(MAX_REPORT)).await;
            let Ok(Ok(Some(report))) = report else { break };
            self.heard(report).await?;
        }
        Ok(())
    }

    async fn heard(&mut self, report: Report) -> Result<(), ControlError> {
        match report {
            Report::Confine {
                ticket,
                child,
                limits,
            } => {
                let group = match &self.keeper {
                    Some(keeper) => keeper.confine(self.wisher, child, limits).await,
                    None => Err(super::groups::GroupError::Absent),
                };
                let group = group.map_err(|error| {
                    let errno = error.errno() as i32;
                    let text = format!("no cgroup for a program: {}", describe(&error));
                    self.log.write(LogLevel::Warn, &text);
                    errno
                });
                deliver(&self.control, &Order::Confined { ticket, group }, None).await
            }
            Report::Kill { group } => {
                if let Some(keeper) = &self.keeper {
                    keeper.kill(self.wisher, group).await;
                }
                Ok(())
            }
            Report::Release { group } => {
                if let Some(keeper) = &self.keeper {
                    keeper.release(self.wisher, group).await;
                }
                Ok(())
            }
            Report::Session { ticket } => {
                let opened = self.sessions.open(&self.account, &self.log);
                let opened = opened.map_err(|error| {
                    let text = format!("no login session: {}", describe(&error));
                    self.log.write(LogLevel::Warn, &text);
                    error.errno() as i32
                });
                let (opening, socket) = match &opened {
                    Ok(socket) => (Ok(()), Some(socket.as_fd())),
                    Err(errno) => (Err(*errno), None),
                };
                deliver(&self.control, &Order::Session { ticket, opening }, socket).await
            }
            Report::Log { level, text } => {
                self.log.write(level, &text);
                Ok(())
            }
            Report::Back { .. } => Err(ControlError::Malformed),
            Report::Ready | Report::Failed { .. } if self.has_answered => {
                Err(ControlError::Malformed)
            }
            report => {
                self.has_answered |= matches!(report, Report::Ready | Report::Failed { .. });
                let _ = self.events.send(Event::Report(self.id, report)).await;
                Ok(())
            }
        }
    }
}

/// Gives an order to a worker, who may not be reading just now.
pub(super) async fn deliver(
    control: &WorkerSocket,
    order: &Order,
    socket: Option<BorrowedFd<'_>>,
) -> Result<(), ControlError> {
    let end = Instant::now() + ORDER_PATIENCE;
    loop {
        match control.send(order, socket) {
            Err(ControlError::Socket(Errno::EAGAIN)) if Instant::now() < end => {
                tokio::time::sleep(ORDER_INTERVAL).await;
            }
            result => return result,
        }
    }
}

/// An error with what caused it.
pub(super) fn describe(error: &dyn std::error::Error) -> String {
    error
        .source()
        .map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}
