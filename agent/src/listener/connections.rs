//! Connections before they belong to a user: few, timed, and the newest wins. In a guest with a secret none gets further
//! without it, and none is told anything about users before.

use std::{
    collections::VecDeque,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use guestline_proto::{
    hello::{Hello, RefusalReason, Username},
    proof::{AgentExchange, Nonce, Proven},
    secret::Secret,
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    task::AbortHandle,
    time::timeout,
};

use super::{
    greeting::Greeting,
    hearing::describe,
    opening::{self, Opening, OpeningError},
    secrets::Secrets,
    worker::Placement,
    workers::Workers,
};
use crate::{
    switches,
    sys::readiness::watch,
    system::{accounts::Account, directory},
};

/// How long a peer may take for its hello, with the proof where one is wanted.
const HELLO_DEADLINE: Duration = Duration::from_secs(5);

/// Connections without a hello at one time. One more closes the one that has waited longest, so that a flood of silent
/// peers never keeps an honest one out: that one speaks at once.
const MAX_WAITING: usize = 64;

/// Takes sockets of the host up to their hello.
#[derive(Clone, Debug)]
pub(super) struct Connections {
    /// Whom the host may become; `None`: anybody.
    allowed: Arc<Option<Vec<String>>>,
    secrets: Arc<Secrets>,
    workers: Workers,
    waiting: Arc<Mutex<VecDeque<AbortHandle>>>,
}

impl Connections {
    pub(super) fn new(allowed: Option<Vec<String>>, secrets: Secrets, workers: Workers) -> Self {
        Self {
            allowed: Arc::new(allowed),
            secrets: Arc::new(secrets),
            workers,
            waiting: Arc::default(),
        }
    }

    /// Reads the hello in a task of its own.
    pub(super) fn open(&self, socket: OwnedFd) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|connection| !connection.is_finished());
        if waiting.len() >= MAX_WAITING
            && !switches::is_off("bound on silent connections")
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
        let limit = match switches::is_off("hello deadline") {
            true => Duration::MAX,
            false => HELLO_DEADLINE,
        };
        let introduced = timeout(limit, self.introduce(&socket)).await;
        let socket = socket.into_inner();
        let (user, greeting) = match introduced {
            Ok(Ok(introduced)) => introduced,
            Ok(Err(TurnedAway::Gone)) => return,
            Ok(Err(TurnedAway::Silently(reason, text))) => return log_refusal(reason, &text),
            Ok(Err(TurnedAway::Told(reason, text))) => {
                log_refusal(reason, &text);
                return opening::refuse(&socket, reason, text);
            }
            Err(_) => {
                let text = format!("no hello within {} s", HELLO_DEADLINE.as_secs());
                log_refusal(RefusalReason::BadHello, &text);
                return opening::refuse(&socket, RefusalReason::BadHello, text);
            }
        };
        switches::point("hello: heard");
        match self.find_account(&user).await {
            Ok(account) => {
                let placement = Placement {
                    account,
                    socket,
                    greeting,
                };
                self.workers.place(placement).await;
            }
            Err((reason, text)) => {
                log_refusal(reason, &text);
                greeting.refuse(&socket, reason, text);
            }
        }
    }

    /// Who the peer wants to be, once it has shown that it may ask.
    async fn introduce(
        &self,
        socket: &AsyncFd<OwnedFd>,
    ) -> Result<(Username, Greeting), TurnedAway> {
        let opening = opening::read_opening(socket).await?;
        // Read only now: what counts is the secret at this moment.
        let secrets = match self.secrets.current() {
            Ok(secrets) => secrets,
            Err(error) => {
                tracing::error!(error = describe(&error), "nobody is let in");
                let text = "this guest's secret cannot be used: its agent's log says why";
                return Err(opening.turn_away(text));
            }
        };
        match (opening, secrets) {
            (Opening::Plain, None) => Ok((Username::root(), Greeting::Plain)),
            (Opening::Hello { hello, .. }, None) => Ok((hello.user, Greeting::Hello)),
            (opening @ Opening::Plain, Some(_)) => {
                let text = "a client without a hello cannot prove that it has this guest's secret";
                Err(opening.turn_away(text))
            }
            (Opening::Hello { hello, line }, Some(secrets)) => {
                let proven = prove(socket, &hello, &line, &secrets).await?;
                Ok((hello.user, Greeting::Proven(proven)))
            }
        }
    }

    /// The account of a user whom the host may become.
    async fn find_account(&self, user: &Username) -> Result<Account, (RefusalReason, String)> {
        let named = |allowed: &Vec<String>| allowed.iter().any(|name| name == user.as_str());
        if !self.allowed.as_ref().as_ref().is_none_or(named) {
            let text = format!(
                "this guest's /etc/guestline/agent.toml does not let the host become {user}"
            );
            return Err((RefusalReason::UserNotAllowed, text));
        }
        match directory::find(user.as_str()).await {
            Ok(Some(account)) => Ok(account),
            Ok(None) => Err((
                RefusalReason::UserNotFound,
                format!("no user \"{user}\" in this guest"),
            )),
            Err(error) => Err((RefusalReason::Failed, error.to_string())),
        }
    }
}

/// Challenges the peer, and hears its answer.
pub(super) async fn prove(
    socket: &AsyncFd<OwnedFd>,
    hello: &Hello,
    line: &[u8],
    secrets: &[Secret],
) -> Result<Proven, TurnedAway> {
    let unauthenticated = |text: String| TurnedAway::Told(RefusalReason::Unauthenticated, text);
    if hello.nonce.is_none() {
        let text = "this guest has a secret, and the hello has no nonce= to begin the proof with";
        return Err(unauthenticated(text.into()));
    }
    let nonce = Nonce::random()
        .map_err(|error| TurnedAway::Told(RefusalReason::Failed, error.to_string()))?;
    let (exchange, challenge) = AgentExchange::challenge(line, nonce);
    opening::send_line(socket.get_ref(), &challenge);
    let answer = opening::read_line(socket).await?;
    exchange
        .check(secrets, &answer)
        .map_err(|error| unauthenticated(error.to_string()))
}

/// A connection that gets no further.
pub(super) enum TurnedAway {
    /// The peer left.
    Gone,
    /// A plain client expects HTTP/2, and would not understand a line.
    Silently(RefusalReason, String),
    Told(RefusalReason, String),
}

impl From<OpeningError> for TurnedAway {
    fn from(error: OpeningError) -> Self {
        match error {
            OpeningError::Closed | OpeningError::Socket(_) => Self::Gone,
            error => Self::Told(RefusalReason::BadHello, error.to_string()),
        }
    }
}

impl Opening {
    /// Whoever has not shown the secret.
    fn turn_away(&self, text: &str) -> TurnedAway {
        let reason = RefusalReason::Unauthenticated;
        match self {
            Self::Plain => TurnedAway::Silently(reason, text.into()),
            Self::Hello { .. } => TurnedAway::Told(reason, text.into()),
        }
    }
}

fn log_refusal(reason: RefusalReason, text: &str) {
    tracing::warn!(reason = reason.as_str(), text, "turned a connection away");
}
