//! Connections for what each request asks first, beside the pool. The pool tests a connection whenever it gets one back, and
//! one to a server also when it gives it out: rounds that cost as much as the question. Here none is tested. A question
//! changes nothing, so that one that met a dead connection is asked once more, over one that the pool has tested.

use std::{
    mem,
    sync::{Mutex, PoisonError},
};

use sqlx::{
    Any, AnyConnection, AnyPool, Connection,
    any::{AnyArguments, AnyRow},
    query::Query,
};
use tokio::{sync::Semaphore, time::timeout};

use super::PATIENCE;

/// Of a question, which takes well below a millisecond: more of them would only wait in the database.
pub(super) const READERS: u32 = 4;

/// A statement that changes nothing.
type Question<'q> = Query<'q, Any, AnyArguments<'q>>;

#[derive(Debug)]
pub(super) struct Readers {
    room: Semaphore,
    idle: Mutex<Vec<AnyConnection>>,
}

impl Readers {
    pub(super) fn new() -> Self {
        Self {
            room: Semaphore::new(READERS as usize),
            idle: Mutex::default(),
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
        let kept = self.with(Vec::pop);
        if let Some(kept) = kept
            && let Ok(Ok(row)) = timeout(PATIENCE, self.ask_over(kept, question())).await
        {
            return Ok(row);
        }
        let fresh = pool.acquire().await?.detach();
        self.ask_over(fresh, question()).await
    }

    /// The connection is kept if it answers.
    async fn ask_over(
        &self,
        mut connection: AnyConnection,
        question: Question<'_>,
    ) -> Result<Option<AnyRow>, sqlx::Error> {
        let row = question.fetch_optional(&mut connection).await?;
        self.with(|idle| idle.push(connection));
        Ok(row)
    }

    /// Ends the connections; questions after it fail.
    pub(super) async fn close(&self) {
        self.room.close();
        for connection in self.with(mem::take) {
            // The other side may be gone already.
            let _ = connection.close().await;
        }
    }

    fn with<T>(&self, action: impl FnOnce(&mut Vec<AnyConnection>) -> T) -> T {
        action(&mut self.idle.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
