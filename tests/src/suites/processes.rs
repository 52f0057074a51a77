//! Programs: how they start, what they say, how they end.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use guestline_client::{Child, ErrorReason, Event, SignalTarget, Vm};
use tokio::time::timeout;

use super::{
    large::{fresh, stays_small},
    pattern, refusal, shell,
};
use crate::{
    cases,
    eventually::{PATIENCE, eventually},
    runner::Outcome,
    target::Target,
};

const SIGINT: u8 = 3;

cases![
    every_exit_code_is_exact: [18],
    the_signal_that_killed_is_told: [18],
    stdout_and_stderr_come_apart,
    arguments_are_never_split_or_joined,
    all_output_comes_before_the_exit: [20],
    a_background_child_does_not_hold_the_exit: [17],
    a_reader_that_stalls_stalls_only_its_own_program: [19],
    stdin_is_passed_on_and_closed,
    stdin_that_nobody_wants_hides_no_exit: [24],
    a_dropped_program_ends_though_it_never_read_its_stdin: [24],
    what_cannot_be_started_says_at_which_step,
    a_timeout_ends_the_whole_group,
    a_client_that_vanishes_ends_its_program,
    a_terminal_is_one: [21],
    signals_reach_the_group,
];

async fn every_exit_code_is_exact(target: &Target) -> Outcome {
    let alice = target.user("alice");
    for code in 0..=255 {
        let status = alice.shell(format!("exit {code}")).output().await?.status;
        ensure!(
            status.code == Some(code) && status.signal.is_none(),
            "exit {code} gave {status:?}"
        );
    }
    Ok(())
}

async fn the_signal_that_killed_is_told(target: &Target) -> Outcome {
    let alice = target.user("alice");
    for signal in [1, 2, 3, 6, 9, 13, 15, 34] {
        let child = alice.command("sleep").arg("1000").spawn().await?;
        child.input().signal(signal, SignalTarget::Leader).await;
        let status = child.wait().await?;
        ensure!(
            status.signal == Some(signal) && status.code.is_none(),
            "signal {signal} gave {status:?}"
        );
    }
    Ok(())
}

async fn stdout_and_stderr_come_apart(target: &Target) -> Outcome {
    let output = target
        .user("bob")
        .shell("echo out; echo err >&2; exit 3")
        .output()
        .await?;
    ensure!(
        output.stdout == b"out\n" && output.stderr == b"err\n" && output.status.code == Some(3),
        "{output:?}"
    );
    Ok(())
}

async fn arguments_are_never_split_or_joined(target: &Target) -> Outcome {
    let arguments = ["a b", "", "$HOME", "*", "'\"\\"];
    let output = target
        .user("alice")
        .command("printf")
        .arg("[%s]")
        .args(arguments)
        .output()
        .await?;
    ensure!(
        output.stdout == b"[a b][][$HOME][*]['\"\\]",
        "{:?}",
        String::from_utf8_lossy(&output.stdout)
    );
    Ok(())
}

/// With what fits into a test's time.
async fn all_output_comes_before_the_exit(target: &Target) -> Outcome {
    const BYTES: usize = 64 << 20;
    let alice = target.user("alice");
    let mut child = alice
        .shell(format!("head -c {BYTES} /dev/zero; printf end"))
        .spawn()
        .await?;
    let (mut length, mut last) = (0, Vec::new());
    let status = loop {
        match child.event().await? {
            Event::Stdout(bytes) => {
                length += bytes.len();
                last = bytes[bytes.len().saturating_sub(3)..].to_vec();
            }
            Event::Stderr(bytes) => bail!("stderr: {}", String::from_utf8_lossy(&bytes)),
            Event::Exited(status) => break status,
        }
    };
    ensure!(
        status.success() && length == BYTES + 3,
        "{length} bytes, {status:?}"
    );
    ensure!(last.ends_with(b"d"), "the end is missing");
    Ok(())
}

async fn a_background_child_does_not_hold_the_exit(target: &Target) -> Outcome {
    let alice = target.user("alice");
    let command = alice.shell("sleep 1000 & echo $!");
    let output = timeout(PATIENCE, command.output());
    let output = output.await.context("the exit is held")??;
    ensure!(
        output.status.success() && output.status.output_held,
        "{:?}",
        output.status
    );
    let pid = String::from_utf8(output.stdout)?.trim().to_owned();
    let (lives, _) = shell(&alice, &format!("kill -0 {pid} && kill {pid}")).await?;
    ensure!(lives, "the background child was gone");
    Ok(())
}

/// Of measuring a speed beside another, on a host whose own changes meanwhile: what is held up by a defect is held up each time.
const ATTEMPTS: u32 = 12;

/// Of the largest of several windows, so that what else this machine does in one of them does not count.
async fn a_reader_that_stalls_stalls_only_its_own_program(target: &Target) -> Outcome {
    let bob = fresh(target).await?;
    for attempt in 1.. {
        let alone = most_moved(&bob).await?;
        let mut stalled = Vec::new();
        for _ in 0..4 {
            stalled.push(bob.command("yes").spawn().await?);
        }
        have_stalled(target).await?;
        let beside = most_moved(&bob).await?;
        drop(stalled);
        if beside * 10 >= alone * 9 {
            break;
        }
        ensure!(
            attempt < ATTEMPTS,
            "{beside} bytes beside stalled readers, {alone} without"
        );
    }
    stays_small(&bob).await
}

/// Waits until no `yes` writes any more: until then they have their share.
async fn have_stalled(target: &Target) -> Outcome {
    let root = target.user("root");
    let written = async || {
        let line = "for pid in $(pidof yes); do grep ^wchar /proc/$pid/io; done";
        Ok::<_, anyhow::Error>(shell(&root, line).await?.1)
    };
    eventually("nobody writes", PATIENCE, async || {
        let before = written().await?;
        tokio::time::sleep(Duration::from_millis(300)).await;
        Ok(before.lines().count() >= 4 && written().await? == before)
    })
    .await
}

/// How much of an endless output arrives in half a second, at the best of four times.
async fn most_moved(vm: &Vm) -> anyhow::Result<u64> {
    let mut most = 0;
    for _ in 0..4 {
        let mut child = vm.command("yes").spawn().await?;
        child.event().await?;
        let (end, mut moved) = (Instant::now() + Duration::from_millis(500), 0);
        while Instant::now() < end {
            match child.event().await? {
                Event::Stdout(bytes) => moved += bytes.len() as u64,
                other => bail!("{other:?}"),
            }
        }
        most = most.max(moved);
    }
    Ok(most)
}

async fn stdin_is_passed_on_and_closed(target: &Target) -> Outcome {
    let content = pattern(5_000_000);
    let output = target
        .user("alice")
        .command("cat")
        .input(content.clone())
        .output()
        .await?;
    ensure!(
        output.stdout == content,
        "cat gave back {} bytes",
        output.stdout.len()
    );
    Ok(())
}

async fn stdin_that_nobody_wants_hides_no_exit(target: &Target) -> Outcome {
    let alice = target.user("alice");
    // Open stdin, nobody writes.
    let status = alice
        .shell("exit 4")
        .stdin(true)
        .spawn()
        .await?
        .wait()
        .await?;
    ensure!(status.code == Some(4), "{status:?}");
    // The child closes its stdin, and 5 MB come.
    let output = alice
        .shell("exec <&-; exit 5")
        .input(pattern(5_000_000))
        .output()
        .await?;
    ensure!(output.status.code == Some(5), "{:?}", output.status);
    Ok(())
}

async fn a_dropped_program_ends_though_it_never_read_its_stdin(target: &Target) -> Outcome {
    let alice = target.user("alice");
    // One that heeds a hang-up, and one that does not.
    for line in ["exec sleep 4712.25", "trap '' HUP; exec sleep 4712.25"] {
        let child = alice.shell(line).stdin(true).spawn().await?;
        let input = child.input();
        // More than all windows and queues hold: who writes waits, and holds the way in.
        let writing = tokio::spawn(async move { input.write(pattern(20_000_000)).await });
        tokio::time::sleep(Duration::from_millis(300)).await;
        ensure!(!writing.is_finished(), "somebody read it");
        drop(child);
        eventually("the program is gone", PATIENCE, async || {
            // By the argument that nothing else has, not even who looks for it; the small image has no pgrep.
            let line =
                "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n' | grep -qx '[4]712.25'";
            let found = alice.shell(line).output().await?;
            ensure!(matches!(found.status.code, Some(0 | 1)), "{found:?}");
            Ok(found.status.code == Some(1))
        })
        .await?;
        timeout(PATIENCE, writing)
            .await
            .context("who writes to it waits for ever")??;
    }
    Ok(())
}

async fn what_cannot_be_started_says_at_which_step(target: &Target) -> Outcome {
    let alice = target.user("alice");
    alice.files().write("plain", "not a program").await?;
    let missing = alice.command("no-such-program").output().await;
    let forbidden = alice.command("./plain").output().await;
    let nowhere = alice.command("true").current_dir("/no/such").output().await;
    let shut = alice.command("true").current_dir("/root").output().await;
    for (result, step, errno) in [
        (missing, "exec", 2),
        (forbidden, "exec", 13),
        (nowhere, "directory", 2),
        (shut, "directory", 13),
    ] {
        let error = refusal(step, result)?;
        let text = format!("{error:?}");
        ensure!(
            error.errno() == Some(errno) && text.contains(step),
            "expected {step} and {errno}: {text}"
        );
    }
    let error = refusal("no command", alice.command("").output().await)?;
    ensure!(
        matches!(
            error.reason(),
            Some(ErrorReason::InvalidArgument | ErrorReason::NotFound)
        ),
        "{error:?}"
    );
    Ok(())
}

async fn a_timeout_ends_the_whole_group(target: &Target) -> Outcome {
    let alice = target.user("alice");
    // A machine may be too slow for the whole line in the first of them.
    for limit in [1, 10, 60].map(Duration::from_secs) {
        let mut command = alice.shell("echo $$; trap '' TERM; sleep 1000 & echo all; sleep 1000");
        let output = timeout(limit + PATIENCE, command.timeout(limit).output());
        let output = output.await.context("it outlives its time")??;
        ensure!(output.status.timed_out, "{:?}", output.status);
        let said = String::from_utf8(output.stdout)?;
        if let Some((group, "all\n")) = said.split_once('\n') {
            return group_is_gone(target, group).await;
        }
    }
    bail!("it never came as far as it should")
}

async fn a_client_that_vanishes_ends_its_program(target: &Target) -> Outcome {
    let mut child = target
        .user("alice")
        .shell("echo $$; sleep 1000")
        .spawn()
        .await?;
    let group = first_line(&mut child).await?;
    drop(child);
    group_is_gone(target, &group).await
}

async fn a_terminal_is_one(target: &Target) -> Outcome {
    let alice = target.user("alice");
    let mut child = alice
        .shell("tty; stty size; cat")
        .terminal("vt100", 100, 30)
        .spawn()
        .await?;
    let mut screen = String::new();
    let mut show = async |until: &str, child: &mut Child| -> anyhow::Result<()> {
        while !screen.contains(until) {
            match timeout(PATIENCE, child.event())
                .await
                .with_context(|| format!("waiting for {until:?} after {screen:?}"))??
            {
                Event::Stdout(bytes) => screen.push_str(&String::from_utf8_lossy(&bytes)),
                other => bail!("{other:?} after {screen:?}"),
            }
        }
        Ok(())
    };
    show("/dev/pts/", &mut child).await?;
    show("30 100", &mut child).await?;
    child.input().write("typed\n").await;
    show("typed\r\ntyped\r\n", &mut child).await?;
    // ^C, which the terminal turns into SIGINT for the foreground group.
    child.input().write(vec![SIGINT]).await;
    let status = child.wait().await?;
    ensure!(
        status.signal == Some(2) || status.code == Some(130),
        "{status:?}"
    );
    Ok(())
}

/// The second program is known to run before it is signalled: a shell may hold signals back while it forks.
async fn signals_reach_the_group(target: &Target) -> Outcome {
    let mut child = target
        .user("alice")
        .shell("echo $$; cat; echo woken")
        .stdin(true)
        .spawn()
        .await?;
    let group = first_line(&mut child).await?;
    child.input().write("here\n").await;
    ensure!(first_line(&mut child).await? == "here", "not cat's line");
    child.input().signal(15, SignalTarget::Group).await;
    let status = child.wait().await?;
    ensure!(status.signal == Some(15), "{status:?}");
    group_is_gone(target, &group).await
}

async fn first_line(child: &mut Child) -> anyhow::Result<String> {
    match child.event().await? {
        Event::Stdout(line) => Ok(String::from_utf8(line.to_vec())?.trim().to_owned()),
        other => bail!("expected a line, got {other:?}"),
    }
}

async fn group_is_gone(target: &Target, group: &str) -> Outcome {
    let alice = target.user("alice");
    eventually("the process group is gone", PATIENCE, || async {
        Ok(!shell(&alice, &format!("kill -0 -{group} 2>/dev/null"))
            .await?
            .0)
    })
    .await
}
