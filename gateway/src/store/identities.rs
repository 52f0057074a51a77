//! Identities: who can hold tokens and grants.

use std::time::SystemTime;

use super::{Store, StoreError, column, number, to_millis};
use crate::ids::IdentityId;

/// A part of a list, and how long the whole is.
#[derive(Debug)]
pub(crate) struct Page<T> {
    pub(crate) items: Vec<T>,
    pub(crate) total: u64,
}

impl Store {
    pub(crate) async fn add_identity(&self, id: &IdentityId) -> Result<(), StoreError> {
        sqlx::query("INSERT INTO identities (id, created_at) VALUES ($1, $2)")
            .bind(id.as_str())
            .bind(to_millis(SystemTime::now()))
            .execute(&self.pool)
            .await
            .map_err(StoreError::query("add an identity"))?;
        Ok(())
    }

    /// The oldest first.
    pub(crate) async fn identities(
        &self,
        offset: u64,
        limit: u64,
    ) -> Result<Page<IdentityId>, StoreError> {
        let failed = StoreError::query;
        let rows =
            sqlx::query("SELECT id FROM identities ORDER BY created_at, id LIMIT $1 OFFSET $2")
                .bind(i64::try_from(limit).unwrap_or(i64::MAX))
                .bind(i64::try_from(offset).unwrap_or(i64::MAX))
                .fetch_all(&self.pool)
                .await
                .map_err(failed("list identities"))?;
        let count = sqlx::query("SELECT COUNT(*) AS total FROM identities")
            .fetch_one(&self.pool)
            .await
            .map_err(failed("count identities"))?;
        let items = rows.iter().map(|row| column(row, "id", IdentityId::parse));
        Ok(Page {
            items: items.collect::<Result<_, _>>()?,
            total: number(&count, "total")?.unsigned_abs(),
        })
    }

    pub(crate) async fn has_identity(&self, id: &IdentityId) -> Result<bool, StoreError> {
        let row = sqlx::query("SELECT id FROM identities WHERE id = $1")
            .bind(id.as_str())
            .fetch_optional(&self.pool)
            .await;
        Ok(row
            .map_err(StoreError::query("find an identity"))?
            .is_some())
    }

    /// With its tokens and grants. `false` if it was not there.
    pub(crate) async fn delete_identity(&self, id: &IdentityId) -> Result<bool, StoreError> {
        let done = sqlx::query("DELETE FROM identities WHERE id = $1")
            .bind(id.as_str())
            .execute(&self.pool)
            .await
            .map_err(StoreError::query("delete an identity"))?;
        Ok(done.rows_affected() == 1)
    }
}
