//! Everything at random, for as long as was asked, from a seed that is printed: files, programs, trees and clients that go
//! away, by alice and bob at once, while a worker or the listener is killed now and then. Each result is checked; each round
//! ends with the invariants.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use guestline_client::{AttachEvent, Error, Offsets, PushOptions, SignalTarget, Vm, WriteOptions};

use super::{invariants::Before, pattern, put, restart::FIND_LISTENER, shell};
use crate::{eventually::PATIENCE, target::Target};

/// How long all act before they pause and the invariants are looked at.
const ROUND: Duration = Duration::from_secs(8);

/// Of each user at once.
const ACTORS: u64 = 3;

/// What sleeps does so for a minute: a program outlives its worker, and what is left of it must go before the invariants are
/// given up.
const ACTS: [&str; 11] = [
    "write and read",
    "append",
    "cut a write",
    "make and remove a tree",
    "push and sum",
    "run",
    "feed a program",
    "leave a program",
    "use a terminal",
    "start and attach",
    "time out",
];

/// How often each act went well, and how often a killed process took it along.
#[derive(Debug, Default)]
struct Counts {
    done: u64,
    lost: u64,
    longest: Duration,
}

/// Numbers from a seed (SplitMix64).
struct Chance(u64);

impl Chance {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % below
    }
}

/// Runs for that long. Fails at the first wrong result, or invariant that does not hold.
pub async fn run(target: &Target, seed: u64, period: Duration) -> anyhow::Result<()> {
    println!(
        "soak: {}, seed {seed}, {} s",
        target.name(),
        period.as_secs()
    );
    let mut chance = Chance(seed);
    let mut counts: BTreeMap<&str, Counts> = BTreeMap::new();
    let mut killed: BTreeMap<&str, u64> = BTreeMap::new();
    let before = Before::of(target).await?;
    let (end, mut rounds) = (Instant::now() + period, 0);
    while Instant::now() < end {
        rounds += 1;
        let victim = ["nobody", "alice", "bob", "listener"][chance.next(4) as usize];
        let seeds: Vec<u64> = (0..2 * ACTORS).map(|_| chance.next(u64::MAX)).collect();
        let actors = seeds.into_iter().zip(0..).map(|(seed, number)| {
            let user = ["alice", "bob"][number % 2];
            act_for_a_round(target.user(user), format!("soak{number}"), seed)
        });
        let acting = futures(actors);
        let pause = Duration::from_millis(1000 + chance.next(4000));
        let (told, disturbed) = tokio::join!(acting, async {
            tokio::time::sleep(pause).await;
            disturb(target, victim).await
        });
        disturbed.with_context(|| format!("round {rounds}: killing {victim}"))?;
        *killed.entry(victim).or_default() += 1;
        for (act, result, took) in told.with_context(|| format!("round {rounds}, seed {seed}"))? {
            let counts = counts.entry(act).or_default();
            counts.longest = counts.longest.max(took);
            match result {
                Ok(()) => counts.done += 1,
                // What a process was doing when it was killed is lost, and said to be.
                Err(error) if victim != "nobody" && is_loss(&error) => counts.lost += 1,
                Err(error) => {
                    let told = format!("round {rounds}, seed {seed}: {act}");
                    return Err(error.context(told));
                }
            }
        }
        before
            .holds(target)
            .await
            .with_context(|| format!("after round {rounds} ({victim} killed), seed {seed}"))?;
    }
    println!("{}", table(&counts, &killed, rounds)?);
    Ok(())
}

async fn futures<T>(
    all: impl Iterator<Item = impl Future<Output = anyhow::Result<Vec<T>>> + Send + 'static>,
) -> anyhow::Result<Vec<T>>
where
    T: Send + 'static,
{
    let running: Vec<_> = all.map(tokio::spawn).collect();
    let mut told = Vec::new();
    for one in running {
        told.extend(one.await??);
    }
    Ok(told)
}

fn table(
    counts: &BTreeMap<&str, Counts>,
    killed: &BTreeMap<&str, u64>,
    rounds: u64,
) -> anyhow::Result<String> {
    let mut table = format!(
        "{:24} {:>8} {:>8} {:>10}\n",
        "act", "done", "lost", "longest"
    );
    for (
        act,
        Counts {
            done,
            lost,
            longest,
        },
    ) in counts
    {
        writeln!(
            table,
            "{act:24} {done:>8} {lost:>8} {:>8.1} s",
            longest.as_secs_f64()
        )?;
    }
    write!(
        table,
        "{rounds} rounds, killed: {killed:?}; the invariants held after each"
    )?;
    Ok(table)
}

type Told = (&'static str, anyhow::Result<()>, Duration);

async fn act_for_a_round(vm: Vm, folder: String, seed: u64) -> anyhow::Result<Vec<Told>> {
    let mut chance = Chance(seed);
    let mut told = Vec::new();
    let end = Instant::now() + ROUND;
    while Instant::now() < end {
        let act = ACTS[chance.next(ACTS.len() as u64) as usize];
        let start = Instant::now();
        let result = tokio::time::timeout(PATIENCE, perform(&vm, &folder, act, &mut chance)).await;
        let result = result.with_context(|| format!("{act} hangs"))?;
        told.push((act, result, start.elapsed()));
    }
    // For the invariants nothing of it may be under way; the listener may be starting just now.
    let end = Instant::now() + PATIENCE;
    while vm.files().remove(&folder, true, true).await.is_err() {
        ensure!(Instant::now() < end, "{folder} cannot be removed");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(told)
}

fn is_loss(error: &anyhow::Error) -> bool {
    match error.downcast_ref::<Error>() {
        Some(Error::Lost(_) | Error::Connect { .. } | Error::Refused { .. }) => true,
        // Known to the worker alone that was killed.
        Some(error) => error.reason() == Some(guestline_client::ErrorReason::NoSuchProcess),
        None => false,
    }
}

async fn perform(vm: &Vm, folder: &str, act: &str, chance: &mut Chance) -> anyhow::Result<()> {
    let files = vm.files();
    let size = [0, 1, 4096, 70_000, 3_000_000][chance.next(5) as usize];
    let path = format!("{folder}/f{}", chance.next(5));
    let whole = WriteOptions::replace().parents(true);
    match act {
        "write and read" => {
            let content = pattern(size);
            put(&files, &path, content.clone(), whole).await?;
            ensure!(files.read(&path).await? == content, "other bytes came back");
        }
        "append" => {
            put(&files, &path, "one", whole).await?;
            put(&files, &path, "two", WriteOptions::append()).await?;
            ensure!(files.read(&path).await? == b"onetwo");
        }
        "cut a write" => {
            put(&files, &path, "old", whole.clone()).await?;
            let mut writer = files.write_with(&path, whole).await?;
            writer.write(pattern(size)).await?;
            drop(writer);
            ensure!(files.read(&path).await? == b"old", "a cut write shows");
        }
        "make and remove a tree" => {
            let tree = format!("{folder}/tree");
            // What is there of one that was cut by a kill.
            files.remove(&tree, true, true).await?;
            files.create_dir_all(format!("{tree}/a/b/c")).await?;
            files.symlink("/etc", format!("{tree}/a/out")).await?;
            let mut listing = files.list(&tree, 9).await?;
            let mut seen = 0;
            while listing.next().await?.is_some() {
                seen += 1;
            }
            ensure!(seen == 4, "{seen} entries");
            files.remove_dir_all(&tree).await?;
        }
        "push and sum" => {
            let local = tempfile::tempdir()?;
            std::fs::write(local.path().join("one"), pattern(size))?;
            let options = PushOptions {
                parents: true,
                ..Default::default()
            };
            let to = format!("{folder}/pushed");
            files.push_from(local.path(), &to, options, ()).await?;
            let algorithm = guestline_client::ChecksumAlgorithm::Blake3;
            let sum = files.checksum(format!("{to}/one"), algorithm).await?;
            ensure!(sum.size == size as u64, "{} bytes were pushed", sum.size);
        }
        "run" => {
            let code = chance.next(256) as i32;
            let line = format!("head -c {size} /dev/zero; exit {code}");
            let output = vm.shell(line).output().await?;
            ensure!(
                output.status.code == Some(code) && output.stdout.len() == size,
                "{:?}, {} bytes",
                output.status,
                output.stdout.len()
            );
        }
        "feed a program" => {
            let content = pattern(size);
            let output = vm.command("cat").input(content.clone()).output().await?;
            ensure!(output.stdout == content, "cat gave other bytes");
        }
        "leave a program" => drop(
            vm.shell("sleep 60 & sleep 60")
                .kill_leftovers(true)
                .spawn()
                .await?,
        ),
        "use a terminal" => {
            let mut command = vm.shell("stty size");
            let output = command.terminal("dumb", 90, 33).output().await?;
            ensure!(output.stdout == b"33 90\r\n", "{output:?}");
        }
        "start and attach" => {
            let started = vm
                .shell("echo here; exec sleep 60")
                .start(Some(4096))
                .await?;
            let processes = vm.processes();
            let from = Offsets {
                stdout: Some(0),
                stderr: None,
            };
            let mut attached = processes.attach(started.process_id, from).await?;
            let event = attached.event().await?;
            ensure!(event == AttachEvent::Stdout("here\n".into()), "{event:?}");
            processes
                .signal(started.process_id, 9, SignalTarget::Leader)
                .await?;
            let AttachEvent::Exited(exit) = attached.event().await? else {
                bail!("it does not end");
            };
            ensure!(exit.signal == Some(9), "{exit:?}");
        }
        _ => {
            let mut command = vm.command("sleep");
            let output = command
                .arg("60")
                .timeout(Duration::from_millis(100))
                .output()
                .await?;
            ensure!(output.status.timed_out, "{:?}", output.status);
        }
    }
    Ok(())
}

async fn disturb(target: &Target, victim: &str) -> anyhow::Result<()> {
    let root = target.user("root");
    match victim {
        "nobody" => Ok(()),
        "listener" => {
            let (_, listener) = shell(&root, FIND_LISTENER).await?;
            ensure!(
                shell(&root, &format!("kill -9 {}", listener.trim()))
                    .await?
                    .0
            );
            Ok(())
        }
        user => {
            // Of several, one that finishes what it has, too. A pattern that does not find this very line.
            let (first, rest) = user.split_at(1);
            let line = format!(
                "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline 2>/dev/null | \
                 grep -q ' worker -- [{first}]{rest} ' && kill -9 ${{p#/proc/}}; done; :"
            );
            ensure!(shell(&root, &line).await?.0);
            Ok(())
        }
    }
}
