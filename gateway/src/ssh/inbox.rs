//! What a client sends on one channel, on its way to the channel's task.
//!
//! russh's loop must never wait for a channel: it also carries what the other channels send, and the windows that the
//! client grants. So it puts here without waiting, and when a channel's task does not keep up, the client's window is no
//! longer refilled: see [`window`].

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use russh::Sig;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

/// What a client may have under way on one channel.
pub(super) const WINDOW: u32 = 2 * 1024 * 1024;

/// With more than this waiting, the window is not refilled. A task that writes to a guest empties it in some ten
/// milliseconds, which is what a refill takes to be seen.
const FULL: usize = 2 * 1024 * 1024;

/// Somebody who ignores the window sends more than this: what was full, and twice the window.
const FLOODED: usize = FULL + 2 * WINDOW as usize + 256 * 1024;

/// russh refills a window that has fallen below half of its target. With this target, one that is used up gets two bytes
/// more: the client sends them, and with them we are asked for the next target. That is how a window opens again.
const TRICKLE: u32 = 2;

/// A client whose window trickles is answered this much later, so that it costs some hundred packets a second.
const TRICKLE_PAUSE: Duration = Duration::from_millis(10);

/// Of a request's own, whatever it holds.
const REQUEST_COST: usize = 64;

/// Something that a client wants of its channel, in the order in which it came.
#[derive(Debug)]
pub(super) enum Request {
    Terminal {
        term: String,
        columns: u32,
        rows: u32,
    },
    Variable {
        name: String,
        value: String,
    },
    Shell,
    Command(Bytes),
    Sftp,
    Resize {
        columns: u32,
        rows: u32,
    },
    Signal(Sig),
    Data(Bytes),
    Eof,
}

impl Request {
    fn cost(&self) -> usize {
        let held = match self {
            Self::Terminal { term, .. } => term.len(),
            Self::Variable { name, value } => name.len() + value.len(),
            Self::Command(bytes) | Self::Data(bytes) => bytes.len(),
            Self::Shell | Self::Sftp | Self::Resize { .. } | Self::Signal(_) | Self::Eof => 0,
        };
        REQUEST_COST + held
    }
}

/// The client sent more than it was allowed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the client ignores its channel's window")]
pub(super) struct Flooded;

/// The handler's end. Dropping it is the channel's end.
#[derive(Debug)]
pub(super) struct Post {
    queue: mpsc::UnboundedSender<Request>,
    level: Arc<AtomicUsize>,
    _closed: DropGuard,
}

/// The task's end.
#[derive(Debug)]
pub(super) struct Inbox {
    queue: mpsc::UnboundedReceiver<Request>,
    level: Arc<AtomicUsize>,
    closed: CancellationToken,
}

/// Both ends of a new channel.
pub(super) fn inbox() -> (Post, Inbox) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let level = Arc::<AtomicUsize>::default();
    let closed = CancellationToken::new();
    let post = Post {
        queue: sender,
        level: level.clone(),
        _closed: closed.clone().drop_guard(),
    };
    let inbox = Inbox {
        queue: receiver,
        level,
        closed,
    };
    (post, inbox)
}

impl Post {
    /// Does not wait. What nobody takes any more is dropped.
    pub(super) fn put(&self, request: Request) -> Result<(), Flooded> {
        let cost = request.cost();
        if self.is_over() {
            return Ok(());
        }
        if self.level.fetch_add(cost, Ordering::Relaxed) + cost > FLOODED {
            return Err(Flooded);
        }
        let _ = self.queue.send(request);
        Ok(())
    }

    pub(super) fn is_full(&self) -> bool {
        self.level.load(Ordering::Relaxed) > FULL && !self.is_over()
    }

    /// The task has ended.
    pub(super) fn is_over(&self) -> bool {
        self.queue.is_closed()
    }
}

/// What russh is to refill the windows of a connection with these channels to. It has one target for all of them: beside a
/// full channel, others get no more than they have.
pub(super) fn window<'a>(mut channels: impl Iterator<Item = &'a Post>) -> u32 {
    match channels.any(Post::is_full) {
        true => TRICKLE,
        false => WINDOW,
    }
}

/// Before the next packet is looked at, where this one was a trickle.
pub(super) async fn pause_after(length: usize, post: &Post) {
    if length <= TRICKLE as usize && post.is_full() {
        tokio::time::sleep(TRICKLE_PAUSE).await;
    }
}

impl Inbox {
    /// Cancelled when the client has closed the channel; what it sent before can still be read.
    pub(super) fn closed(&self) -> CancellationToken {
        self.closed.clone()
    }

    /// `None`: the client closed the channel.
    pub(super) async fn next(&mut self) -> Option<Request> {
        let request = self.queue.recv().await?;
        self.level.fetch_sub(request.cost(), Ordering::Relaxed);
        Some(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(length: usize) -> Request {
        Request::Data(vec![0; length].into())
    }

    #[tokio::test]
    async fn a_full_channel_closes_the_window_until_it_is_read() {
        let (post, mut inbox) = inbox();
        assert_eq!(window([&post].into_iter()), WINDOW);
        post.put(data(FULL)).unwrap();
        assert_eq!(window([&post].into_iter()), TRICKLE);
        assert!(matches!(inbox.next().await, Some(Request::Data(_))));
        assert_eq!(window([&post].into_iter()), WINDOW);
        drop(post);
        assert!(inbox.next().await.is_none());
    }

    #[tokio::test]
    async fn a_client_that_ignores_the_window_is_noticed() {
        let (post, inbox) = inbox();
        for _ in 0..FLOODED / (1 << 20) {
            post.put(data((1 << 20) - REQUEST_COST)).unwrap();
        }
        assert_eq!(post.put(data(1 << 20)), Err(Flooded));
        drop(inbox);
        assert_eq!(post.put(data(1 << 20)), Ok(()));
        assert!(!post.is_full());
    }

    #[tokio::test]
    async fn requests_without_data_count_too() {
        let (post, _inbox) = inbox();
        let resize = || Request::Resize {
            columns: 1,
            rows: 1,
        };
        let flood = (0..FLOODED).find(|_| post.put(resize()).is_err());
        assert_eq!(flood, Some(FLOODED / REQUEST_COST));
    }
}
