//! What the program writes, on its way to the client: read only when the client has room, so that a stalled client
//! stalls its own program and nothing else.
//!
//! ```text
//! deliver ──end of file──────────────────────────────► nothing held
//!    └─ the leader exited: what was in the pipe by then ─► held by others ─► drop_rest
//! ```

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    unistd::read,
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::watch,
    time::{Instant, timeout},
};

use super::sink::Sink;
use crate::sys::child::available;

/// The largest piece of output in one message.
pub(super) const MAX_CHUNK: usize = 64 * 1024;

/// A terminal's queue holds less.
const TERMINAL_CHUNK: usize = 16 * 1024;

/// A terminal does not tell how much it holds: after the leader's exit it is done when it is silent for this long …
const TERMINAL_SILENCE: Duration = Duration::from_millis(50);
/// … or when it has been read for this long, besides the time that the client takes.
const TERMINAL_CAP: Duration = Duration::from_secs(1);

/// Which output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    pub(super) fn other(self) -> Self {
        match self {
            Self::Stdout => Self::Stderr,
            Self::Stderr => Self::Stdout,
        }
    }
}

impl std::fmt::Display for Stream {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        })
    }
}

/// One output of the program, with the way to its client.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) source: AsyncFd<OwnedFd>,
    pub(super) stream: Stream,
    pub(super) terminal: bool,
    pub(super) sink: Sink,
    /// Bytes read so far.
    pub(super) count: Arc<AtomicU64>,
    /// Becomes true when the leader has exited.
    pub(super) exited: watch::Receiver<bool>,
}

impl Output {
    /// Delivers until the end of file, or what was written before the leader exited. Gives back the descriptor that
    /// others still hold.
    pub(super) async fn deliver(mut self) -> Option<AsyncFd<OwnedFd>> {
        let mut exited = self.exited.clone();
        let ended = tokio::select! {
            biased;
            // An error means that the owner is gone, which is as good as an exit.
            _ = exited.wait_for(|exited| *exited) => false,
            () = self.copy_to_end() => true,
        };
        if ended {
            return None;
        }
        let held = if self.terminal {
            self.copy_rest_of_terminal().await
        } else {
            self.copy_rest_of_pipe().await
        };
        held.then_some(self.source)
    }

    async fn copy_to_end(&mut self) {
        while self.copy(MAX_CHUNK).await > 0 {}
    }

    /// Exactly what is in the pipe now: later bytes are the leftovers', who could go on for ever. Whether it is held.
    async fn copy_rest_of_pipe(&mut self) -> bool {
        let mut rest = available(self.source.as_fd()).unwrap_or(0);
        while rest > 0 {
            match self.copy(rest).await {
                0 => return false,
                bytes => rest -= bytes,
            }
        }
        if !self.has_hung_up() {
            return true;
        }
        // No writer is left: this ends.
        self.copy_to_end().await;
        false
    }

    async fn copy_rest_of_terminal(&mut self) -> bool {
        let mut left = TERMINAL_CAP;
        loop {
            let since = Instant::now();
            match timeout(left.min(TERMINAL_SILENCE), self.source.readable()).await {
                Err(_) => return true,
                Ok(Err(_)) => return false,
                Ok(Ok(_)) => {}
            }
            left = left.saturating_sub(since.elapsed());
            match timeout(TERMINAL_SILENCE, self.copy(MAX_CHUNK)).await {
                Ok(0) => return false,
                Ok(_) if left > Duration::ZERO => {}
                // Silent, or the client takes its time: `copy` loses nothing when it is dropped.
                Ok(_) => return true,
                Err(_) if !self.sink.is_full() => return true,
                Err(_) => {}
            }
        }
    }

    /// Copies one chunk of up to `limit` bytes; 0 at the end. Cancel-safe: it waits only before it reads.
    async fn copy(&mut self, limit: usize) -> usize {
        let room = self.sink.room().await;
        let size = limit.min(if self.terminal {
            TERMINAL_CHUNK
        } else {
            MAX_CHUNK
        });
        let terminal = self.terminal;
        let chunk = self
            .source
            .async_io(Interest::READABLE, |source| {
                read_chunk(source, size, terminal)
            })
            .await
            .unwrap_or_default();
        let bytes = chunk.len();
        self.count.fetch_add(bytes as u64, Ordering::Relaxed);
        if bytes > 0 {
            room.fill(self.stream, chunk);
        }
        bytes
    }

    fn has_hung_up(&self) -> bool {
        let mut polled = [PollFd::new(self.source.as_fd(), PollFlags::POLLIN)];
        let answered = poll(&mut polled, PollTimeout::ZERO).is_ok();
        answered
            && polled[0]
                .revents()
                .is_some_and(|events| events.contains(PollFlags::POLLHUP))
    }
}

/// Reads and drops what leftovers write, until the last of them closed it: they meet no SIGPIPE.
pub(super) async fn drop_rest(source: AsyncFd<OwnedFd>) {
    let read = async || {
        source
            .async_io(Interest::READABLE, |source| {
                read_chunk(source, MAX_CHUNK, false)
            })
            .await
    };
    while read().await.is_ok_and(|chunk| !chunk.is_empty()) {}
}

/// Allocates what there is to read, not more: idle programs hold no buffers, small outputs small ones.
fn read_chunk(source: &OwnedFd, size: usize, terminal: bool) -> io::Result<Vec<u8>> {
    let size = if terminal {
        size
    } else {
        available(source.as_fd()).unwrap_or(size).clamp(1, size)
    };
    let mut chunk = vec![0; size];
    let bytes = match read(source, &mut chunk) {
        // How a terminal's master says that the last of the other side closed it.
        Err(Errno::EIO) => 0,
        result => result?,
    };
    chunk.truncate(bytes);
    Ok(chunk)
}
