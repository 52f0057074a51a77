//! The strangers that a client may meet behind a socket.

use std::{future::Future, path::PathBuf};

use guestline_proto::{hello::MAX_LINE, proof::AgentExchange};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixListener,
};

use super::{handshake::read_line, *};

/// For those who say nothing, and for all others.
const LIMIT: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(60);

/// A socket whose one visitor is served by `serve`.
fn peer<F, S>(serve: S) -> (tempfile::TempDir, PathBuf)
where
    S: FnOnce(UnixStream) -> F + Send + 'static,
    F: Future<Output = ()> + Send,
{
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(async move { serve(listener.accept().await.unwrap().0).await });
    (dir, path)
}

async fn says(answer: impl Into<Vec<u8>>) -> Result<(Box<dyn Io>, u32), ConnectError> {
    says_within(answer, PATIENCE).await
}

async fn says_within(
    answer: impl Into<Vec<u8>>,
    limit: Duration,
) -> Result<(Box<dyn Io>, u32), ConnectError> {
    let answer = answer.into();
    let (_dir, path) = peer(move |mut stream| async move {
        read_line(&mut stream, MAX_LINE).await.ok();
        stream.write_all(&answer).await.ok();
        // Held open: an end must come from the client's own bounds.
        std::future::pending::<()>().await;
    });
    connect(&Endpoint::Unix { path }, "alice", None, limit).await
}

async fn through(answer: &'static [u8]) -> Result<UnixStream, ConnectError> {
    let (mut ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.write_all(answer).await.unwrap();
    drop(theirs);
    connect_through(&mut ours, 777).await.map(|()| ours)
}

#[tokio::test]
async fn bytes_glued_behind_either_line_are_not_lost() {
    let mut stream = through(b"OK 1073741824\nHTTP/2").await.unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "HTTP/2");

    let said = says("ok version=9 uid=1 new=word\n\0\0\x06").await;
    let (mut stream, uid) = said.unwrap();
    assert_eq!(uid, 1);
    let mut rest = [0; 3];
    stream.read_exact(&mut rest).await.unwrap();
    assert_eq!(&rest, b"\0\0\x06");
}

#[tokio::test]
async fn a_vmm_that_refuses_or_babbles_is_a_typed_error() {
    assert!(matches!(
        through(b"").await,
        Err(ConnectError::NobodyInGuest)
    ));
    assert!(matches!(
        through(b"OK").await,
        Err(ConnectError::NobodyInGuest)
    ));
    assert!(matches!(
        through(b"OKAY\n").await,
        Err(ConnectError::Handshake(_))
    ));
    let no = through(b"ERR no such\x1b port\n").await.unwrap_err();
    assert!(matches!(no, ConnectError::Handshake(text) if text == r"ERR no such\u{1b} port"));
    assert!(matches!(
        through(&[b'O'; 500]).await,
        Err(ConnectError::Handshake(_))
    ));
}

#[tokio::test]
async fn a_silent_peer_ends_at_the_deadline() {
    for said in ["", "ok version="] {
        let error = says_within(said, LIMIT).await.err();
        assert!(matches!(error, Some(ConnectError::TimedOut(LIMIT))));
    }
    let (_dir, path) = peer(|stream| async move {
        std::future::pending::<()>().await;
        drop(stream);
    });
    let endpoint = Endpoint::Hybrid { path, port: 777 };
    let error = connect(&endpoint, "root", None, LIMIT).await.err().unwrap();
    assert!(matches!(error, ConnectError::TimedOut(LIMIT)));
}

#[tokio::test]
async fn each_refusal_has_its_reason() {
    for (word, expected) in [
        ("user-not-found", Some(RefusalReason::UserNotFound)),
        ("user-not-allowed", Some(RefusalReason::UserNotAllowed)),
        ("unauthenticated", Some(RefusalReason::Unauthenticated)),
        ("busy", Some(RefusalReason::Busy)),
        ("bad-hello", Some(RefusalReason::BadHello)),
        ("failed", Some(RefusalReason::Failed)),
        ("of-tomorrow", None),
    ] {
        match says(format!("error {word} because\n")).await.err() {
            Some(ConnectError::Refused { reason, text }) => {
                assert_eq!((reason, text.as_str()), (expected, "because"));
            }
            other => panic!("{word}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_stranger_is_not_an_agent() {
    for stranger in [
        "SSH-2.0-OpenSSH_9.2\r\n",
        "\n",
        "\u{0}\u{1}\n",
        "ok\n",
        "guestline/2 hello\n",
        &"x".repeat(5000),
    ] {
        let error = says(stranger).await.err();
        assert!(
            matches!(error, Some(ConnectError::NotAnAgent(_))),
            "{stranger:?}: {error:?}"
        );
    }
    let (_dir, path) = peer(|mut stream| async move {
        read_line(&mut stream, MAX_LINE).await.ok();
    });
    let closed = connect(&Endpoint::Unix { path }, "alice", None, PATIENCE)
        .await
        .err();
    assert!(matches!(closed, Some(ConnectError::Closed)));
}

#[tokio::test]
async fn a_missing_or_dead_socket_and_an_impossible_name_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gone");
    let endpoint = Endpoint::Unix { path: path.clone() };
    let missing = connect(&endpoint, "root", None, PATIENCE).await.err();
    assert!(matches!(missing, Some(ConnectError::NoSuchSocket(_))));
    drop(UnixListener::bind(&path).unwrap());
    let dead = connect(&endpoint, "root", None, PATIENCE).await.err();
    assert!(matches!(dead, Some(ConnectError::NobodyListens(_))));
    let name = connect(&endpoint, "a\nb", None, PATIENCE).await.err();
    assert!(matches!(name, Some(ConnectError::InvalidUser { .. })));
}

fn secret(byte: char) -> Secret {
    byte.to_string().repeat(32).parse().unwrap()
}

/// An agent with this secret, or one that takes every answer for right.
async fn agent_with(theirs: Secret, ours: Secret) -> Result<(Box<dyn Io>, u32), ConnectError> {
    let (_dir, path) = peer(move |mut stream| async move {
        let hello = read_line(&mut stream, MAX_LINE).await.unwrap();
        let nonce = guestline_proto::proof::Nonce::random().unwrap();
        let (exchange, challenge) = AgentExchange::challenge(&hello, nonce);
        stream.write_all(challenge.as_bytes()).await.unwrap();
        let answer = read_line(&mut stream, MAX_LINE).await.unwrap();
        let reply = guestline_proto::hello::Reply::Ok {
            version: "9".into(),
            uid: 1000,
        };
        let line = match exchange.check(&[theirs], &answer) {
            Ok(proven) => proven.seal(&reply),
            Err(_) => format!("ok version=9 uid=1000 proof={}\n", "0".repeat(64)),
        };
        let line = line + "HTTP/2";
        stream.write_all(line.as_bytes()).await.unwrap();
        std::future::pending::<()>().await;
    });
    connect(&Endpoint::Unix { path }, "alice", Some(&ours), PATIENCE).await
}

#[tokio::test]
async fn an_agent_that_has_the_secret_is_taken_and_no_byte_behind_its_proof() {
    let (mut stream, uid) = agent_with(secret('a'), secret('a')).await.unwrap();
    assert_eq!(uid, 1000);
    let mut rest = [0; 6];
    stream.read_exact(&mut rest).await.unwrap();
    assert_eq!(&rest, b"HTTP/2");
}

#[tokio::test]
async fn an_agent_without_the_secret_is_refused() {
    let error = agent_with(secret('b'), secret('a')).await.err();
    assert!(matches!(
        error,
        Some(ConnectError::Unproven(ProofError::Wrong))
    ));
    // One that has none lets us in at once; and no words of its own make up for the proof.
    for line in [
        "ok version=9 uid=1000\n",
        "ok version=9 uid=1000 proof=00\n",
    ] {
        let (_dir, path) = peer(move |mut stream| async move {
            read_line(&mut stream, MAX_LINE).await.ok();
            stream.write_all(line.as_bytes()).await.ok();
            std::future::pending::<()>().await;
        });
        let ours = secret('a');
        let endpoint = Endpoint::Unix { path };
        let error = connect(&endpoint, "alice", Some(&ours), PATIENCE)
            .await
            .err();
        assert!(
            matches!(error, Some(ConnectError::Unproven(_))),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn a_refusal_before_the_proof_has_its_reason() {
    let (_dir, path) = peer(move |mut stream| async move {
        read_line(&mut stream, MAX_LINE).await.ok();
        stream.write_all(b"error busy later\n").await.ok();
    });
    let ours = secret('a');
    let endpoint = Endpoint::Unix { path };
    let error = connect(&endpoint, "alice", Some(&ours), PATIENCE)
        .await
        .err();
    let busy = Some(RefusalReason::Busy);
    assert!(matches!(error, Some(ConnectError::Refused { reason, .. }) if reason == busy));
}
