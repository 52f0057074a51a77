//! A cgroup for each program: what it started dies with it, and has its limits. For machines, which have cgroup v2.

use std::time::Duration;

use anyhow::{Context, ensure};
use guestline_client::{Child, Event, SignalTarget, Vm};

use super::shell;
use crate::{
    cases,
    eventually::{PATIENCE, eventually},
    runner::Outcome,
    target::Target,
};

cases![
    daemons_die_with_a_run_that_is_cancelled: [16],
    a_fork_bomb_is_bounded_and_killed_whole: [16],
    an_out_of_memory_kill_is_told,
    a_signal_to_all_reaches_daemons,
    nobody_walks_out_of_a_group,
    groups_go_with_their_programs: [22],
    a_group_goes_with_the_last_of_it: [22],
    processor_time_is_limited,
];

/// What prints its own cgroup and leaves a daemon behind: its own session, its parent gone. The shell stays, where some would
/// become their last command.
const DAEMON: &str =
    "cat /proc/self/cgroup; (setsid sleep 1000 </dev/null >/dev/null 2>&1 &); sleep 1000; :";

/// Reads "0::/guestline/NAME".
fn group_of(text: &str) -> anyhow::Result<String> {
    let name = text.trim().strip_prefix("0::/guestline/");
    Ok(name
        .with_context(|| format!("no group of its own: {text:?}"))?
        .into())
}

async fn members(vm: &Vm, group: &str) -> anyhow::Result<usize> {
    let line = format!("cat /sys/fs/cgroup/guestline/{group}/cgroup.procs 2>/dev/null | wc -l");
    Ok(shell(vm, &line).await?.1.trim().parse()?)
}

async fn all_gone(vm: &Vm, group: &str) -> Outcome {
    eventually("the group is empty", PATIENCE, || async {
        Ok(members(vm, group).await? == 0)
    })
    .await
}

/// A program with its daemon, and their group. Both sleep, as they will: a shell that still forks may hold a signal back, and the
/// daemon's first parent may be there still.
async fn with_a_daemon(alice: &Vm, root: &Vm) -> anyhow::Result<(Child, String)> {
    let mut child = alice.shell(DAEMON).spawn().await?;
    let Event::Stdout(said) = child.event().await? else {
        anyhow::bail!("it says its group first");
    };
    let group = group_of(std::str::from_utf8(&said)?)?;
    eventually("the daemon is there", PATIENCE, || async {
        let line = format!(
            "for pid in $(cat /sys/fs/cgroup/guestline/{group}/cgroup.procs); do cat /proc/$pid/comm; done"
        );
        let (_, names) = shell(root, &line).await?;
        Ok(names.lines().count() == 3 && names.lines().filter(|name| *name == "sleep").count() == 2)
    })
    .await?;
    Ok((child, group))
}

async fn daemons_die_with_a_run_that_is_cancelled(target: &Target) -> Outcome {
    let (alice, root) = (target.user("alice"), target.user("root"));
    let (child, group) = with_a_daemon(&alice, &root).await?;
    drop(child);
    all_gone(&root, &group).await
}

async fn a_fork_bomb_is_bounded_and_killed_whole(target: &Target) -> Outcome {
    let (alice, root) = (target.user("alice"), target.user("root"));
    let bomb = "cat /proc/self/cgroup; f() { f | f & }; f; sleep 1000";
    let mut child = alice
        .shell(bomb)
        .pids_limit(50)
        .kill_leftovers(true)
        .spawn()
        .await?;
    let Event::Stdout(said) = child.event().await? else {
        anyhow::bail!("it says its group first");
    };
    let group = group_of(std::str::from_utf8(&said)?)?;
    ensure!(
        members(&root, &group).await? <= 50,
        "the limit does not hold"
    );
    child.input().signal(9, SignalTarget::Leader).await;
    let exit = child.wait().await?;
    ensure!(exit.survivors == 0, "{exit:?}");
    all_gone(&root, &group).await
}

async fn an_out_of_memory_kill_is_told(target: &Target) -> Outcome {
    let alice = target.user("alice");
    // tail(1) holds a line until it ends, and this one does not.
    let hog = "tail /dev/zero; true";
    let output = alice.shell(hog).memory_limit(32 << 20).output().await?;
    ensure!(output.status.out_of_memory, "{:?}", output.status);
    let usage = output.status.group_usage.context("there is a cgroup")?;
    ensure!(usage.memory_peak <= 33 << 20, "{usage:?}");
    let fine = alice.shell("true").memory_limit(32 << 20).output().await?;
    ensure!(
        fine.status.success() && !fine.status.out_of_memory,
        "{:?}",
        fine.status
    );
    Ok(())
}

async fn a_signal_to_all_reaches_daemons(target: &Target) -> Outcome {
    let (alice, root) = (target.user("alice"), target.user("root"));
    for signal in [15, 9] {
        let (child, group) = with_a_daemon(&alice, &root).await?;
        let id = child.process_id();
        alice
            .processes()
            .signal(id, signal, SignalTarget::All)
            .await?;
        all_gone(&root, &group).await?;
        ensure!(child.wait().await?.signal == Some(signal));
    }
    Ok(())
}

async fn nobody_walks_out_of_a_group(target: &Target) -> Outcome {
    let alice = target.user("alice");
    let escape = "for to in .. ../other .; do \
        echo $$ > /sys/fs/cgroup/$(cut -d: -f3 /proc/self/cgroup)/$to/cgroup.procs && exit 1; done; \
        mkdir /sys/fs/cgroup/guestline/mine && exit 2; \
        echo 1 > /sys/fs/cgroup/$(cut -d: -f3 /proc/self/cgroup)/cgroup.kill && exit 3; exit 0";
    let output = alice.shell(escape).output().await?;
    ensure!(output.status.success(), "{:?}", output.status);
    let before = output.stderr.len();
    ensure!(before > 0, "nothing was refused");
    Ok(())
}

/// For cgroups.
async fn groups_go_with_their_programs(target: &Target) -> Outcome {
    let alice = target.user("alice");
    for _ in 0..50 {
        alice.command("true").output().await?;
    }
    let mut running = Vec::new();
    for _ in 0..50 {
        running.push(alice.command("sleep").arg("1000").spawn().await?);
    }
    for child in &running {
        child.kill().await;
    }
    for child in running {
        ensure!(child.wait().await?.signal == Some(9));
    }
    let root = target.user("root");
    let gone = eventually("the groups are gone", PATIENCE, || async {
        Ok(shell(&root, GROUPS_OF_ALICE).await? == (true, String::new()))
    })
    .await;
    let (_, left) = shell(&root, GROUPS_OF_ALICE).await?;
    gone.with_context(|| format!("there are still {left}"))
}

/// Its program has exited long before, and kept what it left behind.
async fn a_group_goes_with_the_last_of_it(target: &Target) -> Outcome {
    let (root, alice) = (target.user("root"), target.user("alice"));
    let line = "cat /proc/self/cgroup; mkfifo last; \
        (setsid cat last </dev/null >/dev/null 2>&1 &); exit 0";
    let output = alice.shell(line).output().await?;
    ensure!(output.status.success(), "{:?}", output.status);
    let group = group_of(std::str::from_utf8(&output.stdout)?)?;
    let is_there = async || {
        let line = format!("[ -d /sys/fs/cgroup/guestline/{group} ]");
        Ok::<_, anyhow::Error>(shell(&root, &line).await?.0)
    };
    ensure!(is_there().await?, "it went before the last of it");
    ensure!(shell(&alice, "echo > last; rm last").await?.0);
    eventually("the group is gone", PATIENCE, async || {
        Ok(!is_there().await?)
    })
    .await
}

/// Each with the programs that live in it.
const GROUPS_OF_ALICE: &str = r"cd /sys/fs/cgroup/guestline && for group in u1000-*; do [ ! -d $group ] || {
    echo $group: $(for pid in $(cat $group/cgroup.procs); do tr '\0' ' ' < /proc/$pid/cmdline; done); }; done";

async fn processor_time_is_limited(target: &Target) -> Outcome {
    let alice = target.user("alice");
    let busy = "while :; do :; done";
    let mut command = alice.shell(busy);
    command.cpu_limit(100).timeout(Duration::from_secs(6));
    let exit = command.output().await?.status;
    let usage = exit.group_usage.context("there is a cgroup")?;
    let used = usage.user_time + usage.system_time;
    // A tenth of it, and not a third.
    ensure!(
        used < exit.wall_time / 3,
        "{used:?} of {:?}",
        exit.wall_time
    );
    Ok(())
}
