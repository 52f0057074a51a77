//! Who acts, where and as whom, as far as that is known before anything is done.

use super::operation::cut;
use crate::{
    ids::{IdentityId, KeyId, SshKeyId, TokenId},
    printable,
    sessions::{Credential, Principal, Reach, Session, Verb},
};

/// Who acts, for the log.
#[derive(Clone, Debug)]
pub(crate) struct Actor {
    pub(super) verb: &'static str,
    pub(super) admin_key: Option<KeyId>,
    pub(super) identity: Option<IdentityId>,
    pub(super) token: Option<TokenId>,
    pub(super) ssh_key: Option<SshKeyId>,
    pub(super) vm: Option<String>,
    pub(super) user: Option<String>,
    pub(super) peer: String,
}

impl Actor {
    /// Of a request, permitted or refused; `vm` is what it named.
    pub(crate) fn new(
        principal: &Principal,
        verb: Verb,
        vm: Option<&str>,
        user: &str,
        peer: String,
    ) -> Self {
        let (admin_key, identity, credential) = match principal {
            Principal::Admin { key } => (Some(key.clone()), None, None),
            Principal::Identity {
                identity,
                credential,
            } => (None, Some(identity.clone()), Some(credential.clone())),
        };
        let (token, ssh_key) = match credential {
            None => (None, None),
            Some(Credential::Token(token)) => (Some(token), None),
            Some(Credential::SshKey(key)) => (None, Some(key)),
        };
        let as_user = verb.reach() == Reach::VmAsUser;
        Self {
            verb: verb.as_str(),
            admin_key,
            identity,
            token,
            ssh_key,
            // What a stranger calls a VM: PostgreSQL stores no NUL.
            vm: vm.map(|vm| cut(printable::text(vm))),
            user: as_user.then(|| user.to_owned()),
            peer,
        }
    }

    /// Of a session.
    pub(crate) fn of(session: &Session, peer: String) -> Self {
        let vm = session.vm().map(|vm| vm.id.as_str());
        Self::new(
            session.principal(),
            session.verb(),
            vm,
            session.user().as_str(),
            peer,
        )
    }
}
