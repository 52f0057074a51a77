//! A folder of small files, both ways.

use std::{cell::Cell, fs, path::Path, time::Instant};

use guestline_client::{OutsideLinks, PushOptions};

use crate::{
    peers::raw,
    sample::{Column, Contender, Row, Unit, interleave},
    stage::{GUEST, Stage, with},
};

/// Bytes of each file.
const SIZE: usize = 1024;

pub(crate) async fn measure(stage: &Stage) -> anyhow::Result<Vec<Row>> {
    let count = if stage.quick { 1000 } else { 10_000 };
    // One takes minutes by scp.
    let rounds = if stage.quick { 2 } else { 1 };
    let folder = stage.here.path().join("tree");
    make(&folder, count)?;
    let push = push(stage, &folder, count, rounds).await;
    fs::remove_dir_all(&folder)?;
    let tree = format!("{GUEST}/tree");
    stage
        .prepare(&format!(
            "rm -rf {GUEST}/*tree*; {} files {tree} {count} {SIZE}",
            raw::PATH
        ))
        .await?;
    let pull = pull(stage, &tree, count, rounds).await;
    stage.prepare(&format!("rm -rf {GUEST}/*tree*")).await?;
    Ok(vec![push, pull])
}

fn make(folder: &Path, count: usize) -> anyhow::Result<()> {
    fs::create_dir_all(folder)?;
    let content = vec![b'x'; SIZE];
    for n in 0..count {
        fs::write(folder.join(format!("entry-{n:07}")), &content)?;
    }
    Ok(())
}

async fn push(stage: &Stage, folder: &Path, count: usize, rounds: usize) -> Row {
    let number = Cell::new(0);
    let next = || {
        number.set(number.get() + 1);
        format!("{GUEST}/tree-{}", number.get())
    };
    let next = &next;
    let mut contenders = vec![Contender::new(Column::GUESTLINE, || {
        let to = next();
        async move {
            let options = PushOptions {
                parents: true,
                ..PushOptions::default()
            };
            let start = Instant::now();
            stage
                .alice
                .files()
                .push_from(folder, to, options, ())
                .await?;
            Ok(count as f64 / start.elapsed().as_secs_f64())
        }
    })];
    with(&mut contenders, &stage.ssh, |ssh| {
        Contender::new(Column::SCP, move || {
            let to = next();
            async move { Ok(count as f64 / ssh.store(folder, &to).await?.as_secs_f64()) }
        })
    });
    with(&mut contenders, &stage.ssh, |ssh| {
        Contender::new(Column::TAR, move || {
            let to = next();
            async move { Ok(count as f64 / ssh.store_tar(folder, &to).await?.as_secs_f64()) }
        })
    });
    let (id, title) = (
        format!("push-{count}"),
        format!("push of {count} files of 1 KiB"),
    );
    interleave(&id, &title, Unit::Rate, (rounds, false), contenders).await
}

async fn pull(stage: &Stage, tree: &str, count: usize, rounds: usize) -> Row {
    let place = stage.here.path();
    let fresh = |name: &str| {
        let path = place.join(name);
        let _ = fs::remove_dir_all(&path);
        path
    };
    let fresh = &fresh;
    let mut contenders = vec![Contender::new(Column::GUESTLINE, || {
        let to = fresh("pulled");
        async move {
            let start = Instant::now();
            let links = OutsideLinks::Refuse;
            stage.alice.files().pull_to(tree, to, links, ()).await?;
            Ok(count as f64 / start.elapsed().as_secs_f64())
        }
    })];
    with(&mut contenders, &stage.ssh, |ssh| {
        Contender::new(Column::SCP, move || {
            let to = fresh("copied");
            async move { Ok(count as f64 / ssh.fetch(tree, &to).await?.as_secs_f64()) }
        })
    });
    with(&mut contenders, &stage.ssh, |ssh| {
        Contender::new(Column::TAR, move || {
            let to = fresh("unpacked");
            async move {
                fs::create_dir_all(&to)?;
                Ok(count as f64 / ssh.fetch_tar(tree, &to).await?.as_secs_f64())
            }
        })
    });
    let (id, title) = (
        format!("pull-{count}"),
        format!("pull of {count} files of 1 KiB"),
    );
    interleave(&id, &title, Unit::Rate, (rounds, false), contenders).await
}
