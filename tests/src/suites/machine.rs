//! What only a machine of its own can show: the host's settings stay as they are.

use std::time::{Duration, SystemTime};

use anyhow::{Context, ensure};
use guestline_client::{ClockStep, CreateGroup, CreateUser, Error, ErrorReason, RefusalReason, Vm};

use super::{accounts::with_accounts, expect_errno, isolation::listener_of, refusal, shell};
use crate::{
    cases,
    eventually::{PATIENCE, eventually},
    runner::Outcome,
    target::Target,
};

cases![
    the_listener_stays_shut_with_suid_dumpable: [2],
    a_user_is_created_and_used_at_once,
    a_user_who_joins_or_leaves_a_group_has_it_so_on_the_next_connection: [10],
    an_account_with_another_uid_or_none_is_that_on_the_next_connection: [10],
    the_clock_is_set_and_the_step_told,
    the_random_pool_takes_fresh_bytes,
    a_guest_without_a_disk_has_nothing_to_freeze,
    a_resumed_guest_has_the_time_a_new_generation_and_new_connections: [33],
    a_resume_is_roots_alone_and_all_or_nothing,
];

/// With fs.suid_dumpable=1, which makes processes that changed their user readable.
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

    let mut add = super::commands::guestline(target, "root")?;
    let words = [
        "users", "add", "dave", "--uid", "4242", "--group", "crew", "--json",
    ];
    let output = add.args(words).output().await?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{said}");
    let made: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    ensure!(
        made[0]["name"] == "dave" && made[0]["uid"] == 4242,
        "{made}"
    );
    let (_, groups) = shell(&target.user("dave"), "id -Gn").await?;
    ensure!(groups.contains("crew"), "{groups}");
    Ok(())
}

async fn a_user_who_joins_or_leaves_a_group_has_it_so_on_the_next_connection(
    target: &Target,
) -> Outcome {
    let root = target.user("root");
    // One handle, so that its old connection is told to go, and reconnects by itself.
    let bob = target.user("bob");
    let (_, before) = shell(&bob, "id -G").await?;
    ensure!(!before.contains("1777"), "{before}");
    for (change, is_member) in [
        ("echo dock:x:1777:bob >> /etc/group", true),
        ("sed -i /^dock:/d /etc/group", false),
    ] {
        ensure!(shell(&root, change).await?.0, "{change}");
        let is_it = async |vm: &Vm| {
            let (_, groups) = shell(vm, "id -G").await?;
            anyhow::Ok(groups.contains("1777") == is_member)
        };
        ensure!(
            is_it(&target.user("bob")).await?,
            "the next connection is as before: {change}"
        );
        // A call over the old one may end with it.
        eventually("the old connection is told to go", PATIENCE, || async {
            Ok(is_it(&bob).await.unwrap_or(false))
        })
        .await?;
    }
    Ok(())
}

async fn an_account_with_another_uid_or_none_is_that_on_the_next_connection(
    target: &Target,
) -> Outcome {
    let uid_of = async |vm: &Vm| anyhow::Ok(shell(vm, "id -u").await?.1.trim().to_owned());
    // One handle, whose old connection is told to go each time.
    let old = target.user("mover");
    for uid in ["1910", "1911"] {
        let line = format!("mover:x:{uid}:{uid}::/:/bin/sh");
        with_accounts(target, &[&line], async || {
            ensure!(uid_of(&target.user("mover")).await? == uid);
            eventually("the old connection is told to go", PATIENCE, async || {
                Ok(uid_of(&old).await.is_ok_and(|now| now == uid))
            })
            .await
        })
        .await?;
    }
    let is_refused = async |vm: &Vm| {
        matches!(
            vm.files().stat("/").await,
            Err(Error::Refused {
                reason: Some(RefusalReason::UserNotFound),
                ..
            })
        )
    };
    ensure!(
        is_refused(&target.user("mover")).await,
        "the next connection is one of nobody's"
    );
    eventually("the old connection is told to go", PATIENCE, async || {
        Ok(is_refused(&old).await)
    })
    .await
}

async fn the_clock_is_set_and_the_step_told(target: &Target) -> Outcome {
    let root = target.user("root");
    let day = Duration::from_secs(86_400);
    let minutes = Duration::from_secs(600);
    let now = SystemTime::now();
    root.system().set_time(now).await?;
    let forward = root.system().set_time(now + day).await?;
    ensure!(
        matches!(forward, ClockStep::Forward(by) if by > day - minutes && by <= day),
        "{forward:?}"
    );
    let (_, seconds) = shell(&root, "date +%s").await?;
    let shown = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.trim().parse()?);
    ensure!(shown + minutes > now + day, "the clock says {shown:?}");
    let back = root.system().set_time(SystemTime::now()).await?;
    ensure!(
        matches!(back, ClockStep::Back(by) if by > day - minutes),
        "{back:?}"
    );
    Ok(())
}

async fn the_random_pool_takes_fresh_bytes(target: &Target) -> Outcome {
    let root = target.user("root");
    root.system().reseed(vec![7; 64]).await?;
    root.system().reseed(vec![7; 4096]).await?;
    let (ok, bytes) = shell(&root, "head -c 32 /dev/urandom | od -An -tx1").await?;
    ensure!(ok && bytes.split_whitespace().count() == 32, "{bytes}");
    Ok(())
}

async fn a_guest_without_a_disk_has_nothing_to_freeze(target: &Target) -> Outcome {
    if target.name() == "debian" {
        return Ok(());
    }
    let root = target.user("root").system();
    let error = refusal("freeze", root.freeze(None).await)?;
    ensure!(
        error.reason() == Some(ErrorReason::Unsupported),
        "{error:?}"
    );
    let error = refusal("thaw", root.thaw().await)?;
    ensure!(error.reason() == Some(ErrorReason::NotFrozen), "{error:?}");
    Ok(())
}

/// For a clock that is an hour behind.
async fn a_resumed_guest_has_the_time_a_new_generation_and_new_connections(
    target: &Target,
) -> Outcome {
    let (root, alice) = (target.user("root"), target.user("alice"));
    let before = root.system().info().await?.generation;
    let hour = Duration::from_secs(3600);
    root.system().set_time(SystemTime::now() - hour).await?;
    let (_, worker) = shell(&alice, "echo $PPID").await?;
    let sockets = format!("ls -l /proc/{}/fd | grep -c socket:", worker.trim());
    let running = alice
        .shell("read -r line; echo $line")
        .stdin(true)
        .spawn()
        .await?;
    let idle = target.user("alice");
    idle.files().stat("/").await?;
    let (_, busy) = shell(&root, &sockets).await?;

    let told = SystemTime::now();
    let (generation, step) = root
        .system()
        .resumed(told, vec![7; 64])
        .await
        .context("the answer to Resumed")?;
    ensure!(generation == before + 1, "{before} became {generation}");
    let minute = Duration::from_secs(60);
    ensure!(
        matches!(step, ClockStep::Forward(by) if by > hour - minute && by < hour + minute),
        "{step:?}"
    );
    // The first call after it.
    let info = root.system().info().await.context("root's next call")?;
    // Behind by what the way of the word took, and no more.
    let shown = info.now.context("no time")?;
    ensure!(
        shown >= told && shown <= SystemTime::now() + Duration::from_millis(100),
        "told {told:?}, it shows {shown:?}"
    );

    // Who had nothing under way was told to go; who had goes on to its end.
    eventually("idle connections are gone", PATIENCE, || async {
        let (_, now) = shell(&root, &sockets).await?;
        Ok(now.trim().parse::<u32>()? < busy.trim().parse()?)
    })
    .await?;
    // This handle's old connection is the program's alone now.
    let info = alice.system().info().await.context("alice's next call")?;
    ensure!(
        info.generation == generation,
        "alice sees {}",
        info.generation
    );
    running.input().write("still here\n").await;
    let output = running.wait_with_output(100).await?;
    ensure!(output.stdout == b"still here\n", "{output:?}");
    idle.files().stat("/").await?;
    let (_, same) = shell(&idle, "echo $PPID").await?;
    ensure!(same == worker, "the worker was {worker:?} and is {same:?}");
    Ok(())
}

async fn a_resume_is_roots_alone_and_all_or_nothing(target: &Target) -> Outcome {
    let (root, alice) = (target.user("root"), target.user("alice"));
    let before = root.system().info().await?.generation;
    let resumed = alice.system().resumed(SystemTime::now(), vec![7; 64]).await;
    expect_errno("resumed as alice", resumed, 1)?;
    let long_ago = SystemTime::UNIX_EPOCH;
    for (time, entropy) in [
        (long_ago, 64),
        (SystemTime::now(), 0),
        (SystemTime::now() + Duration::from_secs(86_400), 4097),
    ] {
        let resumed = root.system().resumed(time, vec![7; entropy]).await;
        let error = refusal("a wrong resume", resumed)?;
        ensure!(
            error.reason() == Some(ErrorReason::InvalidArgument),
            "{error:?}"
        );
    }
    let info = root.system().info().await?;
    ensure!(
        info.generation == before,
        "{before} became {}",
        info.generation
    );
    let ahead = info
        .now
        .and_then(|now| now.duration_since(SystemTime::now()).ok());
    ensure!(
        ahead.is_none_or(|by| by < Duration::from_secs(60)),
        "{:?}",
        info.now
    );
    Ok(())
}
