//! Operations that last: each holds a lease, and every second all leases are held against the store. What a revoked token,
//! a deleted identity or a changed grant no longer allows is cut, on every gateway, within [`CUT_AFTER`]. When a gateway
//! ends, it waits for its leases, and cuts those that are left.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    sync::{Notify, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{Session, Sessions};

/// Between two looks at the store.
const INTERVAL: Duration = Duration::from_secs(1);

/// An answer that takes longer is none.
const PATIENCE: Duration = Duration::from_secs(2);

/// A lease that could not be verified for this long, because the database does not answer, is cut too: what may have been
/// revoked does not go on.
const CUT_AFTER: Duration = Duration::from_secs(5);

/// Why a lease was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// What allowed the session does so no more, or nobody could tell for too long.
    Revoked,
    /// The gateway ends.
    Ending,
}

impl Cut {
    /// For the audit log.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Revoked => "revoked",
            Self::Ending => "ending",
        }
    }
}

/// The leases of this gateway.
#[derive(Clone, Debug, Default)]
pub(crate) struct LiveSessions {
    leases: Arc<Mutex<Leases>>,
    /// Told when the last lease is given back.
    none_left: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Leases {
    next: u64,
    held: HashMap<u64, Held>,
    closed: bool,
}

#[derive(Clone, Debug)]
struct Held {
    session: Session,
    verified: Instant,
    cut: watch::Sender<Option<Cut>>,
}

/// An operation's right to go on. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Lease {
    number: u64,
    cut: watch::Receiver<Option<Cut>>,
    live: LiveSessions,
}

impl Lease {
    /// Ends when the operation must. Cancel-safe.
    pub(crate) async fn cut(&self) -> Cut {
        let mut cut = self.cut.clone();
        // The sender is held for as long as this lease is.
        let why = cut.wait_for(Option::is_some).await;
        why.ok().and_then(|why| *why).unwrap_or(Cut::Ending)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let last = self.live.with(|leases| {
            leases.held.remove(&self.number);
            leases.held.is_empty()
        });
        if last {
            self.live.none_left.notify_waiters();
        }
    }
}

impl LiveSessions {
    pub(crate) fn lease(&self, session: &Session) -> Lease {
        let (sender, cut) = watch::channel(None);
        let held = Held {
            session: session.clone(),
            verified: Instant::now(),
            cut: sender,
        };
        let number = self.with(|leases| {
            if leases.closed {
                held.cut.send_replace(Some(Cut::Ending));
            }
            leases.next += 1;
            leases.held.insert(leases.next, held);
            leases.next
        });
        Lease {
            number,
            cut,
            live: self.clone(),
        }
    }

    /// How many operations last at the moment.
    pub(crate) fn count(&self) -> usize {
        self.with(|leases| leases.held.len())
    }

    /// Waits until no operation lasts.
    pub(crate) async fn drained(&self) {
        loop {
            let none_left = self.none_left.notified();
            tokio::pin!(none_left);
            // From here on a notification counts, so that none is missed after the look.
            none_left.as_mut().enable();
            if self.count() == 0 {
                return;
            }
            none_left.await;
        }
    }

    /// Cuts all, and those to come: the gateway ends.
    pub(crate) fn close(&self) {
        self.with(|leases| {
            leases.closed = true;
            for held in leases.held.values() {
                held.cut.send_replace(Some(Cut::Ending));
            }
        });
    }

    /// Verifies until `stop`.
    pub(crate) async fn watch(self, sessions: Sessions, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => self.verify(&sessions).await,
            }
        }
    }

    async fn verify(&self, sessions: &Sessions) {
        let held: Vec<(u64, Held)> = self.with(|leases| {
            leases
                .held
                .iter()
                .map(|(number, held)| (*number, held.clone()))
                .collect()
        });
        for (number, held) in held {
            let asked = Instant::now();
            let answer = timeout(PATIENCE, sessions.still_stands(&held.session)).await;
            match answer {
                Ok(Ok(true)) => self.with(|leases| {
                    if let Some(held) = leases.held.get_mut(&number) {
                        held.verified = asked;
                    }
                }),
                Ok(Ok(false)) => {
                    held.cut.send_replace(Some(Cut::Revoked));
                }
                Ok(Err(_)) | Err(_) => {
                    tracing::warn!(
                        "the database does not answer: a live session could not be verified"
                    );
                    self.cut_unverified();
                    return;
                }
            }
        }
    }

    fn cut_unverified(&self) {
        self.with(|leases| {
            for held in leases
                .held
                .values()
                .filter(|held| held.verified.elapsed() >= CUT_AFTER)
            {
                held.cut.send_replace(Some(Cut::Revoked));
            }
        });
    }

    fn with<T>(&self, action: impl FnOnce(&mut Leases) -> T) -> T {
        action(&mut self.leases.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
