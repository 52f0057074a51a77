//! Logging in: from a user name and a secret, or a proven key, to a decision. Whatever is wrong with it, the answer is the
//! same, and comes at the same time.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use russh::keys::PublicKey;

use super::{Parts, destination::Destination, failure::full};
use crate::{
    audit::Actor,
    ids::VmId,
    sessions::{Fingerprint, Principal, Refusal, Session, SessionError, Verb},
};

/// A refusal comes at the end of one of these, counted from the try: longer than any of our looks at the store, which
/// differ by what was wrong.
const PACE: Duration = Duration::from_millis(300);

/// useradd(8)'s bound, and shorter than any secret of ours.
const MAX_USER: usize = 32;

/// What refused logins are called in the audit log and in the metrics.
const REFUSED: &str = "SSH_LOGIN_REFUSED";

/// One connection's logins.
#[derive(Debug)]
pub(super) struct Logins {
    parts: Parts,
    peer: SocketAddr,
    /// A wrong secret was shown, or a key proven that is nobody's.
    pub(super) has_failed: bool,
}

impl Logins {
    pub(super) fn new(parts: Parts, peer: SocketAddr) -> Self {
        Self {
            parts,
            peer,
            has_failed: false,
        }
    }

    /// With the secret in the name, else with `password`. Without either nothing was tried, and the answer is at once.
    pub(super) async fn with_secret(
        &mut self,
        name: &str,
        password: Option<&str>,
    ) -> Option<Session> {
        let begun = Instant::now();
        let destination = Destination::parse(name);
        let named = destination.as_ref().and_then(|it| it.secret.as_deref());
        let secret = match named.or(password) {
            Some(secret) => secret.to_owned(),
            None if destination.is_some() && password.is_none() => return None,
            None => String::new(),
        };
        let principal = self.parts.sessions.authenticate(Some(&secret)).await;
        self.conclude(begun, destination, principal).await
    }

    /// With a key whose owner has proven to have it.
    pub(super) async fn with_key(&mut self, name: &str, key: &PublicKey) -> Option<Session> {
        let begun = Instant::now();
        let principal = self.owner(key).await;
        self.conclude(begun, Destination::parse(name), principal)
            .await
    }

    /// Whether a proof that this key is there would be a login. Nothing is noted: a client offers all that it has.
    pub(super) async fn would_take(&self, name: &str, key: &PublicKey) -> bool {
        let begun = Instant::now();
        let opened = match (Destination::parse(name), self.owner(key).await) {
            (Some(destination), Ok(principal)) => self.open(principal, &destination).await,
            (None, Ok(_)) => Err(Refusal::NoAccess.into()),
            (_, Err(error)) => Err(error),
        };
        if opened.is_err() {
            pace(begun).await;
        }
        opened.is_ok()
    }

    async fn owner(&self, key: &PublicKey) -> Result<Principal, SessionError> {
        let fingerprint = Fingerprint::of(key);
        self.parts.sessions.authenticate_key(&fingerprint).await
    }

    async fn open(
        &self,
        principal: Principal,
        destination: &Destination,
    ) -> Result<Session, SessionError> {
        let (vm, user) = (destination.vm.as_str(), destination.user.clone());
        self.parts
            .sessions
            .open(principal, Verb::Ssh, Some(vm), user)
            .await
    }

    async fn conclude(
        &mut self,
        begun: Instant,
        destination: Option<Destination>,
        principal: Result<Principal, SessionError>,
    ) -> Option<Session> {
        let opened = match (destination, principal) {
            (Some(destination), Ok(principal)) => {
                let opened = self.open(principal.clone(), &destination).await;
                if let Err(SessionError::Refused(_)) = &opened {
                    self.note_refused(&principal, &destination).await;
                }
                opened
            }
            (None, Ok(_)) => Err(Refusal::NoAccess.into()),
            (_, Err(error)) => Err(error),
        };
        match opened {
            Ok(session) => Some(session),
            Err(error) => {
                if let SessionError::Store(error) = &error {
                    tracing::error!(error = %full(error), "the database failed");
                } else {
                    self.has_failed = true;
                }
                self.parts.metrics.refused(REFUSED);
                pace(begun).await;
                None
            }
        }
    }

    /// Somebody whom we know, where they may not go.
    async fn note_refused(&self, principal: &Principal, destination: &Destination) {
        // Whoever mixes up the parts of the name may have written a secret in them.
        let vm = VmId::parse(&destination.vm);
        let user = destination.user.as_str();
        let user = if user.len() <= MAX_USER { user } else { "?" };
        let peer = self.peer.ip().to_string();
        let vm = vm.as_ref().map(VmId::as_str);
        let actor = Actor::new(principal, Verb::Ssh, vm, user, peer);
        self.parts.audit.refused(actor, REFUSED).await;
    }
}

/// Until the next end of a [`PACE`].
async fn pace(begun: Instant) {
    let passed = begun.elapsed().as_nanos() / PACE.as_nanos();
    let paces = u32::try_from(passed + 1).unwrap_or(u32::MAX);
    tokio::time::sleep_until((begun + PACE * paces).into()).await;
}
