//! Connections before they belong to a user: few, timed, and the newest wins.

use std::{
    collections::VecDeque,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use guestline_proto::hello::{RefusalReason, Username};
use tokio::{io::Interest, task::AbortHandle, time::timeout};

use super::{
    opening::{self, Opening, OpeningError},
    workers::{Placement, Workers},
};
use crate::{
    sys::readiness::watch,
    system::accounts::{self, Account},
};

/// How long a peer may take for its hello.
const HELLO_DEADLINE: Duration = Duration::from_secs(5);

/// Connections without a hello at one time. One more closes the one that has waited longest, so that a flood of silent
/// peers never keeps an honest one out: that one speaks at once.
const MAX_WAITING: usize = 64;

/// Takes sockets of the host up to their hello.
#[derive(Clone, Debug)]
pub(super) struct Connections {
    /// Whom the host may become; `None`: anybody.
    allowed: Arc<Option<Vec<String>>>,
    workers: Workers,
    waiting: Arc<Mutex<VecDeque<AbortHandle>>>,
}

impl Connections {
    pub(super) fn new(allowed: Option<Vec<String>>, workers: Workers) -> Self {
        Self {
            allowed: Arc::new(allowed),
            workers,
            waiting: Arc::default(),
        }
    }

    /// Reads the hello in a task of its own.
    pub(super) fn open(&self, socket: OwnedFd) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|connection| !connection.is_finished());
        if waiting.len() >= MAX_WAITING
            && let Some(oldest) = waiting.pop_front()
        {
            tracing::warn!("too many connections without a hello: closing the oldest");
            oldest.abort();
        }
        let task = tokio::spawn(self.clone().greet(socket));
        waiting.push_back(task.abort_handle());
    }

    async fn greet(self, socket: OwnedFd) {
        let socket = match watch(socket, Interest::READABLE) {
            Ok(socket) => socket,
            Err(error) => return tracing::error!(%error, "cannot watch a connection"),
        };
        let opening = timeout(HELLO_DEADLINE, opening::read_opening(&socket)).await;
        let socket = socket.into_inner();
        let (user, greet) = match opening {
            Ok(Ok(Opening::Plain)) => (Username::root(), false),
            Ok(Ok(Opening::Hello(hello))) => (hello.user, true),
            Ok(Err(OpeningError::Closed | OpeningError::Socket(_))) => return,
            Ok(Err(error)) => {
                return turn_away(&socket, RefusalReason::BadHello, error.to_string());
            }
            Err(_) => {
                let text = format!("no hello within {} s", HELLO_DEADLINE.as_secs());
                return turn_away(&socket, RefusalReason::BadHello, text);
            }
        };
        match self.find_account(&user) {
            Ok(account) => {
                let placement = Placement {
                    account,
                    socket,
                    greet,
                };
                self.workers.place(placement).await;
            }
            Err((reason, text)) if greet => turn_away(&socket, reason, text),
            // A plain client expects HTTP/2, and would not understand a line.
            Err((reason, text)) => log_refusal(reason, &text),
        }
    }

    /// The account of a user whom the host may become.
    fn find_account(&self, user: &Username) -> Result<Account, (RefusalReason, String)> {
        let named = |allowed: &Vec<String>| allowed.iter().any(|name| name == user.as_str());
        if !self.allowed.as_ref().as_ref().is_none_or(named) {
            let text = format!(
                "this guest's /etc/guestline/agent.toml does not let the host become {user}"
            );
            return Err((RefusalReason::UserNotAllowed, text));
        }
        match accounts::find(user.as_str()) {
            Ok(Some(account)) => Ok(account),
            Ok(None) => Err((
                RefusalReason::UserNotFound,
                format!("no user \"{user}\" in this guest"),
            )),
            Err(error) => Err((RefusalReason::Failed, error.to_string())),
        }
    }
}

fn turn_away(socket: &OwnedFd, reason: RefusalReason, text: String) {
    log_refusal(reason, &text);
    opening::refuse(socket, reason, text);
}

fn log_refusal(reason: RefusalReason, text: &str) {
    tracing::warn!(reason = reason.as_str(), text, "turned a connection away");
}
