//! Gives memory back when a worker that moved something has come to rest: what it holds between calls is what it holds all day.
//!
//! What is in use at that moment stays: chunks that a peer which pauses does not take, say. They go once the peer takes them or
//! leaves, after which hardly anything moves. So whatever moves after a rest counts, and is followed by another.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::timeout};

use crate::sys::memory;

/// So many bytes in a time are no rest: a chunk's worth.
const MUCH: usize = 1024 * 1024;

/// How long nothing much must have moved.
const REST: Duration = Duration::from_secs(1);

/// The same, for a worker that always moves a little: each time costs the pages that its next calls take again.
const LONGEST_REST: Duration = Duration::from_secs(60);

/// What all sockets of a worker have moved. All of them are served by the worker's one thread, which also tidies up.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    bytes: AtomicUsize,
    /// Whether anything at all is to be told of, and not only much.
    is_tidy: AtomicBool,
    told: Notify,
}

impl Traffic {
    /// Bytes that were read or written.
    pub(super) fn add(&self, bytes: usize) {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let is_much = before / MUCH != before.wrapping_add(bytes) / MUCH;
        if is_much || self.is_tidy.swap(false, Ordering::Relaxed) {
            self.told.notify_one();
        }
    }

    /// A connection is gone, and what it held with it.
    pub(super) fn end(&self) {
        self.add(0);
    }

    /// For as long as the worker lives. Wakes nobody while there is no traffic.
    pub(super) async fn tidy_up(self: Arc<Self>) {
        self.tidy_up_by(memory::give_back_much).await;
    }

    async fn tidy_up_by(&self, give_back: impl Fn()) {
        loop {
            self.is_tidy.store(true, Ordering::Relaxed);
            self.told.notified().await;
            self.is_tidy.store(false, Ordering::Relaxed);
            let mut rest = REST;
            loop {
                let before = self.bytes.load(Ordering::Relaxed);
                if timeout(rest, self.told.notified()).await.is_ok() {
                    rest = REST;
                    continue;
                }
                give_back();
                if self.bytes.load(Ordering::Relaxed) == before {
                    break;
                }
                rest = LONGEST_REST.min(2 * rest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::time::{Instant, sleep};

    use super::*;

    /// Runs what moves something beside what tidies up. What it is given tells how often memory was given back.
    async fn beside(moving: impl AsyncFn(&Traffic, &Cell<usize>)) {
        let traffic = Traffic::default();
        let count = Cell::new(0);
        tokio::select! {
            () = moving(&traffic, &count) => {}
            () = traffic.tidy_up_by(|| count.set(count.get() + 1)) => unreachable!(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_given_back_while_much_moves_and_all_after_it() {
        beside(async |traffic, count| {
            for _ in 0..100 {
                (0..MUCH / 1000 + 1).for_each(|_| traffic.add(1000));
                sleep(REST * 9 / 10).await;
            }
            assert_eq!(count.get(), 0);
            sleep(REST).await;
            assert_eq!(count.get(), 1);
            sleep(1000 * REST).await;
            assert_eq!(count.get(), 1);
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_follows_a_rest_is_given_back_too_however_little_moves_then() {
        beside(async |traffic, count| {
            traffic.add(100 * MUCH);
            // Its peer pauses. What waits for it is in use whenever memory is given back.
            sleep(100 * REST).await;
            let last: [fn(&Traffic); 2] = [|traffic| traffic.add(MUCH / 1000), Traffic::end];
            for last in last {
                let before = count.get();
                last(traffic);
                sleep(2 * REST).await;
                assert!(count.get() > before);
            }
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_trickle_keeps_nothing_and_does_not_cost_much() {
        beside(async |traffic, count| {
            traffic.add(100 * MUCH);
            let begun = Instant::now();
            while begun.elapsed() < 10 * REST {
                traffic.add(10);
                sleep(REST / 50).await;
            }
            assert!(count.get() >= 3, "{}", count.get());
            while begun.elapsed() < 60 * LONGEST_REST {
                traffic.add(10);
                sleep(REST / 50).await;
            }
            assert!(count.get() < 100, "{}", count.get());
        })
        .await;
    }
}
