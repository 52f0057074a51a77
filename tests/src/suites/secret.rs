//! A guest with a secret: who has not got it reaches nothing, and learns nothing about users. Over a Unix socket the agent
//! that has one is a second one, of this suite's own.

use anyhow::{Context, ensure};
use guestline_client::{Error, RefusalReason, Secret, Vm};
use guestline_proto::{
    FILE_DESCRIPTOR_SET,
    hello::{Hello, Username},
    proof::{HostExchange, Nonce},
};
use hyper::{Request, header, http::uri::PathAndQuery};
use prost::Message;
use prost_types::FileDescriptorSet;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};
use tonic::body::Body;
use tower::Service;

use super::refusal;
use crate::{
    cases,
    eventually::PATIENCE,
    runner::Outcome,
    stub::{connect, greeted, line, stub},
    target::Target,
};

cases![
    no_rpc_is_reached_without_the_secret: [26],
    every_rpc_is_reached_with_it: [26],
    a_wrong_secret_is_refused_as_such: [26],
    who_has_not_shown_the_secret_learns_nothing_about_users: [26],
    a_recorded_conversation_is_of_no_use_later: [26],
    somebody_between_cannot_make_another_user_of_it: [26],
    a_slow_or_endless_answer_is_closed_within_its_bounds: [26],
];

/// The target, or where it has no secret another agent that has one.
pub(super) enum Guarded<'a> {
    Given(&'a Target),
    Own(Target),
}

impl Guarded<'_> {
    pub(super) async fn of(target: &Target) -> anyhow::Result<Guarded<'_>> {
        if target.secret().is_some() {
            return Ok(Guarded::Given(target));
        }
        let agent = target.agent().context("a machine without a secret")?;
        let own = Target::local_with(agent, &Secret::random()?).await?;
        Ok(Guarded::Own(own))
    }

    pub(super) fn target(&self) -> &Target {
        match self {
            Self::Given(target) => target,
            Self::Own(target) => target,
        }
    }
}

/// A connection that has been closed: what it said before.
async fn said(peer: &mut UnixStream) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut bounded = peer.take(4096);
    let read = bounded.read_to_end(&mut bytes);
    let read = tokio::time::timeout(PATIENCE, read).await;
    // An error is an end too: closed with bytes of ours unread.
    let _ = read.context("it was not closed")?;
    Ok(bytes)
}

/// All paths of rpcs that an agent serves: ours, health and reflection.
fn rpcs() -> anyhow::Result<Vec<String>> {
    let sets = [
        FILE_DESCRIPTOR_SET,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
    ];
    let mut paths = Vec::new();
    for set in sets {
        for file in FileDescriptorSet::decode(set)?.file {
            for service in &file.service {
                for method in &service.method {
                    let (package, service, method) =
                        (file.package(), service.name(), method.name());
                    paths.push(format!("/{package}.{service}/{method}"));
                }
            }
        }
    }
    for word in [
        "Files/Read",
        "Processes/Run",
        "System/Shutdown",
        "Health/Check",
        "ServerReflectionInfo",
    ] {
        ensure!(
            paths.iter().any(|path| path.contains(word)),
            "no {word} in {paths:?}"
        );
    }
    Ok(paths)
}

/// A call without a message, on a connection that has begun in whatever way. Its headers, if any came.
async fn call(
    stream: UnixStream,
    path: &str,
) -> anyhow::Result<hyper::Response<hyper::body::Incoming>> {
    let uri = hyper::Uri::builder()
        .scheme("http")
        .authority("guestline")
        .path_and_query(path.parse::<PathAndQuery>()?)
        .build()?;
    let request = Request::post(uri)
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .body(Body::empty())?;
    let calling = async { Ok(stub(stream).await?.call(request).await?) };
    tokio::time::timeout(PATIENCE, calling)
        .await
        .context("neither an answer nor an end")?
}

/// Promise 26.
async fn no_rpc_is_reached_without_the_secret(target: &Target) -> Outcome {
    let guarded = Guarded::of(target).await?;
    let target = guarded.target();
    for path in rpcs()? {
        // As any gRPC client begins.
        let plain = call(connect(target).await?, &path).await;
        ensure!(plain.is_err(), "{path} was answered without a hello");
        // With a hello, then as if it had been taken.
        for hello in openings()? {
            let mut peer = connect(target).await?;
            peer.write_all(hello.as_bytes()).await?;
            line(&mut peer).await?;
            let forced = call(peer, &path).await;
            ensure!(forced.is_err(), "{path} was answered behind {hello:?}");
        }
    }
    Ok(())
}

/// Hellos without a proof: none begun, none shown, a wrong one.
fn openings() -> anyhow::Result<[String; 3]> {
    let user = Username::root();
    let none = Hello {
        user: user.clone(),
        nonce: None,
    }
    .to_line();
    let begun = Hello {
        user,
        nonce: Some(Nonce::random()?),
    }
    .to_line();
    let wrong = format!("{begun}answer proof={}\n", "0".repeat(64));
    Ok([none, begun, wrong])
}

/// What the case before this rests on: the same calls are answered where there is a proof. Without a message none does
/// anything.
async fn every_rpc_is_reached_with_it(target: &Target) -> Outcome {
    let guarded = Guarded::of(target).await?;
    for path in rpcs()? {
        let stream = greeted(guarded.target(), "root", b"").await?;
        let answer = call(stream, &path).await.with_context(|| path.clone())?;
        ensure!(answer.status() == 200, "{path}: {}", answer.status());
    }
    Ok(())
}

async fn a_wrong_secret_is_refused_as_such(target: &Target) -> Outcome {
    let guarded = Guarded::of(target).await?;
    let none = Vm::new(guarded.target().endpoint().clone());
    let other = none.secret(Secret::random()?);
    for vm in [none, other] {
        match refusal("stat", vm.files().stat("/").await)? {
            Error::Refused {
                reason: Some(RefusalReason::Unauthenticated),
                ..
            } => {}
            error => return Err(error.into()),
        }
    }
    guarded.target().user("alice").files().stat("/").await?;
    Ok(())
}

async fn who_has_not_shown_the_secret_learns_nothing_about_users(target: &Target) -> Outcome {
    let guarded = Guarded::of(target).await?;
    let target = guarded.target();
    // The same words for a user who is there, one who is not, and one whom no shell lets in.
    let mut heard = Vec::new();
    for name in ["root", "alice", "mallory", "nobody"] {
        let user = Username::try_from(name)?;
        let none = Hello {
            user: user.clone(),
            nonce: None,
        }
        .to_line();
        let mut peer = connect(target).await?;
        peer.write_all(none.as_bytes()).await?;
        let unbegun = said(&mut peer).await?;

        let (mut exchange, hello) = HostExchange::begin(user, Secret::random()?, Nonce::random()?);
        let mut peer = connect(target).await?;
        peer.write_all(hello.as_bytes()).await?;
        let challenge = line(&mut peer).await?;
        peer.write_all(exchange.answer(challenge.as_bytes())?.as_bytes())
            .await?;
        let unproven = said(&mut peer).await?;
        let nonce = challenge.rsplit_once('=').context("no nonce")?.0.to_owned();
        heard.push((unbegun, nonce, unproven));
    }
    ensure!(heard.iter().all(|words| *words == heard[0]), "{heard:?}");
    let text = String::from_utf8_lossy(&heard[0].2);
    ensure!(text.starts_with("error unauthenticated "), "{text}");
    Ok(())
}

async fn a_recorded_conversation_is_of_no_use_later(target: &Target) -> Outcome {
    let guarded = Guarded::of(target).await?;
    let target = guarded.target();
    let secret = target.secret().context("guarded")?.clone();
    let (mut exchange, hello) = HostExchange::begin(Username::root(), secret, Nonce::random()?);
    let mut peer = connect(target).await?;
    peer.write_all(hello.as_bytes()).await?;
    let challenge = line(&mut peer).await?;
    let answer = exchange.answer(challenge.as_bytes())?;
    peer.write_all(answer.as_bytes()).await?;
    // It was good when it was recorded.
    exchange.check(line(&mut peer).await?.as_bytes())?;
    for glued in [true, false] {
        let mut replay = connect(target).await?;
        replay.write_all(hello.as_bytes()).await?;
        if !glued {
            ensure!(
                line(&mut replay).await? != challenge,
                "the same challenge twice"
            );
        }
        replay.write_all(answer.as_bytes()).await?;
        let heard = said(&mut replay).await?;
        let text = String::from_utf8_lossy(&heard);
        ensure!(
            text.contains("error unauthenticated the proof is wrong"),
            "{text}"
        );
    }
    Ok(())
}

async fn somebody_between_cannot_make_another_user_of_it(target: &Target) -> Outcome {
    let guarded = Guarded::of(target).await?;
    let target = guarded.target();
    let secret = target.secret().context("guarded")?.clone();
    // The host says alice. Each line goes through somebody who would rather be root, or have no proof asked for.
    for (from, to) in [("user=alice", "user=root"), ("user=", "user=root user=")] {
        let user = Username::try_from("alice")?;
        let (mut exchange, hello) = HostExchange::begin(user, secret.clone(), Nonce::random()?);
        let mut peer = connect(target).await?;
        peer.write_all(hello.replace(from, to).as_bytes()).await?;
        let answer = exchange.answer(line(&mut peer).await?.as_bytes())?;
        peer.write_all(answer.as_bytes()).await?;
        let text = line(&mut peer).await?;
        ensure!(text.starts_with("error unauthenticated "), "{text}");
    }
    // A downgrade: the nonce is left out on its way.
    let (_, hello) = HostExchange::begin(Username::root(), secret, Nonce::random()?);
    let (plain, _) = hello.split_once(" nonce=").context("no nonce")?;
    let mut peer = connect(target).await?;
    peer.write_all(format!("{plain}\n").as_bytes()).await?;
    let text = line(&mut peer).await?;
    ensure!(text.starts_with("error unauthenticated "), "{text}");
    Ok(())
}

async fn a_slow_or_endless_answer_is_closed_within_its_bounds(target: &Target) -> Outcome {
    let guarded = Guarded::of(target).await?;
    let user = Username::root();
    let hello = Hello {
        user,
        nonce: Some(Nonce::random()?),
    }
    .to_line();
    for answer in ["answer pro".to_owned(), "x".repeat(1 << 20)] {
        let mut peer = connect(guarded.target()).await?;
        peer.write_all(hello.as_bytes()).await?;
        line(&mut peer).await?;
        // It closes when it knows, which may be before all is sent.
        let _ = peer.write_all(answer.as_bytes()).await;
        let heard = said(&mut peer).await?;
        let text = String::from_utf8_lossy(&heard);
        ensure!(text.starts_with("error bad-hello "), "{text}");
    }
    Ok(())
}
