//! Rates on the in-memory tables: `rate.rs` without SQL.

use std::time::Duration;

use domain::ids::Timestamp;
use uuid::Uuid;

use super::tables::{Tables, refused};
use crate::{Bucket, Error, Tokens};

/// A row of `rate_bucket`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BucketRow {
    /// Most tokens it holds.
    pub capacity: f64,
    /// Tokens that come back in a second.
    pub per_second: f64,
    /// What was left at `refilled_at`.
    pub tokens: f64,
    /// When it was last refilled.
    pub refilled_at: Timestamp,
}

impl Tables {
    pub(super) fn take_tokens(
        &mut self,
        now: Timestamp,
        bucket: &Bucket,
        wanted: u32,
    ) -> Result<Tokens, Error> {
        let Bucket { name, capacity, per_second } = bucket;
        let (capacity, per_second) = (*capacity, *per_second);
        let is_named = (1..=1024).contains(&name.len()) && !name.contains('\0');
        if !is_named || capacity < 1.0 || per_second <= 0.0 {
            return Err(refused("the bucket breaks a check of its table"));
        }
        let full = BucketRow { capacity, per_second, tokens: capacity, refilled_at: now };
        let row = self.buckets.entry(name.clone()).or_insert(full);
        let now = now.max(row.refilled_at);
        let passed = (now - row.refilled_at).to_std().unwrap_or_default().as_secs_f64();
        let tokens = capacity.min(row.tokens + row.per_second * passed);
        let granted = whole(tokens).min(wanted);
        let tokens = tokens - f64::from(granted);
        let wait = if tokens >= 1.0 { 0.0 } else { ((1.0 - tokens) / per_second).min(86_400.0) };
        *row = BucketRow { capacity, per_second, tokens, refilled_at: now };
        Ok(Tokens { granted, next_in: Duration::from_secs_f64(wait) })
    }

    pub(super) fn job_age(&mut self, now: Timestamp, slice: i16, id: Uuid) -> Option<Duration> {
        let job = self.slice(slice)?.jobs.get(&id)?;
        Some((now - job.enqueued_at).to_std().unwrap_or_default())
    }
}

/// Whole tokens.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a capacity is far below 2^32, and tokens are never negative"
)]
fn whole(tokens: f64) -> u32 {
    tokens as u32
}
