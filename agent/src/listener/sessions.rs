//! Login sessions, opened by the guest's systemd at the wish of a worker, for that worker's user and nobody else.
//!
//! A wish carries nothing: the listener has systemd start the agent's own binary as the user, in a session of PAM's, with one
//! end of a new socket pair as its stdin, and gives the other end to the worker. What runs there is between those two, who are
//! the same user. See `session`.

use std::{
    collections::HashMap,
    fs, io, iter,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, SockFlag, SockType, socketpair},
};
use thiserror::Error;
use tokio::{io::AsyncReadExt, process::Child};

use super::{allowance::Allowance, worker_log::WorkerLog};
use crate::{
    control::LogLevel,
    sys::{errno_of, identity::Identity},
    system::{accounts::Account, services::BOOTED},
};

/// Sessions of one user at one time. Each costs a process of root's besides those of the user.
const MAX_PER_USER: usize = 64;

/// How many sessions of one user begin in a time. Each is a unit, a run of PAM and an entry of logind's.
const MAX_BEGUN: u32 = 16;
const BEGUN_INTERVAL: Duration = Duration::from_secs(4);

/// The PAM service, as of machinectl(1)'s shell and of a login at a console.
const PAM_SERVICE: &str = "PAMName=login";

/// How much of systemd-run's words about a failure gets into the log.
const MAX_WORDS: u64 = 1024;

/// Opens sessions, and counts those that are open, by uid.
#[derive(Clone, Debug)]
pub(super) struct Sessions {
    /// Whether the guest's owner lets the host run programs.
    allowed: bool,
    open: Arc<Mutex<HashMap<u32, usize>>>,
    /// For those that begin, by uid. One entry for each user that had a session.
    begun: Arc<Mutex<HashMap<u32, Allowance>>>,
}

/// Why there is no session.
#[derive(Debug, Error)]
pub(super) enum SessionError {
    #[error("the guest's owner has switched programs off")]
    NotAllowed,
    #[error("the guest does not run systemd, or has no systemd-run")]
    NoSystemd,
    #[error("{MAX_PER_USER} sessions of this user are open already")]
    TooMany,
    #[error("{MAX_BEGUN} sessions of this user began within {BEGUN_INTERVAL:?}")]
    TooFast,
    #[error("systemd would take a name of digits for a uid")]
    NumericName,
    #[error("making a socket pair")]
    Socket(#[source] Errno),
    #[error("finding the agent's own binary")]
    Binary(#[source] io::Error),
    #[error("running systemd-run")]
    Run(#[source] io::Error),
}

impl SessionError {
    pub(super) fn errno(&self) -> Errno {
        match self {
            Self::NotAllowed => Errno::EPERM,
            Self::NoSystemd => Errno::EOPNOTSUPP,
            Self::TooMany | Self::TooFast => Errno::EAGAIN,
            Self::NumericName => Errno::EINVAL,
            Self::Socket(errno) => *errno,
            Self::Binary(error) | Self::Run(error) => errno_of(error),
        }
    }
}

impl Sessions {
    pub(super) fn new(allowed: bool) -> Self {
        Self {
            allowed,
            open: Arc::default(),
            begun: Arc::default(),
        }
    }

    /// Asks systemd for a session, and does not wait for it: what comes back is the worker's end of the pair, which ends when
    /// systemd refuses. Why it does is told in the worker's log.
    pub(super) fn open(&self, account: &Account, log: &WorkerLog) -> Result<OwnedFd, SessionError> {
        if !self.allowed {
            return Err(SessionError::NotAllowed);
        }
        if account.name.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(SessionError::NumericName);
        }
        let tool = systemd_run().ok_or(SessionError::NoSystemd)?;
        let place = self.admit(account.uid).ok_or(SessionError::TooMany)?;
        self.begin(account.uid)?;
        let binary = own_binary().map_err(SessionError::Binary)?;
        let flags = SockFlag::SOCK_CLOEXEC;
        let (workers, ushers) = socketpair(AddressFamily::Unix, SockType::Stream, None, flags)
            .map_err(SessionError::Socket)?;
        let mut command = tokio::process::Command::new(tool);
        command
            .args([
                "--quiet",
                "--collect",
                "--pipe",
                "--wait",
                "--service-type=exec",
            ])
            .args([
                &format!("--uid={}", account.name),
                "--property",
                PAM_SERVICE,
            ])
            .arg(format!(
                "--description=Guestline: a login session of {}",
                account.name
            ))
            // Else it would be systemd's own, with folders that are not the user's.
            .arg(format!("--setenv=PATH={}", account.search_path()))
            // Else a session without a terminal would count as a background job's.
            .arg("--setenv=XDG_SESSION_CLASS=user")
            .arg("--")
            .arg(binary)
            .args(ushers_arguments(account));
        command.env_clear().current_dir("/").process_group(0);
        command
            .stdin(Stdio::from(ushers))
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let child = command.spawn().map_err(SessionError::Run)?;
        tokio::spawn(attend(child, log.clone(), place));
        Ok(workers)
    }

    fn begin(&self, uid: u32) -> Result<(), SessionError> {
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        let allowance = begun
            .entry(uid)
            .or_insert_with(|| Allowance::new(MAX_BEGUN, BEGUN_INTERVAL));
        allowance.take().map_err(|_| SessionError::TooFast)
    }

    fn admit(&self, uid: u32) -> Option<Place> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(uid).or_default();
        if *count >= MAX_PER_USER {
            return None;
        }
        *count += 1;
        Some(Place {
            uid,
            open: Arc::clone(&self.open),
        })
    }
}

/// Who it must be by the time that it says its first word.
fn ushers_arguments(account: &Account) -> Vec<String> {
    let Identity { uid, gid, groups } = account.identity();
    let numbers = [uid, gid].into_iter().chain(groups);
    let numbers = numbers.map(|number| number.to_string());
    iter::once("usher".into()).chain(numbers).collect()
}

/// Counts as one session until it is dropped.
#[derive(Debug)]
struct Place {
    uid: u32,
    open: Arc<Mutex<HashMap<u32, usize>>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.uid) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.uid);
            }
        }
    }
}

/// To the end of systemd-run, which is the session's. The user's process has the same stderr, so that what it says is a
/// stranger's, and its end is not waited for.
async fn attend(mut child: Child, log: WorkerLog, place: Place) {
    let mut words = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        let _ = stderr.take(MAX_WORDS).read_to_end(&mut words).await;
    }
    let ended = child.wait().await;
    drop(place);
    if !ended.is_ok_and(|status| status.success()) {
        let text = format!(
            "a login session failed: {}",
            String::from_utf8_lossy(&words)
        );
        log.write(LogLevel::Warn, &text);
    }
}

fn systemd_run() -> Option<&'static str> {
    let places = ["/usr/bin/systemd-run", "/bin/systemd-run"];
    let is_there = |path: &&str| Path::new(path).exists();
    Path::new(BOOTED)
        .is_dir()
        .then(|| places.into_iter().find(is_there))?
}

/// Where it can be executed by anybody: /proc/PID/exe of root's cannot. One that was replaced meanwhile is another version, whose
/// usher may not take our arguments or speak as our workers do: until this listener is restarted there are no sessions then.
fn own_binary() -> io::Result<PathBuf> {
    let path = fs::read_link("/proc/self/exe")?;
    let replaced = path
        .to_str()
        .and_then(|path| path.strip_suffix(" (deleted)"));
    Ok(replaced.map_or_else(|| path.clone(), PathBuf::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_for_each_user_and_given_back() {
        let sessions = Sessions::new(true);
        let mut places: Vec<_> = (0..MAX_PER_USER).map(|_| sessions.admit(1000)).collect();
        assert!(places.iter().all(Option::is_some));
        assert!(sessions.admit(1000).is_none() && sessions.admit(1001).is_some());
        places.pop();
        assert!(sessions.admit(1000).is_some());
        drop(places);
        assert!(sessions.open.lock().unwrap().is_empty());
    }

    #[test]
    fn a_user_begins_so_many_in_a_time_and_others_theirs() {
        let sessions = Sessions::new(true);
        for _ in 0..MAX_BEGUN {
            sessions.begin(1000).unwrap();
        }
        assert!(matches!(sessions.begin(1000), Err(SessionError::TooFast)));
        sessions.begin(1001).unwrap();
    }

    /// What is written to the log while it is there.
    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn sessions_that_fail_are_lines_of_their_worker_and_bounded_as_such() {
        let written = Written::default();
        let writer = written.clone();
        let log = tracing_subscriber::fmt().with_writer(move || writer.clone());
        let _until_the_end = tracing::subscriber::set_default(log.finish());
        let an_hour = Duration::from_secs(3600);
        let alices = WorkerLog::with("alice", Allowance::new(2, an_hour));
        let sessions = Sessions::new(true);
        for _ in 0..5 {
            let mut command = tokio::process::Command::new("sh");
            command.args(["-c", "echo no such user >&2; exit 1"]);
            let child = command.stderr(Stdio::piped()).spawn().unwrap();
            let place = sessions.admit(1000).unwrap();
            attend(child, alices.clone(), place).await;
        }
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        let lines = text.matches("a login session failed: no such user").count();
        assert_eq!(lines, 2, "{text}");
    }
}
