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
        self.bar.set_length(self.bar.length().unwrap_or(0) + size);
        self.bar.set_message(name);
    }

    pub(super) fn add(&self, bytes: u64) {
        self.bar.inc(bytes);
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
