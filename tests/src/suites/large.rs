//! A gibibyte each way, or what a machine can: every byte arrives, and the worker stays as small as it is.

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use guestline_client::{Event, Vm, WriteOptions};

use super::{faults::kill_worker, isolation::field, shell};
use crate::{
    cases,
    eventually::{PATIENCE, eventually},
    runner::Outcome,
    target::Target,
};

cases![
    much_output_comes_before_the_exit_in_bounded_memory: [20],
    a_large_file_goes_both_ways_in_bounded_memory: [12],
    many_readers_that_stall_share_a_workers_memory: [12],
];

/// In KiB: what a worker may take beyond the binary's pages while it moves as much as it can, and when it rests.
const MOVING: u64 = 16 << 10;
const RESTING: u64 = 2 << 10;

/// What `yes` repeats: with its newline, of a length that no chunk is a multiple of.
const LINE: &str = "guestline-output";

const CHUNK: usize = 1 << 20;

async fn much_output_comes_before_the_exit_in_bounded_memory(target: &Target) -> Outcome {
    let size = chunks(target) * CHUNK as u64;
    let bob = fresh(target).await?;
    let line = format!("yes {LINE} | head -c {size}; exit 3");
    let mut child = bob.shell(line).spawn().await?;
    let mut lines = Lines::new();
    let status = loop {
        match child.event().await? {
            Event::Stdout(bytes) => lines.check(&bytes)?,
            Event::Stderr(bytes) => bail!("{}", String::from_utf8_lossy(&bytes)),
            Event::Exited(status) => break status,
        }
    };
    ensure!(
        status.code == Some(3) && lines.seen == size,
        "{} bytes, {status:?}",
        lines.seen
    );
    stays_small(&bob).await
}

async fn a_large_file_goes_both_ways_in_bounded_memory(target: &Target) -> Outcome {
    // The minimal image keeps its files in its 1 GiB of memory.
    let chunks = if target.name() == "minimal" {
        256
    } else {
        1024
    };
    let size = chunks * CHUNK as u64;
    let bob = fresh(target).await?;
    let files = bob.files();
    let mut lines = Lines::new();
    let mut writer = files.write_with("large", WriteOptions::replace()).await?;
    for _ in 0..chunks {
        writer.write(lines.next(CHUNK)).await?;
    }
    ensure!(writer.finish().await?.size == size, "another size arrived");
    stays_small(&bob).await.context("written")?;
    let line = format!("yes {LINE} | head -c {size} | cmp - large");
    ensure!(shell(&bob, &line).await?.0, "what was written differs");

    let mut lines = Lines::new();
    let mut reader = files.open("large").await?;
    while let Some(chunk) = reader.chunk().await? {
        lines.check(&chunk)?;
        // A reader that does other things meanwhile, all that was sent to it waiting.
        if lines.seen < 4 * CHUNK as u64 {
            for _ in 0..50 {
                files.stat("large").await?;
            }
        }
    }
    ensure!(lines.seen == size, "{} bytes of {size}", lines.seen);
    stays_small(&bob).await.context("read")?;
    files.remove_file("large").await?;
    Ok(())
}

/// Each on a connection of its own, so that none waits for another.
async fn many_readers_that_stall_share_a_workers_memory(target: &Target) -> Outcome {
    const READERS: usize = 128;
    // Five chunks each take more than twice as much.
    const MOST: u64 = 256 << 10;
    let bob = fresh(target).await?;
    let made = shell(&bob, "truncate -s 64M shared").await?;
    ensure!(made.0, "the file was not made");
    let mut readers = Vec::new();
    for _ in 0..READERS {
        let mut reader = target.user("bob").files().open("shared").await?;
        ensure!(reader.chunk().await?.is_some(), "the file is empty");
        readers.push(reader);
    }
    let status = String::from_utf8(bob.files().read("/proc/self/status").await?)?;
    let taken: u64 = field(&status, "RssAnon:")?
        .trim_end_matches(" kB")
        .parse()
        .context("no number")?;
    ensure!(taken <= MOST, "the worker has {taken} KiB");
    drop(readers);
    bob.files().remove_file("shared").await?;
    Ok(())
}

/// A gibibyte; or what emulation moves in a test's time, and a machine whose files are in memory has room for.
fn chunks(target: &Target) -> u64 {
    if target.is_machine() { 64 } else { 1024 }
}

/// Bob, with a worker that has done nothing yet.
pub(super) async fn fresh(target: &Target) -> anyhow::Result<Vm> {
    kill_worker(target, &target.user("bob")).await?;
    let bob = target.user("bob");
    // A connection may still go to the one that was killed.
    eventually("bob has a worker", PATIENCE, async || {
        Ok(bob.files().stat("/").await.is_ok())
    })
    .await?;
    Ok(bob)
}

/// At the most that it ever had, as the kernel keeps it, and soon after.
pub(super) async fn stays_small(vm: &Vm) -> Outcome {
    let memory = async |name: &str| -> anyhow::Result<u64> {
        let status = String::from_utf8(vm.files().read("/proc/self/status").await?)?;
        let value = field(&status, name)?;
        value.trim_end_matches(" kB").parse().context("no number")
    };
    // An initramfs has its files, the agent too, in shared memory.
    let binary = memory("RssFile:").await? + memory("RssShmem:").await?;
    let most = memory("VmHWM:").await? - binary;
    ensure!(most <= MOVING, "the worker had {most} KiB");
    eventually("the worker rests", PATIENCE, async || {
        Ok(memory("RssAnon:").await? <= RESTING)
    })
    .await
}

/// The output of `yes LINE`, made and compared in pieces.
struct Lines {
    /// A chunk and a line more, so that a piece of any phase is a part of it.
    pattern: Bytes,
    seen: u64,
}

impl Lines {
    fn new() -> Self {
        let pattern = format!("{LINE}\n").repeat(CHUNK / LINE.len() + 2).into();
        Self { pattern, seen: 0 }
    }

    /// At most a chunk.
    fn next(&mut self, length: usize) -> Bytes {
        let phase = (self.seen % (LINE.len() as u64 + 1)) as usize;
        self.seen += length as u64;
        self.pattern.slice(phase..phase + length)
    }

    fn check(&mut self, piece: &[u8]) -> Outcome {
        let at = self.seen;
        ensure!(self.next(piece.len()) == piece, "other bytes after {at}");
        Ok(())
    }
}
