//! An orchestrator: a small HTTP server that counts what a gateway asks of it.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// Answers every hook in the same way. Dropping it closes it.
pub struct Orchestrator {
    url: String,
    asked: Arc<Mutex<Vec<Value>>>,
    task: JoinHandle<()>,
}

impl Orchestrator {
    /// Answers `status` and `body` after `delay`.
    pub async fn start(status: u16, body: &'static str, delay: Duration) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let asked = Arc::<Mutex<Vec<Value>>>::default();
        let seen = asked.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let seen = seen.clone();
                tokio::spawn(async move {
                    let _ = answer(stream, &seen, status, body, delay).await;
                });
            }
        });
        Ok(Self { url, asked, task })
    }

    /// Of a hook.
    pub fn url(&self, hook: &str) -> String {
        format!("{}/{hook}", self.url)
    }

    /// How often it was asked for an action: "start", "stop", …
    pub fn count(&self, action: &str) -> usize {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.iter().filter(|body| body["action"] == action).count()
    }
}

impl Drop for Orchestrator {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(
    stream: TcpStream,
    seen: &Mutex<Vec<Value>>,
    status: u16,
    body: &str,
    delay: Duration,
) -> anyhow::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let (mut line, mut length) = (String::new(), 0);
        while stream.read_line(&mut line).await? > 0 && line != "\r\n" {
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().context("a wrong length")?;
            }
            line.clear();
        }
        if line.is_empty() {
            return Ok(());
        }
        let mut request = vec![0; length];
        stream.read_exact(&mut request).await?;
        let request = serde_json::from_slice(&request)?;
        seen.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(request);
        tokio::time::sleep(delay).await;
        let answer = format!(
            "HTTP/1.1 {status} x\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(answer.as_bytes()).await?;
    }
}
