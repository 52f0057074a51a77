//! Powering the guest off, or rebooting it, so that its services end first: by systemd, else by the guest's init through
//! its own tool, else by the kernel alone.

use std::{path::Path, time::Duration};

use nix::{
    errno::Errno,
    sys::reboot::{RebootMode, reboot},
    unistd::sync,
};
use thiserror::Error;

use super::{
    services::{self, ServiceError},
    tool,
};
use crate::sys::power;

/// How long an init that ends all processes at once is kept from it, for the answer to reach the host.
const ANSWER_TIME: Duration = Duration::from_millis(500);

/// What becomes of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    PowerOff,
    Reboot,
}

impl Mode {
    /// systemctl's verb, and the name of init's tool.
    fn name(self) -> &'static str {
        match self {
            Self::PowerOff => "poweroff",
            Self::Reboot => "reboot",
        }
    }
}

/// Why the guest stays as it is.
#[derive(Debug, Error)]
pub(crate) enum ShutdownError {
    #[error("reboot")]
    Refused(#[source] Errno),
    #[error(transparent)]
    Systemd(#[from] ServiceError),
}

/// Returns once it is certain that the guest goes, and before it does.
pub(crate) async fn shutdown(mode: Mode) -> Result<(), ShutdownError> {
    if Path::new(services::BOOTED).exists() {
        // It takes the order, and ends what runs afterwards.
        return Ok(services::order(mode.name()).await?);
    }
    power::may_reboot().map_err(ShutdownError::Refused)?;
    // Not this call's future, which a client that vanishes would end.
    tokio::spawn(async move {
        tokio::time::sleep(ANSWER_TIME).await;
        let told = tool::run(mode.name(), &[]).await;
        if !told.is_ok_and(|told| told.code == Some(0)) {
            let _ = tokio::task::spawn_blocking(move || without_init(mode)).await;
        }
    });
    Ok(())
}

fn without_init(mode: Mode) {
    sync();
    let mode = match mode {
        Mode::PowerOff => RebootMode::RB_POWER_OFF,
        Mode::Reboot => RebootMode::RB_AUTOBOOT,
    };
    // Nobody is left to be told, and its rights were looked at before.
    let _ = reboot(mode);
}
