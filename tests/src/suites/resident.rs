//! What the agent takes of a guest's memory when nobody asks for anything: every VM pays it all day.

use anyhow::Context;
use guestline_client::Vm;

use super::{
    isolation::{field, listener_of},
    large::fresh,
    restart::kill_listener,
};
use crate::{
    cases,
    eventually::{PATIENCE, eventually},
    runner::Outcome,
    target::Target,
};

cases![a_new_listener_and_an_idle_worker_take_little: [12]];

/// In KiB, the program's own pages among them: what they take, and a little more. A listener that was started again has come
/// through more of the program than a new one, which takes less than 3 MiB.
const LISTENER: u64 = 3200;
const WORKER: u64 = 5 << 10;

async fn a_new_listener_and_an_idle_worker_take_little(target: &Target) -> Outcome {
    kill_listener(target).await?;
    fresh(target).await?;
    let root = target.user("root");
    let listener = listener_of(&root).await?;
    comes_to_rest(&root, &listener, LISTENER)
        .await
        .context("the listener")?;
    let bob = target.user("bob");
    comes_to_rest(&bob, "self", WORKER)
        .await
        .context("the worker")
}

/// What its start needed it lets go of as soon as the machine lets it.
async fn comes_to_rest(vm: &Vm, process: &str, most: u64) -> Outcome {
    let mut last = 0;
    let little = eventually("it takes little", PATIENCE, async || {
        last = resident(vm, process).await?;
        Ok(last <= most)
    });
    let little = little.await;
    little.with_context(|| format!("it has {last} KiB, and {most} are little"))
}

/// VmRSS of proc_pid_status(5).
async fn resident(vm: &Vm, process: &str) -> anyhow::Result<u64> {
    let status = vm.files().read(format!("/proc/{process}/status")).await?;
    let value = field(&String::from_utf8(status)?, "VmRSS:")?;
    value.trim_end_matches(" kB").parse().context("no number")
}
