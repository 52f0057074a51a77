//! A client of generated stubs alone, as anybody's in another language: for what the client library has no words for, such
//! as a call's deadline. Without tonic's transport, which has a clock of its own for that.

use std::{
    path::PathBuf,
    pin::Pin,
    task::{Context, Poll},
};

use anyhow::{Context as _, ensure};
use guestline_proto::{
    hello::{Hello, Username},
    proof::{HostExchange, Nonce},
    v1::files_client::FilesClient,
};
use hyper::{Request, Response, Uri, body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};
use tonic::body::Body;

use crate::target::Target;

/// A raw connection, past the CONNECT handshake where there is one.
pub async fn connect(target: &Target) -> anyhow::Result<UnixStream> {
    let text = target.endpoint().to_string();
    if let Some(path) = text.strip_prefix("unix:") {
        return Ok(UnixStream::connect(path).await?);
    }
    let rest = text
        .strip_prefix("hybrid:")
        .with_context(|| format!("no raw connection to {text}"))?;
    let (path, port) = rest
        .rsplit_once(':')
        .context("a hybrid endpoint has a port")?;
    let mut stream = UnixStream::connect(PathBuf::from(path)).await?;
    stream
        .write_all(format!("CONNECT {port}\n").as_bytes())
        .await?;
    while stream.read_u8().await? != b'\n' {}
    Ok(stream)
}

/// One HTTP/2 connection, as the stubs want it.
#[derive(Clone, Debug)]
pub struct Stub(http2::SendRequest<Body>);

impl tower::Service<Request<Body>> for Stub {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

/// A connection as that user, on which HTTP/2 may begin; `glued` goes in one write with the last line of ours.
pub async fn greeted(target: &Target, user: &str, glued: &[u8]) -> anyhow::Result<UnixStream> {
    let mut stream = connect(target).await?;
    let user = Username::try_from(user)?;
    let Some(secret) = target.secret() else {
        let hello = Hello { user, nonce: None }.to_line();
        send(&mut stream, &hello, glued).await?;
        ensure!(line(&mut stream).await?.starts_with("ok "), "no ok");
        return Ok(stream);
    };
    let (mut exchange, hello) = HostExchange::begin(user, secret.clone(), Nonce::random()?);
    send(&mut stream, &hello, b"").await?;
    let answer = exchange.answer(line(&mut stream).await?.as_bytes())?;
    send(&mut stream, &answer, glued).await?;
    exchange.check(line(&mut stream).await?.as_bytes())?;
    Ok(stream)
}

async fn send(stream: &mut UnixStream, line: &str, glued: &[u8]) -> anyhow::Result<()> {
    Ok(stream.write_all(&[line.as_bytes(), glued].concat()).await?)
}

/// One line without its end; empty if the other side closes.
pub async fn line(stream: &mut UnixStream) -> anyhow::Result<String> {
    let mut line = Vec::new();
    loop {
        match stream.read_u8().await {
            Ok(b'\n') => return Ok(String::from_utf8(line)?),
            Ok(byte) => line.push(byte),
            Err(_) => return Ok(String::new()),
        }
    }
}

/// HTTP/2 on a connection.
pub async fn stub(stream: UnixStream) -> anyhow::Result<Stub> {
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(Stub(sender))
}

/// Files as that user, over a connection of its own.
pub async fn files(target: &Target, user: &str) -> anyhow::Result<FilesClient<Stub>> {
    let stub = stub(greeted(target, user, b"").await?).await?;
    let origin = Uri::from_static("http://guestline");
    Ok(FilesClient::with_origin(stub, origin))
}
