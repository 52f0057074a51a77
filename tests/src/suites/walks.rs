//! Every step of a write, a push, a run, an attach and a new worker at which listener, worker or client may be killed,
//! walked one by one. For a local agent with switches: the process kills itself at the step that its switches name
//! (agent/src/switches.rs, `point`).

use std::{fs, path::Path, process::Stdio, time::Duration};

use anyhow::{Context, ensure};
use guestline_client::{Error, ErrorReason, Offsets, PushOptions, SignalTarget, Vm, WriteOptions};
use tokio::io::AsyncWriteExt;

use super::{
    commands::guestline,
    faults::kill_worker,
    invariants::Before,
    isolation::listener_of,
    pattern, put, refusal,
    restart::{COUNT_WORKERS, rest},
    shell,
};
use crate::{
    cases,
    eventually::{PATIENCE, eventually},
    runner::Outcome,
    target::Target,
};

cases![
    a_write_is_whole_wherever_its_worker_dies: [9],
    a_push_is_of_whole_files_wherever_its_worker_dies: [9],
    a_run_is_never_a_success_wherever_its_worker_dies: [18],
    an_attach_ends_with_a_reason_wherever_its_worker_dies: [23],
    a_user_is_served_wherever_listener_or_worker_die_before: [32],
    a_client_that_is_killed_at_any_time_leaves_nothing: [9, 18],
    a_program_is_forgotten_in_time_and_said_to_be_nobody: [23],
];

/// To a listener that may be gone. A worker starts in less on any machine.
const CONNECT: Duration = Duration::from_secs(10);

/// For whom the step is armed.
#[derive(Clone, Copy)]
enum Whom {
    Worker,
    Listener,
}

/// Has alice's next worker, or the next listener, die at a step; what `act` does gets it there.
async fn dying_at<T>(
    target: &Target,
    step: &str,
    whom: Whom,
    act: impl AsyncFnOnce(Vm) -> T,
) -> anyhow::Result<T> {
    let switches = target
        .switches()
        .context("only a local agent has switches")?;
    // Before anything is armed, and held: this worker of root's dies nowhere.
    let root = target.user("root");
    let listener = listener_of(&root).await?;
    kill_worker(target, &target.user("alice")).await?;
    fs::write(&switches, step)?;
    if let Whom::Listener = whom {
        ensure!(shell(&root, &format!("kill -9 {listener}")).await?.0);
    }
    let done = act(target.user("alice").connect_timeout(CONNECT)).await;
    fs::remove_file(&switches)?;
    eventually("the agent answers again", PATIENCE, async || {
        let alice = target.user("alice").files().stat("/").await;
        Ok(alice.is_ok() && target.user("root").files().stat("/").await.is_ok())
    })
    .await?;
    // One that is armed may live on, if it never came to the step.
    kill_worker(target, &target.user("alice")).await?;
    Ok(done)
}

async fn names(vm: &Vm, folder: &str) -> anyhow::Result<Vec<String>> {
    let entries = vm.files().read_dir(folder).await?;
    Ok(entries
        .iter()
        .map(|entry| entry.name().display().to_string())
        .collect())
}

/// A folder with one file in it, that alone.
async fn prepare(target: &Target) -> Outcome {
    let alice = target.user("alice");
    let line = "rm -rf walk && mkdir walk && printf old > walk/file";
    ensure!(shell(&alice, line).await?.0, "nothing to begin with");
    Ok(())
}

async fn a_write_is_whole_wherever_its_worker_dies(target: &Target) -> Outcome {
    let before = Before::of(target).await?;
    let content = pattern(3_000_000);
    for (step, is_there) in [
        ("write: made", false),
        ("write: receiving", false),
        ("write: received", false),
        ("write: adopted", false),
        ("write: placed", true),
    ] {
        for (path, options) in [
            ("walk/file", WriteOptions::replace()),
            ("walk/new", WriteOptions::create_new().sync(true)),
        ] {
            prepare(target).await?;
            let written = dying_at(target, step, Whom::Worker, async |alice| {
                put(&alice.files(), path, content.clone(), options).await
            });
            let error = refusal(step, written.await?)?;
            ensure!(matches!(error, Error::Lost(_)), "{step}: {error:?}");
            let alice = target.user("alice");
            let there = alice.files().read(path).await;
            let is_whole = match there {
                Ok(bytes) if is_there => bytes == content,
                Ok(bytes) => path == "walk/file" && bytes == b"old",
                Err(error) => !is_there && path == "walk/new" && error.is_not_found(),
            };
            ensure!(is_whole, "{step}: {path} is neither old nor new");
            let mut expected = vec!["file"];
            if is_there && path == "walk/new" {
                expected.push("new");
            }
            let mut names = names(&alice, "walk").await?;
            names.sort();
            ensure!(names == expected, "{step}: {names:?}");
        }
    }
    before.holds(target).await
}

async fn a_push_is_of_whole_files_wherever_its_worker_dies(target: &Target) -> Outcome {
    let before = Before::of(target).await?;
    let folder = tempfile::tempdir()?;
    let content = pattern(700_000);
    for number in 0..8 {
        fs::write(folder.path().join(format!("f{number}")), &content)?;
    }
    for (step, all) in [
        ("push: opened", false),
        ("push: receiving", false),
        ("push: unpacked", true),
    ] {
        prepare(target).await?;
        let options = PushOptions {
            parents: true,
            ..Default::default()
        };
        let from = folder.path().to_owned();
        let pushed = dying_at(target, step, Whom::Worker, async |alice| {
            alice
                .files()
                .push_from(from, "walk/tree", options, ())
                .await
        });
        refusal(step, pushed.await?)?;
        let alice = target.user("alice");
        let names = names(&alice, "walk/tree").await?;
        ensure!(!all || names.len() == 8, "{step}: {names:?}");
        for name in names {
            let whole = alice.files().read(format!("walk/tree/{name}")).await? == content;
            ensure!(whole, "{step}: {name} is not whole");
        }
    }
    before.holds(target).await
}

async fn a_run_is_never_a_success_wherever_its_worker_dies(target: &Target) -> Outcome {
    let before = Before::of(target).await?;
    for (step, may_run) in [
        ("run: prepared", false),
        ("run: confined", false),
        ("run: started", true),
        ("run: exited", true),
        ("run: collected", true),
    ] {
        prepare(target).await?;
        let ran = dying_at(target, step, Whom::Worker, async |alice| {
            alice.shell("touch walk/ran; echo done").output().await
        });
        let error = refusal(step, ran.await?)?;
        ensure!(matches!(error, Error::Lost(_)), "{step}: {error:?}");
        let names = names(&target.user("alice"), "walk").await?;
        ensure!(may_run || names == ["file"], "{step}: the program ran");
        before.holds(target).await.context(step)?;
    }
    Ok(())
}

async fn an_attach_ends_with_a_reason_wherever_its_worker_dies(target: &Target) -> Outcome {
    let before = Before::of(target).await?;
    for step in ["attach: begun", "attach: heard"] {
        let (id, attached) = dying_at(target, step, Whom::Worker, async |alice| {
            let started = alice.shell("echo here; exec sleep 3").start(None).await?;
            let processes = alice.processes();
            let attached = processes.attach(started.process_id, Offsets::default());
            let attached = async { attached.await?.event().await }.await;
            anyhow::Ok((started.process_id, attached))
        })
        .await??;
        let error = refusal(step, attached)?;
        ensure!(matches!(error, Error::Lost(_)), "{step}: {error:?}");
        // It was known to that worker alone.
        let alice = target.user("alice").processes();
        let error = refusal("a late attach", alice.attach(id, Offsets::default()).await)?;
        ensure!(
            error.reason() == Some(ErrorReason::NoSuchProcess),
            "{error:?}"
        );
        before.holds(target).await.context(step)?;
    }
    Ok(())
}

async fn a_user_is_served_wherever_listener_or_worker_die_before(target: &Target) -> Outcome {
    let before = Before::of(target).await?;
    let bob = target.user("bob");
    let started = bob.command("sleep").arg("1000").start(None).await?;
    let root = target.user("root");
    for (step, whom) in [
        ("become: told", Whom::Worker),
        ("become: done", Whom::Worker),
        ("become: ready", Whom::Worker),
        ("hello: heard", Whom::Listener),
        ("worker: executed", Whom::Listener),
        ("worker: told", Whom::Listener),
        ("worker: greeted", Whom::Listener),
        ("worker: handed", Whom::Listener),
    ] {
        let served = dying_at(target, step, whom, async |alice| {
            alice.files().write("served", step).await
        });
        // The last step is behind the hand-over: the worker serves what it got.
        let served = served.await?;
        ensure!(
            served.is_err() || step == "worker: handed",
            "{step}: it did not die"
        );
        target.user("alice").files().write("served", step).await?;
        eventually("alice has one worker", PATIENCE, async || {
            Ok(shell(&root, COUNT_WORKERS).await?.1.trim() == "1")
        })
        .await
        .context(step)?;
        let known = target.user("bob").processes().list().await?;
        let listed = known
            .iter()
            .filter(|one| one.process_id == started.process_id);
        let listed: Vec<_> = listed.collect();
        ensure!(
            listed.len() == 1 && listed[0].exit.is_none(),
            "{step}: bob's program is listed so: {listed:?}"
        );
    }
    let bob = target.user("bob").processes();
    bob.signal(started.process_id, 9, SignalTarget::Leader)
        .await?;
    before.holds(target).await
}

/// By a worker that remembers for seconds what others remember for ten minutes.
async fn a_program_is_forgotten_in_time_and_said_to_be_nobody(target: &Target) -> Outcome {
    let switches = target
        .switches()
        .context("only a local agent has switches")?;
    kill_worker(target, &target.user("alice")).await?;
    fs::write(&switches, "long memory")?;
    // Held, so that one worker is asked for all of it.
    let alice = target.user("alice");
    alice.files().stat("/").await?;
    fs::remove_file(&switches)?;
    let mut command = alice.shell("echo here; read -r _; exit 3");
    let started = command.stdin(true).start(None).await?;
    let id = started.process_id;
    let processes = alice.processes();
    let attached = processes.attach(id, Offsets::default()).await?;
    attached.input().write("go\n").await;
    let (said, code) = rest(attached).await?;
    ensure!(said == "here\n" && code == Some(3), "{said:?} {code:?}");
    let mut last = None;
    eventually("it is forgotten", PATIENCE, async || {
        last = processes.attach(id, Offsets::default()).await.err();
        Ok(last.is_some())
    })
    .await?;
    let reason = last.as_ref().and_then(Error::reason);
    ensure!(reason == Some(ErrorReason::NoSuchProcess), "{last:?}");
    let signalled = processes.signal(id, 15, SignalTarget::Leader).await;
    let error = refusal("a signal to it", signalled)?;
    ensure!(
        error.reason() == Some(ErrorReason::NoSuchProcess),
        "{error:?}"
    );
    let known = processes.list().await?;
    ensure!(known.iter().all(|one| one.process_id != id), "{known:?}");
    // The next one remembers as long as it should.
    kill_worker(target, &alice).await
}

/// The command line's process, by SIGKILL.
async fn a_client_that_is_killed_at_any_time_leaves_nothing(target: &Target) -> Outcome {
    let before = Before::of(target).await?;
    for sent in [0, 1, 100_000, 3_000_000] {
        prepare(target).await?;
        let mut command = guestline(target, "alice")?;
        let mut client = command
            .args(["write", "walk/file"])
            .stdin(Stdio::piped())
            .spawn()?;
        let mut stdin = client.stdin.take().context("piped")?;
        stdin.write_all(&pattern(sent)).await?;
        client.kill().await?;
        let alice = target.user("alice");
        eventually("only the old file is there", PATIENCE, async || {
            let content = alice.files().read("walk/file").await?;
            Ok(content == b"old" && names(&alice, "walk").await? == ["file"])
        })
        .await?;
    }
    for (words, leaves) in [
        (
            &["exec", "--shell", "touch walk/here; exec sleep 1000"][..],
            false,
        ),
        (
            &[
                "run",
                "--shell",
                "touch walk/here; until [ -e walk/go ]; do sleep 0.1; done",
            ],
            true,
        ),
    ] {
        prepare(target).await?;
        let mut client = guestline(target, "alice")?.args(words).spawn()?;
        let alice = target.user("alice");
        eventually("the program runs", PATIENCE, async || {
            Ok(alice.files().stat("walk/here").await.is_ok())
        })
        .await?;
        client.kill().await?;
        let live = async || -> anyhow::Result<usize> {
            let known = alice.processes().list().await?;
            Ok(known.iter().filter(|one| one.exit.is_none()).count())
        };
        if leaves {
            ensure!(live().await? == 1, "what was run to stay is gone");
            alice.files().write("walk/go", "").await?;
        }
        eventually("nothing runs", PATIENCE, async || Ok(live().await? == 0)).await?;
    }
    let tree = tempfile::tempdir()?;
    let content = pattern(4_000_000);
    for number in 0..6 {
        fs::write(tree.path().join(format!("f{number}")), &content)?;
    }
    for number in 0..4 {
        prepare(target).await?;
        let from = tree.path().display().to_string();
        let mut client = guestline(target, "alice")?
            .args(["cp", "-r", &from, ":walk/tree"])
            .spawn()?;
        let alice = target.user("alice");
        eventually("some of it is there", PATIENCE, async || {
            let there = names(&alice, "walk/tree").await.unwrap_or_default();
            Ok(there.len() >= number || client.try_wait()?.is_some())
        })
        .await?;
        let _ = client.kill().await;
        before.holds(target).await?;
        for name in names(&alice, "walk/tree").await.unwrap_or_default() {
            let path = Path::new("walk/tree").join(&name);
            ensure!(
                alice.files().read(&path).await? == content,
                "{name} is not whole"
            );
        }
    }
    Ok(())
}
