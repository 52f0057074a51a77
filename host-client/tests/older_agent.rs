//! What a client says of an agent that is older, or newer, than itself: both get what both know.

use std::convert::Infallible;

use guestline_client::{Endpoint, Error, ErrorReason, Vm};
use hyper::{Request, Response, body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
};

/// Serves as an agent does that says `reply` to the hello and knows no rpc at all.
async fn serve(mut stream: UnixStream, reply: &str) {
    while stream.read_u8().await.is_ok_and(|byte| byte != b'\n') {}
    stream.write_all(reply.as_bytes()).await.ok();
    let unknown = |_: Request<Incoming>| async {
        let response = Response::builder()
            .header("content-type", "application/grpc")
            // UNIMPLEMENTED, as gRPC's servers answer what they have never heard of.
            .header("grpc-status", "12")
            .body(String::new());
        Ok::<_, Infallible>(response.unwrap_or_default())
    };
    let served = http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service_fn(unknown));
    served.await.ok();
}

fn agent(reply: &'static str) -> (tempfile::TempDir, Vm) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.sock");
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, reply));
        }
    });
    (folder, Vm::new(Endpoint::Unix { path }).user("alice"))
}

#[tokio::test]
async fn what_an_older_agent_lacks_is_said_to_be_lacking() {
    let (_folder, alice) = agent("ok version=0.0.1 uid=1000\n");
    for error in [
        alice.files().read("/etc/passwd").await.err(),
        alice.command("true").output().await.err(),
        alice.processes().list().await.err(),
    ] {
        let error = error.expect("it knows nothing");
        assert_eq!(error.reason(), Some(ErrorReason::Unsupported), "{error:?}");
    }
}

#[tokio::test]
async fn a_newer_agents_words_are_passed_over() {
    let (_folder, alice) = agent("ok version=9.1.0 uid=1000 colour=blue motto=\n");
    let error = alice.files().read("/etc/passwd").await.unwrap_err();
    assert_eq!(error.reason(), Some(ErrorReason::Unsupported), "{error:?}");
}

#[tokio::test]
async fn an_agent_of_another_hello_is_said_to_be_one() {
    let (_folder, alice) = agent("guestline/2 who are you\n");
    let error = alice.files().read("/etc/passwd").await.unwrap_err();
    assert!(matches!(error, Error::Connect { .. }), "{error:?}");
    assert!(
        std::error::Error::source(&error)
            .is_some_and(|source| source.to_string().contains("another version")),
        "{error:?}"
    );
}
