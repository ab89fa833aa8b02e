//! History: months leave the database for files, whatever stops it half way, and every reader
//! sees one log.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use domain::event::RecordedEvent;
use domain::ids::{Subject, Timestamp};
use serde_json::json;
use store::{
    Config, Error, Month, RebuildOptions, RebuildProgress, RebuildState, Sealed, Segment,
    SegmentFault, Store,
};
use tempfile::TempDir;
use uuid::Uuid;

use crate::rebuild::{append, apply_all, leases, log, rebuild};
use crate::support::{Db, LONG, db, event, keyed, subject_in};

/// Months over for at least a month are sealed.
const AGE: Duration = Duration::from_hours(31 * 24);

const MONTHS: &str = "SELECT count(*) FROM pg_class WHERE relnamespace = 'tallylight'::regnamespace
    AND relkind = 'r' AND relname ~ '^event_[0-9]{4}_[0-9]{2}$' AND right(relname, 7) < to_char(now(), 'YYYY_MM')";

/// A database with a place for segments.
pub(crate) struct Place {
    pub(crate) db: Db,
    pub(crate) store: Store,
    directory: TempDir,
}

pub(crate) async fn place() -> Place {
    let db = db().await;
    let directory = tempfile::tempdir().unwrap();
    let store = open(&db, directory.path().to_owned()).await;
    Place { db, store, directory }
}

async fn open(db: &Db, directory: PathBuf) -> Store {
    let history_url = Some(format!("file://{}", directory.display()));
    let config = Config { history_url, ..Config::new(db.url.as_str()) };
    Store::connect(&config).await.unwrap()
}

fn soon() -> Instant {
    Instant::now() + LONG
}

impl Place {
    /// Moves all events back in time, and has every consumer pass them.
    async fn bend(&self, days: i32) {
        let mut tx = self.db.pool.begin().await.unwrap();
        // Only so can a test bend time: as replicas do, without the triggers of the log.
        sqlx::query("SET LOCAL session_replication_role = replica")
            .execute(&mut *tx)
            .await
            .unwrap();
        for table in ["event", "event_key"] {
            let back = format!(
                "UPDATE tallylight.{table} SET recorded_at = recorded_at - make_interval(days => $1)"
            );
            sqlx::query(sqlx::AssertSqlSafe(back)).bind(days).execute(&mut *tx).await.unwrap();
        }
        tx.commit().await.unwrap();
        self.db
            .sql(
                "UPDATE tallylight.checkpoint c SET position = h.position, recorded_at = now()
                   FROM tallylight.slice_head h WHERE h.slice = c.slice AND c.consumer = 'react'",
            )
            .await;
    }

    /// As [`Place::bend`], to months of their own.
    pub(crate) async fn age(&self, days: i32) {
        self.bend(days).await;
        self.store.ensure_partitions(soon()).await.unwrap();
        assert_eq!(self.db.number("SELECT count(*) FROM tallylight.event_default").await, 0);
    }

    /// Two months of three slices, and what is recorded now.
    async fn fill(&self) -> Vec<Subject> {
        let subjects: Vec<Subject> =
            [0, 0, 3, 7].map(|slice| subject_in(&self.store, slice)).into_iter().collect();
        for days in [40, 400, 0] {
            for subject in &subjects {
                let slice = self.store.slice_of(subject);
                let some = |n: i32| {
                    let mut event = event(subject, format!("{days} {n}"));
                    event.meta = (n % 2 == 0).then(|| json!({"n": n, "text": "\u{e4}\"\\"}).into());
                    event.causation_id = (n % 3 == 0).then(Uuid::now_v7);
                    event.correlation_id = (n % 5 == 0).then(Uuid::now_v7);
                    event
                };
                let events: Vec<_> = (0..300).map(some).collect();
                self.store.append(slice, None, &events).await.unwrap();
            }
            match days {
                40 => self.bend(days).await,
                400 => self.age(days).await,
                _ => {}
            }
        }
        subjects
    }

    async fn log(&self, subjects: &[Subject]) -> Vec<Vec<RecordedEvent>> {
        let mut all = Vec::new();
        for slice in [0, 3, 5, 7] {
            all.push(self.store.read_after(slice, 0, Timestamp::default(), 100_000).await.unwrap());
        }
        for subject in subjects {
            all.push(self.store.read_subject(subject, 0, 100_000).await.unwrap());
            all.push(self.store.read_subject(subject, 250, 100).await.unwrap());
        }
        all
    }

    async fn due(&self) -> Vec<Month> {
        let plan = self.store.history_plan(AGE).await.unwrap();
        plan.into_iter().filter(|month| month.kept.is_none()).collect()
    }

    pub(crate) async fn seal(&self) -> Sealed {
        self.store.seal_due(AGE, soon()).await.unwrap()
    }
}

#[tokio::test]
async fn what_is_sealed_is_read_as_before() {
    let place = place().await;
    let subjects = place.fill().await;
    let before = place.log(&subjects).await;
    assert_eq!(before[0].len(), 3 * 600);

    let sealed = place.seal().await;
    assert_eq!((sealed.months, sealed.segments, sealed.events), (2, 6, 2 * 4 * 300));
    assert_eq!(place.db.number(MONTHS).await, 0);
    assert_eq!(place.db.number("SELECT count(*) FROM tallylight.event").await, 4 * 300);
    assert_eq!(place.log(&subjects).await, before);
    let one = place.store.read_event(0, 11).await.unwrap().unwrap();
    assert_eq!(one, before[0][10]);

    // In pieces of any size, across blocks, segments and the border to the table.
    let (mut position, mut since, mut read) = (0, Timestamp::default(), Vec::new());
    loop {
        let piece = place.store.read_after(0, position, since, 333).await.unwrap();
        let Some(last) = piece.last() else { break };
        (position, since) = (last.position, last.recorded_at);
        read.extend(piece);
    }
    assert_eq!(read, before[0]);
    for segment in place.store.segments().await.unwrap() {
        place.store.verify_segment(&segment).await.unwrap();
    }
    assert_eq!(place.store.history_holes().await.unwrap(), [""; 0]);
    assert_eq!(place.store.unnoted_files().await.unwrap(), [""; 0]);
    assert_eq!(place.store.missing_segments().await.unwrap(), [""; 0]);
    assert_eq!(place.seal().await, Sealed::default(), "again seals nothing");
}

#[tokio::test]
async fn sealing_goes_on_wherever_it_was_stopped() {
    let place = place().await;
    let subjects = place.fill().await;
    let before = place.log(&subjects).await;
    let due = place.due().await;
    let mut sealed = Sealed::default();

    // Stopped after the first slice.
    place.store.seal_slice(&due[0], 0, soon(), &mut sealed).await.unwrap();
    assert_eq!(place.log(&subjects).await, before);
    // Stopped with a file written and not noted.
    place.db.sql("ALTER FUNCTION tallylight.note_segment RENAME TO gone").await;
    assert!(place.store.seal_due(AGE, soon()).await.is_err());
    place.db.sql("ALTER FUNCTION tallylight.gone RENAME TO note_segment").await;
    assert_eq!(place.store.unnoted_files().await.unwrap().len(), 1);
    // Stopped with all noted.
    for slice in place.store.slices().slices() {
        place.store.seal_slice(&due[0], slice, soon(), &mut sealed).await.unwrap();
    }
    assert_eq!(place.log(&subjects).await, before);
    assert_eq!(place.store.unnoted_files().await.unwrap(), [""; 0], "the same file again");
    // Stopped with the month detached.
    place.store.detach_month(&due[0]).await.unwrap();
    assert_eq!(place.log(&subjects).await, before);
    assert!(!place.due().await[0].attached);

    let rest = place.seal().await;
    assert_eq!((rest.months, rest.segments), (2, 3));
    assert_eq!(place.db.number(MONTHS).await, 0);
    assert_eq!(place.log(&subjects).await, before);
    assert_eq!(place.store.history_holes().await.unwrap(), [""; 0]);
}

#[tokio::test]
async fn a_run_whose_time_is_up_stops_between_segments() {
    let place = place().await;
    let subjects = place.fill().await;
    let before = place.log(&subjects).await;
    let sealed = place.store.seal_due(AGE, Instant::now()).await.unwrap();
    assert!(sealed.is_cut_short && sealed.segments == 0);
    assert_eq!(place.log(&subjects).await, before);
}

#[tokio::test]
async fn no_row_leaves_that_no_segment_holds() {
    let place = place().await;
    place.fill().await;
    let due = place.due().await;
    let rows = "SELECT count(*) FROM tallylight.event";
    let all = place.db.number(rows).await;
    let refused = async || {
        let error = place.store.detach_month(&due[0]).await.unwrap_err();
        assert!(
            matches!(&error, Error::Invalid { reason } if reason.contains("no segment")),
            "{error}"
        );
    };
    refused().await;
    let mut sealed = Sealed::default();
    for slice in [0, 3] {
        place.store.seal_slice(&due[0], slice, soon(), &mut sealed).await.unwrap();
    }
    refused().await;
    place.store.seal_slice(&due[0], 7, soon(), &mut sealed).await.unwrap();
    assert!(place.store.drop_month(&due[0]).await.is_err(), "attached");

    place.store.detach_month(&due[0]).await.unwrap();
    place.db.sql("DELETE FROM tallylight.segment WHERE slice = 3").await;
    let error = place.store.drop_month(&due[0]).await.unwrap_err();
    assert!(error.to_string().contains("slice 3"), "{error}");
    assert_eq!(place.db.number(MONTHS).await, 2);
    assert_eq!(place.db.number(rows).await, all - 4 * 300);
}

#[tokio::test]
async fn only_months_can_be_taken_away() {
    let place = place().await;
    for name in ["event_default", "segment", "event", "event_2020_01", "event_2020_01; DROP", ""] {
        for function in ["detach_sealed", "drop_sealed"] {
            let call = format!("SELECT tallylight.{function}($1)");
            let called = sqlx::query(sqlx::AssertSqlSafe(call)).bind(name).execute(&place.db.pool);
            assert!(called.await.unwrap_err().to_string().contains("there is no month"), "{name}");
        }
    }
}

#[tokio::test]
async fn a_segment_must_go_on_where_the_last_one_ended() {
    let place = place().await;
    place.fill().await;
    let due = place.due().await;
    place.store.seal_slice(&due[0], 3, soon(), &mut Sealed::default()).await.unwrap();
    for (from, to) in [(1, 5), (302, 310), (301, 5000), (300, 302)] {
        let note = sqlx::query(
            "SELECT tallylight.note_segment(3::smallint, $1, $2, '-infinity', 'infinity', 'f', 1, sha256(''))",
        );
        let refused = note.bind(from).bind(to).execute(&place.db.pool).await.unwrap_err();
        let code = refused.as_database_error().unwrap().code().unwrap().into_owned();
        assert!(code.starts_with("TL"), "{refused}");
    }
}

#[tokio::test]
async fn a_month_that_somebody_needs_is_kept() {
    let place = place().await;
    place.fill().await;
    let reason = async || {
        let plan = place.store.history_plan(AGE).await.unwrap();
        assert_eq!(plan.len(), 2);
        plan.iter().map(|month| month.kept.clone().unwrap_or_default()).collect::<Vec<_>>()
    };
    assert_eq!(reason().await, ["", ""]);

    place.db.sql("UPDATE tallylight.checkpoint SET position = 400 WHERE consumer = 'react' AND slice = 3").await;
    assert_eq!(reason().await, ["", "consumer react has not passed it in slice 3"]);
    place
        .db
        .sql("UPDATE tallylight.checkpoint SET position = 1 WHERE consumer = 'react' AND slice = 3")
        .await;
    let first = place.store.history_plan(AGE).await.unwrap().remove(0);
    assert_eq!(
        reason().await,
        ["consumer react has not passed it in slice 3", &format!("{} comes first", first.name)]
    );
    let error = place.store.seal_month(&first, soon(), &mut Sealed::default()).await.unwrap_err();
    assert!(error.to_string().contains("has not passed"), "{error}");
    assert_eq!(place.seal().await, Sealed::default());
    place.db.sql("UPDATE tallylight.checkpoint SET position = 9999 WHERE consumer = 'react'").await;

    place.db.sql("INSERT INTO tallylight.parked VALUES ('react', 7, 3, 'a subject', 'no')").await;
    assert!(reason().await[0].contains("set aside in slice 7"));
    place.db.sql("DELETE FROM tallylight.parked").await;

    let stop_in = Some(RebuildState::Folding);
    let options = RebuildOptions { stop_in, ..RebuildOptions::default() };
    place.store.rebuild(&options, &RebuildProgress::default()).await.unwrap();
    assert_eq!(reason().await[0], "the projections are being rebuilt");
    place.db.sql("UPDATE tallylight.rebuild SET state = 'aborted'").await;

    place.db.sql("UPDATE tallylight.slice_head SET last_at = now() + interval '300 days'").await;
    place.store.append_one(event(&subject_in(&place.store, 1), "far ahead")).await.unwrap();
    assert!(reason().await[0].contains("default partition"));
    place.store.ensure_partitions(soon()).await.unwrap();
    assert_eq!(reason().await, ["", ""]);

    let old = place.store.history_plan(Duration::from_hours(24 * 405)).await.unwrap();
    assert_eq!((&old[0].kept, old[1].kept.as_deref()), (&None, Some("not old enough")));
}

#[tokio::test]
async fn history_out_of_reach_is_an_error_that_names_the_segment() {
    let place = place().await;
    let subjects = place.fill().await;
    let before = place.log(&subjects).await;
    place.seal().await;
    let first: Segment = place.store.segments().await.unwrap().remove(0);

    // No place is configured.
    let blind = &place.db.store;
    for error in [
        blind.read_after(0, 0, Timestamp::default(), 5).await.unwrap_err(),
        blind.read_subject(&subjects[0], 0, 5).await.unwrap_err(),
        blind.read_event(0, 1).await.unwrap_err(),
    ] {
        let text = error.to_string();
        assert!(matches!(error, Error::NoHistory { .. }), "{text}");
        assert!(text.contains(&first.file) && text.contains("history.url"), "{text}");
    }
    // What is not sealed is read all the same.
    let later = blind.read_after(0, 1200, Timestamp::default(), 10_000).await.unwrap();
    assert_eq!(later, before[0][1200..]);

    // A byte of the file is wrong, in a block: another process, which has not read it before.
    let path = place.directory.path().join(&first.file);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[200] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let fresh = open(&place.db, place.directory.path().to_owned()).await;
    for error in [
        fresh.read_after(0, 0, Timestamp::default(), 5).await.unwrap_err(),
        fresh.verify_segment(&first).await.unwrap_err(),
    ] {
        let Error::Segment { file, source, .. } = error else { panic!("{error}") };
        assert!(matches!(*source, SegmentFault::Damage(_)) && file == first.file);
    }

    std::fs::remove_file(&path).unwrap();
    let error = fresh.read_after(0, 0, Timestamp::default(), 5).await.unwrap_err();
    assert!(error.to_string().contains(&first.file) && !error.is_transient(), "{error}");
    assert_eq!(fresh.missing_segments().await.unwrap(), [first.file.as_str()]);

    // A place that is not there is not made.
    let away = open(&place.db, place.directory.path().join("away")).await;
    assert!(away.read_after(0, 0, Timestamp::default(), 5).await.is_err());
    assert!(!place.directory.path().join("away").exists());
}

#[tokio::test]
async fn a_rebuild_reads_segments_and_table_as_one_log() {
    let place = place().await;
    let mut leases = leases(&place.db).await;
    let log = log();
    let (old, new) = log.split_at(log.len() / 2);
    append(&place.store, old).await;
    apply_all(&place.store, &mut leases, &HashSet::new()).await;
    place.age(400).await;
    append(&place.store, new).await;
    apply_all(&place.store, &mut leases, &HashSet::new()).await;
    let live = place.store.digest().await.unwrap();
    assert_eq!(rebuild(&place.store).await.events, log.len() as u64);
    let from_the_table = place.store.digest().await.unwrap();
    assert_eq!(from_the_table, live);

    assert_eq!(place.seal().await.events, old.len() as u64);
    let rebuilt = rebuild(&place.store).await;
    assert_eq!(rebuilt.events, log.len() as u64);
    assert_eq!(place.store.digest().await.unwrap(), live);

    let (options, progress) = (RebuildOptions::default(), RebuildProgress::default());
    let blind = place.db.store.rebuild(&options, &progress).await.unwrap_err();
    assert!(matches!(blind, Error::NoHistory { .. }), "{blind}");
    assert_eq!(place.store.digest().await.unwrap(), live);
    let plan = place.store.history_plan(AGE).await.unwrap();
    assert!(plan.is_empty());
}

#[tokio::test]
async fn a_hole_at_the_border_is_told() {
    let place = place().await;
    place.fill().await;
    place.seal().await;
    place.db.sql("DELETE FROM tallylight.segment WHERE slice = 3 AND from_position > 300").await;
    let read = place.store.read_after(3, 0, Timestamp::default(), 10_000).await.unwrap_err();
    assert!(matches!(read, Error::Hole { slice: 3, after: 300, found: 601 }), "{read}");
    // Short reads do not pass it either.
    let read = place.store.read_after(3, 300, Timestamp::default(), 5).await.unwrap_err();
    assert!(matches!(read, Error::Hole { after: 300, found: 601, .. }), "{read}");
    assert_eq!(place.store.history_holes().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_month_in_use_is_detached_when_its_reader_ends() {
    let place = place().await;
    place.fill().await;
    let due = place.due().await.remove(0);
    for slice in place.store.slices().slices() {
        place.store.seal_slice(&due, slice, soon(), &mut Sealed::default()).await.unwrap();
    }
    let mut reader = place.db.pool.begin().await.unwrap();
    sqlx::query("SELECT count(*) FROM tallylight.event").execute(&mut *reader).await.unwrap();
    let store = place.store.clone();
    let detaching = tokio::spawn(async move { store.detach_month(&due).await });
    place.db.blocked(1).await;
    // Whoever appends waits for one try at most.
    place.store.append_one(event(&subject_in(&place.store, 0), "meanwhile")).await.unwrap();
    reader.commit().await.unwrap();
    detaching.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn appends_and_readers_go_on_while_months_are_sealed() {
    let place = Arc::new(place().await);
    place.fill().await;
    let done = Arc::new(AtomicBool::new(false));
    let appending: Vec<_> = [0, 3, 9]
        .map(|slice| {
            let (place, done) = (Arc::clone(&place), Arc::clone(&done));
            tokio::spawn(async move {
                let subject = subject_in(&place.store, slice);
                let mut stored = Vec::new();
                while !done.load(Ordering::Relaxed) {
                    let new = place.store.append_one(event(&subject, "more")).await.unwrap();
                    stored.push(new.unwrap().position);
                    if slice != 9 {
                        let across = place.store.read_after(slice, 290, Timestamp::default(), 20);
                        assert_eq!(across.await.unwrap().len(), 20, "slice {slice}");
                    }
                }
                stored
            })
        })
        .into_iter()
        .collect();
    let sealed = place.seal().await;
    done.store(true, Ordering::Relaxed);
    assert_eq!(sealed.months, 2);
    for task in appending {
        let stored = task.await.unwrap();
        assert!(stored.windows(2).all(|pair| pair[0] + 1 == pair[1]));
    }
    assert_eq!(place.store.history_holes().await.unwrap(), [""; 0]);
}

const KEYS: &str = "SELECT count(*) FROM tallylight.event_key";

#[tokio::test]
async fn old_keys_are_removed_and_young_ones_stay() {
    let place = place().await;
    for days in [100, 0] {
        for slice in [0, 3] {
            let subject = subject_in(&place.store, slice);
            for _ in 0..5 {
                place.store.append_one(keyed(&subject, Uuid::now_v7())).await.unwrap();
            }
        }
        if days > 0 {
            place.age(days).await;
        }
    }
    let age = Duration::from_hours(24 * 90);
    let removed = place.store.forget_keys(age, soon()).await.unwrap();
    assert_eq!((removed.keys, removed.complete), (10, true));
    assert_eq!(place.db.number(KEYS).await, 10);
    assert_eq!(place.store.forget_keys(age, soon()).await.unwrap().keys, 0);
    assert!(!place.store.forget_keys(age, Instant::now()).await.unwrap().complete, "no time");
}

#[tokio::test]
async fn many_keys_are_removed_page_by_page() {
    let db = db().await;
    db.sql(
        "INSERT INTO tallylight.event_key SELECT 2, gen_random_uuid(), now() - interval '1 day' * (n % 2) * 60
           FROM generate_series(1, 25000) AS n",
    )
    .await;
    let removed = db.store.forget_keys(Duration::from_hours(24 * 30), soon()).await.unwrap();
    assert_eq!(removed.keys, 12_500);
    assert_eq!(db.number(KEYS).await, 12_500);
}

#[tokio::test]
async fn a_key_that_still_guards_stays_however_old() {
    let place = place().await;
    let subject = subject_in(&place.store, 3);
    for _ in 0..4 {
        place.store.append_one(keyed(&subject, Uuid::now_v7())).await.unwrap();
    }
    place.age(100).await;
    let age = Duration::from_hours(24 * 90);
    let kept = async |why: &str| {
        assert_eq!(place.store.forget_keys(age, soon()).await.unwrap().keys, 0, "{why}");
    };
    place.db.sql("UPDATE tallylight.checkpoint SET position = 2, recorded_at = 'epoch' WHERE consumer = 'react'").await;
    kept("its event is not applied").await;
    place.db.sql("UPDATE tallylight.checkpoint SET position = 4 WHERE consumer = 'react'").await;

    place.db.sql("INSERT INTO tallylight.parked VALUES ('react', 3, 1, 'a subject', 'no')").await;
    kept("its event may be set aside").await;
    place.db.sql("DELETE FROM tallylight.parked").await;

    place.db.sql(
        "INSERT INTO tallylight.job_dead (slice, id, kind, subject, args, priority, max_attempts, enqueued_at,
                                          attempt, errors, crashes, state)
         VALUES (9, gen_random_uuid(), 'forward', 'x', '{}', 1, 1, now() - interval '200 days', 1, 0, 3, 'quarantined')",
    ).await;
    kept("a forward that died may be retried").await;
    place.db.sql("DELETE FROM tallylight.job_dead").await;
    assert_eq!(place.store.forget_keys(age, soon()).await.unwrap().keys, 4);
}

#[tokio::test]
async fn keys_of_the_last_week_cannot_be_removed() {
    let db = db().await;
    let short = Duration::from_hours(7 * 24 - 1);
    let error = db.store.forget_keys(short, soon()).await.unwrap_err();
    assert!(matches!(&error, Error::Invalid { reason } if reason.contains("7 days")), "{error}");
    let called = sqlx::query(
        "SELECT tallylight.forget_keys(0::smallint, gen_random_uuid(), now() - interval '6 days', 10)",
    );
    assert!(called.execute(&db.pool).await.unwrap_err().to_string().contains("7 days"));
}
