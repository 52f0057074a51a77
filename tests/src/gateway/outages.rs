//! Ends, restarts, and a database that goes away.

use anyhow::{Context, ensure};
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{World, text};
use crate::{
    eventually::{PATIENCE, eventually},
    gateway_cases,
    runner::Outcome,
};

gateway_cases![
    what_is_under_way_may_finish_after_sigterm,
    a_restarted_gateway_knows_what_it_knew,
    it_serves_https_with_a_certificate,
    who_asks_too_often_is_told_to_slow_down,
    admin_keys_are_made_and_revoked_beside_a_running_gateway,
    whom_a_proxy_names_is_believed_only_behind_one,
];

async fn what_is_under_way_may_finish_after_sigterm(world: &mut World) -> Outcome {
    let gateway = world.gateway().await?;
    let (vm, token) = world.granted(&gateway, Value::Null).await?;
    let alice = token.user("alice");
    let call = tokio::spawn({
        let (alice, vm) = (alice.clone(), vm.clone());
        async move {
            alice
                .exec(&vm, "touch started; sleep 2; echo done")
                .await?
                .ok()
        }
    });
    eventually("the command runs", PATIENCE, async || {
        Ok(alice.exec(&vm, "test -e started").await?.ok()?["statusCode"] == 0)
    })
    .await?;
    gateway.terminate().await?;
    ensure!(call.await??["stdout"] == "done\n");
    gateway.ended().await?;
    ensure!(alice.get("/health").await.is_err(), "it still answers");
    Ok(())
}

async fn a_restarted_gateway_knows_what_it_knew(world: &mut World) -> Outcome {
    let gateway = world.gateway().await?;
    let (vm, token) = world.granted(&gateway, json!(["alice"])).await?;
    let folder = gateway.folder().to_owned();
    let key = gateway.key().context("no key")?.to_owned();
    gateway.crash().await?;
    let again = world.gateway_in(&folder, &[]).await?;
    ensure!(again.key().is_none(), "a second key was made");
    let alice = again.caller(token.secret())?.user("alice");
    ensure!(alice.exec(&vm, "id -un").await?.ok()?["stdout"] == "alice\n");
    ensure!(again.caller(&key)?.get("/v1/vms").await?.ok()?["totalCount"] == 1);
    Ok(())
}

async fn it_serves_https_with_a_certificate(world: &mut World) -> Outcome {
    let folder = tempfile::tempdir()?;
    let (certificate, key) = (
        folder.path().join("cert.pem"),
        folder.path().join("key.pem"),
    );
    let made = tokio::process::Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
        ])
        .args([
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
        ])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .await
        .context("cannot run openssl")?;
    ensure!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    let certificate_text = certificate.display().to_string();
    let key_text = key.display().to_string();
    let gateway = world
        .gateway_with(&[
            "--tls-certificate",
            &certificate_text,
            "--tls-key",
            &key_text,
        ])
        .await?;
    let trusted = reqwest::Certificate::from_pem(&std::fs::read(&certificate)?)?;
    let http = reqwest::Client::builder()
        .tls_certs_only([trusted])
        .build()?;
    let url = gateway.url().replace("http://", "https://");
    let answer = http
        .get(format!("{url}/v1/vms"))
        .bearer_auth(gateway.key().context("no key")?)
        .send()
        .await?;
    ensure!(answer.status() == StatusCode::OK, "{}", answer.status());
    ensure!(
        reqwest::Client::new()
            .get(format!("{}/health", gateway.url()))
            .send()
            .await
            .is_err(),
        "plain HTTP"
    );
    Ok(())
}

/// For who has the database and lost the key, or changes it from time to time.
async fn admin_keys_are_made_and_revoked_beside_a_running_gateway(world: &mut World) -> Outcome {
    let gateway = world.gateway().await?;
    let first = gateway.admin()?;
    let old = world.command(&gateway, &["key", "list"]).await?;
    let secret = world.command(&gateway, &["key", "create"]).await?;
    let second = gateway.caller(&secret)?;
    second.get("/v1/vms").await?.ok()?;
    let both = world.command(&gateway, &["key", "list"]).await?;
    ensure!(
        both.lines().count() == 2 && both.lines().any(|id| id == old),
        "{both}, and {old} before"
    );
    ensure!(!both.contains(&secret), "the secret is shown again");
    world.command(&gateway, &["key", "revoke", &old]).await?;
    let refused = first.get("/v1/vms").await?;
    ensure!(
        refused.failure() == (401, "UNAUTHORIZED_ERROR"),
        "{refused:?}"
    );
    second.get("/v1/vms").await?.ok()?;
    let again = world.command(&gateway, &["key", "revoke", &old]).await;
    ensure!(
        format!("{again:?}").contains(&format!("there is no admin key {old}")),
        "{again:?}"
    );
    Ok(())
}

/// A client could write into the header what it likes: only a proxy's word counts, and its last one.
async fn whom_a_proxy_names_is_believed_only_behind_one(world: &mut World) -> Outcome {
    let first = world.gateway().await?;
    let (vm, token) = world.granted(&first, Value::Null).await?;
    let (folder, key) = (first.folder().to_owned(), first.admin()?);
    first.crash().await?;
    let mut expected = Vec::new();
    for (arguments, peer) in [
        (&[][..], "127.0.0.1"),
        (&["--behind-proxy"][..], "198.51.100.7"),
    ] {
        let gateway = world.gateway_in(&folder, arguments).await?;
        let answer = reqwest::Client::new()
            .post(format!("{}/v1/vms/{vm}/exec-await", gateway.url()))
            .bearer_auth(token.secret())
            .header("x-forwarded-for", "203.0.113.9, 198.51.100.7")
            .json(&json!({"command": "true", "terminal": null}))
            .send()
            .await?;
        ensure!(answer.status() == StatusCode::OK, "{}", answer.status());
        expected.extend([peer, peer]);
        let admin = gateway.caller(key.secret())?;
        let mut peers = Vec::new();
        let logged = eventually("start and end are in the log", PATIENCE, async || {
            let events = admin.get(&format!("/v1/audit?vm={vm}")).await?.ok()?;
            let events = events["events"].as_array().context("no events")?;
            let texts = events.iter().map(|event| Ok(text(event, "peer")?.into()));
            peers = texts.collect::<anyhow::Result<Vec<String>>>()?;
            Ok(peers.len() == expected.len())
        });
        logged.await?;
        // The newest first.
        peers.reverse();
        ensure!(peers == expected, "{peers:?}");
        gateway.crash().await?;
    }
    Ok(())
}

async fn who_asks_too_often_is_told_to_slow_down(world: &mut World) -> Outcome {
    let gateway = world.gateway_with(&["--rate-per-token=5"]).await?;
    let admin = gateway.admin()?;
    let identity = admin.identity().await?;
    let (one, other) = (
        admin.token(&identity).await?.1,
        admin.token(&identity).await?.1,
    );
    // At once, so that a slow machine asks too often as well.
    let (mut asked, mut refused) = (0, 0);
    while refused < 5 {
        ensure!(asked < 1000, "{refused} of {asked}");
        let requests = (0..20).map(|_| one.get("/auth/v1/whoami"));
        for answer in futures_util::future::try_join_all(requests).await? {
            asked += 1;
            refused += usize::from(answer.failure() == (429, "LIMIT_EXCEEDED"));
        }
    }
    other.get("/auth/v1/whoami").await?.ok()?;
    admin.get("/v1/vms").await?.ok()?;
    Ok(())
}
