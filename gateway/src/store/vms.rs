//! Machines as the store knows them. Their state changes by compare-and-set alone, so that of many gateways and requests
//! one wakes a machine.

use std::{
    path::PathBuf,
    time::{Duration, SystemTime},
};

use guestline_client::Endpoint;
use serde::{Deserialize, Serialize};
use sqlx::any::AnyRow;

use super::{Store, StoreError, column, from_millis, optional, time_column, to_millis};
use crate::ids::{GatewayId, IdentityId, InstanceId, VmId};
use sqlx::Row;

/// What a machine is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum VmState {
    /// Being created, started or resumed.
    Starting,
    Running,
    /// On its way to suspended or stopped.
    Suspending,
    Suspended,
    Stopped,
}

impl VmState {
    const ALL: [Self; 5] = [
        Self::Starting,
        Self::Running,
        Self::Suspending,
        Self::Suspended,
        Self::Stopped,
    ];

    /// As the HTTP API says it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Suspending => "suspending",
            Self::Suspended => "suspended",
            Self::Stopped => "stopped",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

/// Who runs the machine, and what that takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(crate) enum VmKind {
    /// An orchestrator, which may have given hooks.
    External {
        hooks: Hooks,
        /// Where its secret is, on the hosts of gateways. The secret itself is never here.
        #[serde(default)]
        secret_file: Option<PathBuf>,
    },
    /// The gateway of that id, under QEMU.
    Embedded {
        gateway: GatewayId,
        image: String,
        memory_mib: u32,
        /// The image's number otherwise.
        #[serde(default)]
        cpus: Option<u32>,
        /// Debian packages beyond the image's.
        #[serde(default)]
        packages: Vec<String>,
        users: Vec<String>,
        /// As large as the image's otherwise.
        #[serde(default)]
        disk_gib: Option<u32>,
        /// Absent: until it is deleted.
        #[serde(default)]
        kept_until: Option<KeptUntil>,
    },
}

/// The end of a machine that is not kept for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum KeptUntil {
    /// It may sleep with its memory.
    Stopped,
    /// It may not even do that.
    Suspended,
}

impl VmKind {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::External { .. } => "external",
            Self::Embedded { .. } => "embedded",
        }
    }
}

/// URLs that are POSTed to when a machine must change its state. What has none, the machine cannot do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Hooks {
    /// Starts or resumes; may answer `{"endpoint": "…"}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) start: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) stop: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) suspend: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) delete: Option<String>,
}

/// A machine.
#[derive(Clone, Debug)]
pub(crate) struct Vm {
    pub(crate) id: VmId,
    pub(crate) kind: VmKind,
    pub(crate) state: VmState,
    pub(crate) state_since: SystemTime,
    pub(crate) instance: Option<InstanceId>,
    /// Where its agent answers, once that is known.
    pub(crate) endpoint: Option<Endpoint>,
    /// Where relative paths and commands begin; the user's home otherwise.
    pub(crate) workdir: Option<String>,
    /// It goes to sleep after this time without an operation; never otherwise.
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) last_activity: SystemTime,
    pub(crate) created_at: SystemTime,
}

impl Vm {
    /// Whether it is deleted instead of coming to that state.
    pub(crate) fn is_not_kept(&self, state: VmState) -> bool {
        let VmKind::Embedded {
            kept_until: Some(until),
            ..
        } = &self.kind
        else {
            return false;
        };
        match state {
            VmState::Stopped => true,
            VmState::Suspended => *until == KeptUntil::Suspended,
            VmState::Starting | VmState::Running | VmState::Suspending => false,
        }
    }

    /// Whether it was booted, and will not be once more: it lives as long as its QEMU.
    pub(crate) fn is_in_its_only_run(&self) -> bool {
        self.instance.is_some() && self.is_not_kept(VmState::Stopped)
    }
}

pub(super) const COLUMNS: &str = "vms.id, vms.kind, vms.definition, vms.state, vms.state_since, vms.instance, vms.endpoint, \
     vms.workdir, vms.idle_timeout, vms.last_activity, vms.created_at";

impl Store {
    pub(crate) async fn add_vm(&self, vm: &Vm) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO vms (id, kind, definition, state, state_since, instance, endpoint, workdir, idle_timeout, \
             last_activity, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        )
        .bind(vm.id.as_str())
        .bind(vm.kind.name())
        .bind(serde_json::json!(vm.kind).to_string())
        .bind(vm.state.as_str())
        .bind(to_millis(vm.state_since))
        .bind(vm.instance.as_ref().map(|id| id.as_str().to_owned()))
        .bind(vm.endpoint.as_ref().map(Endpoint::to_string))
        .bind(vm.workdir.clone())
        .bind(vm.idle_timeout.map(to_seconds))
        .bind(to_millis(vm.last_activity))
        .bind(to_millis(vm.created_at))
        .execute(&self.pool)
        .await
        .map_err(StoreError::query("add a VM"))?;
        Ok(())
    }

    pub(crate) async fn vm(&self, id: &VmId) -> Result<Option<Vm>, StoreError> {
        let row = sqlx::query(&format!("SELECT {COLUMNS} FROM vms WHERE id = $1"))
            .bind(id.as_str())
            .fetch_optional(&self.pool)
            .await
            .map_err(StoreError::query("find a VM"))?;
        row.as_ref().map(read_vm).transpose()
    }

    /// All, the oldest first.
    pub(crate) async fn vms(&self) -> Result<Vec<Vm>, StoreError> {
        let rows = sqlx::query(&format!(
            "SELECT {COLUMNS} FROM vms ORDER BY created_at, id"
        ))
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::query("list VMs"))?;
        rows.iter().map(read_vm).collect()
    }

    /// Those that an identity was granted, less those granted to nobody.
    pub(crate) async fn granted_vms(&self, identity: &IdentityId) -> Result<Vec<Vm>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM vms JOIN grants ON grants.vm = vms.id \
             WHERE grants.identity = $1 AND (grants.allowed_users IS NULL OR grants.allowed_users <> '[]') \
             ORDER BY vms.created_at, vms.id"
        );
        let rows = sqlx::query(&sql)
            .bind(identity.as_str())
            .fetch_all(&self.pool)
            .await
            .map_err(StoreError::query("list granted VMs"))?;
        rows.iter().map(read_vm).collect()
    }

    /// Those that may have to go to sleep, the longest unused first.
    pub(crate) async fn idle_vms(&self, now: SystemTime) -> Result<Vec<Vm>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM vms WHERE state = 'running' AND idle_timeout IS NOT NULL \
             AND last_activity + idle_timeout * 1000 < $1 ORDER BY last_activity, id"
        );
        let rows = sqlx::query(&sql)
            .bind(to_millis(now))
            .fetch_all(&self.pool)
            .await
            .map_err(StoreError::query("list idle VMs"))?;
        rows.iter().map(read_vm).collect()
    }

    /// With its grants. `false` if it was not there.
    pub(crate) async fn delete_vm(&self, id: &VmId) -> Result<bool, StoreError> {
        let done = sqlx::query("DELETE FROM vms WHERE id = $1")
            .bind(id.as_str())
            .execute(&self.pool)
            .await
            .map_err(StoreError::query("delete a VM"))?;
        Ok(done.rows_affected() == 1)
    }

    /// From the state that `seen` shows to another, if nobody else was faster: `None` then.
    pub(crate) async fn change_state(
        &self,
        seen: &Vm,
        to: VmState,
    ) -> Result<Option<Vm>, StoreError> {
        self.change_state_if(seen, to, SystemTime::now()).await
    }

    /// The same, unless somebody used the machine since `seen` was read.
    pub(crate) async fn change_state_if_unused(
        &self,
        seen: &Vm,
        to: VmState,
    ) -> Result<Option<Vm>, StoreError> {
        self.change_state_if(seen, to, seen.last_activity).await
    }

    async fn change_state_if(
        &self,
        seen: &Vm,
        to: VmState,
        unused_since: SystemTime,
    ) -> Result<Option<Vm>, StoreError> {
        // A change within the same millisecond must still be one: nobody may take the new state for the seen one.
        let since = to_millis(SystemTime::now()).max(to_millis(seen.state_since) + 1);
        let done = sqlx::query(
            "UPDATE vms SET state = $1, state_since = $2 \
             WHERE id = $3 AND state = $4 AND state_since = $5 AND last_activity <= $6",
        )
        .bind(to.as_str())
        .bind(since)
        .bind(seen.id.as_str())
        .bind(seen.state.as_str())
        .bind(to_millis(seen.state_since))
        .bind(to_millis(unused_since))
        .execute(&self.pool)
        .await
        .map_err(StoreError::query("change a VM's state"))?;
        let changed = Vm {
            state: to,
            state_since: from_millis(since),
            ..seen.clone()
        };
        Ok((done.rows_affected() == 1).then_some(changed))
    }

    /// A machine that was starting runs. `false` if it was not starting any more: it was deleted meanwhile.
    pub(crate) async fn set_running(
        &self,
        id: &VmId,
        instance: &InstanceId,
        endpoint: &Endpoint,
    ) -> Result<bool, StoreError> {
        let now = to_millis(SystemTime::now());
        let done = sqlx::query(
            "UPDATE vms SET state = 'running', state_since = $1, last_activity = $2, instance = $3, endpoint = $4 \
             WHERE id = $5 AND state = 'starting'",
        )
        .bind(now)
        .bind(now)
        .bind(instance.as_str())
        .bind(endpoint.to_string())
        .bind(id.as_str())
        .execute(&self.pool)
        .await
        .map_err(StoreError::query("note that a VM runs"))?;
        Ok(done.rows_affected() == 1)
    }

    /// At the start of a gateway that has the database for itself: whoever was changing an orchestrator's machine has died,
    /// and nobody need wait for them.
    pub(crate) async fn abandon_changes(&self) -> Result<(), StoreError> {
        if !self.is_alone {
            return Ok(());
        }
        sqlx::query(
            "UPDATE vms SET state_since = 0 WHERE kind = 'external' AND state IN ('starting', 'suspending')",
        )
        .execute(&self.pool)
        .await
        .map_err(StoreError::query("give up changes of VMs"))?;
        Ok(())
    }

    /// Somebody uses it. `false` if it does not run.
    pub(crate) async fn touch_vm(&self, id: &VmId) -> Result<bool, StoreError> {
        let done =
            sqlx::query("UPDATE vms SET last_activity = $1 WHERE id = $2 AND state = 'running'")
                .bind(to_millis(SystemTime::now()))
                .bind(id.as_str())
                .execute(&self.pool)
                .await
                .map_err(StoreError::query("note a VM's use"))?;
        Ok(done.rows_affected() == 1)
    }

    pub(crate) async fn set_idle_timeout(
        &self,
        id: &VmId,
        limit: Option<Duration>,
    ) -> Result<(), StoreError> {
        sqlx::query("UPDATE vms SET idle_timeout = $1 WHERE id = $2")
            .bind(limit.map(to_seconds))
            .bind(id.as_str())
            .execute(&self.pool)
            .await
            .map_err(StoreError::query("set a VM's idle timeout"))?;
        Ok(())
    }
}

/// The same where a LEFT JOIN may have found none.
pub(super) fn read_joined_vm(row: &AnyRow) -> Result<Option<Vm>, StoreError> {
    let id = optional(row, "id", VmId::parse)?;
    id.map(|_| read_vm(row)).transpose()
}

pub(super) fn read_vm(row: &AnyRow) -> Result<Vm, StoreError> {
    let idle: Option<i64> = row
        .try_get("idle_timeout")
        .map_err(StoreError::query("read a VM"))?;
    Ok(Vm {
        id: column(row, "id", VmId::parse)?,
        kind: column(row, "definition", |text| serde_json::from_str(text).ok())?,
        state: column(row, "state", VmState::parse)?,
        state_since: time_column(row, "state_since")?,
        instance: optional(row, "instance", InstanceId::parse)?,
        endpoint: optional(row, "endpoint", |text| text.parse().ok())?,
        workdir: optional(row, "workdir", |text| Some(text.to_owned()))?,
        idle_timeout: idle.map(|seconds| Duration::from_secs(seconds.unsigned_abs())),
        last_activity: time_column(row, "last_activity")?,
        created_at: time_column(row, "created_at")?,
    })
}

fn to_seconds(time: Duration) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}
