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
use guestline_client::{Error, Files, WriteOptions};

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
