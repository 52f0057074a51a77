//! Gets what images and machines need and the host lacks: Debian packages and one crate. Kernel and busybox are unpacked
//! into the cache and never installed; QEMU and mmdebstrap are installed as packages.

mod packages;
pub(crate) mod programs;
mod vhost_device_vsock;

use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
};

use crate::MachineError;

/// The cache, under the workspace's target folder, and what it can hold.
#[derive(Clone, Debug)]
pub struct Setup {
    cache: PathBuf,
}

impl Setup {
    /// Caches in `TARGET/guestline`.
    pub fn new(target: &Path) -> Self {
        Self {
            cache: target.join("guestline"),
        }
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
        folder.lock().map_err(MachineError::file("lock", &path))?;
        Ok(folder)
    }
}

/// Talk, on stderr.
pub(crate) fn say(text: &str) {
    eprintln!("guestline: {text}");
}
