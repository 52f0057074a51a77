//! Races for a path: a folder and a link to somewhere else change places at full speed while files in it are written,
//! changed and removed (guest/neighbour.rs, `swap`). What the link leads to stays as it is.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use guestline_client::{CopyOptions, ErrorReason, SetAttributes, Vm, WriteOptions};
use tokio::time::timeout;

use super::{neighbours::Neighbour, shell};
use crate::{cases, eventually::PATIENCE, runner::Outcome, target::Target};

cases![
    a_users_own_changes_go_no_further_than_the_user: [5],
    a_tree_that_root_removes_or_copies_leads_nowhere: [5],
    a_fifo_that_takes_a_files_place_holds_nobody: [6],
];

/// What the link leads to: root's, for all to see.
const VICTIM: &str = "/home/victim";

/// Made afresh: files with the names that are attacked, and what all of it is.
const PREPARE: &str = "rm -rf /home/victim && mkdir -p /home/victim/sub && cd /home/victim && \
    for name in a b sub/c; do echo roots > $name; done && chmod -R go=rX . && chmod 755 .";
const LOOK: &str = "cd /home/victim && find . | sort | while read -r name; do \
    stat -c '%n %a %u %g %Y' $name; [ -d $name ] || cat $name; done";

/// For how long each attack goes on: long in one place, and there nothing is emulated.
fn period(target: &Target) -> Duration {
    Duration::from_secs(if target.is_machine() { 8 } else { 30 })
}

/// Whether to go on: for the period, and on a slow machine until all that is looked for has happened.
fn goes_on(period: Duration, since: Instant, has_raced: bool) -> bool {
    since.elapsed() < period || (!has_raced && since.elapsed() < PATIENCE * 4)
}

/// A folder of alice's with such a pair in it.
async fn pair(alice: &Vm) -> Outcome {
    let line = format!("rm -rf race && mkdir -p race/dir/sub && ln -s {VICTIM} race/link");
    ensure!(shell(alice, &line).await?.0, "no pair to swap");
    Ok(())
}

async fn look(root: &Vm) -> anyhow::Result<String> {
    let (ok, seen) = shell(root, LOOK).await?;
    ensure!(ok && seen.matches("roots\n").count() == 3, "{seen:?}");
    Ok(seen)
}

/// How often something succeeded, and how often the link was in the way.
#[derive(Debug, Default)]
struct Tries {
    done: u32,
    refused: u32,
}

impl Tries {
    fn count<T>(&mut self, result: Result<T, guestline_client::Error>) {
        match result {
            Ok(_) => self.done += 1,
            Err(error) if error.is_permission_denied() => self.refused += 1,
            // In the moment of a removal of its own, what is looked for is not there.
            Err(_) => {}
        }
    }
}

async fn a_users_own_changes_go_no_further_than_the_user(target: &Target) -> Outcome {
    let (root, alice) = (target.user("root"), target.user("alice"));
    ensure!(shell(&root, PREPARE).await?.0, "no victim");
    let before = look(&root).await?;
    pair(&alice).await?;
    let attack = Neighbour::start(&alice, &["swap", "race/dir", "race/link"]).await?;
    let files = target.user("alice").files();
    let (mut writes, mut changes, mut removals) = Default::default();
    let have_raced = |all: [&Tries; 3]| all.iter().all(|tries| tries.done > 0 && tries.refused > 0);
    let since = Instant::now();
    while goes_on(
        period(target),
        since,
        have_raced([&writes, &changes, &removals]),
    ) {
        for name in ["a", "b", "sub/c"] {
            let path = format!("race/dir/{name}");
            let tries: &mut Tries = &mut writes;
            tries.count(files.write(&path, "alices").await);
            let attributes = SetAttributes {
                mode: Some(0o777),
                ..Default::default()
            };
            let tries: &mut Tries = &mut changes;
            tries.count(files.set_attributes(&path, attributes).await);
            let tries: &mut Tries = &mut removals;
            tries.count(files.remove_file(&path).await);
        }
        let _ = files.remove_dir_all("race/dir/sub").await;
        let _ = files.create_dir_all("race/dir/sub").await;
    }
    swapped(attack).await?;
    for (what, tries) in [
        ("write", &writes),
        ("change", &changes),
        ("removal", &removals),
    ] {
        ensure!(
            tries.done > 0 && tries.refused > 0,
            "no race for a {what}: {tries:?}"
        );
    }
    ensure!(look(&root).await? == before, "what is root's was changed");
    Ok(())
}

/// Here the kernel would let the caller: only the way in which it walks protects what the link leads to.
async fn a_tree_that_root_removes_or_copies_leads_nowhere(target: &Target) -> Outcome {
    let (root, alice) = (target.user("root"), target.user("alice"));
    ensure!(shell(&root, PREPARE).await?.0, "no victim");
    let before = look(&root).await?;
    pair(&alice).await?;
    let attack = Neighbour::start(&alice, &["swap", "race/dir", "race/link"]).await?;
    let (files, alices) = (root.files(), target.user("alice").files());
    let copy = CopyOptions {
        recursive: true,
        ..Default::default()
    };
    let (mut removals, mut copies, mut listings) = (0, 0, 0);
    let since = Instant::now();
    while goes_on(
        period(target),
        since,
        removals > 0 && copies > 0 && listings > 0,
    ) {
        let copied = files.copy("/home/alice/race", "/home/copied", copy).await;
        copies += u32::from(copied.is_ok());
        let mut listing = files.list("/home/alice/race", 3).await?;
        while let Ok(Some(entry)) = listing.next().await {
            ensure!(!entry.path.ends_with("a"), "it listed {:?}", entry.path);
            listings += 1;
        }
        for way in ["dir", "link"] {
            let found = files.lstat(format!("/home/copied/{way}/a")).await;
            let through = files.lstat(format!("/home/copied/{way}")).await;
            let is_link = through.is_ok_and(|way| way.is_symlink());
            ensure!(found.is_err() || is_link, "it copied what {way} led to");
        }
        let _ = files.remove_dir_all("/home/copied").await;
        removals += u32::from(files.remove_dir_all("/home/alice/race").await.is_ok());
        // Whichever of the two it was is there again.
        let _ = alices.create_dir_all("race/dir/sub").await;
        let _ = alices.symlink(VICTIM, "race/link").await;
    }
    swapped(attack).await?;
    ensure!(
        removals > 0 && copies > 0 && listings > 0,
        "{removals} removals, {copies} copies, {listings} entries"
    );
    ensure!(look(&root).await? == before, "what is root's was changed");
    Ok(())
}

/// Between the look at a name and its opening, a FIFO that nobody writes or reads takes the file's place.
async fn a_fifo_that_takes_a_files_place_holds_nobody(target: &Target) -> Outcome {
    let alice = target.user("alice");
    let line = "rm -f file fifo; echo content > file; mkfifo fifo";
    ensure!(shell(&alice, line).await?.0, "no pair to swap");
    let attack = Neighbour::start(&alice, &["swap", "file", "fifo"]).await?;
    let files = target.user("alice").files();
    let (mut done, mut refused) = (0, 0);
    let since = Instant::now();
    while goes_on(period(target) / 2, since, done > 0 && refused > 0) {
        let append = super::put(&files, "file", "", WriteOptions::append());
        let read = async { files.read("file").await.map(drop) };
        for result in [
            timeout(PATIENCE, read).await,
            timeout(PATIENCE, append).await,
        ] {
            match result.context("the FIFO holds a call")? {
                Ok(()) => done += 1,
                Err(error) => {
                    let known = error.reason() == Some(ErrorReason::SpecialFile)
                        // ENXIO: a FIFO that nobody reads, opened for writing.
                        || error.errno() == Some(6);
                    ensure!(known, "{error:?}");
                    refused += 1;
                }
            }
        }
    }
    swapped(attack).await?;
    ensure!(
        done > 0 && refused > 0,
        "no race: {done} done, {refused} refused"
    );
    Ok(())
}

async fn swapped(attack: Neighbour) -> Outcome {
    let said = attack.end().await?;
    let count = said.strip_prefix("swapped ").map(str::parse::<u64>);
    ensure!(matches!(count, Some(Ok(count)) if count > 1000), "{said}");
    Ok(())
}
