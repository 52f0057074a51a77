//! What a client says of an agent that is older, or newer, than itself: both get what both know.

use std::sync::{Arc, Mutex};

use guestline_client::{Error, ErrorReason, RefusalReason, Vm};
use guestline_proto::v1;
use prost::Message;

use crate::fake::{self, Answer};

const INFO: &str = "/guestline.v1.System/Info";
const RUN: &str = "/guestline.v1.Processes/Run";
const START: &str = "/guestline.v1.Processes/Start";

/// Knows no rpc at all.
fn agent(reply: &'static str) -> (tempfile::TempDir, Vm) {
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

/// Knows no rpc but Info, which names these; and the paths of all calls.
fn agent_with(
    capabilities: &'static [&'static str],
) -> (tempfile::TempDir, Vm, Arc<Mutex<Vec<String>>>) {
    let calls = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&calls);
    let answer = move |path: &str| {
        seen.lock().unwrap().push(path.into());
        if path != INFO {
            return Answer::Unknown;
        }
        let info = v1::InfoResponse {
            capabilities: capabilities.iter().map(|&name| name.into()).collect(),
            ..v1::InfoResponse::default()
        };
        Answer::One(info.encode_to_vec())
    };
    let (folder, vm) = fake::agent("ok version=0.0.1 uid=1000\n", answer);
    (folder, vm, calls)
}

#[tokio::test]
async fn no_program_runs_without_the_session_that_was_asked_for() {
    for (capabilities, words) in [
        (&["pidfd", "systemd"][..], "older"),
        (&["pidfd"][..], "does not run systemd"),
    ] {
        let (_folder, alice, calls) = agent_with(capabilities);
        let mut command = alice.command("true");
        command.login_session(true);
        for error in [
            command.output().await.err(),
            command.start(None).await.err(),
        ] {
            let error = error.expect("it would have been passed over");
            assert_eq!(error.reason(), Some(ErrorReason::Unsupported), "{error:?}");
            assert!(error.to_string().contains(words), "{error}");
        }
        assert_eq!(*calls.lock().unwrap(), [INFO]);
    }
}

#[tokio::test]
async fn an_agent_is_asked_once_and_only_for_a_session() {
    let (_folder, alice, calls) = agent_with(&["login_session", "systemd"]);
    let mut command = alice.command("true");
    assert!(command.output().await.is_err());
    assert_eq!(*calls.lock().unwrap(), [RUN]);
    command.login_session(true);
    for _ in 0..2 {
        assert!(command.output().await.is_err());
        assert!(command.start(None).await.is_err());
    }
    assert_eq!(*calls.lock().unwrap(), [RUN, INFO, RUN, START, RUN, START]);
}

#[tokio::test]
async fn a_newer_agents_words_are_passed_over() {
    let (_folder, alice) = agent("ok version=9.1.0 uid=1000 colour=blue motto=\n");
    let error = alice.files().read("/etc/passwd").await.unwrap_err();
    assert_eq!(error.reason(), Some(ErrorReason::Unsupported), "{error:?}");
}

#[tokio::test]
async fn an_agent_of_another_hello_is_said_to_refuse_ours() {
    // As an agent of today answers a hello of tomorrow.
    let (_folder, alice) = agent("error bad-hello this side speaks \"guestline/2\"\n");
    match alice.files().read("/etc/passwd").await.unwrap_err() {
        Error::Refused { reason, text, .. } => {
            assert_eq!(reason, Some(RefusalReason::BadHello));
            assert_eq!(text, "this side speaks \"guestline/2\"");
        }
        other => panic!("{other:?}"),
    }
}
