//! Commands through the gateway, as the users that a grant names, and guests that are not as they should be.

use anyhow::{Context, ensure};
use guestline_client::Secret;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{
    World,
    files::{file, write},
    text,
};
use crate::{
    eventually::{PATIENCE, eventually},
    gateway_cases,
    runner::Outcome,
    target::{Target, write_private},
};

gateway_cases![
    commands_run_as_the_user_and_report_their_end,
    a_command_that_takes_too_long_is_killed_with_what_it_printed,
    output_beyond_the_bound_must_be_cut_and_the_command_still_ends,
    a_user_outside_the_grant_and_one_that_is_missing_are_told_apart: [34],
    relative_paths_and_commands_begin_in_the_workdir,
    a_page_of_another_origin_may_ask,
    a_guest_without_an_agent_is_a_clear_error,
    a_vm_with_a_secret_is_reached_by_who_has_its_file,
    the_admins_commands_do_what_the_api_does,
];

async fn commands_run_as_the_user_and_report_their_end(world: &mut World) -> Outcome {
    let gateway = world.gateway().await?;
    let (vm, token) = world.granted(&gateway, Value::Null).await?;
    for (user, uid) in [("root", 0), ("alice", 1000), ("bob", 1001)] {
        let id = token.user(user).exec(&vm, "id -u; pwd").await?.ok()?;
        let home = if user == "root" {
            "/root".into()
        } else {
            format!("/home/{user}")
        };
        ensure!(
            id["stdout"] == format!("{uid}\n{home}\n")
                && id["stderr"] == ""
                && id["statusCode"] == 0,
            "{id}"
        );
    }
    let root = token.exec(&vm, "id -u").await?.ok()?;
    ensure!(
        root["stdout"] == "0\n",
        "without a header it is root: {root}"
    );
    let alice = token.user("alice");
    for (line, status) in [("exit 7", 7), ("kill -9 $$", 137), ("no-such-program", 127)] {
        let answer = alice.exec(&vm, line).await?.ok()?;
        ensure!(answer["statusCode"] == status, "{line}: {answer}");
    }
    let both = alice
        .exec(&vm, "echo out; echo err >&2; printf '\\377'")
        .await?
        .ok()?;
    ensure!(
        both == json!({"stdout": "out\n\u{fffd}", "stderr": "err\n", "statusCode": 0}),
        "{both}"
    );
    Ok(())
}

async fn a_command_that_takes_too_long_is_killed_with_what_it_printed(
    world: &mut World,
) -> Outcome {
    let gateway = world.gateway().await?;
    let (vm, token) = world.granted(&gateway, Value::Null).await?;
    let alice = token.user("alice");
    let line = "echo before; sleep 4321 & sleep 4321";
    let path = format!("/v1/vms/{vm}/exec-await");
    let mut has_printed = false;
    // A busy machine may not come to print in the first of them.
    for millis in [300, 3000, 30_000] {
        let body = json!({"command": line, "terminal": null, "timeoutMs": millis});
        let answer = timeout(2 * PATIENCE, alice.post(&path, body)).await;
        let answer = answer.context("it outlives its time")??;
        ensure!(answer.failure() == (408, "EXEC_TIMED_OUT"), "{answer:?}");
        has_printed = answer.body["stdout"] == "before\n";
        if has_printed {
            break;
        }
    }
    ensure!(has_printed, "what it printed is lost");
    eventually("nothing of it is left", PATIENCE, async || {
        let left = alice.exec(&vm, "pgrep -f '^sleep 4321'").await?.ok()?;
        Ok(left["statusCode"] == 1)
    })
    .await
}

async fn output_beyond_the_bound_must_be_cut_and_the_command_still_ends(
    world: &mut World,
) -> Outcome {
    let gateway = world.gateway_with(&["--max-output=1"]).await?;
    let (vm, token) = world.granted(&gateway, Value::Null).await?;
    let answer = token
        .user("alice")
        .exec(&vm, "head -c 5000000 /dev/zero | tr '\\0' x; exit 3")
        .await?
        .ok()?;
    let stdout = text(&answer, "stdout")?;
    ensure!(
        answer["statusCode"] == 3 && stdout.contains("the output was cut here"),
        "{}",
        answer["statusCode"]
    );
    ensure!(stdout.bytes().filter(|&byte| byte == b'x').count() == 1 << 20);
    Ok(())
}

async fn a_user_outside_the_grant_and_one_that_is_missing_are_told_apart(
    world: &mut World,
) -> Outcome {
    let gateway = world.gateway().await?;
    let (vm, token) = world.granted(&gateway, json!(["alice", "mallory"])).await?;
    ensure!(token.user("bob").exec(&vm, "id").await?.failure() == (403, "VM_ACCESS_DENIED"));
    ensure!(
        token.exec(&vm, "id").await?.failure() == (403, "VM_ACCESS_DENIED"),
        "root is not in the list"
    );
    ensure!(token.user("mallory").exec(&vm, "id").await?.failure() == (404, "USER_NOT_FOUND"));
    ensure!(token.user("mallory").get(&file(&vm, "/")).await?.failure() == (404, "USER_NOT_FOUND"));
    Ok(())
}

async fn relative_paths_and_commands_begin_in_the_workdir(world: &mut World) -> Outcome {
    let gateway = world.gateway().await?;
    let admin = gateway.admin()?;
    let mut registration = world.registration();
    registration["workdir"] = json!("/home/bob");
    let vm = admin.register(registration).await?;
    let bob = admin.user("bob");
    write(&bob, &vm, "x", "here").await?.ok()?;
    let there = bob.exec(&vm, "pwd; cat x").await?.ok()?;
    ensure!(there["stdout"] == "/home/bob\nhere", "{there}");
    let listing = bob.get(&format!("/v1/vms/{vm}/files/")).await?.ok()?;
    ensure!(listing["files"][0]["name"] == "x", "{listing}");
    Ok(())
}

async fn a_page_of_another_origin_may_ask(world: &mut World) -> Outcome {
    let gateway = world.gateway().await?;
    let asked =
        "authorization,content-type,x-freestyle-identity-access-token,x-freestyle-vm-linux-user-id";
    let answer = reqwest::Client::new()
        .request(Method::OPTIONS, format!("{}/v1/vms", gateway.url()))
        .header("origin", "https://example.org")
        .header("access-control-request-method", "PUT")
        .header("access-control-request-headers", asked)
        .send()
        .await?;
    ensure!(answer.status().is_success());
    ensure!(answer.headers()["access-control-allow-origin"] == "*");
    let allowed = answer.headers()["access-control-allow-headers"]
        .to_str()?
        .to_lowercase();
    ensure!(
        asked.split(',').all(|name| allowed.contains(name)),
        "{allowed}"
    );
    let refused = reqwest::Client::new()
        .get(format!("{}/v1/vms", gateway.url()))
        .header("origin", "https://example.org");
    let refused = refused.send().await?;
    ensure!(
        refused.status() == StatusCode::UNAUTHORIZED
            && refused.headers()["access-control-allow-origin"] == "*"
    );
    Ok(())
}

async fn a_guest_without_an_agent_is_a_clear_error(world: &mut World) -> Outcome {
    let gateway = world.gateway().await?;
    let admin = gateway.admin()?;
    let vm = admin
        .register(json!({"endpoint": "unix:/nonexistent/agent.sock"}))
        .await?;
    let answer = admin.exec(&vm, "true").await?;
    ensure!(
        answer.failure() == (500, "RESUMED_VM_NON_RESPONSIVE"),
        "{answer:?}"
    );
    ensure!(
        !answer.body.to_string().contains("nonexistent"),
        "the host's paths are no client's business: {answer:?}"
    );
    let wrong = admin
        .post("/v1/external-vms", json!({"endpoint": "tcp:1"}))
        .await?;
    ensure!(wrong.failure() == (400, "INVALID_PARAMETERS"), "{wrong:?}");
    ensure!(
        admin.post("/v1/vms", json!({})).await?.failure() == (501, "UNIMPLEMENTED"),
        "no machines here"
    );
    ensure!(
        admin
            .post(&format!("/v1/vms/{vm}/fork"), json!({}))
            .await?
            .failure()
            == (501, "UNIMPLEMENTED")
    );
    ensure!(
        admin
            .post(&format!("/v1/vms/{vm}/stop"), json!({}))
            .await?
            .failure()
            == (501, "UNIMPLEMENTED"),
        "it has no hook"
    );
    Ok(())
}

async fn a_vm_with_a_secret_is_reached_by_who_has_its_file(world: &mut World) -> Outcome {
    let gateway = world.gateway().await?;
    let admin = gateway.admin()?;
    let agent = world.agent.agent().context("a local agent")?.to_owned();
    let secret = Secret::random()?;
    let guarded = Target::local_with(&agent, &secret).await?;
    let file = guarded.secret_file().context("it has a secret")?;
    let endpoint = guarded.endpoint().to_string();
    let known = admin
        .register(json!({"endpoint": endpoint, "secretFile": file}))
        .await?;
    let said = admin.user("alice").exec(&known, "id -un").await?.ok()?;
    ensure!(said["stdout"] == "alice\n", "{said}");
    // Without it, with none where there is one, and with another's, nobody is reached.
    let folder = tempfile::tempdir()?;
    let other = folder.path().join("secret");
    write_private(&other, Secret::random()?.expose())?;
    for registration in [
        json!({"endpoint": endpoint}),
        json!({"endpoint": endpoint, "secretFile": other}),
        json!({"endpoint": endpoint, "secretFile": "/nonexistent"}),
        json!({"endpoint": world.agent.endpoint().to_string(), "secretFile": other}),
    ] {
        let vm = admin.register(registration.clone()).await?;
        let answer = admin.user("alice").exec(&vm, "id").await?;
        ensure!(
            answer.failure() == (500, "RESUMED_VM_NON_RESPONSIVE"),
            "{registration}: {answer:?}"
        );
    }
    let relative = admin
        .post(
            "/v1/external-vms",
            json!({"endpoint": endpoint, "secretFile": "secret"}),
        )
        .await?;
    ensure!(
        relative.failure() == (400, "INVALID_PARAMETERS"),
        "{relative:?}"
    );
    // It is nowhere else.
    let folder = gateway.folder().to_owned();
    gateway.terminate().await?;
    gateway.ended().await?;
    for file in std::fs::read_dir(folder)? {
        let bytes = std::fs::read(file?.path())?;
        let found = String::from_utf8_lossy(&bytes).contains(secret.expose());
        ensure!(!found, "the secret is in the gateway's folder");
    }
    ensure!(!world.dump()?.unwrap_or_default().contains(secret.expose()));
    Ok(())
}

async fn the_admins_commands_do_what_the_api_does(world: &mut World) -> Outcome {
    let gateway = world.gateway().await?;
    let command = async |words: &[&str]| world.command(&gateway, words).await;
    let endpoint = world.agent.endpoint().to_string();
    let vm = command(&["vm", "register", &endpoint]).await?;
    let identity = command(&["identity", "create"]).await?;
    command(&[
        "grant", "add", &identity, &vm, "--user", "alice", "--user", "bob",
    ])
    .await?;
    let token = command(&["token", "create", &identity]).await?;
    let alice = gateway.caller(&token)?.user("alice");
    ensure!(alice.exec(&vm, "id -un").await?.ok()?["stdout"] == "alice\n");
    ensure!(command(&["identity", "list"]).await? == identity);
    ensure!(command(&["vm", "list"]).await?.starts_with(&vm));
    ensure!(command(&["vm", "info", &vm]).await? == "running");
    ensure!(command(&["grant", "list", &identity]).await? == format!("{vm}  alice,bob"));
    command(&["grant", "set", &identity, &vm, "--nobody"]).await?;
    ensure!(alice.exec(&vm, "id").await?.failure() == (403, "VM_ACCESS_DENIED"));
    // Events share transactions: they are in the store a moment later than in the file.
    eventually("the log has it", PATIENCE, async || {
        Ok(command(&["audit", "--vm", &vm]).await?.contains("exec"))
    })
    .await?;
    let id = command(&["token", "list", &identity]).await?;
    command(&["token", "revoke", &identity, &id]).await?;
    ensure!(alice.get("/auth/v1/whoami").await?.status == StatusCode::UNAUTHORIZED);
    command(&["grant", "revoke", &identity, &vm]).await?;
    command(&["identity", "delete", &identity]).await?;
    command(&["vm", "delete", &vm]).await?;
    ensure!(command(&["vm", "list"]).await?.is_empty());
    ensure!(command(&["vm", "info", &vm]).await.is_err());
    Ok(())
}
