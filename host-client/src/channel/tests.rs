//! Against a server of HTTP/2 that is told to go, or goes without a word.

use std::{
    convert::Infallible,
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::{body::Frame, server::conn::http2, service::service_fn};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    sync::Notify,
};
use tokio_stream::StreamExt;
use tonic::body::Body;

use super::*;

/// What a test's server saw, and how it is told to let its connections go.
#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    calls: AtomicUsize,
    go: Notify,
}

/// Each connection is another user. Answers each call with a body that does not end, so that its stream stays open; a call of `/die` with the connection's
/// end.
fn serve(path: PathBuf) -> Arc<Seen> {
    let seen = Arc::new(Seen::default());
    let listener = UnixListener::bind(path).unwrap();
    let told = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            while stream.read_u8().await.unwrap() != b'\n' {}
            let number = told.connections.fetch_add(1, Ordering::SeqCst);
            let line = format!("ok version=0.1.0 uid={}\n", 1000 + number);
            stream.write_all(line.as_bytes()).await.unwrap();
            tokio::spawn(connection(stream, Arc::clone(&told)));
        }
    });
    seen
}

async fn connection(stream: UnixStream, seen: Arc<Seen>) {
    let dies = Arc::new(Notify::new());
    let answer = |request: Request<Incoming>| {
        seen.calls.fetch_add(1, Ordering::SeqCst);
        if request.uri().path() == "/die" {
            dies.notify_one();
        }
        let first = tokio_stream::once(Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"x"))));
        let body = StreamBody::new(first.chain(tokio_stream::pending()));
        std::future::ready(Ok::<_, Infallible>(Response::new(body)))
    };
    let serving = http2::Builder::new(TokioExecutor::new());
    let serving = serving.serve_connection(TokioIo::new(stream), service_fn(answer));
    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        _ = serving.as_mut() => return,
        () = dies.notified() => return,
        () = seen.go.notified() => serving.as_mut().graceful_shutdown(),
    }
    let _ = serving.await;
}

async fn call(channel: &Channel, path: &'static str) -> Result<Response<Incoming>, String> {
    let request = Request::builder().method("POST").uri(path);
    let request = request.body(Body::empty()).unwrap();
    let answered = channel.clone().call(request).await;
    answered.map_err(|error| error.to_string())
}

fn channel(folder: &tempfile::TempDir) -> (Channel, Arc<Seen>) {
    let path = folder.path().join("s");
    let seen = serve(path.clone());
    let target = Target {
        endpoint: Endpoint::Unix { path },
        user: "alice".into(),
        secret: None,
        connect_timeout: Duration::from_secs(60),
    };
    (Channel::new(target), seen)
}

#[tokio::test]
async fn a_call_goes_over_a_new_connection_when_the_old_one_was_told_to_go() {
    let folder = tempfile::tempdir().unwrap();
    let (channel, seen) = channel(&folder);
    let open = call(&channel, "/stays-open").await.unwrap();
    seen.go.notify_one();
    for _ in 0..20 {
        call(&channel, "/next").await.unwrap();
    }
    // Those before the server heard that it must go may have met the first.
    let end = tokio::time::Instant::now() + Duration::from_secs(60);
    while seen.connections.load(Ordering::SeqCst) == 1 && tokio::time::Instant::now() < end {
        call(&channel, "/next").await.unwrap();
    }
    assert_eq!(seen.connections.load(Ordering::SeqCst), 2);
    drop(open);
}

#[tokio::test]
async fn a_call_that_was_sent_is_not_sent_again() {
    let folder = tempfile::tempdir().unwrap();
    let (channel, seen) = channel(&folder);
    // The answer may overtake the end; then it is the body that breaks off.
    if let Ok(response) = call(&channel, "/die").await {
        let mut body = response.into_body();
        while let Some(Ok(_)) = body.frame().await {}
    }
    assert_eq!(seen.calls.load(Ordering::SeqCst), 1);
    call(&channel, "/next").await.unwrap();
    assert_eq!(seen.connections.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn the_uid_is_that_of_the_last_connection_and_known_with_the_first_call() {
    let folder = tempfile::tempdir().unwrap();
    let (channel, seen) = channel(&folder);
    assert_eq!(channel.uid(), None);
    call(&channel, "/next").await.unwrap();
    assert_eq!(channel.uid(), Some(1000));
    let _ = call(&channel, "/die").await;
    let end = tokio::time::Instant::now() + Duration::from_secs(60);
    while seen.connections.load(Ordering::SeqCst) == 1 && tokio::time::Instant::now() < end {
        let _ = call(&channel, "/next").await;
    }
    assert_eq!(channel.uid(), Some(1001));
}

#[tokio::test]
async fn calls_at_once_share_one_connection() {
    let folder = tempfile::tempdir().unwrap();
    let (channel, seen) = channel(&folder);
    let calls = (0..50).map(|_| call(&channel, "/next"));
    for answer in futures_util::future::join_all(calls).await {
        answer.unwrap();
    }
    assert_eq!(seen.connections.load(Ordering::SeqCst), 1);
}
