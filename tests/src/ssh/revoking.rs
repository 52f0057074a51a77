//! What is revoked ends within 5 s: running commands, transfers, streams, and connections that wait for more.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use serde_json::json;
use tokio::process::Child;

use super::{
    Scene,
    client::{Ended, started},
};
use crate::{
    eventually::{PATIENCE, eventually},
    gateway::World,
    gateway_cases,
    runner::Outcome,
};

gateway_cases![
    a_revoked_token_cuts_its_connections: [35],
    a_revoked_token_cuts_an_idle_control_master: [35],
    a_revoked_token_cuts_a_transfer_and_a_stream: [35],
    a_deleted_identity_cuts_its_connections: [35],
    a_narrowed_grant_cuts_whoever_it_no_longer_reaches: [35],
    a_removed_key_cuts_what_it_opened: [35],
    a_gateway_that_ends_lets_a_command_finish_and_takes_no_new_one,
];

/// The requirement.
const CUT_LIMIT: Duration = Duration::from_secs(5);

/// A command that would take an hour, which runs for sure.
pub(super) async fn running(scene: &Scene, options: &[&str], name: &str) -> anyhow::Result<Child> {
    let mut ssh = scene.clients.command("ssh");
    ssh.args(options)
        .args([&format!("{name}@gateway"), "echo up; exec sleep 3600.75"]);
    ssh.stderr(Stdio::piped());
    started(ssh).await
}

/// How a client ended whose access went away at `since`.
pub(super) async fn cut(client: Child, since: Instant) -> anyhow::Result<Ended> {
    let output = tokio::time::timeout(CUT_LIMIT, client.wait_with_output()).await;
    let ended = Ended::from(output.context("it was not cut in time")??);
    ensure!(since.elapsed() <= CUT_LIMIT && ended.code != Some(0));
    Ok(ended)
}

async fn must_be_cut(scene: &Scene, client: Child, since: Instant, name: &str) -> Outcome {
    let ended = cut(client, since).await?;
    ensure!(
        ended.code == Some(255) && ended.stderr.contains("access was revoked"),
        "{ended:?}"
    );
    ensure!(scene.clients.ssh(name, &["true"]).await?.code == Some(255));
    // As an admin, who may look.
    let admin = scene.gateway.key().context("the admin key")?;
    let admin = format!("{}:{admin}", scene.vm);
    eventually("nothing of it runs", PATIENCE, async || {
        let line = ["pgrep -f '^sleep 3600.75'"];
        Ok(scene.clients.ssh(&admin, &line).await?.code == Some(1))
    })
    .await
}

async fn a_revoked_token_cuts_its_connections(world: &mut World) -> Outcome {
    let scene = Scene::new(world, json!(["alice"])).await?;
    let name = scene.name("alice");
    let client = running(&scene, &[], &name).await?;
    let since = Instant::now();
    scene.revoke().await?;
    must_be_cut(&scene, client, since, &name).await
}

async fn a_revoked_token_cuts_an_idle_control_master(world: &mut World) -> Outcome {
    let scene = Scene::new(world, json!(["alice"])).await?;
    let name = scene.name("alice");
    let options = ["-o", "ControlMaster=auto", "-o", "ControlPersist=600"];
    let (clients, line) = (&scene.clients, ["true"]);
    clients.ssh_with(&options, &name, &line).await?.ok()?;
    let lives = async || -> anyhow::Result<bool> {
        let answer = clients.ssh_with(&["-O", "check"], &name, &[]).await?;
        Ok(answer.code == Some(0))
    };
    ensure!(lives().await?, "there is no master to be cut");
    scene.revoke().await?;
    eventually(
        "the master is gone",
        CUT_LIMIT,
        async || Ok(!lives().await?),
    )
    .await?;
    let again = clients.ssh_with(&options, &name, &line).await?;
    ensure!(again.code == Some(255), "{again:?}");
    Ok(())
}

async fn a_revoked_token_cuts_a_transfer_and_a_stream(world: &mut World) -> Outcome {
    let scene = Scene::new(world, json!(["alice"])).await?;
    scene.ssh("alice", "truncate -s 10G large").await?.ok()?;
    let back = scene.clients.folder().join("back");
    let mut scp = scene.clients.command("scp");
    // In KBit/s: a transfer that would take hours.
    scp.args(["-l", "8000", "-o", &format!("User={}", scene.name("alice"))])
        .arg("gateway:large")
        .arg(&back);
    let scp = scp.stderr(Stdio::piped()).spawn()?;
    let server = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let mut ssh = scene.clients.command("ssh");
    ssh.args(["-W", &format!("localhost:{}", server.local_addr()?.port())])
        .arg(format!("{}@gateway", scene.name("alice")))
        .stdin(Stdio::piped())
        .stderr(Stdio::piped());
    let stream = ssh.spawn()?;
    let (_accepted, _) = server.accept().await?;
    eventually("the transfer runs", PATIENCE, async || {
        Ok(std::fs::metadata(&back).is_ok_and(|file| file.len() > 0))
    })
    .await?;
    let since = Instant::now();
    scene.revoke().await?;
    let (scp, stream) = tokio::try_join!(cut(scp, since), cut(stream, since))?;
    for ended in [scp, stream] {
        ensure!(ended.stderr.contains("access was revoked"), "{ended:?}");
    }
    Ok(())
}

async fn a_deleted_identity_cuts_its_connections(world: &mut World) -> Outcome {
    let scene = Scene::new(world, json!(["alice"])).await?;
    let name = scene.name("alice");
    let client = running(&scene, &[], &name).await?;
    let since = Instant::now();
    scene.admin.delete(&scene.identity_path()).await?.ok()?;
    must_be_cut(&scene, client, since, &name).await
}

async fn a_narrowed_grant_cuts_whoever_it_no_longer_reaches(world: &mut World) -> Outcome {
    let scene = Scene::new(world, json!(["alice", "bob"])).await?;
    let alice = running(&scene, &[], &scene.name("alice")).await?;
    let mut bob = running(&scene, &[], &scene.name("bob")).await?;
    let since = Instant::now();
    scene.regrant(json!(["bob"])).await?;
    ensure!(cut(alice, since).await?.code == Some(255));
    ensure!(bob.try_wait()?.is_none(), "bob may stay");
    Ok(())
}

async fn a_removed_key_cuts_what_it_opened(world: &mut World) -> Outcome {
    let scene = Scene::new(world, json!(["alice"])).await?;
    let key = scene.clients.key("ed25519").await?;
    let id = scene.register_key(&key).await?;
    let shown = key.to_string_lossy().into_owned();
    let name = format!("{}+alice", scene.vm);
    let client = running(&scene, &["-i", &shown], &name).await?;
    let since = Instant::now();
    let path = format!("{}/ssh-keys/{id}", scene.identity_path());
    scene.admin.delete(&path).await?.ok()?;
    must_be_cut(&scene, client, since, &name).await
}

async fn a_gateway_that_ends_lets_a_command_finish_and_takes_no_new_one(
    world: &mut World,
) -> Outcome {
    let scene = Scene::new(world, json!(["alice"])).await?;
    let mut ssh = scene.clients.command("ssh");
    ssh.arg(format!("{}@gateway", scene.name("alice")))
        .arg("echo up; sleep 2; echo done");
    let client = started(ssh).await?;
    scene.gateway.terminate().await?;
    let output = client.wait_with_output().await?;
    ensure!(
        output.status.success() && output.stdout == b"done\n",
        "{output:?}"
    );
    let log = scene.gateway.folder().join("audit.jsonl");
    scene.gateway.ended().await?;
    let log = std::fs::read_to_string(log)?;
    let count = |phase: &str| log.matches(&format!("\"phase\":\"{phase}\"")).count();
    ensure!(
        count("start") > 0 && count("start") == count("end"),
        "{log}"
    );
    Ok(())
}
