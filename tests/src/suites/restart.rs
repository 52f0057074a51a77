//! A listener that is killed and started again by the guest's init: what runs goes on, and can be found.

use anyhow::{Context, ensure};
use guestline_client::{AttachEvent, Attached, Event, Offsets, Process};

use tokio::{io::AsyncReadExt, time::timeout};

use super::{commands::guestline, faults::kill_worker, shell};
use crate::{
    cases,
    eventually::{PATIENCE, eventually},
    runner::Outcome,
    target::Target,
};

cases![
    what_runs_outlives_the_listener_and_is_found_again: [32],
    who_was_killed_with_the_listener_goes_on_where_it_had_come_to: [23, 32],
];

/// The listener's pid, by root: of the agent's processes the one that is neither a worker nor an usher. Nor is it one that is
/// ending, and has no words any more, or a child of the agent's that is still to execute what it will be.
pub(super) const FIND_LISTENER: &str = r#"
agent=$(readlink /proc/$PPID/exe)
for p in /proc/[0-9]*; do
  [ "$(readlink $p/exe)" = "$agent" ] || continue
  case $(tr '\0' ' ' < $p/cmdline) in ''|*" worker "*|*" usher "*) continue;; esac
  parent=$(sed -n 's/^PPid:[^0-9]*//p' $p/status)
  [ "$(readlink /proc/$parent/exe)" = "$agent" ] || echo ${p#/proc/}
done
"#;

/// How many workers of alice there are.
pub(super) const COUNT_WORKERS: &str = r#"
agent=$(readlink /proc/$PPID/exe)
for p in /proc/[0-9]*; do
  [ "$(readlink $p/exe)" = "$agent" ] || continue
  tr '\0' ' ' < $p/cmdline | grep -q ' worker -- alice' && echo ${p#/proc/}
done | wc -l
"#;

pub(super) async fn kill_listener(target: &Target) -> anyhow::Result<()> {
    let (_, before) = shell(&target.user("root"), FIND_LISTENER).await?;
    let pid: u32 = before
        .trim()
        .parse()
        .with_context(|| format!("{before:?}"))?;
    let (killed, _) = shell(&target.user("root"), &format!("kill -9 {pid}")).await?;
    ensure!(killed, "the listener {pid} was not killed");
    eventually("there is a new listener", PATIENCE, || async {
        // Until then there is nobody to connect to.
        let found = shell(&target.user("root"), FIND_LISTENER).await;
        Ok(found.is_ok_and(|(_, now)| now != before && !now.trim().is_empty()))
    })
    .await
}

/// Starts listener and workers again, as such that do without a defence; for a build with switches.
pub(crate) async fn restart_without(target: &Target, defence: &str) -> Outcome {
    let root = target.user("root");
    let line = format!("printf %s '{defence}' > $(readlink /proc/$PPID/exe).switches");
    ensure!(shell(&root, &line).await?.0, "no switches can be set");
    for user in ["alice", "bob"] {
        kill_worker(target, &target.user(user)).await?;
    }
    kill_listener(target).await
}

/// Everything to the end.
pub(super) async fn rest(mut attached: Attached) -> anyhow::Result<(String, Option<i32>)> {
    let mut text = String::new();
    loop {
        match attached.event().await? {
            AttachEvent::Stdout(data) => text += std::str::from_utf8(&data)?,
            AttachEvent::Exited(exit) => return Ok((text, exit.code)),
            other => anyhow::bail!("{other:?}"),
        }
    }
}

async fn what_runs_outlives_the_listener_and_is_found_again(target: &Target) -> Outcome {
    let line = "i=0; while [ $i -lt 100 ]; do i=$((i+1)); echo $i; sleep 0.05; done; exit 5";
    let alice = target.user("alice");
    let started = alice.shell(line).start(None).await?;
    let id = started.process_id;
    let mut old = alice.processes().attach(id, Offsets::default()).await?;
    let AttachEvent::Stdout(first) = old.event().await? else {
        anyhow::bail!("it begins with output");
    };
    let reached = old.reached();
    let bob = target.user("bob");
    let cat = bob.command("cat").stdin(true).spawn().await?;

    kill_listener(target).await?;

    let again = target.user("alice");
    let known = again.processes().list().await?;
    let found = known
        .iter()
        .filter(|process| process.process_id == id)
        .count();
    ensure!(found == 1, "the process is listed {found} times");
    let new = again.processes().attach(id, reached).await?;
    let (on_new, on_old) = tokio::try_join!(rest(new), rest(old))?;
    let first = String::from_utf8_lossy(&first);
    let whole: String = (1..=100).map(|i| format!("{i}\n")).collect();
    ensure!(
        format!("{first}{}", on_new.0) == whole,
        "{first:?} {on_new:?}"
    );
    ensure!(
        on_old == on_new && on_new.1 == Some(5),
        "{on_old:?} {on_new:?}"
    );
    let (_, workers) = shell(&target.user("root"), COUNT_WORKERS).await?;
    ensure!(workers.trim() == "1", "alice has {workers} workers");

    cat.input().write("still here").await;
    let output = cat.wait_with_output(1000).await?;
    ensure!(
        output.status.success() && output.stdout == b"still here",
        "{output:?}"
    );
    Ok(())
}

/// The client by SIGKILL, as the listener: what it had printed is all that is known of where it was.
async fn who_was_killed_with_the_listener_goes_on_where_it_had_come_to(target: &Target) -> Outcome {
    let alice = target.user("alice");
    ensure!(shell(&alice, "rm -f go").await?.0);
    let line = "i=0; while [ $i -lt 300 ]; do i=$((i+1)); echo $i; \
        [ $i -ne 200 ] || until [ -e go ]; do sleep 0.1; done; done; exit 5";
    let mut client = guestline(target, "alice")?
        .args(["run", "--name", "counter", "--shell", line])
        .spawn()?;
    let mut printed = client.stdout.take().context("piped")?;
    let mut heard = Vec::new();
    while !heard.windows(5).any(|window| window == b"\n100\n") {
        let read = timeout(PATIENCE, printed.read_buf(&mut heard)).await;
        ensure!(read.context("silence")?? > 0, "the client ended");
    }
    client.kill().await?;
    printed.read_to_end(&mut heard).await?;
    kill_listener(target).await?;

    let alice = target.user("alice");
    let processes = alice.processes();
    let mut known = processes.list().await?;
    known.retain(|process| process.name == "counter" && process.exit.is_none());
    ensure!(known.len() == 1, "it is listed so: {known:?}");
    let reached = Offsets {
        stdout: Some(heard.len() as u64),
        stderr: None,
    };
    let attached = processes.attach(known[0].process_id, reached).await?;
    alice.files().write("go", "").await?;
    let (said, code) = rest(attached).await?;
    let whole: String = (1..=300).map(|i| format!("{i}\n")).collect();
    let heard = String::from_utf8(heard)?;
    ensure!(
        format!("{heard}{said}") == whole && code == Some(5),
        "{heard:?} and then {said:?}, {code:?}"
    );
    Ok(())
}

/// A process of alice's that connects where workers come back is closed, unheard. Needs perl in the guest.
pub async fn an_impostor_is_not_taken_for_a_worker(target: &Target) -> Outcome {
    // It knocks without a pause, and is so the first whom the new listener sees: workers look twice a second.
    let mut knock = target.user("alice").command("perl");
    knock.args([
        "-e",
        "use Socket; $| = 1; alarm 600; print 'ready'; \
         do { socket(S, AF_UNIX, SOCK_SEQPACKET, 0) or die } \
         until connect(S, sockaddr_un(\"/run/guestline/workers-$<.sock\")); \
         exit(sysread(S, $_, 100) ? 1 : 0)",
    ]);
    let mut knocking = knock.spawn().await?;
    let ready = knocking.event().await?;
    ensure!(ready == Event::Stdout("ready".into()), "{ready:?}");
    kill_listener(target).await?;
    let status = knocking.wait().await?;
    ensure!(status.success(), "it was heard: {status:?}");
    let id = target.user("alice").shell("id -un").output().await?.stdout;
    ensure!(id == b"alice\n", "{id:?}");
    Ok(())
}

/// Whatever alice sends there, and holds the listener up with, is no matter of bob's: where his worker is awaited, she cannot
/// connect. Needs perl in the guest.
pub async fn nobody_else_gets_near_where_a_worker_comes_back(target: &Target) -> Outcome {
    let (root, alice, bob) = (
        target.user("root"),
        target.user("alice"),
        target.user("bob"),
    );
    let (_, uid) = shell(&bob, "id -u").await?;
    let place = format!("/run/guestline/workers-{}.sock", uid.trim());
    let started = bob.shell("echo here; sleep 1000").start(None).await?;
    // So that it is awaited for as long as this takes.
    let line = "basename -a $(grep -l ' bob$' /run/guestline/workers/*) | tr '\\n' ' '";
    let (_, worker) = shell(&root, line).await?;
    let signal = async |name: &str| {
        let line = format!("kill -{name} {}", worker.trim());
        ensure!(shell(&root, &line).await?.0, "{line:?} failed");
        anyhow::Ok(())
    };
    let returns = async || {
        let log = "journalctl -b -u guestline-agent -o cat";
        let back = r#"a worker is back user="bob" is_current=true"#;
        let (_, times) = shell(&root, &format!("{log} | grep -c '{back}'")).await?;
        times.trim().parse::<u32>().context(times)
    };
    let returned = async |before: u32| {
        eventually("bob's worker is back", PATIENCE, async || {
            Ok(returns().await? > before)
        })
        .await
    };
    let before = returns().await?;
    // A child of a listener that is killed does not stay stopped (setpgid(2)). After this it is nobody's.
    kill_listener(target).await?;
    returned(before).await?;
    signal("STOP").await?;
    kill_listener(target).await?;
    let connect = format!(
        "socket(S, AF_UNIX, SOCK_SEQPACKET, 0) or die; \
         print connect(S, sockaddr_un('{place}')) ? 'connected' : $!{{EACCES}} ? 'refused' : $!"
    );
    let mut perl = alice.command("perl");
    perl.args(["-MSocket", "-MErrno", "-e", &connect]);
    let said = perl.output().await?.stdout;
    let there = shell(&root, &format!("test -S {place}")).await?.0;
    signal("CONT").await?;
    let said = String::from_utf8_lossy(&said);
    ensure!(there && said == "refused", "there: {there}, {said}");
    // Who asks for bob before that may get another worker.
    returned(before + 1).await?;
    let known = target.user("bob").processes().list().await?;
    let is_his = |process: &Process| process.process_id == started.process_id;
    ensure!(known.iter().any(is_his), "{known:?}");
    let gone = shell(&root, &format!("test ! -e {place}")).await?.0;
    ensure!(gone, "the place is still there, with nobody awaited");
    Ok(())
}
