//! The sockets through which the workers of a former listener come back. Who they are is in the roster (`roster.rs`), and the
//! kernel says who the peer of a socket is: nobody else is taken for one.
//!
//! Each user has a socket of its own, to which the kernel lets nobody else connect: whoever fills its queue, or holds
//! us up at it, keeps out nobody but workers of the same user.

use std::{
    collections::HashMap,
    fs, io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{
            ffi::OsStrExt,
            fs::{PermissionsExt, chown},
        },
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use nix::{
    sys::socket::{
        AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, getsockopt, listen, socket,
        sockopt::PeerCredentials,
    },
    unistd::Pid,
};
use thiserror::Error;
use tokio::{
    io::{Interest, unix::AsyncFd},
    task::spawn_blocking,
    time::timeout,
};

use super::{endpoint::accept_one, worker_socket::WorkerSocket};
use crate::{
    control::{MAX_MESSAGE, Report, Services, rendezvous},
    roster::Enrolled,
    sys::{child::open_pidfd, readiness::watch},
    system::{accounts::Account, directory},
    wary::refuse_descriptors,
};

const BACKLOG: i32 = 128;

/// How long workers are awaited. They look for a listener twice a second: who has not come by then is stopped, or hangs.
const RENDEZVOUS_DEADLINE: Duration = Duration::from_secs(60);

/// How long a worker that comes back may take to say who it is.
const RETURN_DEADLINE: Duration = Duration::from_secs(5);

/// After an accept that failed: the condition passes, and spinning would not help it.
const PAUSE: Duration = Duration::from_millis(100);

/// Workers that did not come back in time. Each goes on without a listener, and ends when it has nothing to do. It keeps its
/// file: the next listener awaits it again.
#[derive(Debug, PartialEq, Eq, Error)]
#[error("not back within {} s", RENDEZVOUS_DEADLINE.as_secs())]
pub(super) struct NotBack {
    /// Whose they are.
    pub(super) users: Vec<String>,
}

/// The socket to which the workers of one user come back.
#[derive(Debug)]
pub(super) struct Rendezvous {
    socket: AsyncFd<OwnedFd>,
    path: PathBuf,
}

impl Rendezvous {
    /// Any process of the user's may connect; [`Rendezvous::take_back`] looks at who it is.
    pub(super) fn listen(directory: &Path, uid: u32) -> io::Result<Self> {
        let path = directory.join(rendezvous(uid));
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
        bind(fd.as_raw_fd(), &UnixAddr::new(path.as_os_str().as_bytes())?)?;
        // Before the first can connect, all three. A kernel that does not know the last goes without.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        chown(&path, Some(uid), None)?;
        refuse_descriptors(&fd);
        listen(&fd, Backlog::new(BACKLOG)?)?;
        let socket = watch(fd, Interest::READABLE)?;
        Ok(Self { socket, path })
    }

    /// Takes back each of the user's former workers once, and closes whoever else connects. Ends when all are back, or at the
    /// deadline, with those that are still there.
    ///
    /// The peer is the former worker itself: its pid and, looked at after the kernel has told the pid, its start time. A process
    /// that got the pid of one that ended is a stranger.
    pub(super) async fn take_back(
        self,
        former: Vec<Enrolled>,
        back: impl AsyncFn(Enrolled, OwnedFd, u32),
    ) -> Result<(), NotBack> {
        let mut former: HashMap<i32, Enrolled> = former
            .into_iter()
            .map(|former| (former.pid, former))
            .collect();
        let _ = timeout(RENDEZVOUS_DEADLINE, self.accept_all(&mut former, back)).await;
        // Root's own folder, and the next listener makes its own.
        let _ = fs::remove_file(&self.path);
        // Strangers may wait in its queue, with what is slow to close: see `WorkerSocket`.
        let socket = self.socket.into_inner();
        spawn_blocking(move || drop(socket));
        let away = former.into_values().filter(Enrolled::is_alive);
        let users: Vec<String> = away.map(|former| former.user).collect();
        if users.is_empty() {
            Ok(())
        } else {
            Err(NotBack { users })
        }
    }

    async fn accept_all(
        &self,
        former: &mut HashMap<i32, Enrolled>,
        back: impl AsyncFn(Enrolled, OwnedFd, u32),
    ) {
        while !former.is_empty() {
            let accepted = self.socket.async_io(Interest::READABLE, accept_one).await;
            let peer = accepted.and_then(|socket| {
                let peer = getsockopt(&socket, PeerCredentials)?;
                Ok((socket, peer))
            });
            match peer {
                Ok((socket, peer)) => {
                    if let Some(former) = former.remove(&peer.pid())
                        && former.is_alive()
                    {
                        back(former, socket, peer.uid()).await;
                    } else {
                        turn_away(socket).await;
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "cannot take a worker back");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

/// Closes a stranger's socket where nobody waits for it but the same user's workers: see [`WorkerSocket`] for what it may
/// hold. One at a time, so that a user holds one thread of ours and no more.
async fn turn_away(socket: OwnedFd) {
    // It cannot panic, and goes on at the deadline.
    let _ = spawn_blocking(move || drop(socket)).await;
}

/// A former listener's worker, back and heard.
#[derive(Debug)]
pub(super) struct Returned {
    pub(super) pid: i32,
    pub(super) pidfd: OwnedFd,
    pub(super) control: Arc<WorkerSocket>,
    pub(super) account: Account,
    pub(super) services: Services,
    /// Whether the account is still as the worker has it.
    pub(super) is_same: bool,
}

/// Hears who comes back. What a worker says of itself must be what the kernel says of its process.
pub(super) async fn welcome(former: Enrolled, socket: OwnedFd, uid: u32) -> Option<Returned> {
    let control = WorkerSocket::of_a_peer(socket).ok()?;
    let pidfd = open_pidfd(Pid::from_raw(former.pid)).ok()?;
    let said = timeout(RETURN_DEADLINE, control.receive(MAX_MESSAGE)).await;
    let Ok(Ok(Report::Back { account, services })) = said else {
        tracing::warn!(user = former.user, "a worker came back without a word");
        return None;
    };
    // By then the descriptor is that of the process which the socket was accepted from, or of nobody.
    if account.name != former.user || account.uid != uid || !former.is_alive() {
        let user = former.user;
        tracing::warn!(user, uid, "a worker came back as somebody else");
        return None;
    }
    let now = directory::find(&former.user).await;
    Some(Returned {
        is_same: now.is_ok_and(|now| now.as_ref() == Some(&account)),
        pid: former.pid,
        pidfd,
        control: Arc::new(control),
        account,
        services,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use nix::{
        sys::signal::{Signal, kill},
        unistd::getuid,
    };

    use super::*;

    fn former(child: &std::process::Child, user: &str) -> Enrolled {
        Enrolled::new(child.id().cast_signed(), getuid().as_raw(), user).unwrap()
    }

    #[tokio::test]
    async fn the_place_to_come_back_is_one_users_alone_and_goes() {
        let directory = tempfile::tempdir().unwrap();
        // As root, as the agent is: another's.
        let me = getuid();
        let uid = if me.is_root() { 65534 } else { me.as_raw() };
        let rendezvous = Rendezvous::listen(directory.path(), uid).unwrap();
        let place = directory.path().join(format!("workers-{uid}.sock"));
        let metadata = fs::metadata(&place).unwrap();
        // Who may write to it may connect (unix(7)).
        assert_eq!((metadata.uid(), metadata.mode() & 0o777), (uid, 0o600));
        let back = async |_: Enrolled, _: OwnedFd, _: u32| panic!("nobody came");
        assert_eq!(rendezvous.take_back(Vec::new(), back).await, Ok(()));
        assert!(!place.exists());
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_is_stopped_does_not_keep_the_rendezvous() {
        let sleep = || {
            let mut command = std::process::Command::new("sleep");
            command.arg("100").spawn().unwrap()
        };
        let (mut stopped, mut ended) = (sleep(), sleep());
        let of_the_stopped = former(&stopped, "alice");
        kill(Pid::from_raw(of_the_stopped.pid), Signal::SIGSTOP).unwrap();
        let of_the_ended = former(&ended, "bob");
        ended.kill().unwrap();
        ended.wait().unwrap();
        let directory = tempfile::tempdir().unwrap();
        for (former, expected) in [
            (
                vec![of_the_stopped, of_the_ended.clone()],
                Err(NotBack {
                    users: vec!["alice".into()],
                }),
            ),
            (vec![of_the_ended], Ok(())),
        ] {
            let rendezvous = Rendezvous::listen(directory.path(), getuid().as_raw()).unwrap();
            let begun = tokio::time::Instant::now();
            let back = async |_: Enrolled, _: OwnedFd, _: u32| panic!("nobody came");
            assert_eq!(rendezvous.take_back(former, back).await, expected);
            assert!(begun.elapsed() >= RENDEZVOUS_DEADLINE);
        }
        stopped.kill().unwrap();
        stopped.wait().unwrap();
    }
}
