//! Where things are, and how cargo is called.

use std::{
    env,
    fs::File,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, ensure};

/// The workspace's root.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("."))
}

/// Cargo's target folder.
pub(crate) fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| root().join("target"), |folder| root().join(folder))
}

/// Cargo, in the workspace.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// The same, for what others need not wait for: it takes the time that they leave.
pub(crate) fn patient_cargo() -> Command {
    let cargo = cargo();
    let mut command = Command::new("nice");
    command.args(["-n", "19"]).arg(cargo.get_program());
    command.current_dir(root());
    command
}

/// Runs a command to its end; a failure is an error.
pub(crate) fn check(command: &mut Command) -> anyhow::Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot run {command:?}"))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}

/// The same, and what it prints is kept in a file too. Lines that are not `shown` are kept alone.
pub(crate) fn record(
    command: &mut Command,
    file: &Path,
    shown: impl Fn(&str) -> bool,
) -> anyhow::Result<()> {
    let mut kept =
        File::create(file).with_context(|| format!("cannot write {}", file.display()))?;
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {command:?}"))?;
    let printed = child.stdout.take().context("it is piped")?;
    for line in BufReader::new(printed).split(b'\n') {
        let line = line.context("cannot read what it prints")?;
        let line = String::from_utf8_lossy(&line);
        writeln!(kept, "{line}").with_context(|| format!("cannot write {}", file.display()))?;
        if shown(&line) {
            println!("{line}");
        }
    }
    let status = child
        .wait()
        .with_context(|| format!("cannot wait for {command:?}"))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}
