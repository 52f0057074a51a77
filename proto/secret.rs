//! The secret that a VM shares with its hosts: what one looks like, and how it is read from a file that nobody else can
//! read. What it is used for is in [`proof`](crate::proof).

use std::{
    fmt, fs,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::Path,
    str::FromStr,
    sync::Arc,
};

use subtle::ConstantTimeEq;
use thiserror::Error;
use zeroize::Zeroizing;

/// The shortest secret, in characters. As hexadecimal digits they have 128 bits: whoever has heard a proof can try guesses
/// against it for as long as they like, and must not get through them.
pub const MIN_LENGTH: usize = 32;

/// The longest secret, in characters. More would add nothing to HMAC-SHA256.
pub const MAX_LENGTH: usize = 256;

/// Secrets in one file: the one in use, and while it is changed the other.
pub const MAX_SECRETS: usize = 2;

/// The longest file: the secrets and their line ends.
const MAX_FILE: usize = MAX_SECRETS * (MAX_LENGTH + 1);

/// Random bytes of a secret that is made here; as hexadecimal digits it has twice as many.
const RANDOM_BYTES: usize = 32;

/// A VM's secret: 32 to 256 printable ASCII characters without spaces. Overwritten in memory when the last clone goes, and
/// never shown by `Debug`.
#[derive(Clone)]
pub struct Secret(Arc<Zeroizing<String>>);

/// Why something is not a secret, or not one to be trusted.
#[derive(Debug, Error)]
pub enum SecretError {
    /// Too short, too long, or with characters that a line cannot carry.
    #[error(
        "a secret is {MIN_LENGTH} to {MAX_LENGTH} printable ASCII characters without spaces, such as `openssl rand -hex 32` prints"
    )]
    Invalid,
    /// A file without a secret in it.
    #[error("there is no secret in it")]
    Empty,
    /// A file with more than the one in use and its successor.
    #[error("there are more than {MAX_SECRETS} secrets in it")]
    TooMany,
    /// The file cannot be opened or read.
    #[error("it cannot be read")]
    Read(#[source] io::Error),
    /// Somebody else could have written the file.
    #[error("it belongs to uid {0}, and must be root's or one's own")]
    Owner(u32),
    /// Somebody else can read the file.
    #[error("its mode is {0:04o}, and must give nothing to group and others: chmod 600")]
    Mode(u32),
    /// The system has no random bytes.
    #[error("the system gives no random bytes")]
    Random(#[source] getrandom::Error),
}

impl SecretError {
    /// Whether there is no such file.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Read(error) if error.kind() == io::ErrorKind::NotFound)
    }
}

impl Secret {
    /// A new one: 256 random bits in hexadecimal.
    pub fn random() -> Result<Self, SecretError> {
        let mut bytes = Zeroizing::new([0; RANDOM_BYTES]);
        getrandom::fill(&mut *bytes).map_err(SecretError::Random)?;
        // Whole from the start: a string that grows leaves copies behind.
        let mut text = Zeroizing::new(String::with_capacity(2 * RANDOM_BYTES));
        for byte in *bytes {
            for digit in [byte >> 4, byte & 15] {
                text.extend(char::from_digit(digit.into(), 16));
            }
        }
        Ok(Self(Arc::new(text)))
    }

    /// The secrets of a file, one a line; the first is the one that a host shows. The file must be root's or `own_uid`'s, and
    /// closed to group and others.
    pub fn read_file(path: &Path, own_uid: u32) -> Result<Vec<Self>, SecretError> {
        let file = fs::File::open(path).map_err(SecretError::Read)?;
        // Of what was opened, whatever the path leads to by now.
        let metadata = file.metadata().map_err(SecretError::Read)?;
        if metadata.uid() != 0 && metadata.uid() != own_uid {
            return Err(SecretError::Owner(metadata.uid()));
        }
        if metadata.mode() & 0o077 != 0 {
            return Err(SecretError::Mode(metadata.mode() & 0o7777));
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_FILE + 1));
        let bound = MAX_FILE as u64 + 1;
        file.take(bound)
            .read_to_end(&mut bytes)
            .map_err(SecretError::Read)?;
        Self::parse_all(&bytes)
    }

    /// One secret a line. The last line need not have an end, and no line may be empty.
    pub fn parse_all(bytes: &[u8]) -> Result<Vec<Self>, SecretError> {
        if bytes.len() > MAX_FILE {
            return Err(SecretError::TooMany);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| SecretError::Invalid)?;
        let text = text.strip_suffix('\n').unwrap_or(text);
        if text.is_empty() {
            return Err(SecretError::Empty);
        }
        let secrets: Vec<Self> = text.split('\n').map(str::parse).collect::<Result<_, _>>()?;
        if secrets.len() > MAX_SECRETS {
            return Err(SecretError::TooMany);
        }
        Ok(secrets)
    }

    /// The secret itself, for where it is kept.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for Secret {
    type Err = SecretError;

    fn from_str(text: &str) -> Result<Self, SecretError> {
        let fits = (MIN_LENGTH..=MAX_LENGTH).contains(&text.len());
        if !fits || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(SecretError::Invalid);
        }
        Ok(Self(Arc::new(Zeroizing::new(text.into()))))
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const ONE: &str = "0123456789abcdef0123456789abcdef";
    const TWO: &str = "fedcba9876543210fedcba9876543210";

    fn file(text: &str, mode: u32) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
        file
    }

    fn own_uid() -> u32 {
        fs::metadata("/proc/self").unwrap().uid()
    }

    #[test]
    fn a_file_has_one_secret_or_while_it_is_changed_two() {
        for text in [ONE.to_owned(), format!("{ONE}\n")] {
            let read = Secret::read_file(file(&text, 0o600).path(), own_uid()).unwrap();
            assert_eq!(read, [ONE.parse().unwrap()]);
        }
        let both = Secret::parse_all(format!("{ONE}\n{TWO}\n").as_bytes()).unwrap();
        assert_eq!(both, [ONE.parse().unwrap(), TWO.parse().unwrap()]);
        assert!(matches!(Secret::parse_all(b""), Err(SecretError::Empty)));
        assert!(matches!(Secret::parse_all(b"\n"), Err(SecretError::Empty)));
        let three = format!("{ONE}\n{TWO}\n{ONE}\n");
        assert!(matches!(
            Secret::parse_all(three.as_bytes()),
            Err(SecretError::TooMany)
        ));
        let endless = "x".repeat(MAX_FILE + 1);
        assert!(matches!(
            Secret::parse_all(endless.as_bytes()),
            Err(SecretError::TooMany)
        ));
    }

    #[test]
    fn what_is_short_long_or_not_one_word_is_no_secret() {
        let short = &ONE[1..];
        let long = "x".repeat(257);
        let spaced = format!("{ONE} {ONE}");
        let dos = format!("{ONE}\r\n");
        for wrong in [short, &long, &spaced, &dos, &format!("{ONE}\n\n{TWO}")] {
            let parsed = Secret::parse_all(wrong.as_bytes());
            assert!(matches!(parsed, Err(SecretError::Invalid)), "{wrong:?}");
        }
        assert!(Secret::parse_all(&[0xff; 40]).is_err());
    }

    #[test]
    fn a_file_that_others_can_read_or_own_is_refused() {
        for mode in [0o640, 0o604, 0o660, 0o602, 0o611] {
            let error = Secret::read_file(file(ONE, mode).path(), own_uid());
            assert!(matches!(error, Err(SecretError::Mode(m)) if m == mode));
        }
        let theirs = file(ONE, 0o600);
        if own_uid() == 0 {
            std::os::unix::fs::chown(theirs.path(), Some(65534), None).unwrap();
            let error = Secret::read_file(theirs.path(), 0);
            assert!(matches!(error, Err(SecretError::Owner(65534))));
            Secret::read_file(theirs.path(), 65534).unwrap();
        } else {
            let error = Secret::read_file(theirs.path(), own_uid() + 1);
            assert!(matches!(error, Err(SecretError::Owner(_))));
        }
        let missing = Secret::read_file(Path::new("/nonexistent"), 0).unwrap_err();
        assert!(missing.is_not_found());
    }

    #[test]
    fn a_secret_is_not_shown_and_a_new_one_is_like_no_other() {
        let (one, two) = (Secret::random().unwrap(), Secret::random().unwrap());
        assert_eq!(one.expose().len(), 64);
        assert_ne!(one, two);
        assert_eq!(one, one.expose().parse().unwrap());
        assert!(!format!("{one:?}").contains(one.expose()));
    }
}
