//! Watching a directory: what happens is told, and so is what was lost.

use std::path::PathBuf;

use anyhow::{Context, bail, ensure};
use guestline_client::{Change, ErrorReason, WatchStream, Watched};

use super::{expect_errno, refusal, shell};
use crate::{
    cases,
    eventually::{PATIENCE, eventually},
    runner::Outcome,
    target::Target,
};

const ENOENT: i32 = 2;
const EACCES: i32 = 13;
const ENOTDIR: i32 = 20;

cases![
    changes_are_told_as_they_happen,
    what_is_made_in_new_directories_is_told_too,
    a_directory_that_is_removed_or_renamed_ends_its_watch,
    lost_changes_are_told_and_the_watch_goes_on,
    what_cannot_be_watched_is_a_typed_error,
    one_watch_too_many_is_refused_and_an_ended_one_gives_its_place_back,
];

async fn changes_are_told_as_they_happen(target: &Target) -> Outcome {
    let alice = target.user("alice");
    shell(&alice, "rm -rf w; mkdir w").await?;
    let mut watch = alice.files().watch("w", false).await?;
    ensure!(watch.directories() == 1 && watch.refused() == 0);
    shell(
        &alice,
        "echo x > w/a; mv w/a w/b; chmod 600 w/b; rm w/b; mkdir w/d",
    )
    .await?;
    let rename = Change::Renamed {
        from: "a".into(),
        to: "b".into(),
    };
    for expected in [
        Change::Created("a".into()),
        Change::Modified("a".into()),
        rename,
        Change::Attributes("b".into()),
        Change::Removed("b".into()),
    ] {
        expect(&mut watch, expected, false).await?;
    }
    expect(&mut watch, Change::Created("d".into()), true).await
}

async fn what_is_made_in_new_directories_is_told_too(target: &Target) -> Outcome {
    let alice = target.user("alice");
    shell(&alice, "rm -rf w; mkdir -p w/old").await?;
    let mut watch = alice.files().watch("w", true).await?;
    ensure!(watch.directories() == 2);
    // Faster than anybody could begin to watch each.
    shell(&alice, "mkdir -p w/old/a/b/c; echo x > w/old/a/b/c/file").await?;
    let file = PathBuf::from("old/a/b/c/file");
    let found = |change: &Change| *change == Change::Created(file.clone());
    skip_to(&mut watch, found).await?;
    shell(&alice, "mv w/old/a w/new; echo more >> w/new/b/c/file").await?;
    let rename = Change::Renamed {
        from: "old/a".into(),
        to: "new".into(),
    };
    skip_to(&mut watch, |change| *change == rename).await?;
    let modified = Change::Modified("new/b/c/file".into());
    skip_to(&mut watch, |change| *change == modified).await
}

async fn a_directory_that_is_removed_or_renamed_ends_its_watch(target: &Target) -> Outcome {
    let alice = target.user("alice");
    for end in ["rm -rf w", "mv w w2; rm -rf w2"] {
        shell(&alice, "rm -rf w; mkdir -p w/sub").await?;
        let mut watch = alice.files().watch("w", true).await?;
        shell(&alice, end).await?;
        loop {
            match watch.next().await? {
                Some(Watched::Gone) => break,
                Some(Watched::Changed { .. }) => {}
                other => bail!("{end}: {other:?}"),
            }
        }
        ensure!(watch.next().await?.is_none(), "{end}: it went on");
    }
    Ok(())
}

/// The client does not read while more happens than the connection and the kernel hold.
async fn lost_changes_are_told_and_the_watch_goes_on(target: &Target) -> Outcome {
    let alice = target.user("alice");
    shell(&alice, "rm -rf w; mkdir w").await?;
    let mut watch = alice.files().watch("w", true).await?;
    // Long names fill the connection sooner; two files, as equal events become one.
    let write = "a=w/$(printf %0200d 1); b=w/$(printf %0200d 2); exec 3>$a 4>$b; i=0
        while [ $i -lt 25000 ]; do echo x >&3; echo x >&4; i=$((i+1)); done";
    shell(&alice, write).await?;
    loop {
        match watch.next().await?.context("it ended")? {
            Watched::Overflow => break,
            Watched::Changed { .. } => {}
            Watched::Gone => bail!("gone"),
        }
    }
    shell(&alice, "mkdir w/after; echo x > w/after/file").await?;
    let file = Change::Created("after/file".into());
    skip_to(&mut watch, |change| *change == file).await
}

async fn what_cannot_be_watched_is_a_typed_error(target: &Target) -> Outcome {
    let files = target.user("alice").files();
    expect_errno("nothing", files.watch("none", true).await, ENOENT)?;
    expect_errno("a file", files.watch("/etc/passwd", false).await, ENOTDIR)?;
    expect_errno("root's", files.watch("/root", false).await, EACCES)?;
    let alice = target.user("alice");
    shell(&alice, "rm -rf w; mkdir -p w/shut w/open; chmod 0 w/shut").await?;
    let watch = files.watch("w", true).await?;
    ensure!(
        watch.directories() == 2 && watch.refused() == 1,
        "{watch:?}"
    );
    shell(&alice, "chmod 700 w/shut").await?;
    Ok(())
}

async fn one_watch_too_many_is_refused_and_an_ended_one_gives_its_place_back(
    target: &Target,
) -> Outcome {
    let alice = target.user("alice");
    shell(&alice, "rm -rf w; mkdir w").await?;
    let mut watches = Vec::new();
    let error = loop {
        match alice.files().watch("w", false).await {
            Ok(watch) => watches.push(watch),
            Err(error) => break error,
        }
        ensure!(watches.len() <= 32, "{} watches", watches.len());
    };
    // Other cases' watches may still be ending.
    ensure!(error.reason() == Some(ErrorReason::Limit), "{error:?}");
    watches.clear();
    let again = || async { Ok(alice.files().watch("w", false).await.is_ok()) };
    eventually("a place is free again", PATIENCE, again).await?;
    let error = refusal("root's", alice.files().watch("/root", false).await)?;
    ensure!(error.is_permission_denied());
    Ok(())
}

async fn expect(watch: &mut WatchStream, expected: Change, directory: bool) -> Outcome {
    let expected = Watched::Changed {
        change: expected,
        directory,
    };
    let got = watch.next().await?;
    ensure!(
        got.as_ref() == Some(&expected),
        "{got:?} is not {expected:?}"
    );
    Ok(())
}

async fn skip_to(watch: &mut WatchStream, is_it: impl Fn(&Change) -> bool) -> Outcome {
    loop {
        match watch.next().await?.context("it ended")? {
            Watched::Changed { change, .. } if is_it(&change) => return Ok(()),
            Watched::Changed { .. } => {}
            other => bail!("{other:?}"),
        }
    }
}
