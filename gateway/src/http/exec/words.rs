//! What is said over an exec WebSocket: JSON in text messages; bytes of stdin, stdout and stderr in binary ones.

use std::collections::BTreeMap;

use axum::{body::Bytes, extract::ws::Message};
use guestline_client::{ExitStatus, Vm};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::status_code;
use crate::http::{
    body::parse_object,
    error::{ApiError, Code},
};

/// The first byte of a binary message from the gateway: which stream the rest is of.
const STDOUT: u8 = 1;
const STDERR: u8 = 2;

/// Of a terminal; what does not fit a row of 16 bits is none (struct winsize).
const MAX_SIZE: u32 = 65_535;

/// The client's first message: what to run. Without `command` and `argv` it is the user's login shell.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = ExecStart)]
pub(in crate::http) struct Start {
    /// A line for the user's login shell, as `-c`.
    #[serde(default)]
    command: Option<String>,
    /// A program and its arguments, without a shell.
    #[serde(default)]
    argv: Option<Vec<String>>,
    /// Where it starts; the VM's workdir otherwise, else the user's home.
    #[serde(default)]
    workdir: Option<String>,
    /// Variables beside those of the documented environment.
    #[serde(default)]
    env: BTreeMap<String, String>,
    /// Its stdin is what the client sends; /dev/null otherwise. A terminal is always open.
    #[serde(default)]
    stdin: bool,
    #[serde(default)]
    terminal: Option<TerminalSize>,
    /// Everything that it started is killed after this time.
    #[serde(default)]
    timeout_ms: Option<u64>,
}

/// A terminal for the program. What it writes there comes as stdout.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = ExecTerminal)]
struct TerminalSize {
    /// The variable TERM.
    #[serde(default = "default_term")]
    term: String,
    columns: u32,
    rows: u32,
}

fn default_term() -> String {
    "xterm-256color".into()
}

/// What the client says after that. stdin comes in binary messages.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = ExecWord)]
pub(in crate::http) enum Word {
    /// The terminal has another size.
    Resize { columns: u32, rows: u32 },
    /// A Linux signal, by number, to the program's process group.
    Signal { signal: i32 },
    /// The end of stdin.
    CloseStdin,
}

/// What the gateway says. Output comes in binary messages: a byte 1 for stdout or 2 for stderr, then what was written.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "camelCase")]
#[schema(as = ExecTold)]
pub(in crate::http) enum Told {
    /// It runs.
    Started { pid: i32 },
    /// It ended; all of its output came before.
    #[serde(rename_all = "camelCase")]
    Exited {
        /// 128 + n for signal n.
        status_code: i32,
        /// The signal that killed it.
        signal: Option<i32>,
        timed_out: bool,
        out_of_memory: bool,
    },
}

impl Start {
    /// Checked, and as a command of the guest's. `workdir` is the VM's.
    pub(super) fn to_command(
        &self,
        guest: &Vm,
        workdir: Option<&str>,
    ) -> Result<guestline_client::Command, ApiError> {
        let wrong = |text: &str| ApiError::new(Code::BadRequest, text);
        let mut command = match (&self.command, &self.argv) {
            (Some(_), Some(_)) => return Err(wrong("command and argv exclude each other")),
            (Some(line), None) => guest.shell(line),
            (None, Some(argv)) => {
                let (program, arguments) = argv
                    .split_first()
                    .filter(|(program, _)| !program.is_empty())
                    .ok_or_else(|| wrong("argv: there is no program"))?;
                let mut command = guest.command(program);
                command.args(arguments);
                command
            }
            (None, None) => guest.login_shell(),
        };
        if let Some(directory) = self.workdir.as_deref().or(workdir) {
            command.current_dir(directory);
        }
        for (name, value) in &self.env {
            command.env(name, value);
        }
        if let Some(TerminalSize {
            term,
            columns,
            rows,
        }) = &self.terminal
        {
            check_size(*columns, *rows)?;
            command.terminal(term, *columns, *rows);
        }
        command.stdin(self.stdin || self.terminal.is_some());
        match self.timeout_ms {
            Some(0) => return Err(wrong("timeoutMs: must be at least 1")),
            Some(millis) => {
                command.timeout(std::time::Duration::from_millis(millis));
            }
            None => {}
        }
        Ok(command)
    }

    /// For the audit log: the line, or the argv as JSON.
    pub(super) fn subject(&self) -> String {
        match (&self.command, &self.argv) {
            (Some(line), _) => line.clone(),
            (None, Some(argv)) => json!(argv).to_string(),
            (None, None) => "the login shell".into(),
        }
    }
}

pub(in crate::http) fn check_size(columns: u32, rows: u32) -> Result<(), ApiError> {
    let fits = |size: u32| (1..=MAX_SIZE).contains(&size);
    if fits(columns) && fits(rows) {
        return Ok(());
    }
    let text = format!("columns and rows are from 1 to {MAX_SIZE}");
    Err(ApiError::new(Code::BadRequest, text))
}

/// A text message that must be this.
pub(super) fn parse<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, ApiError> {
    parse_object(text.as_bytes()).map_err(|why| {
        let text = format!("the message is not as it should be: {why}");
        ApiError::new(Code::BadRequest, text)
    })
}

impl Told {
    pub(super) fn exited(status: &ExitStatus) -> Self {
        Self::Exited {
            status_code: status_code(status),
            signal: status.signal,
            timed_out: status.timed_out,
            out_of_memory: status.out_of_memory,
        }
    }

    pub(super) fn to_message(&self) -> Message {
        Message::text(json!(self).to_string())
    }
}

/// The body of an error, with its type.
pub(super) fn failed(error: &ApiError) -> Message {
    let mut body = error.to_body();
    body["type"] = "failed".into();
    Message::text(body.to_string())
}

pub(super) fn stdout(data: &[u8]) -> Message {
    output(STDOUT, data)
}

pub(super) fn stderr(data: &[u8]) -> Message {
    output(STDERR, data)
}

fn output(stream: u8, data: &[u8]) -> Message {
    let mut message = Vec::with_capacity(data.len() + 1);
    message.push(stream);
    message.extend_from_slice(data);
    Message::Binary(Bytes::from(message))
}
