//! What a token and an admin key look like, and what is kept of them.
//!
//! ```text
//! gl_  abcdefghij0123456789  _  <43 characters: 256 bits>  <6 characters: checksum>
//! glk_ the same for an admin key
//! ```
//!
//! All of `[A-Za-z0-9_]`: safe in a shell, a URL and an SSH user name. The prefix lets secret scanners find it; the checksum
//! lets us refuse a typo without asking the store.

use std::fmt;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::ids::{KeyId, TokenId, random_text};

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

const TOKEN_PREFIX: &str = "gl_";
const KEY_PREFIX: &str = "glk_";

/// 62^43 is a little more than 2^256.
const RANDOM_LENGTH: usize = 43;
const CHECKSUM_LENGTH: usize = 6;

/// Whose secret it is: the public part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    Token(TokenId),
    AdminKey(KeyId),
}

/// A token or an admin key, whole. Shown once, and never stored or printed.
#[derive(Clone)]
pub(crate) struct Secret {
    holder: Holder,
    text: String,
}

/// What is stored: plain SHA-256. The slow hashes are for passwords, which can be guessed; 256 random bits cannot, and a
/// slow hash would only make every request slow.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct SecretHash([u8; 32]);

impl Secret {
    pub(crate) fn new_token() -> Self {
        Self::make(Holder::Token(TokenId::random()))
    }

    pub(crate) fn new_key() -> Self {
        Self::make(Holder::AdminKey(KeyId::random()))
    }

    fn make(holder: Holder) -> Self {
        let (prefix, id) = match &holder {
            Holder::Token(id) => (TOKEN_PREFIX, id.as_str()),
            Holder::AdminKey(id) => (KEY_PREFIX, id.as_str()),
        };
        let mut text = format!("{prefix}{id}_{}", random_text(RANDOM_LENGTH, ALPHABET));
        text.push_str(&checksum(&text));
        Self { holder, text }
    }

    /// `None` for what was never one of ours, a typo too.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (prefix, rest) = match text.strip_prefix(KEY_PREFIX) {
            Some(rest) => (KEY_PREFIX, rest),
            None => (TOKEN_PREFIX, text.strip_prefix(TOKEN_PREFIX)?),
        };
        let (id, tail) = rest.split_once('_')?;
        let plain = tail.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if !plain || tail.len() != RANDOM_LENGTH + CHECKSUM_LENGTH {
            return None;
        }
        let (body, sum) = text.split_at(text.len() - CHECKSUM_LENGTH);
        if checksum(body) != sum {
            return None;
        }
        let holder = match prefix {
            KEY_PREFIX => Holder::AdminKey(KeyId::parse(id)?),
            _ => Holder::Token(TokenId::parse(id)?),
        };
        Some(Self {
            holder,
            text: text.into(),
        })
    }

    pub(crate) fn holder(&self) -> &Holder {
        &self.holder
    }

    /// The secret itself, for the one answer that shows it.
    pub(crate) fn reveal(&self) -> &str {
        &self.text
    }

    pub(crate) fn hash(&self) -> SecretHash {
        SecretHash(Sha256::digest(&self.text).into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({:?})", self.holder)
    }
}

impl SecretHash {
    /// In the same time whatever differs.
    pub(crate) fn is_of(&self, secret: &Secret) -> bool {
        self.0.ct_eq(&secret.hash().0).into()
    }

    pub(crate) fn to_hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    pub(crate) fn from_hex(text: &str) -> Option<Self> {
        let mut hash = [0; 32];
        if text.len() != 64 || !text.is_ascii() {
            return None;
        }
        for (byte, digits) in hash.iter_mut().zip(text.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        }
        Some(Self(hash))
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash")
    }
}

/// Not against attackers, against typos: six characters of a hash in the same alphabet.
fn checksum(text: &str) -> String {
    let hash = Sha256::digest(text);
    let number = u64::from_be_bytes(hash[..8].try_into().unwrap_or_default());
    let digits = (0..CHECKSUM_LENGTH as u32).map(|at| number / 62_u64.pow(at) % 62);
    digits
        .map(|digit| char::from(ALPHABET[digit as usize]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_comes_back_as_it_was_shown() {
        for secret in [Secret::new_token(), Secret::new_key()] {
            let again = Secret::parse(secret.reveal()).unwrap();
            assert_eq!(again.holder(), secret.holder());
            assert!(secret.hash().is_of(&again));
            assert!(
                SecretHash::from_hex(&secret.hash().to_hex())
                    .unwrap()
                    .is_of(&again)
            );
        }
    }

    #[test]
    fn each_changed_character_is_a_typo() {
        let text = Secret::new_token().reveal().to_owned();
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] = if bytes[at] == b'x' { b'y' } else { b'x' };
            let changed = String::from_utf8(bytes).unwrap();
            assert!(Secret::parse(&changed).is_none(), "{changed}");
        }
        for text in [
            "",
            "gl_",
            "gl__",
            "x",
            &text[..text.len() - 1],
            &format!("{text}0"),
        ] {
            assert!(Secret::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_secret_is_not_in_its_debug_text() {
        let secret = Secret::new_token();
        let random = &secret.reveal()[24..];
        assert!(!format!("{secret:?} {:?}", secret.hash()).contains(random));
    }
}
