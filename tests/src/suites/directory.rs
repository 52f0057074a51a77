//! Users whom the guest's own files do not have: its `getent` knows them. In the debian image that is glibc's, with a
//! source of its own in nsswitch.conf; in the local target a script stands for it.

use std::time::Duration;

use anyhow::ensure;
use guestline_client::{Error, RefusalReason, Vm};

use super::{isolation::field, shell};
use crate::{cases, eventually::eventually, runner::Outcome, target::Target};

cases![
    a_user_of_the_directory_is_one_of_the_guests_users: [10, 15],
    a_user_of_the_directory_keeps_its_worker_when_other_accounts_change: [10],
];

/// For names outside /etc/passwd.
async fn a_user_of_the_directory_is_one_of_the_guests_users(target: &Target) -> Outcome {
    let directory = Directory::of(target).await?;
    directory.set("", "").await?;
    ensure!(is_unknown(&target.user("dora")).await?, "dora is there");
    directory.set(DORA, "crew:x:70001:dora\n").await?;
    let dora = target.user("dora");
    ensure!(ids(&dora).await? == "70000/70000/70000 70001");
    // A number is no name, though getent(1) answers it.
    ensure!(is_unknown(&target.user("70000")).await?, "70000 is a user");
    ensure!(is_unknown(&target.user("--help")).await?);
    directory
        .set(DORA, "crew:x:70001:\nband:x:70002:dora\n")
        .await?;
    ensure!(ids(&target.user("dora")).await? == "70000/70000/70000 70002");
    directory.set("", "").await?;
    ensure!(is_unknown(&target.user("dora")).await?, "dora still is");
    Ok(())
}

/// A change of the files is noticed at once, and is no change of hers.
async fn a_user_of_the_directory_keeps_its_worker_when_other_accounts_change(
    target: &Target,
) -> Outcome {
    let directory = Directory::of(target).await?;
    directory.set(DORA, "").await?;
    let (dora, bob) = (target.user("dora"), target.user("bob"));
    let (of_dora, of_bob) = (pid(&dora).await?, pid(&bob).await?);
    directory.change_bob().await?;
    // A new handle of bob's finds another worker at the latest, and a machine's listener is told of the change before.
    let bob = target.user("bob");
    eventually("bob has another worker", SOON, async || {
        Ok(pid(&bob).await? != of_bob)
    })
    .await?;
    ensure!(
        pid(&dora).await? == of_dora && pid(&target.user("dora")).await? == of_dora,
        "dora's worker was drained"
    );
    // The same change of the files, and this time dora is gone: no connection of hers has to come for that.
    directory.set("", "").await?;
    directory.change_bob().await?;
    if target.is_machine() {
        eventually("dora's connection is told to go", SOON, async || {
            is_unknown(&dora).await
        })
        .await?;
    }
    Ok(())
}

const DORA: &str = "dora:x:70000:70000:Dora:/:/bin/sh\n";

const SOON: Duration = Duration::from_secs(60);

/// What getent asks besides the files: passwd(5) and group(5) elsewhere.
struct Directory {
    root: Vm,
    folder: &'static str,
}

impl Directory {
    async fn of(target: &Target) -> anyhow::Result<Self> {
        let root = target.user("root");
        let folder = if target.is_machine() {
            let extra = "grep -q extrausers /etc/nsswitch.conf || \
                sed -i -E 's/^(passwd|group):.*/& extrausers/' /etc/nsswitch.conf";
            ensure!(shell(&root, extra).await?.0, "cannot name the directory");
            "/var/lib/extrausers"
        } else {
            crate::target::DIRECTORY
        };
        Ok(Self { root, folder })
    }

    async fn set(&self, passwd: &str, group: &str) -> anyhow::Result<()> {
        let files = self.root.files();
        files
            .write(format!("{}/passwd", self.folder), passwd.to_owned())
            .await?;
        files
            .write(format!("{}/group", self.folder), group.to_owned())
            .await?;
        Ok(())
    }

    /// Puts bob in one more group of the guest's own.
    async fn change_bob(&self) -> anyhow::Result<()> {
        let line =
            "gid=$((80000 + $(wc -l < /etc/group))); echo extra$gid:x:$gid:bob >> /etc/group";
        ensure!(shell(&self.root, line).await?.0, "cannot change /etc/group");
        Ok(())
    }
}

async fn is_unknown(vm: &Vm) -> anyhow::Result<bool> {
    let answer = vm.files().stat("/").await;
    Ok(matches!(
        answer.err(),
        Some(Error::Refused {
            reason: Some(RefusalReason::UserNotFound),
            ..
        })
    ))
}

async fn status(vm: &Vm) -> anyhow::Result<String> {
    Ok(String::from_utf8(
        vm.files().read("/proc/self/status").await?,
    )?)
}

async fn pid(vm: &Vm) -> anyhow::Result<String> {
    field(&status(vm).await?, "Pid:")
}

/// Uid, gid and groups, as the kernel has them.
async fn ids(vm: &Vm) -> anyhow::Result<String> {
    let status = status(vm).await?;
    let first = |line: String| line.split(' ').next().unwrap_or_default().to_owned();
    let (uid, gid) = (
        first(field(&status, "Uid:")?),
        first(field(&status, "Gid:")?),
    );
    Ok(format!("{uid}/{gid}/{}", field(&status, "Groups:")?))
}
