//! The client of a running program: nothing but channels, so that the program's owner never waits for it.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{
    leader::{SignalNumber, Target},
    output::Stream,
    record::ProcessId,
    spec::WindowSize,
};
pub(crate) use crate::sys::child::{Status, Usage};

/// Chunks of at most 64 KiB that wait for the client: 256 KiB, as processes.proto promises.
pub(super) const EVENT_QUEUE: usize = 4;

/// Messages of the client that wait; what the program does not take waits in [`super::input::Stdin`].
pub(super) const INPUT_QUEUE: usize = 1;

/// What the client hears, `Exited` last. A stream that ends without it means that the exit is not known.
#[derive(Debug)]
pub(crate) enum Event {
    Output(Stream, Bytes),
    Exited(Exit),
}

/// What the client says. Dropping the sender says nothing.
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
}

/// A started program, for its client. Dropping `events` is how a client vanishes.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) id: ProcessId,
    pub(crate) pid: i32,
    pub(crate) events: mpsc::Receiver<Event>,
    pub(crate) input: mpsc::Sender<Input>,
}
