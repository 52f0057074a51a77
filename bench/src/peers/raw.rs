//! The raw limit: bench/guest/raw.rs in the guest, and plain blocking calls here.

use std::{
    io::{Read, Write},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use guestline_client::{Child, Endpoint, Event, Vm, WriteOptions};

use crate::{sample::blocking, socket::Socket};

/// The program, as build.rs made it.
const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/raw"));

/// Where it is in the guest.
pub(crate) const PATH: &str = "/usr/local/bin/raw";

/// Its first vsock port; the others follow.
const PORT: u32 = 9000;

/// The port at which it becomes sshd.
pub(crate) const SSH_PORT: u32 = PORT + 4;

/// As large as a small call's request and answer with their heads.
const PING: usize = 64;

/// Puts the program into the guest.
pub(crate) async fn install(root: &Vm) -> anyhow::Result<()> {
    let options = WriteOptions::replace().permissions(0o755);
    let mut writer = root.files().write_with(PATH, options).await?;
    writer.write(PROGRAM).await?;
    writer.finish().await?;
    Ok(())
}

/// The baseline at work.
pub(crate) struct Raw {
    endpoint: Endpoint,
    echo: Shared,
    run: Shared,
    source: Shared,
    sink: Shared,
    /// It serves for as long as this lives.
    _served: Child,
}

type Shared = Arc<Mutex<Socket>>;

impl Raw {
    pub(crate) async fn start(root: &Vm, uid: u32) -> anyhow::Result<Self> {
        let words = ["serve".into(), PORT.to_string(), uid.to_string()];
        let mut served = root.command(PATH).args(words).spawn().await?;
        match served.event().await? {
            Event::Stdout(line) if &line[..] == b"ready\n" => {}
            other => anyhow::bail!("it said {other:?}"),
        }
        let endpoint = root.endpoint().clone();
        let connect = |at| {
            let socket = Socket::connect(&endpoint, PORT + at)?;
            anyhow::Ok(Arc::new(Mutex::new(socket)))
        };
        Ok(Self {
            echo: connect(0)?,
            source: connect(1)?,
            sink: connect(2)?,
            run: connect(3)?,
            endpoint,
            _served: served,
        })
    }

    /// There and back.
    pub(crate) async fn ping(&self) -> anyhow::Result<Duration> {
        timed(&self.echo, |socket| {
            let mut bytes = [7; PING];
            socket.write_all(&bytes)?;
            Ok(socket.read_exact(&mut bytes)?)
        })
        .await
    }

    /// Fork, become the user, run `/bin/true`, wait, answer.
    pub(crate) async fn run(&self) -> anyhow::Result<Duration> {
        timed(&self.run, |socket| {
            let mut byte = [1];
            socket.write_all(&byte)?;
            socket.read_exact(&mut byte)?;
            ensure!(byte == [0], "/bin/true failed");
            Ok(())
        })
        .await
    }

    /// Takes so many bytes.
    pub(crate) async fn read(&self, bytes: u64) -> anyhow::Result<Duration> {
        timed(&self.source, move |socket| take(socket, bytes)).await
    }

    /// Gives so many bytes, until they have arrived.
    pub(crate) async fn write(&self, bytes: u64) -> anyhow::Result<Duration> {
        timed(&self.sink, move |socket| give(socket, bytes)).await
    }

    /// Connects, and makes one round trip.
    pub(crate) async fn connect(&self) -> anyhow::Result<Duration> {
        let endpoint = self.endpoint.clone();
        blocking(move || {
            let start = Instant::now();
            let mut socket = Socket::connect(&endpoint, PORT)?;
            let mut bytes = [7; PING];
            socket.write_all(&bytes)?;
            socket.read_exact(&mut bytes)?;
            Ok(start.elapsed())
        })
        .await
    }
}

async fn timed(
    socket: &Shared,
    work: impl FnOnce(&mut Socket) -> anyhow::Result<()> + Send + 'static,
) -> anyhow::Result<Duration> {
    let socket = Arc::clone(socket);
    blocking(move || {
        let mut socket = socket.lock().ok().context("it failed before")?;
        let start = Instant::now();
        work(&mut socket)?;
        Ok(start.elapsed())
    })
    .await
}

fn take(socket: &mut Socket, bytes: u64) -> anyhow::Result<()> {
    socket.write_all(&bytes.to_le_bytes())?;
    let mut chunk = vec![0; 1 << 20];
    let mut left = bytes as usize;
    while left > 0 {
        let room = left.min(chunk.len());
        let read = socket.read(&mut chunk[..room])?;
        ensure!(read > 0, "it ended early");
        left -= read;
    }
    Ok(())
}

fn give(socket: &mut Socket, bytes: u64) -> anyhow::Result<()> {
    socket.write_all(&bytes.to_le_bytes())?;
    let chunk = vec![1; 1 << 20];
    let mut left = bytes as usize;
    while left > 0 {
        let piece = left.min(chunk.len());
        socket.write_all(&chunk[..piece])?;
        left -= piece;
    }
    Ok(socket.read_exact(&mut [0])?)
}
