//! Programs of the worker's user: what to run ([`spec`]), made ready ([`launch`], [`environment`]), owned from start to
//! end by one task each ([`run`], [`ending`]) and known by number ([`registry`]). Called by `rpc::processes`.
//!
//! ```text
//! launch ─► Running: input ─► stdin        the task outlives its client, so that ending a program goes on
//!             │      output ─► client      when nobody listens any more
//!             ▼ the leader exits
//!           the rest of the output ─► Exited ─► leftovers: killed, or their output read and dropped
//! ```

mod client;
mod controls;
mod detached;
mod ending;
mod environment;
mod error;
mod group;
mod input;
mod launch;
mod leader;
mod now;
mod output;
mod record;
mod registry;
mod ring;
mod run;
mod sink;
mod spec;
#[cfg(test)]
mod tests;

pub(crate) use client::{Client, Event, Exit, Input, Status as ExitStatus, Usage};
pub(crate) use controls::Controls;
pub(crate) use detached::{AttachEvent, Attachment};
pub(crate) use error::{AttachError, RunError, SignalError};
pub(crate) use group::{Limits, Wish, Wishes, kill_members};
pub(crate) use leader::{SignalNumber, Target};
pub(crate) use output::Stream;
pub(crate) use record::{ProcessId, Summary};
pub(crate) use registry::ProcessRegistry;
pub(crate) use spec::{Command, Leftovers, OnDisconnect, ProcessSpec, TerminalSpec, WindowSize};
