//! The age limit of idempotency keys.
//!
//! A key is removed when it is older than the limit and guards nothing that is still to come: each
//! consumer has applied what came with it, nothing of that time is set aside, and no forward of
//! that time waits. What guards for longer is state: docs/history.md.

use std::time::{Duration, Instant};

use rand::RngExt as _;
use uuid::Uuid;

use crate::consumer::micros;
use crate::{Error, Store};

/// The least age limit: retries and spools live shorter.
pub const MIN_KEY_AGE: Duration = Duration::from_hours(7 * 24);

/// Keys looked at in one transaction.
const PAGE: i32 = 10_000;

/// What a run removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeysRemoved {
    /// How many keys.
    pub keys: u64,
    /// Every slice was gone through; else time was up.
    pub complete: bool,
}

impl Store {
    /// Removes keys that are older than `age`, slice by slice, until `deadline`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an age below [`MIN_KEY_AGE`].
    pub async fn forget_keys(
        &self,
        age: Duration,
        deadline: Instant,
    ) -> Result<KeysRemoved, Error> {
        if age < MIN_KEY_AGE {
            let reason = "history.keys_for is below 7 days: retries and spools need their keys";
            return Err(Error::Invalid { reason: reason.to_owned() });
        }
        let mut slices: Vec<i16> = self.slices.slices().collect();
        // Another one first each time: a run that is cut short is no reason to starve a slice.
        let first = rand::rng().random_range(0..slices.len().max(1));
        slices.rotate_left(first);
        let mut removed = KeysRemoved { keys: 0, complete: true };
        for slice in slices {
            removed.complete &=
                self.forget_keys_of(slice, age, deadline, &mut removed.keys).await?;
        }
        Ok(removed)
    }

    /// Goes through the keys of one slice; returns whether it came to the end.
    async fn forget_keys_of(
        &self,
        slice: i16,
        age: Duration,
        deadline: Instant,
        keys: &mut u64,
    ) -> Result<bool, Error> {
        let horizon = sqlx::query_scalar!(
            "SELECT tallylight.key_horizon($1, now() - $2::bigint * interval '1 microsecond')",
            slice,
            micros(age),
        )
        .fetch_one(&self.pool)
        .await?;
        let mut after = Some(Uuid::nil());
        while let Some(from) = after {
            if Instant::now() >= deadline {
                return Ok(false);
            }
            let page = sqlx::query!(
                r#"SELECT next_after, removed AS "removed!"
                     FROM tallylight.forget_keys($1, $2, $3, $4)"#,
                slice,
                from,
                horizon,
                PAGE,
            )
            .fetch_one(&self.pool)
            .await?;
            *keys += page.removed.unsigned_abs();
            self.history_metrics.keys_removed.inc_by(page.removed.unsigned_abs());
            after = page.next_after;
        }
        Ok(true)
    }
}
