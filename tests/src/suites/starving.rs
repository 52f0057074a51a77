//! A user who takes all there is of something: for machines, since it is the host's own otherwise. The agent answers, others
//! go on at a measured share of their speed, and all of it is there again afterwards.

use std::time::Duration;

use anyhow::{Context, ensure};
use guestline_client::Vm;

use super::{
    flood::{answered, are_answered_within},
    neighbours::{Neighbour, work},
    shell,
};
use crate::{
    cases,
    eventually::{PATIENCE, eventually},
    runner::Outcome,
    target::Target,
};

cases![
    the_agent_answers_a_guest_without_free_memory: [31],
    the_agent_answers_a_guest_without_free_processes: [31],
    files_that_are_open_by_the_thousand_are_their_users,
    terminals_may_all_be_taken_and_programs_run,
    a_full_disk_stops_who_writes_and_nobody_else,
];

/// What most calls take no longer than meanwhile: one that an attack holds up is held up each time.
const ANSWER: Duration = Duration::from_secs(2);

/// Measured so often, on a host whose own changes meanwhile.
const ATTEMPTS: u32 = 4;

/// What is left of bob's speed at the least, in percent.
const SHARE: u32 = 5;

/// Under attack: answers come in time, over old and new connections.
async fn answers(target: &Target) -> Outcome {
    let root = target.user("root");
    answered(&root).await?;
    let (mut old, mut new) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        let other = target.user("root");
        let (of_old, of_new) = tokio::try_join!(answered(&root), answered(&other))?;
        old.push(of_old);
        new.push(of_new);
    }
    are_answered_within(ANSWER, old)?;
    are_answered_within(ANSWER, new)
}

/// Runs an attack of alice's and looks at what bob still has.
async fn under(
    target: &Target,
    words: &[&str],
    look: impl AsyncFnOnce() -> Outcome,
) -> anyhow::Result<String> {
    let (alice, bob) = (target.user("alice"), target.user("bob"));
    let alone = work(&bob, 10).await?;
    let attack = Neighbour::start(&alice, words).await?;
    let looked = look().await;
    let mut share = share_of(&bob, alone).await;
    for _ in 1..ATTEMPTS {
        // The kernel may end anybody's program when memory is gone; most of the time it does not end bob's.
        if !share.as_ref().is_ok_and(|share| *share >= SHARE) {
            share = share_of(&bob, alone).await;
        }
    }
    let said = attack.end().await.context("it does not end")?;
    looked?;
    let share = share?;
    println!("    {}: {said}; bob at {share} %", words[0]);
    ensure!(share >= SHARE, "bob is left with {share} % of his speed");
    eventually("alice can work again", PATIENCE, async || {
        Ok(work(&target.user("alice"), 1).await.is_ok())
    })
    .await?;
    Ok(said)
}

/// The count behind this word in what an attack came to.
fn came_to(said: &str, word: &str) -> anyhow::Result<u64> {
    let count = said.strip_prefix(word);
    Ok(count
        .with_context(|| format!("it said {said:?}"))?
        .parse()?)
}

/// In percent of what it was.
async fn share_of(bob: &Vm, alone: Duration) -> anyhow::Result<u32> {
    let beside = work(bob, 10).await?;
    Ok((alone.as_secs_f64() / beside.as_secs_f64() * 100.0) as u32)
}

async fn the_agent_answers_a_guest_without_free_memory(target: &Target) -> Outcome {
    let said = under(target, &["memory"], async || answers(target).await).await?;
    let eaten = came_to(&said, "eaten ")?;
    ensure!(eaten > 100, "only {eaten} MiB were eaten: it shows nothing");
    Ok(())
}

async fn the_agent_answers_a_guest_without_free_processes(target: &Target) -> Outcome {
    let said = under(target, &["pids"], async || answers(target).await).await?;
    let started = came_to(&said, "started ")?;
    ensure!(
        started > 1000,
        "only {started} were started: it shows nothing"
    );
    Ok(())
}

async fn files_that_are_open_by_the_thousand_are_their_users(target: &Target) -> Outcome {
    let said = under(target, &["descriptors"], async || answers(target).await).await?;
    let opened = came_to(&said, "opened ")?;
    ensure!(
        opened > 100_000,
        "only {opened} were opened: it shows nothing"
    );
    Ok(())
}

async fn terminals_may_all_be_taken_and_programs_run(target: &Target) -> Outcome {
    let said = under(target, &["terminals"], async || answers(target).await).await?;
    let taken = came_to(&said, "terminals ")?;
    ensure!(taken > 1000, "only {taken} were taken: it shows nothing");
    let bob = target.user("bob");
    let mut command = bob.command("true");
    let output = command.terminal("dumb", 80, 24).output().await?;
    ensure!(output.status.success(), "{:?}", output.status);
    Ok(())
}

/// On a disk of its own, so that only bob's writes there are refused.
async fn a_full_disk_stops_who_writes_and_nobody_else(target: &Target) -> Outcome {
    let root = target.user("root");
    let line = "mkdir -p /mnt/shared && mount -t tmpfs -o size=64m,mode=1777 tmpfs /mnt/shared";
    ensure!(shell(&root, line).await?.0, "no disk to fill");
    let bob = target.user("bob").files();
    bob.write("/mnt/shared/bobs", "old").await?;
    let full = async || {
        let write = bob.write("/mnt/shared/bobs", vec![0; 1 << 20]).await;
        let error = super::refusal("writing to a full disk", write)?;
        ensure!(
            error.reason() == Some(guestline_client::ErrorReason::NoSpace),
            "{error:?}"
        );
        ensure!(bob.read("/mnt/shared/bobs").await? == b"old");
        answers(target).await
    };
    let result = under(target, &["disk", "/mnt/shared/alices"], full).await;
    // Whoever wrote lets go of its files a moment after the answer.
    eventually("it is in use no more", PATIENCE, async || {
        Ok(shell(&root, "umount /mnt/shared").await?.0)
    })
    .await?;
    result.map(drop)
}
