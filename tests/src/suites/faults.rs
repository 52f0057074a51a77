//! What breaks in the middle: a worker that is killed is a lost connection, never a success, and leaves nothing half done.

use std::path::Path;

use anyhow::{Context, ensure};
use guestline_client::{Error, Vm, WriteOptions};

use super::{pattern, refusal, shell};
use crate::{
    cases,
    eventually::{PATIENCE, eventually},
    runner::Outcome,
    target::Target,
};

cases![
    a_killed_worker_is_a_lost_connection_and_the_next_call_works: [18],
    a_killed_worker_leaves_the_old_content_and_no_trace: [9],
    a_worker_with_nothing_to_do_leaves_no_zombie,
];

/// A lost connection is "unknown", never 0.
async fn a_killed_worker_is_a_lost_connection_and_the_next_call_works(target: &Target) -> Outcome {
    let bob = target.user("bob");
    let child = bob.command("sleep").arg("1000").spawn().await?;
    kill_worker(target, &bob).await?;
    let error = refusal(
        "waiting for a program whose worker is gone",
        child.wait().await,
    )?;
    ensure!(matches!(error, Error::Lost(_)), "{error:?}");
    // The same handle, by itself.
    eventually("the handle has a new connection", PATIENCE, || async {
        Ok(bob.files().stat("/").await.is_ok())
    })
    .await
}

/// For SIGKILL while data comes in.
async fn a_killed_worker_leaves_the_old_content_and_no_trace(target: &Target) -> Outcome {
    let bob = target.user("bob");
    let _ = bob.files().remove_dir_all("cut").await;
    bob.files().create_dir("cut").await?;
    bob.files().write("cut/file", "old").await?;
    let mut writer = bob
        .files()
        .write_with("cut/file", WriteOptions::replace())
        .await?;
    writer.write(pattern(3_000_000)).await?;
    kill_worker(target, &bob).await?;
    refusal("finishing without a worker", writer.finish().await)?;
    let again = target.user("bob");
    ensure!(
        again.files().read("cut/file").await? == b"old",
        "the old content is gone"
    );
    let names: Vec<_> = again
        .files()
        .read_dir("cut")
        .await?
        .into_iter()
        .map(|entry| entry.path)
        .collect();
    ensure!(names == [Path::new("file")], "{names:?}");
    Ok(())
}

async fn a_worker_with_nothing_to_do_leaves_no_zombie(target: &Target) -> Outcome {
    let root = target.user("root");
    for _ in 0..20 {
        let (ok, _) = shell(&target.user("alice"), "true & true").await?;
        ensure!(ok);
    }
    eventually("no process is a zombie", PATIENCE, || async {
        let line = "cat /proc/[0-9]*/stat 2>/dev/null | grep guestline | grep -c ') Z '";
        Ok(shell(&root, line).await?.1.trim() == "0")
    })
    .await
}

/// Ends the worker of that user, and waits until the listener knows: until then it may give it the next connection.
pub(super) async fn kill_worker(target: &Target, vm: &Vm) -> Outcome {
    let status = String::from_utf8(vm.files().read("/proc/self/status").await?)?;
    let pid = status
        .lines()
        .find_map(|line| line.strip_prefix("Pid:"))
        .context("no Pid")?
        .trim();
    let root = target.user("root");
    let (killed, _) = shell(&root, &format!("kill -9 {pid}")).await?;
    ensure!(killed, "root cannot kill {pid}");
    // A zombie can be signalled still: the number is gone when its parent has reaped it.
    eventually("the worker is reaped", PATIENCE, || async {
        Ok(!shell(&root, &format!("kill -0 {pid}")).await?.0)
    })
    .await
}
