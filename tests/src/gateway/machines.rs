//! Machines that a gateway runs itself, over the gateway's own ends: `guestline-tests sdk` runs these too, because they
//! boot real machines.

use std::{
    process::Stdio,
    time::{Duration, SystemTime},
};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokio::{process::Command, time::timeout};

use super::{Caller, Gateway, Setting, text};
use crate::{
    eventually::{PATIENCE, eventually},
    runner::Outcome,
};

/// A boot under emulation, on a busy machine.
const BOOT_LIMIT: Duration = Duration::from_secs(300);

/// A gateway is killed; its machines go on, and the next gateway on its folder finds them.
pub async fn running_machines_outlive_their_gateway(setting: &Setting) -> Outcome {
    let data = tempfile::tempdir()?;
    let gateway = Gateway::start(setting, data.path()).await?;
    let admin = gateway.admin()?;
    let vm = create(&admin, json!({"users": [{"name": "alice"}]})).await?;
    let boot = boot_id(&admin, &vm).await?;
    gateway.crash().await?;
    let gateway = Gateway::start(setting, data.path()).await?;
    let admin = gateway.caller(admin.secret())?;
    let again = boot_id(&admin, &vm).await?;
    ensure!(boot == again, "it was booted again: {boot} {again}");
    // One that ended by itself is stopped, and wakes.
    let _ = admin.exec(&vm, "poweroff -f").await?;
    eventually("it is stopped", BOOT_LIMIT, async || {
        Ok(admin.get(&format!("/v1/vms/{vm}")).await?.ok()?["state"] == "stopped")
    })
    .await?;
    let booted = admin.user("alice").exec(&vm, "id -un").await?.ok()?;
    ensure!(booted["stdout"] == "alice\n", "{booted}");
    admin.delete(&format!("/v1/vms/{vm}")).await?.ok()?;
    ensure!(processes_of(&vm)? == 0, "something of it still runs");
    Ok(())
}

/// A suspended machine goes on where it was, at the host's time, for whoever may use it.
pub async fn a_suspended_machine_keeps_its_memory_and_gets_the_time(setting: &Setting) -> Outcome {
    let data = tempfile::tempdir()?;
    let gateway = Gateway::start(setting, data.path()).await?;
    let admin = gateway.admin()?;
    let vm = create(&admin, json!({"users": [{"name": "alice"}]})).await?;
    let identity = admin.identity().await?;
    admin.grant(&identity, &vm, json!(["alice"])).await?;
    let alice = admin.token(&identity).await?.1.user("alice");
    alice
        .exec(
            &vm,
            "sleep 3600 >/dev/null 2>&1 & echo $! > /tmp/pid; echo kept > /tmp/x",
        )
        .await?
        .ok()?;
    let boot = boot_id(&admin, &vm).await?;
    // As in a snapshot of before: a processor that only stands still has a clock that goes on.
    let earlier = "date -s @$(( $(date +%s) - 3600 ))";
    ensure!(admin.exec(&vm, earlier).await?.ok()?["statusCode"] == 0);
    let path = |action: &str| format!("/v1/vms/{vm}/{action}");
    admin.post(&path("suspend"), json!({})).await?.ok()?;
    let state =
        async || anyhow::Ok(admin.get(&format!("/v1/vms/{vm}")).await?.ok()?["state"].clone());
    ensure!(state().await? == "suspended");
    ensure!(alice.user("root").exec(&vm, "id").await?.failure() == (403, "VM_ACCESS_DENIED"));
    ensure!(state().await? == "suspended", "a refused request woke it");
    let seconds = || -> anyhow::Result<u64> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        Ok(now.as_secs())
    };
    let asked = seconds()?;
    let woken = alice
        .exec(
            &vm,
            "cat /tmp/x; kill -0 $(cat /tmp/pid) && echo lives; date +%s",
        )
        .await?
        .ok()?;
    let now = seconds()?;
    let said: Vec<&str> = text(&woken, "stdout")?.lines().collect();
    ensure!(said.len() == 3 && said[..2] == ["kept", "lives"], "{woken}");
    // It was told the time after we asked, and looked at it before we heard.
    let shown: u64 = said[2].parse()?;
    ensure!(
        (asked..=now).contains(&shown),
        "its clock shows {shown} between {asked} and {now}"
    );
    ensure!(boot_id(&admin, &vm).await? == boot && state().await? == "running");
    // Stopped out of its sleep, it is booted again.
    admin.post(&path("suspend"), json!({})).await?.ok()?;
    admin.post(&path("stop"), json!({})).await?.ok()?;
    ensure!(state().await? == "stopped" && qemus_of(&vm)? == 0);
    ensure!(boot_id(&admin, &vm).await? != boot);
    admin.delete(&format!("/v1/vms/{vm}")).await?.ok()?;
    Ok(())
}

/// An ephemeral machine is gone when it would be suspended, when it is stopped, and when it ends by itself.
pub async fn an_ephemeral_machine_goes_when_it_ends(setting: &Setting) -> Outcome {
    let data = tempfile::tempdir()?;
    let gateway = Gateway::start(setting, data.path()).await?;
    let admin = gateway.admin()?;
    let ephemeral = async |event: Value| {
        let body = json!({"persistence": {"type": "ephemeral", "deleteEvent": event}});
        create(&admin, body).await
    };
    let gone = async |vm: &str| {
        let answer = admin.get(&format!("/v1/vms/{vm}")).await?;
        anyhow::Ok(answer.failure() == (404, "VM_NOT_FOUND") && processes_of(vm)? == 0)
    };
    let vm = ephemeral(json!(null)).await?;
    admin
        .post(&format!("/v1/vms/{vm}/suspend"), json!({}))
        .await?
        .ok()?;
    ensure!(gone(&vm).await?, "{vm} is still there");
    // One that may be suspended keeps its memory meanwhile.
    let vm = ephemeral(json!("OnStop")).await?;
    let boot = boot_id(&admin, &vm).await?;
    for action in ["suspend", "start"] {
        let path = format!("/v1/vms/{vm}/{action}");
        admin.post(&path, json!({})).await?.ok()?;
    }
    ensure!(boot_id(&admin, &vm).await? == boot, "it was booted again");
    admin
        .post(&format!("/v1/vms/{vm}/stop"), json!({}))
        .await?
        .ok()?;
    ensure!(gone(&vm).await?, "{vm} is still there");
    let vm = ephemeral(json!("OnStop")).await?;
    let _ = admin.exec(&vm, "poweroff -f").await?;
    eventually("it is gone", BOOT_LIMIT, async || gone(&vm).await).await?;
    let left = std::fs::read_dir(data.path().join("machines"))?.count();
    ensure!(left == 0, "{left} files of machines are left");
    Ok(())
}

/// An ephemeral machine goes when its idle timeout would suspend it; one that may be suspended is, and goes on after its
/// gateway was killed, wherever the next one looks for records. Those that end while there is no gateway are gone.
pub async fn an_ephemeral_machine_outlives_its_gateway_but_not_its_end(
    setting: &Setting,
) -> Outcome {
    let data = tempfile::tempdir()?;
    let gateway = Gateway::start(setting, data.path()).await?;
    let admin = gateway.admin()?;
    let ephemeral = async |event: Value, idle: Value| {
        let persistence = json!({"type": "ephemeral", "deleteEvent": event});
        let body = json!({"persistence": persistence, "idleTimeoutSeconds": idle});
        create(&admin, body).await
    };
    let idle = ephemeral(json!(null), json!(2)).await?;
    let sleeper = ephemeral(json!("OnStop"), json!(2)).await?;
    let awake = ephemeral(json!(null), json!(null)).await?;
    let boots = [
        boot_id(&admin, &sleeper).await?,
        boot_id(&admin, &awake).await?,
    ];
    let state = async |admin: &Caller, vm: &str| {
        let answer = admin.get(&format!("/v1/vms/{vm}")).await?;
        anyhow::Ok(match answer.failure() {
            (404, "VM_NOT_FOUND") if processes_of(vm)? == 0 => "gone".to_owned(),
            (404, "VM_NOT_FOUND") => "gone, but for its processes".to_owned(),
            _ => text(&answer.ok()?, "state")?.to_owned(),
        })
    };
    eventually("the idle one is gone", BOOT_LIMIT, async || {
        Ok(state(&admin, &idle).await? == "gone")
    })
    .await?;
    eventually("the other idle one sleeps", BOOT_LIMIT, async || {
        Ok(state(&admin, &sleeper).await? == "suspended")
    })
    .await?;
    gateway.crash().await?;
    let elsewhere = tempfile::tempdir()?;
    let moved = Setting {
        runtime: Some(elsewhere.path().into()),
        ..setting.clone()
    };
    let gateway = Gateway::start(&moved, data.path()).await?;
    let admin = gateway.caller(admin.secret())?;
    let states = [state(&admin, &sleeper).await?, state(&admin, &awake).await?];
    ensure!(states == ["suspended", "running"], "{states:?}");
    let again = [
        boot_id(&admin, &sleeper).await?,
        boot_id(&admin, &awake).await?,
    ];
    ensure!(again == boots, "one was booted again: {boots:?} {again:?}");
    eventually("it sleeps again", BOOT_LIMIT, async || {
        Ok(state(&admin, &sleeper).await? == "suspended")
    })
    .await?;
    gateway.crash().await?;
    for vm in [&sleeper, &awake] {
        guestline_machine::stop(vm)?;
    }
    let gateway = Gateway::start(setting, data.path()).await?;
    let admin = gateway.caller(admin.secret())?;
    for vm in [&sleeper, &awake] {
        let state = state(&admin, vm).await?;
        ensure!(state == "gone", "{vm} is {state}");
    }
    let left = std::fs::read_dir(data.path().join("machines"))?.count();
    ensure!(left == 0, "{left} files of machines are left");
    Ok(())
}

/// The machine's vsock is a process of the host's, where the kernel has none: without it, and with another in its place, which
/// this QEMU does not look for, each call is an error that says so, at once; and the machine that is started again is whole.
pub async fn a_machine_that_lost_its_vsock_is_an_error_until_it_is_started_again(
    setting: &Setting,
) -> Outcome {
    let data = tempfile::tempdir()?;
    let gateway = Gateway::start(setting, data.path()).await?;
    let admin = gateway.admin()?;
    let vm = create(&admin, json!({"users": [{"name": "alice"}]})).await?;
    let alice = admin.user("alice");
    let (pid, words) = vsock_of(&vm)?.context("no process gives it its vsock")?;
    let under_way = tokio::spawn({
        let (alice, vm) = (alice.clone(), vm.clone());
        async move { alice.exec(&vm, "touch /tmp/begun; sleep 1000").await }
    });
    eventually("it is under way", BOOT_LIMIT, async || {
        let begun = alice.exec(&vm, "test -e /tmp/begun").await?.ok()?;
        Ok(begun["statusCode"] == 0)
    })
    .await?;
    let kill = Command::new("kill").args(["-9", &pid]).status().await?;
    ensure!(kill.success(), "cannot kill {pid}");
    let no_agent = (500, "RESUMED_VM_NON_RESPONSIVE");
    let lost = timeout(PATIENCE, under_way)
        .await
        .context("it goes on")???;
    ensure!(lost.failure() == no_agent, "{lost:?}");
    let without = timeout(PATIENCE, alice.exec(&vm, "true")).await;
    let without = without.context("no answer without a vsock")??;
    ensure!(without.failure() == no_agent, "{without:?}");

    let (program, arguments) = words.split_first().context("a program")?;
    let mut other = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let listens = async || {
        let socket = words.iter().find_map(|word| word.split("uds-path=").nth(1));
        let socket = socket.context("no path of a socket")?;
        Ok(tokio::net::UnixStream::connect(socket).await.is_ok())
    };
    eventually("another listens", PATIENCE, listens).await?;
    let with_another = timeout(PATIENCE, alice.exec(&vm, "true")).await;
    let with_another = with_another.context("no answer with another vsock")??;
    ensure!(with_another.failure() == no_agent, "{with_another:?}");
    other.kill().await?;

    for action in ["stop", "start"] {
        let path = format!("/v1/vms/{vm}/{action}");
        let done = admin.post(&path, json!({})).await?.ok();
        done.context(action)?;
    }
    let said = alice.exec(&vm, "id -un").await?.ok()?;
    ensure!(said["stdout"] == "alice\n", "{said}");
    admin.delete(&format!("/v1/vms/{vm}")).await?.ok()?;
    ensure!(processes_of(&vm)? == 0, "something of it still runs");
    Ok(())
}

/// The process that gives a machine its vsock, and its arguments.
fn vsock_of(vm: &str) -> anyhow::Result<Option<(String, Vec<String>)>> {
    for process in std::fs::read_dir("/proc")?.flatten() {
        let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        let words: Vec<String> = line
            .trim_end_matches('\0')
            .split('\0')
            .map(Into::into)
            .collect();
        if words[0].ends_with("vhost-device-vsock") && line.contains(vm) {
            let pid = process.file_name().to_string_lossy().into_owned();
            return Ok(Some((pid, words)));
        }
    }
    Ok(None)
}

/// What makes no machine is a clear error, and makes none.
pub async fn what_cannot_be_created_is_not(setting: &Setting) -> Outcome {
    let data = tempfile::tempdir()?;
    let gateway = Gateway::start(setting, data.path()).await?;
    let admin = gateway.admin()?;
    let wrong = json!({"users": [{"name": "eve", "groups": ["no-such-group"]}]});
    let answer = admin.post("/v1/vms", wrong).await?;
    ensure!(answer.failure() == (500, "VM_SETUP_FAILED"), "{answer:?}");
    ensure!(!text(&answer.body, "failedReason")?.is_empty());
    ensure!(
        admin.get("/v1/vms").await?.ok()?["totalCount"] == 0,
        "it is still there"
    );
    let made = json!({
        "groups": [{"name": "team", "gid": 2500}],
        "users": [{"name": "carol", "uid": 2000, "groups": ["team"]}],
        "workdir": "/srv/work",
        "rootfsSizeGb": 5,
        "additionalFiles": {"/srv/work/x": {"content": "aGk=", "encoding": "base64"}},
    });
    let vm = create(&admin, made).await?;
    let carol = admin
        .user("carol")
        .exec(
            &vm,
            "id -u; id -Gn; cat x; echo; df --output=size --block-size=G / | tail -n 1 | tr -d ' '",
        )
        .await?
        .ok()?;
    ensure!(
        text(&carol, "stdout")?.starts_with("2000\n")
            && text(&carol, "stdout")?.ends_with("team\nhi\n5G\n"),
        "{carol}"
    );
    admin.delete(&format!("/v1/vms/{vm}")).await?.ok()?;
    Ok(())
}

pub(super) async fn create(admin: &Caller, body: Value) -> anyhow::Result<String> {
    let answer = admin.post("/v1/vms", body).await?.ok()?;
    Ok(answer["id"].as_str().context("no id")?.into())
}

/// New at each boot.
pub(super) async fn boot_id(admin: &Caller, vm: &str) -> anyhow::Result<Value> {
    let said = admin
        .exec(vm, "cat /proc/sys/kernel/random/boot_id")
        .await?;
    Ok(said.ok()?["stdout"].clone())
}

/// By the machine's name in their arguments.
pub(super) fn processes_of(vm: &str) -> anyhow::Result<usize> {
    let named = command_lines()?.filter(|line| line.contains(vm));
    Ok(named.count())
}

/// Those of them that are the machine itself.
pub(super) fn qemus_of(vm: &str) -> anyhow::Result<usize> {
    let is_qemu = |line: &str| {
        line.split('\0')
            .next()
            .is_some_and(|name| name.contains("qemu-system"))
    };
    let named = command_lines()?.filter(|line| is_qemu(line) && line.contains(vm));
    Ok(named.count())
}

fn command_lines() -> anyhow::Result<impl Iterator<Item = String>> {
    let processes = std::fs::read_dir("/proc")?.flatten();
    Ok(processes.map(|process| {
        let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).into_owned()
    }))
}
