//! The decision: who may do what, where, as whom. One function, without I/O; everything that reaches a machine went
//! through it.

use guestline_client::Username;
use thiserror::Error;

use super::{Principal, Reach, Verb};
use crate::store::AllowedUsers;

/// What the store says about the VM that a request names.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// The request names none.
    None,
    /// It is not there, or it was not granted: an identity cannot tell which.
    Unreachable,
    /// It is there, and reached as these users: any, for the admin.
    Reachable(AllowedUsers),
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum Refusal {
    #[error("no credential")]
    NoCredential,
    #[error("the API key or access token is not valid")]
    BadCredential,
    #[error("this needs an admin key")]
    AdminOnly,
    /// For an identity. The same words whatever the reason.
    #[error("no access to this VM as this user")]
    NoAccess,
    /// For the admin, who may know.
    #[error("there is no such VM")]
    NoSuchVm,
}

/// Allows or refuses.
pub(crate) fn decide(
    principal: &Principal,
    verb: Verb,
    target: &Target,
    user: &Username,
) -> Result<(), Refusal> {
    let reach = verb.reach();
    let is_admin = matches!(principal, Principal::Admin { .. });
    match (reach, target) {
        (Reach::Admin, _) if !is_admin => Err(Refusal::AdminOnly),
        (Reach::Own, _) | (Reach::Admin, Target::None) => Ok(()),
        (_, Target::None | Target::Unreachable) if is_admin => Err(Refusal::NoSuchVm),
        (_, Target::None | Target::Unreachable) => Err(Refusal::NoAccess),
        (_, Target::Reachable(users)) => {
            let allowed = match reach {
                Reach::VmAsUser => users.has(user.as_str()),
                Reach::Own | Reach::Admin | Reach::Vm => !users.is_nobody(),
            };
            if allowed {
                Ok(())
            } else {
                Err(Refusal::NoAccess)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{IdentityId, KeyId, TokenId};
    use crate::sessions::Credential;

    fn admin() -> Principal {
        Principal::Admin {
            key: KeyId::random(),
        }
    }

    fn identity() -> Principal {
        Principal::Identity {
            identity: IdentityId::random(),
            credential: Credential::Token(TokenId::random()),
        }
    }

    fn only(users: &[&str]) -> Target {
        Target::Reachable(AllowedUsers::Only(
            users.iter().map(|&user| user.into()).collect(),
        ))
    }

    /// Requirement 34, whole: the rule is written a second time here, as a table.
    #[test]
    fn allowed_if_and_only_if_the_grant_says_so() {
        let for_tokens = [
            Verb::WhoAmI,
            Verb::ListVms,
            Verb::Info,
            Verb::Start,
            Verb::ReadFile,
            Verb::WriteFile,
            Verb::WatchFiles,
            Verb::Exec,
            Verb::Services,
            Verb::Terminals,
            Verb::Ssh,
            Verb::Shell,
            Verb::Sftp,
            Verb::Forward,
        ];
        let without_user = [Verb::WhoAmI, Verb::ListVms, Verb::Info, Verb::Start];
        let without_vm = [Verb::WhoAmI, Verb::ListVms];
        for verb in Verb::ALL {
            for user in ["root", "alice", "bob"] {
                let name = Username::try_from(user).unwrap();
                let targets: [(Target, &[&str]); 5] = [
                    (Target::Unreachable, &[]),
                    (only(&[]), &[]),
                    (only(&["alice"]), &["alice"]),
                    (only(&["alice", "root"]), &["alice", "root"]),
                    (
                        Target::Reachable(AllowedUsers::Any),
                        &["root", "alice", "bob"],
                    ),
                ];
                for (target, users) in targets {
                    let expected = for_tokens.contains(&verb)
                        && (without_vm.contains(&verb)
                            || users.contains(&user)
                            || (without_user.contains(&verb) && !users.is_empty()));
                    let answer = decide(&identity(), verb, &target, &name);
                    assert_eq!(answer.is_ok(), expected, "{verb:?} {user} {target:?}");
                }
                let any = Target::Reachable(AllowedUsers::Any);
                assert_eq!(decide(&admin(), verb, &any, &name), Ok(()));
            }
        }
    }

    #[test]
    fn only_the_admin_learns_that_a_vm_is_not_there() {
        let root = Username::root();
        let answer = decide(&admin(), Verb::Exec, &Target::Unreachable, &root);
        assert_eq!(answer, Err(Refusal::NoSuchVm));
        let unknown = decide(&identity(), Verb::Exec, &Target::Unreachable, &root);
        let outside = decide(&identity(), Verb::Exec, &only(&["alice"]), &root);
        assert_eq!(
            (unknown, outside),
            (Err(Refusal::NoAccess), Err(Refusal::NoAccess))
        );
    }
}
