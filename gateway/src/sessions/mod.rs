//! Sessions: a request becomes (credential → identity → grant → VM, user, verb) here, before anything else happens.
//!
//! ```text
//! credential ─► authenticate ─► principal ─┐
//!                                          ├─► look up ─► decide ─► Session ─► machines
//! route's verb, VM, Linux user ────────────┘             (decide.rs: the one function)
//! ```
//!
//! A [`Session`] can be had from [`Sessions::open`] alone, and machines are reached with a session alone.

mod decide;
mod live;
mod public_key;
mod secret;
mod verb;

use std::time::SystemTime;

use guestline_client::Username;
use thiserror::Error;

pub(crate) use decide::{Refusal, Target, decide};
pub(crate) use live::{Cut, Lease, LiveSessions};
pub(crate) use public_key::{Fingerprint, PublicKey};
pub(crate) use secret::{Holder, Secret, SecretHash};
pub(crate) use verb::{Reach, Verb};

use crate::{
    ids::{IdentityId, KeyId, SshKeyId, TokenId, VmId},
    store::{AllowedUsers, Store, StoreError, Vm},
};

/// Who asks, proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Principal {
    Admin {
        key: KeyId,
    },
    Identity {
        identity: IdentityId,
        credential: Credential,
    },
}

/// What an identity proved itself with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Credential {
    Token(TokenId),
    /// Over SSH alone.
    SshKey(SshKeyId),
}

/// A permitted operation: who, what, where, as whom.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    principal: Principal,
    verb: Verb,
    user: Username,
    vm: Option<Vm>,
}

impl Session {
    pub(crate) fn principal(&self) -> &Principal {
        &self.principal
    }

    pub(crate) fn verb(&self) -> Verb {
        self.verb
    }

    /// The Linux user that the operation acts as.
    pub(crate) fn user(&self) -> &Username {
        &self.user
    }

    /// As it was when the session was opened; absent where the route names none.
    pub(crate) fn vm(&self) -> Option<&Vm> {
        self.vm.as_ref()
    }

    /// Whether who has it may do that too, where it is the admin's alone.
    pub(crate) fn check_admin(&self, verb: Verb) -> Result<(), Refusal> {
        decide(&self.principal, verb, &Target::None, &self.user)
    }
}

/// Why no session came about.
#[derive(Debug, Error)]
pub(crate) enum SessionError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Opens sessions.
#[derive(Clone, Debug)]
pub(crate) struct Sessions {
    store: Store,
}

impl Sessions {
    pub(crate) fn new(store: Store) -> Self {
        Self { store }
    }

    /// Who holds this secret. A secret with a wrong checksum is refused without asking the store.
    pub(crate) async fn authenticate(
        &self,
        secret: Option<&str>,
    ) -> Result<Principal, SessionError> {
        let text = secret.ok_or(Refusal::NoCredential)?;
        let secret = Secret::parse(text).ok_or(Refusal::BadCredential)?;
        let found = match secret.holder() {
            Holder::AdminKey(key) => {
                let hash = self.store.key(key).await?;
                let valid = hash.is_some_and(|hash| hash.is_of(&secret));
                valid.then(|| Principal::Admin { key: key.clone() })
            }
            Holder::Token(token) => {
                let stored = self.store.token(token).await?;
                let valid = stored
                    .filter(|stored| stored.hash.is_of(&secret) && !has_expired(stored.expires_at));
                valid.map(|stored| Principal::Identity {
                    identity: stored.identity,
                    credential: Credential::Token(token.clone()),
                })
            }
        };
        Ok(found.ok_or(Refusal::BadCredential)?)
    }

    /// Whose public key this is. That its owner is there, the caller has proven or still has to.
    pub(crate) async fn authenticate_key(
        &self,
        fingerprint: &Fingerprint,
    ) -> Result<Principal, SessionError> {
        let found = self.store.ssh_key_by_fingerprint(fingerprint).await?;
        let (id, identity) = found.ok_or(Refusal::BadCredential)?;
        Ok(Principal::Identity {
            identity,
            credential: Credential::SshKey(id),
        })
    }

    /// A session, if the principal may. `vm` is what the request names, whatever it is.
    pub(crate) async fn open(
        &self,
        principal: Principal,
        verb: Verb,
        vm: Option<&str>,
        user: Username,
    ) -> Result<Session, SessionError> {
        let (target, vm) = self.look_up(&principal, vm).await?;
        decide(&principal, verb, &target, &user)?;
        Ok(Session {
            principal,
            verb,
            user,
            vm,
        })
    }

    /// Whether what allowed a session still does. Asked again and again while it streams.
    pub(crate) async fn still_stands(&self, session: &Session) -> Result<bool, StoreError> {
        let proven = match &session.principal {
            Principal::Admin { key } => self.store.key(key).await?.is_some(),
            Principal::Identity {
                identity,
                credential: Credential::Token(token),
            } => {
                let stored = self.store.token(token).await?;
                stored.is_some_and(|stored| {
                    stored.identity == *identity && !has_expired(stored.expires_at)
                })
            }
            Principal::Identity {
                identity,
                credential: Credential::SshKey(key),
            } => self.store.has_ssh_key(identity, key).await?,
        };
        if !proven {
            return Ok(false);
        }
        let vm = session.vm.as_ref().map(|vm| vm.id.as_str());
        let (target, _) = self.look_up(&session.principal, vm).await?;
        Ok(decide(&session.principal, session.verb, &target, &session.user).is_ok())
    }

    async fn look_up(
        &self,
        principal: &Principal,
        vm: Option<&str>,
    ) -> Result<(Target, Option<Vm>), StoreError> {
        let Some(name) = vm else {
            return Ok((Target::None, None));
        };
        let Some(id) = VmId::parse(name) else {
            return Ok((Target::Unreachable, None));
        };
        let found = match principal {
            Principal::Admin { .. } => self.store.vm(&id).await?.map(|vm| (vm, AllowedUsers::Any)),
            Principal::Identity { identity, .. } => self.store.granted_vm(identity, &id).await?,
        };
        Ok(match found {
            Some((vm, users)) => (Target::Reachable(users), Some(vm)),
            None => (Target::Unreachable, None),
        })
    }
}

fn has_expired(expires_at: Option<SystemTime>) -> bool {
    expires_at.is_some_and(|end| end <= SystemTime::now())
}
