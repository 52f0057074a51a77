//! The requests of a call that runs for long, as HTTP/2 takes them, and whether it waits for more or is stuck with what it has:
//! hyper keeps a call open whose answers nobody reads any more for as long as the guest does not take a request that was sent.
//! It looks for that only until the answer has begun.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// What HTTP/2 takes them from.
#[derive(Debug)]
pub(super) struct Requests<T> {
    queue: mpsc::Receiver<T>,
    given_up: Pin<Box<WaitForCancellationFutureOwned>>,
    is_waiting: Arc<AtomicBool>,
}

/// The way to end them, whoever can still send.
#[derive(Debug)]
pub(super) struct GiveUp {
    token: CancellationToken,
    is_waiting: Arc<AtomicBool>,
}

impl<T> Requests<T> {
    /// Of a queue.
    pub(super) fn new(queue: mpsc::Receiver<T>) -> (Self, GiveUp) {
        let token = CancellationToken::new();
        let is_waiting = Arc::<AtomicBool>::default();
        let this = Self {
            queue,
            given_up: Box::pin(token.clone().cancelled_owned()),
            is_waiting: is_waiting.clone(),
        };
        (this, GiveUp { token, is_waiting })
    }
}

impl GiveUp {
    /// No more are sent. Whether HTTP/2 notices: otherwise it holds one that the guest does not take.
    pub(super) fn give_up(&self) -> bool {
        self.token.cancel();
        self.is_waiting.load(Ordering::Relaxed)
    }
}

impl<T> Stream for Requests<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        let next = match self.given_up.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => self.queue.poll_recv(context),
        };
        self.is_waiting.store(next.is_pending(), Ordering::Relaxed);
        next
    }
}
