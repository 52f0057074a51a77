//! Streams to what listens in the guest, and what is refused.

use std::{net::SocketAddr, process::Stdio, time::Duration};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    process::{Child, ChildStdin, ChildStdout},
    time::timeout,
};

use super::{Scene, client::ended};
use crate::{eventually::eventually, gateway::World, gateway_cases, runner::Outcome};

gateway_cases![
    a_local_port_leads_to_a_server_in_the_guest,
    a_server_that_ends_first_still_hears_its_client,
    standard_streams_lead_to_a_server_and_either_side_ends_first,
    one_goes_through_a_vm_to_another,
    what_cannot_be_had_is_refused_in_plain_words,
];

/// For what is a matter of milliseconds, on a busy machine.
const END_LIMIT: Duration = Duration::from_secs(60);

/// What listens in the guest: the local agent has the network of the tests. Answers with what it read, backwards.
async fn server() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut read = Vec::new();
                stream.read_to_end(&mut read).await?;
                read.reverse();
                stream.write_all(&read).await?;
                stream.shutdown().await
            });
        }
    });
    Ok(address)
}

pub(super) fn free_port() -> anyhow::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?
        .local_addr()?
        .port())
}

/// A tunnel's end here.
pub(super) async fn is_open(port: u16) -> anyhow::Result<()> {
    eventually("the port is open", END_LIMIT, async || {
        Ok(TcpStream::connect(("127.0.0.1", port)).await.is_ok())
    })
    .await
}

async fn a_local_port_leads_to_a_server_in_the_guest(world: &mut World) -> Outcome {
    let scene = Scene::new(world, json!(["alice"])).await?;
    let (server, local) = (server().await?, free_port()?);
    let socket = scene.clients.folder().join("socket");
    let mut ssh = scene.clients.command("ssh");
    ssh.args(["-N", "-L", &format!("{local}:localhost:{}", server.port())])
        .args([
            "-L",
            &format!("{}:127.0.0.1:{}", socket.display(), server.port()),
        ])
        .arg(format!("{}@gateway", scene.name("alice")));
    let mut tunnel = ssh.spawn()?;
    let mut kept = None;
    is_open(local).await?;
    for number in 0..20 {
        let mut stream = TcpStream::connect(("127.0.0.1", local)).await?;
        let sent = format!("{number}abc").repeat(50_000);
        stream.write_all(sent.as_bytes()).await?;
        stream.shutdown().await?;
        let mut back = String::new();
        stream.read_to_string(&mut back).await?;
        ensure!(
            back == sent.chars().rev().collect::<String>(),
            "{} bytes",
            back.len()
        );
        kept = Some(stream);
    }
    drop(kept);
    let mut stream = tokio::net::UnixStream::connect(&socket).await?;
    stream.write_all(b"abc").await?;
    stream.shutdown().await?;
    let mut back = String::new();
    stream.read_to_string(&mut back).await?;
    ensure!(back == "cba");
    tunnel.kill().await?;
    Ok(())
}

async fn a_server_that_ends_first_still_hears_its_client(world: &mut World) -> Outcome {
    let scene = Scene::new(world, json!(["alice"])).await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let (local, there) = (free_port()?, listener.local_addr()?.port());
    let mut ssh = scene.clients.command("ssh");
    ssh.args(["-N", "-L", &format!("{local}:localhost:{there}")])
        .arg(format!("{}@gateway", scene.name("alice")));
    let _tunnel = ssh.spawn()?;
    is_open(local).await?;
    // The one that only looked.
    drop(timeout(END_LIMIT, listener.accept()).await??);
    let mut client = TcpStream::connect(("127.0.0.1", local)).await?;
    let (mut server, _) = timeout(END_LIMIT, listener.accept()).await??;
    server.write_all(b"first").await?;
    server.shutdown().await?;
    let (mut told, mut heard) = (String::new(), String::new());
    let ends = async {
        client.read_to_string(&mut told).await?;
        client.write_all(b"and still heard").await?;
        client.shutdown().await?;
        server.read_to_string(&mut heard).await
    };
    let ended = timeout(END_LIMIT, ends).await;
    ended.context("an end did not arrive")??;
    ensure!(told == "first" && heard == "and still heard");
    Ok(())
}

/// `ssh -W` to a port, with stdin and stdout to be used.
fn piped(scene: &Scene, port: u16) -> anyhow::Result<(Child, ChildStdin, ChildStdout)> {
    let mut ssh = scene.clients.command("ssh");
    ssh.args(["-W", &format!("localhost:{port}")])
        .arg(format!("{}@gateway", scene.name("alice")))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = ssh.spawn()?;
    let stdin = child.stdin.take().context("stdin")?;
    let stdout = child.stdout.take().context("stdout")?;
    Ok((child, stdin, stdout))
}

async fn must_end(mut child: Child) -> Outcome {
    let ended = timeout(END_LIMIT, child.wait()).await;
    let status = ended.context("the client did not end")??;
    ensure!(status.success(), "{status}");
    Ok(())
}

async fn standard_streams_lead_to_a_server_and_either_side_ends_first(
    world: &mut World,
) -> Outcome {
    let scene = Scene::new(world, json!(["alice"])).await?;
    let sent = "abc".repeat(300_000);
    // The client's end comes first, and the whole answer after it.
    for sent in ["", &sent] {
        let (child, mut stdin, mut stdout) = piped(&scene, server().await?.port())?;
        let mut back = String::new();
        stdin.write_all(sent.as_bytes()).await?;
        drop(stdin);
        let read = timeout(END_LIMIT, stdout.read_to_string(&mut back)).await;
        read.context("the server's end did not arrive")??;
        ensure!(back == sent.chars().rev().collect::<String>());
        must_end(child).await?;
    }
    // The server's end comes first: that is the end of `-W`, whose stdin nobody has closed.
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let (child, _stdin, mut stdout) = piped(&scene, listener.local_addr()?.port())?;
    let (mut stream, _) = timeout(END_LIMIT, listener.accept()).await??;
    stream.write_all(b"first and last").await?;
    stream.shutdown().await?;
    let mut told = String::new();
    let read = timeout(END_LIMIT, stdout.read_to_string(&mut told)).await;
    read.context("the server's end did not arrive")??;
    ensure!(told == "first and last");
    must_end(child).await
}

async fn one_goes_through_a_vm_to_another(world: &mut World) -> Outcome {
    let scene = Scene::new(world, json!(["alice", "bob"])).await?;
    // A `:` in a jump host's name would be its port: the token is the password there, or a key. Here, a key.
    let key = scene.clients.key("ed25519").await?;
    scene.register_key(&key).await?;
    scene
        .clients
        .use_key(&key, &format!("{}+alice", scene.vm))?;
    let there = scene.gateway.ssh()?.port().to_string();
    let known = scene.clients.folder().join("known_hosts");
    // Often: what is lost now and then is lost here.
    for _ in 0..20 {
        let mut ssh = scene.clients.command("ssh");
        ssh.args(["-J", "gateway", "-p", &there])
            .args(["-o", &format!("UserKnownHostsFile={}", known.display())])
            .args([&format!("{}@127.0.0.1", scene.name("bob")), "id -un"]);
        let ended = timeout(END_LIMIT, ended(ssh)).await;
        ensure!(ended.context("the client did not end")??.ok()? == "bob\n");
    }
    Ok(())
}

async fn what_cannot_be_had_is_refused_in_plain_words(world: &mut World) -> Outcome {
    let scene = Scene::new(world, Value::Null).await?;
    let name = scene.name("alice");
    let listener = format!("{}:localhost:1", free_port()?);
    let remote = scene
        .clients
        .ssh_with(&["-R", &listener], &name, &["echo on"])
        .await?;
    ensure!(
        remote.stdout == "on\n" && remote.stderr.contains("-R is refused"),
        "{remote:?}"
    );
    let strict = ["-o", "ExitOnForwardFailure=yes", "-R", &listener];
    ensure!(
        scene
            .clients
            .ssh_with(&strict, &name, &["true"])
            .await?
            .code
            == Some(255)
    );
    // An agent that is there, and a display.
    let mut agent = tokio::process::Command::new("ssh-agent");
    let socket = scene.clients.folder().join("agent");
    agent
        .args(["-D", "-a"])
        .arg(&socket)
        .stdout(Stdio::null())
        .kill_on_drop(true);
    let _agent = agent.spawn()?;
    eventually("the agent runs", END_LIMIT, async || Ok(socket.exists())).await?;
    let mut ssh = scene.clients.command("ssh");
    ssh.env("SSH_AUTH_SOCK", &socket).args([
        "-A",
        "-tt",
        &format!("{name}@gateway"),
        "echo [$SSH_AUTH_SOCK]",
    ]);
    let refused = ended(ssh).await?;
    let told = format!("{}{}", refused.stdout, refused.stderr);
    ensure!(
        told.contains("agent forwarding is refused") && told.contains("[]"),
        "{refused:?}"
    );
    let mut ssh = scene.clients.command("ssh");
    ssh.env("DISPLAY", "127.0.0.1:0")
        .env("XAUTHORITY", "/dev/null");
    ssh.args(["-Y", "-tt", &format!("{name}@gateway"), "echo [$DISPLAY]"]);
    let refused = ended(ssh).await?;
    let told = format!("{}{}", refused.stdout, refused.stderr);
    ensure!(
        told.contains("X11 forwarding is refused") && told.contains("[]"),
        "{refused:?}"
    );
    Ok(())
}
