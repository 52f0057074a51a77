//! The client of a running program: nothing but channels, so that the program's owner never waits for it.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{
    controls::Controls,
    group::GroupUsage,
    leader::{SignalNumber, Target},
    output::Stream,
    record::ProcessId,
    spec::WindowSize,
};
use crate::switches;
pub(crate) use crate::sys::child::{Status, Usage};

/// Chunks of at most 64 KiB that wait for the client: 256 KiB, as processes.proto promises.
const EVENT_QUEUE: usize = 4;

pub(super) fn event_queue() -> usize {
    match switches::is_off("bound on waiting output") {
        true => 1024,
        false => EVENT_QUEUE,
    }
}

/// What the client hears, `Exited` last. A stream that ends without it means that the exit is not known.
#[derive(Debug)]
pub(crate) enum Event {
    Output(Stream, Bytes),
    Exited(Exit),
}

/// What a client says.
#[derive(Debug)]
pub(crate) enum Input {
    Stdin(Bytes),
    CloseStdin,
    Resize(WindowSize),
    Signal(SignalNumber, Target),
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exit {
    pub(crate) status: Status,
    pub(crate) timed_out: bool,
    pub(crate) usage: Usage,
    pub(crate) wall_time: Duration,
    pub(crate) output_held: bool,
    /// What all in its cgroup used, also those that still run.
    pub(crate) group: Option<GroupUsage>,
    /// How many of its cgroup did not die of SIGKILL, where leftovers were to be killed.
    pub(crate) survivors: u32,
}

/// A started program, for its client. Dropping `events` is how a client vanishes.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) id: ProcessId,
    pub(crate) pid: i32,
    pub(crate) events: mpsc::Receiver<Event>,
    pub(crate) input: Controls,
}
