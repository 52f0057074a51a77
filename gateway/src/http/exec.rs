//! `POST /v1/vms/{vm}/exec-await`: one line for the user's shell, to its end; and a program over a WebSocket (`socket.rs`).

mod socket;
mod words;

use std::time::Duration;

use axum::{Json, extract::State, http::Method, response::IntoResponse};
use guestline_client::{Child, Error as GuestError, Event, ExitStatus};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

pub(super) use words::check_size;

use super::{
    app::App,
    body::JsonBody,
    error::{ApiError, Code, full},
    guard::Permitted,
    table::{Answer, Table},
};
use crate::{machines::AwakeGuest, sessions::Verb};

/// What stands at the end of a stream that was cut.
const CUT: &str = "\n[guestline: the output was cut here]\n";

/// The guest ends a command that takes too long; if it cannot even do that, we do so much later.
const TIMEOUT_GRACE: Duration = Duration::from_secs(10);

pub(super) fn add(table: &mut Table) {
    table
        .add(
            Method::POST,
            "/v1/vms/{vm_id}/exec-await",
            Verb::Exec,
            "Run a command line to its end",
            exec,
        )
        .takes::<ExecRequest>()
        .answers::<ExecResult>();
    socket::add(table);
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ExecRequest {
    /// For the user's login shell, as `-c`.
    command: String,
    /// Null: a command runs beside the terminals, not in one.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    terminal: Value,
    /// Everything that it started is killed after this time.
    #[serde(default)]
    timeout_ms: Option<u64>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ExecResult {
    stdout: String,
    stderr: String,
    /// 128 + n for signal n.
    status_code: i32,
}

async fn exec(
    State(app): State<App>,
    permitted: Permitted,
    JsonBody(request): JsonBody<ExecRequest>,
) -> Answer {
    permitted.operation.begin(request.command.as_str());
    if !request.terminal.is_null() {
        return Err(ApiError::new(
            Code::BadRequest,
            "terminal: a command does not run in a terminal; type into one with its `input`",
        ));
    }
    if request.command.contains('\0') {
        return Err(ApiError::new(
            Code::BadRequest,
            "command: a command line has no NUL byte",
        ));
    }
    if request.timeout_ms == Some(0) {
        return Err(ApiError::new(
            Code::BadRequest,
            "timeoutMs: must be at least 1",
        ));
    }
    let timeout = request.timeout_ms.map(Duration::from_millis);
    let guest = app.guest(&permitted).await?;
    let lease = app.live.lease(&permitted.session);
    let mut output = Output::new(app.settings.max_output);
    let run = async {
        let mut child = spawn(&guest, &request.command, timeout).await?;
        output.collect(&mut child).await
    };
    let outcome = tokio::select! {
        outcome = run => outcome.map_err(exec_error)?,
        cut = lease.cut() => return Err(cut.into()),
        () = pass(timeout.map(|limit| limit.saturating_add(TIMEOUT_GRACE))) => {
            return Err(ApiError::new(Code::ExecTimedOut, "the command did not end in time, and the VM does not answer"));
        }
    };
    permitted
        .operation
        .add_bytes_out(output.stdout.len() + output.stderr.len());
    permitted.operation.set_exit_status(status_code(&outcome));
    let result = ExecResult {
        stdout: output.stdout.to_text(),
        stderr: output.stderr.to_text(),
        status_code: status_code(&outcome),
    };
    if outcome.timed_out {
        let text = format!(
            "the command did not end within {} ms",
            request.timeout_ms.unwrap_or_default()
        );
        return Err(ApiError::new(Code::ExecTimedOut, text)
            .with("stdout", result.stdout)
            .with("stderr", result.stderr)
            .with("statusCode", result.status_code));
    }
    Ok(Json(result).into_response())
}

/// Starts the line in the VM's workdir, else where the agent begins: the user's home, else `/`.
async fn spawn(
    guest: &AwakeGuest,
    line: &str,
    timeout: Option<Duration>,
) -> Result<Child, GuestError> {
    let mut command = guest.vm().shell(line);
    if let Some(directory) = guest.workdir() {
        command.current_dir(directory);
    }
    if let Some(limit) = timeout {
        command.timeout(limit);
    }
    command.spawn().await
}

/// Both streams, the first `limit` bytes of them together. The rest is read and dropped, so that the command can end.
struct Output {
    limit: usize,
    stdout: Stream,
    stderr: Stream,
}

#[derive(Default)]
struct Stream {
    bytes: Vec<u8>,
    cut: bool,
}

impl Output {
    fn new(limit: usize) -> Self {
        Self {
            limit,
            stdout: Stream::default(),
            stderr: Stream::default(),
        }
    }

    async fn collect(&mut self, child: &mut Child) -> Result<ExitStatus, GuestError> {
        loop {
            match child.event().await? {
                Event::Stdout(data) => {
                    let room = self.room();
                    self.stdout.add(&data, room);
                }
                Event::Stderr(data) => {
                    let room = self.room();
                    self.stderr.add(&data, room);
                }
                Event::Exited(status) => return Ok(status),
            }
        }
    }

    fn room(&self) -> usize {
        self.limit - self.stdout.bytes.len() - self.stderr.bytes.len()
    }
}

impl Stream {
    fn add(&mut self, data: &[u8], room: usize) {
        let taken = data.len().min(room);
        self.bytes.extend_from_slice(&data[..taken]);
        self.cut |= taken < data.len();
    }

    fn len(&self) -> usize {
        self.bytes.len()
    }

    fn to_text(&self) -> String {
        let mut text = String::from_utf8_lossy(&self.bytes).into_owned();
        if self.cut {
            text.push_str(CUT);
        }
        text
    }
}

pub(super) fn status_code(status: &ExitStatus) -> i32 {
    match (status.code, status.signal) {
        (_, Some(signal)) => 128 + signal,
        (code, None) => code.unwrap_or_default(),
    }
}

/// That a command cannot be started is said by the step that failed.
pub(super) fn exec_error(error: GuestError) -> ApiError {
    match &error {
        GuestError::Operation {
            reason: guestline_client::ErrorReason::NotFound,
            ..
        } => ApiError::new(Code::BadRequest, full(&error)),
        _ => error.into(),
    }
}

async fn pass(limit: Option<Duration>) {
    match limit {
        Some(limit) => tokio::time::sleep(limit).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_beyond_the_bound_is_cut_with_a_marker_and_the_other_stream_is_not() {
        let mut output = Output::new(10);
        let room = output.room();
        output.stderr.add(b"err", room);
        let room = output.room();
        output.stdout.add(b"0123456789", room);
        assert_eq!(output.stderr.to_text(), "err");
        assert_eq!(output.stdout.to_text(), format!("0123456{CUT}"));
        let room = output.room();
        assert_eq!(room, 0);
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced() {
        let stream = Stream {
            bytes: b"a\xffb".to_vec(),
            cut: false,
        };
        assert_eq!(stream.to_text(), "a\u{fffd}b");
    }
}
