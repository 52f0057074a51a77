//! Floods of connections, headers and streams: an honest call is answered meanwhile, and nothing grows.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use guestline_client::{Error, Vm};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    time::timeout,
};

use super::{
    isolation::{field, listener_of},
    large::{fresh, stays_small},
};
use crate::{
    cases,
    eventually::{PATIENCE, eventually},
    runner::Outcome,
    stub::{connect, greeted},
    target::Target,
};

cases![
    two_thousand_silent_connections_keep_nobody_out: [28],
    headers_without_end_end_their_connection: [28],
    continuations_without_end_end_their_connection: [28],
    streams_that_are_reset_at_once_end_their_connection: [28],
];

/// Of honest calls, connecting and hello included, most take no longer: whatever is held up by a flood is held up each time.
/// Emulation takes longer for everything.
fn answer_limit(target: &Target) -> Duration {
    Duration::from_secs(if target.is_machine() { 3 } else { 1 })
}

/// What the listener may grow by, in KiB.
pub(super) const LISTENER_GROWTH: u64 = 8 << 10;

/// Connections that may wait for their hello.
const WAITING: usize = 64;

/// How long a call took. A full queue of the kernel's turns a connection away at once, and a client gives one up after 5 s: whoever
/// is honest tries again, and has the same time for all of it.
pub(super) async fn answered(vm: &Vm) -> anyhow::Result<Duration> {
    let start = Instant::now();
    let answer = async {
        loop {
            match vm.files().stat("/").await {
                Err(Error::Connect { .. }) => tokio::time::sleep(Duration::from_millis(10)).await,
                answer => break answer,
            }
        }
    };
    timeout(PATIENCE, answer).await.context("no answer")??;
    Ok(start.elapsed())
}

pub(super) fn are_answered_within(limit: Duration, mut took: Vec<Duration>) -> Outcome {
    took.sort();
    let median = took.get(took.len() / 2).context("no call")?;
    ensure!(*median < limit, "the calls took {took:?}");
    Ok(())
}

/// The most that a process ever had, in KiB.
pub(super) async fn memory_of(root: &Vm, pid: &str) -> anyhow::Result<u64> {
    let status = root.files().read(format!("/proc/{pid}/status")).await?;
    let peak = field(&String::from_utf8(status)?, "VmHWM:")?;
    peak.trim_end_matches(" kB").parse().context("VmHWM")
}

async fn two_thousand_silent_connections_keep_nobody_out(target: &Target) -> Outcome {
    let limits = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit {
        current: limits.maximum,
        ..limits
    };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised)?;
    let root = target.user("root");
    let listener = listener_of(&root).await?;
    // The user has a worker: what is timed is the way past the others.
    target.user("bob").files().stat("/").await?;
    let before = memory_of(&root, &listener).await?;
    let (mut silent, mut took) = (Vec::new(), Vec::new());
    for number in 0..2000 {
        let opened = timeout(PATIENCE, connect(target)).await;
        let opened = opened.with_context(|| format!("connection {number}"))?;
        // A VMM with a full queue refuses by itself.
        silent.extend(opened.ok());
        if number % 200 == 199 {
            let call = answered(&target.user("bob")).await;
            took.push(call.with_context(|| format!("behind {number}"))?);
        }
    }
    ensure!(
        silent.len() > 1000,
        "only {} were let in at all",
        silent.len()
    );
    are_answered_within(answer_limit(target), took)?;
    let mut unheard = 0;
    eventually("all but the newest are closed", PATIENCE, async || {
        silent.retain(|one| match what_is_left(one) {
            Left::Open => true,
            Left::ClosedUnheard => {
                unheard += 1;
                false
            }
            Left::Told => false,
        });
        Ok(silent.len() <= WAITING)
    })
    .await?;
    // Those whose time for a hello was over were told.
    ensure!(unheard > 0, "none was closed for those behind it");
    let grown = memory_of(&root, &listener).await?.saturating_sub(before);
    ensure!(grown <= LISTENER_GROWTH, "the listener grew by {grown} KiB");
    Ok(())
}

enum Left {
    Open,
    ClosedUnheard,
    /// Closed, or about to be.
    Told,
}

/// A closed one has an end to read, or an error; before it, why, where its time was over.
fn what_is_left(stream: &UnixStream) -> Left {
    match stream.try_read(&mut [0; 64]) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Left::Open,
        Ok(0) | Err(_) => Left::ClosedUnheard,
        Ok(_) => Left::Told,
    }
}

/// Frames of RFC 9113.
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A request, in HPACK (RFC 7541): POST, http, a path that there is not.
const REQUEST: &[u8] = b"\x83\x86\x04\x05/none\x01\x01x";

/// A connection as bob, past hello and preface.
async fn http2(target: &Target) -> anyhow::Result<UnixStream> {
    let mut stream = greeted(target, "bob", b"").await?;
    stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await?;
    stream.write_all(&frame(SETTINGS, 0, 0, b"")).await?;
    Ok(stream)
}

/// Sends as fast as it can until the agent closes; fails if it takes all of it. Honest calls are answered meanwhile, and
/// the worker stays small.
async fn flood(target: &Target, most: usize, mut next: impl FnMut(u32) -> Vec<u8>) -> Outcome {
    let bob = fresh(target).await?;
    let (mut reading, mut writing) = http2(target).await?.into_split();
    let heard = tokio::spawn(async move {
        let mut bytes = vec![0; 64 << 10];
        while reading
            .read(&mut bytes)
            .await
            .is_ok_and(|length| length > 0)
        {}
    });
    let sending = async {
        let (mut sent, mut number) = (0, 0);
        while sent < most {
            let piece = next(number);
            number += 1;
            if heard.is_finished() || writing.write_all(&piece).await.is_err() {
                return Ok(());
            }
            sent += piece.len();
        }
        // It may still be reading.
        timeout(PATIENCE, heard).await.map(drop)
    };
    let honest = async {
        let mut took = Vec::new();
        for _ in 0..10 {
            took.push(answered(&target.user("bob")).await?);
        }
        are_answered_within(answer_limit(target), took)
    };
    let (flooded, honest) = tokio::join!(timeout(2 * PATIENCE, sending), honest);
    flooded
        .context("it neither takes nor ends it")?
        .context("the connection goes on")?;
    honest?;
    stays_small(&bob).await
}

/// One request with 16 MiB of headers in frames as large as may be.
async fn headers_without_end_end_their_connection(target: &Target) -> Outcome {
    // A field that is not indexed: a name of one byte, a value of 100.
    let field = [&b"\x00\x01a\x64"[..], &[b'v'; 100]].concat();
    let block = field.repeat(150);
    flood(target, 16 << 20, |number| match number {
        0 => frame(HEADERS, 0, 1, REQUEST),
        _ => frame(CONTINUATION, 0, 1, &block),
    })
    .await
}

/// One request, continued by frames with nothing in them.
async fn continuations_without_end_end_their_connection(target: &Target) -> Outcome {
    let nothing = frame(CONTINUATION, 0, 1, b"").repeat(1000);
    flood(target, 16 << 20, |number| match number {
        0 => frame(HEADERS, 0, 1, REQUEST),
        _ => nothing.clone(),
    })
    .await
}

/// CVE-2023-44487.
async fn streams_that_are_reset_at_once_end_their_connection(target: &Target) -> Outcome {
    flood(target, 16 << 20, |number| {
        (0..100)
            .flat_map(|step| {
                let stream = 2 * (number * 100 + step) + 1;
                let cancel = 8_u32.to_be_bytes();
                let request = frame(HEADERS, END_HEADERS | END_STREAM, stream, REQUEST);
                [request, frame(RST_STREAM, 0, stream, &cancel)].concat()
            })
            .collect()
    })
    .await
}
