//! An agent that answers what a test has it answer.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
use guestline_client::{Endpoint, Vm};
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    HeaderMap, Request, Response,
    body::{Frame, Incoming},
    header::HeaderValue,
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
};

/// What it answers to a call.
pub(crate) enum Answer {
    /// That it has never heard of that.
    Unknown,
    /// This message.
    One(Vec<u8>),
    /// This message, again and again.
    Endless(Vec<u8>),
}

/// Says `reply` to each hello, and then answers each call by its path.
pub(crate) fn agent(
    reply: &'static str,
    answer: impl Fn(&str) -> Answer + Clone + Send + 'static,
) -> (tempfile::TempDir, Vm) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.sock");
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, reply, answer.clone()));
        }
    });
    (folder, Vm::new(Endpoint::Unix { path }).user("alice"))
}

async fn serve(
    mut stream: UnixStream,
    reply: &str,
    answer: impl Fn(&str) -> Answer + Clone + Send + 'static,
) {
    while stream.read_u8().await.is_ok_and(|byte| byte != b'\n') {}
    stream.write_all(reply.as_bytes()).await.ok();
    let respond = move |request: Request<Incoming>| {
        let answer = answer(request.uri().path());
        let response = Response::builder()
            .header("content-type", "application/grpc")
            .body(body(answer));
        std::future::ready(response)
    };
    let served = http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service_fn(respond));
    served.await.ok();
}

fn body(answer: Answer) -> UnsyncBoxBody<Bytes, Infallible> {
    let frames: BoxStream<'static, Frame<Bytes>> = match answer {
        // UNIMPLEMENTED, as gRPC's servers answer what they have never heard of.
        Answer::Unknown => stream::iter([status("12")]).boxed(),
        Answer::One(message) => stream::iter([Frame::data(framed(&message)), status("0")]).boxed(),
        Answer::Endless(message) => {
            let message = framed(&message);
            stream::repeat_with(move || Frame::data(message.clone())).boxed()
        }
    };
    StreamBody::new(frames.map(Ok)).boxed_unsync()
}

fn framed(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).unwrap();
    [&[0][..], &length.to_be_bytes(), message].concat().into()
}

fn status(code: &'static str) -> Frame<Bytes> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(code));
    Frame::trailers(trailers)
}
