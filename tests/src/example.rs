//! A program that is a client in another language: it gets the endpoint as GUESTLINE_VM, and must print what it should.

use std::{fs, path::Path, process::Stdio, time::Duration};

use anyhow::{Context, ensure};
use tokio::process::Command;

use crate::target::Target;

/// Longer than it takes under emulation.
const LIMIT: Duration = Duration::from_secs(120);

/// Runs the program to its end, and compares its stdout with the file.
pub async fn run(target: &Target, expected: &Path, program: &[&str]) -> anyhow::Result<()> {
    let wanted = fs::read_to_string(expected)
        .with_context(|| format!("cannot read {}", expected.display()))?;
    let (name, arguments) = program.split_first().context("which program?")?;
    let mut command = Command::new(name);
    command
        .args(arguments)
        .env("GUESTLINE_VM", target.endpoint().to_string())
        .env("GUESTLINE_USER", "alice")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    if let Some(path) = target.secret_file() {
        command.env("GUESTLINE_SECRET_FILE", path);
    }
    let output = tokio::time::timeout(LIMIT, command.output())
        .await
        .with_context(|| format!("{name} did not end within {LIMIT:?}"))?
        .with_context(|| format!("cannot run {name}"))?;
    let (said, complaints) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    ensure!(
        output.status.success(),
        "{program:?}: {}\n{said}{complaints}",
        output.status
    );
    ensure!(
        said == wanted,
        "{program:?} printed\n{said}and not, as {} has it,\n{wanted}{complaints}",
        expected.display()
    );
    Ok(())
}
