//! Waiting in tests for what the kernel or another process does a moment later.

use std::{
    thread,
    time::{Duration, Instant},
};

/// Whether it is so within 10 s.
pub(crate) fn comes_true(is_so: impl Fn() -> bool) -> bool {
    let end = Instant::now() + Duration::from_secs(10);
    while !is_so() {
        if Instant::now() >= end {
            return false;
        }
        thread::sleep(Duration::from_millis(1));
    }
    true
}
