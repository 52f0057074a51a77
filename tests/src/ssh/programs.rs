//! Commands and shells: what they print, how they end, what they are started with.

use std::time::Duration;

use anyhow::{Context, ensure};
use russh::Sig;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use super::{
    Scene,
    client::{ended, started},
    files::sha256,
    raw::{Finished, Raw, finish, read_until},
};
use crate::{
    eventually::{PATIENCE, eventually},
    gateway::{Orchestrator, World},
    gateway_cases,
    runner::Outcome,
};

gateway_cases![
    output_errors_and_exit_codes_come_back_apart: [40],
    every_exit_code_comes_back_over_one_connection: [40],
    a_signal_reaches_the_program_and_one_that_kills_it_is_told: [40],
    a_terminal_has_a_size_that_follows_and_is_called_as_it_was: [40],
    only_variables_of_language_and_terminal_arrive,
    a_shell_without_a_terminal_takes_a_script,
    stdin_ends_and_output_goes_on,
    a_gibibyte_goes_each_way_across_new_keys: [40],
    what_is_echoed_does_not_stand_still,
    a_channel_that_is_not_read_stops_no_other,
    a_client_that_vanishes_leaves_nothing,
    whoever_meets_a_sleeping_vm_reads_that_it_wakes,
];

async fn output_errors_and_exit_codes_come_back_apart(world: &mut World) -> Outcome {
    let scene = Scene::new(world, Value::Null).await?;
    let ended = scene
        .ssh("alice", "echo out; echo err >&2; pwd; exit 7")
        .await?;
    ensure!(ended.code == Some(7), "{ended:?}");
    ensure!(
        ended.stdout == "out\n/home/alice\n" && ended.stderr == "err\n",
        "{ended:?}"
    );
    let missing = scene.ssh("alice", "no-such-program").await?;
    ensure!(missing.code == Some(127), "{missing:?}");
    Ok(())
}

async fn every_exit_code_comes_back_over_one_connection(world: &mut World) -> Outcome {
    let scene = Scene::new(world, Value::Null).await?;
    let options = ["-o", "ControlMaster=auto", "-o", "ControlPersist=60"];
    let name = scene.name("alice");
    for code in 0..=255 {
        let line = format!("exit {code}");
        let ended = scene.clients.ssh_with(&options, &name, &[&line]).await?;
        ensure!(ended.code == Some(code), "{code}: {ended:?}");
    }
    let log = std::fs::read_to_string(scene.gateway.folder().join("audit.jsonl"))?;
    let logins = log
        .lines()
        .filter(|line| line.contains(r#""verb":"ssh""#) && line.contains(r#""phase":"start""#));
    ensure!(logins.count() == 1, "it was not one connection");
    let exit = ["-O", "exit"];
    scene.clients.ssh_with(&exit, &name, &[]).await?.ok()?;
    Ok(())
}

async fn a_signal_reaches_the_program_and_one_that_kills_it_is_told(world: &mut World) -> Outcome {
    let scene = Scene::new(world, Value::Null).await?;
    let raw = Raw::log_in(scene.gateway.ssh()?, &scene.name("alice")).await?;
    for (signal, name) in [
        (Sig::TERM, "TERM"),
        (Sig::KILL, "KILL"),
        (Sig::USR1, "USR1"),
    ] {
        let mut channel = raw.session().await?;
        channel.exec(true, "echo up; sleep 1000").await?;
        read_until(&mut channel, "up").await?;
        channel.signal(signal).await?;
        let finished = finish(channel).await;
        ensure!(finished.signal.as_deref() == Some(name), "{finished:?}");
    }
    let mut channel = raw.session().await?;
    let line = "trap 'echo heard; exit 9' USR2; echo up; while :; do sleep 0.01; done";
    channel.exec(true, line).await?;
    read_until(&mut channel, "up").await?;
    channel.signal(Sig::Custom("USR2".into())).await?;
    let finished = finish(channel).await;
    let expected = Finished {
        stdout: "heard\n".into(),
        code: Some(9),
        signal: None,
    };
    ensure!(
        finished.stdout.ends_with("heard\n") && finished.code == expected.code,
        "{finished:?}"
    );
    // OpenSSH's client has no other way to tell.
    let killed = scene.ssh("alice", "kill -KILL $$").await?;
    ensure!(killed.code == Some(255), "{killed:?}");
    Ok(())
}

async fn a_terminal_has_a_size_that_follows_and_is_called_as_it_was(world: &mut World) -> Outcome {
    let scene = Scene::new(world, Value::Null).await?;
    let raw = Raw::log_in(scene.gateway.ssh()?, &scene.name("alice")).await?;
    let mut channel = raw.session().await?;
    channel
        .request_pty(true, "xterm-256color", 100, 30, 0, 0, &[])
        .await?;
    channel.request_shell(true).await?;
    channel
        .data(&b"stty size; echo $TERM:$(tty); echo one\n"[..])
        .await?;
    // The terminal echoes the line too, so the last word comes twice.
    let read = read_until(&mut channel, "\r\none\r\n").await?;
    ensure!(
        read.contains("30 100") && read.contains("xterm-256color:/dev/pts/"),
        "{read:?}"
    );
    channel.window_change(61, 17, 0, 0).await?;
    channel.data(&b"stty size; echo two\n"[..]).await?;
    let read = read_until(&mut channel, "\r\ntwo\r\n").await?;
    ensure!(read.contains("17 61"), "{read:?}");
    // ^C ends what runs, and not the shell.
    channel
        .data(&b"sh -c 'echo rea\\dy; exec sleep 1000'\n"[..])
        .await?;
    read_until(&mut channel, "\r\nready").await?;
    channel.data(&b"\x03"[..]).await?;
    // What is typed before the shell is back may go with what the terminal flushes at a ^C (NOFLSH, termios(3)).
    read_until(&mut channel, "$ ").await?;
    channel.data(&b"echo $?:three; exit 5\n"[..]).await?;
    let finished = finish(channel).await;
    ensure!(
        finished.code == Some(5) && finished.stdout.contains("130:three"),
        "{finished:?}"
    );
    let (options, name) = (["-tt"], scene.name("alice"));
    let forced = scene
        .clients
        .ssh_with(&options, &name, &["tty; exit 3"])
        .await?;
    ensure!(
        forced.code == Some(3) && forced.stdout.starts_with("/dev/pts/"),
        "{forced:?}"
    );
    Ok(())
}

async fn only_variables_of_language_and_terminal_arrive(world: &mut World) -> Outcome {
    let scene = Scene::new(world, Value::Null).await?;
    let sent = "SetEnv=LC_TEST=yes LANG=C.UTF-8 PATH=/evil LD_PRELOAD=/evil.so FOO=bar";
    let options = ["-o", sent];
    let line = "echo $LC_TEST:$LANG:$FOO:$LD_PRELOAD:; echo $PATH; echo $SSH_CLIENT";
    let name = scene.name("alice");
    let printed = scene
        .clients
        .ssh_with(&options, &name, &[line])
        .await?
        .ok()?;
    ensure!(printed.starts_with("yes:C.UTF-8:::\n"), "{printed}");
    ensure!(
        !printed.contains("evil") && printed.contains("127.0.0.1 "),
        "{printed}"
    );
    Ok(())
}

async fn a_shell_without_a_terminal_takes_a_script(world: &mut World) -> Outcome {
    let scene = Scene::new(world, Value::Null).await?;
    let mut ssh = scene.clients.command("ssh");
    ssh.arg(format!("{}@gateway", scene.name("alice")));
    ssh.stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped());
    let mut child = ssh.spawn()?;
    let mut stdin = child.stdin.take().context("stdin")?;
    stdin.write_all(b"cd /\npwd\ntty\nexit 4\n").await?;
    drop(stdin);
    let output = child.wait_with_output().await?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.code() == Some(4) && printed == "/\nnot a tty\n",
        "{printed:?}"
    );
    Ok(())
}

async fn stdin_ends_and_output_goes_on(world: &mut World) -> Outcome {
    let scene = Scene::new(world, Value::Null).await?;
    let line = format!(
        "printf abc | ssh -F {}/config {}@gateway 'cat; echo; sleep 0.2; echo after'",
        scene.clients.folder().display(),
        scene.name("alice"),
    );
    let mut sh = tokio::process::Command::new("sh");
    sh.args(["-c", &line]);
    ensure!(ended(sh).await?.ok()? == "abc\nafter\n");
    // Nobody reads what is sent, and the program ends all the same.
    let line = format!(
        "head -c 20000000 /dev/zero | ssh -F {}/config {}@gateway 'exit 6'",
        scene.clients.folder().display(),
        scene.name("alice"),
    );
    let mut sh = tokio::process::Command::new("sh");
    sh.args(["-c", &line]);
    ensure!(ended(sh).await?.code == Some(6));
    Ok(())
}

async fn a_gibibyte_goes_each_way_across_new_keys(world: &mut World) -> Outcome {
    let scene = Scene::new(world, Value::Null).await?;
    // New keys are wanted by the client, and by the gateway, after 1 GiB (`REKEY_BYTES`).
    let folder = scene.clients.folder().display();
    let ssh = |log: &str, limit: &str| {
        let name = scene.name("alice");
        format!("ssh -v -E {folder}/{log} -F {folder}/config -o RekeyLimit={limit} {name}@gateway")
    };
    let source = "yes guestline | head -c 1100000000";
    let lines = [
        format!("{source} | sha256sum"),
        format!("{source} | {} sha256sum", ssh("up", "256M")),
        format!("{} '{source}' | sha256sum", ssh("down", "4G")),
    ];
    let mut sums = Vec::new();
    for line in lines {
        sums.push(sha256(&line).await?);
    }
    ensure!(sums[0] == sums[1] && sums[0] == sums[2], "{sums:?}");
    // The first are those that the connection began with.
    for (log, least) in [("up", 4), ("down", 2)] {
        let log = std::fs::read_to_string(scene.clients.folder().join(log))?;
        let keys = log.matches("SSH2_MSG_KEXINIT received").count();
        ensure!(keys >= least, "{keys} times new keys: {log}");
    }
    Ok(())
}

async fn what_is_echoed_does_not_stand_still(world: &mut World) -> Outcome {
    let scene = Scene::new(world, Value::Null).await?;
    let line = format!(
        "yes guestline | head -c 64000000 | ssh -F {}/config {}@gateway cat | wc -c",
        scene.clients.folder().display(),
        scene.name("alice"),
    );
    let mut sh = tokio::process::Command::new("sh");
    sh.args(["-c", &line]);
    ensure!(ended(sh).await?.ok()?.trim() == "64000000");
    Ok(())
}

async fn a_channel_that_is_not_read_stops_no_other(world: &mut World) -> Outcome {
    let scene = Scene::new(world, Value::Null).await?;
    let options = ["-o", "ControlMaster=auto", "-o", "ControlPersist=60"];
    let name = scene.name("alice");
    scene
        .clients
        .ssh_with(&options, &name, &["true"])
        .await?
        .ok()?;
    let mut stalled = scene.clients.command("ssh");
    stalled
        .args(options)
        .args([&format!("{name}@gateway"), "echo up; sleep 1000"]);
    stalled.stdin(std::fs::File::open("/dev/zero")?);
    let mut stalled = started(stalled).await?;
    let memory = resident(scene.gateway.pid()?)?;
    for _ in 0..20 {
        let other = scene
            .clients
            .ssh_with(&options, &name, &["echo hi"])
            .await?;
        ensure!(other.ok()? == "hi\n");
    }
    let line = "head -c 50000000 /dev/zero | tr '\\0' x";
    let large = scene.clients.ssh_with(&options, &name, &[line]).await?;
    ensure!(large.ok()?.len() == 50_000_000);
    let grown = resident(scene.gateway.pid()?)?.saturating_sub(memory);
    ensure!(grown < 64 * 1024, "{grown} KiB more");
    stalled.kill().await?;
    scene
        .clients
        .ssh_with(&["-O", "exit"], &name, &[])
        .await?
        .ok()?;
    Ok(())
}

/// KiB.
fn resident(pid: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    Ok(line
        .context("VmRSS")?
        .trim()
        .trim_end_matches(" kB")
        .parse()?)
}

async fn a_client_that_vanishes_leaves_nothing(world: &mut World) -> Outcome {
    let scene = Scene::new(world, Value::Null).await?;
    let mut ssh = scene.clients.command("ssh");
    ssh.args([
        &format!("{}@gateway", scene.name("alice")),
        "echo up; exec sleep 4711.25",
    ]);
    // Its stdin is never read: the client is noticed all the same.
    ssh.stdin(std::fs::File::open("/dev/zero")?);
    let mut child = started(ssh).await?;
    let runs = async || -> anyhow::Result<bool> {
        let found = scene.ssh("alice", "pgrep -f '^sleep 4711.25'").await?;
        Ok(found.code == Some(0))
    };
    // It says that it is up just before it becomes that.
    eventually("the program runs", PATIENCE, async || runs().await).await?;
    child.kill().await?;
    eventually("the program is gone", PATIENCE, async || Ok(!runs().await?)).await
}

async fn whoever_meets_a_sleeping_vm_reads_that_it_wakes(world: &mut World) -> Outcome {
    let scene = Scene::new(world, Value::Null).await?;
    let orchestrator = Orchestrator::start(200, "{}", Duration::from_millis(300)).await?;
    for (terminal, expected) in [("-tt", true), ("-T", false)] {
        let mut registration = world.registration();
        registration["state"] = json!("suspended");
        registration["hooks"] = json!({"start": orchestrator.url("start")});
        let vm = scene.admin.register(registration).await?;
        scene
            .admin
            .grant(&scene.identity, &vm, json!(["alice"]))
            .await?;
        let name = format!("{vm}+alice:{}", scene.token.secret());
        let refused = format!("{vm}+bob:{}", scene.token.secret());
        let woken = orchestrator.count("start");
        ensure!(scene.clients.ssh(&refused, &["true"]).await?.code == Some(255));
        ensure!(
            orchestrator.count("start") == woken,
            "a refused login woke the VM"
        );
        let ended = scene
            .clients
            .ssh_with(&[terminal], &name, &["echo hi"])
            .await?;
        ensure!(
            ended.code == Some(0) && ended.stdout.contains("hi"),
            "{ended:?}"
        );
        let told = ended.stderr.contains("waking the VM") || ended.stdout.contains("waking the VM");
        ensure!(told == expected, "{terminal}: {ended:?}");
        ensure!(orchestrator.count("start") == woken + 1);
    }
    Ok(())
}
