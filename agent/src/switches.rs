//! Defences that a test build can do without, one at a time, so that a test shows that it would notice: `guestline-tests
//! mutations` runs each named test against such an agent, and it must fail. The feature `test-switches` is never in a
//! shipped binary. Without it `is_off` is `false` and `point` nothing when the compiler reads them, and no trace stays.
//!
//! A process of the test build reads `<its own path>.switches` when it starts, a word a line: a defence that is off, a point
//! at which the process is to die, or a long time that is to be a short one.

/// Reads what is off. Before the process becomes a user, who may not be able to.
#[cfg(feature = "test-switches")]
pub(crate) fn load() {
    let path = std::fs::read_link("/proc/self/exe").unwrap_or_default();
    let path = path.display().to_string();
    let path = path.trim_end_matches(" (deleted)");
    let words = std::fs::read_to_string(format!("{path}.switches")).unwrap_or_default();
    let _ = WORDS.set(words.lines().map(str::to_owned).collect());
}

#[cfg(not(feature = "test-switches"))]
pub(crate) const fn load() {}

#[cfg(feature = "test-switches")]
static WORDS: std::sync::OnceLock<Vec<String>> = std::sync::OnceLock::new();

/// Whether this defence is to be left out.
#[cfg(feature = "test-switches")]
pub(crate) fn is_off(defence: &str) -> bool {
    let words = WORDS.get();
    words.is_some_and(|words| words.iter().any(|word| word == defence))
}

#[cfg(not(feature = "test-switches"))]
pub(crate) const fn is_off(_: &str) -> bool {
    false
}

/// A point at which this process may die: SIGKILL, without a destructor run or a buffer flushed.
#[cfg(feature = "test-switches")]
pub(crate) fn point(name: &str) {
    if is_off(name) {
        let _ = crate::sys::child::kill(std::process::id().cast_signed(), 9);
    }
}

#[cfg(not(feature = "test-switches"))]
pub(crate) const fn point(_: &str) {}
