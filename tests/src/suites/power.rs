//! The end of a machine; it comes after all other suites.

use std::time::Duration;

use anyhow::ensure;
use guestline_client::{Error, RefusalReason};

use crate::{cases, eventually::eventually, runner::Outcome, target::Target};

cases![a_machine_answers_and_then_powers_off];

async fn a_machine_answers_and_then_powers_off(target: &Target) -> Outcome {
    target.user("root").system().power_off().await?;
    let patience = Duration::from_secs(300);
    eventually("no agent answers", patience, || async {
        match target.user("root").system().info().await {
            Ok(_) => Ok(false),
            // Going down, it may lose the place of its secret before its agent: then nobody is let in.
            Err(Error::Refused {
                reason: Some(RefusalReason::Unauthenticated),
                ..
            }) if target.secret().is_some() => Ok(false),
            Err(error) => {
                ensure!(
                    matches!(error, Error::Connect { .. } | Error::Lost(_)),
                    "{error:?}"
                );
                Ok(matches!(error, Error::Connect { .. }))
            }
        }
    })
    .await
}
