//! Monthly partitions of the log: made ahead, and stray events moved home.
//!
//! A *stray event* met no month and lies in the default partition: nothing had run for months, or a
//! clock jumped. Strays are copied in bounded steps, while appends go on; the log is taken only to
//! put the months in place. Whoever is stopped in between is gone on with by the next.

use std::time::Instant;

use sqlx::PgPool;

use crate::{Error, Store};

/// Months for which partitions are made ahead.
const MONTHS_AHEAD: i32 = 3;

/// Stray events copied in one transaction: some tenths of a second.
const AT_ONCE: i32 = 10_000;

/// Most that are copied while the log waits: some 20 ms.
const AT_LAST: i32 = 500;

/// What was done about partitions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Partitions {
    /// Months that were missing and are made.
    pub made: i32,
    /// Stray events that were copied to them.
    pub moved: i64,
    /// Whether nothing is left to do; else time was up.
    pub is_complete: bool,
}

impl Store {
    /// Makes the partitions of this month and the months ahead, and of stray events, until
    /// `deadline`.
    ///
    /// # Errors
    /// A transient one where the log was in use by long transactions: what is copied is kept.
    pub async fn ensure_partitions(&self, deadline: Instant) -> Result<Partitions, Error> {
        ensure(&self.pool, Some(deadline)).await
    }
}

/// Makes the partitions that are missing.
pub(crate) async fn ensure(pool: &PgPool, deadline: Option<Instant>) -> Result<Partitions, Error> {
    let mut done = Partitions::default();
    loop {
        let made = sqlx::query_scalar!("SELECT tallylight.ensure_partitions($1)", MONTHS_AHEAD)
            .fetch_one(pool)
            .await?;
        if let Some(made) = made {
            done.made += made;
            done.is_complete = true;
            return Ok(done);
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Ok(done);
        }
        let copied = copy_strays(pool).await?;
        done.moved += copied;
        if copied < i64::from(AT_ONCE)
            && let Some(made) = attach_strays(pool).await?
        {
            done.made += made;
        }
    }
}

/// Copies the next stray events to months beside the log.
async fn copy_strays(pool: &PgPool) -> Result<i64, Error> {
    let copied =
        sqlx::query_scalar!("SELECT tallylight.copy_strays($1, $2)", MONTHS_AHEAD, AT_ONCE)
            .fetch_one(pool)
            .await?;
    Ok(copied.unwrap_or_default())
}

/// Puts the months in place. `None`: too many events came meanwhile.
async fn attach_strays(pool: &PgPool) -> Result<Option<i32>, Error> {
    let mut tx = pool.begin().await?;
    // It counts what was copied, before it takes the log.
    sqlx::query!("SELECT set_config('statement_timeout', '0', true)").fetch_one(&mut *tx).await?;
    let made = sqlx::query_scalar!("SELECT tallylight.attach_strays($1)", AT_LAST)
        .fetch_one(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(made)
}
