//! A worker: a fresh process that irrevocably becomes one Linux user, then serves gRPC on the sockets that the listener
//! hands to it. Files, processes and network are that user's, by the kernel's own rules.
//!
//! The order at its start, while there is one thread: close what was inherited, take the control socket from descriptor
//! 0, hear who to be, become and verify it, say so. Only then comes the runtime. See `control` for the words.

mod activity;
mod confining;
mod handed;
mod lingering;
mod link;
mod routes;
mod serve;
mod serving;
mod traffic;

use std::{collections::VecDeque, fs, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use nix::errno::Errno;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, oneshot},
    task::JoinError,
};

use crate::{
    control::{self, ControlError, ControlSocket, LogLevel, Order, Report, Services},
    processes::{ProcessRegistry, Wishes},
    roster, switches,
    sys::{descriptors, identity, memory},
    system::{accounts::Account, generation::Generation},
};
use activity::Activity;
use confining::Confining;
use handed::HandedSocket;
use link::{Link, Word};
use serving::{Served, Serving};
use traffic::Traffic;

/// Wishes that wait to be sent: of as many programs as one worker starts and ends at about the same time.
const WISH_QUEUE: usize = 1024;

/// Runs a worker from its first instruction to its end.
pub(crate) fn main() -> ExitCode {
    // One that is not executed has use for what the listener's runtime left it.
    let keeps = switches::is_off("descriptor hygiene") || switches::is_off("execution");
    if !keeps && descriptors::close_from(3).is_err() {
        return ExitCode::FAILURE;
    }
    memory::keep_little();
    // While root: afterwards the user's limits apply. Where that is refused, the worker is slow when memory is short.
    let _ = memory::hold_program();
    // Executed through /proc/self/exe, it would be called "exe".
    identity::set_name(c"guestline-agent");
    let Ok(control) = descriptors::take_stdin() else {
        return ExitCode::FAILURE;
    };
    let Ok(Order::Become {
        account,
        services,
        idle_timeout,
        runtime_directory,
        open_files,
    }) = control::receive_blocking(&control)
    else {
        return ExitCode::FAILURE;
    };
    switches::point("become: told");
    if let Err(error) = become_user(&account) {
        let report = Report::Failed {
            step: error.to_string(),
            errno: error.errno(),
        };
        let _ = control::send_blocking(&control, &report);
        return ExitCode::FAILURE;
    }
    switches::point("become: done");
    if control::send_blocking(&control, &Report::Ready).is_err() {
        return ExitCode::FAILURE;
    }
    switches::point("become: ready");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .thread_stack_size(memory::THREAD_STACK)
        .enable_all()
        .build();
    let Ok(runtime) = runtime else {
        return ExitCode::FAILURE;
    };
    let ended = runtime.block_on(async {
        let link = Link::new(ControlSocket::new(control)?, runtime_directory.clone());
        let link = Arc::new(link);
        report_panics(&link);
        // A process group whose last outside parent dies, as the listener, while one of it is stopped, gets SIGHUP
        // (setpgid(2)). This worker lives on.
        let _ignored = signal(SignalKind::hangup());
        Worker {
            link,
            account: Arc::new(account),
            services,
            runtime_directory,
            idle_timeout,
            open_files,
        }
        .run()
        .await
    });
    // A thread that the kernel holds in a hung file system must not keep an ending worker.
    runtime.shutdown_background();
    if ended.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn become_user(account: &Account) -> Result<(), identity::BecomeError> {
    // The listener is kept from the OOM killer; a user's programs must not inherit that, nor may who has the worker in hand eat
    // all memory under it. Root's worker keeps it, so that whoever looks after a guest without memory is not who dies of that;
    // its programs lose it one by one. Needs root, or is not needed.
    if account.uid != 0 {
        let _ = fs::write("/proc/self/oom_score_adj", "0");
    }
    identity::become_user(&account.identity())
}

/// A panic ends one call; its text goes to the agent's log, since a worker has no stderr.
fn report_panics(link: &Arc<Link>) {
    let link = Arc::clone(link);
    std::panic::set_hook(Box::new(move |panic| {
        let text = panic.to_string();
        let text = text[..text.floor_char_boundary(control::MAX_LOG_TEXT)].into();
        let level = LogLevel::Error;
        let _ = link.send(&Report::Log { level, text });
    }));
}

struct Worker {
    link: Arc<Link>,
    account: Arc<Account>,
    services: Services,
    runtime_directory: PathBuf,
    idle_timeout: Duration,
    open_files: u64,
}

impl Worker {
    /// Serves until the listener retires it; drained, until its work is done; without a listener, until it has been idle.
    async fn run(self) -> Result<(), ControlError> {
        let (wish, mut wishes) = mpsc::channel(WISH_QUEUE);
        let (renewal, mut renewals) = mpsc::channel(1);
        let served = Served {
            account: Arc::clone(&self.account),
            services: self.services,
            roster: self.runtime_directory.join(roster::FOLDER),
            registry: ProcessRegistry::new(first_number(), Wishes(wish), self.open_files),
            generation: Generation::new(self.runtime_directory, renewal),
        };
        let activity = Activity::new(served.registry.watch_busy());
        let traffic = Arc::new(Traffic::default());
        tokio::spawn(Arc::clone(&traffic).tidy_up());
        let mut confining = Confining::default();
        let mut renewing = VecDeque::new();
        // `None`: no new work is taken, and what there is comes to its end.
        let mut serving = Some(Serving::begin(&served));
        let mut count = 0;
        loop {
            let patience = match serving {
                Some(_) => self.idle_timeout,
                None => Duration::ZERO,
            };
            // A worker that is ending looks for no other listener.
            let listening = serving.is_some() || !self.link.is_lost();
            tokio::select! {
                word = self.link.next(&self.account, self.services), if listening => match word? {
                    Word::Order(Order::Serve, Some(socket)) => {
                        count += 1;
                        let open = activity.connection();
                        if let Some(serving) = &serving
                            && let Ok(socket) = HandedSocket::new(socket, Arc::clone(&traffic), open)
                        {
                            serving.take(socket).await;
                        }
                    }
                    Word::Order(Order::Retire, _) => return Ok(()),
                    Word::Order(Order::Drain, _) => serving = None,
                    // The kernel had no descriptor for it: that connection is closed, and the others go on.
                    Word::Order(Order::Serve, None) => {
                        count += 1;
                        let text = "a connection was lost: this user has too many open files".into();
                        let _ = self.link.send(&Report::Log { level: LogLevel::Warn, text });
                    }
                    Word::Order(Order::Become { .. }, _) => return Err(ControlError::Malformed),
                    Word::Order(Order::Confined { ticket, group }, _) => {
                        confining.answer(ticket, group);
                    }
                    Word::Order(Order::Session { ticket, opening }, socket) => {
                        confining.open(ticket, opening, socket);
                    }
                    Word::Order(Order::Renew { generation }, _) => {
                        // The call that asked for it gets its answer on a connection that is told to go.
                        serving = serving.map(|_| Serving::begin(&served));
                        // Each of several callers gets a number of its own.
                        let answer: Option<oneshot::Sender<u64>> = renewing.pop_front();
                        let _ = answer.map(|answer| answer.send(generation));
                    }
                    // Go on with what is there. Each listener counts from 0, and knows of no wish to the one before.
                    Word::Lost | Word::Found => {
                        count = 0;
                        confining.give_up();
                        renewing.clear();
                    }
                },
                wish = confining.next(&mut wishes) => confining.pass_on(wish, &self.link),
                // The service holds a sender.
                Some(answer) = renewals.recv() => {
                    if self.link.send(&Report::Resumed).is_ok() {
                        renewing.push_back(answer);
                    }
                }
                () = activity.idle_for(patience) => {
                    if serving.is_none() || self.link.is_lost() {
                        return Ok(());
                    }
                    match self.link.send(&Report::Idle { served: count }) {
                        // `next` will tell; a listener that does not read just now is told again.
                        Ok(()) | Err(ControlError::Closed | ControlError::Socket(Errno::EAGAIN)) => {}
                        Err(error) => return Err(error),
                    }
                }
                error = failure_of(&mut serving) => {
                    if let Some(error) = error {
                        let text = format!("the server ended: {error}");
                        let _ = self.link.send(&Report::Log { level: LogLevel::Warn, text });
                    }
                    serving = None;
                }
            }
        }
    }
}

/// Never, where there is no server.
async fn failure_of(serving: &mut Option<Serving>) -> Option<JoinError> {
    match serving {
        Some(serving) => serving.failed().await,
        None => std::future::pending().await,
    }
}

/// So that no two workers of one boot give a process the same number, whose client may come back to the next worker:
/// it begins with the hundredth of a second in which the worker started, and leaves a million numbers to each.
fn first_number() -> u64 {
    use nix::time::{ClockId, clock_gettime};
    // The clock is always there, since Linux 2.6.39.
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from);
    let hundredths = now.as_secs() * 100 + u64::from(now.subsec_millis() / 10);
    hundredths * 1_000_000
}
