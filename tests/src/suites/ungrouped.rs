//! A guest without cgroup v2, as the local target is made.

use anyhow::ensure;
use guestline_client::{Error, ErrorReason, SignalTarget};

use super::{commands::guestline, refusal};
use crate::{cases, runner::Outcome, target::Target};

cases![
    limits_are_refused_never_forgotten,
    a_signal_to_all_is_refused,
];

async fn limits_are_refused_never_forgotten(target: &Target) -> Outcome {
    let alice = target.user("alice");
    let error = refusal("limits", alice.command("true").pids_limit(5).output().await)?;
    let Error::Operation {
        operation, errno, ..
    } = &error
    else {
        return Err(error.into());
    };
    // EOPNOTSUPP
    ensure!(operation == "cgroup" && *errno == 95, "{error:?}");
    let mut command = guestline(target, "alice")?;
    let said = command
        .args(["exec", "--pids", "5", "true"])
        .output()
        .await?;
    let text = String::from_utf8_lossy(&said.stderr);
    ensure!(said.status.code() == Some(125), "{:?}", said.status);
    ensure!(text.contains("need cgroup v2"), "{text}");
    Ok(())
}

async fn a_signal_to_all_is_refused(target: &Target) -> Outcome {
    let alice = target.user("alice");
    let child = alice.command("sleep").arg("1000").spawn().await?;
    let signalled = alice
        .processes()
        .signal(child.process_id(), 9, SignalTarget::All)
        .await;
    let error = refusal("a signal to all", signalled)?;
    ensure!(
        error.reason() == Some(ErrorReason::Unsupported),
        "{error:?}"
    );
    Ok(())
}
