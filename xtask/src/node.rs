//! The published SDK and what bundles it for a page, exactly as tests/sdk/package-lock.json has them, below the target folder.

use std::{fs, path::PathBuf, process::Command};

use anyhow::Context;

use crate::{
    packages,
    workspace::{check, root, target},
};

/// Installs what is missing, from the registry that npm is configured for. Where the packages are.
pub(crate) fn prepare() -> anyhow::Result<PathBuf> {
    packages::install(&[("/usr/bin/node", "nodejs"), ("/usr/bin/npm", "npm")])?;
    let folder = target().join("guestline/sdk");
    fs::create_dir_all(&folder)?;
    // Written last, so that a set-up that was cut short is done again.
    let done = folder.join("installed");
    let lock = fs::read_to_string(root().join("tests/sdk/package-lock.json"))?;
    if fs::read_to_string(&done).ok().as_ref() == Some(&lock) {
        return Ok(folder);
    }
    for file in ["package.json", "package-lock.json"] {
        fs::copy(root().join("tests/sdk").join(file), folder.join(file))
            .with_context(|| format!("cannot copy {file}"))?;
    }
    let words = [
        "ci",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        "--loglevel=error",
    ];
    check(Command::new("npm").args(words).current_dir(&folder))
        .context("the SDK's package cannot be installed")?;
    fs::write(&done, lock)?;
    Ok(folder)
}
