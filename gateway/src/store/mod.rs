//! What outlives a gateway: identities, tokens, grants, machines, the audit log. In SQLite, a file that this gateway alone
//! has, or in PostgreSQL, for many gateways on one database. A file a table.
//!
//! One text of SQL for both: `$1` is a parameter in either, and the columns keep to texts and 64-bit numbers. The same suite
//! (`tests.rs`) runs on both. Nothing is cached here: what one gateway writes, the next query of another sees.

mod audit;
mod grants;
mod identities;
mod keys;
mod readers;
mod ssh_keys;
#[cfg(test)]
mod tests;
mod tokens;
mod vms;

use std::{
    fmt, fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use sqlx::{
    Any, AnyPool, Executor, Row,
    any::{AnyArguments, AnyPoolOptions, AnyRow},
    error::BoxDynError,
    migrate::{Migration, MigrationSource, MigrationType, Migrator},
    query::Query,
};
use thiserror::Error;

pub(crate) use audit::AuditFilter;
pub(crate) use grants::{AllowedUsers, Grant, GrantOutcome};
pub(crate) use identities::Page;
pub(crate) use ssh_keys::{SshKey, SshKeyOutcome};
pub(crate) use vms::{Hooks, KeptUntil, Vm, VmKind, VmState};

use crate::ids::AccountId;
use readers::{READERS, Readers};

/// A query waits this long for a connection, or for another writer, before it is an error.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long connections are kept. After a fail-over the old primary may still answer those that lead to it.
#[derive(Clone, Copy, Debug)]
struct Keeping {
    /// Without a use.
    idle: Duration,
    /// In the pool, and once more beside it. A new one costs a server some milliseconds.
    age: Duration,
}

const SERVER: Keeping = Keeping {
    idle: Duration::from_secs(10),
    age: Duration::from_secs(30),
};

/// A file stays what it is.
const FILE: Keeping = Keeping {
    idle: Duration::MAX,
    age: Duration::MAX,
};

/// With those of [`Readers`]. PostgreSQL's default allows 100 in all: room for eight gateways and a person.
const CONNECTIONS: u32 = 10;

/// SQLite has one writer at a time and many readers.
const SQLITE_PRAGMAS: &str = "PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
     PRAGMA foreign_keys = ON;";

/// Where the state is.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Location {
    /// A file.
    Sqlite(PathBuf),
    /// `postgres://…`, which may hold a password.
    Postgres(String),
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "SQLite in {}", path.display()),
            Self::Postgres(_) => f.write_str("PostgreSQL"),
        }
    }
}

/// Why the state cannot be had.
#[derive(Debug, Error)]
pub(crate) enum StoreError {
    #[error("cannot make the folder {path} for the database")]
    Folder { path: PathBuf, source: io::Error },
    #[error("cannot open the database ({location:?})")]
    Open {
        location: Location,
        source: sqlx::Error,
    },
    #[error("cannot bring the database's tables up to date")]
    Migrate(#[source] sqlx::migrate::MigrateError),
    #[error("the database failed to {doing}")]
    Query {
        doing: &'static str,
        source: sqlx::Error,
    },
    #[error("the database holds a {what} that this version does not understand: {text:?}")]
    Corrupt { what: &'static str, text: String },
}

impl StoreError {
    /// For `map_err`.
    fn query(doing: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| Self::Query { doing, source }
    }
}

/// The database. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    pool: AnyPool,
    readers: Arc<Readers>,
    account: AccountId,
    /// No other gateway has this database.
    is_alone: bool,
}

impl Store {
    /// Opens the database and brings its tables up to date. Says whether it was empty before: its first user then makes
    /// the first admin key.
    pub(crate) async fn open(location: &Location) -> Result<Self, StoreError> {
        let keeping = match location {
            Location::Postgres(_) => SERVER,
            Location::Sqlite(_) => FILE,
        };
        Self::open_keeping(location, keeping).await
    }

    async fn open_keeping(location: &Location, keeping: Keeping) -> Result<Self, StoreError> {
        sqlx::any::install_default_drivers();
        let (url, sqlite) = match location {
            Location::Postgres(url) => (url.clone(), false),
            Location::Sqlite(path) => {
                make_folder(path)?;
                (sqlite_url(path), true)
            }
        };
        let options = AnyPoolOptions::new()
            .max_connections(CONNECTIONS - READERS)
            .acquire_timeout(PATIENCE)
            // A connection to a server may have died meanwhile; one to a file has not.
            .test_before_acquire(!sqlite)
            .before_acquire(move |_, connection| {
                Box::pin(async move { Ok(connection.age < keeping.age) })
            })
            .after_connect(move |connection, _| {
                Box::pin(async move {
                    if sqlite {
                        connection.execute(SQLITE_PRAGMAS).await?;
                    }
                    Ok(())
                })
            });
        let pool = options
            .connect(&url)
            .await
            .map_err(|source| StoreError::Open {
                location: location.clone(),
                source,
            })?;
        let migrator = Migrator::new(Schema).await.map_err(StoreError::Migrate)?;
        migrator.run(&pool).await.map_err(StoreError::Migrate)?;
        let account = find_or_make_account(&pool).await?;
        Ok(Self {
            pool,
            readers: Arc::new(Readers::new(keeping)),
            account,
            is_alone: sqlite,
        })
    }

    /// Whom everything here belongs to.
    pub(crate) fn account(&self) -> &AccountId {
        &self.account
    }

    /// Whether the database answers.
    pub(crate) async fn ping(&self) -> Result<(), StoreError> {
        let answer = sqlx::query("SELECT 1").fetch_one(&self.pool).await;
        answer.map(drop).map_err(StoreError::query("answer at all"))
    }

    /// Ends the connections; queries after it fail.
    pub(crate) async fn close(&self) {
        self.readers.close().await;
        self.pool.close().await;
    }

    /// At most one row of a statement that changes nothing: for what requests wait for.
    async fn ask<'q>(
        &self,
        question: impl Fn() -> Query<'q, Any, AnyArguments<'q>> + Send + Sync,
    ) -> Result<Option<AnyRow>, sqlx::Error> {
        self.readers.ask(&self.pool, question).await
    }
}

/// The tables, version by version. A text that was released is never changed: its checksum is in the database.
#[derive(Debug)]
struct Schema;

impl MigrationSource<'static> for Schema {
    fn resolve(
        self,
    ) -> Pin<Box<dyn Future<Output = Result<Vec<Migration>, BoxDynError>> + Send + 'static>> {
        let texts = [
            ("first", include_str!("schema/0001_first.sql")),
            ("ssh keys", include_str!("schema/0002_ssh_keys.sql")),
            ("audit uid", include_str!("schema/0003_audit_uid.sql")),
        ];
        let migrations = (1..).zip(texts).map(|(version, (name, text))| {
            Migration::new(
                version,
                name.into(),
                MigrationType::Simple,
                text.into(),
                false,
            )
        });
        let migrations = migrations.collect();
        Box::pin(async { Ok(migrations) })
    }
}

async fn find_or_make_account(pool: &AnyPool) -> Result<AccountId, StoreError> {
    let failed = StoreError::query;
    sqlx::query("INSERT INTO account (only_one, id) VALUES (1, $1) ON CONFLICT DO NOTHING")
        .bind(AccountId::random().as_str())
        .execute(pool)
        .await
        .map_err(failed("make the account"))?;
    let row = sqlx::query("SELECT id FROM account").fetch_one(pool).await;
    let row = row.map_err(failed("find the account"))?;
    column(&row, "id", AccountId::parse)
}

/// For the owner alone: the database holds what people do.
fn make_folder(file: &Path) -> Result<(), StoreError> {
    let Some(folder) = file
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    else {
        return Ok(());
    };
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder);
    made.map_err(|source| StoreError::Folder {
        path: folder.into(),
        source,
    })
}

fn sqlite_url(path: &Path) -> String {
    use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
    use std::os::unix::ffi::OsStrExt;
    let path = percent_encode(path.as_os_str().as_bytes(), NON_ALPHANUMERIC);
    format!("sqlite://{path}?mode=rwc")
}

/// A text column as the type it stands for.
fn column<T>(
    row: &AnyRow,
    name: &'static str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<T, StoreError> {
    let text: String = row
        .try_get(name)
        .map_err(StoreError::query("read a column"))?;
    parse(&text).ok_or(StoreError::Corrupt { what: name, text })
}

/// The same for one that may be NULL.
fn optional<T>(
    row: &AnyRow,
    name: &'static str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<Option<T>, StoreError> {
    let text: Option<String> = row
        .try_get(name)
        .map_err(StoreError::query("read a column"))?;
    let Some(text) = text else { return Ok(None) };
    match parse(&text) {
        Some(value) => Ok(Some(value)),
        None => Err(StoreError::Corrupt { what: name, text }),
    }
}

fn number(row: &AnyRow, name: &'static str) -> Result<i64, StoreError> {
    row.try_get(name)
        .map_err(StoreError::query("read a column"))
}

fn time_column(row: &AnyRow, name: &'static str) -> Result<SystemTime, StoreError> {
    number(row, name).map(from_millis)
}

/// Milliseconds since 1970, as times are stored.
pub(crate) fn to_millis(time: SystemTime) -> i64 {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn from_millis(millis: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(millis.try_into().unwrap_or_default())
}
