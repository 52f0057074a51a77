//! `…/raw-files/{path}`: a file's bytes as they are, of any size, streamed both ways; downloads in ranges (RFC 9110,
//! section 14). Not part of the SDK's contract; under the same grants.

use std::{
    io,
    ops::Range,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderMap, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use guestline_client::{FileReader, WriteOptions};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt, wrappers::ReceiverStream};

use super::{
    app::App,
    error::{ApiError, Code},
    files::{file_error, path_of, resolve},
    guard::{EndsLater, Permitted},
    identities::Empty,
    table::{Answer, Table},
};
use crate::{
    audit::Operation,
    machines::AwakeGuest,
    sessions::{Lease, Verb},
};

/// Chunks of at most 1 MiB between the guest and a slow client.
const QUEUE: usize = 2;

const BYTES: &str = "application/octet-stream";

pub(super) fn add(table: &mut Table) {
    const FILE: &str = "/v1/vms/{vm_id}/raw-files/{filepath}";
    table
        .add(
            Method::GET,
            FILE,
            Verb::ReadFile,
            "Stream a file, or a range of it",
            get,
        )
        .answers_bytes(BYTES);
    table
        .add(
            Method::PUT,
            FILE,
            Verb::WriteFile,
            "Stream a file in; it replaces the old one when it is whole",
            put,
        )
        .takes_bytes(BYTES)
        .answers::<Empty>();
}

async fn get(State(app): State<App>, permitted: Permitted, uri: Uri, headers: HeaderMap) -> Answer {
    let path = path_of(&uri, "/raw-files/")?;
    permitted.operation.begin(path.to_string_lossy());
    let guest = app.guest(&permitted).await?;
    let path = resolve(&guest, path);
    let failed = |error| file_error(error, &path);
    let files = guest.vm().files();
    let size = files.stat(&path).await.map_err(failed)?.size;
    let range = wanted_range(&headers, size)?;
    let reader = match &range {
        Some(range) => {
            files
                .open_range(&path, range.start, Some(range.end - range.start))
                .await
        }
        None => files.open(&path).await,
    };
    let reader = reader.map_err(failed)?;
    let lease = app.live.lease(&permitted.session);
    let body = stream_out(reader, guest, lease, permitted.operation);
    let headers = [
        (header::CONTENT_TYPE, BYTES),
        (header::ACCEPT_RANGES, "bytes"),
    ];
    let mut response = match range {
        Some(range) => {
            let shown = format!(
                "bytes {}-{}/{size}",
                range.start,
                range.end.saturating_sub(1)
            );
            (
                StatusCode::PARTIAL_CONTENT,
                headers,
                [(header::CONTENT_RANGE, shown)],
                body,
            )
                .into_response()
        }
        None => (headers, body).into_response(),
    };
    response.extensions_mut().insert(EndsLater);
    Ok(response)
}

/// The one range that is asked for; `None` is the whole file, also where several are, as the RFC allows.
fn wanted_range(headers: &HeaderMap, size: u64) -> Result<Option<Range<u64>>, ApiError> {
    let Some(value) = headers
        .get(header::RANGE)
        .and_then(|value| value.to_str().ok())
    else {
        return Ok(None);
    };
    let Some((first, last)) = value
        .strip_prefix("bytes=")
        .and_then(|range| range.split_once('-'))
    else {
        return Ok(None);
    };
    let range = match (first.trim(), last.trim()) {
        ("", suffix) => suffix
            .parse()
            .ok()
            .map(|length: u64| size.saturating_sub(length)..size),
        (first, "") => first.parse().ok().map(|first| first..size),
        (first, last) => match (first.parse(), last.parse::<u64>()) {
            (Ok(first), Ok(last)) if first <= last => Some(first..size.min(last.saturating_add(1))),
            _ => None,
        },
    };
    match range {
        Some(range) if range.start < range.end => Ok(Some(range)),
        Some(_) => {
            let error = ApiError::new(
                Code::RangeNotSatisfiable,
                format!("the file has {size} bytes"),
            );
            Err(error.with("size", size))
        }
        None => Ok(None),
    }
}

/// A body of what the reader gives. One that breaks off cuts the connection: the client must not take a part for all.
fn stream_out(reader: FileReader, guest: AwakeGuest, lease: Lease, operation: Operation) -> Body {
    let (chunks, queue) = mpsc::channel(QUEUE);
    let complete = Arc::new(AtomicBool::new(false));
    let (done, mut told) = (complete.clone(), false);
    tokio::spawn(async move {
        let _awake = guest;
        let result = tokio::select! {
            result = pump(reader, &chunks, &operation) => result,
            cut = lease.cut() => cut.as_str(),
        };
        operation.set_result(result);
        done.store(result == "ok", Ordering::Release);
    });
    let broken_off = std::iter::from_fn(move || {
        let broken = !complete.load(Ordering::Acquire) && !std::mem::replace(&mut told, true);
        broken.then(|| Err(io::Error::from(io::ErrorKind::UnexpectedEof)))
    });
    Body::from_stream(
        ReceiverStream::new(queue)
            .map(Ok)
            .chain(tokio_stream::iter(broken_off)),
    )
}

/// How it ended, for the audit log.
async fn pump(
    mut reader: FileReader,
    chunks: &mpsc::Sender<Bytes>,
    operation: &Operation,
) -> &'static str {
    loop {
        match reader.chunk().await {
            Ok(Some(chunk)) => {
                let length = chunk.len();
                if chunks.send(chunk).await.is_err() {
                    return "abandoned";
                }
                operation.add_bytes_out(length);
            }
            Ok(None) => return "ok",
            Err(error) => {
                tracing::warn!(%error, "a download broke off");
                return "lost";
            }
        }
    }
}

async fn put(State(app): State<App>, permitted: Permitted, uri: Uri, request: Request) -> Answer {
    let path = path_of(&uri, "/raw-files/")?;
    permitted.operation.begin(path.to_string_lossy());
    let guest = app.guest(&permitted).await?;
    let path = resolve(&guest, path);
    let lease = app.live.lease(&permitted.session);
    tokio::select! {
        written = write(&guest, &path, request, &permitted.operation) => written,
        cut = lease.cut() => Err(cut.into()),
    }
}

/// What breaks off before its end leaves the old file.
async fn write(
    guest: &AwakeGuest,
    path: &Path,
    request: Request,
    operation: &Operation,
) -> Result<Response, ApiError> {
    let failed = |error| file_error(error, path);
    let mut writer = guest
        .vm()
        .files()
        .write_with(path, WriteOptions::replace())
        .await
        .map_err(failed)?;
    let mut body = request.into_body().into_data_stream();
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|_| ApiError::new(Code::BadRequest, "the body was cut off"))?;
        operation.add_bytes_in(chunk.len());
        writer.write(chunk).await.map_err(failed)?;
    }
    writer.finish().await.map_err(failed)?;
    Ok(axum::Json(Empty {}).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(value: &str, size: u64) -> Result<Option<Range<u64>>, Code> {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, value.parse().unwrap());
        wanted_range(&headers, size).map_err(|error| error.code())
    }

    #[test]
    fn each_form_of_a_range_is_understood() {
        assert_eq!(range("bytes=0-4", 10), Ok(Some(0..5)));
        assert_eq!(range("bytes=5-", 10), Ok(Some(5..10)));
        assert_eq!(range("bytes=-3", 10), Ok(Some(7..10)));
        assert_eq!(range("bytes=-30", 10), Ok(Some(0..10)));
        assert_eq!(range("bytes=8-99", 10), Ok(Some(8..10)));
    }

    #[test]
    fn what_is_no_range_is_the_whole_and_what_cannot_be_had_is_refused() {
        for value in ["lines=1-2", "bytes=x-y", "bytes=5-2", "bytes=0-1,4-5"] {
            assert_eq!(range(value, 10), Ok(None), "{value}");
        }
        assert_eq!(range("bytes=10-", 10), Err(Code::RangeNotSatisfiable));
        assert_eq!(range("bytes=-0", 10), Err(Code::RangeNotSatisfiable));
        assert_eq!(range("bytes=0-0", 0), Err(Code::RangeNotSatisfiable));
    }
}
