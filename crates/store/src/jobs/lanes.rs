//! Lanes: how jobs that may not start now are kept from standing before those that may.
//!
//! A job is *parked* (lane 1) if and only if its owner met it, due, in a full page behind running
//! jobs of its key. It is then found by its key, never by its time, so that a key with 100,000 jobs
//! costs the others nothing; and it starts from there. What is parked is due: a job that has to
//! wait for a time goes back to where it is found by time. A paused job in the way is put into
//! lane 2, which nobody reads, until the owner takes it back.
//!
//! Only the owner of a slice moves jobs into lanes, under its fence. So an owner that has once read
//! which keys are parked knows them as long as it holds the slice; a new one reads them anew.

use uuid::Uuid;

use super::{DueJob, FAIR_KEYS, Pauses};
use crate::consumer::{Consumer, fence};
use crate::{Error, Store};

/// Jobs moved by one statement: some 0.1 s of work, in which the slice's other jobs wait.
pub(crate) const MOVE: i64 = 5_000;

/// A job that holds its key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holder {
    /// Its slice.
    pub slice: i16,
    /// Its key.
    pub key: String,
    /// The job.
    pub id: Uuid,
}

impl Store {
    /// Where a page of fair keys ends that begins after `after`, in the slice of `process` where it
    /// ends first. `None`: every slice has less than a page left.
    pub async fn fair_page_end(&self, process: Uuid, after: &str) -> Result<Option<String>, Error> {
        let end = sqlx::query_scalar!(
            r#"SELECT min(f.fair_key)
                 FROM tallylight.checkpoint c
                CROSS JOIN LATERAL (
                  WITH RECURSIVE f (fair_key) AS (
                    (SELECT j.fair_key FROM tallylight.job j
                      WHERE j.slice = c.slice AND j.lane = 3 AND j.fair_key > $3
                      ORDER BY j.fair_key LIMIT 1)
                    UNION ALL
                    SELECT (SELECT n.fair_key FROM tallylight.job n
                             WHERE n.slice = c.slice AND n.lane = 3 AND n.fair_key > f.fair_key
                             ORDER BY n.fair_key LIMIT 1)
                      FROM f WHERE f.fair_key IS NOT NULL)
                  SELECT fair_key FROM f WHERE fair_key IS NOT NULL LIMIT 1 OFFSET $4) AS f
                WHERE c.consumer = $1 AND c.owner = $2"#,
            Consumer::Jobs.name(),
            process,
            after,
            FAIR_KEYS - 1,
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(end)
    }

    /// The keys of slices that have parked jobs.
    pub async fn parked_keys(&self, slices: &[i16]) -> Result<Vec<(i16, String)>, Error> {
        // From one key to the next by the index: as many steps as keys, however many jobs.
        let rows = sqlx::query!(
            r#"SELECT s.slice AS "slice!", k.key AS "key!"
                 FROM unnest($1::smallint[]) AS s (slice)
                CROSS JOIN LATERAL (
                  WITH RECURSIVE k (key) AS (
                    (SELECT coalesce(j.limit_key, j.subject) FROM tallylight.job j
                      WHERE j.slice = s.slice AND j.lane = 1
                      ORDER BY coalesce(j.limit_key, j.subject) LIMIT 1)
                    UNION ALL
                    SELECT (SELECT coalesce(j.limit_key, j.subject) FROM tallylight.job j
                             WHERE j.slice = s.slice AND j.lane = 1
                               AND coalesce(j.limit_key, j.subject) > k.key
                             ORDER BY coalesce(j.limit_key, j.subject) LIMIT 1)
                      FROM k WHERE k.key IS NOT NULL)
                  SELECT key FROM k WHERE key IS NOT NULL) AS k
                WHERE s.slice = ANY ($1)"#,
            slices,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(|row| (row.slice, row.key)).collect())
    }

    /// Those of the keys that still have parked jobs, running ones included.
    pub async fn still_parked(&self, keys: &[(i16, String)]) -> Result<Vec<(i16, String)>, Error> {
        let (slices, names): (Vec<i16>, Vec<String>) = keys.iter().cloned().unzip();
        let rows = sqlx::query!(
            r#"SELECT k.slice AS "slice!", k.key AS "key!"
                 FROM unnest($1::smallint[], $2::text[]) AS k (slice, key)
                WHERE k.slice = ANY ($1) AND EXISTS (
                      SELECT FROM tallylight.job j WHERE j.slice = k.slice AND j.lane = 1
                         AND coalesce(j.limit_key, j.subject) = k.key)"#,
            &slices,
            &names,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(|row| (row.slice, row.key)).collect())
    }

    /// The jobs that hold keys: ordered ones that have started and not ended, whether they run or
    /// wait for their next try.
    pub async fn holders(&self, keys: &[(i16, String)]) -> Result<Vec<Holder>, Error> {
        let (slices, names): (Vec<i16>, Vec<String>) = keys.iter().cloned().unzip();
        let rows = sqlx::query_as!(
            Holder,
            r#"SELECT k.slice AS "slice!", k.key AS "key!", j.id
                 FROM unnest($1::smallint[], $2::text[]) AS k (slice, key)
                 JOIN tallylight.job j ON j.slice = k.slice AND j.holds
                  AND coalesce(j.limit_key, j.subject) = k.key
                WHERE j.slice = ANY ($1)"#,
            &slices,
            &names,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows)
    }

    /// The first parked jobs of keys in slices that `process` holds: up to `per_key` of each key
    /// and priority, in their order.
    pub async fn parked_jobs(
        &self,
        process: Uuid,
        keys: &[(i16, String)],
        per_key: i64,
    ) -> Result<Vec<DueJob>, Error> {
        let (slices, names): (Vec<i16>, Vec<String>) = keys.iter().cloned().unzip();
        let rows = sqlx::query_as!(
            super::DueRow,
            r#"SELECT j.slice, j.id, j.kind, j.subject, j.args, j.run_at, j.attempt, j.errors,
                      j.max_attempts, j.causation_id, j.correlation_id, j.priority, j.queue, j.lane,
                      j.limit_key, j.max_running, j.ordered, j.fair_key, j.waits,
                      j.crashes + (j.run_epoch IS NOT NULL)::int AS "crashes!",
                      j.enqueued_at, now() AS "read_at!"
                 FROM unnest($3::smallint[], $4::text[]) AS k (slice, key)
                 JOIN tallylight.checkpoint c
                   ON c.consumer = $1 AND c.slice = k.slice AND c.owner = $2
                CROSS JOIN (VALUES (1::smallint), (2), (3), (4)) AS p (priority)
                CROSS JOIN LATERAL (
                      SELECT * FROM tallylight.job q
                       WHERE q.slice = k.slice AND q.lane = 1
                         AND coalesce(q.limit_key, q.subject) = k.key AND q.priority = p.priority
                         AND q.run_at <= now() AND (q.run_epoch IS NULL OR q.run_epoch < c.epoch)
                       ORDER BY q.run_at, q.id LIMIT $5) AS j
                WHERE c.slice = ANY ($3)
                ORDER BY j.priority, j.run_at, j.id"#,
            Consumer::Jobs.name(),
            process,
            &slices,
            &names,
            per_key,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(DueJob::from).collect())
    }

    /// Parks the first due jobs of keys, of all that stand in the way: up to [`MOVE`] of each
    /// priority are looked at, by time and for each of `fair_keys`. Running ones are parked too:
    /// they are the first of their key, also if they have to run again. Returns how many were.
    ///
    /// # Errors
    /// [`Error::Fenced`] where the lease has passed on.
    pub async fn park(
        &self,
        slice: i16,
        epoch: i64,
        keys: &[String],
        fair_keys: &[String],
    ) -> Result<u64, Error> {
        let mut tx = self.pool.begin().await?;
        fence(&mut tx, Consumer::Jobs, slice, epoch).await?;
        let parked = sqlx::query!(
            "UPDATE tallylight.job j SET lane = 1
               FROM (SELECT f.id, f.key
                       FROM (VALUES (1::smallint), (2), (3), (4)) AS p (priority)
                      CROSS JOIN LATERAL (
                            SELECT id, coalesce(limit_key, subject) AS key FROM tallylight.job
                             WHERE slice = $1 AND lane = 0 AND priority = p.priority
                               AND run_at <= now() ORDER BY run_at, id LIMIT $4) AS f
                     UNION ALL
                     SELECT f.id, f.key
                       FROM (VALUES (1::smallint), (2), (3), (4)) AS p (priority)
                      CROSS JOIN unnest($3::text[]) AS g (fair_key)
                      CROSS JOIN LATERAL (
                            SELECT id, coalesce(limit_key, subject) AS key FROM tallylight.job
                             WHERE slice = $1 AND lane = 3 AND fair_key = g.fair_key
                               AND priority = p.priority AND run_at <= now()
                             ORDER BY run_at, id LIMIT $4) AS f) AS front
              WHERE j.slice = $1 AND j.id = front.id AND front.key = ANY ($2)
                AND j.kind NOT IN ('timer', 'forward', 'relay')",
            slice,
            keys,
            fair_keys,
            MOVE,
        )
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(parked.rows_affected())
    }

    /// Puts paused jobs of a slice out of the way: those of `ids`, and of the first due ones as
    /// [`Store::park`] looks at them. Returns how many.
    ///
    /// # Errors
    /// [`Error::Fenced`] where the lease has passed on.
    pub async fn set_aside(
        &self,
        slice: i16,
        epoch: i64,
        pauses: &Pauses,
        fair_keys: &[String],
        ids: &[Uuid],
    ) -> Result<u64, Error> {
        let mut tx = self.pool.begin().await?;
        fence(&mut tx, Consumer::Jobs, slice, epoch).await?;
        let done = sqlx::query!(
            "UPDATE tallylight.job j SET lane = 2
               FROM (SELECT f.id FROM (VALUES (1::smallint), (2), (3), (4)) AS p (priority)
                      CROSS JOIN LATERAL (
                            SELECT id FROM tallylight.job
                             WHERE slice = $1 AND lane = 0 AND priority = p.priority
                               AND run_at <= now() ORDER BY run_at, id LIMIT $8) AS f
                     UNION
                     SELECT f.id FROM (VALUES (1::smallint), (2), (3), (4)) AS p (priority)
                      CROSS JOIN unnest($6::text[]) AS g (fair_key)
                      CROSS JOIN LATERAL (
                            SELECT id FROM tallylight.job
                             WHERE slice = $1 AND lane = 3 AND fair_key = g.fair_key
                               AND priority = p.priority AND run_at <= now()
                             ORDER BY run_at, id LIMIT $8) AS f
                     UNION
                     SELECT u.id FROM unnest($7::uuid[]) AS u (id)) AS front
              WHERE j.slice = $1 AND j.id = front.id
                AND (j.queue = ANY ($3) OR j.kind = ANY ($4)
                     OR coalesce(j.limit_key, j.subject) = ANY ($5))
                AND (j.run_epoch IS NULL OR j.run_epoch < $2)
                AND j.kind NOT IN ('timer', 'forward', 'relay')",
            slice,
            epoch,
            &pauses.queues,
            &pauses.kinds,
            &pauses.keys,
            fair_keys,
            ids,
            MOVE,
        )
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(done.rows_affected())
    }

    /// Takes jobs of a slice back that were put out of the way and are not paused any more, up to
    /// [`MOVE`]. Returns whether that was all.
    ///
    /// # Errors
    /// [`Error::Fenced`] where the lease has passed on.
    pub async fn take_back(&self, slice: i16, epoch: i64, pauses: &Pauses) -> Result<bool, Error> {
        let is_any = sqlx::query_scalar!(
            r#"SELECT EXISTS (SELECT FROM tallylight.job WHERE slice = $1 AND lane = 2) AS "any!""#,
            slice,
        )
        .fetch_one(&self.pool)
        .await?;
        if !is_any {
            return Ok(true);
        }
        let mut tx = self.pool.begin().await?;
        fence(&mut tx, Consumer::Jobs, slice, epoch).await?;
        let done = sqlx::query!(
            "UPDATE tallylight.job j SET lane = CASE WHEN j.fair_key IS NULL THEN 0 ELSE 3 END
              WHERE j.slice = $1 AND j.id IN (
                    SELECT q.id FROM tallylight.job q
                     WHERE q.slice = $1 AND q.lane = 2 AND q.queue <> ALL ($2) AND q.kind <> ALL ($3)
                       AND coalesce(q.limit_key, q.subject) <> ALL ($4)
                     ORDER BY q.priority, q.run_at, q.id LIMIT $5)",
            slice,
            &pauses.queues,
            &pauses.kinds,
            &pauses.keys,
            MOVE,
        )
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(done.rows_affected() < MOVE.unsigned_abs())
    }
}
