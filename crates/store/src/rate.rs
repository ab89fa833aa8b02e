//! Rates that all processes share: tokens in rows of `rate_bucket`, taken in small batches.
//!
//! A *bucket* holds at most `capacity` tokens and begins full; tokens come back with time, by the
//! database's clock. So all takers together never get more than the capacity and what has come back
//! since, whatever their own clocks say. How long a taken token may wait for its call is the
//! taker's affair.

use std::time::Duration;

use uuid::Uuid;

use crate::{Error, Store};

/// A bucket of tokens, as the configuration has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Bucket {
    /// Whom it is about; processes that give the same name share it.
    pub name: String,
    /// Most tokens it holds; at least 1.
    pub capacity: f64,
    /// Tokens that come back in a second; above 0.
    pub per_second: f64,
}

/// What was taken out of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tokens {
    /// Tokens that are the caller's now.
    pub granted: u32,
    /// Until the bucket has one more; zero: it has.
    pub next_in: Duration,
}

impl Store {
    /// Takes up to `wanted` tokens.
    ///
    /// # Errors
    /// [`Error::Data`] for a bucket without a name, capacity or refill.
    pub async fn take_tokens(&self, bucket: &Bucket, wanted: u32) -> Result<Tokens, Error> {
        let wanted = i32::try_from(wanted).unwrap_or(i32::MAX);
        let taken = sqlx::query!(
            r#"SELECT granted AS "granted!", wait_us AS "wait_us!"
                 FROM tallylight.take_tokens($1, $2, $3, $4)"#,
            bucket.name,
            bucket.capacity,
            bucket.per_second,
            wanted,
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(Tokens {
            granted: u32::try_from(taken.granted).unwrap_or_default(),
            next_in: Duration::from_micros(u64::try_from(taken.wait_us).unwrap_or_default()),
        })
    }

    /// How long ago a live job was enqueued, by the database's clock; `None`: it is over.
    pub async fn job_age(&self, slice: i16, id: Uuid) -> Result<Option<Duration>, Error> {
        let age = sqlx::query_scalar!(
            r#"SELECT (extract(epoch FROM now() - enqueued_at) * 1000000)::bigint AS "age!"
                 FROM tallylight.job WHERE slice = $1 AND id = $2"#,
            slice,
            id,
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(age.map(|micros| Duration::from_micros(u64::try_from(micros).unwrap_or_default())))
    }
}
