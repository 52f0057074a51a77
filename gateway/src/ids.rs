//! The names of things: newtypes, so that two of them cannot be swapped, and how new ones are made.
//!
//! All are 20 characters of `[a-z0-9]`, about 103 bits: never guessed, never met twice, and safe in a shell, a URL and an
//! SSH user name. They are names and no secrets.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How long every id is.
const LENGTH: usize = 20;

const LOWER_ALPHANUMERIC: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub(crate) struct $name(String);

        impl $name {
            /// A new one.
            pub(crate) fn random() -> Self {
                Self(random_text(LENGTH, LOWER_ALPHANUMERIC))
            }

            /// `None` for what cannot be an id: it names nothing.
            #[allow(dead_code, reason = "not every kind is read back")]
            pub(crate) fn parse(text: &str) -> Option<Self> {
                is_id(text).then(|| Self(text.into()))
            }

            pub(crate) fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

ids! {
    /// A machine.
    VmId,
    /// One run of a machine: new with each start.
    InstanceId,
    /// Who holds tokens.
    IdentityId,
    /// A token's public part.
    TokenId,
    /// An admin key's public part.
    KeyId,
    /// An SSH public key of an identity.
    SshKeyId,
    /// A grant.
    GrantId,
    /// A terminal that nobody named.
    TerminalId,
    /// One operation in the audit log.
    OperationId,
    /// A gateway process: which one runs a machine.
    GatewayId,
    /// All that one store holds.
    AccountId,
}

fn is_id(text: &str) -> bool {
    text.len() == LENGTH
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

/// Characters of `alphabet`, each as likely as the others.
pub(crate) fn random_text(length: usize, alphabet: &[u8]) -> String {
    // A byte at or above this would favour the alphabet's first characters.
    let fair = 256 - 256 % alphabet.len();
    let mut text = String::with_capacity(length);
    while text.len() < length {
        let mut bytes = [0; 64];
        getrandom::fill(&mut bytes).expect("the kernel gives random bytes (getrandom(2))");
        let usable = bytes.iter().filter(|&&byte| usize::from(byte) < fair);
        let characters =
            usable.map(|&byte| char::from(alphabet[usize::from(byte) % alphabet.len()]));
        text.extend(characters.take(length - text.len()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_id_is_one_and_no_other() {
        let (one, other) = (VmId::random(), VmId::random());
        assert_ne!(one, other);
        assert_eq!(VmId::parse(one.as_str()), Some(one));
    }

    #[test]
    fn what_cannot_be_an_id_is_none() {
        for text in [
            "",
            "short",
            "ABCDEFGHIJKLMNOPQRST",
            "aaaaaaaaaaaaaaaaaaa/",
            "aaaaaaaaaaaaaaaaaaaaa",
        ] {
            assert_eq!(VmId::parse(text), None, "{text}");
        }
    }

    #[test]
    fn each_character_of_the_alphabet_comes() {
        let text = random_text(4000, LOWER_ALPHANUMERIC);
        assert_eq!(text.len(), 4000);
        assert!(
            LOWER_ALPHANUMERIC
                .iter()
                .all(|&byte| text.contains(char::from(byte)))
        );
    }
}
