//! What is said about terminals, as JSON.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use guestline_client::{Process, Vm};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{LABEL, guest::is_open};
use crate::{
    http::{
        error::{ApiError, Code},
        exec::{check_size, status_code},
    },
    machines::AwakeGuest,
};

/// Of a name: it is a segment of a path, and a label.
const MAX_NAME: usize = 64;

const COLUMNS: u32 = 80;
const ROWS: u32 = 24;

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Terminals {
    pub(super) terminals: Vec<Terminal>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Terminal {
    pub(super) name: String,
    /// running or exited; one that exited is known for ten minutes.
    pub(super) status: &'static str,
    /// RFC 3339, by the VM's clock.
    pub(super) created: Option<String>,
    /// Of one that exited; 128 + n for signal n.
    pub(super) status_code: Option<i32>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct NewTerminal {
    /// Of letters, digits, `-`, `_` and `.`; a new one is made up otherwise.
    #[serde(default)]
    pub(super) name: Option<String>,
    /// A line for the user's login shell, as `-c`; the login shell itself otherwise.
    #[serde(default)]
    pub(super) command: Option<String>,
    /// Where it starts; the VM's workdir otherwise, else the user's home.
    #[serde(default)]
    pub(super) workdir: Option<String>,
    /// Variables beside those of the documented environment.
    #[serde(default)]
    pub(super) env: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) columns: Option<u32>,
    #[serde(default)]
    pub(super) rows: Option<u32>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TerminalLogs)]
pub(super) struct Logs {
    /// As far as they are kept, without escape sequences.
    pub(super) logs: Vec<Line>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TerminalLine)]
pub(super) struct Line {
    pub(super) line: String,
    /// Null: a terminal does not say when.
    pub(super) timestamp: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TerminalScreen)]
pub(super) struct Screen {
    /// As far as it is kept.
    pub(super) output: String,
}

#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct TerminalInput {
    /// What is typed: a line ends with `\r`, ^C is `\u0003`.
    pub(super) data: String,
    /// utf8, which is the default, or base64.
    #[serde(default)]
    pub(super) encoding: Option<String>,
}

#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct TerminalSize {
    pub(super) columns: u32,
    pub(super) rows: u32,
}

impl Terminal {
    /// `None` for a program that is none.
    pub(super) fn of(process: &Process) -> Option<Self> {
        let created = process.started.map(humantime::format_rfc3339_millis);
        Some(Self {
            name: process.labels.get(LABEL)?.clone(),
            status: if is_open(process) {
                "running"
            } else {
                "exited"
            },
            created: created.map(|time| time.to_string()),
            status_code: process.exit.as_ref().map(status_code),
        })
    }
}

impl NewTerminal {
    pub(super) fn to_command(
        &self,
        guest: &AwakeGuest,
        name: &str,
    ) -> Result<guestline_client::Command, ApiError> {
        let (columns, rows) = (self.columns.unwrap_or(COLUMNS), self.rows.unwrap_or(ROWS));
        check_size(columns, rows)?;
        let vm: &Vm = guest.vm();
        let mut command = match &self.command {
            Some(line) => vm.shell(line),
            None => vm.login_shell(),
        };
        if let Some(directory) = self.workdir.as_deref().or(guest.workdir()) {
            command.current_dir(directory);
        }
        for (name, value) in &self.env {
            command.env(name, value);
        }
        command.terminal("xterm-256color", columns, rows);
        command.name(name).label(LABEL, name);
        Ok(command)
    }
}

impl TerminalInput {
    pub(super) fn into_bytes(self) -> Result<Vec<u8>, ApiError> {
        match self.encoding.as_deref() {
            None | Some("utf8" | "utf-8") => Ok(self.data.into_bytes()),
            Some("base64") => STANDARD.decode(self.data).map_err(|error| {
                ApiError::new(Code::InvalidBase64, format!("data is not base64: {error}"))
            }),
            Some(other) => {
                let text = format!("encoding: {other:?} is neither utf8 nor base64");
                Err(ApiError::new(Code::BadRequest, text))
            }
        }
    }
}

pub(super) fn check_name(name: &str) -> Result<(), ApiError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let is_dots = name.bytes().all(|byte| byte == b'.');
    if name.len() <= MAX_NAME && name.bytes().all(plain) && !is_dots {
        return Ok(());
    }
    let text = format!("name: 1 to {MAX_NAME} letters, digits, - _ and ., and not dots alone");
    Err(ApiError::new(Code::BadRequest, text))
}
