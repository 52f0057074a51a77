//! Many small things: entries of one folder, programs one after another and at once. What they took is given back.

use std::collections::BTreeSet;

use anyhow::{Context, bail, ensure};
use guestline_client::{Change, Vm, Watched};
use tokio::time::timeout;

use super::{
    large::{fresh, stays_small},
    shell,
};
use crate::{
    cases,
    eventually::{PATIENCE, eventually},
    runner::Outcome,
    target::Target,
};

cases![
    a_huge_folder_is_a_stream: [8],
    programs_one_after_another_leave_nothing: [22],
    two_hundred_programs_at_once_are_told_apart: [22],
];

/// A million entries, or what emulation makes in a test's time.
async fn a_huge_folder_is_a_stream(target: &Target) -> Outcome {
    let count: u64 = if target.is_machine() {
        20_000
    } else {
        1_000_000
    };
    let bob = fresh(target).await?;
    let make = format!(
        "mkdir -p huge && cd huge && seq 1 {count} | xargs touch && touch \"$(printf '\\377')\""
    );
    let made = shell(&bob, &make).await?;
    ensure!(made.0, "the folder was not made");
    let mut entries = bob.files().list("huge", 1).await?;
    let (mut seen, mut sum, mut odd) = (0_u64, 0_u64, 0);
    while let Some(entry) = entries.next().await? {
        seen += 1;
        match entry.name().to_str() {
            Some(name) => sum += name.parse::<u64>().context("an unknown name")?,
            None => odd += 1,
        }
    }
    ensure!(
        seen == count + 1 && odd == 1 && sum == count * (count + 1) / 2,
        "{seen} entries with the sum {sum}, {odd} not UTF-8"
    );
    stays_small(&bob).await?;
    // Watching it takes what one directory takes; with all below it, its entries are looked at once.
    for recursive in [false, true] {
        let mut watch = bob.files().watch("huge", recursive).await?;
        // Atomically: of the file without a name the kernel tells too, as of `#INODE`.
        bob.files().write("huge/new", "x").await?;
        let created = Change::Created("new".into());
        timeout(PATIENCE, async {
            loop {
                match watch.next().await? {
                    Some(Watched::Changed { change, .. }) if change == created => return Ok(()),
                    Some(Watched::Changed { .. }) => {}
                    other => bail!("{other:?}"),
                }
            }
        })
        .await
        .context("it is not told")??;
        bob.files().remove_file("huge/new").await?;
    }
    stays_small(&bob).await?;
    bob.files().remove_dir_all("huge").await?;
    Ok(())
}

/// How many descriptors the worker has, and how many zombies there are.
async fn leftovers(root: &Vm, worker: &str) -> anyhow::Result<(u32, u32)> {
    let count = format!("ls /proc/{worker}/fd | wc -l");
    let (_, descriptors) = shell(root, &count).await?;
    let (_, zombies) = shell(root, "cat /proc/[0-9]*/stat 2>/dev/null | grep -c ') Z '").await?;
    Ok((descriptors.trim().parse()?, zombies.trim().parse()?))
}

/// The same once it has been so twice: what ran before may be ending still.
async fn leftovers_at_rest(root: &Vm, worker: &str) -> anyhow::Result<(u32, u32)> {
    let mut seen = leftovers(root, worker).await?;
    eventually("nothing is on its way", PATIENCE, async || {
        let now = leftovers(root, worker).await?;
        Ok(std::mem::replace(&mut seen, now) == now)
    })
    .await?;
    Ok(seen)
}

async fn nothing_is_left(root: &Vm, worker: &str, before: (u32, u32)) -> Outcome {
    eventually("nothing is left", PATIENCE, async || {
        let (descriptors, zombies) = leftovers(root, worker).await?;
        Ok(descriptors <= before.0 && zombies <= before.1)
    })
    .await
}

/// Ten thousand, or what emulation runs in a test's time.
async fn programs_one_after_another_leave_nothing(target: &Target) -> Outcome {
    let count = if target.is_machine() { 300 } else { 10_000 };
    let (root, bob) = (target.user("root"), target.user("bob"));
    let (_, worker) = shell(&bob, "echo $PPID").await?;
    let before = leftovers_at_rest(&root, worker.trim()).await?;
    for number in 0..count {
        let status = bob.command("true").output().await?.status;
        ensure!(status.success(), "number {number}: {status:?}");
    }
    for _ in 0..count / 10 {
        let mut command = bob.command("true");
        ensure!(
            command
                .terminal("dumb", 80, 24)
                .output()
                .await?
                .status
                .success()
        );
    }
    nothing_is_left(&root, worker.trim(), before).await
}

async fn two_hundred_programs_at_once_are_told_apart(target: &Target) -> Outcome {
    let (root, bob) = (target.user("root"), target.user("bob"));
    let (_, worker) = shell(&bob, "echo $PPID").await?;
    let before = leftovers_at_rest(&root, worker.trim()).await?;
    let runs = (0..200).map(|number| {
        let command = bob.shell(format!("echo {number}; exit {number}"));
        tokio::spawn(async move { command.output().await })
    });
    let mut told = BTreeSet::new();
    for run in runs.collect::<Vec<_>>() {
        let output = run.await??;
        let code = output.status.code.context("it exits")?;
        ensure!(
            output.stdout == format!("{code}\n").as_bytes(),
            "{code}: {:?}",
            output.stdout
        );
        told.insert(code);
    }
    ensure!(told.len() == 200, "{} codes", told.len());
    nothing_is_left(&root, worker.trim(), before).await
}
