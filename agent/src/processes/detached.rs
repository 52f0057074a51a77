//! Programs that live on without a client: their output in rings, for any number of clients, each at its own pace.
//!
//! ```text
//! Output ──► Kept { stdout ring, stderr ring, how it ended } ──► Attachment (where one client is)
//!                        `changed` wakes all of them
//! ```

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use thiserror::Error;
use tokio::sync::watch;

use super::{
    client::Exit,
    output::{MAX_CHUNK, Stream},
    record::lock,
    ring::Ring,
};

/// Bytes that the rings of all of a worker's programs may come to hold.
const MAX_MEMORY: usize = 512 * 1024 * 1024;

/// What is left of [`MAX_MEMORY`].
#[derive(Debug)]
pub(super) struct Budget(AtomicUsize);

impl Default for Budget {
    fn default() -> Self {
        Self(AtomicUsize::new(MAX_MEMORY))
    }
}

impl Budget {
    fn take(&self, bytes: usize) -> bool {
        let order = Ordering::Relaxed;
        let taken = self
            .0
            .fetch_update(order, order, |left| left.checked_sub(bytes));
        taken.is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// What is kept of a detached program's output.
#[derive(Debug)]
pub(super) struct Detached {
    kept: Mutex<Kept>,
    changed: watch::Sender<()>,
    budget: Arc<Budget>,
}

impl Drop for Detached {
    fn drop(&mut self) {
        self.budget.give_back(lock(&self.kept).memory());
    }
}

#[derive(Debug)]
struct Kept {
    stdout: Ring,
    stderr: Ring,
    end: Option<End>,
}

/// Nothing more comes; `None`: how the program ended is not known.
type End = Option<Exit>;

/// What an attached client hears. `Exited` is the last; an end without it means that the exit is not known.
#[derive(Debug, PartialEq)]
pub(crate) enum AttachEvent {
    /// Bytes between where the client was and the oldest kept one.
    Lost {
        stdout: u64,
        stderr: u64,
    },
    Output {
        stream: Stream,
        /// Of its first byte.
        offset: u64,
        bytes: Bytes,
    },
    Exited(Exit),
}

/// An offset that the output has not reached.
#[derive(Debug, Error)]
#[error(
    "the offset {offset} of {stream} is beyond the {written} bytes that the program has written"
)]
pub(crate) struct BeyondEnd {
    stream: Stream,
    offset: u64,
    written: u64,
}

impl Detached {
    /// Keeps `ring_size` bytes of each stream. `None` if the budget does not have them.
    pub(super) fn new(ring_size: usize, budget: &Arc<Budget>) -> Option<Self> {
        budget.take(2 * ring_size).then(|| Self {
            kept: Mutex::new(Kept {
                stdout: Ring::new(ring_size),
                stderr: Ring::new(ring_size),
                end: None,
            }),
            changed: watch::Sender::new(()),
            budget: Arc::clone(budget),
        })
    }

    pub(super) fn push(&self, stream: Stream, bytes: &[u8]) {
        lock(&self.kept).ring_mut(stream).push(bytes);
        self.changed.send_replace(());
    }

    /// After all output.
    pub(super) fn end(&self, exit: Option<Exit>) {
        let mut kept = lock(&self.kept);
        let before = kept.memory();
        kept.stdout.finish();
        kept.stderr.finish();
        kept.end = Some(exit);
        self.budget.give_back(before - kept.memory());
        drop(kept);
        self.changed.send_replace(());
    }
}

impl Kept {
    /// Bytes that the rings hold, or may come to hold.
    fn memory(&self) -> usize {
        self.stdout.capacity() + self.stderr.capacity()
    }

    fn ring(&self, stream: Stream) -> &Ring {
        match stream {
            Stream::Stdout => &self.stdout,
            Stream::Stderr => &self.stderr,
        }
    }

    fn ring_mut(&mut self, stream: Stream) -> &mut Ring {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }
}

/// One client's place in a program's output.
#[derive(Debug)]
pub(crate) struct Attachment {
    detached: Arc<Detached>,
    changed: watch::Receiver<()>,
    stdout: u64,
    stderr: u64,
    /// Looked at first, so that a loud stream does not silence the other.
    turn: Stream,
    ended: bool,
}

impl Attachment {
    /// From these offsets on; `None`: from the oldest byte that is kept.
    pub(super) fn new(
        detached: Arc<Detached>,
        stdout: Option<u64>,
        stderr: Option<u64>,
    ) -> Result<Self, BeyondEnd> {
        let kept = lock(&detached.kept);
        let place = |stream: Stream, asked: Option<u64>| {
            let ring = kept.ring(stream);
            let offset = asked.unwrap_or(ring.start());
            let written = ring.end();
            if offset > written {
                return Err(BeyondEnd {
                    stream,
                    offset,
                    written,
                });
            }
            Ok(offset)
        };
        let (stdout, stderr) = (
            place(Stream::Stdout, stdout)?,
            place(Stream::Stderr, stderr)?,
        );
        drop(kept);
        Ok(Self {
            changed: detached.changed.subscribe(),
            detached,
            stdout,
            stderr,
            turn: Stream::Stdout,
            ended: false,
        })
    }

    /// What the client has not heard yet; `None` after the end. Waits for the program, never for another client. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Option<AttachEvent> {
        loop {
            // Before looking, so that a change after the look is not missed.
            self.changed.borrow_and_update();
            if let Some(event) = self.look() {
                return event;
            }
            // `self` holds the sender.
            let _ = self.changed.changed().await;
        }
    }

    /// `None`: nothing new. `Some(None)`: nothing will come.
    fn look(&mut self) -> Option<Option<AttachEvent>> {
        if self.ended {
            return Some(None);
        }
        let kept = lock(&self.detached.kept);
        let stdout = kept.stdout.start().saturating_sub(self.stdout);
        let stderr = kept.stderr.start().saturating_sub(self.stderr);
        if stdout + stderr > 0 {
            self.stdout += stdout;
            self.stderr += stderr;
            return Some(Some(AttachEvent::Lost { stdout, stderr }));
        }
        for stream in [self.turn, self.turn.other()] {
            let place = match stream {
                Stream::Stdout => &mut self.stdout,
                Stream::Stderr => &mut self.stderr,
            };
            let bytes = kept.ring(stream).read(*place, MAX_CHUNK);
            if !bytes.is_empty() {
                let offset = *place;
                *place += bytes.len() as u64;
                self.turn = stream.other();
                let bytes = Bytes::from(bytes);
                return Some(Some(AttachEvent::Output {
                    stream,
                    offset,
                    bytes,
                }));
            }
        }
        let end = kept.end?;
        self.ended = true;
        Some(end.map(AttachEvent::Exited))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detached(ring_size: usize) -> Arc<Detached> {
        Arc::new(Detached::new(ring_size, &Arc::default()).unwrap())
    }

    async fn output(attachment: &mut Attachment) -> (Stream, u64, Vec<u8>) {
        match attachment.next().await {
            Some(AttachEvent::Output {
                stream,
                offset,
                bytes,
            }) => (stream, offset, bytes.into()),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn each_client_has_its_own_place_and_a_loud_stream_does_not_silence_the_other() {
        let detached = detached(MAX_CHUNK * 4);
        detached.push(Stream::Stdout, &[b'o'; MAX_CHUNK * 2]);
        detached.push(Stream::Stderr, b"err");
        let mut first = Attachment::new(Arc::clone(&detached), None, None).unwrap();
        let mut second = Attachment::new(Arc::clone(&detached), Some(5), Some(3)).unwrap();
        assert_eq!(output(&mut first).await.1, 0);
        assert_eq!(output(&mut first).await, (Stream::Stderr, 0, b"err".into()));
        let (stream, offset, _) = output(&mut second).await;
        assert_eq!((stream, offset), (Stream::Stdout, 5));
        detached.push(Stream::Stderr, b"or");
        assert_eq!(output(&mut second).await, (Stream::Stderr, 3, b"or".into()));
    }

    #[tokio::test]
    async fn who_is_too_late_hears_how_much_was_lost() {
        let detached = detached(4);
        detached.push(Stream::Stdout, b"0123456789");
        let mut attachment = Attachment::new(Arc::clone(&detached), Some(1), None).unwrap();
        let lost = AttachEvent::Lost {
            stdout: 5,
            stderr: 0,
        };
        assert_eq!(attachment.next().await, Some(lost));
        assert_eq!(
            output(&mut attachment).await,
            (Stream::Stdout, 6, b"6789".into())
        );
        detached.end(None);
        assert_eq!(attachment.next().await, None);
        assert_eq!(attachment.next().await, None);
    }

    #[test]
    fn memory_is_promised_once_and_given_back() {
        let budget = Arc::default();
        let large = Detached::new(MAX_MEMORY / 2, &budget).unwrap();
        assert!(Detached::new(1, &budget).is_none());
        large.push(Stream::Stdout, b"kept");
        large.end(None);
        let rest = Detached::new(MAX_MEMORY / 2 - 2, &budget).unwrap();
        assert!(Detached::new(1, &budget).is_none());
        drop((large, rest));
        assert!(budget.take(MAX_MEMORY));
    }

    #[test]
    fn an_offset_that_was_never_reached_is_an_error() {
        let detached = detached(4);
        detached.push(Stream::Stderr, b"12");
        let error = Attachment::new(detached, None, Some(3)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the offset 3 of stderr is beyond the 2 bytes that the program has written"
        );
    }
}
