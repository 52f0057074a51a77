//! What workers cause in the agent's log: strangers' words, few of each worker, and fit for a log.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use super::allowance::Allowance;
use crate::control::{LogLevel, MAX_LOG_TEXT};

/// The shortest time between two lines that one worker gets into the agent's log. More are dropped.
const LOG_INTERVAL: Duration = Duration::from_millis(100);

/// The lines of one worker, of all that it has done.
#[derive(Clone, Debug)]
pub(super) struct WorkerLog {
    user: String,
    lines: Arc<Mutex<Allowance>>,
}

impl WorkerLog {
    pub(super) fn new(user: &str) -> Self {
        Self::with(user, Allowance::new(1, LOG_INTERVAL))
    }

    pub(super) fn with(user: &str, lines: Allowance) -> Self {
        Self {
            user: user.into(),
            lines: Arc::new(Mutex::new(lines)),
        }
    }

    /// A line, unless there was one a moment ago.
    pub(super) fn write(&self, level: LogLevel, text: &str) {
        if !self.may_write() {
            return;
        }
        let (user, text) = (&self.user, printable(text));
        match level {
            LogLevel::Warn => tracing::warn!(user, text, "worker"),
            LogLevel::Error => tracing::error!(user, text, "worker"),
        }
    }

    fn may_write(&self) -> bool {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.take().is_ok()
    }
}

/// A stranger's text, fit for a log.
pub(super) fn printable(text: &str) -> String {
    text.escape_debug().take(MAX_LOG_TEXT).collect()
}
