//! A hostile neighbour: what alice does to the guest, by guest/neighbour.rs, and what bob and root still have of it.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use guestline_client::{Child, Command, Event, Vm, WriteOptions};
use tokio::time::timeout;

use super::{
    faults::kill_worker,
    flood::{LISTENER_GROWTH, memory_of},
    isolation::listener_of,
    proc::worker_of,
    put, shell,
};
use crate::{
    cases,
    eventually::{PATIENCE, eventually},
    runner::Outcome,
    target::Target,
};

cases![
    what_a_user_stops_kills_and_traces_is_its_own: [11],
    a_user_without_watches_left_leaves_others_theirs,
    who_has_a_worker_in_hand_is_heard_so_often_and_holds_nobody_up: [31],
];

/// Reports of one worker that are heard in a second (agent/src/listener/hearing.rs), and what may wait in its socket's queue.
const REPORTS: u64 = 4000;
const QUEUED: u64 = 1000;
const FLOOD: Duration = Duration::from_secs(5);

const NEIGHBOUR: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/neighbour"));

/// The program, put there for this user. The words are those of guest/neighbour.rs.
async fn command(vm: &Vm, words: &[&str]) -> anyhow::Result<Command> {
    let options = WriteOptions::replace().permissions(0o755);
    put(&vm.files(), "neighbour", NEIGHBOUR, options).await?;
    let mut command = vm.command("./neighbour");
    command.args(words);
    Ok(command)
}

/// What it says, where that is all that it does.
pub(super) async fn ask(vm: &Vm, words: &[&str]) -> anyhow::Result<String> {
    let output = command(vm, words).await?.output().await?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{words:?}: {errors}");
    Ok(String::from_utf8(output.stdout)?.trim_end().into())
}

/// An attack under way, until it is ended or dropped.
pub(super) struct Neighbour {
    child: Child,
    said: String,
}

impl Neighbour {
    /// Waits until it is under way.
    pub(super) async fn start(vm: &Vm, words: &[&str]) -> anyhow::Result<Self> {
        let child = command(vm, words).await?.stdin(true).spawn().await?;
        let mut neighbour = Self {
            child,
            said: String::new(),
        };
        while !neighbour.said.starts_with("ready\n") {
            match timeout(PATIENCE, neighbour.child.event()).await?? {
                Event::Stdout(bytes) => neighbour.said += std::str::from_utf8(&bytes)?,
                other => bail!("the neighbour: {other:?}"),
            }
        }
        Ok(neighbour)
    }

    /// Ends it, and gives what it came to.
    pub(super) async fn end(mut self) -> anyhow::Result<String> {
        self.child.input().close().await;
        loop {
            match timeout(PATIENCE, self.child.event()).await?? {
                Event::Stdout(bytes) => self.said += std::str::from_utf8(&bytes)?,
                Event::Stderr(bytes) => bail!("{}", String::from_utf8_lossy(&bytes)),
                Event::Exited(status) => {
                    ensure!(status.success(), "the neighbour ended with {status:?}");
                    let result = self.said.lines().nth(1);
                    return Ok(result.context("it says what it came to")?.into());
                }
            }
        }
    }
}

/// A file written and read, and a program run, again and again. Gives what one round took.
pub(super) async fn work(vm: &Vm, rounds: u32) -> anyhow::Result<Duration> {
    let start = Instant::now();
    for number in 0..rounds {
        let content = vec![number as u8; 64 << 10];
        let round = async {
            vm.files().write("worked", content.clone()).await?;
            ensure!(vm.files().read("worked").await? == content);
            ensure!(shell(vm, "echo worked").await?.1 == "worked\n");
            Ok(())
        };
        timeout(PATIENCE, round).await.context("it hangs")??;
    }
    Ok(start.elapsed() / rounds)
}

async fn what_a_user_stops_kills_and_traces_is_its_own(target: &Target) -> Outcome {
    let (root, alice, bob) = (
        target.user("root"),
        target.user("alice"),
        target.user("bob"),
    );
    let listener = listener_of(&root).await?;
    let mut program = bob
        .shell("echo here; read -r line; echo $line")
        .stdin(true)
        .spawn()
        .await?;
    ensure!(program.event().await? == Event::Stdout("here\n".into()));

    let attack = Neighbour::start(&alice, &["harm"]).await?;
    work(&bob, 5).await?;
    let said = attack.end().await?;
    let [_, tried, _, harmed] = said.split(' ').collect::<Vec<_>>()[..] else {
        bail!("it said {said:?}");
    };
    ensure!(harmed == "0" && tried.parse::<u64>()? > 3, "{said}");

    // All that the kernel lets her: her own worker is among it, so that nobody tells of the end.
    let _ = alice.shell("kill -STOP -1; kill -9 -1").output().await;
    let _ = alice.shell("kill -9 -1").output().await;
    eventually("alice has a worker again", PATIENCE, || async {
        Ok(target.user("alice").files().stat("/").await.is_ok())
    })
    .await?;

    program.input().write("still here\n").await;
    let output = timeout(PATIENCE, program.wait_with_output(100)).await??;
    ensure!(output.stdout == b"still here\n", "{output:?}");
    work(&bob, 5).await?;
    let now = listener_of(&root).await?;
    ensure!(now == listener, "the listener was {listener} and is {now}");
    Ok(())
}

/// As if it were alice who has her worker in hand: root takes its control socket, and floods the listener by it.
async fn who_has_a_worker_in_hand_is_heard_so_often_and_holds_nobody_up(
    target: &Target,
) -> Outcome {
    let (root, alice, bob) = (
        target.user("root"),
        target.user("alice"),
        target.user("bob"),
    );
    let listener = listener_of(&root).await?;
    let before = memory_of(&root, &listener).await?;
    let worker = worker_of(&alice).await?;
    let (attack, since) = (
        Neighbour::start(&root, &["report", &worker]).await?,
        Instant::now(),
    );
    work(&bob, 20).await?;
    // By the listener: connections, and a worker that it has to start.
    for _ in 0..5 {
        target.user("bob").files().stat("/").await?;
    }
    kill_worker(target, &bob).await?;
    // Long enough that what may come at once does not count beside it.
    while since.elapsed() < FLOOD {
        work(&target.user("bob"), 1).await?;
    }
    let said = attack.end().await?;
    let ["sent", sent, "in", millis] = said.split(' ').collect::<Vec<_>>()[..] else {
        bail!("it said {said:?}");
    };
    let (sent, millis): (u64, u64) = (sent.parse()?, millis.parse()?);
    let most = REPORTS * (millis / 1000 + 2) + QUEUED;
    println!("    {sent} reports in {millis} ms");
    ensure!(
        sent <= most,
        "{sent} reports in {millis} ms: at most {most}"
    );
    let grown = memory_of(&root, &listener).await?.saturating_sub(before);
    ensure!(grown <= LISTENER_GROWTH, "the listener grew by {grown} KiB");
    ensure!(listener_of(&root).await? == listener, "the listener ended");
    // Nothing of it was wrong: the worker goes on.
    ensure!(worker_of(&alice).await? == worker, "the worker ended");
    work(&alice, 1).await.map(drop)
}

async fn a_user_without_watches_left_leaves_others_theirs(target: &Target) -> Outcome {
    let (alice, bob) = (target.user("alice"), target.user("bob"));
    let attack = Neighbour::start(&alice, &["watches"]).await?;
    let mut watch = bob.files().watch(".", false).await?;
    bob.files().write("watched", "x").await?;
    let seen = timeout(PATIENCE, watch.next()).await??;
    ensure!(seen.is_some(), "bob's watch ended");
    let refused = async {
        let mut watch = alice.files().watch(".", false).await?;
        watch.next().await
    };
    let refused = timeout(PATIENCE, refused).await.context("alice's watch")?;
    let error = super::refusal("a watch without instances", refused)?;
    // EMFILE of inotify_init1(2), ENOSPC of inotify_add_watch(2).
    ensure!(
        matches!(error.errno(), Some(24 | 28)),
        "alice's watch: {error:?}"
    );
    let said = attack.end().await?;
    let taken = said
        .strip_prefix("watches ")
        .and_then(|said| said.split_once(" of "));
    let (watches, instances): (u64, u64) = match taken {
        Some((watches, instances)) => (watches.parse()?, instances.parse()?),
        None => bail!("it said {said:?}"),
    };
    ensure!(
        instances > 10 && watches > 50,
        "{said}: too few, it shows nothing"
    );
    Ok(())
}
