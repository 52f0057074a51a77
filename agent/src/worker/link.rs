//! The way to the listener, which may be restarted: lost, looked for, found again.

use std::{
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::{
    control::{ControlError, ControlSocket, Order, Report, Services},
    system::accounts::Account,
};

/// How often a worker without a listener looks for one.
const SEARCH_INTERVAL: Duration = Duration::from_millis(500);

/// Shared by all that have something to say.
#[derive(Debug)]
pub(super) struct Link {
    /// `None`: lost.
    control: Mutex<Option<Arc<ControlSocket>>>,
    runtime_directory: PathBuf,
}

/// What comes from the listener.
#[derive(Debug)]
pub(super) enum Word {
    Order(Order, Option<OwnedFd>),
    /// It is gone.
    Lost,
    /// There is one again, which knows this worker but not what it did before.
    Found,
}

impl Link {
    pub(super) fn new(control: ControlSocket, runtime_directory: PathBuf) -> Self {
        Self {
            control: Mutex::new(Some(Arc::new(control))),
            runtime_directory,
        }
    }

    pub(super) fn is_lost(&self) -> bool {
        self.control().is_none()
    }

    /// Never waits: a listener that does not listen is an error.
    pub(super) fn send(&self, report: &Report) -> Result<(), ControlError> {
        let control = self.control().ok_or(ControlError::Closed)?;
        control.send(report, None)
    }

    /// The next word. Cancel-safe.
    pub(super) async fn next(
        &self,
        account: &Account,
        services: Services,
    ) -> Result<Word, ControlError> {
        match self.control() {
            Some(control) => match control.receive_order().await {
                Ok((order, socket)) => Ok(Word::Order(order, socket)),
                Err(ControlError::Closed) => {
                    self.replace(None);
                    Ok(Word::Lost)
                }
                Err(error) => Err(error),
            },
            None => {
                self.search(account, services).await;
                Ok(Word::Found)
            }
        }
    }

    async fn search(&self, account: &Account, services: Services) {
        loop {
            tokio::time::sleep(SEARCH_INTERVAL).await;
            let found = ControlSocket::come_back(&self.runtime_directory, account.uid);
            let Ok(control) = found else { continue };
            let back = Report::Back {
                account: account.clone(),
                services,
            };
            if control.send(&back, None).is_ok() {
                return self.replace(Some(control));
            }
        }
    }

    fn control(&self) -> Option<Arc<ControlSocket>> {
        let control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        control.clone()
    }

    fn replace(&self, control: Option<ControlSocket>) {
        let mut current = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        *current = control.map(Arc::new);
    }
}
