//! Connections to guests, kept between requests: one per VM and Linux user, because connecting costs more than most calls.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use guestline_client::{Endpoint, Secret, Username, Vm};
use nix::unistd::geteuid;

use super::{MachineFailure, embedded};
use crate::{
    ids::VmId,
    store::{self, VmKind},
};

/// Kept at the most: a descriptor and some 100 KiB each.
const MAX_KEPT: usize = 2048;

/// One that nobody used for this long is closed, and the guest's worker may go.
const IDLE: Duration = Duration::from_secs(60);

/// Connecting to a running machine, hello included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The connections of this gateway.
#[derive(Debug, Default)]
pub(crate) struct Guests {
    kept: Mutex<HashMap<(VmId, Username), Kept>>,
}

#[derive(Debug)]
struct Kept {
    guest: Vm,
    used: Instant,
}

impl Guests {
    /// The connection, which connects when it is used.
    pub(crate) fn get(
        &self,
        vm: &store::Vm,
        endpoint: &Endpoint,
        user: &Username,
    ) -> Result<Vm, MachineFailure> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (vm.id.clone(), user.clone());
        if let Some(found) = kept.get_mut(&key)
            && found.guest.endpoint() == endpoint
        {
            found.used = Instant::now();
            return Ok(found.guest.clone());
        }
        if kept.len() >= MAX_KEPT {
            let oldest = kept
                .iter()
                .min_by_key(|(_, kept)| kept.used)
                .map(|(key, _)| key.clone());
            oldest.map(|key| kept.remove(&key));
        }
        let guest = connection(vm, endpoint, user)?;
        kept.insert(
            key,
            Kept {
                guest: guest.clone(),
                used: Instant::now(),
            },
        );
        Ok(guest)
    }

    /// Forgets all connections of a machine that sleeps or is gone.
    pub(crate) fn forget(&self, vm: &VmId) {
        self.retain(|(of, _), _| of != vm);
    }

    /// Closes what nobody uses.
    pub(crate) fn close_idle(&self) {
        self.retain(|_, kept| kept.used.elapsed() < IDLE);
    }

    fn retain(&self, keep: impl Fn(&(VmId, Username), &Kept) -> bool) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|key, value| keep(key, value));
    }
}

/// One that is not kept.
pub(crate) fn connection(
    vm: &store::Vm,
    endpoint: &Endpoint,
    user: &Username,
) -> Result<Vm, MachineFailure> {
    let guest = without_secret(endpoint).user(user.as_str());
    Ok(match secret_of(vm)? {
        Some(secret) => guest.secret(secret),
        None => guest,
    })
}

/// For who wants to know whether an agent answers at all.
pub(crate) fn without_secret(endpoint: &Endpoint) -> Vm {
    Vm::new(endpoint.clone()).connect_timeout(CONNECT_TIMEOUT)
}

/// Read when it is needed: it is in no database, and a new one in the file counts from the next connection on.
fn secret_of(vm: &store::Vm) -> Result<Option<Secret>, MachineFailure> {
    let file = match &vm.kind {
        VmKind::External { secret_file, .. } => secret_file.clone(),
        VmKind::Embedded { .. } => embedded::secret_file(&vm.id),
    };
    let Some(file) = file else { return Ok(None) };
    match Secret::read_file(&file, geteuid().as_raw()) {
        // The first is the one that a host shows.
        Ok(secrets) => Ok(secrets.into_iter().next()),
        Err(error) => {
            tracing::warn!(vm = %vm.id, %error, "a VM's secret cannot be read");
            Err(MachineFailure::Secret)
        }
    }
}
