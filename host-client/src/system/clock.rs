//! The guest's clock.

use std::time::Duration;

/// How far a clock was moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockStep {
    /// It was behind.
    Forward(Duration),
    /// It was ahead.
    Back(Duration),
}

impl From<Option<prost_types::Duration>> for ClockStep {
    fn from(step: Option<prost_types::Duration>) -> Self {
        match step.unwrap_or_default().try_into() {
            Ok(by) => Self::Forward(by),
            Err(prost_types::DurationError::NegativeDuration(by)) => Self::Back(by),
            Err(_) => Self::Forward(Duration::ZERO),
        }
    }
}
