//! Becoming a user fails at each of its steps in turn: nothing runs as anybody else, and the answer names the step
//!. For the local target, whose agent can be started by another program.

use std::{
    fs::{self, File},
    io::Read,
    net::Shutdown,
    os::{
        fd::OwnedFd,
        unix::{
            fs::{FileExt, PermissionsExt},
            net::UnixStream,
        },
    },
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, ensure};
use guestline_client::{Error, RefusalReason, Secret};

use super::{
    isolation::{field, listener_of},
    proc::worker_of,
    refusal, shell,
};
use crate::{cases, runner::Outcome, target::Target};

cases![
    a_refused_step_is_named_and_nothing_runs: [14],
    a_step_that_only_seems_to_succeed_is_found_out: [14],
    capabilities_that_stay_are_found_out: [14],
    a_way_back_is_found_out: [14],
    what_the_agent_inherited_reaches_no_worker: [3, 13],
    nothing_that_the_listener_remembers_is_in_a_worker: [2, 13],
    an_usher_that_is_not_wholly_the_user_says_nothing: [14],
    a_random_pool_that_is_not_renewed_is_an_error,
];

async fn a_refused_step_is_named_and_nothing_runs(target: &Target) -> Outcome {
    for (call, step) in [
        ("setgroups", "setgroups"),
        ("setresgid", "setresgid"),
        ("setresuid", "setresuid"),
        ("set_dumpable", "prctl(PR_SET_DUMPABLE)"),
        ("getresuid", "reading back the identity"),
        ("getresgid", "reading back the identity"),
        ("getgroups", "reading back the identity"),
        ("capget", "reading back the identity"),
    ] {
        let text = refused(target, confined(call, "refused")?)
            .await
            .with_context(|| format!("{call} refused"))?;
        ensure!(
            text.contains(step) && text.contains("not permitted"),
            "{call}: {text:?}"
        );
    }
    Ok(())
}

/// The calls answer 0, and the process is root still, in whole or in part.
async fn a_step_that_only_seems_to_succeed_is_found_out(target: &Target) -> Outcome {
    for call in ["setgroups", "setresgid", "setresuid"] {
        let text = refused(target, confined(call, "skipped")?)
            .await
            .with_context(|| format!("{call} skipped"))?;
        ensure!(
            text.contains("verifying that the ids and groups are the user's"),
            "{call}: {text:?}"
        );
    }
    Ok(())
}

/// With SECBIT_NO_SETUID_FIXUP of capabilities(7), root's capabilities survive the change of the uid.
async fn capabilities_that_stay_are_found_out(target: &Target) -> Outcome {
    let mut start = Command::new("setpriv");
    start.args(KEEP_CAPABILITIES).arg("unshare");
    let text = refused(target, start).await?;
    ensure!(
        text.contains("verifying that there are no capabilities"),
        "{text:?}"
    );
    Ok(())
}

/// The same, and capget(2) shows none: only trying to become root again tells.
async fn a_way_back_is_found_out(target: &Target) -> Outcome {
    let mut start = Command::new("setpriv");
    start.args(KEEP_CAPABILITIES);
    let confined = confined("capget", "skipped")?;
    start.arg(confined.get_program()).args(confined.get_args());
    let text = refused(target, start).await?;
    ensure!(
        text.contains("verifying that there is no way back to root"),
        "{text:?}"
    );
    Ok(())
}

/// A descriptor of a file that is root's alone, which whoever started the agent left open.
async fn what_the_agent_inherited_reaches_no_worker(target: &Target) -> Outcome {
    let agent = target
        .agent()
        .context("a machine's agent is started already")?;
    let mut start = Command::new("sh");
    start.args(["-c", r#"exec 9</etc/shadow; exec unshare "$@""#, "sh"]);
    let other = Target::local_by(agent, start, None).await?;
    let (root, alice) = (other.user("root"), other.user("alice"));
    let listener = listener_of(&root).await?;
    let listeners = root
        .files()
        .read_link(format!("/proc/{listener}/fd/9"))
        .await?;
    ensure!(
        listeners.ends_with("etc/shadow"),
        "the listener has {listeners:?}: it shows nothing"
    );
    for vm in [&root, &alice] {
        for entry in vm.files().read_dir("/proc/self/fd").await? {
            let path = format!("/proc/self/fd/{}", entry.name().display());
            // The thread that reads the folder has it open no more.
            let link = vm.files().read_link(&path).await.unwrap_or_default();
            ensure!(
                !link.ends_with("etc/shadow"),
                "{path} of a worker is {link:?}"
            );
        }
        let (_, held) = shell(vm, "exec ls -l /proc/self/fd").await?;
        ensure!(!held.contains("shadow"), "a program holds {held}");
    }
    Ok(())
}

/// A word in its environment stands for all of its memory: a worker is executed, and has nothing that it was not told.
async fn nothing_that_the_listener_remembers_is_in_a_worker(target: &Target) -> Outcome {
    let agent = target
        .agent()
        .context("a machine's agent is started already")?;
    let word = Secret::random()?;
    let mut start = Command::new("unshare");
    start.env("GUESTLINE_REMEMBERED", word.expose());
    let other = Target::local_by(agent, start, None).await?;
    let (root, alice) = (other.user("root"), other.user("alice"));
    // By what a worker is asked for files alone: one that is not executed may run no programs.
    let status = String::from_utf8(root.files().read("/proc/self/status").await?)?;
    let listener = field(&status, "PPid:")?;
    ensure!(
        remembers(&other, &listener, word.expose())?,
        "the listener does not have the word: it shows nothing"
    );
    for vm in [&root, &alice] {
        let worker = worker_of(vm).await?;
        ensure!(
            !remembers(&other, &worker, word.expose())?,
            "the worker {worker} has what was the listener's"
        );
    }
    Ok(())
}

/// Whether a process of that agent has a word anywhere in its memory, by the pid that it has in its namespace.
fn remembers(target: &Target, pid: &str, word: &str) -> anyhow::Result<bool> {
    let program = target.switches().context("a local agent")?;
    let program = program.with_extension("");
    let is_it = |folder: &Path| {
        let status = fs::read_to_string(folder.join("status")).unwrap_or_default();
        let within = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
        within.and_then(|pids| pids.split_whitespace().last()) == Some(pid)
            && fs::read_link(folder.join("exe")).is_ok_and(|exe| exe == program)
    };
    let mut folders = fs::read_dir("/proc")?.flatten().map(|entry| entry.path());
    let folder = folders.find(|folder| is_it(folder));
    let folder = folder.with_context(|| format!("{pid} is not to be seen from here"))?;
    let memory = File::open(folder.join("mem"))?;
    let mut seen = 0;
    for line in fs::read_to_string(folder.join("maps"))?.lines() {
        let [range, rights, ..] = line.split_whitespace().collect::<Vec<_>>()[..] else {
            continue;
        };
        if !rights.starts_with('r') {
            continue;
        }
        let bound = |text: &str| u64::from_str_radix(text, 16);
        let (begin, end) = range.split_once('-').context("a range")?;
        let (begin, end) = (bound(begin)?, bound(end)?);
        // Pages of the kernel's own cannot be read so.
        let mut bytes = vec![0; (end - begin) as usize];
        if memory.read_exact_at(&mut bytes, begin).is_ok() {
            seen += bytes.len();
            if bytes
                .windows(word.len())
                .any(|part| part == word.as_bytes())
            {
                return Ok(true);
            }
        }
    }
    ensure!(seen > 100_000, "only {seen} bytes of {pid} were read");
    Ok(false)
}

/// systemd starts it as the user: here setpriv(1), in part.
async fn an_usher_that_is_not_wholly_the_user_says_nothing(target: &Target) -> Outcome {
    const IDS: [&str; 2] = ["--reuid=1000", "--regid=1000"];
    let agent = target
        .agent()
        .context("a machine's agent is started already")?;
    // Where everybody can execute it.
    let folder = tempfile::Builder::new()
        .prefix("guestline-usher")
        .tempdir_in("/var/tmp")?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
    let usher = folder.path().join("guestline-agent");
    fs::copy(agent, &usher)?;
    let start = |options: &[&str]| -> anyhow::Result<(Vec<u8>, String)> {
        let (mut ours, ushers) = UnixStream::pair()?;
        let mut command = Command::new("setpriv");
        command.args(options).arg(&usher);
        command.args(["usher", "1000", "1000", "1000", "27"]);
        command.stdin(OwnedFd::from(ushers)).stderr(Stdio::piped());
        let child = command.spawn()?;
        // What ends the wait of one that greets.
        ours.shutdown(Shutdown::Write)?;
        drop(command);
        let mut said = Vec::new();
        ours.read_to_end(&mut said)?;
        let errors = child.wait_with_output()?.stderr;
        Ok((said, String::from_utf8_lossy(&errors).into_owned()))
    };
    let clear = "--clear-groups";
    let inheritable = "--inh-caps=+net_raw";
    // What a login of the guest's may give.
    for options in [
        &["--groups=1000,27"][..],
        &["--groups=1000,27,44"],
        &[clear],
        &[clear, inheritable],
        &[clear, inheritable, "--ambient-caps=+net_raw"],
    ] {
        let (said, errors) = start(&[&IDS[..], options].concat())?;
        ensure!(!said.is_empty(), "{options:?}: {errors:?}");
    }
    for (options, step) in [
        (&[clear][..], "ids and groups"),
        (&["--reuid=1000", clear], "ids and groups"),
        (&["--euid=1000", "--regid=1000", clear], "ids and groups"),
        (&["--reuid=1001", "--regid=1000", clear], "ids and groups"),
        (&[IDS[0], IDS[1], "--groups=1000,0"], "ids and groups"),
        (
            &[
                IDS[0],
                IDS[1],
                "--inh-caps=+setuid",
                "--ambient-caps=+setuid",
                clear,
            ],
            "way back to root",
        ),
    ] {
        let (said, errors) = start(options)?;
        ensure!(
            said.is_empty() && errors.contains(step),
            "{options:?}: {} bytes, {errors:?}",
            said.len()
        );
    }
    // One that nobody handed on: of the binary itself (vfs_cap_data of linux/capability.h, revision 2, effective).
    let net_raw = [0x0200_0001_u32, 1 << 13, 0, 0, 0].map(u32::to_le_bytes);
    let files = target.user("root").files();
    let (name, value) = ("security.capability", net_raw.concat());
    files.set_extended_attribute(&usher, name, value).await?;
    for handed_on in [&[][..], &[inheritable]] {
        let (said, errors) = start(&[&IDS[..], &[clear], handed_on].concat())?;
        ensure!(
            said.is_empty() && errors.contains("capabilities"),
            "{handed_on:?}: {} bytes, {errors:?}",
            said.len()
        );
    }
    Ok(())
}

const KEEP_CAPABILITIES: [&str; 2] = ["--securebits", "+no_setuid_fixup"];

/// Starts `unshare` with a system call that does not work.
fn confined(call: &str, answer: &str) -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["confined", call, answer, "unshare"]);
    Ok(command)
}

/// Each of the two steps: new bytes for the kernel's pool, and its generator made anew from them (random(4)).
async fn a_random_pool_that_is_not_renewed_is_an_error(target: &Target) -> Outcome {
    let agent = target
        .agent()
        .context("a machine's agent is started already")?;
    for call in ["add_entropy", "reseed_pool"] {
        let other = Target::local_by(agent, confined(call, "refused")?, None).await?;
        let root = other.user("root").system();
        let error = refusal(call, root.reseed(vec![7; 64]).await)?;
        ensure!(error.is_permission_denied(), "{call}: {error:?}");
    }
    Ok(())
}

/// Why an agent that was started so does not become alice, having run nothing for her.
async fn refused(target: &Target, start: Command) -> anyhow::Result<String> {
    let agent = target
        .agent()
        .context("a machine's agent is started already")?;
    let other = Target::local_by(agent, start, None).await?;
    let marker = tempfile::Builder::new()
        .prefix("guestline-marker")
        .tempdir_in("/var/tmp")?;
    // Whoever it would run as.
    fs::set_permissions(marker.path(), fs::Permissions::from_mode(0o777))?;
    let path = marker.path().join("ran");
    let alice = other.user("alice");
    let ran = alice.command("touch").arg(&path).output().await;
    let error = refusal("running a program", ran)?;
    refusal("making a file", alice.files().write(&path, "x").await)?;
    ensure!(!path.exists(), "something ran");
    match error {
        Error::Refused {
            reason: Some(RefusalReason::Failed),
            text,
            ..
        } => Ok(text),
        other => Err(other.into()),
    }
}
