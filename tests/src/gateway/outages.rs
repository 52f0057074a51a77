//! Ends, restarts, and a database that goes away.

use anyhow::{Context, ensure};
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::World;
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
