//! How far a copy is, for a person at a terminal; nothing for anybody else.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar on stderr.
pub(super) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    pub(super) fn new() -> Self {
        let bar = match std::io::stderr().is_terminal() {
            true => ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()),
            false => ProgressBar::hidden(),
        };
        let style = ProgressStyle::with_template(
            "{wide_msg} {bytes}/{total_bytes} {binary_bytes_per_sec} {eta}",
        );
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self { bar }
    }

    /// A file of `size` bytes begins.
    pub(super) fn file(&self, name: String, size: u64) {
        let length = self.bar.length().unwrap_or(0);
        // A guest says any number.
        self.bar.set_length(length.saturating_add(size));
        self.bar.set_message(name);
    }

    pub(super) fn add(&self, bytes: u64) {
        let position = self.bar.position();
        self.bar.set_position(position.saturating_add(bytes));
    }

    /// A line on stderr that the bar does not draw over.
    pub(super) fn say(&self, line: &str) {
        self.bar.suspend(|| eprintln!("{line}"));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_that_a_guest_made_up_end_at_the_largest_number() {
        let progress = Progress::new();
        for _ in 0..2 {
            progress.file("x".into(), u64::MAX);
            progress.add(u64::MAX - 1);
        }
        assert_eq!(progress.bar.length(), Some(u64::MAX));
        assert_eq!(progress.bar.position(), u64::MAX);
    }
}
