//! Gives memory back when a worker that moved much has come to rest: what it holds between calls is what it holds all day.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::timeout};

use crate::sys::memory;

/// After so many bytes there is something to give back: a chunk's worth.
const MUCH: usize = 1024 * 1024;

/// How long nothing much must have moved.
const REST: Duration = Duration::from_secs(1);

/// What all sockets of a worker have moved.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    bytes: AtomicUsize,
    much: Notify,
}

impl Traffic {
    /// Bytes that were read or written.
    pub(super) fn add(&self, bytes: usize) {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if before / MUCH != before.wrapping_add(bytes) / MUCH {
            self.much.notify_one();
        }
    }

    /// For as long as the worker lives. Wakes nobody while there is no traffic.
    pub(super) async fn tidy_up(self: Arc<Self>) {
        loop {
            self.much.notified().await;
            while timeout(REST, self.much.notified()).await.is_ok() {}
            memory::give_back();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn many_small_pieces_are_much_and_one_is_not() {
        let traffic = Traffic::default();
        let told = async || timeout(REST, traffic.much.notified()).await.is_ok();
        traffic.add(MUCH - 1);
        assert!(!told().await);
        traffic.add(1);
        assert!(told().await);
        (0..MUCH / 1000).for_each(|_| traffic.add(1000));
        assert!(!told().await);
        traffic.add(1000);
        assert!(told().await);
    }
}
