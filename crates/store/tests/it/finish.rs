//! How runs of jobs end, and what is appended with it.

use std::collections::HashSet;
use std::time::Duration;

use domain::ids::{Subject, Timestamp};
use sqlx::Row;
use store::Consumer::Jobs;
use store::{Ending, Error, Finish, Lease};
use uuid::Uuid;

use crate::jobs::{insert, job};
use crate::support::{Db, LONG, READ_NOW, db, event, subject_in};

const SLICE: i16 = 4;

/// Jobs that run, of one subject.
struct Running {
    db: Db,
    process: Uuid,
    lease: Lease,
    subject: Subject,
    ids: Vec<Uuid>,
}

async fn running(count: usize) -> Running {
    let db = db().await;
    let subject = subject_in(&db.store, SLICE);
    let jobs = (0..count).map(|_| job(&subject, Timestamp::default(), 2)).collect();
    let ids = insert(&db, SLICE, jobs).await;
    let process = Uuid::now_v7();
    let lease = db.store.claim(Jobs, SLICE, process, LONG).await.unwrap().unwrap();
    assert_eq!(db.store.mark_started(SLICE, lease.epoch, &ids).await.unwrap().len(), count);
    Running { db, process, lease, subject, ids }
}

impl Running {
    fn end(&self, n: usize, attempt: i32, ending: Ending) -> Finish {
        Finish {
            id: self.ids[n],
            attempt,
            ending,
            events: vec![event(&self.subject, [u8::try_from(n).unwrap()])],
        }
    }

    async fn finish(&self, finishes: &[Finish]) -> HashSet<Uuid> {
        self.db.store.finish(SLICE, self.lease.epoch, finishes).await.unwrap()
    }

    async fn told(&self) -> Vec<u8> {
        let events = self.db.store.read_subject(&self.subject, 0, 100).await.unwrap();
        events.iter().map(|e| e.payload[0]).collect()
    }
}

fn retry(after: u64) -> Ending {
    Ending::Retry { error: "broken\0pipe".to_owned(), after: Duration::from_secs(after) }
}

#[tokio::test]
async fn each_ending_does_its_own() {
    let r = running(7).await;
    let dead = |error: &str| error.to_owned();
    let ended = r
        .finish(&[
            r.end(0, 1, Ending::Completed),
            r.end(1, 1, retry(3600)),
            r.end(2, 1, Ending::Snooze { after: Duration::from_mins(1) }),
            r.end(3, 1, Ending::Discarded { error: dead("bad\0args") }),
            r.end(4, 1, Ending::Quarantined { error: dead("crashed") }),
            r.end(5, 1, Ending::Released),
        ])
        .await;
    assert_eq!(ended, r.ids[..6].iter().copied().collect());
    let rows = sqlx::query(
        "SELECT id, errors, crashes, attempt, last_error, run_epoch, started_at IS NULL AS idle,
                round(extract(epoch FROM run_at - now()))::int AS wait
           FROM tallylight.job ORDER BY array_position($1, id)",
    )
    .bind(&r.ids)
    .fetch_all(&r.db.pool)
    .await
    .unwrap();
    let told: Vec<_> = rows
        .iter()
        .map(|row| (row.get("id"), row.get("errors"), row.get("last_error"), row.get("idle")))
        .collect();
    let broken = Some("broken\u{fffd}pipe".to_owned());
    let expected: Vec<(Uuid, i32, Option<String>, bool)> = vec![
        (r.ids[1], 1, broken, true),
        (r.ids[2], 0, None, true),
        (r.ids[5], 0, None, true),
        (r.ids[6], 0, None, false),
    ];
    assert_eq!(told, expected);
    assert!((3590..=3600).contains(&rows[0].get::<i32, _>("wait")));
    assert!((50..=60).contains(&rows[1].get::<i32, _>("wait")));
    assert!(rows[2].get::<i32, _>("wait") < 0, "a released one is due as it was");

    let dead = r.db.store.dead_jobs(10).await.unwrap();
    let mut dead: Vec<_> =
        dead.iter().map(|d| (d.id, d.state.as_str(), d.last_error.as_deref().unwrap())).collect();
    dead.sort_by_key(|(_, state, _)| *state);
    let expected =
        [(r.ids[3], "discarded", "bad\u{fffd}args"), (r.ids[4], "quarantined", "crashed")];
    assert_eq!(dead, expected);
    assert_eq!(r.told().await, [0, 1, 2, 3, 4, 5], "outcomes, in order");
}

#[tokio::test]
async fn a_job_that_did_its_work_and_recurs_begins_with_fresh_budgets() {
    let r = running(1).await;
    r.finish(&[r.end(0, 1, retry(0))]).await;
    r.db.sql("UPDATE tallylight.job SET crashes = 2").await;
    let start =
        async || r.db.store.mark_started(SLICE, r.lease.epoch, &r.ids).await.unwrap()[0].attempt;
    assert_eq!(start().await, 2);
    let mut again = r.end(0, 2, Ending::Again { after: Duration::from_mins(1) });
    again.events.clear();
    assert_eq!(r.finish(&[again]).await.len(), 1);
    let fresh = "SELECT count(*) FROM tallylight.job
                  WHERE errors = 0 AND crashes = 0 AND last_error IS NULL AND run_at > now()";
    assert_eq!(r.db.number(fresh).await, 1);
    assert_eq!(start().await, 3, "the number of a start never goes back");
}

#[tokio::test]
async fn a_run_that_is_not_the_present_one_changes_nothing() {
    let r = running(4).await;
    let endings = [
        Ending::Completed,
        retry(0),
        Ending::Discarded { error: String::new() },
        Ending::Snooze { after: Duration::ZERO },
    ];
    let wrong: Vec<Finish> =
        endings.iter().enumerate().map(|(n, ending)| r.end(n, 2, ending.clone())).collect();
    assert!(r.finish(&wrong).await.is_empty());
    assert!(r.told().await.is_empty());
    let untouched =
        "SELECT count(*) FROM tallylight.job WHERE run_epoch IS NOT NULL AND errors = 0";
    assert_eq!(r.db.number(untouched).await, 4);
    // Beside a right one of the same job, its outcome is dropped all the same.
    let mut stale = r.end(0, 7, Ending::Completed);
    stale.events[0].payload = vec![99];
    assert_eq!(r.finish(&[stale, r.end(0, 1, Ending::Completed)]).await.len(), 1);
    assert_eq!(r.told().await, [0]);
}

#[tokio::test]
async fn a_run_that_is_told_twice_ends_once() {
    let r = running(2).await;
    let (done, again) = (r.end(0, 1, Ending::Completed), r.end(1, 1, retry(0)));
    r.finish(&[done.clone(), done.clone(), again.clone(), again.clone()]).await;
    assert_eq!(r.told().await, [0, 1]);
    assert!(r.finish(&[done]).await.is_empty());
    // Ended by itself: not running any more, but its number is still the present one.
    assert_eq!(r.db.number("SELECT errors::bigint FROM tallylight.job").await, 1);
}

#[tokio::test]
async fn a_failure_that_is_told_again_after_a_lost_answer_counts_once() {
    let r = running(1).await;
    let failed = [r.end(0, 1, retry(3600))];
    assert_eq!(r.finish(&failed).await.len(), 1);
    assert!(r.finish(&failed).await.is_empty());
    let errors = r.db.number("SELECT errors::bigint FROM tallylight.job").await;
    assert_eq!((errors, r.told().await), (1, vec![0]));
}

#[tokio::test]
async fn a_retry_counts_a_failure_and_a_snooze_does_not() {
    let r = running(1).await;
    for (attempt, ending) in
        [(1, retry(0)), (2, Ending::Snooze { after: Duration::ZERO }), (3, retry(0))]
    {
        r.finish(&[r.end(0, attempt, ending)]).await;
        let due = r.db.store.due_jobs(r.process, None, 10, "").await.unwrap();
        assert_eq!(due[0].attempt, attempt);
        let started = r.db.store.mark_started(SLICE, r.lease.epoch, &r.ids).await.unwrap();
        assert_eq!((started[0].attempt, started[0].crashes), (attempt + 1, 0));
    }
    let row = sqlx::query("SELECT errors, last_error FROM tallylight.job")
        .fetch_one(&r.db.pool)
        .await
        .unwrap();
    assert_eq!(row.get::<i32, _>("errors"), 2);
}

#[tokio::test]
async fn an_absurd_delay_is_shortened() {
    let r = running(1).await;
    let ending = Ending::Retry { error: "wait".to_owned(), after: Duration::MAX };
    assert_eq!(r.finish(&[r.end(0, 1, ending)]).await.len(), 1);
    let years = "SELECT extract(year FROM run_at - now())::bigint + extract(day FROM run_at - now())::bigint / 365
                   FROM tallylight.job";
    assert!((99..=101).contains(&r.db.number(years).await));
    assert!(r.db.store.next_due_in(r.process, &READ_NOW).await.unwrap().is_some());
}

#[tokio::test]
async fn a_refused_outcome_ends_nothing() {
    let r = running(2).await;
    let mut bad = r.end(1, 1, Ending::Completed);
    bad.events[0].event_type = "a\0b".to_owned();
    let finishes = [r.end(0, 1, Ending::Completed), bad];
    let error = r.db.store.finish(SLICE, r.lease.epoch, &finishes).await.unwrap_err();
    assert!(matches!(error, Error::Data { .. }), "{error}");
    assert_eq!(r.db.number("SELECT count(*) FROM tallylight.job").await, 2);
    assert!(r.told().await.is_empty());
}

#[tokio::test]
async fn a_job_that_dies_twice_is_one_dead_letter() {
    let r = running(1).await;
    let dead = |attempt| r.end(0, attempt, Ending::Discarded { error: format!("{attempt}") });
    r.finish(&[dead(1)]).await;
    r.db.store.retry_dead(r.ids[0]).await.unwrap();
    r.db.store.mark_started(SLICE, r.lease.epoch, &r.ids).await.unwrap();
    r.finish(&[dead(2)]).await;
    let letters = r.db.store.dead_jobs(10).await.unwrap();
    assert_eq!(letters.len(), 1);
    assert_eq!((letters[0].attempt, letters[0].last_error.as_deref()), (2, Some("2")));
}

#[tokio::test]
async fn hundreds_of_runs_end_in_one_transaction() {
    let r = running(300).await;
    let ending = |n: usize| match n % 3 {
        0 => Ending::Completed,
        1 => retry(5),
        _ => Ending::Discarded { error: "no".to_owned() },
    };
    let finishes: Vec<Finish> = (0..300)
        .map(|n| Finish {
            id: r.ids[n],
            attempt: 1,
            ending: ending(n),
            events: vec![event(&r.subject, "x")],
        })
        .collect();
    assert_eq!(r.finish(&finishes).await.len(), 300);
    let counts = r.db.store.job_counts().await.unwrap();
    assert_eq!((counts.retryable, counts.dead, counts.running), (100, 100, 0));
    assert_eq!(r.db.head(SLICE).await, 300);
}

#[tokio::test]
async fn a_job_that_is_put_off_unstarted_keeps_the_crash_of_its_former_holder() {
    let r = running(1).await;
    r.db.store.release(Jobs, SLICE, r.lease.epoch).await.unwrap();
    let next = r.db.store.claim(Jobs, SLICE, Uuid::now_v7(), LONG).await.unwrap().unwrap();
    let put_off = r.end(0, 1, Ending::Snooze { after: Duration::from_mins(1) });
    for crashes in [1, 1] {
        r.db.store.finish(SLICE, next.epoch, std::slice::from_ref(&put_off)).await.unwrap();
        let counted: i32 = sqlx::query_scalar("SELECT crashes FROM tallylight.job")
            .fetch_one(&r.db.pool)
            .await
            .unwrap();
        assert_eq!(counted, crashes, "once");
    }
}
