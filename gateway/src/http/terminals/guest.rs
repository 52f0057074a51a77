//! Terminals as the guest has them: detached programs with a label.

use std::time::Duration;

use guestline_client::{
    AttachEvent, Attached, ErrorReason, Offsets, Process, Processes, SignalTarget,
};
use tokio::time::timeout;

use super::{KEPT, LABEL};
use crate::http::error::{ApiError, Code};

/// How long input may wait for a program that does not read.
const INPUT_LIMIT: Duration = Duration::from_secs(5);

/// Twice what a terminal keeps, in bytes.
const MAX_READ: usize = 2 * KEPT as usize;

const SIGKILL: i32 = 9;

/// No signal has this number.
const NO_SIGNAL: i32 = 0;

/// The terminals that the guest knows of, the oldest first.
pub(super) async fn all(processes: &Processes) -> Result<Vec<Process>, ApiError> {
    let mut all = processes.list().await?;
    all.retain(|process| process.detached && process.labels.contains_key(LABEL));
    Ok(all)
}

pub(super) fn is_named(process: &Process, name: &str) -> bool {
    process.labels.get(LABEL).is_some_and(|of| of == name)
}

pub(super) fn is_open(process: &Process) -> bool {
    process.exit.is_none()
}

/// The one that runs; else the last that did.
pub(super) async fn find(processes: &Processes, name: &str) -> Result<Option<Process>, ApiError> {
    let mut named = all(processes).await?;
    named.retain(|process| is_named(process, name));
    let open = named.iter().position(is_open);
    Ok(match open {
        Some(at) => Some(named.swap_remove(at)),
        None => named.pop(),
    })
}

pub(super) async fn must_find(processes: &Processes, name: &str) -> Result<Process, ApiError> {
    find(processes, name).await?.ok_or_else(|| missing(name))
}

pub(super) async fn must_be_open(processes: &Processes, name: &str) -> Result<Process, ApiError> {
    let found = must_find(processes, name).await?;
    if is_open(&found) {
        return Ok(found);
    }
    Err(exited(name))
}

fn exited(name: &str) -> ApiError {
    let text = format!("the terminal {name} has exited");
    ApiError::new(Code::TerminalExited, text)
}

pub(super) fn missing(name: &str) -> ApiError {
    let text = format!("this user has no terminal {name}");
    ApiError::new(Code::TerminalNotFound, text)
}

pub(super) fn exists(name: &str) -> ApiError {
    let text = format!("this user has a terminal {name} already");
    ApiError::new(Code::TerminalExists, text)
}

/// Behind all that was written when it was looked at.
pub(super) fn end_of(process: &Process) -> Offsets {
    Offsets {
        stdout: Some(process.stdout_bytes),
        stderr: Some(process.stderr_bytes),
    }
}

pub(super) async fn signal(
    processes: &Processes,
    id: u64,
    signal: i32,
    target: SignalTarget,
) -> Result<(), ApiError> {
    match processes.signal(id, signal, target).await {
        // It ended by itself.
        Err(error) if error.reason() == Some(ErrorReason::NoSuchProcess) => Ok(()),
        done => Ok(done?),
    }
}

/// With all that it started, where the guest can.
pub(super) async fn kill(processes: &Processes, id: u64) -> Result<(), ApiError> {
    let done = processes.signal(id, SIGKILL, SignalTarget::All).await;
    match done.map_err(|error| error.reason()) {
        Ok(()) | Err(Some(ErrorReason::NoSuchProcess)) => Ok(()),
        Err(_) => signal(processes, id, SIGKILL, SignalTarget::Group).await,
    }
}

/// Until it ends, or the connection does.
pub(super) async fn exit(mut attached: Attached) {
    while let Ok(event) = attached.event().await {
        if let AttachEvent::Exited(_) = event {
            return;
        }
    }
}

/// Says something to a terminal, and waits until the guest has it: what it has taken, it gives to the program whenever that
/// reads, and what it has not taken goes when we leave. It takes one thing after another, and ends the call at the first that
/// it cannot: a signal that there is none of, behind what is said, is how it tells.
///
/// When that does not come in time, the guest has most likely not taken it. The program may also have begun to read a moment
/// ago, and the guest's word be on its way: `otherwise` says what may have happened then.
pub(super) async fn say(
    attached: Attached,
    name: &str,
    said: impl Future<Output = ()> + Send,
    otherwise: &str,
) -> Result<(), ApiError> {
    let input = attached.input();
    let saying = async {
        said.await;
        input.signal(NO_SIGNAL, SignalTarget::Leader).await;
        std::future::pending::<()>().await;
    };
    let heard = async {
        tokio::select! {
            () = saying => unreachable!("saying never ends"),
            heard = taken(attached, name) => heard,
        }
    };
    timeout(INPUT_LIMIT, heard).await.unwrap_or_else(|_| {
        let text = format!(
            "the program in the terminal {name} has not read its input for {INPUT_LIMIT:?}, and this was given up; if it has just begun to, {otherwise}"
        );
        Err(ApiError::new(Code::TerminalNotReading, text))
    })
}

/// Until the call ends.
async fn taken(mut attached: Attached, name: &str) -> Result<(), ApiError> {
    loop {
        match attached.event().await {
            Ok(AttachEvent::Exited(_)) => return Err(exited(name)),
            Ok(_) => {}
            Err(error) if error.reason() == Some(ErrorReason::InvalidArgument) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Output that the guest still has.
pub(super) struct Kept {
    pub(super) bytes: Vec<u8>,
    /// There was more before.
    pub(super) is_cut: bool,
}

/// Up to that offset, or its exit. A guest says what the offset is, and has not more to give than it was to keep.
pub(super) async fn read(mut attached: Attached, end: u64) -> Result<Kept, ApiError> {
    let mut kept = Kept {
        bytes: Vec::new(),
        is_cut: false,
    };
    while attached.reached().stdout.unwrap_or_default() < end && kept.bytes.len() < MAX_READ {
        match attached.event().await? {
            AttachEvent::Stdout(data) => {
                let start = attached.reached().stdout.unwrap_or_default() - data.len() as u64;
                kept.is_cut |= kept.bytes.is_empty() && start > 0;
                kept.bytes.extend_from_slice(&data);
            }
            // A terminal has one stream.
            AttachEvent::Stderr(_) => {}
            AttachEvent::Lost { .. } => kept.is_cut = true,
            AttachEvent::Exited(_) => break,
        }
    }
    Ok(kept)
}
