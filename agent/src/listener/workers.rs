//! The table of workers: one per user, started on first use, replaced when the user's ids or groups change.
//!
//! ```text
//!            Placement                  Ready                    Idle(n), n = sockets handed over
//!  (none) ───────────────► Starting ───────────► Serving ─────────────────────────────► Retire, (none)
//!                          sockets wait            │ account changed: Drain, (none)
//!                             │ Failed             ▼
//!                             ▼                 goes on with what it has, and ends
//!                          refused
//! ```
//!
//! One task owns the table. It decides alone when a worker ends: a worker that says `Idle` has said how many sockets it
//! got, and if one more is on its way the numbers differ and the word is passed over. Handing a socket to a worker that
//! is ending is so impossible.

use std::{
    collections::HashMap,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use guestline_proto::hello::{RefusalReason, Reply};
use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, SockFlag, SockType, socketpair},
};
use thiserror::Error;
use tokio::sync::mpsc;

use super::{account_watch, opening};
use crate::{
    control::{ControlError, ControlSocket, LogLevel, MAX_LOG_TEXT, Order, Report, Services},
    system::accounts::{Account, Accounts},
};

/// Events that wait for the table's task; more make their senders wait.
const EVENT_QUEUE: usize = 64;

/// Workers at one time: some 5 MiB each.
const MAX_WORKERS: usize = 512;

/// Sockets that wait for one worker to start.
const MAX_WAITING: usize = 128;

/// The shortest time between two lines that one worker gets into the agent's log.
const LOG_INTERVAL: Duration = Duration::from_millis(100);

/// What a worker is told at its start besides its account.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WorkerSettings {
    pub(crate) services: Services,
    pub(crate) idle_timeout: Duration,
}

/// A socket for a user.
#[derive(Debug)]
pub(super) struct Placement {
    pub(super) account: Account,
    pub(super) socket: OwnedFd,
    /// Whether the peer said hello and waits for its answer.
    pub(super) greet: bool,
}

/// The way to the table.
#[derive(Clone, Debug)]
pub(super) struct Workers(mpsc::Sender<Event>);

impl Workers {
    /// Starts the table's task.
    pub(super) fn spawn(settings: WorkerSettings) -> io::Result<Self> {
        let (events, receiver) = mpsc::channel(EVENT_QUEUE);
        let table = Table {
            settings,
            events: events.clone(),
            current: HashMap::new(),
            workers: HashMap::new(),
            last: 0,
        };
        tokio::spawn(table.run(receiver));
        let changed = events.clone();
        tokio::spawn(account_watch::watch(move || {
            // A full queue holds a change or a connection, and each connection's account is looked up afresh.
            let _ = changed.try_send(Event::AccountsChanged);
        })?);
        Ok(Self(events))
    }

    /// Gives a socket to its user's worker, or refuses it.
    pub(super) async fn place(&self, placement: Placement) {
        // The table's task ends with the process alone.
        let _ = self.0.send(Event::Place(placement)).await;
    }
}

#[derive(Debug)]
enum Event {
    Place(Placement),
    Report(WorkerId, Report),
    Gone(WorkerId, ControlError),
    Exited(WorkerId, io::Result<ExitStatus>),
    AccountsChanged,
}

type WorkerId = u64;

struct Table {
    settings: WorkerSettings,
    events: mpsc::Sender<Event>,
    /// The worker that takes a user's new connections.
    current: HashMap<String, WorkerId>,
    /// All that are connected, also those that only finish what they have.
    workers: HashMap<WorkerId, Worker>,
    last: WorkerId,
}

struct Worker {
    account: Account,
    control: Arc<ControlSocket>,
    /// Sockets for it until it is ready; `None` from then on.
    waiting: Option<Vec<Placement>>,
    handed: u64,
    last_line: Option<Instant>,
}

#[derive(Debug, Error)]
enum StartError {
    #[error("{MAX_WORKERS} users have workers already; try again when some have gone")]
    TooMany,
    #[error("cannot make a control socket")]
    Socket(#[source] Errno),
    #[error("cannot execute the agent again")]
    Execute(#[source] io::Error),
    #[error("cannot tell the worker who it is")]
    Control(#[from] ControlError),
}

impl Table {
    async fn run(mut self, mut events: mpsc::Receiver<Event>) {
        while let Some(event) = events.recv().await {
            match event {
                Event::Place(placement) => self.place(placement),
                Event::Report(id, report) => self.heard(id, report),
                Event::Gone(id, error) => self.gone(id, &error),
                Event::Exited(id, status) => self.exited(id, status),
                Event::AccountsChanged => self.drain_changed(),
            }
        }
    }

    fn place(&mut self, placement: Placement) {
        let name = &placement.account.name;
        let current = self.current.get(name).copied();
        if let Some(id) = current
            && self
                .workers
                .get(&id)
                .is_some_and(|worker| worker.account != placement.account)
        {
            self.drain(id);
        }
        let id = match self.current.get(name) {
            Some(&id) => id,
            None => match self.start(&placement.account) {
                Ok(id) => id,
                Err(error) => return refuse(placement, RefusalReason::Busy, &describe(&error)),
            },
        };
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        match &mut worker.waiting {
            Some(waiting) if waiting.len() < MAX_WAITING => waiting.push(placement),
            Some(_) => refuse(
                placement,
                RefusalReason::Busy,
                "too many connections wait for this user's worker",
            ),
            None => worker.hand_over(placement),
        }
    }

    /// Executes the agent's own binary with one end of a control socket as its descriptor 0, and nothing else of ours.
    fn start(&mut self, account: &Account) -> Result<WorkerId, StartError> {
        if self.workers.len() >= MAX_WORKERS {
            return Err(StartError::TooMany);
        }
        let flags = SockFlag::SOCK_CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)
            .map_err(StartError::Socket)?;
        let mut command = std::process::Command::new("/proc/self/exe");
        command
            .arg0("guestline-agent")
            .args(["worker", "--", &account.name]);
        command.env_clear().current_dir("/").process_group(0);
        command
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = tokio::process::Command::from(command)
            .spawn()
            .map_err(StartError::Execute)?;
        let control = Arc::new(ControlSocket::new(ours)?);
        let WorkerSettings {
            services,
            idle_timeout,
        } = self.settings;
        control.send(
            &Order::Become {
                account: account.clone(),
                services,
                idle_timeout,
            },
            None,
        )?;

        self.last += 1;
        let id = self.last;
        tokio::spawn(listen_to(
            id,
            Arc::clone(&control),
            child,
            self.events.clone(),
        ));
        let worker = Worker {
            account: account.clone(),
            control,
            waiting: Some(Vec::new()),
            handed: 0,
            last_line: None,
        };
        self.workers.insert(id, worker);
        self.current.insert(account.name.clone(), id);
        tracing::info!(user = account.name, uid = account.uid, "started a worker");
        Ok(id)
    }

    fn heard(&mut self, id: WorkerId, report: Report) {
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        match report {
            Report::Ready => {
                for placement in worker.waiting.take().unwrap_or_default() {
                    worker.hand_over(placement);
                }
            }
            Report::Failed { step, errno } => {
                let text = format!(
                    "cannot become {}: {step}: {}",
                    worker.account.name,
                    Errno::from_raw(errno).desc()
                );
                tracing::error!(
                    user = worker.account.name,
                    text = printable(&text),
                    "a worker failed to start"
                );
                for placement in worker.waiting.take().unwrap_or_default() {
                    refuse(placement, RefusalReason::Failed, &text);
                }
                self.forget(id);
            }
            Report::Idle { served } => {
                if worker.waiting.is_none() && served == worker.handed {
                    // If it does not get the word, it is ending anyway.
                    let _ = worker.control.send(&Order::Retire, None);
                    self.forget(id);
                }
            }
            Report::Log { level, text } => worker.log(level, &text),
        }
    }

    /// No new connections for this worker from now on.
    fn drain(&mut self, id: WorkerId) {
        if let Some(worker) = self.workers.get(&id) {
            tracing::info!(
                user = worker.account.name,
                "the account changed: its worker drains"
            );
            let _ = worker.control.send(&Order::Drain, None);
            self.current.remove(&worker.account.name);
        }
    }

    fn drain_changed(&mut self) {
        let accounts = Accounts::read();
        let same = |account| accounts.as_ref().is_ok_and(|all| all.has(account));
        let changed = |id: &&WorkerId| {
            let worker = self.workers.get(*id);
            worker.is_some_and(|worker| !same(&worker.account))
        };
        let changed: Vec<WorkerId> = self.current.values().filter(changed).copied().collect();
        changed.into_iter().for_each(|id| self.drain(id));
    }

    fn gone(&mut self, id: WorkerId, error: &ControlError) {
        if let Some(worker) = self.workers.get(&id) {
            if !matches!(error, ControlError::Closed) {
                tracing::warn!(user = worker.account.name, %error, "lost touch with a worker");
            }
            self.forget(id);
        }
    }

    fn exited(&mut self, id: WorkerId, status: io::Result<ExitStatus>) {
        match status {
            Ok(status) if status.success() => tracing::info!(worker = id, "a worker ended"),
            Ok(status) => tracing::warn!(worker = id, %status, "a worker ended"),
            Err(error) => tracing::error!(worker = id, %error, "cannot wait for a worker"),
        }
        self.forget(id);
    }

    /// Takes a worker out of the table; whoever still waits for it is refused.
    fn forget(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.remove(&id) else {
            return;
        };
        if self.current.get(&worker.account.name) == Some(&id) {
            self.current.remove(&worker.account.name);
        }
        for placement in worker.waiting.unwrap_or_default() {
            refuse(
                placement,
                RefusalReason::Failed,
                "the worker ended while it started",
            );
        }
    }
}

impl Worker {
    fn hand_over(&mut self, placement: Placement) {
        if placement.greet {
            let version = env!("CARGO_PKG_VERSION").into();
            opening::answer(
                &placement.socket,
                &Reply::Ok {
                    version,
                    uid: self.account.uid,
                },
            );
        }
        match self
            .control
            .send(&Order::Serve, Some(placement.socket.as_fd()))
        {
            Ok(()) => self.handed += 1,
            // The peer sees its connection closed and tries again, with the next worker if this one is gone.
            Err(error) => {
                tracing::warn!(user = self.account.name, %error, "could not hand a connection over")
            }
        }
    }

    fn log(&mut self, level: LogLevel, text: &str) {
        let now = Instant::now();
        if self
            .last_line
            .is_some_and(|last| now.duration_since(last) < LOG_INTERVAL)
        {
            return;
        }
        self.last_line = Some(now);
        let (user, text) = (&self.account.name, printable(text));
        match level {
            LogLevel::Warn => tracing::warn!(user, text, "worker"),
            LogLevel::Error => tracing::error!(user, text, "worker"),
        }
    }
}

fn refuse(placement: Placement, reason: RefusalReason, text: &str) {
    if placement.greet {
        opening::refuse(&placement.socket, reason, text.into());
    }
}

fn describe(error: &dyn std::error::Error) -> String {
    error
        .source()
        .map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

/// A stranger's text, fit for a log.
fn printable(text: &str) -> String {
    let cut = &text[..text.floor_char_boundary(MAX_LOG_TEXT)];
    cut.escape_debug().to_string()
}

/// Passes on what a worker says, and at last how it ended.
async fn listen_to(
    id: WorkerId,
    control: Arc<ControlSocket>,
    mut child: tokio::process::Child,
    events: mpsc::Sender<Event>,
) {
    let error = loop {
        match control.receive_report().await {
            Ok(report) => {
                let _ = events.send(Event::Report(id, report)).await;
            }
            Err(error) => break error,
        }
    };
    let _ = events.send(Event::Gone(id, error)).await;
    let _ = events.send(Event::Exited(id, child.wait().await)).await;
}
