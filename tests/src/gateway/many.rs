//! What only PostgreSQL has: many gateways on one database, and a database that goes away.

use std::time::Duration;

use anyhow::{Context, ensure};
use reqwest::StatusCode;
use serde_json::Value;

use super::{Orchestrator, World, revoking, sleeping::registration, unlike};
use crate::{
    eventually::{PATIENCE, eventually},
    gateway_cases,
    runner::Outcome,
};

gateway_cases![
    revoking_at_one_gateway_cuts_at_another: [35],
    two_gateways_wake_a_machine_once: [38],
    a_database_that_goes_away_is_a_clear_error_and_may_come_back,
];

async fn revoking_at_one_gateway_cuts_at_another(world: &mut World) -> Outcome {
    let one = world.gateway().await?;
    let other = world.gateway().await?;
    ensure!(other.key().is_none(), "the second gateway made a key too");
    let running = revoking::running(world, one.admin()?, &other).await?;
    running.admin.delete(&running.grant_path()).await?.ok()?;
    running.must_be_cut(403).await
}

async fn two_gateways_wake_a_machine_once(world: &mut World) -> Outcome {
    let (one, other) = (world.gateway().await?, world.gateway().await?);
    let orchestrator = Orchestrator::start(200, "{}", Duration::from_millis(500)).await?;
    let admin = one.admin()?;
    let vm = admin
        .register(registration(world, &orchestrator, "stopped"))
        .await?;
    let there = other.caller(admin.secret())?;
    let requests = [admin, there].into_iter().cycle().take(20).map(|caller| {
        let vm = vm.clone();
        tokio::spawn(async move { caller.user("bob").exec(&vm, "true").await?.ok() })
    });
    for request in requests.collect::<Vec<_>>() {
        ensure!(request.await??["statusCode"] == 0);
    }
    ensure!(
        orchestrator.count("start") == 1,
        "{} wakes",
        orchestrator.count("start")
    );
    Ok(())
}

async fn a_database_that_goes_away_is_a_clear_error_and_may_come_back(
    world: &mut World,
) -> Outcome {
    let gateway = world.gateway().await?;
    let (vm, token) = world.granted(&gateway, Value::Null).await?;
    let alice = token.user("alice");
    let postgres = world.postgres.as_mut().context("no PostgreSQL")?;
    alice.exec(&vm, "true").await?.ok()?;
    postgres.crash()?;
    let answer = alice.exec(&vm, "true").await?;
    ensure!(answer.failure() == (503, "DATABASE_ERROR"), "{answer:?}");
    // What was never one of ours is refused without a look into the database.
    let typo = gateway.caller(&unlike(token.secret()))?;
    let answer = typo.user("alice").exec(&vm, "true").await?;
    ensure!(
        answer.failure() == (401, "UNAUTHORIZED_ERROR"),
        "{answer:?}"
    );
    ensure!(alice.get("/ready").await?.status == StatusCode::SERVICE_UNAVAILABLE);
    ensure!(alice.get("/health").await?.status == StatusCode::OK);
    postgres.restart()?;
    eventually("it serves again", PATIENCE, async || {
        Ok(alice.exec(&vm, "true").await?.status == StatusCode::OK)
    })
    .await?;
    ensure!(alice.get("/ready").await?.status == StatusCode::OK);
    // What happened while the database was away is in the log too.
    let admin = gateway.admin()?;
    eventually("the log is complete", PATIENCE, async || {
        let events = admin.get(&format!("/v1/audit?vm={vm}")).await?.ok()?;
        let count = |phase: &str| {
            events["events"].as_array().map_or(0, |all| {
                all.iter().filter(|event| event["phase"] == phase).count()
            })
        };
        Ok(count("start") >= 2 && count("start") == count("end"))
    })
    .await
}
