//! Tokens of identities. Only their hashes are here.

use std::time::SystemTime;

use super::{AllowedUsers, Store, StoreError, Vm, column, from_millis, to_millis, vms};
use crate::{
    ids::{IdentityId, TokenId, VmId},
    sessions::SecretHash,
};
use sqlx::Row;

/// What is known of a token, and what it reaches of a VM.
#[derive(Debug)]
pub(crate) struct StoredToken {
    pub(crate) identity: IdentityId,
    pub(crate) hash: SecretHash,
    pub(crate) expires_at: Option<SystemTime>,
    /// The VM that was asked about, if the identity was granted it, and as whom.
    pub(crate) granted: Option<(Vm, AllowedUsers)>,
}

impl Store {
    /// `false` if there is no such identity.
    pub(crate) async fn add_token(
        &self,
        identity: &IdentityId,
        id: &TokenId,
        hash: &SecretHash,
        expires_at: Option<SystemTime>,
    ) -> Result<bool, StoreError> {
        let done = sqlx::query(
            "INSERT INTO tokens (id, identity, hash, created_at, expires_at) \
             SELECT $1, id, $2, $3, $4 FROM identities WHERE id = $5",
        )
        .bind(id.as_str())
        .bind(hash.to_hex())
        .bind(to_millis(SystemTime::now()))
        .bind(expires_at.map(to_millis))
        .bind(identity.as_str())
        .execute(&self.pool)
        .await
        .map_err(StoreError::query("add a token"))?;
        Ok(done.rows_affected() == 1)
    }

    /// The oldest first.
    pub(crate) async fn tokens(&self, identity: &IdentityId) -> Result<Vec<TokenId>, StoreError> {
        let rows = sqlx::query("SELECT id FROM tokens WHERE identity = $1 ORDER BY created_at, id")
            .bind(identity.as_str())
            .fetch_all(&self.pool)
            .await
            .map_err(StoreError::query("list tokens"))?;
        rows.iter()
            .map(|row| column(row, "id", TokenId::parse))
            .collect()
    }

    /// All that a request is decided by, in one query, the same for a VM that does not exist and for one that was not
    /// granted: not even the time tells them apart.
    pub(crate) async fn token(
        &self,
        id: &TokenId,
        vm: Option<&VmId>,
    ) -> Result<Option<StoredToken>, StoreError> {
        let failed = StoreError::query;
        let sql = format!(
            "SELECT tokens.identity, tokens.hash, tokens.expires_at, grants.allowed_users, {} FROM tokens \
             LEFT JOIN grants ON grants.identity = tokens.identity AND grants.vm = $1 \
             LEFT JOIN vms ON vms.id = grants.vm WHERE tokens.id = $2",
            vms::COLUMNS
        );
        let question = || {
            sqlx::query(&sql)
                .bind(vm.map(VmId::as_str))
                .bind(id.as_str())
        };
        let row = self.ask(question).await.map_err(failed("find a token"))?;
        let Some(row) = row else { return Ok(None) };
        let granted = match vms::read_joined_vm(&row)? {
            Some(vm) => Some((vm, AllowedUsers::from_column(&row)?)),
            None => None,
        };
        let expires_at: Option<i64> = row.try_get("expires_at").map_err(failed("read a token"))?;
        Ok(Some(StoredToken {
            identity: column(&row, "identity", IdentityId::parse)?,
            hash: column(&row, "hash", SecretHash::from_hex)?,
            expires_at: expires_at.map(from_millis),
            granted,
        }))
    }

    /// `false` if the identity has no such token.
    pub(crate) async fn delete_token(
        &self,
        identity: &IdentityId,
        id: &TokenId,
    ) -> Result<bool, StoreError> {
        let done = sqlx::query("DELETE FROM tokens WHERE id = $1 AND identity = $2")
            .bind(id.as_str())
            .bind(identity.as_str())
            .execute(&self.pool)
            .await
            .map_err(StoreError::query("delete a token"))?;
        Ok(done.rows_affected() == 1)
    }
}
