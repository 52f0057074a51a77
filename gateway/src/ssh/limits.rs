//! How many may connect, and who has to wait: connections not yet logged in, connections of one source and of one
//! credential, and penalties for sources whose logins fail, which double.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use thiserror::Error;

use crate::{sessions::Credential, source::network};

/// Not logged in yet, of all sources: each costs a key exchange and some 300 KiB.
const MAX_WAITING: usize = 256;

/// The first failures of a source cost nothing: people mistype.
const FREE_FAILURES: u32 = 4;

/// The longest that a source has to wait.
const MAX_PENALTY: Duration = Duration::from_secs(600);

/// A failure is forgotten after this time without another one.
const FORGET: Duration = Duration::from_secs(600);

/// What is bounded, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LimitsConfig {
    /// Connections of one source; of IPv6, one /64.
    pub(crate) per_source: usize,
    /// Connections with one token or key.
    pub(crate) per_credential: usize,
    /// For the first failed login that costs something. Zero: none do.
    pub(crate) penalty: Duration,
}

/// Why a connection is not taken. What is said is said to anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum Refused {
    #[error("too many failed logins from this address: wait")]
    Penalty,
    #[error("too many connections from this address")]
    Source,
    #[error("too many connections are waiting to log in")]
    Waiting,
}

impl Refused {
    pub(super) fn code(self) -> &'static str {
        match self {
            Self::Penalty => "SSH_PENALTY",
            Self::Source => "SSH_TOO_MANY_OF_SOURCE",
            Self::Waiting => "SSH_TOO_MANY_WAITING",
        }
    }
}

/// The counts of one gateway. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    config: LimitsConfig,
    counts: Arc<Mutex<Counts>>,
}

#[derive(Debug, Default)]
struct Counts {
    waiting: usize,
    sources: HashMap<IpAddr, Source>,
    credentials: HashMap<Credential, usize>,
}

#[derive(Debug, Default)]
struct Source {
    connections: usize,
    failures: u32,
    last_failure: Option<Instant>,
}

impl Source {
    /// Failures, less those that are forgotten by now.
    fn recent_failures(&self, now: Instant) -> u32 {
        let Some(last) = self.last_failure else {
            return 0;
        };
        let forgotten = now.duration_since(last).as_secs() / FORGET.as_secs();
        self.failures
            .saturating_sub(u32::try_from(forgotten).unwrap_or(u32::MAX))
    }

    fn is_penalised(&self, first: Duration, now: Instant) -> bool {
        let counted = self.recent_failures(now).saturating_sub(FREE_FAILURES);
        let Some(last) = self.last_failure.filter(|_| counted > 0) else {
            return false;
        };
        let doubled = first.saturating_mul(1 << (counted - 1).min(16));
        now.duration_since(last) < doubled.min(MAX_PENALTY)
    }
}

/// A connection's place. Dropping it gives the place back.
#[derive(Debug)]
pub(super) struct Place {
    limits: Limits,
    source: IpAddr,
    waiting: bool,
    credential: Option<Credential>,
}

impl Limits {
    pub(super) fn new(config: LimitsConfig) -> Self {
        Self {
            config,
            counts: Arc::default(),
        }
    }

    /// A place for a connection of `peer`, which has not logged in.
    pub(super) fn admit(&self, peer: IpAddr, now: Instant) -> Result<Place, Refused> {
        let source = network(peer);
        self.with(|counts| {
            let of = counts.sources.entry(source).or_default();
            if of.is_penalised(self.config.penalty, now) {
                return Err(Refused::Penalty);
            }
            if of.connections >= self.config.per_source {
                return Err(Refused::Source);
            }
            if counts.waiting >= MAX_WAITING {
                return Err(Refused::Waiting);
            }
            of.connections += 1;
            counts.waiting += 1;
            Ok(())
        })?;
        Ok(Place {
            limits: self.clone(),
            source,
            waiting: true,
            credential: None,
        })
    }

    /// Forgets sources that have no connection and no failure left.
    pub(super) fn forget_unused(&self, now: Instant) {
        self.with(|counts| {
            counts
                .sources
                .retain(|_, source| source.connections > 0 || source.recent_failures(now) > 0);
        });
    }

    fn with<T>(&self, action: impl FnOnce(&mut Counts) -> T) -> T {
        action(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Place {
    /// `false`: this credential has too many connections.
    pub(super) fn log_in(&mut self, credential: Option<&Credential>) -> bool {
        let limit = self.limits.config.per_credential;
        let taken = self.limits.with(|counts| {
            if let Some(credential) = credential {
                let count = counts.credentials.entry(credential.clone()).or_default();
                if *count >= limit {
                    return false;
                }
                *count += 1;
            }
            counts.waiting -= 1;
            true
        });
        if taken {
            self.waiting = false;
            self.credential = credential.cloned();
        }
        taken
    }

    /// The connection ended without a login although it tried, or took too long.
    pub(super) fn failed(&self, now: Instant) {
        self.limits.with(|counts| {
            let source = counts.sources.entry(self.source).or_default();
            source.failures = source.recent_failures(now).saturating_add(1);
            source.last_failure = Some(now);
        });
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.limits.with(|counts| {
            if self.waiting {
                counts.waiting -= 1;
            }
            if let Some(source) = counts.sources.get_mut(&self.source) {
                source.connections -= 1;
            }
            let Some(credential) = self.credential.take() else {
                return;
            };
            if let Entry::Occupied(mut count) = counts.credentials.entry(credential) {
                *count.get_mut() -= 1;
                if *count.get() == 0 {
                    count.remove();
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::TokenId;

    fn limits() -> Limits {
        Limits::new(LimitsConfig {
            per_source: 2,
            per_credential: 1,
            penalty: Duration::from_secs(5),
        })
    }

    fn one() -> IpAddr {
        "192.0.2.1".parse().unwrap()
    }

    #[test]
    fn a_source_has_so_many_places_and_gets_them_back() {
        let (limits, now) = (limits(), Instant::now());
        let first = limits.admit(one(), now).unwrap();
        let _second = limits.admit(one(), now).unwrap();
        assert_eq!(limits.admit(one(), now).unwrap_err(), Refused::Source);
        limits.admit("192.0.2.2".parse().unwrap(), now).unwrap();
        drop(first);
        limits.admit(one(), now).unwrap();
    }

    #[test]
    fn a_credential_has_so_many_connections() {
        let (limits, now) = (limits(), Instant::now());
        let token = Credential::Token(TokenId::random());
        let mut first = limits.admit(one(), now).unwrap();
        assert!(first.log_in(Some(&token)));
        let mut second = limits.admit(one(), now).unwrap();
        assert!(!second.log_in(Some(&token)));
        drop(first);
        assert!(second.log_in(Some(&token)));
        drop(second);
        let counts = limits.counts.lock().unwrap();
        assert!(counts.waiting == 0 && counts.credentials.is_empty());
    }

    #[test]
    fn penalties_double_and_are_forgotten() {
        let (limits, mut now) = (limits(), Instant::now());
        for _ in 0..FREE_FAILURES {
            limits.admit(one(), now).unwrap().failed(now);
        }
        for expected in [5, 10, 20] {
            limits.admit(one(), now).unwrap().failed(now);
            now += Duration::from_secs(expected - 1);
            assert_eq!(limits.admit(one(), now).unwrap_err(), Refused::Penalty);
            now += Duration::from_secs(1);
        }
        limits.admit(one(), now).unwrap();
        now += FORGET * 20;
        limits.admit(one(), now).unwrap().failed(now);
        limits.admit(one(), now).unwrap();
        limits.forget_unused(now + FORGET * 2);
        assert!(limits.counts.lock().unwrap().sources.is_empty());
    }
}
