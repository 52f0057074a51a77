//! A worker is its user: what the kernel refuses alice, alice does not get through us.

use std::collections::BTreeSet;

use anyhow::{Context, ensure};
use guestline_client::{Vm, WriteOptions};

use super::{expect_errno, put, restart::FIND_LISTENER, shell};
use crate::{cases, runner::Outcome, target::Target};

const EACCES: i32 = 13;
const EPERM: i32 = 1;

cases![
    a_file_of_roots_is_refused_by_every_path: [1],
    bob_cannot_read_what_alice_keeps_and_root_can,
    a_write_clears_the_setuid_bit_as_the_kernel_says: [4],
    a_child_is_its_user_and_nothing_more: [13],
    a_program_has_the_limit_of_files_that_the_agent_was_started_with: [13],
    changing_the_guest_is_refused_by_the_kernel,
];

/// The path does not matter, and the answer is what alice's own shell gets.
async fn a_file_of_roots_is_refused_by_every_path(target: &Target) -> Outcome {
    let (root, alice) = (target.user("root"), target.user("alice"));
    let options = WriteOptions::replace().permissions(0o600);
    put(&root.files(), "/root/secret", "roots", options.clone()).await?;
    put(&root.files(), "/var/tmp/secret", "roots", options).await?;
    let _ = alice.files().remove_file("link").await;
    alice.files().symlink("/var/tmp/secret", "link").await?;
    for path in [
        "/root/secret",
        "/var/tmp/secret",
        "link",
        "../../var/tmp/secret",
        "/proc/self/root/var/tmp/secret",
    ] {
        expect_errno(
            &format!("reading {path}"),
            alice.files().read(path).await,
            EACCES,
        )?;
        let write = put(&alice.files(), path, "mine", WriteOptions::truncate()).await;
        expect_errno(&format!("writing {path}"), write, EACCES)?;
        ensure!(
            !shell(&alice, &format!("cat {path}")).await?.0,
            "alice's own shell reads {path}"
        );
    }
    expect_errno(
        "listing /root",
        alice.files().read_dir("/root").await,
        EACCES,
    )?;
    ensure!(
        root.files().read("/var/tmp/secret").await? == b"roots",
        "the secret changed"
    );
    // The folder is sticky: alice may not remove there what is root's.
    expect_errno(
        "removing it",
        alice.files().remove_file("/var/tmp/secret").await,
        EPERM,
    )?;
    Ok(())
}

async fn bob_cannot_read_what_alice_keeps_and_root_can(target: &Target) -> Outcome {
    target
        .user("alice")
        .files()
        .write("diary", "dear diary")
        .await?;
    expect_errno(
        "bob reading it",
        target.user("bob").files().read("/home/alice/diary").await,
        EACCES,
    )?;
    ensure!(
        target
            .user("root")
            .files()
            .read("/home/alice/diary")
            .await?
            == b"dear diary"
    );
    Ok(())
}

async fn a_write_clears_the_setuid_bit_as_the_kernel_says(target: &Target) -> Outcome {
    let (root, alice) = (target.user("root"), target.user("alice"));
    let (made, _) = shell(
        &root,
        "echo x > /var/tmp/suid && chgrp 1000 /var/tmp/suid && chmod 4775 /var/tmp/suid",
    )
    .await?;
    ensure!(made, "cannot prepare the file");
    ensure!(root.files().stat("/var/tmp/suid").await?.mode == 0o4775);
    put(
        &alice.files(),
        "/var/tmp/suid",
        "evil",
        WriteOptions::truncate(),
    )
    .await?;
    let after = root.files().stat("/var/tmp/suid").await?;
    ensure!(
        after.mode & 0o6000 == 0 && after.uid == 0,
        "mode {:o}, uid {}",
        after.mode,
        after.uid
    );
    Ok(())
}

async fn a_child_is_its_user_and_nothing_more(target: &Target) -> Outcome {
    let alice = target.user("alice");
    // Not through a shell: busybox's ignores SIGQUIT, and its applets inherit that.
    let status = alice
        .command("cat")
        .arg("/proc/self/status")
        .output()
        .await?;
    let status = String::from_utf8(status.stdout)?;
    ensure!(field(&status, "Uid:")? == "1000 1000 1000 1000", "{status}");
    ensure!(field(&status, "Gid:")? == "1000 1000 1000 1000", "{status}");
    let groups = field(&status, "Groups:")?;
    // Of the account, by name: what the asking process has is not asked for.
    let (_, id) = shell(&alice, "id -G alice").await?;
    let set =
        |words: &str| -> BTreeSet<String> { words.split_whitespace().map(Into::into).collect() };
    ensure!(set(&groups) == set(&id), "{groups} is not {id}");
    for set in [
        "CapInh:", "CapPrm:", "CapEff:", "CapAmb:", "SigBlk:", "SigIgn:",
    ] {
        ensure!(field(&status, set)? == "0000000000000000", "{set} {status}");
    }
    let (_, fds) = shell(&alice, "exec ls /proc/self/fd").await?;
    // 3 is ls reading the folder.
    ensure!(
        fds.split_whitespace().eq(["0", "1", "2", "3"]),
        "descriptors {fds:?}"
    );
    let (_, umask) = shell(&alice, "umask").await?;
    ensure!(umask.trim().ends_with("022"), "umask {umask:?}");
    let environment = alice.command("env").output().await?.stdout;
    let mut names: Vec<String> = String::from_utf8(environment)?
        .lines()
        .map(|line| line.split('=').next().unwrap_or_default().into())
        .collect();
    names.sort();
    ensure!(
        names == ["HOME", "LANG", "LOGNAME", "PATH", "SHELL", "USER"],
        "the environment has {names:?}"
    );
    Ok(())
}

async fn changing_the_guest_is_refused_by_the_kernel(target: &Target) -> Outcome {
    let alice = target.user("alice");
    let new = guestline_client::CreateGroup {
        name: "mine".into(),
        ..Default::default()
    };
    expect_errno(
        "alice creating a group",
        alice.system().create_group(new).await,
        EACCES,
    )
}

/// The listener's pid. It is not always the one that started root's worker: that may be from before a restart.
pub(super) async fn listener_of(root: &Vm) -> anyhow::Result<String> {
    let (_, found) = shell(root, FIND_LISTENER).await?;
    let pid = found.trim();
    ensure!(pid.parse::<u32>().is_ok(), "which one is it? {found:?}");
    Ok(pid.into())
}

/// A line of a process's status file (proc(5)), with single spaces.
pub(super) fn field(status: &str, name: &str) -> anyhow::Result<String> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .with_context(|| format!("no {name}"))?;
    Ok(line.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// What the agent raises for itself.
async fn a_program_has_the_limit_of_files_that_the_agent_was_started_with(
    target: &Target,
) -> Outcome {
    let (root, alice) = (target.user("root"), target.user("alice"));
    let (_, said) = shell(&alice, "ulimit -Sn; ulimit -Hn; echo $PPID").await?;
    let words: Vec<&str> = said.split_whitespace().collect();
    let [soft, hard, worker] = words[..] else {
        anyhow::bail!("{said:?}");
    };
    ensure!(soft == "1024" && hard != soft, "{said:?}");
    let limits = root.files().read(format!("/proc/{worker}/limits")).await?;
    let limits = String::from_utf8(limits.to_vec())?;
    let own = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let own: Vec<&str> = own.unwrap_or_default().split_whitespace().collect();
    ensure!(own.get(3..5) == Some(&[hard, hard][..]), "{own:?}");
    Ok(())
}
