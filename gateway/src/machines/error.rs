//! What can go wrong between a session and its guest.

use std::{sync::Arc, time::Duration};

use thiserror::Error;

use crate::{ids::VmId, store::StoreError};

/// Why a machine does not do what it should. Cheap to clone: all who waited for one wake get the same.
#[derive(Clone, Debug, Error)]
pub(crate) enum MachineFailure {
    #[error("this VM has no way to {0}: it was registered without that hook")]
    NoHook(&'static str),
    #[error("the VM did not {doing} within {limit:?}")]
    TimedOut {
        doing: &'static str,
        limit: Duration,
    },
    #[error("the orchestrator failed to {doing} the VM: {why}")]
    Hook { doing: &'static str, why: String },
    #[error("the VM was started, and no agent answers in it")]
    NoAgent,
    #[error("the VM could not be started: {0}")]
    Start(Arc<str>),
    #[error("there can be no such VM: {0}")]
    Spec(Arc<str>),
    #[error("the VM could not be suspended")]
    Suspend,
    #[error("the VM could not be ended")]
    Stop,
    #[error("it cannot be told whether the VM runs; the gateway's log says why")]
    Uncertain,
    #[error("the VM's secret cannot be read")]
    Secret,
    #[error("the VM's disk could not be removed")]
    Disk,
    #[error("the VM {0} was deleted")]
    Deleted(VmId),
    #[error("the VM is not running")]
    NotRunning,
    #[error("the VM is being suspended or stopped")]
    Suspending,
    #[error("the VM runs on another gateway")]
    Elsewhere,
    #[error("this gateway runs no machines of its own: start it with --machines")]
    NoMachines,
    #[error(transparent)]
    Store(Arc<StoreError>),
}

impl From<StoreError> for MachineFailure {
    fn from(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }
}
