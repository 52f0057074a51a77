//! Many at once: clients of one user, users of one machine, and a reader that stalls beside one that is busy.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::ensure;
use guestline_client::Vm;
use tokio::{sync::Barrier, task::JoinSet};

use crate::{
    measures::bulk,
    sample::{Column, Contender, Row, Spread, Unit, interleave, millis, throughput},
    stage::{GUEST, Stage},
};

const MIB: u64 = 1 << 20;

/// The file that clients read.
const FILE_MIB: u64 = 4;

/// How long each crowd works.
const WINDOW: Duration = Duration::from_secs(5);
const QUICK_WINDOW: Duration = Duration::from_secs(2);

pub(crate) async fn measure(stage: &Stage) -> anyhow::Result<Vec<Row>> {
    let file = format!("{GUEST}/shared");
    stage
        .prepare(&format!(
            "head -c {FILE_MIB}M /dev/urandom > {file} && chmod 644 {file}"
        ))
        .await?;
    let window = if stage.quick { QUICK_WINDOW } else { WINDOW };
    let sizes: &[usize] = if stage.quick { &[1, 16] } else { &[1, 16, 256] };
    let mut rows = Vec::new();
    for &size in sizes {
        let clients = connected(size, |_| stage.root.user(stage.alice.username())).await?;
        let who = format!("{size} clients of alice");
        rows.extend(crowd(&format!("{size}"), &who, &clients, &file, window).await?);
    }
    for &size in sizes.iter().filter(|size| **size <= stage.others.len()) {
        let clients = connected(size, |n| stage.root.user(&stage.others[n])).await?;
        let who = format!("{size} users");
        rows.extend(crowd(&format!("users-{size}"), &who, &clients, &file, window).await?);
    }
    rows.push(stalled(stage, &file).await?);
    Ok(rows)
}

/// One connection each, open before anything is measured.
async fn connected(size: usize, vm: impl Fn(usize) -> Vm) -> anyhow::Result<Vec<Vm>> {
    let mut clients = Vec::new();
    for n in 0..size {
        let vm = vm(n);
        vm.files().stat("/").await?;
        clients.push(vm);
    }
    Ok(clients)
}

/// What all together do in the window: calls a second and the slowest of them, then bytes a second.
async fn crowd(
    id: &str,
    who: &str,
    clients: &[Vm],
    file: &str,
    window: Duration,
) -> anyhow::Result<Vec<Row>> {
    let mut times = together(clients, window, |vm| async move {
        vm.files().stat("/").await?;
        Ok(())
    })
    .await?;
    let rate = times.len() as f64 / window.as_secs_f64();
    times.sort_unstable();
    let slowest = times.last().copied().unwrap_or_default();
    let file: Arc<str> = file.into();
    let reads = together(clients, window, move |vm| {
        let file = Arc::clone(&file);
        async move { bulk::take(&vm, &file, FILE_MIB * MIB).await }
    })
    .await?;
    let slowest_read = reads.iter().max().copied().unwrap_or_default();
    // The last reads end after the window.
    let whole = window.max(slowest_read);
    let moved = throughput(reads.len() as u64 * FILE_MIB * MIB, whole);
    let row = |name: &str, what: &str, unit, value| {
        single(
            &format!("{name}-{id}"),
            &format!("{who}: {what}"),
            unit,
            value,
        )
    };
    Ok(vec![
        row("calls", "calls", Unit::Rate, rate),
        row(
            "slowest",
            "the slowest call",
            Unit::Milliseconds,
            millis(slowest),
        ),
        row("bytes", "reads of 4 MiB", Unit::Throughput, moved),
    ])
}

/// Each repeats its work until the window is over; how long each piece took. Works that began in the window are waited for.
async fn together<F>(
    clients: &[Vm],
    window: Duration,
    work: impl Fn(Vm) -> F + Clone + Send + 'static,
) -> anyhow::Result<Vec<Duration>>
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let barrier = Arc::new(Barrier::new(clients.len()));
    let mut tasks = JoinSet::new();
    for vm in clients {
        let (vm, work, barrier) = (vm.clone(), work.clone(), Arc::clone(&barrier));
        tasks.spawn(async move {
            barrier.wait().await;
            let (begin, mut times) = (Instant::now(), Vec::new());
            while begin.elapsed() < window {
                let start = Instant::now();
                work(vm.clone()).await?;
                times.push(start.elapsed());
            }
            anyhow::Ok(times)
        });
    }
    let mut all = Vec::new();
    while let Some(times) = tasks.join_next().await {
        all.extend(times??);
    }
    Ok(all)
}

/// A busy reader alone, and beside one on the same connection that stopped reading.
async fn stalled(stage: &Stage, file: &str) -> anyhow::Result<Row> {
    let size = FILE_MIB * MIB;
    let ours = Contender::new(Column::GUESTLINE, move || async move {
        let alone = Instant::now();
        bulk::take(&stage.alice, file, size).await?;
        let alone = alone.elapsed();
        let mut lazy = stage.alice.files().open("/dev/shm/large").await?;
        ensure!(lazy.chunk().await?.is_some(), "the large file is empty");
        let beside = Instant::now();
        bulk::take(&stage.alice, file, size).await?;
        Ok(100.0 * alone.as_secs_f64() / beside.elapsed().as_secs_f64())
    });
    stage
        .prepare("truncate -s 1G /dev/shm/large && chmod 644 /dev/shm/large")
        .await?;
    let title = "speed of a reader beside one that stalls, in percent of alone";
    let rounds = stage.rounds(20, 5);
    let row = interleave("stalled", title, Unit::Percent, rounds, vec![ours]).await;
    stage.prepare("rm /dev/shm/large").await?;
    Ok(row)
}

/// A row of one figure of ours.
pub(crate) fn single(id: &str, title: &str, unit: Unit, value: f64) -> Row {
    let spread = Spread::of(vec![value]);
    Row::of_ours(id, title, unit, spread)
}
