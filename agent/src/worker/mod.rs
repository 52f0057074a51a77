//! A worker: a fresh process that irrevocably becomes one Linux user, then serves gRPC on the sockets that the listener
//! hands to it. Files, processes and network are that user's, by the kernel's own rules.
//!
//! The order at its start, while there is one thread: close what was inherited, take the control socket from descriptor
//! 0, hear who to be, become and verify it, say so. Only then comes the runtime. See `control` for the words.

mod activity;
mod handed;
mod serve;

use std::{fs, os::fd::OwnedFd, process::ExitCode, sync::Arc, time::Duration};

use tokio::sync::mpsc;

use crate::{
    control::{self, ControlError, ControlSocket, LogLevel, Order, Report, Services},
    processes::ProcessRegistry,
    sys::{descriptors, identity},
    system::accounts::Account,
};
use activity::Activity;
use handed::HandedSocket;

/// Sockets that wait to be served: they are taken up at once.
const SOCKET_QUEUE: usize = 16;

/// Runs a worker from its first instruction to its end.
pub(crate) fn main() -> ExitCode {
    if descriptors::close_from(3).is_err() {
        return ExitCode::FAILURE;
    }
    // Executed through /proc/self/exe, it would be called "exe".
    identity::set_name(c"guestline-agent");
    let Ok(control) = descriptors::take_stdin() else {
        return ExitCode::FAILURE;
    };
    let Ok(Order::Become {
        account,
        services,
        idle_timeout,
    }) = control::receive_blocking(&control)
    else {
        return ExitCode::FAILURE;
    };
    if let Err(error) = become_user(&account) {
        let report = Report::Failed {
            step: error.to_string(),
            errno: error.errno(),
        };
        let _ = control::send_blocking(&control, &report);
        return ExitCode::FAILURE;
    }
    if control::send_blocking(&control, &Report::Ready).is_err() {
        return ExitCode::FAILURE;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let Ok(runtime) = runtime else {
        return ExitCode::FAILURE;
    };
    let ended = runtime.block_on(async {
        let control = Arc::new(ControlSocket::new(control)?);
        report_panics(&control);
        Worker {
            control,
            account: Arc::new(account),
            services,
            idle_timeout,
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
    // The listener is kept from the OOM killer; a user's programs must not inherit that. Needs root, or is not needed.
    let _ = fs::write("/proc/self/oom_score_adj", "0");
    identity::become_user(account.uid, account.gid, &account.groups)
}

/// A panic ends one call; its text goes to the agent's log, since a worker has no stderr.
fn report_panics(control: &Arc<ControlSocket>) {
    let control = Arc::clone(control);
    std::panic::set_hook(Box::new(move |panic| {
        let text = panic.to_string();
        let text = text[..text.floor_char_boundary(control::MAX_LOG_TEXT)].into();
        let _ = control.send(
            &Report::Log {
                level: LogLevel::Error,
                text,
            },
            None,
        );
    }));
}

struct Worker {
    control: Arc<ControlSocket>,
    account: Arc<Account>,
    services: Services,
    idle_timeout: Duration,
}

impl Worker {
    /// Serves until the listener retires it, or, drained or orphaned, until its work is done.
    async fn run(self) -> Result<(), ControlError> {
        let registry = ProcessRegistry::default();
        let activity = Activity::new(registry.watch_live());
        let (sockets, incoming) = mpsc::channel(SOCKET_QUEUE);
        let (drain, draining) = tokio::sync::oneshot::channel();
        let mut drain = Some(drain);
        let server = serve::serve(
            Arc::clone(&self.account),
            self.services,
            registry,
            incoming,
            draining,
        );
        let mut server = tokio::spawn(server);
        let mut served = 0;
        let mut ending = false;
        loop {
            let patience = if ending {
                Duration::ZERO
            } else {
                self.idle_timeout
            };
            tokio::select! {
                order = self.control.receive_order(), if !ending => match order {
                    Ok((Order::Serve, Some(socket))) => {
                        served += 1;
                        serve_socket(socket, &activity, &sockets).await;
                    }
                    Ok((Order::Retire, _)) => return Ok(()),
                    Ok((Order::Drain, _)) => {
                        drain.take().map(|drain| drain.send(()));
                        ending = true;
                    }
                    // The listener is gone: go on with what is there.
                    Err(ControlError::Closed) => ending = true,
                    Ok(_) | Err(_) => return Err(ControlError::Malformed),
                },
                () = activity.idle_for(patience) => {
                    if ending {
                        return Ok(());
                    }
                    self.control.send(&Report::Idle { served }, None)?;
                }
                ended = &mut server => {
                    if let Ok(Err(error)) = ended {
                        let text = format!("the server ended: {error}");
                        let _ = self.control.send(&Report::Log { level: LogLevel::Warn, text }, None);
                    }
                    activity.idle_for(Duration::ZERO).await;
                    return Ok(());
                }
            }
        }
    }
}

async fn serve_socket(socket: OwnedFd, activity: &Activity, sockets: &mpsc::Sender<HandedSocket>) {
    if let Ok(socket) = HandedSocket::new(socket, activity.connection()) {
        // The server takes sockets as long as the worker lives, or is draining and lets this one go.
        let _ = sockets.send(socket).await;
    }
}
