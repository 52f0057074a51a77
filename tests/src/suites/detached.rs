//! Programs that live on without a client: what is kept of them, and for whom.

use std::ffi::OsString;

use anyhow::{Context, ensure};
use guestline_client::{
    AttachEvent, Attached, ErrorReason, ExitStatus, Offsets, ProcessState, SignalTarget,
};

use super::refusal;
use crate::{
    cases,
    eventually::{PATIENCE, eventually},
    runner::Outcome,
    target::Target,
};

cases![
    a_program_outlives_its_client_and_nothing_of_its_output_is_lost: [23],
    several_clients_hear_the_same_and_none_stalls_another,
    a_ring_that_overflows_tells_how_much_was_lost: [23],
    input_resizes_and_signals_reach_a_detached_terminal: [21],
    a_process_is_listed_with_its_name_state_and_exit,
    much_that_was_run_is_listed_and_can_be_signalled,
    what_cannot_be_attached_to_is_told_apart,
    an_overlong_ring_is_refused,
];

struct Heard {
    stdout: Vec<u8>,
    lost: u64,
    exit: ExitStatus,
}

/// Reads to the exit.
async fn hear(mut attached: Attached) -> anyhow::Result<Heard> {
    let (mut stdout, mut lost) = (Vec::new(), 0);
    loop {
        match attached.event().await? {
            AttachEvent::Stdout(data) => stdout.extend(data),
            AttachEvent::Stderr(data) => anyhow::bail!("stderr: {data:?}"),
            AttachEvent::Lost { stdout, .. } => lost += stdout,
            AttachEvent::Exited(exit) => return Ok(Heard { stdout, lost, exit }),
        }
    }
}

async fn a_program_outlives_its_client_and_nothing_of_its_output_is_lost(
    target: &Target,
) -> Outcome {
    let line = "for i in 1 2 3 4 5; do echo $i; read -r _; done; exit 7";
    let first_client = target.user("alice");
    let started = first_client.shell(line).stdin(true).start(None).await?;
    let attached = first_client.processes();
    let mut attached = attached
        .attach(started.process_id, Offsets::default())
        .await?;
    let event = attached.event().await?;
    ensure!(event == AttachEvent::Stdout("1\n".into()), "{event:?}");
    let reached = attached.reached();
    drop(attached);
    drop(first_client);

    let second_client = target.user("alice");
    let attached = second_client
        .processes()
        .attach(started.process_id, reached)
        .await?;
    attached.input().write("go\ngo\ngo\ngo\ngo\n").await;
    let heard = hear(attached).await?;
    ensure!(heard.stdout == b"2\n3\n4\n5\n", "{:?}", heard.stdout);
    ensure!(
        heard.exit.code == Some(7) && heard.lost == 0,
        "{:?}",
        heard.exit
    );

    let third_client = target.user("alice");
    let from_the_start = Offsets {
        stdout: Some(0),
        stderr: None,
    };
    let attached = third_client
        .processes()
        .attach(started.process_id, from_the_start)
        .await?;
    let heard = hear(attached).await?;
    ensure!(heard.stdout == b"1\n2\n3\n4\n5\n" && heard.exit.code == Some(7));
    Ok(())
}

async fn several_clients_hear_the_same_and_none_stalls_another(target: &Target) -> Outcome {
    let size = 2_000_000;
    let line = format!("read -r _; head -c {size} /dev/zero");
    let alice = target.user("alice");
    let started = alice.shell(&line).stdin(true).start(Some(4 << 20)).await?;
    let id = started.process_id;
    let stalled = target.user("alice");
    let stalled = stalled.processes().attach(id, Offsets::default()).await?;
    let reading = alice.processes().attach(id, Offsets::default()).await?;
    reading.input().write("go\n").await;
    let heard = hear(reading).await?;
    ensure!(
        heard.stdout.len() == size && heard.exit.success(),
        "{}",
        heard.stdout.len()
    );
    let heard = hear(stalled).await.context("the stalled client goes on")?;
    ensure!(
        heard.stdout.len() == size && heard.lost == 0,
        "{}",
        heard.stdout.len()
    );
    Ok(())
}

async fn a_ring_that_overflows_tells_how_much_was_lost(target: &Target) -> Outcome {
    let alice = target.user("alice");
    let line = "head -c 100000 /dev/zero; printf end";
    let started = alice.shell(line).start(Some(1000)).await?;
    let id = started.process_id;
    eventually("the program ends", PATIENCE, async || {
        let known = alice.processes().list().await?;
        Ok(known
            .iter()
            .any(|process| process.process_id == id && process.exit.is_some()))
    })
    .await?;
    let from_the_start = Offsets {
        stdout: Some(0),
        stderr: None,
    };
    let heard = hear(alice.processes().attach(id, from_the_start).await?).await?;
    ensure!(heard.lost == 100_003 - 1000, "{} lost", heard.lost);
    ensure!(heard.stdout.len() == 1000 && heard.stdout.ends_with(b"\0end"));
    Ok(())
}

/// Detached.
async fn input_resizes_and_signals_reach_a_detached_terminal(target: &Target) -> Outcome {
    let bob = target.user("bob");
    let line = "trap 'stty size; exit 9' INT; echo ready; while :; do sleep 0.1; done";
    let started = bob.shell(line).terminal("dumb", 80, 24).start(None).await?;
    let mut attached = bob
        .processes()
        .attach(started.process_id, Offsets::default())
        .await?;
    let mut seen = Vec::new();
    let input = attached.input();
    let exit = loop {
        match attached.event().await? {
            AttachEvent::Stdout(data) => {
                let was_ready = seen.ends_with(b"ready\r\n");
                seen.extend(data);
                if seen.ends_with(b"ready\r\n") && !was_ready {
                    input.resize(132, 43).await;
                    // ^C, as a keyboard sends it.
                    input.write("\x03").await;
                }
            }
            AttachEvent::Exited(exit) => break exit,
            other => anyhow::bail!("{other:?}"),
        }
    };
    let seen = String::from_utf8_lossy(&seen);
    ensure!(
        seen.contains("43 132") && exit.code == Some(9),
        "{seen:?} {exit:?}"
    );
    Ok(())
}

async fn a_process_is_listed_with_its_name_state_and_exit(target: &Target) -> Outcome {
    let alice = target.user("alice");
    let mut command = alice.command("sleep");
    command.arg("1000").name("napper").label("purpose", "test");
    let started = command.start(None).await?;
    let find = async || {
        let known = target.user("alice").processes().list().await?;
        let found = known
            .into_iter()
            .find(|one| one.process_id == started.process_id);
        found.context("it is listed")
    };
    let process = find().await?;
    ensure!(
        process.name == "napper"
            && process.labels.get("purpose").map(String::as_str) == Some("test")
            && process.command == ["sleep", "1000"]
            && process.user == "alice"
            && process.pid == started.pid
            && process.detached
            && process.exit.is_none(),
        "{process:?}"
    );
    alice
        .processes()
        .signal(started.process_id, 19, SignalTarget::Group)
        .await?;
    eventually("it is stopped", PATIENCE, async || {
        Ok(find().await?.state == ProcessState::Stopped)
    })
    .await?;
    alice
        .processes()
        .signal(started.process_id, 9, SignalTarget::Group)
        .await?;
    eventually("it has ended", PATIENCE, async || {
        let exit = find().await?.exit;
        Ok(exit.is_some_and(|exit| exit.signal == Some(9)))
    })
    .await?;
    let bob = target.user("bob").processes().list().await?;
    ensure!(
        bob.iter().all(|process| process.name != "napper"),
        "bob sees alice's"
    );
    Ok(())
}

/// More than one message takes, were all commands told.
async fn much_that_was_run_is_listed_and_can_be_signalled(target: &Target) -> Outcome {
    let alice = target.user("alice");
    let long = "x".repeat(4096);
    let sleeper = alice.command("sleep").arg("1000").start(None).await?;
    for _ in 0..600 {
        let status = alice.command("true").arg(&long).output().await?.status;
        ensure!(status.success(), "{status:?}");
    }
    let known = alice.processes().list().await?;
    let is_long = |words: &[OsString]| words[0] == "true" && words.len() == 2;
    let count = known
        .iter()
        .filter(|process| is_long(&process.command))
        .count();
    ensure!(count >= 600, "{count} of 600 are listed");
    let id = sleeper.process_id;
    let listed = known.iter().find(|process| process.process_id == id);
    let listed = listed.context("the sleeper is listed")?;
    ensure!(
        listed.command == ["sleep", "1000"],
        "what is short stays: {:?}",
        listed.command
    );
    alice.processes().signal(id, 9, SignalTarget::Group).await?;
    Ok(())
}

async fn what_cannot_be_attached_to_is_told_apart(target: &Target) -> Outcome {
    let alice = target.user("alice");
    let processes = alice.processes();
    let attach = |id, stdout| {
        let from = Offsets {
            stdout,
            stderr: None,
        };
        let processes = processes.clone();
        async move { processes.attach(id, from).await }
    };
    let error = refusal("attach to nobody", attach(u64::MAX, None).await)?;
    ensure!(
        error.reason() == Some(ErrorReason::NoSuchProcess),
        "{error:?}"
    );
    let child = alice.command("sleep").arg("1000").spawn().await?;
    let error = refusal("attach to a run", attach(child.process_id(), None).await)?;
    ensure!(
        error.reason() == Some(ErrorReason::InvalidArgument),
        "{error:?}"
    );
    let started = alice.command("true").start(None).await?;
    let error = refusal("an offset ahead", attach(started.process_id, Some(1)).await)?;
    ensure!(
        error.reason() == Some(ErrorReason::InvalidArgument),
        "{error:?}"
    );
    let foreign = target.user("bob").processes();
    let foreign = foreign.attach(started.process_id, Offsets::default()).await;
    let error = refusal("attach to alice's as bob", foreign)?;
    ensure!(
        error.reason() == Some(ErrorReason::NoSuchProcess),
        "{error:?}"
    );
    Ok(())
}

async fn an_overlong_ring_is_refused(target: &Target) -> Outcome {
    let alice = target.user("alice");
    for size in [0, (64 << 20) + 1, u64::MAX] {
        let error = refusal("the ring", alice.command("true").start(Some(size)).await)?;
        ensure!(
            error.reason() == Some(ErrorReason::InvalidArgument),
            "{error:?}"
        );
    }
    Ok(())
}
