//! Admin keys. Only their hashes are here.

use std::time::SystemTime;

use super::{Store, StoreError, Vm, column, to_millis, vms};
use crate::{
    ids::{KeyId, VmId},
    sessions::SecretHash,
};

/// What is known of an admin key, and a VM.
#[derive(Debug)]
pub(crate) struct StoredKey {
    pub(crate) hash: SecretHash,
    /// The one that was asked about, if it is there.
    pub(crate) vm: Option<Vm>,
}

impl Store {
    pub(crate) async fn add_key(&self, id: &KeyId, hash: &SecretHash) -> Result<(), StoreError> {
        sqlx::query("INSERT INTO admin_keys (id, hash, created_at) VALUES ($1, $2, $3)")
            .bind(id.as_str())
            .bind(hash.to_hex())
            .bind(to_millis(SystemTime::now()))
            .execute(&self.pool)
            .await
            .map_err(StoreError::query("add an admin key"))?;
        Ok(())
    }

    /// Adds a key if there is none: of many gateways that start on an empty database, one succeeds.
    pub(crate) async fn add_first_key(
        &self,
        id: &KeyId,
        hash: &SecretHash,
    ) -> Result<bool, StoreError> {
        let failed = StoreError::query;
        let mut transaction = self
            .pool
            .begin()
            .await
            .map_err(failed("begin a transaction"))?;
        // Writing the one row of the account makes all others wait for this transaction, in SQLite and in PostgreSQL.
        sqlx::query("UPDATE account SET only_one = 1")
            .execute(&mut *transaction)
            .await
            .map_err(failed("lock the account"))?;
        let done = sqlx::query(
            "INSERT INTO admin_keys (id, hash, created_at) \
             SELECT $1, $2, $3 FROM account WHERE NOT EXISTS (SELECT 1 FROM admin_keys)",
        )
        .bind(id.as_str())
        .bind(hash.to_hex())
        .bind(to_millis(SystemTime::now()))
        .execute(&mut *transaction)
        .await
        .map_err(failed("add the first admin key"))?;
        transaction
            .commit()
            .await
            .map_err(failed("commit the first admin key"))?;
        Ok(done.rows_affected() == 1)
    }

    /// All that a request is decided by, in one query.
    pub(crate) async fn key(
        &self,
        id: &KeyId,
        vm: Option<&VmId>,
    ) -> Result<Option<StoredKey>, StoreError> {
        let sql = format!(
            "SELECT admin_keys.hash, {} FROM admin_keys LEFT JOIN vms ON vms.id = $1 WHERE admin_keys.id = $2",
            vms::COLUMNS
        );
        let question = || {
            sqlx::query(&sql)
                .bind(vm.map(VmId::as_str))
                .bind(id.as_str())
        };
        let failed = StoreError::query("find an admin key");
        let Some(row) = self.ask(question).await.map_err(failed)? else {
            return Ok(None);
        };
        Ok(Some(StoredKey {
            hash: column(&row, "hash", SecretHash::from_hex)?,
            vm: vms::read_joined_vm(&row)?,
        }))
    }

    /// The oldest first.
    pub(crate) async fn keys(&self) -> Result<Vec<KeyId>, StoreError> {
        let rows = sqlx::query("SELECT id FROM admin_keys ORDER BY created_at, id")
            .fetch_all(&self.pool)
            .await
            .map_err(StoreError::query("list admin keys"))?;
        rows.iter()
            .map(|row| column(row, "id", KeyId::parse))
            .collect()
    }

    /// `false` if there is no such key.
    pub(crate) async fn delete_key(&self, id: &KeyId) -> Result<bool, StoreError> {
        let done = sqlx::query("DELETE FROM admin_keys WHERE id = $1")
            .bind(id.as_str())
            .execute(&self.pool)
            .await
            .map_err(StoreError::query("delete an admin key"))?;
        Ok(done.rows_affected() == 1)
    }
}
