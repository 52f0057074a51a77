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
mod ending;
mod environment;
mod error;
mod input;
mod launch;
mod leader;
mod output;
mod record;
mod registry;
mod run;
mod spec;
#[cfg(test)]
mod tests;

pub(crate) use client::{Client, Event, Exit, Input, Status as ExitStatus};
pub(crate) use error::{RunError, SignalError};
pub(crate) use leader::{SignalNumber, Target};
pub(crate) use output::Stream;
pub(crate) use record::{ProcessId, Summary};
pub(crate) use registry::ProcessRegistry;
pub(crate) use spec::{Command, Leftovers, OnDisconnect, ProcessSpec, TerminalSpec, WindowSize};
