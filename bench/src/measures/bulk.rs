//! Files of one mebibyte and more, both ways. What is read is in the guest's memory; what is written goes there.

use std::{
    fs,
    future::Future,
    time::{Duration, Instant},
};

use bytes::Bytes;
use guestline_client::{Vm, WriteOptions};

use crate::{
    sample::{Column, Contender, Row, Unit, interleave, throughput},
    stage::{GUEST, Stage, with},
};

const MIB: u64 = 1 << 20;

/// What is measured of a size.
#[derive(Clone, Copy)]
struct Size {
    mib: u64,
    rounds: usize,
    /// Whether the slow ones take part.
    all: bool,
}

const FULL: [Size; 4] = [
    size(1, 30, true),
    size(16, 6, true),
    size(256, 2, true),
    size(4096, 1, false),
];
const QUICK: [Size; 2] = [size(1, 5, true), size(64, 2, true)];

const fn size(mib: u64, rounds: usize, all: bool) -> Size {
    Size { mib, rounds, all }
}

/// From the guest, or to it.
#[derive(Clone, Copy)]
enum Way {
    Read,
    Write,
}

pub(crate) async fn measure(stage: &Stage) -> anyhow::Result<Vec<Row>> {
    let sizes = if stage.quick { &QUICK[..] } else { &FULL[..] };
    let clear = format!("rm -f {GUEST}/*bulk*");
    let mut rows = Vec::new();
    for &size in sizes {
        // One of four gibibytes is all holes: memory is for the others.
        let make = if size.all { "head -c" } else { "truncate -s" };
        let from = if size.all { "/dev/urandom >" } else { "" };
        let (bytes, path) = (size.mib * MIB, format!("{GUEST}/bulk"));
        let line = format!("{clear}; {make} {bytes} {from} {path} && chmod 666 {path}");
        stage.prepare(&line).await?;
        rows.push(row(stage, Way::Read, size).await?);
        stage.prepare(&clear).await?;
        rows.push(row(stage, Way::Write, size).await?);
    }
    stage.prepare(&clear).await?;
    Ok(rows)
}

/// All who move a file of that size that way. Each has a file of its own in the guest to write to.
async fn row(stage: &Stage, way: Way, size: Size) -> anyhow::Result<Row> {
    let Size { mib, rounds, all } = size;
    let bytes = mib * MIB;
    let here = stage.here.path().join("bulk");
    if let (Way::Write, true) = (way, all) {
        fs::write(&here, vec![b'x'; bytes as usize])?;
    }
    let here = here.as_path();
    let read = format!("{GUEST}/bulk");
    let through = format!("{GUEST}/gateway-bulk");
    let (read, through) = (read.as_str(), through.as_str());
    let mut contenders = vec![mover(Column::GUESTLINE, bytes, move || async move {
        let start = Instant::now();
        match way {
            Way::Read => take(&stage.alice, read, bytes).await?,
            Way::Write => give(&stage.alice, &format!("{GUEST}/our-bulk"), bytes, all).await?,
        }
        Ok(start.elapsed())
    })];
    with(&mut contenders, &stage.raw, |raw| {
        mover(Column::RAW, bytes, move || async move {
            match way {
                Way::Read => raw.read(bytes).await,
                Way::Write => raw.write(bytes).await,
            }
        })
    });
    if all {
        with(&mut contenders, &stage.ssh, |ssh| {
            mover(Column::SCP, bytes, move || async move {
                match way {
                    Way::Read => ssh.fetch(read, here).await,
                    Way::Write => ssh.store(here, &format!("{GUEST}/scp-bulk")).await,
                }
            })
        });
        with(&mut contenders, &stage.gateway, |gateway| {
            mover(Column::GATEWAY_SCP, bytes, move || async move {
                match way {
                    Way::Read => gateway.fetch(read, here).await,
                    Way::Write => gateway.store(here, through).await,
                }
            })
        });
        with(&mut contenders, &stage.gateway, |gateway| {
            mover(Column::GATEWAY_SFTP, bytes, move || async move {
                match way {
                    Way::Read => gateway.get(read, here).await,
                    Way::Write => gateway.put(here, through).await,
                }
            })
        });
        with(&mut contenders, &stage.qemu, |qemu| {
            mover(Column::QEMU, bytes, move || async move {
                match way {
                    Way::Read => qemu.read(read, bytes).await,
                    Way::Write => qemu.write(&format!("{GUEST}/qemu-bulk"), bytes).await,
                }
            })
        });
    }
    let name = match way {
        Way::Read => "read",
        Way::Write => "write",
    };
    let (id, title) = (format!("{name}-{mib}m"), format!("{name} of {mib} MiB"));
    let often = (rounds, all && rounds > 5);
    let row = interleave(&id, &title, Unit::Throughput, often, contenders).await;
    let _ = fs::remove_file(here);
    Ok(row)
}

/// One who moves so many bytes, and says how long that took.
fn mover<'a, F>(column: Column, bytes: u64, mut run: impl FnMut() -> F + 'a) -> Contender<'a>
where
    F: Future<Output = anyhow::Result<Duration>> + 'a,
{
    Contender::new(column, move || {
        let moved = run();
        async move { Ok(throughput(bytes, moved.await?)) }
    })
}

/// Reads a file and drops it.
pub(crate) async fn take(vm: &Vm, path: &str, size: u64) -> anyhow::Result<()> {
    let mut reader = vm.files().open(path).await?;
    let mut got = 0;
    while let Some(chunk) = reader.chunk().await? {
        got += chunk.len() as u64;
    }
    anyhow::ensure!(got == size, "{got} bytes of {size}");
    Ok(())
}

/// Writes a file in place. One that is not to be kept overwrites the same 64 MiB again and again.
pub(crate) async fn give(vm: &Vm, path: &str, size: u64, kept: bool) -> anyhow::Result<()> {
    let chunk = Bytes::from(vec![b'x'; MIB as usize]);
    let part = if kept { size } else { size.min(64 * MIB) };
    for _ in 0..size / part {
        let mut writer = vm
            .files()
            .write_with(path, WriteOptions::truncate())
            .await?;
        for _ in 0..part / MIB {
            writer.write(chunk.clone()).await?;
        }
        writer.finish().await?;
    }
    Ok(())
}
