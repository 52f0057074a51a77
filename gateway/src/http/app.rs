//! What handlers share.

use std::{ops::Deref, sync::Arc, time::Duration};

use crate::{
    audit::Audit,
    machines::{AwakeGuest, MachineFailure, Machines},
    metrics::Metrics,
    sessions::{LiveSessions, Sessions},
    store::Store,
};

use super::{guard::Permitted, limits::Limits};

/// The gateway's parts. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct App(Arc<Parts>);

/// What there is one of.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) store: Store,
    pub(crate) sessions: Sessions,
    pub(crate) live: LiveSessions,
    pub(crate) machines: Machines,
    pub(crate) audit: Audit,
    pub(crate) metrics: Metrics,
    pub(crate) limits: Limits,
    pub(crate) settings: Settings,
}

/// Bounds and choices of the HTTP side.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// The largest file that goes through one JSON body.
    pub(crate) max_file: usize,
    /// Both streams of a command together; what is beyond is cut.
    pub(crate) max_output: usize,
    /// A new machine sleeps after this, unless its creator says otherwise.
    pub(crate) idle_timeout: Duration,
    /// The last `X-Forwarded-For` is the peer.
    pub(crate) behind_proxy: bool,
}

impl App {
    pub(crate) fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// The guest of an operation, woken if it sleeps.
    pub(super) async fn guest(&self, permitted: &Permitted) -> Result<AwakeGuest, MachineFailure> {
        let (session, operation) = (&permitted.session, &permitted.operation);
        self.machines.guest(session, operation).await
    }
}

impl Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}
