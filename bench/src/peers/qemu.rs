//! QEMU's guest agent over virtio-serial: JSON lines (qga/qapi-schema.json of QEMU). It knows one user, root.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

use crate::sample::blocking;

/// How long it may take to start with the guest.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between two tries while it starts.
const RETRY: Duration = Duration::from_millis(100);

/// Of a file in one message, before base64.
const CHUNK: usize = 1 << 20;

/// Base64 of CHUNK bytes of one kind.
fn encoded(bytes: usize) -> String {
    // Three zero bytes are "AAAA"; a rest of one or two is padded.
    let mut text = "AAAA".repeat(bytes / 3);
    text.push_str(["", "AA==", "AAA="][bytes % 3]);
    text
}

/// The connection.
#[derive(Clone)]
pub(crate) struct QemuAgent(Arc<Mutex<BufReader<UnixStream>>>);

impl QemuAgent {
    pub(crate) async fn start(socket: &Path) -> anyhow::Result<Self> {
        let stream = UnixStream::connect(socket).context("QEMU has no channel for it")?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        let this = Self(Arc::new(Mutex::new(BufReader::new(stream))));
        let waiting = this.clone();
        blocking(move || waiting.wait()).await?;
        Ok(this)
    }

    /// What is said before it listens may be lost, or be answered late: each number is asked for once, and any later one
    /// than the last that was answered will do.
    fn wait(&self) -> anyhow::Result<()> {
        let start = Instant::now();
        let mut number = 0;
        while start.elapsed() < PATIENCE {
            number += 1;
            let mut answer = self.call("guest-sync", json!({"id": number}));
            // Late answers to earlier numbers come first.
            while answer.as_ref().is_ok_and(|answer| *answer != json!(number)) {
                answer = self.answer("guest-sync");
            }
            if answer.is_ok() {
                let reader = self.0.lock().ok().context("it failed before")?;
                return Ok(reader.get_ref().set_read_timeout(Some(PATIENCE))?);
            }
            std::thread::sleep(RETRY);
        }
        bail!("it did not answer within {PATIENCE:?}")
    }

    /// There and back.
    pub(crate) async fn ping(&self) -> anyhow::Result<Duration> {
        self.timed(|agent| agent.call("guest-ping", json!({})).map(drop))
            .await
    }

    /// Runs a program to its end, which is asked for until it has come.
    pub(crate) async fn run(
        &self,
        path: &'static str,
        words: &'static [&'static str],
    ) -> anyhow::Result<Duration> {
        self.timed(move |agent| {
            let start = json!({"path": path, "arg": words, "capture-output": true});
            let pid = agent.call("guest-exec", start)?["pid"].clone();
            loop {
                let status = agent.call("guest-exec-status", json!({"pid": pid}))?;
                if status["exited"] == true {
                    ensure!(status["exitcode"] == 0, "it ended with {status}");
                    return Ok(());
                }
            }
        })
        .await
    }

    /// Reads a file.
    pub(crate) async fn read(&self, path: &str, bytes: u64) -> anyhow::Result<Duration> {
        let path = path.to_owned();
        self.timed(move |agent| {
            let file = agent.open(&path, "r")?;
            let mut got = 0;
            loop {
                let part =
                    agent.call("guest-file-read", json!({"handle": file, "count": CHUNK}))?;
                got += part["count"].as_u64().unwrap_or(0);
                if part["eof"] == true || part["count"] == 0 {
                    break;
                }
            }
            ensure!(got == bytes, "{got} bytes of {bytes}");
            agent.close(&file)
        })
        .await
    }

    /// Writes a file.
    pub(crate) async fn write(&self, path: &str, bytes: u64) -> anyhow::Result<Duration> {
        let path = path.to_owned();
        self.timed(move |agent| {
            let file = agent.open(&path, "w")?;
            let chunk = encoded(CHUNK);
            let mut left = bytes as usize;
            while left > 0 {
                let piece = left.min(CHUNK);
                let text = if piece == CHUNK {
                    chunk.clone()
                } else {
                    encoded(piece)
                };
                agent.call("guest-file-write", json!({"handle": file, "buf-b64": text}))?;
                left -= piece;
            }
            agent.close(&file)
        })
        .await
    }

    fn open(&self, path: &str, mode: &str) -> anyhow::Result<Value> {
        self.call("guest-file-open", json!({"path": path, "mode": mode}))
    }

    fn close(&self, file: &Value) -> anyhow::Result<()> {
        self.call("guest-file-close", json!({"handle": file}))
            .map(drop)
    }

    async fn timed(
        &self,
        work: impl FnOnce(&Self) -> anyhow::Result<()> + Send + 'static,
    ) -> anyhow::Result<Duration> {
        let agent = self.clone();
        blocking(move || {
            let start = Instant::now();
            work(&agent)?;
            Ok(start.elapsed())
        })
        .await
    }

    fn call(&self, name: &str, arguments: Value) -> anyhow::Result<Value> {
        let line = json!({"execute": name, "arguments": arguments}).to_string() + "\n";
        let mut reader = self.0.lock().ok().context("it failed before")?;
        reader.get_mut().write_all(line.as_bytes())?;
        drop(reader);
        self.answer(name)
    }

    fn answer(&self, name: &str) -> anyhow::Result<Value> {
        let mut reader = self.0.lock().ok().context("it failed before")?;
        let mut answer = String::new();
        reader.read_line(&mut answer)?;
        let mut answer: Value = serde_json::from_str(&answer)?;
        if let Some(error) = answer.get("error") {
            bail!("{name}: {error}");
        }
        Ok(answer["return"].take())
    }
}

#[cfg(test)]
mod tests {
    use super::encoded;

    #[test]
    fn base64_of_zeros() {
        assert_eq!(encoded(3), "AAAA");
        assert_eq!(encoded(4), "AAAAAA==");
        assert_eq!(encoded(5), "AAAAAAA=");
    }
}
