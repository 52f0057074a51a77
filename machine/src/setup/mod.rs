//! Gets what images and machines need and the host lacks: Debian packages and one crate. Kernel and busybox are unpacked
//! into the cache and never installed; QEMU and mmdebstrap are installed as packages.

mod packages;
pub(crate) mod programs;
mod vhost_device_vsock;

use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use crate::MachineError;

/// Between two looks whether another set-up has ended.
const HOLD_POLL: Duration = Duration::from_millis(50);

/// The cache, under the workspace's target folder, and what it can hold.
#[derive(Clone, Debug)]
pub struct Setup {
    cache: PathBuf,
    end: Option<Instant>,
}

impl Setup {
    /// Caches in `TARGET/guestline`.
    pub fn new(target: &Path) -> Self {
        Self {
            cache: target.join("guestline"),
            end: None,
        }
    }

    /// The same, for a start that has a limit: at that time it is over, with an error, wherever it stands before QEMU runs.
    /// What is missing in the cache is still made to its end.
    pub fn until(&self, end: Instant) -> Self {
        Self {
            cache: self.cache.clone(),
            end: Some(end),
        }
    }

    /// How long a start may still take, if that is limited.
    pub(crate) fn end(&self) -> Option<Instant> {
        self.end
    }

    /// A folder of the cache, made if it is missing.
    pub(crate) fn folder(&self, name: &str) -> Result<PathBuf, MachineError> {
        let path = self.cache.join(name);
        fs::create_dir_all(&path).map_err(MachineError::file("make", &path))?;
        Ok(path)
    }

    /// Waits until nobody else adds to the cache, which others may share: what is added is made beside its place, under
    /// one name. For as long as the result lives.
    pub(crate) fn hold(&self) -> Result<File, MachineError> {
        let path = self.folder("")?;
        let folder = File::open(&path).map_err(MachineError::file("open", &path))?;
        if let Err(TryLockError::WouldBlock) = folder.try_lock() {
            say("waiting for another set-up to end");
        }
        let Some(end) = self.end else {
            folder.lock().map_err(MachineError::file("lock", &path))?;
            return Ok(folder);
        };
        while let Err(error) = folder.try_lock() {
            match error {
                TryLockError::Error(error) => return Err(MachineError::file("lock", &path)(error)),
                TryLockError::WouldBlock if Instant::now() < end => thread::sleep(HOLD_POLL),
                TryLockError::WouldBlock => {
                    return Err(MachineError::Late {
                        doing: "wait for another set-up".into(),
                    });
                }
            }
        }
        Ok(folder)
    }
}

/// Talk, on stderr.
pub(crate) fn say(text: &str) {
    eprintln!("guestline: {text}");
}
