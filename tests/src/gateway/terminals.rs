//! Terminals that outlive whoever opened them.

use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::{Caller, World, text};
use crate::{eventually::eventually, gateway_cases, runner::Outcome};

gateway_cases![
    a_terminal_goes_on_without_its_client_and_its_gateway,
    a_terminal_is_typed_into_resized_and_ended,
    input_that_the_program_does_not_read_is_kept_or_refused,
    terminals_are_their_users: [34],
    of_many_who_open_a_name_one_has_it,
    what_cannot_be_a_terminal_is_a_clear_error,
    what_is_typed_is_not_in_the_audit_log,
];

/// For what happens at once on an idle machine.
const SOON: Duration = Duration::from_secs(60);

fn path(vm: &str, rest: &str) -> String {
    format!("/v1/vms/{vm}/terminals{rest}")
}

async fn screen(caller: &Caller, vm: &str, name: &str) -> anyhow::Result<String> {
    let at = path(vm, &format!("/{name}/xterm-256color"));
    Ok(text(&caller.get(&at).await?.ok()?, "output")?.into())
}

async fn shows(caller: &Caller, vm: &str, name: &str, words: &str) -> Outcome {
    eventually(words, SOON, async || {
        Ok(screen(caller, vm, name).await?.contains(words))
    })
    .await
}

async fn types(caller: &Caller, vm: &str, name: &str, data: &str) -> Outcome {
    let at = path(vm, &format!("/{name}/input"));
    let answer = caller.post(&at, json!({"data": data})).await?;
    answer.ok().map(drop)
}

async fn a_terminal_goes_on_without_its_client_and_its_gateway(world: &mut World) -> Outcome {
    let gateway = world.gateway().await?;
    let (vm, token) = world.granted(&gateway, json!(["alice"])).await?;
    let alice = token.user("alice");
    ensure!(alice.get(&path(&vm, "")).await?.ok()? == json!({"terminals": []}));
    let line = "printf '\\033[32mone\\033[0m\\n'; read word; echo got $word; exec sleep 1000";
    let new = json!({"name": "build", "command": line});
    let made = alice.post(&path(&vm, ""), new).await?.ok()?;
    ensure!(
        made["name"] == "build" && made["status"] == "running" && made["created"].is_string(),
        "{made}"
    );
    shows(&alice, &vm, "build", "\u{1b}[32mone\u{1b}[0m\r\n").await?;
    let folder = gateway.folder().to_owned();
    gateway.crash().await?;
    let gateway = world.gateway_in(&folder, &[]).await?;
    let alice = gateway.caller(token.secret())?.user("alice");
    let list = alice.get(&path(&vm, "")).await?.ok()?;
    ensure!(list["terminals"][0]["name"] == "build", "{list}");
    types(&alice, &vm, "build", "hello\r").await?;
    shows(&alice, &vm, "build", "got hello").await?;
    let logs = alice.get(&path(&vm, "/build/logs")).await?.ok()?;
    let logs = logs["logs"].as_array().cloned().context("no logs")?;
    let lines: Vec<&str> = logs.iter().filter_map(|it| it["line"].as_str()).collect();
    ensure!(lines == ["one", "hello", "got hello"], "{lines:?}");
    Ok(())
}

async fn a_terminal_is_typed_into_resized_and_ended(world: &mut World) -> Outcome {
    let gateway = world.gateway().await?;
    let (vm, token) = world.granted(&gateway, json!(["alice"])).await?;
    let alice = token.user("alice");
    let new = json!({"columns": 100, "rows": 30, "env": {"WORD": "there"}});
    let made = alice.post(&path(&vm, ""), new).await?.ok()?;
    let name = text(&made, "name")?.to_owned();
    types(&alice, &vm, &name, "echo $WORD; stty size; tty\r").await?;
    shows(&alice, &vm, &name, "there\r\n30 100\r\n/dev/pts/").await?;
    let resize = path(&vm, &format!("/{name}/resize"));
    let size = json!({"columns": 132, "rows": 43});
    alice.post(&resize, size).await?.ok()?;
    eventually("it has its new size", SOON, async || {
        types(&alice, &vm, &name, "stty size\r").await?;
        Ok(screen(&alice, &vm, &name).await?.contains("\n43 132"))
    })
    .await?;
    // ^C, of bytes.
    types(&alice, &vm, &name, "sleep 1000\r").await?;
    let at = path(&vm, &format!("/{name}/input"));
    eventually("the sleep is interrupted", SOON, async || {
        let typed = json!({"data": "Aw==", "encoding": "base64"});
        alice.post(&at, typed).await?.ok()?;
        types(&alice, &vm, &name, "echo $((40+2))\r").await?;
        Ok(screen(&alice, &vm, &name).await?.contains("\n42\r"))
    })
    .await?;
    // What ignores the hang-up is ended all the same. A line may go with what the shell drops at the last ^C.
    eventually("it ignores the hang-up", SOON, async || {
        types(&alice, &vm, &name, "trap '' HUP; echo $((6*7+1))\r").await?;
        Ok(screen(&alice, &vm, &name).await?.contains("\n43\r"))
    })
    .await?;
    let terminal = path(&vm, &format!("/{name}"));
    alice.delete(&terminal).await?.ok()?;
    eventually("it has exited", SOON, async || {
        Ok(alice.get(&terminal).await?.ok()?["status"] == "exited")
    })
    .await?;
    ensure!(alice.delete(&terminal).await?.failure() == (409, "TERMINAL_EXITED"));
    ensure!(alice.post(&at, json!({"data": "x"})).await?.failure() == (409, "TERMINAL_EXITED"));
    // What it wrote is still there.
    shows(&alice, &vm, &name, "30 100").await
}

async fn input_that_the_program_does_not_read_is_kept_or_refused(world: &mut World) -> Outcome {
    const SIZE: usize = 900_000;
    let gateway = world.gateway().await?;
    let (vm, token) = world.granted(&gateway, json!(["alice"])).await?;
    let alice = token.user("alice");
    // It stands still, and reads what it is told to when it goes on.
    let all = 3 * SIZE + 1;
    let line =
        format!("stty raw -echo; echo pid $$.; kill -STOP $$; head -c {all} | tr -d a; echo .");
    let new = json!({"name": "t", "command": line});
    alice.post(&path(&vm, ""), new).await?.ok()?;
    shows(&alice, &vm, "t", ".").await?;
    let said = screen(&alice, &vm, "t").await?;
    let pid = said.trim().trim_start_matches("pid ").trim_end_matches('.');
    let pid: u32 = pid.parse().with_context(|| said.clone())?;
    eventually("it stands still", SOON, async || {
        let stat = alice.exec(&vm, &format!("cat /proc/{pid}/stat")).await?;
        Ok(text(&stat.ok()?, "stdout")?.contains(") T "))
    })
    .await?;
    let at = path(&vm, "/t/input");
    let typed = json!({"data": "a".repeat(SIZE)});
    // More than the terminal takes of itself: one that it reads from, and what waits behind it.
    for _ in 0..3 {
        alice.post(&at, typed.clone()).await?.ok()?;
    }
    let refused = alice.post(&at, json!({"data": "refused"})).await?;
    ensure!(
        refused.failure() == (409, "TERMINAL_NOT_READING"),
        "{refused:?}"
    );
    // The program might have begun to read just then, so that nothing more is promised.
    let message = text(&refused.body, "message")?;
    ensure!(
        message.contains("up to 7 bytes of it may have been typed"),
        "{message}"
    );
    let admin = gateway.admin()?;
    eventually("its bytes are counted", SOON, async || {
        let events = admin.get(&format!("/v1/audit?vm={vm}&limit=100")).await?;
        let events = events.ok()?["events"].clone();
        let ends = events.as_array().into_iter().flatten();
        let mut refusals = ends.filter(|end| end["result"] == "TERMINAL_NOT_READING");
        Ok(refusals.any(|end| end["bytesIn"] == 7))
    })
    .await?;
    alice.exec(&vm, &format!("kill -CONT {pid}")).await?.ok()?;
    types(&alice, &vm, "t", "!").await?;
    shows(&alice, &vm, "t", "!.").await
}

async fn terminals_are_their_users(world: &mut World) -> Outcome {
    let gateway = world.gateway().await?;
    let (vm, token) = world.granted(&gateway, json!(["alice", "bob"])).await?;
    let (alice, bob) = (token.user("alice"), token.user("bob"));
    for (caller, line) in [
        (&alice, "id -un; sleep 1000"),
        (&bob, "echo bobs; sleep 1000"),
    ] {
        let new = json!({"name": "same", "command": line});
        caller.post(&path(&vm, ""), new).await?.ok()?;
    }
    shows(&alice, &vm, "same", "alice\r\n").await?;
    shows(&bob, &vm, "same", "bobs\r\n").await?;
    alice.delete(&path(&vm, "/same")).await?.ok()?;
    ensure!(bob.get(&path(&vm, "/same")).await?.ok()?["status"] == "running");
    ensure!(token.get(&path(&vm, "/same")).await?.failure() == (403, "VM_ACCESS_DENIED"));
    let admin = gateway.admin()?;
    let missing = admin.get(&path(&vm, "/same")).await?;
    ensure!(
        missing.failure() == (404, "TERMINAL_NOT_FOUND"),
        "{missing:?}"
    );
    // Programs that are none are not shown as such.
    alice.exec(&vm, "sleep 0.1").await?.ok()?;
    let list = alice.get(&path(&vm, "")).await?.ok()?;
    ensure!(
        list["terminals"].as_array().map(Vec::len) == Some(1),
        "{list}"
    );
    Ok(())
}

async fn of_many_who_open_a_name_one_has_it(world: &mut World) -> Outcome {
    let gateway = world.gateway().await?;
    let (vm, token) = world.granted(&gateway, json!(["alice"])).await?;
    let alice = token.user("alice");
    let requests = (0..8).map(|_| {
        let (alice, at) = (alice.clone(), path(&vm, ""));
        let new = json!({"name": "one", "command": "sleep 1000.66"});
        tokio::spawn(async move { alice.post(&at, new).await })
    });
    let mut made = 0;
    for request in requests.collect::<Vec<_>>() {
        let answer = request.await??;
        match answer.status.is_success() {
            true => made += 1,
            false => ensure!(
                answer.failure() == (409, "TERMINAL_ALREADY_EXISTS"),
                "{answer:?}"
            ),
        }
    }
    ensure!(made == 1, "{made} have it");
    eventually("one of it runs", SOON, async || {
        let list = alice.get(&path(&vm, "")).await?.ok()?;
        let all = list["terminals"].as_array().cloned().unwrap_or_default();
        let running = all.iter().filter(|it| it["status"] == "running");
        Ok(running.count() == 1)
    })
    .await
}

async fn what_cannot_be_a_terminal_is_a_clear_error(world: &mut World) -> Outcome {
    let gateway = world.gateway().await?;
    let (vm, token) = world.granted(&gateway, json!(["alice"])).await?;
    let alice = token.user("alice");
    for wrong in [
        json!({"name": ""}),
        json!({"name": ".."}),
        json!({"name": "a/b"}),
        json!({"name": "x".repeat(65)}),
        json!({"columns": 0}),
        json!({"rows": 70_000}),
        json!({"command": 1}),
        json!({"command": "true", "workdir": "/nonexistent"}),
    ] {
        let answer = alice.post(&path(&vm, ""), wrong.clone()).await?;
        ensure!(
            answer.failure() == (400, "BAD_REQUEST"),
            "{wrong}: {answer:?}"
        );
    }
    let missing = alice.get(&path(&vm, "/%2Fetc/logs")).await?;
    ensure!(
        missing.failure() == (404, "TERMINAL_NOT_FOUND"),
        "{missing:?}"
    );
    let new = json!({"name": "t", "command": "sleep 1000"});
    alice.post(&path(&vm, ""), new).await?.ok()?;
    for (wrong, code) in [
        (
            json!({"data": "%", "encoding": "base64"}),
            "INVALID_BASE64_CONTENT",
        ),
        (json!({"data": "x", "encoding": "rot13"}), "BAD_REQUEST"),
        (json!({}), "BAD_REQUEST"),
    ] {
        let answer = alice.post(&path(&vm, "/t/input"), wrong.clone()).await?;
        ensure!(answer.failure() == (400, code), "{wrong}: {answer:?}");
    }
    Ok(())
}

async fn what_is_typed_is_not_in_the_audit_log(world: &mut World) -> Outcome {
    let gateway = world.gateway().await?;
    let (vm, token) = world.granted(&gateway, json!(["alice"])).await?;
    let alice = token.user("alice");
    let new = json!({"name": "t", "command": "cat"});
    alice.post(&path(&vm, ""), new).await?.ok()?;
    types(&alice, &vm, "t", "typed-in-secret\r").await?;
    shows(&alice, &vm, "t", "typed-in-secret").await?;
    alice.delete(&path(&vm, "/t")).await?.ok()?;
    let admin = gateway.admin()?;
    let at = format!("/v1/audit?vm={vm}&limit=1000");
    let ends = async || {
        let events = admin.get(&at).await?.ok()?;
        let events = events["events"].as_array().cloned().unwrap_or_default();
        let ends = events.into_iter().filter(|event| event["phase"] == "end");
        anyhow::Ok(ends.collect::<Vec<Value>>())
    };
    eventually("its end is logged", SOON, async || {
        Ok(ends().await?.iter().any(|end| end["subject"] == "end t"))
    })
    .await?;
    let ends = ends().await?;
    let typed = ends.iter().find(|end| end["subject"] == "type into t");
    let typed = typed.context("the input is not logged")?;
    ensure!(
        typed["verb"] == "terminals" && typed["bytesIn"] == 16 && typed["uid"] == 1000,
        "{typed}"
    );
    let opened = ends.iter().find(|end| end["subject"] == "open t: cat");
    ensure!(opened.is_some_and(|end| end["result"] == "ok"), "{ends:?}");
    let file = std::fs::read_to_string(gateway.folder().join("audit.jsonl"))?;
    ensure!(
        !file.contains("typed-in-secret"),
        "what was typed is logged"
    );
    Ok(())
}
