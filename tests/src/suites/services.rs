//! systemd's services in a guest that has them.

use std::time::{Duration, SystemTime};

use anyhow::{Context, ensure};
use guestline_client::{
    CreateService, ErrorReason, LogOptions, LogStream, ServiceAction, System, Vm,
};

use super::{refusal, shell};
use crate::{cases, eventually::PATIENCE, runner::Outcome, target::Target};

cases![
    a_service_is_created_started_and_seen,
    only_root_may_change_services_and_read_their_logs,
    a_followed_log_brings_what_comes,
    a_wrong_unit_file_leaves_nothing,
    a_removed_service_is_gone,
    a_service_that_fails_says_how,
];

const UNITS: &str = "/etc/systemd/system";

fn talker(name: &str) -> CreateService {
    CreateService {
        name: name.into(),
        unit: "[Unit]\nDescription=Says hello\n[Service]\nExecStart=/bin/sh -c 'echo hello; echo \"<3>a <word>\" >&2; exec sleep 1000'\n[Install]\nWantedBy=multi-user.target\n".into(),
        enable: true,
        start: true,
    }
}

/// As the first case of a name, so that a second run on the same machine finds nothing.
async fn forget(root: &Vm, name: &str) {
    let _ = root
        .system()
        .control_service(name, ServiceAction::Remove)
        .await;
}

async fn has_unit_file(root: &Vm, name: &str) -> anyhow::Result<bool> {
    match root.files().lstat(format!("{UNITS}/{name}.service")).await {
        Ok(_) => Ok(true),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error.into()),
    }
}

async fn a_service_is_created_started_and_seen(target: &Target) -> Outcome {
    let root = target.user("root");
    forget(&root, "talker").await;
    let made = root.system().create_service(talker("talker")).await?;
    ensure!(
        made.name == "talker.service"
            && made.active_state == "active"
            && made.enabled
            && made.main_pid.is_some()
            && made.description == "Says hello",
        "{made:?}"
    );
    let again = root.system().create_service(talker("talker.service")).await;
    let error = refusal("a second of that name", again)?;
    ensure!(
        error.reason() == Some(ErrorReason::AlreadyExists),
        "{error:?}"
    );
    let names = |services: Vec<guestline_client::Service>| -> Vec<String> {
        services.into_iter().map(|service| service.name).collect()
    };
    let all = names(root.system().services("").await?);
    ensure!(
        all.contains(&made.name) && all.contains(&"guestline-agent.service".into()),
        "{all:?}"
    );
    ensure!(all.is_sorted() && !all.iter().any(|name| name.contains("@.")));
    ensure!(names(root.system().services("talk*").await?) == ["talker.service"]);
    ensure!(root.system().services("no-such-*").await?.is_empty());
    let stopped = root
        .system()
        .control_service("talker", ServiceAction::Stop)
        .await?;
    ensure!(stopped.active_state == "inactive" && stopped.main_pid.is_none());
    let disabled = root
        .system()
        .control_service("talker", ServiceAction::Disable)
        .await?;
    ensure!(!disabled.enabled && disabled.unit_file_state == "disabled");
    forget(&root, "talker").await;
    Ok(())
}

async fn only_root_may_change_services_and_read_their_logs(target: &Target) -> Outcome {
    let (root, alice) = (target.user("root"), target.user("alice").system());
    forget(&root, "guarded").await;
    let error = refusal("creating", alice.create_service(talker("guarded")).await)?;
    ensure!(error.is_permission_denied(), "{error:?}");
    ensure!(
        !has_unit_file(&root, "guarded").await?,
        "alice's unit file is there"
    );
    root.system().create_service(talker("guarded")).await?;
    let seen = alice
        .control_service("guarded", ServiceAction::Status)
        .await?;
    ensure!(seen.active_state == "active", "{seen:?}");
    for action in [
        ServiceAction::Start,
        ServiceAction::Stop,
        ServiceAction::Restart,
        ServiceAction::Disable,
        ServiceAction::Remove,
    ] {
        let result = alice.control_service("guarded", action).await;
        let error = refusal(&format!("{action:?} as alice"), result)?;
        ensure!(error.is_permission_denied(), "{action:?}: {error:?}");
    }
    let error = refusal(
        "alice's reading",
        alice.service_logs("guarded", LogOptions::default()).await,
    )?;
    ensure!(error.is_permission_denied(), "{error:?}");
    let mut logs = follow(&root.system(), "guarded").await?;
    let hello = next_with(&mut logs, "hello").await?;
    ensure!(hello.time.is_some(), "{hello:?}");
    let word = next_with(&mut logs, "a <word>").await?;
    ensure!(word.priority == Some(3), "{word:?}");
    forget(&root, "guarded").await;
    Ok(())
}

async fn a_followed_log_brings_what_comes(target: &Target) -> Outcome {
    let root = target.user("root");
    forget(&root, "followed").await;
    root.system().create_service(talker("followed")).await?;
    let mut logs = follow(&root.system(), "followed").await?;
    next_with(&mut logs, "hello").await?;
    root.system()
        .control_service("followed", ServiceAction::Restart)
        .await?;
    next_with(&mut logs, "hello").await?;
    // Without `follow`, the same lines, and then an end.
    let last = LogOptions {
        lines: Some(1),
        ..Default::default()
    };
    let mut last = root.system().service_logs("followed", last).await?;
    ensure!(last.next().await?.is_some() && last.next().await?.is_none());
    let later = LogOptions {
        since: Some(SystemTime::now() + Duration::from_secs(86_400)),
        ..Default::default()
    };
    let mut later = root.system().service_logs("followed", later).await?;
    ensure!(later.next().await?.is_none(), "a line of tomorrow");
    drop(logs);
    let gone = async || {
        let (running, _) = shell(&root, "pgrep -f 'journalctl.*followed.*--follo[w]'").await?;
        Ok(!running)
    };
    crate::eventually::eventually("journalctl has ended", PATIENCE, gone).await?;
    forget(&root, "followed").await;
    Ok(())
}

async fn a_wrong_unit_file_leaves_nothing(target: &Target) -> Outcome {
    let root = target.user("root");
    forget(&root, "wrong").await;
    let invalid = async |new: CreateService| {
        let error = refusal(&new.name.clone(), root.system().create_service(new).await)?;
        ensure!(
            error.reason() == Some(ErrorReason::InvalidArgument),
            "{error:?}"
        );
        Ok(())
    };
    let wrong = CreateService {
        unit: "[Service]\nType=simple\n".into(),
        ..talker("wrong")
    };
    invalid(wrong).await?;
    ensure!(
        !has_unit_file(&root, "wrong").await?,
        "the wrong file is there"
    );
    for name in ["", "-H", "../x", "a b", "x.socket", "x@"] {
        invalid(talker(name)).await?;
    }
    let large = CreateService {
        unit: "#".repeat(64 * 1024 + 1),
        ..talker("large")
    };
    invalid(large).await
}

async fn a_removed_service_is_gone(target: &Target) -> Outcome {
    let root = target.user("root");
    forget(&root, "removed").await;
    root.system().create_service(talker("removed")).await?;
    root.system()
        .control_service("removed", ServiceAction::Remove)
        .await?;
    let not_found = async |action| {
        let result = root.system().control_service("removed", action).await;
        let error = refusal(&format!("{action:?}"), result)?;
        ensure!(error.is_not_found(), "{action:?}: {error:?}");
        Ok(())
    };
    not_found(ServiceAction::Status).await?;
    not_found(ServiceAction::Start).await?;
    not_found(ServiceAction::Remove).await?;
    ensure!(!has_unit_file(&root, "removed").await?);
    let unknown = root
        .system()
        .service_logs("never-was", LogOptions::default())
        .await;
    let error = refusal("the log of nothing", unknown)?;
    ensure!(error.is_not_found(), "{error:?}");
    // What a package brought stays.
    let foreign = root
        .system()
        .control_service("systemd-journald", ServiceAction::Remove)
        .await;
    let error = refusal("removing a package's service", foreign)?;
    ensure!(error.is_not_found(), "{error:?}");
    Ok(())
}

async fn a_service_that_fails_says_how(target: &Target) -> Outcome {
    let root = target.user("root");
    forget(&root, "failing").await;
    let new = CreateService {
        unit: "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'exit 7'\n".into(),
        enable: false,
        ..talker("failing")
    };
    let error = refusal("starting", root.system().create_service(new).await)?;
    ensure!(error.reason() == Some(ErrorReason::ToolFailed), "{error:?}");
    let failed = root
        .system()
        .control_service("failing", ServiceAction::Status)
        .await?;
    ensure!(
        failed.active_state == "failed" && failed.result == "exit-code" && failed.exit_status == 7,
        "{failed:?}"
    );
    forget(&root, "failing").await;
    Ok(())
}

async fn follow(system: &System, name: &str) -> anyhow::Result<LogStream> {
    let options = LogOptions {
        follow: true,
        ..Default::default()
    };
    Ok(system.service_logs(name, options).await?)
}

async fn next_with(logs: &mut LogStream, word: &str) -> anyhow::Result<guestline_client::LogLine> {
    let found = async {
        loop {
            let line = logs.next().await?.context("the log ended")?;
            if line.text == word.as_bytes() {
                return Ok(line);
            }
        }
    };
    let found = tokio::time::timeout(PATIENCE, found).await;
    found.with_context(|| format!("no line {word:?}"))?
}
