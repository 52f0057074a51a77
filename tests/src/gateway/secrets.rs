//! Where secrets must not be: the database, the logs, the process list, and a core dump, which there is none of.

use std::{
    fs,
    os::unix::{
        fs::{PermissionsExt, chown},
        process::ExitStatusExt,
    },
    path::Path,
    process::Stdio,
};

use anyhow::{Context, ensure};
use reqwest::Method;
use serde_json::Value;
use tokio::process::{Child, Command};

use super::{Gateway, Setting, World};
use crate::{
    eventually::{PATIENCE, eventually},
    gateway_cases,
    runner::Outcome,
};

gateway_cases![
    no_secret_is_in_the_database_the_logs_or_the_process_list: [36],
    a_gateway_that_crashes_leaves_no_core: [36],
    no_other_process_of_its_user_looks_into_it: [36],
];

async fn no_secret_is_in_the_database_the_logs_or_the_process_list(world: &mut World) -> Outcome {
    let gateway = world.gateway().await?;
    let (vm, token) = world.granted(&gateway, Value::Null).await?;
    token.user("alice").exec(&vm, "id").await?.ok()?;
    // Where the SDK puts it, and where a page puts it for a WebSocket.
    let elsewhere = [
        (
            "x-freestyle-identity-access-token",
            token.secret().to_owned(),
        ),
        (
            "sec-websocket-protocol",
            format!("guestline.token.{}", token.secret()),
        ),
    ];
    for (header, value) in elsewhere {
        let request = gateway.caller("")?.request(Method::GET, "/auth/v1/whoami");
        let request = request.header(header, value);
        ensure!(request.send().await?.status().is_client_error());
    }
    let mut broken = token.secret().to_owned();
    broken.pop();
    gateway.caller(&broken)?.exec(&vm, "id").await?;
    let key = gateway.key().context("no key")?.to_owned();
    let command_line = fs::read_to_string(format!("/proc/{}/cmdline", gateway.pid()?))?;
    let folder = gateway.folder().to_owned();
    gateway.terminate().await?;
    gateway.ended().await?;
    let mut places = vec![("the process list".to_owned(), command_line.into_bytes())];
    read_all(&folder, &mut places)?;
    places.extend(
        world
            .dump()?
            .map(|dump| ("the dump".into(), dump.into_bytes())),
    );
    ensure!(places.len() >= 3, "too little was searched");
    for secret in [&key, token.secret()] {
        // The random part alone, in case only that was written somewhere.
        let random = &secret[secret.len() - 40..secret.len() - 8];
        for (name, bytes) in &places {
            let found = bytes
                .windows(random.len())
                .any(|window| window == random.as_bytes());
            ensure!(!found, "a secret is in {name}");
        }
    }
    Ok(())
}

fn read_all(folder: &Path, places: &mut Vec<(String, Vec<u8>)>) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            read_all(&path, places)?;
        } else {
            places.push((path.display().to_string(), fs::read(&path)?));
        }
    }
    Ok(())
}

async fn a_gateway_that_crashes_leaves_no_core(world: &mut World) -> Outcome {
    // That it can be seen here: another program leaves one.
    let folder = tempfile::tempdir()?;
    let mut sleeper = Command::new("sleep")
        .arg("1000")
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let pid = sleeper.id().context("it has ended")?;
    ensure!(
        dumps_core(pid, &mut sleeper).await?,
        "no program leaves a core here: see /proc/sys/kernel/core_pattern"
    );
    let gateway = world.gateway().await?;
    let (vm, token) = world.granted(&gateway, Value::Null).await?;
    token.user("alice").exec(&vm, "id").await?.ok()?;
    let pid = gateway.pid()?;
    let mut process = gateway.into_process();
    ensure!(!dumps_core(pid, &mut process).await?, "it left a core");
    Ok(())
}

/// Whom a gateway runs as that is not root's: `nobody` is everywhere, and owns the PostgreSQL server's socket.
const NOBODY: u32 = 65534;
const AS_NOBODY: &str = "setpriv --reuid=65534 --regid=65534 --clear-groups";

async fn no_other_process_of_its_user_looks_into_it(world: &mut World) -> Outcome {
    let folder = tempfile::tempdir_in("/var/tmp")?;
    let (program, data) = (folder.path().join("program"), folder.path().join("data"));
    fs::copy(world.program(), folder.path().join("guestline-gateway"))?;
    fs::write(
        &program,
        format!("#!/bin/sh\nexec {AS_NOBODY} \"${{0%/*}}/guestline-gateway\" \"$@\"\n"),
    )?;
    fs::create_dir(&data)?;
    chown(&data, Some(NOBODY), Some(NOBODY))?;
    for path in [folder.path(), &program] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    }
    let setting = Setting {
        program,
        ..world.setting.clone()
    };
    let gateway = Gateway::start(&setting, &data).await?;
    let mut words = AS_NOBODY.split(' ');
    let mut sleeper = Command::new(words.next().unwrap_or_default())
        .args(words)
        .args(["sleep", "1000"])
        .kill_on_drop(true)
        .spawn()?;
    let other = sleeper.id().context("it has ended")?;
    eventually("it is nobody's", PATIENCE, async || is_seen(other).await)
        .await
        .context("this host lets no process look into another of its user")?;
    ensure!(!is_seen(gateway.pid()?).await?, "its environment is read");
    sleeper.kill().await?;
    Ok(())
}

/// Whether `nobody` may read the process's environment: the same check of the kernel's as for its memory (proc(5)).
async fn is_seen(pid: u32) -> anyhow::Result<bool> {
    let mut words = AS_NOBODY.split(' ');
    let read = Command::new(words.next().unwrap_or_default())
        .args(words)
        .arg("cat")
        .arg(format!("/proc/{pid}/environ"))
        .output()
        .await?;
    Ok(read.status.success())
}

/// SIGABRT, as of abort(3). Rust's runtime has a handler of its own for SIGSEGV.
const ABORTED: i32 = 6;

/// Makes the process crash with every right to leave a core.
async fn dumps_core(pid: u32, process: &mut Child) -> anyhow::Result<bool> {
    let pid = pid.to_string();
    for words in [
        &["prlimit", "--core=unlimited:unlimited", "--pid", &pid][..],
        &["kill", "-s", "ABRT", &pid],
    ] {
        let done = Command::new(words[0]).args(&words[1..]).status().await;
        let done = done.with_context(|| format!("cannot run {}", words[0]))?;
        ensure!(done.success(), "{words:?}: {done}");
    }
    let ended = tokio::time::timeout(PATIENCE, process.wait());
    let status = ended.await.context("it did not crash")??;
    ensure!(status.signal() == Some(ABORTED), "it ended with {status}");
    Ok(status.core_dumped())
}
