//! What a client says of an agent that is older, or newer, than itself: both get what both know.

use guestline_client::{Error, ErrorReason};

use crate::fake::{self, Answer};

/// Knows no rpc at all.
fn agent(reply: &'static str) -> (tempfile::TempDir, guestline_client::Vm) {
    fake::agent(reply, |_| Answer::Unknown)
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
