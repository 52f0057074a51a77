//! The cases by subject. Numbers in comments are those of the promises that a case shows.

pub mod connections;
pub mod debian;
pub mod faults;
pub mod files;
pub mod isolation;
pub mod machine;
pub mod processes;
pub mod system;

use anyhow::{Context, bail};
use bytes::Bytes;
use guestline_client::{Error, Files, Vm, WriteOptions};

/// Cases for every target.
pub fn everywhere() -> Vec<&'static [crate::runner::Case]> {
    vec![
        connections::CASES,
        isolation::CASES,
        files::CASES,
        processes::CASES,
        system::CASES,
        faults::CASES,
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
