//! What a service logged, from journalctl(1), and what it goes on to log.

use std::time::{SystemTime, UNIX_EPOCH};

use tokio::{
    io::AsyncReadExt,
    process::{ChildStderr, ChildStdout},
};

pub(crate) use super::export::Line;
use super::{ServiceError, UnitName, check_booted, export::Parser, look};
use crate::{
    sys::errno_of,
    system::tool::{self, Finished, Running, ToolError},
};

const JOURNALCTL: &str = "journalctl";

/// How much of the journal is read at once, and so is in one answer.
const PIECE: usize = 64 * 1024;

/// How much of what journalctl says about an error is passed on.
const MAX_WORDS: usize = 1024;

/// Which lines.
#[derive(Debug)]
pub(crate) struct LogRequest {
    pub(crate) name: UnitName,
    /// The last so many.
    pub(crate) lines: u32,
    pub(crate) since: Option<SystemTime>,
    /// Also those to come, without end.
    pub(crate) follow: bool,
}

/// journalctl, under way. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct LogReader {
    running: Running,
    stdout: ChildStdout,
    /// `None`: at its end.
    stderr: Option<ChildStderr>,
    words: Vec<u8>,
    parser: Parser,
    piece: Vec<u8>,
}

impl LogReader {
    /// Refuses whoever may not read the system's journal: journalctl itself would show such a user nothing, and call that a
    /// success.
    pub(crate) async fn open(request: &LogRequest) -> Result<Self, ServiceError> {
        check_booted()?;
        let unit = format!("--unit={}", request.name);
        let first = ["--system", "--lines=1", "--quiet", "--output=export", &unit];
        let found = tool::run(JOURNALCTL, &first).await?;
        if found.code != Some(0) {
            return Err(ServiceError::refused("reading the journal", &found));
        }
        // A service that is gone may have left lines.
        if found.stdout.is_empty() && !look(&request.name).await?.is_known() {
            return Err(ServiceError::Unknown(request.name.clone()));
        }
        let arguments = arguments(request, unit);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut running = tool::start(JOURNALCTL, &arguments).await?;
        let (stdout, stderr) = (running.child.stdout.take(), running.child.stderr.take());
        Ok(Self {
            running,
            stdout: stdout.ok_or(ToolError::Missing(JOURNALCTL))?,
            stderr,
            words: Vec::new(),
            parser: Parser::new(),
            piece: Vec::with_capacity(PIECE),
        })
    }

    /// The next lines, one or more; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<Line>>, ServiceError> {
        loop {
            self.piece.clear();
            let mut some_words = [0; MAX_WORDS];
            tokio::select! {
                read = self.stdout.read_buf(&mut self.piece) => {
                    if read.map_err(failed)? == 0 {
                        return self.end().await;
                    }
                    let lines = self.parser.feed(&self.piece);
                    if !lines.is_empty() {
                        return Ok(Some(lines));
                    }
                }
                read = read_words(&mut self.stderr, &mut some_words) => {
                    match read.map_err(failed)? {
                        0 => self.stderr = None,
                        length => {
                            let room = MAX_WORDS - self.words.len();
                            self.words.extend(&some_words[..length.min(room)]);
                        }
                    }
                }
            }
        }
    }

    async fn end(&mut self) -> Result<Option<Vec<Line>>, ServiceError> {
        let status = self.running.child.wait().await.map_err(failed)?;
        if status.success() {
            return Ok(None);
        }
        let finished = Finished {
            code: status.code(),
            stdout: String::new(),
            words: tool::one_line(&self.words),
        };
        Err(ServiceError::refused("reading the journal", &finished))
    }
}

/// Never ready once it is at its end.
async fn read_words(stderr: &mut Option<ChildStderr>, buffer: &mut [u8]) -> std::io::Result<usize> {
    match stderr {
        Some(stderr) => stderr.read(buffer).await,
        None => std::future::pending().await,
    }
}

fn failed(error: std::io::Error) -> ServiceError {
    let tool = JOURNALCTL;
    let errno = errno_of(&error);
    ToolError::Read { tool, errno }.into()
}

fn arguments(request: &LogRequest, unit: String) -> Vec<String> {
    let mut arguments = vec![
        unit,
        "--quiet".into(),
        "--output=export".into(),
        "--output-fields=MESSAGE,PRIORITY".into(),
        format!("--lines={}", request.lines),
    ];
    if let Some(since) = request.since {
        let since = since.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (seconds, rest) = (since.as_secs(), since.subsec_micros());
        arguments.push(format!("--since=@{seconds}.{rest:06}"));
    }
    if request.follow {
        arguments.push("--follow".into());
    }
    arguments
}
