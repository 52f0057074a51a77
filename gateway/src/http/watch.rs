//! `POST /v1/vms/{vm}/watch-files`: what changes below the working directory, a JSON object a line, as it happens.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    extract::State,
    http::{Method, header},
    response::IntoResponse,
};
use guestline_client::{Change, WatchStream, Watched};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{
    app::App,
    files::file_error,
    guard::{EndsLater, Permitted},
    table::{Answer, Table},
};
use crate::{
    audit::Operation,
    machines::AwakeGuest,
    sessions::{Lease, Verb},
};

/// Lines between the guest and a slow client; the guest tells what was lost beyond.
const QUEUE: usize = 256;

/// An empty line, which readers skip: Node gives up a body that is silent for 300 s.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// JSON, an object a line.
const LINES: &str = "application/x-ndjson";

pub(super) fn add(table: &mut Table) {
    table
        .add(
            Method::POST,
            "/v1/vms/{vm_id}/watch-files",
            Verb::WatchFiles,
            "Changes below the working directory, a JSON object {eventType, filename} a line",
            watch,
        )
        .answers_bytes(LINES);
}

async fn watch(State(app): State<App>, permitted: Permitted) -> Answer {
    let guest = app.guest(&permitted).await?;
    let root: PathBuf = match guest.workdir() {
        Some(workdir) => workdir.into(),
        None => guest.vm().system().info().await?.identity.home,
    };
    permitted.operation.begin(root.to_string_lossy());
    let stream = guest.vm().files().watch(&root, true).await;
    let stream = stream.map_err(|error| file_error(error, &root))?;
    let lease = app.live.lease(&permitted.session);
    let body = stream_out(stream, root, guest, lease, permitted.operation);
    let mut response = ([(header::CONTENT_TYPE, LINES)], body).into_response();
    response.extensions_mut().insert(EndsLater);
    Ok(response)
}

fn stream_out(
    stream: WatchStream,
    root: PathBuf,
    guest: AwakeGuest,
    lease: Lease,
    operation: Operation,
) -> Body {
    let (lines, queue) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        let _awake = guest;
        let result = tokio::select! {
            result = pump(stream, &root, &lines) => result,
            cut = lease.cut() => cut.as_str(),
        };
        if !matches!(result, "ok" | "abandoned") {
            let broken_off = Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            let _ = lines.try_send(broken_off);
        }
        operation.set_result(result);
    });
    Body::from_stream(ReceiverStream::new(queue))
}

/// How it ended, for the audit log.
async fn pump(
    mut stream: WatchStream,
    root: &Path,
    lines: &mpsc::Sender<io::Result<Bytes>>,
) -> &'static str {
    loop {
        let text = match tokio::time::timeout(KEEP_ALIVE, stream.next()).await {
            Err(_) => "\n".to_owned(),
            Ok(Ok(Some(Watched::Changed { change, .. }))) => line(root, &change),
            // What was lost could be anything.
            Ok(Ok(Some(Watched::Overflow))) => told(root, "modify", Path::new("")),
            Ok(Ok(Some(Watched::Gone))) => told(root, "delete", Path::new("")),
            Ok(Ok(None)) => return "ok",
            Ok(Err(error)) => {
                tracing::warn!(%error, "a watch broke off");
                return "lost";
            }
        };
        if lines.send(Ok(text.into())).await.is_err() {
            return "abandoned";
        }
    }
}

fn line(root: &Path, change: &Change) -> String {
    match change {
        Change::Created(path) => told(root, "create", path),
        Change::Modified(path) | Change::Attributes(path) => told(root, "modify", path),
        Change::Removed(path) => told(root, "delete", path),
        Change::Renamed { from: _, to } => told(root, "rename", to),
    }
}

fn told(root: &Path, event_type: &str, path: &Path) -> String {
    let filename = if path.as_os_str().is_empty() {
        root.to_owned()
    } else {
        root.join(path)
    };
    format!(
        "{}\n",
        json!({"eventType": event_type, "filename": filename.to_string_lossy()})
    )
}
