//! Starts the process of a worker: the agent's own binary, executed again, with nothing of the listener's but one end of a
//! control socket.

use std::{
    io,
    os::{fd::OwnedFd, unix::process::CommandExt},
    path::PathBuf,
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use guestline_proto::hello::RefusalReason;
use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, SockFlag, SockType, socketpair},
    unistd::Pid,
};
use thiserror::Error;

use super::worker_socket::WorkerSocket;
use crate::{
    control::{ControlError, Order, Services},
    roster::Roster,
    switches,
    sys::child::open_pidfd,
    system::accounts::Account,
};

/// What a worker is told at its start besides its account.
#[derive(Clone, Debug)]
pub(crate) struct WorkerSettings {
    pub(crate) services: Services,
    pub(crate) idle_timeout: Duration,
    pub(crate) runtime_directory: PathBuf,
    pub(crate) open_files: u64,
}

/// Workers at one time: some 5 MiB each.
pub(super) const MAX_WORKERS: usize = 512;

/// Workers of one user: the one that takes connections, and some that finish what they have.
pub(super) const MAX_WORKERS_PER_USER: usize = 16;

/// A worker's process, which was told who to be.
pub(super) struct Started {
    pub(super) pid: i32,
    pub(super) pidfd: OwnedFd,
    pub(super) control: Arc<WorkerSocket>,
    pub(super) child: tokio::process::Child,
}

/// Why a user has no worker.
#[derive(Debug, Error)]
pub(super) enum StartError {
    #[error("{MAX_WORKERS} users have workers already; try again when some have gone")]
    TooMany,
    #[error(
        "{MAX_WORKERS_PER_USER} workers of this user finish what they have; try again when some have gone"
    )]
    TooManyOfUser,
    #[error("cannot make a control socket")]
    Socket(#[source] Errno),
    #[error("cannot watch the worker")]
    Watch(#[source] Errno),
    #[error("cannot execute the agent again")]
    Execute(#[source] io::Error),
    #[error("cannot tell the worker who it is")]
    Control(#[from] ControlError),
}

impl StartError {
    /// What its user's peers are told.
    pub(super) fn reason(&self) -> RefusalReason {
        match self {
            Self::TooMany | Self::TooManyOfUser => RefusalReason::Busy,
            _ => RefusalReason::Failed,
        }
    }
}

/// Executes the agent's own binary with one end of a control socket as its descriptor 0, and nothing else of ours.
pub(super) fn start(
    account: &Account,
    settings: &WorkerSettings,
    roster: Option<&Roster>,
) -> Result<Started, StartError> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)
        .map_err(StartError::Socket)?;
    let mut command = std::process::Command::new("/proc/self/exe");
    command
        .arg0("guestline-agent")
        .args(["worker", "--", &account.name]);
    if !switches::is_off("empty environment") {
        command.env_clear();
    }
    command.current_dir("/").process_group(0);
    command
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    #[cfg(feature = "test-switches")]
    if switches::is_off("execution") {
        crate::sys::unexecuted::run_instead(&mut command);
    }
    let mut child = tokio::process::Command::from(command)
        .spawn()
        .map_err(StartError::Execute)?;
    switches::point("worker: executed");
    // It cannot have been waited for yet.
    let pid = child.id().unwrap_or_default().cast_signed();
    // A listener that is killed from here on leaves a record of it.
    if let Some(roster) = roster {
        roster.add(pid, account.uid, &account.name);
    }
    match tell(account, settings, pid, ours) {
        Ok((control, pidfd)) => Ok(Started {
            pid,
            pidfd,
            control,
            child,
        }),
        Err(error) => {
            if let Some(roster) = roster {
                roster.remove(pid);
            }
            // The runtime reaps it.
            let _ = child.start_kill();
            Err(error)
        }
    }
}

/// Tells a new process who it is to be.
fn tell(
    account: &Account,
    settings: &WorkerSettings,
    pid: i32,
    ours: OwnedFd,
) -> Result<(Arc<WorkerSocket>, OwnedFd), StartError> {
    let control = Arc::new(WorkerSocket::new(ours)?);
    let pidfd = open_pidfd(Pid::from_raw(pid)).map_err(StartError::Watch)?;
    let order = Order::Become {
        account: account.clone(),
        services: settings.services,
        idle_timeout: settings.idle_timeout,
        runtime_directory: settings.runtime_directory.clone(),
        open_files: settings.open_files,
    };
    control.send(&order, None)?;
    switches::point("worker: told");
    Ok((control, pidfd))
}
