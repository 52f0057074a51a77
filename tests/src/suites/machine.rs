//! What only a machine of its own can show: the host's settings stay as they are.

use std::time::Duration;

use anyhow::ensure;
use guestline_client::{CreateGroup, CreateUser, ErrorReason};

use super::{expect_errno, isolation::listener_of, refusal, shell};
use crate::{cases, eventually::eventually, runner::Outcome, target::Target};

cases![
    the_listener_stays_shut_with_suid_dumpable,
    a_user_is_created_and_used_at_once,
    a_user_who_joins_a_group_has_it_on_the_next_connection,
];

/// Promise 2, with fs.suid_dumpable=1, which makes processes that changed their user readable.
async fn the_listener_stays_shut_with_suid_dumpable(target: &Target) -> Outcome {
    let (root, alice) = (target.user("root"), target.user("alice"));
    let (set, _) = shell(&root, "echo 1 > /proc/sys/fs/suid_dumpable").await?;
    ensure!(set, "cannot set fs.suid_dumpable");
    let listener = listener_of(&root).await?;
    for name in ["mem", "environ", "maps", "root/etc/shadow", "fd/0"] {
        let path = format!("/proc/{listener}/{name}");
        expect_errno(&path, alice.files().read(&path).await, 13)?;
    }
    Ok(())
}

async fn a_user_is_created_and_used_at_once(target: &Target) -> Outcome {
    let root = target.user("root");
    let (there, _) = shell(&root, "grep -q ^carol: /etc/passwd").await?;
    ensure!(!there, "carol is there already");
    let crew = CreateGroup {
        name: "crew".into(),
        ..Default::default()
    };
    let new = CreateUser {
        name: "carol".into(),
        groups: vec!["crew".into()],
        ..Default::default()
    };
    let group = root.system().create_group(crew).await;
    // Debian's busybox has no adduser: there the answer is that the guest cannot.
    let (has_tool, _) = shell(&root, "command -v groupadd || command -v addgroup").await?;
    if !has_tool {
        let error = refusal("creating a group without a tool", group)?;
        ensure!(
            error.reason() == Some(ErrorReason::Unsupported),
            "{error:?}"
        );
        return Ok(());
    }
    group?;
    let carol = root.system().create_user(new.clone()).await?;
    let (_, id) = shell(&target.user("carol"), "id -u; id -Gn; pwd").await?;
    let mut lines = id.lines();
    ensure!(lines.next() == Some(carol.uid.to_string().as_str()), "{id}");
    ensure!(
        lines.next().is_some_and(|groups| groups.contains("crew")),
        "{id}"
    );
    ensure!(lines.next() == Some("/home/carol"), "{id}");
    let again = root.system().create_user(new).await;
    ensure!(again.is_err_and(|error| error.reason() == Some(ErrorReason::AlreadyExists)));
    Ok(())
}

/// Promise 10.
async fn a_user_who_joins_a_group_has_it_on_the_next_connection(target: &Target) -> Outcome {
    let root = target.user("root");
    // One handle, so that its old connection is told to go, and reconnects by itself.
    let bob = target.user("bob");
    let (_, before) = shell(&bob, "id -G").await?;
    let (joined, _) = shell(
        &root,
        "grep -q ^dock: /etc/group || echo dock:x:1777:bob >> /etc/group",
    )
    .await?;
    ensure!(joined && !before.contains("1777"), "{before}");
    eventually("bob is in the group", Duration::from_secs(10), || async {
        Ok(shell(&bob, "id -G")
            .await
            .is_ok_and(|(_, groups)| groups.contains("1777")))
    })
    .await
}
