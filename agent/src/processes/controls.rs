//! The way into a program, for one client or many: its input through its owner, signals and sizes past it.

use std::{os::fd::AsFd, sync::Arc};

use bytes::Bytes;

use super::{
    client::Input,
    record::{Record, lock},
};
use crate::sys::terminal;

/// Chunks that wait for the program's owner; what the program does not take waits in [`super::input::Stdin`].
pub(super) const FEED_QUEUE: usize = 1;

/// What goes to the program's stdin.
#[derive(Debug)]
pub(super) enum Feed {
    Chunk(Bytes),
    /// Closes it, behind what waits.
    End,
}

/// The program has ended, or nobody can speak to it any more.
#[derive(Debug)]
pub(crate) struct Deaf;

/// Cheap to clone. Dropping it says nothing to the program.
#[derive(Clone, Debug)]
pub(crate) struct Controls {
    record: Arc<Record>,
}

impl Controls {
    pub(super) fn new(record: Arc<Record>) -> Self {
        Self { record }
    }

    /// Waits while the program does not take its input; signals and sizes never wait, and may pass it.
    pub(crate) async fn send(&self, input: Input) -> Result<(), Deaf> {
        let feed = match input {
            Input::Stdin(chunk) => Feed::Chunk(chunk),
            Input::CloseStdin => Feed::End,
            Input::Resize(size) => {
                if let Some(terminal) = &*lock(&self.record.terminal)
                    && let Err(error) = terminal::resize(terminal.as_fd(), size)
                {
                    tracing::debug!(%error, "the terminal was not resized");
                }
                return Ok(());
            }
            Input::Signal(signal, target) => {
                // It may be ending just now, which its exit will tell.
                if let Err(error) = self.record.signal(signal, target) {
                    tracing::debug!(?error, "the program took no signal");
                }
                return Ok(());
            }
        };
        self.record.feed.send(feed).await.map_err(|_| Deaf)
    }

    /// Waits until input has become useless. Cancel-safe.
    pub(crate) async fn deaf(&self) {
        self.record.feed.closed().await;
    }
}
