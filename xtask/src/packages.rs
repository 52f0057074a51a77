//! Debian packages that tests and measurements want of this host.

use std::{fs, os::unix::fs::MetadataExt, path::Path, process::Command};

use anyhow::ensure;

use crate::workspace::check;

/// Installs each package whose path is missing. Without root it says what to install.
pub(crate) fn install(wanted: &[(&str, &str)]) -> anyhow::Result<()> {
    let missing = wanted.iter().filter(|(path, _)| !Path::new(path).exists());
    let packages: Vec<&str> = missing.map(|(_, package)| *package).collect();
    if packages.is_empty() {
        return Ok(());
    }
    ensure!(
        may_install(),
        "this needs more of this host: apt-get install {}",
        packages.join(" ")
    );
    check(
        Command::new("apt-get")
            .args(["install", "--yes", "--no-install-recommends"])
            .args(packages),
    )
}

/// Whether this process is root.
pub(crate) fn may_install() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}
