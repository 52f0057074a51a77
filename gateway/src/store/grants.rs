//! Grants: which identity reaches which VM, as which Linux users.

use std::time::SystemTime;

use serde::Serialize;
use sqlx::any::AnyRow;

use super::{Page, Store, StoreError, Vm, column, number, optional, time_column, to_millis, vms};
use crate::ids::{GrantId, IdentityId, VmId};

/// The Linux users that a grant reaches, by name. Whether they exist is the guest's business.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(crate) enum AllowedUsers {
    /// Null in JSON.
    Any,
    /// These; none of them is nobody.
    Only(Vec<String>),
}

impl AllowedUsers {
    pub(crate) fn has(&self, user: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Only(users) => users.iter().any(|allowed| allowed == user),
        }
    }

    /// An empty list: the grant reaches nothing.
    pub(crate) fn is_nobody(&self) -> bool {
        matches!(self, Self::Only(users) if users.is_empty())
    }

    fn to_column(&self) -> Option<String> {
        match self {
            Self::Any => None,
            Self::Only(users) => Some(serde_json::json!(users).to_string()),
        }
    }

    pub(super) fn from_column(row: &AnyRow) -> Result<Self, StoreError> {
        let users = optional(row, "allowed_users", |text| serde_json::from_str(text).ok())?;
        Ok(users.map_or(Self::Any, Self::Only))
    }
}

/// A grant.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    pub(crate) id: GrantId,
    pub(crate) identity: IdentityId,
    pub(crate) vm: VmId,
    pub(crate) allowed_users: AllowedUsers,
    pub(crate) granted_at: SystemTime,
    pub(crate) granted_by: String,
}

/// What became of a new grant.
#[derive(Debug)]
pub(crate) enum GrantOutcome {
    Granted(Grant),
    AlreadyGranted,
    /// The identity or the VM is not there.
    Missing,
}

const COLUMNS: &str = "id, identity, vm, allowed_users, granted_at, granted_by";

impl Store {
    pub(crate) async fn add_grant(
        &self,
        identity: &IdentityId,
        vm: &VmId,
        allowed_users: AllowedUsers,
    ) -> Result<GrantOutcome, StoreError> {
        let grant = Grant {
            id: GrantId::random(),
            identity: identity.clone(),
            vm: vm.clone(),
            allowed_users,
            granted_at: SystemTime::now(),
            granted_by: self.account().to_string(),
        };
        // One statement, so that neither can vanish between a look and the insert.
        let done = sqlx::query(
            "INSERT INTO grants (id, identity, vm, allowed_users, granted_at, granted_by) \
             SELECT $1, identities.id, vms.id, $2, $3, $4 FROM identities, vms \
             WHERE identities.id = $5 AND vms.id = $6 \
             ON CONFLICT (identity, vm) DO NOTHING",
        )
        .bind(grant.id.as_str())
        .bind(grant.allowed_users.to_column())
        .bind(to_millis(grant.granted_at))
        .bind(&grant.granted_by)
        .bind(identity.as_str())
        .bind(vm.as_str())
        .execute(&self.pool)
        .await
        .map_err(StoreError::query("add a grant"))?;
        if done.rows_affected() == 1 {
            return Ok(GrantOutcome::Granted(grant));
        }
        Ok(match self.grant(identity, vm).await? {
            Some(_) => GrantOutcome::AlreadyGranted,
            None => GrantOutcome::Missing,
        })
    }

    pub(crate) async fn grant(
        &self,
        identity: &IdentityId,
        vm: &VmId,
    ) -> Result<Option<Grant>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM grants WHERE identity = $1 AND vm = $2");
        let row = sqlx::query(&sql)
            .bind(identity.as_str())
            .bind(vm.as_str())
            .fetch_optional(&self.pool)
            .await
            .map_err(StoreError::query("find a grant"))?;
        row.as_ref().map(read_grant).transpose()
    }

    /// The oldest first.
    pub(crate) async fn grants(
        &self,
        identity: &IdentityId,
        offset: u64,
        limit: u64,
    ) -> Result<Page<Grant>, StoreError> {
        let failed = StoreError::query;
        let sql = format!(
            "SELECT {COLUMNS} FROM grants WHERE identity = $1 ORDER BY granted_at, id LIMIT $2 OFFSET $3"
        );
        let rows = sqlx::query(&sql)
            .bind(identity.as_str())
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .bind(i64::try_from(offset).unwrap_or(i64::MAX))
            .fetch_all(&self.pool)
            .await
            .map_err(failed("list grants"))?;
        let count = sqlx::query("SELECT COUNT(*) AS total FROM grants WHERE identity = $1")
            .bind(identity.as_str())
            .fetch_one(&self.pool)
            .await
            .map_err(failed("count grants"))?;
        let items = rows.iter().map(read_grant).collect::<Result<_, _>>()?;
        let total = number(&count, "total")?.unsigned_abs();
        Ok(Page { items, total })
    }

    /// `false` if it is not there.
    pub(crate) async fn update_grant(
        &self,
        identity: &IdentityId,
        vm: &VmId,
        allowed_users: &AllowedUsers,
    ) -> Result<bool, StoreError> {
        let done =
            sqlx::query("UPDATE grants SET allowed_users = $1 WHERE identity = $2 AND vm = $3")
                .bind(allowed_users.to_column())
                .bind(identity.as_str())
                .bind(vm.as_str())
                .execute(&self.pool)
                .await
                .map_err(StoreError::query("change a grant"))?;
        Ok(done.rows_affected() == 1)
    }

    /// `false` if it is not there.
    pub(crate) async fn delete_grant(
        &self,
        identity: &IdentityId,
        vm: &VmId,
    ) -> Result<bool, StoreError> {
        let done = sqlx::query("DELETE FROM grants WHERE identity = $1 AND vm = $2")
            .bind(identity.as_str())
            .bind(vm.as_str())
            .execute(&self.pool)
            .await
            .map_err(StoreError::query("delete a grant"))?;
        Ok(done.rows_affected() == 1)
    }

    /// The VM that an identity was granted, and the users. One query, the same for a VM that does not exist and for one
    /// that was not granted: not even the time tells them apart.
    pub(crate) async fn granted_vm(
        &self,
        identity: &IdentityId,
        vm: &VmId,
    ) -> Result<Option<(Vm, AllowedUsers)>, StoreError> {
        let sql = format!(
            "SELECT {}, grants.allowed_users FROM grants JOIN vms ON vms.id = grants.vm \
             WHERE grants.identity = $1 AND grants.vm = $2",
            vms::COLUMNS
        );
        let row = sqlx::query(&sql)
            .bind(identity.as_str())
            .bind(vm.as_str())
            .fetch_optional(&self.pool)
            .await
            .map_err(StoreError::query("find a granted VM"))?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some((
            vms::read_vm(&row)?,
            AllowedUsers::from_column(&row)?,
        )))
    }
}

fn read_grant(row: &AnyRow) -> Result<Grant, StoreError> {
    Ok(Grant {
        id: column(row, "id", GrantId::parse)?,
        identity: column(row, "identity", IdentityId::parse)?,
        vm: column(row, "vm", VmId::parse)?,
        allowed_users: AllowedUsers::from_column(row)?,
        granted_at: time_column(row, "granted_at")?,
        granted_by: column(row, "granted_by", |text| Some(text.to_owned()))?,
    })
}
