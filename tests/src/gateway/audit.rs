//! The audit log, and the metrics.

use std::{collections::HashMap, fs};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::{World, encode, text};
use crate::{
    eventually::{PATIENCE, eventually},
    gateway_cases,
    runner::Outcome,
};

gateway_cases![
    each_operation_is_in_the_file_and_in_the_store_once: [39],
    each_operation_tells_the_linux_uid_it_acted_with: [39],
    what_a_killed_gateway_was_at_gets_one_end: [39],
    no_control_character_gets_into_the_log_or_onto_the_terminal: [39],
    metrics_count_operations_and_refusals,
];

async fn each_operation_is_in_the_file_and_in_the_store_once(world: &mut World) -> Outcome {
    let gateway = world.gateway().await?;
    let (vm, token) = world.granted(&gateway, json!(["alice"])).await?;
    let alice = token.user("alice");
    alice
        .exec(&vm, "echo content-of-output; exit 5")
        .await?
        .ok()?;
    let file = format!("/v1/vms/{vm}/files/{}", encode("/home/alice/x"));
    alice
        .put(&file, json!({"content": "content-of-file"}))
        .await?
        .ok()?;
    token.user("bob").exec(&vm, "id").await?;
    let admin = gateway.admin()?;
    let path = format!("/v1/audit?vm={vm}&limit=1000");
    let read = async || anyhow::Ok(admin.get(&path).await?.ok()?["events"].as_array().cloned());
    eventually("all is logged", PATIENCE, async || {
        Ok(read().await?.is_some_and(|events| events.len() == 6))
    })
    .await?;
    let events = read().await?.context("no events")?;
    let mut phases: HashMap<String, Vec<Value>> = HashMap::new();
    for event in events.iter().rev() {
        phases
            .entry(text(event, "operation")?.into())
            .or_default()
            .push(event.clone());
    }
    ensure!(phases.len() == 3, "{phases:?}");
    for events in phases.values() {
        ensure!(
            events.len() == 2 && events.iter().any(|event| event["phase"] == "start"),
            "{events:?}"
        );
    }
    let end = |verb: &str, user: &str| {
        let mut ends = events.iter().filter(|event| event["phase"] == "end");
        ends.find(|event| event["verb"] == verb && event["user"] == user)
            .context("no such end")
    };
    let exec = end("exec", "alice")?;
    ensure!(
        exec["result"] == "ok" && exec["exitStatus"] == 5 && exec["bytesOut"] == 18,
        "{exec}"
    );
    ensure!(
        text(exec, "subject")?.starts_with("echo")
            && exec["peer"] == "127.0.0.1"
            && exec["token"].is_string(),
        "{exec}"
    );
    let write = end("write-file", "alice")?;
    ensure!(
        write["subject"] == "/home/alice/x" && write["bytesIn"] == 15,
        "{write}"
    );
    ensure!(end("exec", "bob")?["result"] == "VM_ACCESS_DENIED");
    let folder = gateway.folder().to_owned();
    gateway.terminate().await?;
    gateway.ended().await?;
    let lines = fs::read_to_string(folder.join("audit.jsonl"))?;
    ensure!(
        !lines.contains("content-of-file"),
        "what a file held is in the log"
    );
    for event in &events {
        let copies = lines
            .lines()
            .filter(|line| serde_json::from_str::<Value>(line).is_ok_and(|line| line == *event));
        ensure!(copies.count() == 1, "{event}");
    }
    Ok(())
}

async fn each_operation_tells_the_linux_uid_it_acted_with(world: &mut World) -> Outcome {
    let gateway = world.gateway().await?;
    let (vm, token) = world
        .granted(&gateway, json!(["alice", "bob", "nobody-here"]))
        .await?;
    let mut uids = Vec::new();
    for user in ["alice", "bob"] {
        let caller = token.user(user);
        let said = caller.exec(&vm, "id -u").await?.ok()?;
        uids.push(text(&said, "stdout")?.trim().parse::<u32>()?);
        let file = format!("/v1/vms/{vm}/files/{}", encode("/etc/hostname"));
        caller.get(&file).await?.ok()?;
        let large = format!("/v1/vms/{vm}/raw-files/{}", encode("/etc/hostname"));
        let bytes = caller.request(reqwest::Method::GET, &large).send().await?;
        ensure!(bytes.error_for_status()?.bytes().await?.len() > 1);
    }
    let (alice, bob) = (uids[0], uids[1]);
    ensure!(alice != bob && alice != 0, "{uids:?}");
    // Whom no connection came about for, and who was refused, have none.
    let missing = token.user("nobody-here").exec(&vm, "true").await?;
    ensure!(missing.failure() == (404, "USER_NOT_FOUND"), "{missing:?}");
    token.exec(&vm, "true").await?;
    let admin = gateway.admin()?;
    let ends = async |filter: String| {
        let path = format!("/v1/audit?vm={vm}&limit=1000{filter}");
        let answer = admin.get(&path).await?.ok()?;
        let events = answer["events"].as_array().cloned().context("no events")?;
        let ends = events.into_iter().filter(|event| event["phase"] == "end");
        anyhow::Ok(ends.collect::<Vec<_>>())
    };
    eventually("all is logged", PATIENCE, async || {
        Ok(ends(String::new()).await?.len() == 8)
    })
    .await?;
    for end in ends(String::new()).await? {
        let expected = match end["user"].as_str() {
            Some("alice") => json!(alice),
            Some("bob") => json!(bob),
            _ => Value::Null,
        };
        ensure!(end["uid"] == expected, "{end}");
    }
    let of_bob = ends(format!("&uid={bob}")).await?;
    ensure!(
        of_bob.len() == 3 && of_bob.iter().all(|end| end["user"] == "bob"),
        "{of_bob:?}"
    );
    let command = async |arguments: &[&str]| {
        let shown = tokio::process::Command::new(world.program())
            .arg("audit")
            .args(arguments)
            .env("GUESTLINE_GATEWAY", gateway.url())
            .env("GUESTLINE_ADMIN_KEY", gateway.key().unwrap_or_default())
            .output()
            .await?;
        anyhow::Ok(String::from_utf8(shown.stdout)?)
    };
    let shown = command(&["--uid", &alice.to_string()]).await?;
    let ends = shown.lines().filter(|line| line.contains("  end  "));
    let mut ends = ends.peekable();
    ensure!(ends.peek().is_some(), "{shown}");
    ensure!(
        ends.all(|line| line.contains(&format!("user=alice({alice})"))),
        "{shown}"
    );
    Ok(())
}

async fn what_a_killed_gateway_was_at_gets_one_end(world: &mut World) -> Outcome {
    let gateway = world.gateway().await?;
    let (vm, token) = world.granted(&gateway, json!(["alice"])).await?;
    let alice = token.user("alice");
    alice.exec(&vm, "true").await?.ok()?;
    let cut_off = tokio::spawn({
        let (alice, vm) = (alice.clone(), vm.clone());
        async move { alice.exec(&vm, "touch begun; sleep 3600.77").await }
    });
    eventually("it runs", PATIENCE, async || {
        Ok(alice.exec(&vm, "test -e begun").await?.ok()?["statusCode"] == 0)
    })
    .await?;
    let (folder, key) = (
        gateway.folder().to_owned(),
        gateway.key().map(str::to_owned),
    );
    gateway.crash().await?;
    ensure!(cut_off.await?.is_err(), "it was answered by a dead gateway");
    let mut ends = Vec::new();
    for _ in 0..2 {
        let gateway = world.gateway_in(&folder, &[]).await?;
        let admin = gateway.caller(key.as_deref().context("no key")?)?;
        let events = admin.get(&format!("/v1/audit?vm={vm}&limit=1000")).await?;
        let events = events.ok()?["events"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let mut phases: HashMap<String, Vec<String>> = HashMap::new();
        for event in &events {
            let of = phases.entry(text(event, "operation")?.into()).or_default();
            of.push(text(event, "phase")?.into());
        }
        for (operation, mut of) in phases {
            of.sort();
            ensure!(of == ["end", "start"], "{operation}: {of:?} in {events:?}");
        }
        let lost: Vec<Value> = events
            .into_iter()
            .filter(|event| event["result"] == "lost")
            .collect();
        ensure!(
            lost.len() == 1 && text(&lost[0], "subject")?.contains("sleep 3600.77"),
            "{lost:?}"
        );
        ends.push(lost);
        gateway.crash().await?;
    }
    ensure!(
        ends[0] == ends[1],
        "a second start ended it again: {ends:?}"
    );
    let lines = fs::read_to_string(folder.join("audit.jsonl"))?;
    ensure!(lines.matches("\"lost\"").count() == 1, "{lines}");
    Ok(())
}

async fn no_control_character_gets_into_the_log_or_onto_the_terminal(world: &mut World) -> Outcome {
    let gateway = world.gateway().await?;
    let (vm, token) = world.granted(&gateway, json!(["alice"])).await?;
    let line = "true '\u{1b}[2J\u{7f}\u{9b}1m\u{202e}\r\n'";
    token.user("alice").exec(&vm, line).await?.ok()?;
    token.user("alice").exec("\u{1b}[2J", "true").await?;
    let admin = gateway.admin()?;
    let logged = async || {
        let events = admin.get("/v1/audit?limit=1000").await?.ok()?;
        let events = events["events"].as_array().cloned().unwrap_or_default();
        anyhow::Ok(
            events
                .iter()
                .filter(|event| event["subject"] == line)
                .count(),
        )
    };
    eventually("it is logged", PATIENCE, async || Ok(logged().await? == 2)).await?;
    let shown = tokio::process::Command::new(world.program())
        .arg("audit")
        .env("GUESTLINE_GATEWAY", gateway.url())
        .env("GUESTLINE_ADMIN_KEY", gateway.key().unwrap_or_default())
        .output()
        .await?;
    let file = fs::read_to_string(gateway.folder().join("audit.jsonl"))?;
    for text in [String::from_utf8(shown.stdout)?, file] {
        ensure!(text.contains("[2J"), "{text}");
        let commands = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        ensure!(!text.contains(commands), "{text:?}");
    }
    Ok(())
}

async fn metrics_count_operations_and_refusals(world: &mut World) -> Outcome {
    let gateway = world.gateway().await?;
    let (vm, token) = world.granted(&gateway, json!(["alice"])).await?;
    token.user("alice").exec(&vm, "true").await?.ok()?;
    token.user("bob").exec(&vm, "true").await?;
    ensure!(token.get("/metrics").await?.failure() == (403, "FORBIDDEN"));
    let metrics = gateway
        .admin()?
        .request(reqwest::Method::GET, "/metrics")
        .send()
        .await?
        .text()
        .await?;
    for line in [
        "guestline_gateway_operations_total{verb=\"exec\",result=\"ok\"} 1",
        "guestline_gateway_refused_total{code=\"VM_ACCESS_DENIED\"} 1",
        "guestline_gateway_operation_duration_seconds_count{verb=\"exec\"} 1",
        "guestline_gateway_live_operations 0",
    ] {
        ensure!(metrics.contains(line), "no {line:?} in {metrics}");
    }
    Ok(())
}
