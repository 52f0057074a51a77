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
//! A former listener's worker that is not back yet has a place of its own in the table: its user's sockets wait for it, for
//! [`RETURN_GRACE`].
//!
//! One task owns the table. It decides alone when a worker ends: a worker that says `Idle` has said how many sockets it
//! got, and if one more is on its way the numbers differ and the word is passed over. Handing a socket to a worker that
//! is ending is so impossible.

mod expecting;

use std::{collections::HashMap, io, os::fd::AsFd, process::ExitStatus, sync::Arc, time::Duration};

use guestline_proto::hello::RefusalReason;
use nix::errno::Errno;
use tokio::{
    sync::{Notify, mpsc},
    task::AbortHandle,
};

use super::{
    account_watch,
    groups::Wisher,
    hearing::{Hearing, deliver, describe},
    keeper::Keeper,
    returning::Returned,
    sessions::Sessions,
    starting::{self, MAX_WORKERS, MAX_WORKERS_PER_USER, StartError, WorkerSettings},
    worker::{Placement, Worker, queue, refuse},
    worker_log::{WorkerLog, printable},
};
use crate::{
    control::{Order, Report},
    roster::Roster,
    sys::child::kill_process,
    system::{
        accounts::{Account, Accounts},
        generation,
    },
};

/// Events that wait for the table's task; more make their senders wait.
const EVENT_QUEUE: usize = 64;

/// How long a worker that was told to end may take.
const RETIRE_PATIENCE: Duration = Duration::from_secs(5);

/// How long after the listener's start a user's sockets wait for the worker that a former listener started. Workers look for
/// their listener twice a second; in an emulated guest where all is busy one took 3.2 s.
const RETURN_GRACE: Duration = Duration::from_secs(8);

/// The way to the table.
#[derive(Clone, Debug)]
pub(super) struct Workers(mpsc::Sender<Event>);

impl Workers {
    /// Starts the table's task.
    pub(super) fn spawn(settings: WorkerSettings) -> io::Result<Self> {
        let (events, receiver) = mpsc::channel(EVENT_QUEUE);
        let directory = settings.runtime_directory.clone();
        let sessions = Sessions::new(settings.services.processes);
        let mut table = Table {
            settings,
            events: events.clone(),
            roster: None,
            keeper: Keeper::start(),
            sessions,
            current: HashMap::new(),
            workers: HashMap::new(),
            expected: HashMap::new(),
            last: 0,
            looking_again: None,
        };
        match Roster::open(&directory) {
            Ok(roster) => table.expect(roster),
            Err(error) => {
                let directory = directory.display();
                tracing::warn!(%error, %directory, "a restarted listener will not find these workers");
            }
        }
        let changed = Arc::new(Notify::new());
        tokio::spawn(table.run(receiver, Arc::clone(&changed)));
        tokio::spawn(account_watch::watch(move || changed.notify_one())?);
        Ok(Self(events))
    }

    /// Gives a socket to its user's worker, or refuses it.
    pub(super) async fn place(&self, placement: Placement) {
        // The table's task ends with the process alone.
        let _ = self.0.send(Event::Place(placement)).await;
    }
}

#[derive(Debug)]
pub(super) enum Event {
    Place(Placement),
    Report(WorkerId, Report),
    /// The process is gone; its status, if it was a child of ours.
    Gone(WorkerId, Option<io::Result<ExitStatus>>),
    Back(Returned),
    GraceOver,
    /// This worker's account is another now.
    AccountChanged(WorkerId),
}

pub(super) type WorkerId = u64;

struct Table {
    settings: WorkerSettings,
    events: mpsc::Sender<Event>,
    roster: Option<Roster>,
    /// `None`: the guest has no cgroup v2.
    keeper: Option<Keeper>,
    sessions: Sessions,
    /// The worker that takes a user's new connections.
    current: HashMap<String, WorkerId>,
    /// All that are connected, also those that only finish what they have.
    workers: HashMap<WorkerId, Worker>,
    /// Users whose worker is not back yet, with the sockets that wait for it.
    expected: HashMap<String, Vec<Placement>>,
    last: WorkerId,
    /// Asks about accounts that are not in the guest's files; a newer change makes the asking start again.
    looking_again: Option<AbortHandle>,
}

impl Table {
    async fn run(mut self, mut events: mpsc::Receiver<Event>, accounts_changed: Arc<Notify>) {
        loop {
            let event = tokio::select! {
                event = events.recv() => event,
                () = accounts_changed.notified() => {
                    self.drain_changed();
                    continue;
                }
            };
            // The table holds a sender.
            let Some(event) = event else { return };
            match event {
                Event::Place(placement) => self.place(placement),
                Event::Report(id, report) => self.heard(id, report),
                Event::Gone(id, status) => self.gone(id, status).await,
                Event::Back(returned) => self.back(returned),
                Event::GraceOver => self.stop_expecting(),
                Event::AccountChanged(id) => self.drain(id),
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
            None if self.expected.contains_key(name) => {
                return queue(self.expected.entry(name.clone()).or_default(), placement);
            }
            None => match self.start(&placement.account) {
                Ok(id) => id,
                Err(error) => return refuse(placement, error.reason(), &describe(&error)),
            },
        };
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        match &mut worker.waiting {
            Some(waiting) => queue(waiting, placement),
            None => worker.hand_over(placement),
        }
    }

    fn start(&mut self, account: &Account) -> Result<WorkerId, StartError> {
        if self.workers.len() >= MAX_WORKERS {
            return Err(StartError::TooMany);
        }
        let of_user = |worker: &&Worker| worker.account.name == account.name;
        if self.workers.values().filter(of_user).count() >= MAX_WORKERS_PER_USER {
            return Err(StartError::TooManyOfUser);
        }
        let started = starting::start(account, &self.settings, self.roster.as_ref())?;
        let worker = Worker {
            account: account.clone(),
            pid: started.pid,
            pidfd: Arc::new(started.pidfd),
            control: started.control,
            waiting: Some(Vec::new()),
            handed: 0,
            is_retired: false,
        };
        let id = self.register(worker, Some(started.child));
        self.current.insert(account.name.clone(), id);
        tracing::info!(user = account.name, uid = account.uid, "started a worker");
        Ok(id)
    }

    /// Has a worker heard from now on. `child`: of one that this listener started.
    fn register(&mut self, worker: Worker, child: Option<tokio::process::Child>) -> WorkerId {
        self.last += 1;
        let id = self.last;
        let hearing = Hearing {
            id,
            account: worker.account.clone(),
            wisher: Wisher {
                pid: worker.pid,
                uid: worker.account.uid,
            },
            control: Arc::clone(&worker.control),
            pidfd: Arc::clone(&worker.pidfd),
            child,
            keeper: self.keeper.clone(),
            sessions: self.sessions.clone(),
            events: self.events.clone(),
            log: WorkerLog::new(&worker.account.name),
            has_answered: worker.waiting.is_none(),
        };
        tokio::spawn(hearing.listen());
        self.workers.insert(id, worker);
        id
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
                self.dismiss(id, &text);
            }
            Report::Idle { served } => {
                if worker.waiting.is_none() && served == worker.handed && !worker.is_retired {
                    worker.is_retired = true;
                    self.retire(id);
                }
            }
            // For other ears: see `hearing`.
            Report::Back { .. }
            | Report::Log { .. }
            | Report::Confine { .. }
            | Report::Kill { .. }
            | Report::Release { .. }
            | Report::Session { .. } => {}
            Report::Resumed => {
                if worker.account.uid == 0 {
                    self.renew(id);
                }
            }
        }
    }

    /// No new connections for this worker from now on.
    fn drain(&mut self, id: WorkerId) {
        if let Some(worker) = self.workers.get(&id)
            && self.current.get(&worker.account.name) == Some(&id)
        {
            tracing::info!(
                user = worker.account.name,
                "the account changed: its worker drains"
            );
            self.current.remove(&worker.account.name);
            self.let_go(id);
        }
    }

    /// A new generation of the guest, told to all workers, and to the one that asked for it last.
    fn renew(&mut self, asked: WorkerId) {
        let directory = &self.settings.runtime_directory;
        let generation = generation::read(directory) + 1;
        if let Err(error) = generation::write(directory, generation) {
            tracing::error!(%error, "the generation is not kept");
        }
        tracing::info!(generation, "the guest was resumed");
        let others = self.workers.keys().copied().filter(|id| *id != asked);
        for id in others.chain([asked]) {
            if let Some(worker) = self.workers.get(&id) {
                worker.order(Order::Renew { generation });
            }
        }
    }

    /// Lets a worker finish what it has, which no later listener needs to find.
    fn let_go(&self, id: WorkerId) {
        if let Some(worker) = self.workers.get(&id) {
            worker.order(Order::Drain);
            self.strike_out(worker.pid);
        }
    }

    fn strike_out(&self, pid: i32) {
        if let Some(roster) = &self.roster {
            roster.remove(pid);
        }
    }

    fn drain_changed(&mut self) {
        let accounts = Accounts::read();
        let mut elsewhere = Vec::new();
        for id in self.current.values().copied().collect::<Vec<_>>() {
            let Some(Worker { account, .. }) = self.workers.get(&id) else {
                continue;
            };
            match accounts.as_ref().map(|all| all.find(&account.name)) {
                Ok(Some(now)) if now == *account => {}
                Ok(None) => elsewhere.push((id, account.clone())),
                Ok(Some(_)) | Err(_) => self.drain(id),
            }
        }
        let looking = tokio::spawn(account_watch::look_again(elsewhere, self.events.clone()));
        if let Some(before) = self.looking_again.replace(looking.abort_handle()) {
            before.abort();
        }
    }

    /// Nothing more comes to this worker, which is to end by itself, soon.
    fn retire(&mut self, id: WorkerId) {
        self.dismiss(id, "the worker ended");
        if let Some(worker) = self.workers.get(&id) {
            let (control, pidfd) = (Arc::clone(&worker.control), Arc::clone(&worker.pidfd));
            tokio::spawn(async move {
                let _ = deliver(&control, &Order::Retire, None).await;
                tokio::time::sleep(RETIRE_PATIENCE).await;
                // Mostly nobody any more.
                let _ = kill_process(pidfd.as_fd());
            });
        }
    }

    /// No connection goes to this worker any more; whoever waits for it is refused.
    fn dismiss(&mut self, id: WorkerId, why: &str) {
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        if self.current.get(&worker.account.name) == Some(&id) {
            self.current.remove(&worker.account.name);
        }
        for placement in worker.waiting.take().unwrap_or_default() {
            refuse(placement, RefusalReason::Failed, why);
        }
        let pid = worker.pid;
        self.strike_out(pid);
    }

    /// The process is gone.
    async fn gone(&mut self, id: WorkerId, status: Option<io::Result<ExitStatus>>) {
        match status {
            Some(Ok(status)) if !status.success() => {
                tracing::warn!(worker = id, %status, "a worker ended");
            }
            Some(Err(error)) => tracing::error!(worker = id, %error, "cannot wait for a worker"),
            Some(Ok(_)) | None => tracing::info!(worker = id, "a worker ended"),
        }
        self.dismiss(id, "the worker ended while it started");
        let Some(worker) = self.workers.remove(&id) else {
            return;
        };
        let uid = worker.account.uid;
        let is_last = !self.workers.values().any(|other| other.account.uid == uid);
        if let Some(keeper) = self.keeper.clone().filter(|_| is_last) {
            tokio::spawn(async move { keeper.release_all(uid).await });
        }
    }
}

#[cfg(test)]
mod tests {
    use nix::{
        sys::socket::{AddressFamily, SockFlag, SockType, socketpair},
        unistd::Pid,
    };
    use tokio::runtime::Handle;

    use super::*;
    use crate::{control::Services, listener::worker_socket::WorkerSocket, sys::child::open_pidfd};

    fn table() -> Table {
        let (events, _) = mpsc::channel(EVENT_QUEUE);
        Table {
            settings: WorkerSettings {
                services: Services::default(),
                idle_timeout: Duration::from_secs(60),
                runtime_directory: "/nowhere".into(),
                open_files: 1024,
            },
            events,
            roster: None,
            keeper: None,
            sessions: Sessions::new(true),
            current: HashMap::new(),
            workers: HashMap::new(),
            expected: HashMap::new(),
            last: 0,
            looking_again: None,
        }
    }

    #[tokio::test]
    async fn a_worker_is_told_once_to_end_however_often_it_is_idle() {
        let mut process = std::process::Command::new("sleep")
            .arg("100")
            .spawn()
            .unwrap();
        let pid = process.id().cast_signed();
        let flags = SockFlag::SOCK_CLOEXEC;
        let (ours, workers) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap();
        let worker = Worker {
            account: Accounts::parse(b"alice:x:1000:1000::/:/bin/sh\n", b"")
                .find("alice")
                .unwrap(),
            pid,
            pidfd: Arc::new(open_pidfd(Pid::from_raw(pid)).unwrap()),
            control: Arc::new(WorkerSocket::new(ours).unwrap()),
            waiting: None,
            handed: 3,
            is_retired: false,
        };
        let mut table = table();
        table.current.insert("alice".into(), 1);
        table.workers.insert(1, worker);
        let tasks = || Handle::current().metrics().num_alive_tasks();
        let before = tasks();
        table.heard(1, Report::Idle { served: 2 });
        assert_eq!((tasks(), table.current.len()), (before, 1));
        for _ in 0..100 {
            table.heard(1, Report::Idle { served: 3 });
        }
        assert_eq!((tasks(), table.current.len()), (before + 1, 0));
        drop(workers);
        process.kill().unwrap();
        process.wait().unwrap();
    }
}
