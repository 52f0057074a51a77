//! Connections for what each request asks first, beside the pool. The pool tests a connection whenever it gets one back, and
//! one to a server also when it gives it out: rounds that cost as much as the question. Here none is tested. A question
//! changes nothing, so that one that met a dead connection is asked once more, over one that the pool has tested.
//!
//! A kept connection may also lead to a server that is not the database any more: a primary that lives on after a fail-over
//! answers, with what was true before. So none is kept for long.

use std::{
    mem,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use sqlx::{
    Any, AnyConnection, AnyPool, Connection,
    any::{AnyArguments, AnyRow},
    query::Query,
};
use tokio::{sync::Semaphore, time::timeout};

use super::{Keeping, PATIENCE};

/// Of a question, which takes well below a millisecond: more of them would only wait in the database.
pub(super) const READERS: u32 = 4;

/// What a kept connection gets to answer: one that leads nowhere must not cost a request its patience.
const KEPT_PATIENCE: Duration = Duration::from_secs(1);

/// A statement that changes nothing.
type Question<'q> = Query<'q, Any, AnyArguments<'q>>;

#[derive(Debug)]
pub(super) struct Readers {
    room: Semaphore,
    idle: Mutex<Vec<Kept>>,
    keeping: Keeping,
}

#[derive(Debug)]
struct Kept {
    connection: AnyConnection,
    /// When the pool gave it.
    since: Instant,
    used: Instant,
}

impl Readers {
    pub(super) fn new(keeping: Keeping) -> Self {
        Self {
            room: Semaphore::new(READERS as usize),
            idle: Mutex::default(),
            keeping,
        }
    }

    /// The row, if there is one. Cancel-safe: a connection whose question was given up is closed.
    pub(super) async fn ask<'q>(
        &self,
        pool: &AnyPool,
        question: impl Fn() -> Question<'q> + Send + Sync,
    ) -> Result<Option<AnyRow>, sqlx::Error> {
        let room = timeout(PATIENCE, self.room.acquire()).await;
        let _room = room
            .map_err(|_| sqlx::Error::PoolTimedOut)?
            .map_err(|_| sqlx::Error::PoolClosed)?;
        if let Some(kept) = self.kept()
            && let Ok(Ok(row)) = timeout(KEPT_PATIENCE, self.ask_over(kept, question())).await
        {
            return Ok(row);
        }
        let now = Instant::now();
        let fresh = Kept {
            connection: pool.acquire().await?.detach(),
            since: now,
            used: now,
        };
        let asked = timeout(PATIENCE, self.ask_over(fresh, question())).await;
        asked.unwrap_or(Err(sqlx::Error::PoolTimedOut))
    }

    /// The one that was used last. Those that are too old are closed; a server need not be told, and might not hear it.
    fn kept(&self) -> Option<Kept> {
        let Keeping { idle, age } = self.keeping;
        let is_old = |kept: &Kept| kept.used.elapsed() >= idle || kept.since.elapsed() >= age;
        self.with(|kept| {
            kept.retain(|kept| !is_old(kept));
            kept.pop()
        })
    }

    /// The connection is kept if it answers.
    async fn ask_over(
        &self,
        mut kept: Kept,
        question: Question<'_>,
    ) -> Result<Option<AnyRow>, sqlx::Error> {
        let row = question.fetch_optional(&mut kept.connection).await?;
        kept.used = Instant::now();
        self.with(|idle| idle.push(kept));
        Ok(row)
    }

    /// Ends the connections; questions after it fail.
    pub(super) async fn close(&self) {
        self.room.close();
        for kept in self.with(mem::take) {
            // The other side may be gone already.
            let _ = kept.connection.close().await;
        }
    }

    fn with<T>(&self, action: impl FnOnce(&mut Vec<Kept>) -> T) -> T {
        action(&mut self.idle.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use guestline_tests::postgres::Postgres;
    use sqlx::Row;

    use super::*;
    use crate::{
        ids::TokenId,
        sessions::Secret,
        store::{Location, Store},
    };

    /// A primary that nobody leads to any more lives on, and does not know what was revoked since.
    #[tokio::test]
    async fn postgresql_may_fail_over_to_another_server() {
        let (old, new) = (Postgres::start().unwrap(), Postgres::start().unwrap());
        let (old_url, new_url) = (old.database("x").unwrap(), new.database("x").unwrap());
        let folder = |url: &str| {
            let (_, host) = url.split_once("?host=").unwrap();
            host.replace("%2F", "/")
        };
        // As a name or an address leads to one server, and then to the other.
        let place = tempfile::tempdir().unwrap();
        let link = place.path().join("primary");
        symlink(folder(&old_url), &link).unwrap();
        let (base, _) = old_url.split_once("?host=").unwrap();
        let host = link.display().to_string().replace('/', "%2F");
        let location = Location::Postgres(format!("{base}?host={host}"));
        let keeping = Keeping {
            idle: Duration::from_secs(600),
            age: Duration::from_millis(200),
        };
        let store = Store::open_keeping(&location, keeping).await.unwrap();
        let identity = store.create_identity().await.unwrap();
        let (token, hash) = (TokenId::random(), Secret::new_token().hash());
        let added = store.add_token(&identity, &token, &hash, None).await;
        assert!(added.unwrap());
        // The tables are there, and the token is not: it was revoked.
        Store::open(&Location::Postgres(new_url.clone()))
            .await
            .unwrap();
        assert!(store.token(&token, None).await.unwrap().is_some());
        fs::remove_file(&link).unwrap();
        symlink(folder(&new_url), &link).unwrap();
        let end = Instant::now() + Duration::from_secs(20);
        // Asked beside the pool, and of it.
        while store.token(&token, None).await.unwrap().is_some()
            || store.has_identity(&identity).await.unwrap()
        {
            assert!(Instant::now() < end, "the old primary is asked on");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// A server that is there and says nothing costs a request less than a query's patience.
    #[tokio::test]
    async fn a_kept_connection_that_does_not_answer_is_given_up_for_a_new_one() {
        let server = Postgres::start().unwrap();
        let location = Location::Postgres(server.database("x").unwrap());
        let store = Store::open(&location).await.unwrap();
        let backend = async || {
            let asked = store.ask(|| sqlx::query("SELECT CAST(pg_backend_pid() AS TEXT)"));
            let pid: String = asked.await.unwrap().unwrap().get(0);
            pid
        };
        // A busy host may take longer once, for a kept connection's answer too; one that always does has no patience of its own.
        let end = Instant::now() + Duration::from_secs(120);
        loop {
            let kept = backend().await;
            if backend().await != kept {
                assert!(Instant::now() < end, "none is kept");
                continue;
            }
            signal("-STOP", &kept);
            let asked = Instant::now();
            let other = backend().await;
            let took = asked.elapsed();
            signal("-CONT", &kept);
            assert_ne!(other, kept);
            if took < PATIENCE {
                break;
            }
            assert!(Instant::now() < end, "{took:?}");
        }
    }

    fn signal(signal: &str, pid: &str) {
        let done = std::process::Command::new("kill")
            .args([signal, pid])
            .status();
        assert!(done.unwrap().success());
    }
}
