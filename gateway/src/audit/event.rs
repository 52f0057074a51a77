//! What the log holds: a line for an operation's start, and one for its end.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::{
    ids::{IdentityId, KeyId, OperationId, SshKeyId, TokenId},
    printable,
    store::to_millis,
};

/// Which half of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Phase {
    Start,
    End,
}

impl Phase {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::End => "end",
        }
    }
}

/// A line of the log.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Event {
    /// RFC 3339, UTC.
    pub(crate) time: String,
    #[serde(skip)]
    pub(crate) at_millis: i64,
    pub(crate) operation: OperationId,
    pub(crate) phase: Phase,
    pub(crate) verb: Cow<'static, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) admin_key: Option<KeyId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) identity: Option<IdentityId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<TokenId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ssh_key: Option<SshKeyId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) vm: Option<String>,
    /// The Linux user, where one is involved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<String>,
    /// Whom the guest's agent made of that user; absent where no connection came about, or not yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) uid: Option<u32>,
    /// The command line, path or name that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) subject: Option<String>,
    pub(crate) peer: String,
    #[serde(skip_serializing_if = "Option::is_none", flatten)]
    pub(crate) end: Option<End>,
}

impl Event {
    /// One line, without a control character.
    pub(crate) fn to_json(&self) -> String {
        printable::json(&serde_json::json!(self).to_string())
    }

    /// `None` for what is no event.
    pub(super) fn from_json(line: &[u8]) -> Option<Self> {
        let mut event: Self = serde_json::from_slice(line).ok()?;
        event.at_millis = to_millis(humantime::parse_rfc3339(&event.time).ok()?);
        Some(event)
    }
}

/// An event with its place in the file.
#[derive(Debug)]
pub(crate) struct Logged {
    pub(super) event: Event,
    pub(super) place: u64,
}

impl Logged {
    #[cfg(test)]
    pub(crate) fn event(self) -> Event {
        self.event
    }
}

/// How an operation ended.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct End {
    /// "ok", the error's code, "abandoned": the client went away, "revoked", "ending": the gateway had to go, or "lost": it
    /// was killed, and the rest is not known.
    pub(crate) result: String,
    pub(crate) duration_ms: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    /// Of a command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) exit_status: Option<i32>,
}
