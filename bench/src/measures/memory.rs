//! What listener, worker and client hold: at rest, and while four gibibytes go each way.

use std::{fs, time::Duration};

use anyhow::{Context, ensure};

use crate::{
    measures::{bulk, many::single},
    sample::{Row, Unit},
    stage::{GUEST, Stage},
};

const MIB: u64 = 1 << 20;

/// A worker that came to rest gives memory back after a second.
const REST: Duration = Duration::from_secs(3);

pub(crate) async fn measure(stage: &Stage) -> anyhow::Result<Vec<Row>> {
    // Another id too: the targets speak of four gibibytes.
    let (size, much, of) = if stage.quick {
        (64 * MIB, "64 MiB", "-64m")
    } else {
        (4096 * MIB, "4 GiB", "")
    };
    let file = format!("{GUEST}/large");
    stage
        .prepare(&format!("truncate -s {size} {file} && chmod 666 {file}"))
        .await?;
    // A user of its own, whose worker has done nothing else.
    let user = stage.others.last().context("there is no other user")?;
    let vm = stage.root.user(user);
    vm.files().stat("/").await?;
    let row = |id: &str, title: &str, value| single(id, title, Unit::Size, value);
    let mut rows = vec![
        row(
            "memory-listener",
            "the listener",
            resident(stage, None, "VmRSS").await?,
        ),
        row(
            "memory-idle",
            "a worker that answered one call",
            resident(stage, Some(user), "VmRSS").await?,
        ),
    ];
    forget_peak()?;
    bulk::take(&vm, &file, size).await?;
    rows.push(row(
        &format!("memory-read{of}"),
        &format!("a worker that sent {much}, at its peak"),
        resident(stage, Some(user), "VmHWM").await?,
    ));
    bulk::give(&vm, &format!("{GUEST}/taken"), size, false).await?;
    rows.push(row(
        &format!("memory-write{of}"),
        "… and then took as much",
        resident(stage, Some(user), "VmHWM").await?,
    ));
    rows.push(row(
        "memory-client",
        "the client meanwhile, at its peak",
        own_peak()?,
    ));
    tokio::time::sleep(REST).await;
    rows.push(row(
        "memory-after",
        "that worker, three seconds later",
        resident(stage, Some(user), "VmRSS").await?,
    ));
    stage
        .prepare(&format!("rm -f {file} {GUEST}/taken"))
        .await?;
    Ok(rows)
}

/// A figure of /proc/PID/status of the listener, or of a user's worker, in MiB.
async fn resident(stage: &Stage, user: Option<&str>, key: &str) -> anyhow::Result<f64> {
    let wanted = user.map_or("guestline-agent".to_owned(), |user| {
        format!("worker -- {user} ")
    });
    let line = format!(
        "for p in $(pidof guestline-agent); do echo \"$(tr '\\0' ' ' < /proc/$p/cmdline)\" \
         $(grep {key} /proc/$p/status); done"
    );
    let text = stage.prepare(&line).await?;
    let found = text.lines().find(|line| match user {
        Some(_) => line.contains(&wanted),
        None => !line.contains("worker"),
    });
    let found = found.with_context(|| format!("no {wanted:?} in {text:?}"))?;
    kibibytes(found)
}

fn kibibytes(line: &str) -> anyhow::Result<f64> {
    let number = line
        .trim_end_matches(" kB")
        .rsplit(' ')
        .next()
        .unwrap_or_default();
    let number: f64 = number
        .trim()
        .parse()
        .with_context(|| format!("no figure in {line:?}"))?;
    ensure!(number > 0.0, "{line:?}");
    Ok(number / 1024.0)
}

/// So that the peak is that of what comes (proc(5), clear_refs).
fn forget_peak() -> anyhow::Result<()> {
    Ok(fs::write("/proc/self/clear_refs", "5")?)
}

fn own_peak() -> anyhow::Result<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmHWM"));
    kibibytes(&line.context("no VmHWM")?.replace('\t', " "))
}
