//! Schedules on PostgreSQL: keeping them, firing them once, whoever tries.

use std::time::{Duration, Instant, SystemTime};

use domain::ids::{Subject, Timestamp};
use domain::schedule::{Missed, Timing};
use serde_json::{Value, json};
use sqlx::Row;
use store::testing::Memory;
use store::{
    Consumer, DueSchedule, Error, Fire, Follow as _, Kept, Lease, NewSchedule, Store, Work,
};
use uuid::Uuid;

use crate::support::{Db, LONG, db};

pub(crate) fn nightly() -> NewSchedule {
    NewSchedule {
        name: "nightly".to_owned(),
        cron: "30 2 * * *".to_owned(),
        time_zone: "Europe/Berlin".to_owned(),
        kind: "clean_up_inactive".to_owned(),
        args: json!({"inactive_days": 30}),
        options: json!({"priority": 3}),
        missed: Missed::Coalesce,
        paused: None,
    }
}

/// Puts the next fire of a schedule into the past.
async fn overdue(db: &Db, name: &str, by: &str) {
    sqlx::query(
        "UPDATE tallylight.schedule
            SET next_fire_at = date_trunc('second', now()) - $2::text::interval WHERE name = $1",
    )
    .bind(name)
    .bind(by)
    .execute(&db.pool)
    .await
    .unwrap();
}

/// Takes the lease of a schedule's slice.
async fn hold(db: &Db, process: Uuid, name: &str) -> Lease {
    let slice = db.store.slice_of(&Subject::schedule(name));
    db.store.claim(Consumer::Jobs, slice, process, LONG).await.unwrap().expect("it is free")
}

pub(crate) fn fire(due: &DueSchedule) -> Fire {
    let timing = Timing::parse(&due.cron, &due.time_zone).unwrap();
    let owed = timing.owed(due.missed, due.due, due.now);
    Fire {
        name: due.name.clone(),
        version: due.version,
        due: due.due,
        fires: owed.fires,
        next: owed.next,
        error: None,
    }
}

async fn refusal(store: &Store, change: impl FnOnce(&mut NewSchedule)) -> String {
    let mut new = nightly();
    change(&mut new);
    match store.put_schedule(&new).await {
        Err(Error::Invalid { reason }) => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_schedule_is_kept_as_it_was_given() {
    let db = db().await;
    let before = db.store.health_facts().await.unwrap().now;
    assert_eq!(db.store.put_schedule(&nightly()).await.unwrap(), Kept::Added);
    assert_eq!(db.store.put_schedule(&nightly()).await.unwrap(), Kept::Same);
    let kept = db.store.schedule("nightly").await.unwrap().unwrap();
    assert_eq!((kept.cron.as_str(), kept.time_zone.as_str()), ("30 2 * * *", "Europe/Berlin"));
    assert_eq!((&kept.args, &kept.options), (&nightly().args, &nightly().options));
    assert_eq!((kept.missed, kept.paused), (Missed::Coalesce, false));
    let next = kept.next_fire_at.unwrap();
    assert_eq!(Some(next), Timing::parse(&kept.cron, "Europe/Berlin").unwrap().next_after(before));
    assert_eq!(db.store.schedules().await.unwrap(), [kept]);
    assert!(db.store.schedule("weekly").await.unwrap().is_none());
}

#[tokio::test]
async fn only_another_expression_or_zone_moves_the_next_fire() {
    let db = db().await;
    db.store.put_schedule(&nightly()).await.unwrap();
    overdue(&db, "nightly", "1 hour").await;
    let due = db.store.schedule("nightly").await.unwrap().unwrap().next_fire_at;
    let other = NewSchedule { args: json!({}), missed: Missed::CatchUp(7), ..nightly() };
    assert_eq!(db.store.put_schedule(&other).await.unwrap(), Kept::Changed);
    let kept = db.store.schedule("nightly").await.unwrap().unwrap();
    assert_eq!((kept.next_fire_at, kept.missed), (due, Missed::CatchUp(7)));
    let moved = NewSchedule { time_zone: "America/New_York".to_owned(), ..nightly() };
    db.store.put_schedule(&moved).await.unwrap();
    let kept = db.store.schedule("nightly").await.unwrap().unwrap();
    assert!(kept.next_fire_at > due, "{kept:?}");
}

#[tokio::test]
async fn a_bad_schedule_is_refused_in_words() {
    let db = db().await;
    let store = &db.store;
    assert!(refusal(store, |s| s.name = "a b".to_owned()).await.contains("schedule's name"));
    assert!(refusal(store, |s| s.cron = "daily".to_owned()).await.contains("cron expression"));
    assert!(refusal(store, |s| s.time_zone = "Berlin".to_owned()).await.contains("time zone"));
    assert!(refusal(store, |s| s.cron = "0 0 30 2 *".to_owned()).await.contains("no moment"));
    assert!(refusal(store, |s| s.kind = "timer".to_owned()).await.contains("reserved"));
    assert!(refusal(store, |s| s.args = json!([])).await.contains("JSON objects"));
    assert!(refusal(store, |s| s.options = json!({"prio": 1})).await.contains("\"prio\""));
    let at = json!({"run_at": "2026-11-22T14:00:00Z"});
    assert!(refusal(store, |s| s.options = at).await.contains("run_at"));
    assert!(store.schedules().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_due_schedule_enqueues_its_job_once() {
    let db = db().await;
    db.store.put_schedule(&nightly()).await.unwrap();
    let process = Uuid::now_v7();
    let lease = hold(&db, process, "nightly").await;
    assert!(db.store.due_schedules(process, 9).await.unwrap().is_empty());
    let wait = db.store.next_fire_in(process).await.unwrap().unwrap();
    assert!(wait > Duration::ZERO && wait < Duration::from_hours(25), "{wait:?}");

    overdue(&db, "nightly", "0 seconds").await;
    assert_eq!(db.store.next_fire_in(process).await.unwrap(), Some(Duration::ZERO));
    let due = db.store.due_schedules(process, 9).await.unwrap().pop().unwrap();
    assert_eq!((due.slice, due.missed), (lease.slice, Missed::Coalesce));
    let fire = Fire { fires: vec![due.due], ..fire(&due) };
    let jobs = db.store.fire_schedule(lease.slice, lease.epoch, &fire).await.unwrap().unwrap();
    let row = sqlx::query("SELECT * FROM tallylight.job").fetch_one(&db.pool).await.unwrap();
    assert_eq!(jobs, [row.get::<Uuid, _>("id")]);
    assert_eq!(row.get::<i16, _>("slice"), lease.slice, "in the slice that fires it");
    assert_eq!(row.get::<String, _>("subject"), "schedule/nightly");
    assert_eq!(row.get::<String, _>("kind"), "clean_up_inactive");
    assert_eq!(row.get::<Value, _>("args"), nightly().args);
    assert_eq!(row.get::<i16, _>("priority"), 3);

    // As somebody who read it at the same time.
    assert_eq!(db.store.fire_schedule(lease.slice, lease.epoch, &fire).await.unwrap(), None);
    // As somebody who would fire for the same moment, whatever the row says by now.
    overdue(&db, "nightly", "0 seconds").await;
    sqlx::query("UPDATE tallylight.schedule SET next_fire_at = $1")
        .bind(fire.due)
        .execute(&db.pool)
        .await
        .unwrap();
    let again = db.store.fire_schedule(lease.slice, lease.epoch, &fire).await.unwrap();
    assert_eq!(again, Some(Vec::new()));
    assert_eq!(db.number("SELECT count(*) FROM tallylight.job").await, 1);
    let fires = db.store.schedule_fires("nightly", 9).await.unwrap();
    assert_eq!(fires.len(), 1);
    assert_eq!((fires[0].fire_at, fires[0].job), (due.due, Some(jobs[0])));
    let kept = db.store.schedule("nightly").await.unwrap().unwrap();
    assert_eq!((kept.last_fire_at, kept.next_fire_at), (Some(due.due), fire.next));
}

#[tokio::test]
async fn nobody_fires_without_the_lease_or_by_what_has_changed_since() {
    let db = db().await;
    db.store.put_schedule(&nightly()).await.unwrap();
    overdue(&db, "nightly", "1 day").await;
    let process = Uuid::now_v7();
    assert!(db.store.due_schedules(process, 9).await.unwrap().is_empty(), "of others");
    let lease = hold(&db, process, "nightly").await;
    let due = db.store.due_schedules(process, 9).await.unwrap().pop().unwrap();
    let stale = fire(&due);
    let fenced = db.store.fire_schedule(lease.slice, lease.epoch - 1, &stale).await;
    assert!(matches!(fenced, Err(Error::Fenced { .. })), "{fenced:?}");

    assert!(db.store.pause_schedule("nightly").await.unwrap());
    assert!(db.store.due_schedules(process, 9).await.unwrap().is_empty());
    assert_eq!(db.store.next_fire_in(process).await.unwrap(), None);
    assert_eq!(db.store.fire_schedule(lease.slice, lease.epoch, &stale).await.unwrap(), None);
    assert!(db.store.resume_schedule("nightly").await.unwrap());
    assert!(db.store.due_schedules(process, 9).await.unwrap().is_empty(), "a pause is not missed");
    assert_eq!(db.store.fire_schedule(lease.slice, lease.epoch, &stale).await.unwrap(), None);
    assert!(db.store.remove_schedule("nightly").await.unwrap());
    assert_eq!(db.store.fire_schedule(lease.slice, lease.epoch, &stale).await.unwrap(), None);
    assert_eq!(db.number("SELECT count(*) FROM tallylight.job").await, 0);
    for gone in [
        db.store.pause_schedule("nightly").await,
        db.store.resume_schedule("nightly").await,
        db.store.remove_schedule("nightly").await,
    ] {
        assert!(!gone.unwrap());
    }
}

#[tokio::test]
async fn a_refused_job_takes_nothing_with_it_and_is_told() {
    let db = db().await;
    db.store.put_schedule(&nightly()).await.unwrap();
    // What a later version might know.
    db.sql("UPDATE tallylight.schedule SET opts = '{\"colour\": \"red\"}'").await;
    overdue(&db, "nightly", "1 day").await;
    let process = Uuid::now_v7();
    let lease = hold(&db, process, "nightly").await;
    let due = db.store.due_schedules(process, 9).await.unwrap().pop().unwrap();
    let refused = db.store.fire_schedule(lease.slice, lease.epoch, &fire(&due)).await.unwrap_err();
    assert!(!refused.is_transient(), "{refused:?}");
    assert_eq!(db.number("SELECT count(*) FROM tallylight.schedule_fire").await, 0);
    let told = Fire { fires: Vec::new(), error: Some("no".to_owned()), ..fire(&due) };
    let jobs = db.store.fire_schedule(lease.slice, lease.epoch, &told).await.unwrap();
    assert_eq!(jobs, Some(Vec::new()));
    let kept = db.store.schedule("nightly").await.unwrap().unwrap();
    assert_eq!((kept.last_error.as_deref(), kept.next_fire_at), (Some("no"), told.next));
}

#[tokio::test]
async fn each_caught_up_fire_has_a_job_of_its_own() {
    let db = db().await;
    let every_second =
        NewSchedule { cron: "* * * * * *".to_owned(), missed: Missed::CatchUp(5), ..nightly() };
    db.store.put_schedule(&every_second).await.unwrap();
    overdue(&db, "nightly", "1 year").await;
    let process = Uuid::now_v7();
    let lease = hold(&db, process, "nightly").await;
    let due = db.store.due_schedules(process, 9).await.unwrap().pop().unwrap();
    let fire = fire(&due);
    let jobs = db.store.fire_schedule(lease.slice, lease.epoch, &fire).await.unwrap().unwrap();
    assert_eq!(jobs.len(), 5);
    assert_eq!(db.number("SELECT count(DISTINCT job) FROM tallylight.schedule_fire").await, 5);
}

#[tokio::test]
async fn a_schedule_runs_by_hand_even_paused_and_its_next_fire_stays() {
    let db = db().await;
    db.store.put_schedule(&NewSchedule { paused: Some(true), ..nightly() }).await.unwrap();
    let before = db.store.schedule("nightly").await.unwrap().unwrap();
    let job = db.store.run_schedule("nightly").await.unwrap().unwrap();
    assert_eq!(db.store.schedule("nightly").await.unwrap().unwrap(), before);
    let fires = db.store.schedule_fires("nightly", 9).await.unwrap();
    assert_eq!((fires.len(), fires[0].job, fires[0].by_hand), (1, Some(job), true));
    assert_eq!(db.store.run_schedule("weekly").await.unwrap(), None);
}

#[tokio::test]
async fn old_fires_are_forgotten() {
    let db = db().await;
    db.store.put_schedule(&nightly()).await.unwrap();
    db.store.run_schedule("nightly").await.unwrap();
    db.sql("UPDATE tallylight.schedule_fire SET fire_at = now() - interval '8 days'").await;
    db.store.run_schedule("nightly").await.unwrap();
    let soon = Instant::now() + LONG;
    assert_eq!(db.store.forget_fires(Duration::from_hours(7 * 24), soon).await.unwrap(), 1);
    assert_eq!(db.store.schedule_fires("nightly", 9).await.unwrap().len(), 1);
}

/// What a worker asks of a store about a schedule that is an hour late, and what it is told.
async fn story(work: &dyn Work, lease: Lease, process: Uuid) -> Vec<String> {
    let mut told = Vec::new();
    let due = work.due_schedules(process, 9).await.unwrap().pop().unwrap();
    told.push(format!("{} {} {} {:?}", due.slice, due.name, due.version, due.missed));
    told.push(format!("{:?}", work.next_fire_in(process).await));
    told.push(format!("{:?}", work.due_schedules(Uuid::nil(), 9).await));
    told.push(format!("{:?}", work.next_fire_in(Uuid::nil()).await));
    told.push(format!("{:?}", work.due_schedules(process, 0).await));
    let (slice, epoch) = (lease.slice, lease.epoch);
    let fires: Vec<Timestamp> = (0..3).map(|n| due.due + Duration::from_secs(n)).collect();
    let next = Some(due.due + Duration::from_secs(2));
    let fire = Fire { fires: fires.clone(), next, ..fire(&due) };
    let other = Fire { version: due.version + 1, ..fire.clone() };
    let unknown = Fire { name: "weekly".to_owned(), ..fire.clone() };
    let told_fire = |jobs: Result<Option<Vec<Uuid>>, Error>| match jobs {
        Ok(jobs) => format!("{:?} jobs", jobs.map(|jobs| jobs.len())),
        Err(error) => error.to_string(),
    };
    told.push(told_fire(work.fire_schedule(slice, epoch + 1, &fire).await));
    told.push(told_fire(work.fire_schedule(slice, epoch, &other).await));
    told.push(told_fire(work.fire_schedule(slice, epoch, &unknown).await));
    told.push(told_fire(work.fire_schedule(slice, epoch, &fire).await));
    told.push(told_fire(work.fire_schedule(slice, epoch, &fire).await));
    // The last moment again, which was fired for, and one more; then why nothing follows.
    let due = fires[2];
    let more = Fire { due, fires: vec![due, due + Duration::from_secs(1)], ..fire.clone() };
    told.push(told_fire(work.fire_schedule(slice, epoch, &more).await));
    let none = Fire { due, fires: Vec::new(), next: None, error: Some("no".to_owned()), ..fire };
    told.push(told_fire(work.fire_schedule(slice, epoch, &none).await));
    told.push(format!("{:?}", work.next_fire_in(process).await));
    let mut jobs = work.due_jobs(process, None, 9, "").await.unwrap();
    jobs.sort_by_key(|job| job.run_at);
    told.extend(jobs.iter().map(|job| format!("{} {} {}", job.kind, job.subject, job.args)));
    told
}

#[tokio::test]
async fn the_in_memory_store_fires_as_postgresql_does() {
    let db = db().await;
    let process = Uuid::now_v7();
    db.store.put_schedule(&nightly()).await.unwrap();
    overdue(&db, "nightly", "1 hour").await;
    let lease = hold(&db, process, "nightly").await;
    let expected = story(&db.store, lease, process).await;

    let memory = Memory::new(db.store.slices(), || SystemTime::now().into());
    memory.put_schedule(&nightly());
    memory.meddle(|tables| {
        let slice = &mut tables.slices[usize::try_from(lease.slice).unwrap()];
        let hour_ago: Timestamp = (SystemTime::now() - Duration::from_hours(1)).into();
        slice.schedules.get_mut("nightly").unwrap().next_fire_at = Some(hour_ago);
    });
    let lease = memory.claim(Consumer::Jobs, lease.slice, process, LONG).await.unwrap().unwrap();
    assert_eq!(story(&memory, lease, process).await, expected);
    assert_eq!(expected.len(), 17, "{expected:#?}");

    let slice = &memory.look(|tables| tables.slices[usize::try_from(lease.slice).unwrap()].clone());
    let (row, kept) = (&slice.schedules["nightly"], db.store.schedule("nightly").await.unwrap());
    let kept = kept.unwrap();
    assert_eq!((row.next_fire_at, &row.last_error), (kept.next_fire_at, &kept.last_error));
    assert!(row.last_fire_at.is_some() && kept.last_fire_at.is_some());
    assert_eq!(slice.fires.len(), db.store.schedule_fires("nightly", 9).await.unwrap().len());
}

#[tokio::test]
async fn a_change_wakes_the_workers() {
    let db = db().await;
    let mut wakes = db.store.listen().await.unwrap();
    db.store.put_schedule(&nightly()).await.unwrap();
    assert_eq!(wakes.recv().await.unwrap(), store::Hint::Schedules);
}

#[tokio::test]
async fn the_present_of_a_due_schedule_is_the_databases() {
    let db = db().await;
    db.store.put_schedule(&nightly()).await.unwrap();
    overdue(&db, "nightly", "3 hours").await;
    let process = Uuid::now_v7();
    hold(&db, process, "nightly").await;
    let due = db.store.due_schedules(process, 9).await.unwrap().pop().unwrap();
    let late: Timestamp = due.due + Duration::from_hours(3);
    assert!(due.now >= late, "{due:?}");
}
