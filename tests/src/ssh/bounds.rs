//! Who stalls, floods, guesses or talks nonsense: bounded, and nobody else's trouble.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{
    Scene,
    raw::{Raw, finish},
};
use crate::{
    eventually::{PATIENCE, eventually},
    gateway::World,
    gateway_cases,
    runner::Outcome,
    target::Target,
};

gateway_cases![
    a_client_that_stalls_before_its_login_is_dropped,
    junk_ends_its_own_connection_alone,
    a_name_of_64_kib_is_refused_as_any_other,
    a_source_and_a_token_have_so_many_connections,
    a_source_that_guesses_has_to_wait,
    a_flood_of_channels_is_bounded,
    a_connection_without_a_channel_ends,
    a_guest_that_dies_ends_its_sessions_and_no_gateway,
    old_algorithms_are_not_spoken,
];

/// Until the gateway closes it.
async fn drain(stream: &mut TcpStream) -> anyhow::Result<Vec<u8>> {
    let mut read = Vec::new();
    let end = timeout(PATIENCE, stream.read_to_end(&mut read)).await;
    // A reset is an end too.
    let _ = end.context("the gateway did not close it")?;
    Ok(read)
}

/// A connection that has a place: that of one which was just refused may be free a moment later.
async fn admitted(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let end = Instant::now() + PATIENCE;
    loop {
        let mut stream = TcpStream::connect(address).await?;
        let mut begin = [0; 8];
        if stream.read_exact(&mut begin).await.is_ok() && begin == *b"SSH-2.0-" {
            return Ok(stream);
        }
        ensure!(Instant::now() < end, "no place becomes free");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn a_client_that_stalls_before_its_login_is_dropped(world: &mut World) -> Outcome {
    let scene = Scene::with(world, Value::Null, &["--ssh-login-timeout", "6"]).await?;
    let address = scene.gateway.ssh()?;
    let mut silent = TcpStream::connect(address).await?;
    let mut greeted = TcpStream::connect(address).await?;
    greeted.write_all(b"SSH-2.0-test\r\n").await?;
    let mut begun = TcpStream::connect(address).await?;
    // A packet's length, and never the packet.
    begun.write_all(b"SSH-2.0-test\r\n\0\0\x04\0\x10").await?;
    let unnamed = Raw::connect(address).await?;
    ensure!(scene.ssh("alice", "echo hi").await?.ok()? == "hi\n");
    for stream in [&mut silent, &mut greeted, &mut begun] {
        ensure!(drain(stream).await?.starts_with(b"SSH-2.0-Guestline"));
    }
    let end = Instant::now() + PATIENCE;
    while !unnamed.0.is_closed() && Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    ensure!(unnamed.0.is_closed());
    Ok(())
}

async fn junk_ends_its_own_connection_alone(world: &mut World) -> Outcome {
    let scene = Scene::new(world, Value::Null).await?;
    let address = scene.gateway.ssh()?;
    let raw = Raw::log_in(address, &scene.name("alice")).await?;
    let junk: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\n\r\n",
        b"SSH-1.5-old\r\n",
        b"SSH-2.0-x\r\n\xff\xff\xff\xff\xff\xff\xff\xff",
        b"SSH-2.0-x\r\n\0\0\0\x0c\x0a\x14aaaaaaaaaa",
        b"\0\0\0\0\0\0\0\0\0\0\0\0",
        b"\xff",
    ];
    for bytes in junk {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(bytes).await?;
        stream.shutdown().await?;
        drain(&mut stream).await?;
    }
    let mut long = TcpStream::connect(address).await?;
    let _ = long.write_all(&[b'a'; 100_000]).await;
    let _ = long.shutdown().await;
    drain(&mut long).await?;
    let channel = raw.session().await?;
    channel.exec(true, "echo hi").await?;
    ensure!(finish(channel).await.stdout == "hi\n");
    Ok(())
}

async fn a_name_of_64_kib_is_refused_as_any_other(world: &mut World) -> Outcome {
    let scene = Scene::new(world, Value::Null).await?;
    let address = scene.gateway.ssh()?;
    for name in [
        "x".repeat(64 * 1024),
        format!("{}:{}", scene.vm, "y".repeat(64 * 1024)),
    ] {
        let mut raw = Raw::connect(address).await?;
        let answer = raw.0.authenticate_password(name.as_str(), "x").await?;
        ensure!(!answer.success());
        let again = raw
            .0
            .authenticate_password(scene.vm.as_str(), scene.token.secret())
            .await?;
        ensure!(again.success(), "the connection is of no use any more");
    }
    Ok(())
}

async fn a_source_and_a_token_have_so_many_connections(world: &mut World) -> Outcome {
    let scene = Scene::with(
        world,
        Value::Null,
        &["--ssh-per-source", "3", "--ssh-per-token", "2"],
    )
    .await?;
    let (address, name) = (scene.gateway.ssh()?, scene.name("alice"));
    let first = Raw::log_in(address, &name).await?;
    let _second = Raw::log_in(address, &name).await?;
    ensure!(
        Raw::log_in(address, &name).await.is_err(),
        "a third with one token"
    );
    let _waiting = admitted(address).await?;
    let mut refused = TcpStream::connect(address).await?;
    let told = drain(&mut refused).await?;
    let told = String::from_utf8_lossy(&told).into_owned();
    ensure!(
        told.contains("too many connections from this address"),
        "{told:?}"
    );
    drop(first);
    eventually("there is room", PATIENCE, async || {
        Ok(Raw::log_in(address, &name).await.is_ok())
    })
    .await
}

async fn a_source_that_guesses_has_to_wait(world: &mut World) -> Outcome {
    let scene = Scene::with(world, Value::Null, &["--ssh-penalty", "600"]).await?;
    let address = scene.gateway.ssh()?;
    let earlier = Raw::log_in(address, &scene.name("alice")).await?;
    for _ in 0..5 {
        let mut raw = Raw::connect(address).await?;
        let answer = raw
            .0
            .authenticate_password(scene.vm.as_str(), "a guess")
            .await?;
        ensure!(!answer.success());
        drop(raw);
    }
    eventually("it has to wait", PATIENCE, async || {
        let mut stream = TcpStream::connect(address).await?;
        let mut start = [0; 10];
        stream.read_exact(&mut start).await?;
        Ok(start == *b"guestline:")
    })
    .await?;
    let channel = earlier.session().await?;
    channel.exec(true, "echo hi").await?;
    ensure!(finish(channel).await.stdout == "hi\n", "who is in stays in");
    Ok(())
}

async fn a_flood_of_channels_is_bounded(world: &mut World) -> Outcome {
    let scene = Scene::new(world, Value::Null).await?;
    let raw = Raw::log_in(scene.gateway.ssh()?, &scene.name("alice")).await?;
    let mut open = Vec::new();
    let refused = loop {
        match raw.session().await {
            Ok(channel) => open.push(channel),
            Err(error) => break error,
        }
        ensure!(open.len() <= 1000, "no end of channels");
    };
    ensure!(open.len() == 128, "{}: {refused:#}", open.len());
    let last = open.pop().context("a channel")?;
    last.exec(true, "echo hi").await?;
    ensure!(finish(last).await.stdout == "hi\n");
    drop(open);
    // Forwards that nobody listens for leave nothing either.
    for _ in 0..300 {
        let forward = raw
            .0
            .channel_open_direct_tcpip("127.0.0.1", 1, "127.0.0.1", 1);
        ensure!(forward.await.is_err());
    }
    let channel = Raw::log_in(scene.gateway.ssh()?, &scene.name("alice")).await?;
    let channel = channel.session().await?;
    channel.exec(true, "echo hi").await?;
    ensure!(finish(channel).await.stdout == "hi\n");
    Ok(())
}

async fn a_connection_without_a_channel_ends(world: &mut World) -> Outcome {
    let scene = Scene::with(world, Value::Null, &["--ssh-idle-timeout", "4"]).await?;
    let raw = Raw::log_in(scene.gateway.ssh()?, &scene.name("alice")).await?;
    let channel = raw.session().await?;
    channel.exec(true, "sleep 8; echo hi").await?;
    ensure!(finish(channel).await.stdout == "hi\n", "a channel keeps it");
    let end = Instant::now() + PATIENCE;
    while !raw.0.is_closed() && Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    ensure!(raw.0.is_closed());
    Ok(())
}

async fn a_guest_that_dies_ends_its_sessions_and_no_gateway(world: &mut World) -> Outcome {
    let scene = Scene::new(world, json!(["alice"])).await?;
    let raw = Raw::log_in(scene.gateway.ssh()?, &scene.name("alice")).await?;
    let mut channel = raw.session().await?;
    channel.exec(true, "echo up; sleep 1000").await?;
    super::raw::read_until(&mut channel, "up").await?;
    let endpoint = world.agent.endpoint().clone();
    drop(std::mem::replace(
        &mut world.agent,
        Target::machine("gone", endpoint, None)?,
    ));
    let finished = timeout(PATIENCE, finish(channel)).await;
    let finished = finished.context("the session did not end")?;
    ensure!(finished.code == Some(255), "{finished:?}");
    let next = scene.ssh("alice", "true").await?;
    ensure!(
        next.code == Some(255) && next.stderr.contains("no agent answers"),
        "{next:?}"
    );
    ensure!(
        !next.stderr.contains("/var/tmp"),
        "it tells where the socket is: {next:?}"
    );
    scene.admin.get("/auth/v1/whoami").await?.ok()?;
    Ok(())
}

async fn old_algorithms_are_not_spoken(world: &mut World) -> Outcome {
    let scene = Scene::new(world, Value::Null).await?;
    let name = scene.name("alice");
    for option in [
        "KexAlgorithms=diffie-hellman-group14-sha1",
        "KexAlgorithms=diffie-hellman-group14-sha256",
        "KexAlgorithms=ecdh-sha2-nistp256",
        "Ciphers=aes128-cbc",
        "Ciphers=3des-cbc",
        "HostKeyAlgorithms=ssh-rsa",
    ] {
        let refused = scene
            .clients
            .ssh_with(&["-o", option], &name, &["true"])
            .await?;
        ensure!(refused.code == Some(255), "{option}: {refused:?}");
    }
    for option in [
        "KexAlgorithms=curve25519-sha256",
        "Ciphers=chacha20-poly1305@openssh.com",
        "Ciphers=aes128-gcm@openssh.com",
        "Ciphers=aes256-ctr",
    ] {
        scene
            .clients
            .ssh_with(&["-o", option], &name, &["true"])
            .await?
            .ok()?;
    }
    Ok(())
}
