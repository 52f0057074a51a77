//! The guest's clock. The kernel decides who may set it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::{
    errno::Errno,
    sys::time::TimeSpec,
    time::{ClockId, clock_settime},
};
use thiserror::Error;

/// 1 January 2020, in seconds since the epoch: older than this agent, so that a clock set to before it is a mistake.
const EARLIEST: Duration = Duration::from_secs(1_577_836_800);

/// How far the clock was moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Forward(Duration),
    Back(Duration),
}

/// Why it was not.
#[derive(Debug, Error)]
pub(crate) enum ClockError {
    #[error("a time before 2020 is no time that a clock should have now")]
    TooEarly,
    #[error("clock_settime")]
    Set(#[source] Errno),
}

/// clock_settime(2) of CLOCK_REALTIME.
pub(crate) fn set(time: SystemTime) -> Result<Step, ClockError> {
    let since = time.duration_since(UNIX_EPOCH);
    let since = since.map_err(|_| ClockError::TooEarly)?;
    if since < EARLIEST {
        return Err(ClockError::TooEarly);
    }
    let before = SystemTime::now();
    clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::from_duration(since))
        .map_err(ClockError::Set)?;
    Ok(match time.duration_since(before) {
        Ok(step) => Step::Forward(step),
        Err(back) => Step::Back(back.duration()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_no_clock_should_have_is_refused_before_the_kernel_is_asked() {
        for seconds in [0, 1_577_836_799] {
            let refused = set(UNIX_EPOCH + Duration::from_secs(seconds));
            assert!(matches!(refused, Err(ClockError::TooEarly)), "{seconds}");
        }
        let before_the_epoch = set(UNIX_EPOCH - Duration::from_secs(1));
        assert!(matches!(before_the_epoch, Err(ClockError::TooEarly)));
    }
}
