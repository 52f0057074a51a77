//! Sessions: a request becomes (credential → identity → grant → VM, user, verb) here, before anything else happens.
//!
//! ```text
//! credential, VM ─► ask: one question to the store ─► Asked ─┐
//!                                                           ├─► decide ─► Session ─► machines
//! route's verb, Linux user ─────────────────────────────────┘  (decide.rs: the one function)
//! ```
//!
//! A [`Session`] can be had from [`Asked::open`] alone, and machines are reached with a session alone.

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

/// Who asks, proven, and what the store says about the VM that they name.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    principal: Principal,
    target: Target,
    vm: Option<Vm>,
}

impl Asked {
    fn new(principal: Principal, names_vm: bool, found: Option<(Vm, AllowedUsers)>) -> Self {
        let (target, vm) = match found {
            Some((vm, users)) => (Target::Reachable(users), Some(vm)),
            None if names_vm => (Target::Unreachable, None),
            None => (Target::None, None),
        };
        Self {
            principal,
            target,
            vm,
        }
    }

    pub(crate) fn principal(&self) -> &Principal {
        &self.principal
    }

    /// A session, if the principal may.
    pub(crate) fn open(self, verb: Verb, user: Username) -> Result<Session, Refusal> {
        decide(&self.principal, verb, &self.target, &user)?;
        Ok(Session {
            principal: self.principal,
            verb,
            user,
            vm: self.vm,
        })
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

    /// Who holds this secret, and what the request's VM, whatever it is, is to them: one question to the store. A secret with
    /// a wrong checksum is refused without it.
    pub(crate) async fn ask(
        &self,
        secret: Option<&str>,
        vm: Option<&str>,
    ) -> Result<Asked, SessionError> {
        let text = secret.ok_or(Refusal::NoCredential)?;
        let secret = Secret::parse(text).ok_or(Refusal::BadCredential)?;
        let id = vm.and_then(VmId::parse);
        let known = match secret.holder() {
            Holder::AdminKey(key) => {
                let stored = self.store.key(key, id.as_ref()).await?;
                let stored = stored.filter(|stored| stored.hash.is_of(&secret));
                stored.map(|stored| {
                    let found = stored.vm.map(|vm| (vm, AllowedUsers::Any));
                    (Principal::Admin { key: key.clone() }, found)
                })
            }
            Holder::Token(token) => {
                let stored = self.store.token(token, id.as_ref()).await?;
                let stored = stored
                    .filter(|stored| stored.hash.is_of(&secret) && !has_expired(stored.expires_at));
                stored.map(|stored| {
                    let principal = Principal::Identity {
                        identity: stored.identity,
                        credential: Credential::Token(token.clone()),
                    };
                    (principal, stored.granted)
                })
            }
        };
        let (principal, found) = known.ok_or(Refusal::BadCredential)?;
        Ok(Asked::new(principal, vm.is_some(), found))
    }

    /// Who holds this secret.
    pub(crate) async fn authenticate(
        &self,
        secret: Option<&str>,
    ) -> Result<Principal, SessionError> {
        Ok(self.ask(secret, None).await?.principal)
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

    /// A session of one who is known already, if they may. `vm` is what they name, whatever it is.
    pub(crate) async fn open(
        &self,
        principal: Principal,
        verb: Verb,
        vm: Option<&str>,
        user: Username,
    ) -> Result<Session, SessionError> {
        let found = match (&principal, vm.and_then(VmId::parse)) {
            (_, None) => None,
            (Principal::Admin { .. }, Some(id)) => {
                let found = self.store.vm(&id).await?;
                found.map(|vm| (vm, AllowedUsers::Any))
            }
            (Principal::Identity { identity, .. }, Some(id)) => {
                self.store.granted_vm(identity, &id).await?
            }
        };
        Ok(Asked::new(principal, vm.is_some(), found).open(verb, user)?)
    }

    /// Whether what allowed a session still does. Asked again and again while it streams.
    pub(crate) async fn still_stands(&self, session: &Session) -> Result<bool, StoreError> {
        let vm = session.vm.as_ref().map(|vm| &vm.id);
        // Outside: whether the credential stands. Inside: what the VM is to it.
        let found = match &session.principal {
            Principal::Admin { key } => {
                let stored = self.store.key(key, vm).await?;
                stored.map(|stored| stored.vm.map(|vm| (vm, AllowedUsers::Any)))
            }
            Principal::Identity {
                identity,
                credential: Credential::Token(token),
            } => {
                let stored = self.store.token(token, vm).await?;
                let stored = stored.filter(|stored| {
                    stored.identity == *identity && !has_expired(stored.expires_at)
                });
                stored.map(|stored| stored.granted)
            }
            Principal::Identity {
                identity,
                credential: Credential::SshKey(key),
            } => match (self.store.has_ssh_key(identity, key).await?, vm) {
                (false, _) => None,
                (true, None) => Some(None),
                (true, Some(vm)) => Some(self.store.granted_vm(identity, vm).await?),
            },
        };
        let Some(found) = found else {
            return Ok(false);
        };
        let asked = Asked::new(session.principal.clone(), vm.is_some(), found);
        Ok(asked.open(session.verb, session.user.clone()).is_ok())
    }
}

fn has_expired(expires_at: Option<SystemTime>) -> bool {
    expires_at.is_some_and(|end| end <= SystemTime::now())
}
