//! What a connection that has logged in may use: each use is decided anew, noted in the audit log, and gets the guest awake.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use guestline_client::{Endpoint, Username, Vm as Guest};
use tokio_util::sync::CancellationToken;

use super::{Parts, failure::Failure};
use crate::{
    audit::{Actor, Operation},
    ids::VmId,
    machines::AwakeGuest,
    sessions::{Principal, Session, Verb},
    store::VmState,
};

/// The result of a use that nobody ended: the client closed its channel.
const ABANDONED: &str = "abandoned";

/// One login's access to one VM as one Linux user.
#[derive(Debug)]
pub(super) struct Access {
    parts: Parts,
    principal: Principal,
    vm: VmId,
    user: Username,
    peer: SocketAddr,
    ending: Ending,
    /// This login's own connection to the guest: its streams take nobody else's share.
    guest: Mutex<Option<(Endpoint, Guest)>>,
}

/// Whether the connection is to end, and why. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Ending {
    token: CancellationToken,
    reason: Arc<OnceLock<&'static str>>,
}

impl Ending {
    /// The first reason counts.
    pub(super) fn end(&self, reason: &'static str) {
        let _ = self.reason.set(reason);
        self.token.cancel();
    }

    pub(super) async fn ended(&self) {
        self.token.cancelled().await;
    }

    fn reason(&self) -> Option<&'static str> {
        self.reason.get().copied()
    }
}

/// A permitted use. Dropping it is its end in the audit log.
#[derive(Debug)]
pub(super) struct Permitted {
    pub(super) session: Session,
    pub(super) operation: Operation,
    ending: Ending,
    result: Option<String>,
}

impl Permitted {
    /// "ok" or the code of an error.
    pub(super) fn set_result(&mut self, result: impl Into<String>) {
        self.result = Some(result.into());
    }

    /// Whether the VM slept when this was permitted.
    pub(super) fn is_asleep(&self) -> bool {
        self.session
            .vm()
            .is_some_and(|vm| vm.state != VmState::Running)
    }
}

impl Drop for Permitted {
    fn drop(&mut self) {
        let ended = self.ending.reason().unwrap_or(ABANDONED);
        let result = self.result.take().unwrap_or_else(|| ended.into());
        self.operation.set_result(result);
    }
}

/// The guest of a permitted use. The machine stays awake while this lives.
#[derive(Debug)]
pub(super) struct Reached {
    pub(super) guest: Guest,
    awake: AwakeGuest,
}

impl Reached {
    /// Where commands and relative paths begin, if that is not the user's home.
    pub(super) fn workdir(&self) -> Option<&str> {
        self.awake.workdir()
    }
}

impl Access {
    /// `session` is that of the login itself.
    pub(super) fn new(
        parts: Parts,
        session: &Session,
        vm: VmId,
        peer: SocketAddr,
        ending: Ending,
    ) -> Self {
        Self {
            parts,
            principal: session.principal().clone(),
            vm,
            user: session.user().clone(),
            peer,
            ending,
            guest: Mutex::default(),
        }
    }

    pub(super) fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Decides by the one function, and begins an entry in the audit log.
    pub(super) async fn begin(
        &self,
        verb: Verb,
        subject: Option<String>,
    ) -> Result<Permitted, Failure> {
        let (vm, user) = (self.vm.as_str(), self.user.clone());
        let opened = self
            .parts
            .sessions
            .open(self.principal.clone(), verb, Some(vm), user)
            .await;
        let session = match opened {
            Ok(session) => session,
            Err(error) => {
                let failure = Failure::from(error);
                self.parts.metrics.refused(failure.code);
                self.parts
                    .audit
                    .refused(self.actor(verb), failure.code)
                    .await;
                return Err(failure);
            }
        };
        let operation = self.note(verb).await;
        let operation =
            operation.ok_or_else(|| Failure::new("INTERNAL_ERROR", "the gateway is ending"))?;
        match subject {
            Some(subject) => operation.begin(subject),
            None => operation.begin_unnamed(),
        }
        Ok(Permitted {
            session,
            operation,
            ending: self.ending.clone(),
            result: None,
        })
    }

    /// An entry in the audit log for what is a part of a permitted use that has reached the guest: one file of many.
    pub(super) async fn note_part(&self, verb: Verb) -> Option<Operation> {
        let operation = self.note(verb).await?;
        let kept = self.guest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, guest)) = &*kept {
            operation.acts_through(guest);
        }
        Some(operation)
    }

    async fn note(&self, verb: Verb) -> Option<Operation> {
        self.parts.audit.operation(self.actor(verb)).await
    }

    fn actor(&self, verb: Verb) -> Actor {
        let (vm, peer) = (self.vm.as_str(), self.peer.ip().to_string());
        Actor::new(&self.principal, verb, Some(vm), self.user.as_str(), peer)
    }

    /// The guest, woken if it sleeps.
    pub(super) async fn reach(&self, permitted: &Permitted) -> Result<Reached, Failure> {
        let (session, operation) = (&permitted.session, &permitted.operation);
        let awake = self.parts.machines.guest(session, operation).await?;
        let endpoint = awake.vm().endpoint().clone();
        let mut kept = self.guest.lock().unwrap_or_else(PoisonError::into_inner);
        let guest = match &*kept {
            Some((at, guest)) if *at == endpoint => guest.clone(),
            _ => {
                let guest = awake.vm().user(self.user.as_str());
                *kept = Some((endpoint, guest.clone()));
                guest
            }
        };
        drop(kept);
        operation.acts_through(&guest);
        Ok(Reached { guest, awake })
    }
}
