//! Who is let in, and what is answered to whoever is not.

use anyhow::{Context, ensure};
use guestline_client::{ConnectError, Endpoint, Error, RefusalReason, Secret, Vm};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

use super::refusal;
use crate::{
    cases,
    eventually::PATIENCE,
    runner::Outcome,
    stub::{connect, greeted},
    target::Target,
};

cases![
    an_unknown_user_is_an_error_of_the_first_operation: [15],
    a_number_is_not_a_user: [15],
    a_host_that_has_another_secret_gets_nowhere: [26],
    nobody_listening_is_said_with_the_endpoint,
    each_wrong_hello_gets_its_answer: [28],
    a_silent_peer_is_closed_within_its_time: [28],
    a_flood_of_silent_peers_keeps_nobody_out: [28],
    bytes_glued_behind_the_hello_are_not_lost: [29],
];

async fn an_unknown_user_is_an_error_of_the_first_operation(target: &Target) -> Outcome {
    // Naming the user does nothing yet.
    let nobody = target.user("mallory");
    match refusal("stat as mallory", nobody.files().stat("/").await)? {
        Error::Refused {
            reason: Some(RefusalReason::UserNotFound),
            text,
            ..
        } => {
            ensure!(
                text.contains("mallory"),
                "the text does not name the user: {text}"
            );
            Ok(())
        }
        other => Err(other.into()),
    }
}

async fn a_number_is_not_a_user(target: &Target) -> Outcome {
    let error = refusal("stat as 1000", target.user("1000").files().stat("/").await)?;
    ensure!(
        matches!(
            error,
            Error::Refused {
                reason: Some(RefusalReason::UserNotFound),
                ..
            }
        ),
        "{error:?}"
    );
    Ok(())
}

/// Promise 26: an agent that cannot prove it is refused by the client, one that wants a proof refuses.
async fn a_host_that_has_another_secret_gets_nowhere(target: &Target) -> Outcome {
    let vm = Vm::new(target.endpoint().clone()).secret(Secret::random()?);
    let error = refusal("stat", vm.files().stat("/").await)?;
    let expected = match target.secret() {
        None => matches!(
            error,
            Error::Connect {
                source: ConnectError::Unproven(_),
                ..
            }
        ),
        Some(_) => matches!(
            error,
            Error::Refused {
                reason: Some(RefusalReason::Unauthenticated),
                ..
            }
        ),
    };
    ensure!(expected, "{error:?}");
    Ok(())
}

async fn nobody_listening_is_said_with_the_endpoint(_: &Target) -> Outcome {
    let endpoint: Endpoint = "unix:/nonexistent/agent.sock".parse()?;
    let error = refusal("stat", Vm::new(endpoint).files().stat("/").await)?;
    ensure!(matches!(error, Error::Connect { .. }), "{error:?}");
    ensure!(
        error.to_string().contains("/nonexistent/agent.sock"),
        "{error}"
    );
    Ok(())
}

async fn each_wrong_hello_gets_its_answer(target: &Target) -> Outcome {
    let long = "x".repeat(1 << 20);
    let wrong = [
        "GET / HTTP/1.1\n",
        "guestline/9 user=alice\n",
        "guestline/1\n",
        "guestline/1 user=a/b\n",
        &long,
    ];
    for hello in wrong {
        let mut peer = connect(target).await?;
        // The agent closes as soon as it knows, which may be before all is sent.
        let _ = peer.write_all(hello.as_bytes()).await;
        let answer = answer(&mut peer).await?;
        ensure!(
            answer.starts_with("error bad-hello "),
            "to {:.20?} it said {answer:?}",
            hello
        );
        // At once, and not when its time is over.
        ensure!(
            hello != long || answer.contains("no end within 1024 bytes"),
            "{answer:?}"
        );
    }
    Ok(())
}

async fn a_silent_peer_is_closed_within_its_time(target: &Target) -> Outcome {
    let mut peer = connect(target).await?;
    peer.write_all(b"guestline/1 us").await?;
    // By the agent's own clock: how late that is told is the machine's.
    let answer = answer(&mut peer).await?;
    ensure!(
        answer.starts_with("error bad-hello no hello within 5 s"),
        "{answer:?}"
    );
    Ok(())
}

async fn a_flood_of_silent_peers_keeps_nobody_out(target: &Target) -> Outcome {
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(connect(target).await?);
    }
    target
        .user("alice")
        .files()
        .stat("/")
        .await
        .context("behind 200 silent connections")?;
    Ok(())
}

async fn bytes_glued_behind_the_hello_are_not_lost(target: &Target) -> Outcome {
    // HTTP/2's preface and an empty SETTINGS frame (RFC 9113, 3.4), in one write with the last line.
    let glued = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let mut peer = greeted(target, "alice", glued).await?;
    let mut frame = [0; 9];
    tokio::time::timeout(PATIENCE, peer.read_exact(&mut frame)).await??;
    ensure!(
        frame[3] == 4,
        "expected the server's SETTINGS frame, got type {}",
        frame[3]
    );
    Ok(())
}

async fn answer(peer: &mut UnixStream) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    let mut bounded = peer.take(2048);
    let read = bounded.read_to_end(&mut bytes);
    match tokio::time::timeout(PATIENCE, read)
        .await
        .context("no answer")?
    {
        // Closed with bytes of ours unread.
        Err(error) if bytes.is_empty() => Err(error.into()),
        _ => Ok(String::from_utf8_lossy(&bytes).into_owned()),
    }
}
