//! Waiting for something to become true, with a deadline, in place of sleeping and hoping.

use std::time::{Duration, Instant};

use anyhow::bail;

/// Longer than anything takes that a busy or emulated machine does at all.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Asks again and again until the answer is yes, or fails by the deadline with what was waited for.
pub async fn eventually(
    what: &str,
    deadline: Duration,
    mut ask: impl AsyncFnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let end = Instant::now() + deadline;
    while !ask().await? {
        if Instant::now() >= end {
            bail!("within {deadline:?} it did not become true that {what}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
