//! The line before HTTP/2: which Linux user the host wants to be, and the agent's answer.
//!
//! ```text
//! host   guestline/1 user=alice\n
//! agent  ok version=0.1.0 uid=1000\n          then HTTP/2
//!     or error user-not-found no user "alice" in this guest\n   and closes
//! ```
//!
//! Both lines are ASCII words with one space between them. Unknown `key=value` words are ignored, so that later
//! versions can add some. Neither side reads past the `\n`.
//!
//! A host that has the VM's secret adds a `nonce=`, and both sides prove that they have it: see [`proof`](crate::proof).

use std::fmt;

use thiserror::Error;

use crate::proof::Nonce;

/// The longest line, with its `\n`.
pub const MAX_LINE: usize = 1024;

/// The version this crate speaks, the first word of the hello.
pub const PROTOCOL: &str = "guestline/1";

/// The longest user name: what Linux itself takes, UT_NAMESIZE in utmp and LOGIN_NAME_MAX in limits.h.
pub const MAX_USERNAME: usize = 256;

/// A name that could be a Linux user's: 1 to 256 printable ASCII or UTF-8 bytes without spaces, `:`, `/` or control bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Username(String);

impl Username {
    /// Who a plain gRPC client is.
    pub fn root() -> Self {
        Self("root".into())
    }

    /// The name itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<&str> for Username {
    type Error = HelloError;

    fn try_from(name: &str) -> Result<Self, HelloError> {
        let plain = |c: char| !c.is_control() && !c.is_whitespace() && c != ':' && c != '/';
        if name.is_empty() || name.len() > MAX_USERNAME || !name.chars().all(plain) {
            return Err(HelloError::InvalidUsername);
        }
        Ok(Self(name.into()))
    }
}

impl fmt::Display for Username {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the host says first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Whom to become.
    pub user: Username,
    /// Of a host that will prove that it has the VM's secret.
    pub nonce: Option<Nonce>,
}

impl Hello {
    /// Reads a line without its `\n`.
    pub fn parse(line: &[u8]) -> Result<Self, HelloError> {
        let line = std::str::from_utf8(line).map_err(|_| HelloError::NotText)?;
        let mut words = line.split(' ');
        match words.next() {
            Some(PROTOCOL) => {}
            Some(other) if other.starts_with("guestline/") => {
                return Err(HelloError::OtherProtocol(other.into()));
            }
            _ => return Err(HelloError::NotAHello),
        }
        let user = find(words.clone(), "user").ok_or(HelloError::NoUser)?;
        let nonce =
            find(words, "nonce").map(|nonce| Nonce::parse(nonce).ok_or(HelloError::InvalidNonce));
        Ok(Self {
            user: user.try_into()?,
            nonce: nonce.transpose()?,
        })
    }

    /// The line with its `\n`.
    pub fn to_line(&self) -> String {
        let nonce = self.nonce.map(|nonce| format!(" nonce={nonce}"));
        format!(
            "{PROTOCOL} user={}{}\n",
            self.user,
            nonce.unwrap_or_default()
        )
    }
}

/// Why a line is not a hello that this version understands.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HelloError {
    /// Bytes that are not UTF-8.
    #[error("the hello is not text")]
    NotText,
    /// Another protocol altogether.
    #[error("expected a line \"{PROTOCOL} user=NAME\" or an HTTP/2 preface")]
    NotAHello,
    /// Another version of ours.
    #[error("this side speaks {PROTOCOL}, the other {0:?}")]
    OtherProtocol(String),
    /// A hello that names nobody.
    #[error("the hello has no user=NAME")]
    NoUser,
    /// A name that no Linux user can have.
    #[error(
        "a user name has 1 to {MAX_USERNAME} bytes, and no space, colon, slash or control character"
    )]
    InvalidUsername,
    /// A nonce of another form.
    #[error("a nonce is 32 bytes in hexadecimal, with small letters")]
    InvalidNonce,
    /// An answer that is neither `ok` nor `error`.
    #[error("the answer is neither ok nor error: is a Guestline agent listening there?")]
    NotAReply,
    /// An `ok` without its fields.
    #[error("the answer lacks a valid {0}=")]
    MissingField(&'static str),
}

/// Why the agent turns a connection away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalReason {
    /// No such user in the guest.
    UserNotFound,
    /// The guest's owner does not let the host become that user.
    UserNotAllowed,
    /// A secret is needed, or the one shown is wrong.
    Unauthenticated,
    /// Too many connections wait, or no worker could be started now.
    Busy,
    /// The line is wrong, too long or too late.
    BadHello,
    /// Becoming the user failed; the text names the step.
    Failed,
}

impl RefusalReason {
    const ALL: [Self; 6] = [
        Self::UserNotFound,
        Self::UserNotAllowed,
        Self::Unauthenticated,
        Self::Busy,
        Self::BadHello,
        Self::Failed,
    ];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UserNotFound => "user-not-found",
            Self::UserNotAllowed => "user-not-allowed",
            Self::Unauthenticated => "unauthenticated",
            Self::Busy => "busy",
            Self::BadHello => "bad-hello",
            Self::Failed => "failed",
        }
    }
}

/// The agent's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// HTTP/2 follows.
    Ok {
        /// Of the agent.
        version: String,
        /// Of the user that the connection is now.
        uid: u32,
    },
    /// The connection is closed.
    Refused {
        /// For programs; absent if a later version knows more reasons than this one.
        reason: Option<RefusalReason>,
        /// For people.
        text: String,
    },
}

impl Reply {
    /// Reads a line without its `\n`.
    pub fn parse(line: &[u8]) -> Result<Self, HelloError> {
        let line = std::str::from_utf8(line).map_err(|_| HelloError::NotText)?;
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "ok" => {
                let version =
                    find(rest.split(' '), "version").ok_or(HelloError::MissingField("version"))?;
                let uid = find(rest.split(' '), "uid")
                    .and_then(|uid| uid.parse().ok())
                    .ok_or(HelloError::MissingField("uid"))?;
                Ok(Self::Ok {
                    version: version.into(),
                    uid,
                })
            }
            "error" => {
                let (word, text) = rest.split_once(' ').unwrap_or((rest, ""));
                let reason = RefusalReason::ALL
                    .into_iter()
                    .find(|reason| reason.as_str() == word);
                Ok(Self::Refused {
                    reason,
                    text: text.into(),
                })
            }
            _ => Err(HelloError::NotAReply),
        }
    }

    /// The line with its `\n`, cut to [`MAX_LINE`] bytes.
    pub fn to_line(&self) -> String {
        let mut line = match self {
            Self::Ok { version, uid } => format!("ok version={version} uid={uid}"),
            Self::Refused { reason, text } => {
                let text: String = text.chars().filter(|c| !c.is_control()).collect();
                format!(
                    "error {} {text}",
                    reason.map_or("failed", RefusalReason::as_str)
                )
            }
        };
        line.truncate(line.floor_char_boundary(MAX_LINE - 1));
        line.push('\n');
        line
    }
}

pub(crate) fn find<'a>(words: impl Iterator<Item = &'a str>, key: &str) -> Option<&'a str> {
    words
        .filter_map(|word| word.split_once('='))
        .find_map(|(k, v)| (k == key).then_some(v))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Hello, HelloError> {
        Hello::parse(line.as_bytes())
    }

    #[test]
    fn a_hello_comes_back_as_it_was_sent() {
        let hello = Hello {
            user: "alice".try_into().unwrap(),
            nonce: None,
        };
        assert_eq!(hello.to_line(), "guestline/1 user=alice\n");
        assert_eq!(parse(hello.to_line().trim_end()), Ok(hello.clone()));
        let nonce = Some(Nonce::random().unwrap());
        let hello = Hello { nonce, ..hello };
        assert_eq!(parse(hello.to_line().trim_end()), Ok(hello));
    }

    #[test]
    fn words_of_later_versions_are_ignored() {
        assert_eq!(
            parse("guestline/1 x=1 user=bob words user=alice")
                .unwrap()
                .user
                .as_str(),
            "bob"
        );
    }

    #[test]
    fn each_wrong_hello_says_what_is_wrong() {
        assert_eq!(parse(""), Err(HelloError::NotAHello));
        assert_eq!(parse("GET / HTTP/1.1"), Err(HelloError::NotAHello));
        assert_eq!(
            parse("guestline/2 user=a"),
            Err(HelloError::OtherProtocol("guestline/2".into()))
        );
        assert_eq!(parse("guestline/1"), Err(HelloError::NoUser));
        assert_eq!(
            parse("guestline/1 user=a nonce=00"),
            Err(HelloError::InvalidNonce)
        );
        for name in ["", "a:b", "a/b", "a\tb", "a\u{0}b", &"x".repeat(257)] {
            assert_eq!(
                parse(&format!("guestline/1 user={name}")),
                Err(HelloError::InvalidUsername)
            );
        }
        assert_eq!(
            Hello::parse(b"guestline/1 user=\xff"),
            Err(HelloError::NotText)
        );
    }

    #[test]
    fn replies_come_back_as_they_were_sent() {
        let ok = Reply::Ok {
            version: "0.1.0".into(),
            uid: 1000,
        };
        assert_eq!(Reply::parse(ok.to_line().trim_end().as_bytes()), Ok(ok));
        for reason in RefusalReason::ALL {
            let refused = Reply::Refused {
                reason: Some(reason),
                text: "some text".into(),
            };
            assert_eq!(
                Reply::parse(refused.to_line().trim_end().as_bytes()),
                Ok(refused)
            );
        }
        assert_eq!(
            Reply::parse(b"ok version=1"),
            Err(HelloError::MissingField("uid"))
        );
        assert_eq!(
            Reply::parse(b"SSH-2.0-OpenSSH_9.2"),
            Err(HelloError::NotAReply)
        );
    }

    #[test]
    fn a_reply_is_one_bounded_line_whatever_its_text() {
        let text = "é\n".repeat(2000);
        let line = Reply::Refused {
            reason: Some(RefusalReason::Failed),
            text,
        }
        .to_line();
        assert!(line.len() <= MAX_LINE);
        assert_eq!(line.matches('\n').count(), 1);
    }
}
