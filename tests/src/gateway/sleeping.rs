//! Sleeping machines: who may wakes them, once, and nobody else does.

use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{Orchestrator, World};
use crate::{
    eventually::{PATIENCE, eventually},
    gateway_cases,
    runner::Outcome,
};

gateway_cases![
    a_hundred_requests_are_one_wake_and_all_are_served: [38],
    what_is_refused_wakes_nothing: [37],
    a_wake_that_fails_is_a_typed_error_for_all_and_can_be_tried_again: [38],
    a_wake_that_takes_too_long_ends_by_its_deadline: [38],
    an_idle_machine_goes_to_sleep_and_one_in_use_does_not,
    a_machine_that_is_slow_to_sleep_holds_up_no_other,
    stop_suspend_start_and_await_do_what_they_say,
];

pub(super) fn registration(world: &World, orchestrator: &Orchestrator, state: &str) -> Value {
    let mut registration = world.registration();
    registration["state"] = json!(state);
    registration["hooks"] = json!({
        "start": orchestrator.url("start"),
        "stop": orchestrator.url("stop"),
        "suspend": orchestrator.url("suspend"),
        "delete": orchestrator.url("delete"),
    });
    registration
}

async fn a_hundred_requests_are_one_wake_and_all_are_served(world: &mut World) -> Outcome {
    let gateway = world.gateway().await?;
    let orchestrator = Orchestrator::start(200, "{}", Duration::from_millis(500)).await?;
    let admin = gateway.admin()?;
    let vm = admin
        .register(registration(world, &orchestrator, "suspended"))
        .await?;
    let identity = admin.identity().await?;
    admin.grant(&identity, &vm, json!(["alice"])).await?;
    let alice = admin.token(&identity).await?.1.user("alice");
    let requests = (0..100).map(|number| {
        let (alice, vm) = (alice.clone(), vm.clone());
        tokio::spawn(async move { alice.exec(&vm, &format!("echo {number}")).await?.ok() })
    });
    for (number, request) in requests.collect::<Vec<_>>().into_iter().enumerate() {
        let answer = request.await??;
        ensure!(answer["stdout"] == format!("{number}\n"), "{answer}");
    }
    ensure!(
        orchestrator.count("start") == 1,
        "{} wakes",
        orchestrator.count("start")
    );
    ensure!(admin.get(&format!("/v1/vms/{vm}")).await?.ok()?["state"] == "running");
    Ok(())
}

async fn what_is_refused_wakes_nothing(world: &mut World) -> Outcome {
    let gateway = world.gateway().await?;
    let orchestrator = Orchestrator::start(200, "{}", Duration::ZERO).await?;
    let admin = gateway.admin()?;
    let vm = admin
        .register(registration(world, &orchestrator, "stopped"))
        .await?;
    let (granted, stranger) = (admin.identity().await?, admin.identity().await?);
    admin.grant(&granted, &vm, json!(["alice"])).await?;
    let granted = admin.token(&granted).await?.1;
    let stranger = admin.token(&stranger).await?.1;
    for caller in [
        granted.user("bob"),
        granted.clone(),
        stranger.user("alice"),
        stranger,
    ] {
        ensure!(caller.exec(&vm, "id").await?.failure() == (403, "VM_ACCESS_DENIED"));
        ensure!(
            caller
                .get(&format!("/v1/vms/{vm}/files/%2F"))
                .await?
                .failure()
                == (403, "VM_ACCESS_DENIED")
        );
    }
    ensure!(
        granted
            .post(&format!("/v1/vms/{vm}/stop"), json!({}))
            .await?
            .failure()
            == (403, "FORBIDDEN")
    );
    ensure!(
        gateway.caller("gl_x")?.exec(&vm, "id").await?.failure() == (401, "UNAUTHORIZED_ERROR")
    );
    // Looking at it is no use of it.
    ensure!(granted.get(&format!("/v1/vms/{vm}")).await?.ok()?["state"] == "stopped");
    ensure!(orchestrator.count("start") == 0);
    granted.user("alice").exec(&vm, "id").await?.ok()?;
    ensure!(orchestrator.count("start") == 1);
    Ok(())
}

async fn a_wake_that_fails_is_a_typed_error_for_all_and_can_be_tried_again(
    world: &mut World,
) -> Outcome {
    let gateway = world.gateway().await?;
    let orchestrator = Orchestrator::start(503, "no room", Duration::from_secs(2)).await?;
    let admin = gateway.admin()?;
    let vm = admin
        .register(registration(world, &orchestrator, "suspended"))
        .await?;
    let requests = (0..10).map(|_| {
        let (admin, vm) = (admin.clone(), vm.clone());
        tokio::spawn(async move { admin.exec(&vm, "true").await })
    });
    for request in requests.collect::<Vec<_>>() {
        let answer = request.await??;
        ensure!(
            answer.failure() == (500, "VM_EXIT_DURING_START"),
            "{answer:?}"
        );
        ensure!(
            !answer.body.to_string().contains("127.0.0.1"),
            "the hook's address: {answer:?}"
        );
    }
    ensure!(orchestrator.count("start") < 10, "each tried by itself");
    ensure!(
        orchestrator.count("stop") >= 1,
        "what may have been started was not ended"
    );
    let state = admin.get(&format!("/v1/vms/{vm}")).await?.ok()?;
    ensure!(state["state"] == "suspended", "{state}");
    let before = orchestrator.count("start");
    admin.exec(&vm, "true").await?;
    ensure!(orchestrator.count("start") == before + 1);
    Ok(())
}

async fn a_wake_that_takes_too_long_ends_by_its_deadline(world: &mut World) -> Outcome {
    let gateway = world.gateway_with(&["--wake-timeout=1"]).await?;
    let orchestrator = Orchestrator::start(200, "{}", Duration::ZERO).await?;
    let admin = gateway.admin()?;
    let mut nobody_there = registration(world, &orchestrator, "stopped");
    nobody_there["endpoint"] = json!("unix:/nonexistent/agent.sock");
    let vm = admin.register(nobody_there).await?;
    // The limit is told too: how late on a busy machine is no matter.
    let answer = timeout(PATIENCE, admin.exec(&vm, "true")).await;
    let answer = answer.context("no end")??;
    ensure!(answer.failure() == (504, "VM_START_TIMEOUT"), "{answer:?}");
    ensure!(
        orchestrator.count("stop") == 1,
        "what was started was not ended"
    );
    ensure!(admin.get(&format!("/v1/vms/{vm}")).await?.ok()?["state"] == "stopped");
    Ok(())
}

async fn an_idle_machine_goes_to_sleep_and_one_in_use_does_not(world: &mut World) -> Outcome {
    let gateway = world.gateway().await?;
    let orchestrator = Orchestrator::start(200, "{}", Duration::ZERO).await?;
    let admin = gateway.admin()?.user("alice");
    let mut idle = registration(world, &orchestrator, "running");
    idle["idleTimeoutSeconds"] = json!(3);
    let vm = admin.register(idle).await?;
    let long = admin.exec(&vm, "sleep 8; echo done").await?.ok()?;
    ensure!(
        long["stdout"] == "done\n" && orchestrator.count("suspend") == 0,
        "{long}"
    );
    eventually("it sleeps", PATIENCE, async || {
        Ok(admin.get(&format!("/v1/vms/{vm}")).await?.ok()?["state"] == "suspended")
    })
    .await?;
    ensure!(orchestrator.count("suspend") == 1);
    admin.exec(&vm, "true").await?.ok()?;
    ensure!(orchestrator.count("start") == 1);
    Ok(())
}

async fn a_machine_that_is_slow_to_sleep_holds_up_no_other(world: &mut World) -> Outcome {
    // Longer than the case, and than the gateway waits.
    let slow = Orchestrator::start(200, "{}", Duration::from_secs(600)).await?;
    let quick = Orchestrator::start(200, "{}", Duration::ZERO).await?;
    let gateway = world.gateway().await?;
    let admin = gateway.admin()?;
    let mut vms = Vec::new();
    for orchestrator in [&slow, &slow, &slow, &quick] {
        let mut idle = registration(world, orchestrator, "running");
        idle["idleTimeoutSeconds"] = json!(1);
        vms.push(admin.register(idle).await?);
    }
    let states = async || {
        let mut states = Vec::new();
        for vm in &vms {
            let info = admin.get(&format!("/v1/vms/{vm}")).await?.ok()?;
            states.push(super::text(&info, "state")?.to_owned());
        }
        anyhow::Ok(states)
    };
    // A hook that does not answer is given up after 60 s.
    eventually(
        "the quick one sleeps",
        Duration::from_secs(40),
        async || {
            let states = states().await?;
            let held_up = states[..3].iter().any(|state| state == "suspending");
            Ok(held_up && states[3] == "suspended")
        },
    )
    .await
}

async fn stop_suspend_start_and_await_do_what_they_say(world: &mut World) -> Outcome {
    let gateway = world.gateway().await?;
    let orchestrator = Orchestrator::start(200, "{}", Duration::ZERO).await?;
    let admin = gateway.admin()?;
    let vm = admin
        .register(registration(world, &orchestrator, "running"))
        .await?;
    let path = |action: &str| format!("/v1/vms/{vm}/{action}");
    let state =
        async || anyhow::Ok(admin.get(&format!("/v1/vms/{vm}")).await?.ok()?["state"].clone());
    let waiting = tokio::spawn({
        let (admin, path) = (admin.clone(), path("await"));
        async move { admin.post(&path, json!({})).await?.ok() }
    });
    let suspended = admin.post(&path("suspend"), json!({})).await?.ok()?;
    ensure!(
        suspended["id"] == vm && state().await? == "suspended",
        "{suspended}"
    );
    ensure!(waiting.await??["exitStatus"] == "suspended");
    let started = admin.post(&path("start"), json!({})).await?.ok()?;
    ensure!(
        started["id"] == vm && started["domains"] == json!([]) && state().await? == "running",
        "{started}"
    );
    let stopped = admin.post(&path("stop"), json!({})).await?.ok()?;
    ensure!(
        stopped["vmId"] == vm && !super::text(&stopped, "vmInstanceId")?.is_empty(),
        "{stopped}"
    );
    ensure!(admin.post(&path("stop"), json!({})).await?.failure() == (400, "VM_NOT_RUNNING"));
    admin.post(&path("kill"), json!({})).await?.ok()?;
    admin.delete(&format!("/v1/vms/{vm}")).await?.ok()?;
    ensure!(admin.get(&format!("/v1/vms/{vm}")).await?.failure() == (404, "VM_NOT_FOUND"));
    let counts = ["start", "stop", "suspend", "delete"].map(|action| orchestrator.count(action));
    ensure!(counts == [1, 1, 1, 1], "{counts:?}");
    Ok(())
}
