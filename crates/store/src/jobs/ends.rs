//! What the ends of runs mean to waits: a job that waits for a step is put off, a parent is told of
//! its child's end, and the steps of a job that is over go with it.
//!
//! All of it is done in the transaction that ends the run, and costs a job without `waits` nothing.

use domain::event::{JobEnded, NewEvent};
use domain::ids::{Subject, derived_id};
use serde_json::{Value, json};
use sqlx::PgConnection;
use uuid::Uuid;

use super::finish::{EndedRuns, Run};
use super::relay::{self, NewRelay, Relay, Word};
use super::waits::Parent;
use super::{Ending, Finish};
use crate::Error;

/// A run that waits for a step.
pub(super) type Waiting = (Run, String);

/// Ends runs whose jobs wait for a step: until its time, or for long, or not at all where it was
/// closed meanwhile. The start counts, whether it was marked or not. The jobs are locked first, so that a word either comes before and is seen, or
/// comes after and finds the job waiting.
pub(super) async fn wait(
    connection: &mut PgConnection,
    slice: i16,
    waiting: &[Waiting],
    ended: &mut EndedRuns,
) -> Result<(), Error> {
    if waiting.is_empty() {
        return Ok(());
    }
    let (ids, attempts): (Vec<Uuid>, Vec<i32>) = waiting.iter().map(|(run, _)| *run).unzip();
    let steps: Vec<&str> = waiting.iter().map(|(_, step)| step.as_str()).collect();
    sqlx::query!(
        "SELECT id FROM tallylight.job WHERE slice = $1 AND id = ANY ($2) ORDER BY id FOR UPDATE",
        slice,
        &ids,
    )
    .fetch_all(&mut *connection)
    .await?;
    // Of a dead letter that came back to life a word may be under way that found no job to lock.
    sqlx::query!(
        "SELECT name FROM tallylight.job_step WHERE slice = $1 AND job = ANY ($2) AND closed_at IS NULL
          ORDER BY job, name FOR SHARE",
        slice,
        &ids,
    )
    .fetch_all(&mut *connection)
    .await?;
    let waits = sqlx::query!(
        "UPDATE tallylight.job j
            SET attempt = run.attempt,
                run_at = CASE WHEN s.closed_at IS NULL AND s.name IS NOT NULL
                              THEN coalesce(s.until, '9999-01-01T00:00:00Z') ELSE now() END,
                lane = CASE WHEN j.fair_key IS NULL THEN 0 ELSE 3 END,
                run_epoch = CASE WHEN j.cancel_at IS NOT NULL THEN 9223372036854775807 END,
                started_at = NULL,
                waits = coalesce(j.waits, '{}') || jsonb_build_object('for', run.step)
           FROM unnest($2::uuid[], $3::int[], $4::text[]) AS run (id, attempt, step)
           LEFT JOIN tallylight.job_step s ON s.slice = $1 AND s.job = run.id AND s.name = run.step
          WHERE j.slice = $1 AND j.id = run.id
            AND tallylight.is_run(run.attempt, j.attempt, j.run_epoch)
      RETURNING j.id, run.attempt AS \"attempt!\", j.trace",
        slice,
        &ids,
        &attempts,
        &steps as &[&str],
    )
    .fetch_all(connection)
    .await?;
    ended.extend(waits.into_iter().map(|r| ((r.id, r.attempt), (r.trace, None))));
    Ok(())
}

/// What follows from the ends of jobs with steps or a parent: the parent is told, the children that
/// are not needed are cancelled, the steps go. Jobs without `waits` cost nothing here.
pub(super) async fn ended(
    connection: &mut PgConnection,
    slice: i16,
    finishes: &[Finish],
    ended: &EndedRuns,
) -> Result<(), Error> {
    let (mut words, mut over, mut cancelled) = (Vec::new(), Vec::new(), Vec::new());
    over.extend(begin_anew(connection, slice, finishes, ended).await?);
    for finish in finishes {
        let Some((_, Some(waits))) = ended.get(&(finish.id, finish.attempt)) else { continue };
        words.extend(word(finish, waits).map(|(id, subject, relay)| (id, subject, relay.json())));
        if waits.get("steps").is_some() && is_over(&finish.ending) {
            over.push(finish.id);
            if matches!(finish.ending, Ending::Cancelled { .. }) {
                cancelled.push(finish.id);
            }
        }
    }
    if !cancelled.is_empty() {
        words.extend(unneeded(connection, slice, &cancelled).await?);
    }
    relay::insert(connection, slice, words).await?;
    if over.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "DELETE FROM tallylight.job_step WHERE slice = $1 AND job = ANY ($2)",
        slice,
        &over,
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query!(
        "DELETE FROM tallylight.job_child WHERE slice = $1 AND parent = ANY ($2)",
        slice,
        &over,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Jobs that recur begin with no steps again. Returns those that had some.
async fn begin_anew(
    connection: &mut PgConnection,
    slice: i16,
    finishes: &[Finish],
    ended: &EndedRuns,
) -> Result<Vec<Uuid>, Error> {
    let recurs = |f: &&Finish| {
        matches!(f.ending, Ending::Again { .. }) && ended.contains_key(&(f.id, f.attempt))
    };
    let ids: Vec<Uuid> = finishes.iter().filter(recurs).map(|finish| finish.id).collect();
    if ids.is_empty() {
        return Ok(ids);
    }
    let had = sqlx::query_scalar!(
        "UPDATE tallylight.job SET waits = nullif(waits - '{steps,for}'::text[], '{}')
          WHERE slice = $1 AND id = ANY ($2) AND waits ? 'steps' RETURNING id",
        slice,
        &ids,
    )
    .fetch_all(connection)
    .await?;
    Ok(had)
}

/// Whether a job is gone for good; a dead letter may come back, with its steps.
pub(crate) fn is_over(ending: &Ending) -> bool {
    matches!(ending, Ending::Completed | Ending::Cancelled { .. })
}

/// The word of a child to its parent that it has ended: id and subject of its relay.
pub(crate) fn word(finish: &Finish, waits: &Value) -> Option<(Uuid, String, Relay)> {
    let (state, error, is_final) = match &finish.ending {
        Ending::Completed => ("completed", None, true),
        Ending::Discarded { error } => ("discarded", Some(error), false),
        Ending::Quarantined { error } => ("quarantined", Some(error), false),
        Ending::Cancelled { reason } => ("cancelled", Some(reason), true),
        Ending::Retry { .. }
        | Ending::Snooze { .. }
        | Ending::Again { .. }
        | Ending::Wait { .. }
        | Ending::Released => return None,
    };
    let Parent { slice, job, step, n } = Parent::of(waits)?;
    let rank = finish.attempt.saturating_mul(2).saturating_add(i32::from(is_final));
    let id = derived_id("relay", &[&finish.id.to_string(), &rank.to_string()]);
    let ended = Word {
        job,
        step,
        subject: None,
        n: Some(n),
        rank: Some(rank),
        state: Some(state.to_owned()),
        value: is_final.then(|| value(&finish.events)).flatten(),
        error: error.map(|error| error.replace('\0', "\u{fffd}")),
    };
    Some((id, Subject::job(job).to_string(), Relay::Tell { to: slice, word: ended }))
}

/// The value that a job completed with, as its outcome tells it.
fn value(events: &[NewEvent]) -> Option<Value> {
    let told = events.iter().find(|event| event.event_type == "JobCompleted")?;
    serde_json::from_slice::<JobEnded>(&told.payload).ok()?.value
}

/// Relays that cancel the children of cancelled jobs, one for each slice of theirs.
async fn unneeded(
    connection: &mut PgConnection,
    slice: i16,
    parents: &[Uuid],
) -> Result<Vec<NewRelay>, Error> {
    let rows = sqlx::query!(
        r#"SELECT c.parent, c.child_slice, array_agg(c.child ORDER BY c.n) AS "children!"
             FROM tallylight.job_child c
             JOIN tallylight.job_step s ON s.slice = c.slice AND s.job = c.parent AND s.name = c.step
            WHERE c.slice = $1 AND c.parent = ANY ($2) AND c.is_open AND s.on_cancel = 'cancel'
            GROUP BY c.parent, c.child_slice ORDER BY c.parent, c.child_slice"#,
        slice,
        parents,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|r| cancel_relay(r.parent, r.child_slice, r.children)).collect())
}

/// The relay that cancels children of a parent in one slice.
pub(crate) fn cancel_relay(parent: Uuid, to: i16, jobs: Vec<Uuid>) -> NewRelay {
    let id = derived_id("relay-cancel", &[&parent.to_string(), &to.to_string()]);
    (id, Subject::job(parent).to_string(), json!(Relay::Cancel { to, jobs }))
}
