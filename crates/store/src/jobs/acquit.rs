//! Runs that lost their lease while their process lived: no crash of theirs.
//!
//! Who takes a slice over finds its runs marked and cannot know whether their process died, so it
//! counts a crash of each ([`Store::mark_started`]). A process that has only lost its lease, to a
//! database that was away or to a pause, knows better, and says so afterwards: it *acquits* them.
//! Whether the next holder has noted them as crashed before that or finds them acquitted, they are
//! not taken for crashed after it.

use uuid::Uuid;

use crate::consumer::Consumer;
use crate::{Error, Store};

impl Store {
    /// Takes back the crashes that were, or would be, counted of runs that did not end with their
    /// process. Needs no lease: who calls it has lost it. Returns how many were taken back.
    ///
    /// Call it once for each run, and not again where its answer is lost: a repeat would take back
    /// another crash of the job.
    pub async fn acquit(&self, slice: i16, epoch: i64, runs: &[(Uuid, i32)]) -> Result<u64, Error> {
        let (ids, attempts): (Vec<Uuid>, Vec<i32>) = runs.iter().copied().unzip();
        let mut tx = self.pool.begin().await?;
        // Not beside a holder that notes crashes, or starts these jobs, under its fence.
        sqlx::query!(
            "SELECT epoch FROM tallylight.checkpoint
              WHERE consumer = $1 AND slice = $2 FOR NO KEY UPDATE",
            Consumer::Jobs.name(),
            slice,
        )
        .fetch_optional(&mut *tx)
        .await?;
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
        .execute(&mut *tx)
        .await?;
        sqlx::query!(
            "UPDATE tallylight.job_attempt a
                SET outcome = 'lost', error = 'its lease had passed on while it ran; its process lived'
               FROM unnest($2::uuid[], $3::int[]) AS run (id, attempt)
              WHERE a.slice = $1 AND a.job = run.id AND a.attempt = run.attempt
                AND a.outcome = 'crashed'",
            slice,
            &ids,
            &attempts,
        )
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(acquitted.rows_affected())
    }
}
