//! How often somebody may do something.

use std::time::{Duration, Instant};

/// So many in an interval, counted from the first of them.
#[derive(Debug)]
pub(super) struct Allowance {
    most: u32,
    interval: Duration,
    since: Instant,
    count: u32,
}

impl Allowance {
    pub(super) fn new(most: u32, interval: Duration) -> Self {
        Self {
            most,
            interval,
            since: Instant::now(),
            count: 0,
        }
    }

    /// Takes one, or says how long there is none.
    pub(super) fn take(&mut self) -> Result<(), Duration> {
        self.take_at(Instant::now())
    }

    fn take_at(&mut self, now: Instant) -> Result<(), Duration> {
        let passed = now.saturating_duration_since(self.since);
        if self.count == 0 || passed >= self.interval {
            (self.since, self.count) = (now, 0);
        } else if self.count >= self.most {
            return Err(self.interval - passed);
        }
        self.count += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_are_allowed_in_an_interval_and_again_in_the_next() {
        let second = Duration::from_secs(1);
        let mut allowance = Allowance::new(3, second);
        let start = allowance.since + 5 * second;
        let at = |millis| start + Duration::from_millis(millis);
        for millis in [0, 100, 900] {
            assert_eq!(allowance.take_at(at(millis)), Ok(()));
        }
        assert_eq!(allowance.take_at(at(900)), Err(Duration::from_millis(100)));
        for _ in 0..3 {
            assert_eq!(allowance.take_at(at(1000)), Ok(()));
        }
        assert_eq!(allowance.take_at(at(1000)), Err(second));
        // A clock that seems to go back gives nothing away.
        assert_eq!(allowance.take_at(start), Err(second));
    }
}
