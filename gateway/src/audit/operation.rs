//! An operation under way, and what it writes of itself: its start once it says what it is about, its end when nobody holds
//! it any more.

use std::{
    borrow::Cow,
    sync::{Arc, Mutex, PoisonError},
    time::{Instant, SystemTime},
};

use guestline_client::Vm as Guest;
use tokio::sync::mpsc::OwnedPermit;

use super::{Actor, End, Event, LogFile, Logged, Phase};
use crate::{ids::OperationId, metrics::Metrics, store::to_millis};

/// Longer command lines and paths are cut.
const MAX_SUBJECT: usize = 4096;

/// The result of an operation that nobody ended: its client went away, or the gateway failed.
pub(super) const ABANDONED: &str = "abandoned";

/// An operation under way. Its end is logged when the last clone is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    id: OperationId,
    actor: Actor,
    begun: Instant,
    log: LogFile,
    metrics: Metrics,
    state: Mutex<State>,
}

/// What is known so far, and the places in the queue that are still to be used.
#[derive(Debug)]
struct State {
    start: Option<OwnedPermit<Logged>>,
    end: Option<OwnedPermit<Logged>>,
    subject: Option<String>,
    /// What it acts through: the uid is known with the first call.
    guest: Option<Guest>,
    /// It was not permitted, and is counted as that.
    refused: bool,
    outcome: End,
}

impl Operation {
    /// With places in the queue for its start and its end.
    pub(super) fn new(
        actor: Actor,
        log: LogFile,
        metrics: Metrics,
        [start, end]: [OwnedPermit<Logged>; 2],
    ) -> Self {
        let state = State {
            start: Some(start),
            end: Some(end),
            subject: None,
            guest: None,
            refused: false,
            outcome: End {
                result: ABANDONED.into(),
                ..End::default()
            },
        };
        Self {
            inner: Arc::new(Inner {
                id: OperationId::random(),
                actor,
                begun: Instant::now(),
                log,
                metrics,
                state: Mutex::new(state),
            }),
        }
    }

    /// Logs the start, with what the operation is about. Later calls do nothing.
    pub(crate) fn begin(&self, subject: impl Into<String>) {
        let subject = cut(subject.into());
        self.inner.start(|state| state.subject = Some(subject));
    }

    /// The same for one that its verb and VM say all about.
    pub(crate) fn begin_unnamed(&self) {
        self.inner.start(|_| {});
    }

    /// Says what the operation acts through, which knows the uid.
    pub(crate) fn acts_through(&self, guest: &Guest) {
        self.inner.with(|state| state.guest = Some(guest.clone()));
    }

    /// What came from the client.
    pub(crate) fn add_bytes_in(&self, bytes: usize) {
        self.inner
            .with(|state| state.outcome.bytes_in += bytes as u64);
    }

    /// What went to the client.
    pub(crate) fn add_bytes_out(&self, bytes: usize) {
        self.inner
            .with(|state| state.outcome.bytes_out += bytes as u64);
    }

    /// How a command ended, 128 + n for signal n.
    pub(crate) fn set_exit_status(&self, status: i32) {
        self.inner
            .with(|state| state.outcome.exit_status = Some(status));
    }

    /// It was not permitted.
    pub(super) fn set_refused(&self, code: &'static str) {
        self.inner.with(|state| state.refused = true);
        self.set_result(code);
    }

    /// "ok" or the code of an error. The last word counts; without one, the operation was abandoned.
    pub(crate) fn set_result(&self, result: impl Into<String>) {
        let result = result.into();
        self.inner.with(|state| state.outcome.result = result);
    }
}

impl Inner {
    fn start(&self, set: impl FnOnce(&mut State)) {
        self.with(|state| {
            if let Some(place) = state.start.take() {
                set(state);
                self.send(place, self.event(state, None));
            }
        });
    }

    /// In the file when this returns.
    fn send(&self, permit: OwnedPermit<Logged>, event: Event) {
        let place = self.log.append(&event);
        permit.send(Logged { event, place });
    }

    fn event(&self, state: &State, end: Option<End>) -> Event {
        let now = SystemTime::now();
        let actor = self.actor.clone();
        Event {
            time: humantime::format_rfc3339_millis(now).to_string(),
            at_millis: to_millis(now),
            operation: self.id.clone(),
            phase: if end.is_some() {
                Phase::End
            } else {
                Phase::Start
            },
            verb: Cow::Borrowed(actor.verb),
            admin_key: actor.admin_key,
            identity: actor.identity,
            token: actor.token,
            ssh_key: actor.ssh_key,
            vm: actor.vm,
            user: actor.user,
            uid: state.guest.as_ref().and_then(Guest::uid),
            subject: state.subject.clone(),
            peer: actor.peer,
            end,
        }
    }

    fn with<T>(&self, action: impl FnOnce(&mut State) -> T) -> T {
        action(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.start(|_| {});
        self.with(|state| {
            let duration = self.begun.elapsed();
            state.outcome.duration_ms = duration.as_millis() as u64;
            if !state.refused {
                self.metrics
                    .ended(self.actor.verb, &state.outcome.result, duration);
            }
            if let Some(place) = state.end.take() {
                self.send(place, self.event(state, Some(state.outcome.clone())));
            }
        });
    }
}

pub(super) fn cut(mut text: String) -> String {
    if text.len() > MAX_SUBJECT {
        text.truncate(text.floor_char_boundary(MAX_SUBJECT));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_command_line_is_cut() {
        assert!(cut("é".repeat(MAX_SUBJECT)).len() <= MAX_SUBJECT + '…'.len_utf8());
    }
}
