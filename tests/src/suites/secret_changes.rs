//! What the guest's owner does with the secret's file, under an agent that goes on running: one of this suite's own.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use anyhow::{Context, ensure};
use guestline_client::{Error, RefusalReason, Secret, Vm, WriteOptions};

use super::shell;
use crate::{
    cases,
    runner::Outcome,
    target::{Target, write_private},
};

cases![
    a_new_secret_counts_from_the_next_hello,
    a_clone_has_its_own_secret_before_it_is_ready,
    a_guest_with_a_secret_is_never_open_without_it: [26],
    a_secret_that_comes_later_counts_at_once,
    a_secret_that_others_can_read_stops_the_agent,
    a_secret_is_seen_nowhere,
];

/// As a host with that secret, over a connection of its own.
async fn is_let_in(target: &Target, secret: &Secret) -> anyhow::Result<bool> {
    let vm = Vm::new(target.endpoint().clone()).user("alice");
    match vm.secret(secret.clone()).files().stat("/").await {
        Ok(_) => Ok(true),
        Err(Error::Refused {
            reason: Some(RefusalReason::Unauthenticated),
            ..
        }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

async fn guarded(target: &Target, secret: &Secret) -> anyhow::Result<Target> {
    let agent = target.agent().context("a machine has no binary here")?;
    Target::local_with(agent, secret).await
}

async fn a_new_secret_counts_from_the_next_hello(target: &Target) -> Outcome {
    let (old, new) = (Secret::random()?, Secret::random()?);
    let target = guarded(target, &old).await?;
    let file = target.secret_file().context("guarded")?;
    let before = target.user("alice");
    before.files().stat("/").await?;
    ensure!(!is_let_in(&target, &new).await?, "the new one too early");

    // In two steps, so that no host is locked out: both, then the new one.
    write_private(file, &format!("{}\n{}\n", new.expose(), old.expose()))?;
    ensure!(is_let_in(&target, &new).await? && is_let_in(&target, &old).await?);
    write_private(file, &format!("{}\n", new.expose()))?;
    ensure!(is_let_in(&target, &new).await?, "the new one is refused");
    ensure!(!is_let_in(&target, &old).await?, "the old one is taken");
    // A connection of before is one that has proved itself.
    before.files().stat("/").await?;
    Ok(())
}

/// As docs/operations.md has it: the new secret is written through the agent, then the guest is told.
async fn a_clone_has_its_own_secret_before_it_is_ready(target: &Target) -> Outcome {
    let (twins, own) = (Secret::random()?, Secret::random()?);
    // Two guests from one snapshot.
    let (twin, target) = (
        guarded(target, &twins).await?,
        guarded(target, &twins).await?,
    );
    let file = target.secret_file().context("guarded")?;
    let root = target.user("root");
    let options = WriteOptions::replace().permissions(0o600);
    let mut writer = root.files().write_with(file, options).await?;
    writer.write(own.expose().to_owned()).await?;
    writer.finish().await?;
    // Before Resumed is said, let alone answered.
    ensure!(!is_let_in(&target, &twins).await?, "the twin's is taken");
    ensure!(is_let_in(&target, &own).await?, "its own is refused");
    // Whoever may reach one of them may not reach the other.
    ensure!(!is_let_in(&twin, &own).await? && is_let_in(&twin, &twins).await?);
    Ok(())
}

async fn a_guest_with_a_secret_is_never_open_without_it(target: &Target) -> Outcome {
    let secret = Secret::random()?;
    let target = guarded(target, &secret).await?;
    let file = target.secret_file().context("guarded")?;
    ensure!(is_let_in(&target, &secret).await?);
    let open = fs::Permissions::from_mode(0o644);
    let spoil: [&dyn Fn() -> anyhow::Result<()>; 4] = [
        &|| Ok(fs::remove_file(file)?),
        &|| write_private(file, ""),
        &|| write_private(file, "too short"),
        &|| {
            write_private(file, secret.expose())?;
            Ok(fs::set_permissions(file, open.clone())?)
        },
    ];
    for spoil in spoil {
        spoil()?;
        ensure!(!is_let_in(&target, &secret).await?, "with the secret");
        let none = Vm::new(target.endpoint().clone()).files().stat("/").await;
        let refused = matches!(
            none,
            Err(Error::Refused {
                reason: Some(RefusalReason::Unauthenticated),
                ..
            })
        );
        ensure!(refused, "without any: {none:?}");
    }
    write_private(file, secret.expose())?;
    ensure!(is_let_in(&target, &secret).await?, "when it is back");
    Ok(())
}

async fn a_secret_that_comes_later_counts_at_once(target: &Target) -> Outcome {
    let agent = target.agent().context("a machine has no binary here")?;
    let target = Target::local(agent).await?;
    let secret = Secret::random()?;
    target.user("alice").files().stat("/").await?;
    let file = target.endpoint().secret_file().context("a socket")?;
    write_private(&file, secret.expose())?;
    let none = target.user("alice").files().stat("/").await;
    ensure!(matches!(none, Err(Error::Refused { .. })), "{none:?}");
    ensure!(is_let_in(&target, &secret).await?);
    Ok(())
}

async fn a_secret_that_others_can_read_stops_the_agent(target: &Target) -> Outcome {
    let agent = target.agent().context("a machine has no binary here")?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("secret");
    fs::write(&file, Secret::random()?.expose())?;
    for mode in [0o644, 0o640, 0o604] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode))?;
        let (code, said) = start(agent, folder.path(), &file)?;
        ensure!(
            code == Some(1) && said.contains("chmod 600"),
            "{code:?}: {said}"
        );
    }
    // And one of another user, whatever its mode.
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
    std::os::unix::fs::chown(&file, Some(1000), Some(1000))?;
    let (code, said) = start(agent, folder.path(), &file)?;
    ensure!(
        code == Some(1) && said.contains("belongs to uid 1000"),
        "{code:?}: {said}"
    );
    Ok(())
}

/// An agent that should end at once.
fn start(agent: &Path, folder: &Path, secret: &Path) -> anyhow::Result<(Option<i32>, String)> {
    let listen = format!("unix:{}", folder.join("agent.sock").display());
    let output = Command::new("timeout")
        .arg("60")
        .arg(agent)
        .args(["--listen", &listen, "--runtime-directory"])
        .arg(folder.join("run"))
        .arg("--secret-file")
        .arg(secret)
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Ok((output.status.code(), said))
}

/// Not in the agent's log, nor where users look: arguments, environments, the folders of the agent.
async fn a_secret_is_seen_nowhere(target: &Target) -> Outcome {
    let secret = Secret::random()?;
    let target = guarded(target, &secret).await?;
    for user in ["alice", "root"] {
        target.user(user).files().stat("/").await?;
    }
    let wrong = Vm::new(target.endpoint().clone()).secret(Secret::random()?);
    ensure!(wrong.files().stat("/").await.is_err());
    let log = target.log()?;
    ensure!(log.contains("hosts must prove"), "{log}");
    ensure!(!log.contains(secret.expose()), "it is in the log");
    // The pattern is not in the arguments of what looks for it.
    let look = format!(
        "p=$(printf %s%s {} {}); grep -lF \"$p\" /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null; \
         grep -rlF \"$p\" /run /home; true",
        &secret.expose()[..32],
        &secret.expose()[32..]
    );
    for user in ["alice", "root"] {
        let (_, found) = shell(&target.user(user), &look).await?;
        ensure!(found.is_empty(), "{user} finds it in {found}");
    }
    Ok(())
}
