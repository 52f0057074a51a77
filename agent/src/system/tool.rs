//! The guest's own programs that the agent asks for what only they can do (systemctl, journalctl, poweroff), run as the
//! worker's user, in bounded number, with bounded time and output. Dropping the future of a run ends the program.

use std::{path::Path, process::Stdio, time::Duration};

use nix::errno::Errno;
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, ChildStderr, Command},
    sync::{Semaphore, SemaphorePermit},
};

use crate::sys::errno_of;

/// Programs at once in one worker. More are refused.
const MAX_TOOLS: usize = 32;

/// The longest that one may take which is to end by itself: more than systemd gives a service to start.
const MAX_TIME: Duration = Duration::from_secs(120);

/// What one may print: some thousand services take half of it.
const MAX_OUTPUT: u64 = 2 * 1024 * 1024;

/// How much of its own words about an error is passed on.
const MAX_WORDS: u64 = 1024;

static PLACES: Semaphore = Semaphore::const_new(MAX_TOOLS);

/// Why a program did not run to its end.
#[derive(Debug, Error)]
pub(crate) enum ToolError {
    #[error("this guest has no {0}")]
    Missing(&'static str),
    #[error(
        "{MAX_TOOLS} programs of the guest run for this user already; try again when some have ended"
    )]
    Limit,
    #[error("cannot run {tool}")]
    Start { tool: &'static str, errno: Errno },
    #[error("{0} did not end within {limit} s", limit = MAX_TIME.as_secs())]
    TooSlow(&'static str),
    #[error("{0} printed more than {MAX_OUTPUT} bytes; ask for less")]
    TooMuch(&'static str),
    #[error("reading from {tool}")]
    Read { tool: &'static str, errno: Errno },
}

/// A program that has ended.
#[derive(Debug)]
pub(super) struct Finished {
    /// `None`: a signal ended it.
    pub(super) code: Option<i32>,
    pub(super) stdout: String,
    pub(super) words: String,
}

/// A program that runs, with its outputs in pipes. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) child: Child,
    _place: SemaphorePermit<'static>,
}

/// Where a program is, in the folders that every guest has.
pub(super) fn find(name: &str) -> Option<String> {
    let folders = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    folders
        .iter()
        .map(|folder| format!("{folder}/{name}"))
        .find(|path| Path::new(path).exists())
}

/// Starts a program with nothing of the agent's but its arguments.
pub(super) async fn start(tool: &'static str, arguments: &[&str]) -> Result<Running, ToolError> {
    let place = PLACES.try_acquire().map_err(|_| ToolError::Limit)?;
    let path = find(tool).ok_or(ToolError::Missing(tool))?;
    let mut command = Command::new(path);
    command
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LC_ALL", "C")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let started = |error: std::io::Error| ToolError::Start {
        tool,
        errno: errno_of(&error),
    };
    // An exec from a disk that hangs must not hold the runtime.
    let child = tokio::task::spawn_blocking(move || command.spawn()).await;
    let child = child.map_err(std::io::Error::from).map_err(started)?;
    Ok(Running {
        child: child.map_err(started)?,
        _place: place,
    })
}

/// Runs a program to its end, whatever its exit code.
pub(super) async fn run(tool: &'static str, arguments: &[&str]) -> Result<Finished, ToolError> {
    let mut running = start(tool, arguments).await?;
    let child = &mut running.child;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let ended = async {
        let read = async {
            let output = take(stdout, MAX_OUTPUT + 1).await?;
            // What a program prints beyond that, nobody reads, and so it may never end.
            let too_much = output.len() as u64 > MAX_OUTPUT;
            Ok((output, too_much))
        };
        let ((output, too_much), words) = tokio::try_join!(read, words(stderr))?;
        if too_much {
            return Ok(None);
        }
        let status = child.wait().await?;
        Ok::<_, std::io::Error>(Some((output, words, status)))
    };
    let ended = tokio::time::timeout(MAX_TIME, ended);
    let read = |error: std::io::Error| ToolError::Read {
        tool,
        errno: errno_of(&error),
    };
    let ended = ended.await.map_err(|_| ToolError::TooSlow(tool))?;
    let (output, words, status) = ended.map_err(read)?.ok_or(ToolError::TooMuch(tool))?;
    Ok(Finished {
        code: status.code(),
        stdout: String::from_utf8_lossy(&output).into_owned(),
        words,
    })
}

/// What a program says about an error, on one bounded line.
async fn words(stderr: Option<ChildStderr>) -> std::io::Result<String> {
    let Some(mut stderr) = stderr else {
        return Ok(String::new());
    };
    let words = take(Some(&mut stderr), MAX_WORDS).await?;
    tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await?;
    Ok(one_line(&words))
}

pub(super) fn one_line(words: &[u8]) -> String {
    let words = String::from_utf8_lossy(words);
    let lines: Vec<&str> = words
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    lines.join("; ")
}

async fn take(output: Option<impl AsyncRead + Unpin>, most: u64) -> std::io::Result<Vec<u8>> {
    let mut taken = Vec::new();
    if let Some(output) = output {
        output.take(most).read_to_end(&mut taken).await?;
    }
    Ok(taken)
}
