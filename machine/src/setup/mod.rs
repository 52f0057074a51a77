//! Gets what images and machines need and the host lacks: Debian packages and one crate. Kernel and busybox are unpacked
//! into the cache and never installed; QEMU and mmdebstrap are installed as packages.

mod packages;
pub(crate) mod programs;

use std::path::{Path, PathBuf};

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
        std::fs::create_dir_all(&path).map_err(MachineError::file("make", &path))?;
        Ok(path)
    }
}

/// Talk, on stderr.
pub(crate) fn say(text: &str) {
    eprintln!("guestline: {text}");
}
