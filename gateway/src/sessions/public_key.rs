//! An SSH public key as a credential: which are taken, and what they are known by.

use russh::keys::{
    Algorithm, HashAlg,
    ssh_key::{self, PublicKey as AnyPublicKey},
};
use thiserror::Error;

/// A line of authorized_keys(5) is some hundred bytes.
const MAX_LENGTH: usize = 4096;

/// What ssh-keygen prints: `SHA256:` and the digest of the key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Fingerprint(String);

/// A key that may be registered.
#[derive(Clone, Debug)]
pub(crate) struct PublicKey {
    fingerprint: Fingerprint,
    text: String,
    comment: String,
}

/// Why a key is not taken.
#[derive(Debug, Error)]
pub(crate) enum PublicKeyError {
    #[error("this is no public key as ssh-keygen writes it (one line: type, key, comment)")]
    NoKey(#[source] Option<ssh_key::Error>),
    #[error("keys of the type {0} are not taken: use ssh-ed25519 or ecdsa-sha2-nistp256")]
    Type(String),
}

impl Fingerprint {
    pub(crate) fn of(key: &AnyPublicKey) -> Self {
        Self(key.fingerprint(HashAlg::Sha256).to_string())
    }

    /// As it is stored.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        text.starts_with("SHA256:").then(|| Self(text.into()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl PublicKey {
    /// A line of a `.pub` file. Options before the type, as authorized_keys has them, are not for us.
    pub(crate) fn parse(line: &str) -> Result<Self, PublicKeyError> {
        let line = line.trim();
        if line.len() > MAX_LENGTH || line.contains(['\n', '\r']) {
            return Err(PublicKeyError::NoKey(None));
        }
        let mut key =
            AnyPublicKey::from_openssh(line).map_err(|error| PublicKeyError::NoKey(Some(error)))?;
        if !is_taken(&key.algorithm()) {
            return Err(PublicKeyError::Type(key.algorithm().to_string()));
        }
        let comment = key.comment().to_string();
        key.set_comment("");
        let text = key
            .to_openssh()
            .map_err(|error| PublicKeyError::NoKey(Some(error)))?;
        Ok(Self {
            fingerprint: Fingerprint::of(&key),
            text: text.trim().into(),
            comment,
        })
    }

    pub(crate) fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    /// As in authorized_keys(5), without the comment.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn comment(&self) -> &str {
        &self.comment
    }
}

/// Elliptic curves, also those of security keys. No DSA, and no RSA: its implementation here has an open advisory.
fn is_taken(algorithm: &Algorithm) -> bool {
    matches!(
        algorithm,
        Algorithm::Ed25519
            | Algorithm::Ecdsa { .. }
            | Algorithm::SkEd25519
            | Algorithm::SkEcdsaSha2NistP256
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKglYHQTkyry0gzaiL3YWUPFbvof5pqeuRE+cAxCSHGR";

    #[test]
    fn a_key_is_known_by_its_fingerprint_whatever_its_comment() {
        let plain = PublicKey::parse(KEY).unwrap();
        let named = PublicKey::parse(&format!("{KEY} alice@laptop\n")).unwrap();
        assert_eq!(plain.fingerprint(), named.fingerprint());
        assert!(plain.fingerprint().as_str().starts_with("SHA256:"));
        assert_eq!((named.text(), named.comment()), (KEY, "alice@laptop"));
    }

    #[test]
    fn what_is_no_key_of_a_modern_type_is_refused() {
        let rsa = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAQQC7";
        for text in [
            "",
            "ssh-ed25519",
            "ssh-ed25519 AAAA",
            rsa,
            &format!("{KEY}\n{KEY}"),
        ] {
            assert!(PublicKey::parse(text).is_err(), "{text}");
        }
    }
}
