//! What the guest says of itself, and what it lets nobody but root change. Nothing here may succeed in changing it: the
//! local target's clock and random pool are those of the host.

use std::{
    ffi::OsString,
    time::{Duration, SystemTime},
};

use anyhow::{Context, ensure};
use guestline_client::{CreateService, Error, ErrorReason, LogOptions, Metrics, ServiceAction};

use super::{expect_errno, refusal};
use crate::{cases, runner::Outcome, target::Target};

/// Of Linux.
const EPERM: i32 = 1;

cases![
    info_knows_the_guest_and_who_asks,
    users_and_groups_are_listed,
    the_clock_is_roots_alone,
    a_clock_is_never_set_to_before_2020,
    the_random_pool_is_roots_alone,
    freezing_and_thawing_are_roots_alone,
    a_freeze_has_a_limit,
    services_want_systemd_and_a_plain_name,
    metrics_move_and_know_the_workers,
    metrics_have_a_shortest_interval,
    the_power_is_roots_alone,
];

async fn info_knows_the_guest_and_who_asks(target: &Target) -> Outcome {
    let alice = target.user("alice");
    let info = alice.system().info().await?;
    let boot_id = String::from_utf8(
        alice
            .files()
            .read("/proc/sys/kernel/random/boot_id")
            .await?,
    )?;
    ensure!(
        info.boot_id == boot_id.trim() && info.memory.total > 0 && info.cpus > 0,
        "{info:?}"
    );
    let psi = alice.files().stat("/proc/pressure").await.is_ok();
    ensure!(
        info.capabilities.contains(&"pidfd".into())
            && info.capabilities.contains(&"psi".into()) == psi
            && info.capabilities.contains(&"systemd".into()) == (target.name() == "debian"),
        "{:?}",
        info.capabilities
    );
    ensure!(
        info.identity.uid == 1000 && info.identity.groups.contains(&1000),
        "{:?}",
        info.identity
    );
    Ok(())
}

async fn users_and_groups_are_listed(target: &Target) -> Outcome {
    let system = target.user("bob").system();
    let users = system.users().await?;
    let alice = users.iter().find(|user| user.name == "alice");
    ensure!(
        alice.is_some_and(|alice| alice.uid == 1000 && alice.home.ends_with("alice")),
        "{users:?}"
    );
    ensure!(
        system
            .groups()
            .await?
            .iter()
            .any(|group| group.name == "alice" && group.gid == 1000)
    );
    Ok(())
}

async fn the_clock_is_roots_alone(target: &Target) -> Outcome {
    let alice = target.user("alice").system();
    expect_errno("set time", alice.set_time(SystemTime::now()).await, EPERM)
}

async fn a_clock_is_never_set_to_before_2020(target: &Target) -> Outcome {
    let root = target.user("root").system();
    let year_2000 = SystemTime::UNIX_EPOCH + Duration::from_secs(946_684_800);
    for time in [SystemTime::UNIX_EPOCH, year_2000] {
        let error = refusal("an early time", root.set_time(time).await)?;
        ensure!(
            error.reason() == Some(ErrorReason::InvalidArgument) && error.errno().is_none(),
            "{error:?}"
        );
    }
    Ok(())
}

async fn the_random_pool_is_roots_alone(target: &Target) -> Outcome {
    let alice = target.user("alice").system();
    expect_errno("reseed", alice.reseed(vec![7; 32]).await, EPERM)?;
    for size in [0, 4097] {
        let error = refusal("reseed", alice.reseed(vec![7; size]).await)?;
        ensure!(
            error.reason() == Some(ErrorReason::InvalidArgument),
            "{size} bytes: {error:?}"
        );
    }
    Ok(())
}

async fn freezing_and_thawing_are_roots_alone(target: &Target) -> Outcome {
    let alice = target.user("alice").system();
    let error = refusal("freeze", alice.freeze(None).await)?;
    ensure!(error.is_permission_denied(), "{error:?}");
    let error = refusal("thaw", alice.thaw().await)?;
    // A guest without block devices has nothing that the kernel could refuse.
    ensure!(
        error.errno() == Some(EPERM) || error.reason() == Some(ErrorReason::NotFrozen),
        "{error:?}"
    );
    Ok(())
}

async fn a_freeze_has_a_limit(target: &Target) -> Outcome {
    let alice = target.user("alice").system();
    for seconds in [0, 301] {
        let limit = Some(Duration::from_secs(seconds));
        let error = refusal("freeze", alice.freeze(limit).await)?;
        ensure!(
            error.reason() == Some(ErrorReason::InvalidArgument),
            "{seconds} s: {error:?}"
        );
    }
    Ok(())
}

async fn services_want_systemd_and_a_plain_name(target: &Target) -> Outcome {
    let alice = target.user("alice").system();
    let option = alice
        .control_service("--host=x", ServiceAction::Status)
        .await;
    let error = refusal("an option as a name", option)?;
    ensure!(
        error.reason() == Some(ErrorReason::InvalidArgument),
        "{error:?}"
    );
    if target.name() == "debian" {
        return Ok(());
    }
    let unsupported = |error: Error| {
        ensure!(
            error.reason() == Some(ErrorReason::Unsupported),
            "{error:?}"
        );
        Ok(())
    };
    unsupported(refusal("listing", alice.services("").await)?)?;
    let status = alice.control_service("web", ServiceAction::Status).await;
    unsupported(refusal("a status", status)?)?;
    let logs = alice.service_logs("web", LogOptions::default()).await;
    unsupported(refusal("a log", logs)?)?;
    let new = CreateService {
        name: "web".into(),
        ..Default::default()
    };
    unsupported(refusal("creating", alice.create_service(new).await)?)
}

async fn metrics_move_and_know_the_workers(target: &Target) -> Outcome {
    let (alice, bob) = (target.user("alice"), target.user("bob"));
    bob.files().stat("/").await?;
    let mut looks = alice
        .system()
        .metrics(Some(Duration::from_millis(100)))
        .await?;
    let first = looks.next().await?.context("no first look")?;
    let named = |look: &Metrics, name: &str| {
        let user = Some(OsString::from(name));
        look.agent
            .iter()
            .find(|process| process.user == user)
            .cloned()
    };
    let own = named(&first, "alice").context("alice's own worker is not there")?;
    let status = String::from_utf8(alice.files().read("/proc/self/status").await?)?;
    let pid = format!("Pid:\t{}\n", own.pid);
    ensure!(status.contains(&pid) && own.uid == 1000, "{own:?}");
    ensure!(own.resident > 100_000 && own.threads > 0, "{own:?}");
    ensure!(named(&first, "bob").is_some_and(|bob| bob.uid == 1001));
    let listeners = first.agent.iter().filter(|process| process.user.is_none());
    ensure!(listeners.count() == 1, "{:?}", first.agent);
    let memory = first.memory;
    ensure!(memory.total > memory.available && memory.available > 0);
    let mut last = first.clone();
    while last.cpu.busy == first.cpu.busy || last.cpu.total == first.cpu.total {
        last = looks.next().await?.context("the looks ended")?;
    }
    ensure!(last.cpu.total > first.cpu.total && last.now > first.now);
    ensure!((0.0..=1.0).contains(&last.cpu.share_since(first.cpu)));
    Ok(())
}

async fn metrics_have_a_shortest_interval(target: &Target) -> Outcome {
    let alice = target.user("alice").system();
    for interval in [Duration::from_millis(99), Duration::from_secs(3601)] {
        let error = refusal("metrics", alice.metrics(Some(interval)).await)?;
        ensure!(
            error.reason() == Some(ErrorReason::InvalidArgument),
            "{interval:?}: {error:?}"
        );
    }
    Ok(())
}

async fn the_power_is_roots_alone(target: &Target) -> Outcome {
    let alice = target.user("alice").system();
    for (what, result) in [
        ("power off", alice.power_off().await),
        ("reboot", alice.reboot().await),
    ] {
        let error = refusal(what, result)?;
        ensure!(error.is_permission_denied(), "{what}: {error:?}");
        ensure!(
            target.name() == "debian" || error.errno() == Some(EPERM),
            "{what}: {error:?}"
        );
    }
    Ok(())
}
