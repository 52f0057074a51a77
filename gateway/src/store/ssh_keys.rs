//! SSH public keys of identities.

use std::time::SystemTime;

use sqlx::any::AnyRow;

use super::{Store, StoreError, column, time_column, to_millis};
use crate::{
    ids::{IdentityId, SshKeyId},
    sessions::{Fingerprint, PublicKey},
};

/// A registered key.
#[derive(Clone, Debug)]
pub(crate) struct SshKey {
    pub(crate) id: SshKeyId,
    pub(crate) fingerprint: Fingerprint,
    /// As in authorized_keys(5), without the comment.
    pub(crate) public_key: String,
    /// For people.
    pub(crate) name: String,
    pub(crate) created_at: SystemTime,
}

/// What became of a new key.
#[derive(Debug)]
pub(crate) enum SshKeyOutcome {
    Added(SshKey),
    /// An identity has it already, this one or another.
    AlreadyThere,
    NoIdentity,
}

const COLUMNS: &str = "id, fingerprint, public_key, name, created_at";

impl Store {
    pub(crate) async fn add_ssh_key(
        &self,
        identity: &IdentityId,
        key: &PublicKey,
        name: &str,
    ) -> Result<SshKeyOutcome, StoreError> {
        let new = SshKey {
            id: SshKeyId::random(),
            fingerprint: key.fingerprint().clone(),
            public_key: key.text().into(),
            name: name.into(),
            created_at: SystemTime::now(),
        };
        let done = sqlx::query(
            "INSERT INTO ssh_keys (id, identity, fingerprint, public_key, name, created_at) \
             SELECT $1, id, $2, $3, $4, $5 FROM identities WHERE id = $6 \
             ON CONFLICT (fingerprint) DO NOTHING",
        )
        .bind(new.id.as_str())
        .bind(new.fingerprint.as_str())
        .bind(&new.public_key)
        .bind(&new.name)
        .bind(to_millis(new.created_at))
        .bind(identity.as_str())
        .execute(&self.pool)
        .await
        .map_err(StoreError::query("add an SSH key"))?;
        if done.rows_affected() == 1 {
            return Ok(SshKeyOutcome::Added(new));
        }
        Ok(match self.has_identity(identity).await? {
            true => SshKeyOutcome::AlreadyThere,
            false => SshKeyOutcome::NoIdentity,
        })
    }

    /// The oldest first.
    pub(crate) async fn ssh_keys(&self, identity: &IdentityId) -> Result<Vec<SshKey>, StoreError> {
        let sql =
            format!("SELECT {COLUMNS} FROM ssh_keys WHERE identity = $1 ORDER BY created_at, id");
        let rows = sqlx::query(&sql)
            .bind(identity.as_str())
            .fetch_all(&self.pool)
            .await
            .map_err(StoreError::query("list SSH keys"))?;
        rows.iter().map(read_key).collect()
    }

    /// The key and whose it is.
    pub(crate) async fn ssh_key_by_fingerprint(
        &self,
        fingerprint: &Fingerprint,
    ) -> Result<Option<(SshKeyId, IdentityId)>, StoreError> {
        let row = sqlx::query("SELECT id, identity FROM ssh_keys WHERE fingerprint = $1")
            .bind(fingerprint.as_str())
            .fetch_optional(&self.pool)
            .await
            .map_err(StoreError::query("find an SSH key"))?;
        let Some(row) = row else { return Ok(None) };
        let id = column(&row, "id", SshKeyId::parse)?;
        Ok(Some((id, column(&row, "identity", IdentityId::parse)?)))
    }

    pub(crate) async fn has_ssh_key(
        &self,
        identity: &IdentityId,
        id: &SshKeyId,
    ) -> Result<bool, StoreError> {
        let row = sqlx::query("SELECT id FROM ssh_keys WHERE id = $1 AND identity = $2")
            .bind(id.as_str())
            .bind(identity.as_str())
            .fetch_optional(&self.pool)
            .await;
        Ok(row.map_err(StoreError::query("find an SSH key"))?.is_some())
    }

    /// `false` if the identity has no such key.
    pub(crate) async fn delete_ssh_key(
        &self,
        identity: &IdentityId,
        id: &SshKeyId,
    ) -> Result<bool, StoreError> {
        let done = sqlx::query("DELETE FROM ssh_keys WHERE id = $1 AND identity = $2")
            .bind(id.as_str())
            .bind(identity.as_str())
            .execute(&self.pool)
            .await
            .map_err(StoreError::query("delete an SSH key"))?;
        Ok(done.rows_affected() == 1)
    }
}

fn read_key(row: &AnyRow) -> Result<SshKey, StoreError> {
    let text = |text: &str| Some(text.to_owned());
    Ok(SshKey {
        id: column(row, "id", SshKeyId::parse)?,
        fingerprint: column(row, "fingerprint", Fingerprint::parse)?,
        public_key: column(row, "public_key", text)?,
        name: column(row, "name", text)?,
        created_at: time_column(row, "created_at")?,
    })
}
