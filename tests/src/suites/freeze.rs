//! Freezing and thawing a guest that has a disk.

use std::{path::Path, time::Duration};

use anyhow::{Context, ensure};
use guestline_client::{Child, ErrorReason, Vm};

use super::{expect_errno, refusal, shell};
use crate::{
    cases,
    eventually::{PATIENCE, eventually},
    runner::Outcome,
    target::Target,
};

cases![
    writers_wait_until_the_thaw_and_readers_do_not,
    a_freeze_thaws_by_itself_though_worker_and_client_are_gone,
    another_worker_thaws_what_a_killed_one_froze,
    a_thaw_without_a_freeze_is_refused,
    the_kernel_lets_nobody_but_root_thaw,
];

/// Longer than a case may take.
const LONG: Option<Duration> = Some(Duration::from_secs(300));

/// A program that is held by the frozen disk.
async fn held_writer(vm: &Vm) -> anyhow::Result<Child> {
    let writer = waiting_writer(vm).await?;
    set_off(vm, &writer).await?;
    Ok(writer)
}

/// One that writes when it is told to.
async fn waiting_writer(vm: &Vm) -> anyhow::Result<Child> {
    let mut command = vm.command("sh");
    command.args(["-c", "read -r now; echo written > ~/frozen-probe"]);
    Ok(command.stdin(true).spawn().await?)
}

/// Tells it, and waits until the disk holds it.
async fn set_off(vm: &Vm, writer: &Child) -> Outcome {
    writer.input().write("now\n").await;
    let stat = format!("/proc/{}/stat", writer.pid());
    eventually("the writer is held", PATIENCE, || async {
        let stat = String::from_utf8(vm.files().read(&stat).await?)?;
        // "PID (NAME) STATE": uninterruptible.
        Ok(stat.contains(") D "))
    })
    .await
}

async fn ends_well(writer: Child) -> Outcome {
    let status = tokio::time::timeout(PATIENCE, writer.wait()).await;
    let status = status.context("the writer is still held")??;
    ensure!(status.success(), "{status:?}");
    Ok(())
}

async fn writers_wait_until_the_thaw_and_readers_do_not(target: &Target) -> Outcome {
    let root = target.user("root");
    let frozen = root.system().freeze(LONG).await?;
    ensure!(frozen == [Path::new("/")], "{frozen:?}");
    let writer = held_writer(&root).await?;
    let again = refusal("a second freeze", root.system().freeze(LONG).await)?;
    ensure!(again.reason() == Some(ErrorReason::Busy), "{again:?}");
    // A new connection, with a worker to start, and a program.
    let (ok, name) = shell(&target.user("bob"), "cat /etc/hostname").await?;
    ensure!(ok && !name.is_empty(), "{name:?}");
    let thawed = root.system().thaw().await?;
    ensure!(thawed == [Path::new("/")], "{thawed:?}");
    ends_well(writer).await
}

async fn a_freeze_thaws_by_itself_though_worker_and_client_are_gone(target: &Target) -> Outcome {
    let (root, alice) = (target.user("root"), target.user("alice"));
    // All that takes its time is there before, and what is left fits into any machine's 20 s.
    let writer = waiting_writer(&alice).await?;
    root.system().freeze(Some(Duration::from_secs(20))).await?;
    refusal("a command of a killed worker", kill_worker(&root).await)?;
    set_off(&alice, &writer).await?;
    ends_well(writer).await?;
    let late = refusal("a late thaw", target.user("root").system().thaw().await)?;
    ensure!(late.reason() == Some(ErrorReason::NotFrozen), "{late:?}");
    Ok(())
}

async fn another_worker_thaws_what_a_killed_one_froze(target: &Target) -> Outcome {
    let root = target.user("root");
    root.system().freeze(LONG).await?;
    refusal("a command of a killed worker", kill_worker(&root).await)?;
    let root = target.user("root");
    let writer = held_writer(&root).await?;
    root.system().thaw().await?;
    ends_well(writer).await?;
    // Its watchdog went with the thaw, and does not end the next freeze.
    root.system().freeze(LONG).await?;
    root.system().thaw().await?;
    // It has let go, and is reaped a moment later.
    eventually("no freezer is left", PATIENCE, || async {
        Ok(!shell(&root, "pgrep guestline-freez").await?.0)
    })
    .await
}

/// By its own child, so that this connection is lost.
async fn kill_worker(root: &Vm) -> Result<guestline_client::Output, guestline_client::Error> {
    root.shell("kill -9 $PPID").output().await
}

async fn a_thaw_without_a_freeze_is_refused(target: &Target) -> Outcome {
    let error = refusal("a thaw", target.user("root").system().thaw().await)?;
    ensure!(error.reason() == Some(ErrorReason::NotFrozen), "{error:?}");
    Ok(())
}

async fn the_kernel_lets_nobody_but_root_thaw(target: &Target) -> Outcome {
    let alice = target.user("alice").system();
    expect_errno("thaw", alice.thaw().await, 1)
}
