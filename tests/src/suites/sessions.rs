//! Login sessions, in a guest whose systemd opens them.

use std::time::Duration;

use anyhow::{Context, ensure};
use guestline_client::{ErrorReason, Offsets, SignalTarget, Vm};

use super::{
    refusal,
    restart::{kill_listener, rest},
    shell,
};
use crate::{
    cases,
    eventually::{PATIENCE, eventually},
    runner::Outcome,
    target::Target,
};

cases![
    a_program_in_a_login_session_has_what_a_login_has,
    a_login_session_is_the_users_own_and_no_way_to_another: [13],
    an_exit_in_a_login_session_is_told_exactly: [18],
    a_terminal_works_in_a_login_session: [21],
    a_signal_to_all_reaches_what_a_login_session_started: [16],
    who_ends_the_usher_ends_the_program_and_its_exit_is_unknown,
    a_login_session_ends_with_its_program,
    a_login_that_pam_refuses_is_an_error_that_says_so,
    a_login_session_outlives_client_and_listener: [32],
    sessions_begin_at_a_bounded_rate_and_each_user_has_its_own,
];

/// What the agent says of one that did not open in its 30 s.
const TOO_LATE: &str = "opened no login session in time";

const LIMITS: &str = "/etc/security/limits.d/guestline.conf";

/// What a line prints in a login session of the user's shell.
async fn in_session(vm: &Vm, line: &str) -> anyhow::Result<String> {
    let output = vm.shell(line).login_session(true).output().await;
    let output = output.with_context(|| format!("running {line:?} in a login session"))?;
    let (said, errors) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    ensure!(output.status.success(), "{line:?}: {said} {errors}");
    Ok(said.into_owned())
}

async fn a_program_in_a_login_session_has_what_a_login_has(target: &Target) -> Outcome {
    let (root, alice) = (target.user("root"), target.user("alice"));
    root.files().write(LIMITS, "alice - nofile 777\n").await?;
    let before = alice.shell("ulimit -n").output().await?;
    ensure!(
        before.stdout != b"777\n",
        "without a session too: the case shows nothing"
    );
    let line = "ulimit -n; echo $XDG_RUNTIME_DIR; stat -c '%U %a' $XDG_RUNTIME_DIR; \
        loginctl show-session $XDG_SESSION_ID -p Name -p Class -p Service; \
        sed 's/.*session-/session-/' /proc/self/cgroup";
    let said = in_session(&alice, line).await?;
    root.files().remove_file(LIMITS).await?;
    let lines: Vec<_> = said.lines().collect();
    ensure!(
        lines[..3] == ["777", "/run/user/1000", "alice 700"],
        "{lines:?}"
    );
    for line in ["Name=alice", "Class=user", "Service=login"] {
        ensure!(lines.contains(&line), "{line} is not in {lines:?}");
    }
    let scope = lines.last().context("the cgroup")?;
    ensure!(
        scope.starts_with("session-") && scope.ends_with(".scope"),
        "{scope}"
    );
    // The documented environment, PATH too, and nothing of the unit's.
    let environment = in_session(&alice, "env").await?;
    for variable in [
        "USER=alice",
        "HOME=/home/alice",
        "PATH=/usr/local/bin:/usr/bin:/bin",
    ] {
        ensure!(
            environment.lines().any(|line| line == variable),
            "{variable} is not in {environment}"
        );
    }
    ensure!(
        !environment.contains("INVOCATION_ID") && !environment.contains("JOURNAL_STREAM"),
        "{environment}"
    );
    Ok(())
}

/// Promise 13 holds there too.
async fn a_login_session_is_the_users_own_and_no_way_to_another(target: &Target) -> Outcome {
    let alice = target.user("alice");
    let line = "id; grep -E '^(Uid|Gid|CapPrm|CapEff|SigBlk|SigIgn):' /proc/self/status; \
        ls /proc/self/fd; pwd; umask; cat /etc/shadow 2>&1 | head -n 1";
    let said = in_session(&alice, line).await?;
    let line = |key: &str| {
        said.lines()
            .find(|line| line.starts_with(key))
            .unwrap_or_default()
    };
    let words = |key: &str| line(key).split_whitespace().skip(1).collect::<Vec<_>>();
    ensure!(
        words("Uid:") == ["1000"; 4] && words("Gid:") == ["1000"; 4],
        "{said}"
    );
    for key in ["CapPrm:", "CapEff:", "SigBlk:", "SigIgn:"] {
        ensure!(words(key) == ["0000000000000000"], "{said}");
    }
    ensure!(
        said.contains("/home/alice\n") && said.contains("Permission denied"),
        "{said}"
    );
    let ids = |vm: Vm| async move { shell(&vm, "id").await.map(|(_, said)| said) };
    ensure!(said.starts_with(&ids(alice).await?), "{said}");
    // 3 is the directory itself.
    ensure!(said.contains("\n0\n1\n2\n3\n/"), "{said}");
    let root = target.user("root");
    ensure!(in_session(&root, "id -u; echo $XDG_RUNTIME_DIR").await? == "0\n/run/user/0\n");
    Ok(())
}

async fn an_exit_in_a_login_session_is_told_exactly(target: &Target) -> Outcome {
    let alice = target.user("alice");
    let exit = alice
        .shell("echo out; echo err >&2; exit 7")
        .login_session(true)
        .output()
        .await?;
    ensure!(
        exit.status.code == Some(7) && exit.stdout == b"out\n" && exit.stderr == b"err\n",
        "{exit:?}"
    );
    let killed = alice
        .shell("kill -9 $$")
        .login_session(true)
        .output()
        .await?;
    ensure!(killed.status.signal == Some(9), "{killed:?}");
    let missing = alice
        .command("no-such-program")
        .login_session(true)
        .output()
        .await;
    let error = refusal("a program that is not there", missing)?;
    ensure!(error.is_not_found(), "{error:?}");
    let late = alice
        .shell("sleep 1000")
        .login_session(true)
        .timeout(Duration::from_secs(1))
        .output()
        .await?;
    ensure!(late.status.timed_out, "{late:?}");
    let limited = alice
        .command("true")
        .login_session(true)
        .pids_limit(5)
        .output()
        .await;
    let error = refusal("limits in a session", limited)?;
    ensure!(
        error.reason() == Some(ErrorReason::InvalidArgument),
        "{error:?}"
    );
    Ok(())
}

async fn a_terminal_works_in_a_login_session(target: &Target) -> Outcome {
    let alice = target.user("alice");
    let output = alice
        .shell("tty; stty size; ps -o tpgid= -o pgid= -p $$")
        .login_session(true)
        .terminal("dumb", 100, 40)
        .output()
        .await?;
    let said = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<_> = said.lines().map(str::trim).collect();
    ensure!(
        lines[0].starts_with("/dev/pts/") && lines[1] == "40 100",
        "{said}"
    );
    let groups: Vec<_> = lines[2].split_whitespace().collect();
    ensure!(
        groups.len() == 2 && groups[0] == groups[1],
        "it is not in the foreground: {said}"
    );
    Ok(())
}

async fn a_signal_to_all_reaches_what_a_login_session_started(target: &Target) -> Outcome {
    let alice = target.user("alice");
    let mut command = alice.shell("setsid -f sleep 4242; exec sleep 4243");
    let child = command.login_session(true).spawn().await?;
    // Those that are nothing else any more.
    let both = || async { Ok(shell(&alice, "pgrep -c -x -f 'sleep 424[23]'").await?.1 == "2\n") };
    eventually("both run", PATIENCE, both).await?;
    let processes = alice.processes();
    processes
        .signal(child.process_id(), 9, SignalTarget::All)
        .await?;
    let status = child.wait().await?;
    ensure!(status.signal == Some(9), "{status:?}");
    let none = || async { Ok(shell(&alice, "pgrep -c -f 'sleep 424[23]'").await?.1 == "0\n") };
    eventually("all are gone", PATIENCE, none).await
}

/// What alice does to her own session is hers alone, and nothing is told that nobody knows.
async fn who_ends_the_usher_ends_the_program_and_its_exit_is_unknown(target: &Target) -> Outcome {
    let alice = target.user("alice");
    let mut command = alice.command("sleep");
    let child = command.arg("4244").login_session(true).spawn().await?;
    let killing = alice
        .command("pkill")
        .args(["-KILL", "guestline-usher"])
        .output()
        .await?;
    ensure!(killing.status.success(), "there was no usher: {killing:?}");
    let ended = tokio::time::timeout(PATIENCE, child.wait())
        .await
        .context("the call goes on")?;
    refusal("an exit that nobody saw", ended)?;
    let gone = || async { Ok(!shell(&alice, "pgrep -f '[s]leep 4244'").await?.0) };
    eventually("the program is gone", PATIENCE, gone).await
}

async fn a_login_session_ends_with_its_program(target: &Target) -> Outcome {
    let (root, alice) = (target.user("root"), target.user("alice"));
    let id = in_session(&alice, "echo $XDG_SESSION_ID").await?;
    let line = format!(
        "loginctl list-sessions --no-legend | grep -w {}; pgrep guestline-usher; pgrep systemd-run",
        id.trim()
    );
    let gone = || async { Ok(shell(&root, &line).await?.1.is_empty()) };
    eventually("the session is gone, and who attended it", PATIENCE, gone).await
}

async fn a_login_that_pam_refuses_is_an_error_that_says_so(target: &Target) -> Outcome {
    let (root, bob) = (target.user("root"), target.user("bob"));
    let (expired, _) = shell(&root, "chage -E 1 bob").await?;
    ensure!(expired, "cannot make bob's account expire");
    let refused = bob.command("true").login_session(true).output().await;
    let without = bob.command("true").output().await;
    shell(&root, "chage -E -1 bob").await?;
    let error = refusal("a session of an expired account", refused)?;
    ensure!(error.reason() == Some(ErrorReason::ToolFailed), "{error:?}");
    ensure!(
        without?.status.success(),
        "PAM has no word where no session is asked for"
    );
    ensure!(in_session(&bob, "echo in").await? == "in\n");
    Ok(())
}

/// Of at most 64 at once and 16 within 4 s, the second is what programs meet that end at once.
async fn sessions_begin_at_a_bounded_rate_and_each_user_has_its_own(target: &Target) -> Outcome {
    let (root, alice, bob) = (
        target.user("root"),
        target.user("alice"),
        target.user("bob"),
    );
    let (mut begun, mut refused, mut late) = (0, 0, 0);
    // A slow machine may take longer for so many than they are counted together.
    for _ in 0..5 {
        let runs = (0..32).map(|_| {
            let alice = alice.clone();
            let run = async move { alice.command("true").login_session(true).output().await };
            tokio::spawn(run)
        });
        let runs: Vec<_> = runs.collect();
        // On a slow machine none opens within its time while so many do.
        let has_his = || async {
            Ok(in_session(&bob, "id -un")
                .await
                .is_ok_and(|id| id == "bob\n"))
        };
        eventually("bob has a session", PATIENCE, has_his).await?;
        for run in runs {
            match run.await? {
                Ok(output) => {
                    ensure!(output.status.success(), "{output:?}");
                    begun += 1;
                }
                Err(error) if error.reason() == Some(ErrorReason::Limit) => refused += 1,
                Err(error) if error.to_string().contains(TOO_LATE) => late += 1,
                Err(error) => return Err(error.into()),
            }
        }
        if refused > 0 {
            break;
        }
    }
    let count = format!("{begun} sessions begun, {refused} refused, {late} too late");
    println!("    {count}");
    ensure!(begun > 0 && refused > 0, "{count}");
    let told = "journalctl --unit guestline-agent | grep -q 'sessions of this user began within'";
    let is_told = || async { Ok(shell(&root, told).await?.0) };
    eventually("the agent's log says why", PATIENCE, is_told).await?;
    let again = || async { Ok(in_session(&alice, "echo in").await.is_ok()) };
    eventually("alice has sessions again", PATIENCE, again).await
}

async fn a_login_session_outlives_client_and_listener(target: &Target) -> Outcome {
    let mut command = target.user("alice").shell("read x; echo got $x; exit 5");
    let started = command.login_session(true).stdin(true).start(None).await?;
    kill_listener(target).await?;
    let processes = target.user("alice").processes();
    let attached = processes
        .attach(started.process_id, Offsets::default())
        .await?;
    attached.input().write("word\n").await;
    let (said, code) = rest(attached).await?;
    ensure!(said == "got word\n" && code == Some(5), "{said:?} {code:?}");
    Ok(())
}
