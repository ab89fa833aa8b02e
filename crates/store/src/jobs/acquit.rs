//! Runs that lost their lease while their process lived: no crash of theirs.
//!
//! Who takes a slice over finds its runs marked and cannot know whether their process died, so it
//! counts a crash of each ([`Store::mark_started`]). A process that has only lost its lease, to a
//! database that was away or to a pause, knows better, and says so afterwards: it *acquits* them.

use uuid::Uuid;

use crate::{Error, Store};

impl Store {
    /// Takes back the crashes that were, or would be, counted of runs that did not end with their
    /// process. Needs no lease: who calls it has lost it. Returns how many were taken back.
    ///
    /// Call it once for each run, and not again where its answer is lost: a repeat would take back
    /// another crash of the job.
    pub async fn acquit(&self, slice: i16, epoch: i64, runs: &[(Uuid, i32)]) -> Result<u64, Error> {
        let (ids, attempts): (Vec<Uuid>, Vec<i32>) = runs.iter().copied().unzip();
        let acquitted = sqlx::query!(
            "UPDATE tallylight.job j
                SET crashes = CASE WHEN j.attempt > run.attempt THEN j.crashes - 1 ELSE j.crashes END,
                    run_epoch = CASE WHEN j.attempt > run.attempt THEN j.run_epoch END,
                    started_at = CASE WHEN j.attempt > run.attempt THEN j.started_at END
               FROM unnest($3::uuid[], $4::int[]) AS run (id, attempt)
              WHERE j.slice = $1 AND j.id = run.id
                AND (j.attempt > run.attempt AND j.crashes > 0
                     OR j.attempt = run.attempt AND j.run_epoch = $2)",
            slice,
            epoch,
            &ids,
            &attempts,
        )
        .execute(&self.pool)
        .await?;
        Ok(acquitted.rows_affected())
    }
}
