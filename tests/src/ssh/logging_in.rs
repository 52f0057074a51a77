//! Who gets in, by which form, and that all who do not read the same.

use std::fs;

use anyhow::ensure;
use serde_json::{Value, json};

use super::{Scene, client::ended};
use crate::{gateway::World, gateway_cases, runner::Outcome};

gateway_cases![
    each_form_of_the_name_logs_in,
    a_registered_key_logs_in_until_it_is_removed,
    only_users_of_the_grant_log_in: [34],
    whoever_does_not_get_in_reads_the_same: [37],
    a_secret_is_not_in_what_the_gateway_writes: [36],
];

async fn each_form_of_the_name_logs_in(world: &mut World) -> Outcome {
    let scene = Scene::new(world, Value::Null).await?;
    let (vm, secret) = (&scene.vm, scene.token.secret());
    let named = format!("{vm}:{secret}");
    let root = scene.clients.ssh(&named, &["id -un"]).await?;
    ensure!(root.ok()? == "root\n");
    ensure!(scene.ssh("alice", "id -un").await?.ok()? == "alice\n");
    for method in ["password", "keyboard-interactive"] {
        for (name, user) in [(vm.clone(), "root"), (format!("{vm}+bob"), "bob")] {
            let mut ssh = scene.clients.command("ssh");
            ssh.args(["-o", "BatchMode=no", "-o"])
                .arg(format!("PreferredAuthentications={method}"))
                .env("SSH_ASKPASS", scene.clients.answering(secret)?)
                .env("SSH_ASKPASS_REQUIRE", "force")
                .args([&format!("{name}@gateway"), "id -un"]);
            ensure!(ended(ssh).await?.ok()? == format!("{user}\n"), "{method}");
        }
    }
    Ok(())
}

async fn a_registered_key_logs_in_until_it_is_removed(world: &mut World) -> Outcome {
    let scene = Scene::new(world, json!(["alice"])).await?;
    let keys = format!("/identity/v1/identities/{}/ssh-keys", scene.identity);
    for kind in ["ed25519", "ecdsa"] {
        let key = scene.clients.key(kind).await?;
        let shown = key.to_string_lossy().into_owned();
        let options = ["-i", shown.as_str()];
        let name = format!("{}+alice", scene.vm);
        let before = scene.clients.ssh_with(&options, &name, &["id -un"]).await?;
        ensure!(before.code == Some(255), "{before:?}");
        let public = fs::read_to_string(key.with_extension("pub"))?;
        let added = scene
            .admin
            .post(&keys, json!({"publicKey": public}))
            .await?;
        let added = added.ok()?;
        ensure!(added["name"] == "alice@laptop", "{added}");
        let within = scene.clients.ssh_with(&options, &name, &["id -un"]).await?;
        ensure!(within.ok()? == "alice\n");
        let outside = scene.clients.ssh_with(&options, &scene.vm, &["id"]).await?;
        ensure!(outside.code == Some(255), "{outside:?}");
        let again = scene
            .admin
            .post(&keys, json!({"publicKey": public}))
            .await?;
        ensure!(
            again.failure() == (409, "SSH_KEY_ALREADY_EXISTS"),
            "{again:?}"
        );
        let id = added["id"].as_str().unwrap_or_default();
        scene.admin.delete(&format!("{keys}/{id}")).await?.ok()?;
        let after = scene.clients.ssh_with(&options, &name, &["id -un"]).await?;
        ensure!(after.code == Some(255), "{after:?}");
    }
    let rsa = fs::read_to_string(scene.clients.key("rsa").await?.with_extension("pub"))?;
    let refused = scene.admin.post(&keys, json!({"publicKey": rsa})).await?;
    ensure!(
        refused.failure() == (400, "INVALID_PARAMETERS"),
        "{refused:?}"
    );
    Ok(())
}

async fn only_users_of_the_grant_log_in(world: &mut World) -> Outcome {
    let scene = Scene::new(world, json!(["alice"])).await?;
    ensure!(scene.ssh("alice", "id -u").await?.ok()? == "1000\n");
    for user in ["root", "bob", "nobody"] {
        let refused = scene.ssh(user, "id").await?;
        ensure!(refused.code == Some(255), "{user}: {refused:?}");
    }
    Ok(())
}

async fn whoever_does_not_get_in_reads_the_same(world: &mut World) -> Outcome {
    let scene = Scene::new(world, json!(["alice"])).await?;
    let (vm, secret) = (&scene.vm, scene.token.secret());
    let ungranted = scene.admin.register(world.registration()).await?;
    let wrong = secret.replace(&secret[30..34], "0000");
    let stranger = scene.admin.identity().await?;
    let other = scene.admin.token(&stranger).await?.1;
    let mut answers = Vec::new();
    for name in [
        format!("{vm}+bob:{secret}"),
        format!("{vm}+alice:{wrong}"),
        format!("{vm}+alice:{}", other.secret()),
        format!("{vm}+alice:x"),
        format!("{ungranted}+alice:{secret}"),
        format!("aaaaaaaaaaaaaaaaaaaa+alice:{secret}"),
        format!("x+alice:{secret}"),
        format!("+alice:{secret}"),
        format!("{vm}+no such:{secret}"),
    ] {
        let answer = scene.clients.ssh(&name, &["id"]).await?;
        ensure!(answer.code == Some(255), "{answer:?}");
        let told = answer.stderr.replace(&name, "NAME");
        answers.push(told.trim().to_owned());
    }
    answers.sort_unstable();
    answers.dedup();
    ensure!(answers.len() == 1, "{answers:#?}");
    Ok(())
}

async fn a_secret_is_not_in_what_the_gateway_writes(world: &mut World) -> Outcome {
    let scene = Scene::new(world, json!(["alice"])).await?;
    scene.ssh("alice", "true").await?.ok()?;
    // Where the secret and the rest are mixed up.
    let secret = scene.token.secret();
    for name in [
        format!("{}+alice:{secret}x", scene.vm),
        format!("{secret}+alice:{secret}"),
        format!("{}+{secret}:{secret}", scene.vm),
    ] {
        let refused = scene.clients.ssh(&name, &["true"]).await?;
        ensure!(refused.code == Some(255), "{refused:?}");
    }
    let random = &secret[24..];
    for file in ["log", "audit.jsonl", "gateway.db", "gateway.db-wal"] {
        let bytes = fs::read(scene.gateway.folder().join(file))?;
        let text = String::from_utf8_lossy(&bytes);
        ensure!(!text.contains(random), "a token is in {file}");
    }
    ensure!(scene.gateway.log().contains("listening for SSH"));
    let arguments = fs::read(format!("/proc/{}/cmdline", scene.gateway.pid()?))?;
    ensure!(!String::from_utf8_lossy(&arguments).contains(random));
    Ok(())
}
