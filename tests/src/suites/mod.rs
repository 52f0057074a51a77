//! The cases by subject. The number behind a case's name is that of the promise that it shows; see `promises.rs`.

pub mod accounts;
pub mod becoming;
pub mod commands;
pub mod connections;
pub mod debian;
pub mod detached;
pub mod differential;
pub mod directory;
pub mod disks;
pub mod extended;
pub mod faults;
pub mod files;
pub mod flood;
pub mod forwarding;
pub mod freeze;
pub mod groups;
pub mod hostile_trees;
pub mod hung;
mod invariants;
pub mod isolation;
pub mod large;
pub mod machine;
pub mod many;
pub mod neighbours;
pub mod network;
pub mod pausing;
pub mod peers;
pub mod power;
pub mod proc;
pub mod processes;
pub mod races;
pub mod resident;
pub mod restart;
pub mod secret;
pub mod secret_changes;
pub mod services;
pub mod sessions;
pub mod soak;
pub mod standard;
pub mod starving;
pub mod system;
pub mod terminal;
pub mod trees;
pub mod ungrouped;
pub mod vsock;
pub mod walks;
pub mod watches;

use anyhow::{Context, bail};
use bytes::Bytes;
use guestline_client::{Error, Files, Vm, WriteOptions};

/// The cases for a target, by its name.
pub fn of(target: &str) -> Vec<&'static [crate::runner::Case]> {
    if target == "switched" {
        return vec![walks::CASES];
    }
    let mut cases = everywhere();
    let is_machine = target != "local";
    if is_machine {
        cases.push(resident::CASES);
        cases.push(machine::CASES);
        cases.push(groups::CASES);
        cases.push(pausing::CASES);
        cases.push(starving::CASES);
        cases.push(vsock::CASES);
    } else {
        cases.push(ungrouped::CASES);
        cases.push(becoming::CASES);
        cases.push(secret_changes::CASES);
        cases.push(peers::CASES);
    }
    // A machine without a secret has no other agent to ask.
    if target != "debian" {
        cases.push(secret::CASES);
    }
    if target == "debian" {
        cases.push(debian::CASES);
        cases.push(disks::CASES);
        cases.push(services::CASES);
        cases.push(sessions::CASES);
        cases.push(freeze::CASES);
    }
    // Busybox has no getent.
    if target != "minimal" {
        cases.push(directory::CASES);
    }
    if is_machine {
        // It ends the machine.
        cases.push(power::CASES);
    }
    cases
}

fn everywhere() -> Vec<&'static [crate::runner::Case]> {
    vec![
        connections::CASES,
        accounts::CASES,
        standard::CASES,
        isolation::CASES,
        proc::CASES,
        files::CASES,
        extended::CASES,
        trees::CASES,
        hostile_trees::CASES,
        watches::CASES,
        processes::CASES,
        detached::CASES,
        terminal::CASES,
        system::CASES,
        faults::CASES,
        restart::CASES,
        network::CASES,
        forwarding::CASES,
        commands::CASES,
        large::CASES,
        many::CASES,
        hung::CASES,
        races::CASES,
        neighbours::CASES,
        differential::CASES,
        flood::CASES,
    ]
}

/// The error that an operation must end with.
fn refusal<T>(what: &str, result: Result<T, Error>) -> anyhow::Result<Error> {
    match result {
        Ok(_) => bail!("{what} succeeded"),
        Err(error) => Ok(error),
    }
}

/// Fails unless an operation ended with this errno of the guest's kernel.
fn expect_errno<T>(what: &str, result: Result<T, Error>, errno: i32) -> anyhow::Result<()> {
    let error = refusal(what, result)?;
    if error.errno() != Some(errno) {
        return Err(error).with_context(|| format!("{what}: expected errno {errno}"));
    }
    Ok(())
}

/// Writes a file in one of the modes.
async fn put(
    files: &Files,
    path: &str,
    content: impl Into<Bytes>,
    options: WriteOptions,
) -> Result<(), Error> {
    let mut writer = files.write_with(path, options).await?;
    writer.write(content).await?;
    writer.finish().await.map(drop)
}

/// Runs a line in the user's shell: whether it succeeded, and what it printed.
async fn shell(vm: &Vm, line: &str) -> anyhow::Result<(bool, String)> {
    let output = vm
        .shell(line)
        .output()
        .await
        .with_context(|| format!("running {line:?}"))?;
    Ok((
        output.status.success(),
        String::from_utf8_lossy(&output.stdout).into_owned(),
    ))
}

/// Bytes that are not all alike, so that a lost or doubled chunk shows.
fn pattern(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..length).map(next).collect()
}
