//! The audit log's copy in the store: what `GET /v1/audit` reads.

use serde_json::Value;

use super::{Store, StoreError, column};
use crate::audit::Event;

/// Events in one statement: each statement is a round to the database.
const ROWS: usize = 32;

/// What a row of an event has.
const COLUMNS: [&str; 7] = ["operation", "phase", "at", "vm", "identity", "uid", "event"];

/// Of so many rows.
fn insert(rows: usize) -> String {
    let row = |row: usize| {
        let first = row * COLUMNS.len() + 1;
        let places = (first..first + COLUMNS.len()).map(|place| format!("${place}"));
        format!("({})", places.collect::<Vec<_>>().join(", "))
    };
    let rows: Vec<String> = (0..rows).map(row).collect();
    format!(
        "INSERT INTO audit_events ({}) VALUES {} ON CONFLICT DO NOTHING",
        COLUMNS.join(", "),
        rows.join(", ")
    )
}

/// Which events to read: all that is set must fit.
#[derive(Clone, Debug, Default)]
pub(crate) struct AuditFilter {
    pub(crate) vm: Option<String>,
    pub(crate) identity: Option<String>,
    /// Of this Linux uid. Starts are noted before the guest was asked for it, and mostly have none.
    pub(crate) uid: Option<u32>,
    /// Only what is older than this, in milliseconds since 1970.
    pub(crate) before: Option<i64>,
    pub(crate) limit: u32,
}

impl Store {
    /// All or none. An event that is there already, because its answer was lost, is not doubled.
    pub(crate) async fn add_events(&self, events: &[Event]) -> Result<(), StoreError> {
        let failed = StoreError::query;
        let mut transaction = self
            .pool
            .begin()
            .await
            .map_err(failed("begin a transaction"))?;
        for rows in events.chunks(ROWS) {
            let sql = insert(rows.len());
            let mut query = sqlx::query(&sql);
            for event in rows {
                query = query
                    .bind(event.operation.as_str())
                    .bind(event.phase.as_str())
                    .bind(event.at_millis)
                    .bind(event.vm.clone())
                    .bind(event.identity.as_ref().map(|id| id.as_str().to_owned()))
                    .bind(event.uid.map(i64::from))
                    .bind(event.to_json());
            }
            query
                .execute(&mut *transaction)
                .await
                .map_err(failed("add to the audit log"))?;
        }
        transaction
            .commit()
            .await
            .map_err(failed("commit to the audit log"))
    }

    /// The newest first.
    pub(crate) async fn events(&self, filter: &AuditFilter) -> Result<Vec<Value>, StoreError> {
        let failed = StoreError::query;
        let rows = sqlx::query(
            "SELECT event FROM audit_events \
             WHERE at < $1 AND ($2 IS NULL OR vm = $2) AND ($3 IS NULL OR identity = $3) \
             AND ($4 IS NULL OR uid = $4) \
             ORDER BY at DESC, operation DESC, phase ASC LIMIT $5",
        )
        .bind(filter.before.unwrap_or(i64::MAX))
        .bind(filter.vm.clone())
        .bind(filter.identity.clone())
        .bind(filter.uid.map(i64::from))
        .bind(i64::from(filter.limit))
        .fetch_all(&self.pool)
        .await
        .map_err(failed("read the audit log"))?;
        rows.iter()
            .map(|row| column(row, "event", |text| serde_json::from_str(text).ok()))
            .collect()
    }
}
