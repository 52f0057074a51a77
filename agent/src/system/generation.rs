//! Which life of the guest this is: how often it was told, since its boot, that it was paused, restored or cloned.
//!
//! The listener counts, in a file that every worker may read; a worker asks for the next number and gets it once all workers
//! have been told.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use tokio::sync::{mpsc, oneshot};

/// Its name in the listener's runtime directory, which a boot empties.
const FILE: &str = "generation";

/// The number, and the way to the next.
#[derive(Clone, Debug)]
pub(crate) struct Generation {
    runtime_directory: PathBuf,
    requests: mpsc::Sender<oneshot::Sender<u64>>,
}

impl Generation {
    /// Requests go through the channel to the listener; their answer is the new number.
    pub(crate) fn new(
        runtime_directory: PathBuf,
        requests: mpsc::Sender<oneshot::Sender<u64>>,
    ) -> Self {
        Self {
            runtime_directory,
            requests,
        }
    }

    pub(crate) fn current(&self) -> u64 {
        read(&self.runtime_directory)
    }

    /// Asks for the next number. `None`: there is no listener now.
    pub(crate) async fn next(&self) -> Option<u64> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(answer).await.ok()?;
        answered.await.ok()
    }
}

/// 0 where there was none yet.
pub(crate) fn read(runtime_directory: &Path) -> u64 {
    let text = fs::read_to_string(runtime_directory.join(FILE)).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

/// Whole at every moment.
pub(crate) fn write(runtime_directory: &Path, generation: u64) -> io::Result<()> {
    let new = runtime_directory.join(".generation");
    fs::write(&new, format!("{generation}\n"))?;
    fs::rename(new, runtime_directory.join(FILE))
}
