//! The log: dense positions, order, idempotency, refusals.

use std::collections::HashSet;

use domain::event::NewEvent;
use domain::ids::{Subject, Timestamp};
use domain::slice::SliceCount;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use sqlx::{PgConnection, PgPool};
use store::{Config, Error, Store, Stored};
use uuid::Uuid;

use crate::support::{Db, db, digits, event, keyed, subject_in};

/// Appends, and names what was stored.
async fn appended(db: &Db, slice: i16, batch: Option<Uuid>, events: &[NewEvent]) -> Vec<Stored> {
    db.store.append(slice, batch, events).await.unwrap().stored(events).collect()
}

#[tokio::test]
async fn positions_are_dense_and_in_the_order_of_the_call() {
    let db = db().await;
    let subject = subject_in(&db.store, 3);
    let batch: Vec<_> = (0..5_u8).map(|n| event(&subject, [n])).collect();
    for expected in [1..=5, 6..=10] {
        let stored = appended(&db, 3, None, &batch).await;
        assert_eq!(
            stored.iter().map(|s| s.position).collect::<Vec<_>>(),
            expected.collect::<Vec<_>>()
        );
        let ids: Vec<Uuid> = batch.iter().map(|e| e.event_id).collect();
        assert_eq!(stored.iter().map(|s| s.event_id).collect::<Vec<_>>(), ids);
    }
    let read = db.store.read_after(3, 0, Timestamp::default(), 100).await.unwrap();
    let payloads: Vec<u8> = read.iter().map(|e| e.payload[0]).collect();
    assert_eq!(payloads, [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]);
    assert_eq!(db.head(3).await, 10);
    assert_eq!(db.head(4).await, 0, "another slice is not touched");
}

#[tokio::test]
async fn an_event_comes_back_as_it_went_in() {
    let db = db().await;
    let subject = subject_in(&db.store, 0);
    let bytes: Vec<u8> = (0..=255).collect();
    let meta = Some(json!({"content_type": "application/json", "n": [1, null]}));
    let mut sent = event(&subject, bytes);
    sent.meta = meta.clone().map(Into::into);
    sent.causation_id = Some(Uuid::now_v7());
    sent.correlation_id = Some(Uuid::now_v7());
    db.store.append_one(sent.clone()).await.unwrap().unwrap();
    let read = db.store.read_event(0, 1).await.unwrap().unwrap();
    assert_eq!(read.payload, sent.payload);
    assert_eq!((read.event_id, read.subject), (sent.event_id, sent.subject));
    assert_eq!((read.event_type, read.schema_version), (sent.event_type, sent.schema_version));
    assert_eq!((read.received_at, read.meta), (sent.received_at, meta));
    assert_eq!((read.causation_id, read.correlation_id), (sent.causation_id, sent.correlation_id));
    for missing in [0, 2, -1, i64::MIN, i64::MAX] {
        assert_eq!(db.store.read_event(0, missing).await.unwrap(), None, "{missing}");
    }
}

#[tokio::test]
async fn a_large_payload_is_stored() {
    let db = db().await;
    let subject = subject_in(&db.store, 0);
    let mut payload = vec![0; 8 << 20];
    rand::rngs::SmallRng::seed_from_u64(1).fill(&mut payload[..]);
    db.store.append_one(event(&subject, payload.clone())).await.unwrap();
    assert!(db.store.read_event(0, 1).await.unwrap().unwrap().payload == payload);
}

#[tokio::test]
async fn an_empty_batch_does_nothing() {
    let db = db().await;
    let batch = Some(Uuid::now_v7());
    assert_eq!(appended(&db, 0, batch, &[]).await, []);
    let subject = subject_in(&db.store, 0);
    assert_eq!(appended(&db, 0, batch, &[event(&subject, "")]).await.len(), 1);
}

#[tokio::test]
async fn the_first_event_of_a_key_is_stored_and_no_other() {
    let db = db().await;
    let subject = subject_in(&db.store, 1);
    let (a, b) = (Uuid::now_v7(), Uuid::now_v7());
    let mut batch = vec![keyed(&subject, a), event(&subject, "plain"), keyed(&subject, a)];
    batch[2].payload = b"second carrier".to_vec();
    let stored = appended(&db, 1, None, &batch).await;
    assert_eq!(stored.iter().map(|s| s.position).collect::<Vec<_>>(), [1, 2]);

    let again = [keyed(&subject, b), keyed(&subject, a), event(&subject, "plain")];
    let stored = appended(&db, 1, None, &again).await;
    let ids: Vec<Uuid> = stored.iter().map(|s| s.event_id).collect();
    assert_eq!(ids, [again[0].event_id, again[2].event_id], "the key of the second was known");
    assert_eq!(db.store.append_one(keyed(&subject, b)).await.unwrap(), None);

    let read = db.store.read_subject(&subject, 0, 10).await.unwrap();
    assert_eq!(read.len(), 4);
    assert_eq!(read[0].payload, b"{}");
    assert_eq!(db.head(1).await, 4);
}

#[tokio::test]
async fn one_key_from_many_at_once_is_stored_once() {
    let db = db().await;
    let subject = subject_in(&db.store, 2);
    for _ in 0..10 {
        let key = Uuid::now_v7();
        let tries: Vec<_> = (0..4)
            .map(|_| {
                let (store, event) = (db.store.clone(), keyed(&subject, key));
                tokio::spawn(async move { store.append_one(event).await.unwrap().is_some() })
            })
            .collect();
        let mut stored = 0;
        for one in tries {
            stored += i32::from(one.await.unwrap());
        }
        assert_eq!(stored, 1);
    }
    assert_eq!(db.head(2).await, 10);
}

#[tokio::test]
async fn a_batch_that_is_sent_again_stores_nothing() {
    let db = db().await;
    let subject = subject_in(&db.store, 2);
    let batch = Some(Uuid::now_v7());
    let events = [event(&subject, "1"), event(&subject, "2")];
    let tries: Vec<_> = (0..4)
        .map(|_| {
            let (store, events) = (db.store.clone(), events.clone());
            tokio::spawn(async move { store.append(2, batch, &events).await.unwrap().after })
        })
        .collect();
    let mut stored = Vec::new();
    for one in tries {
        stored.extend(one.await.unwrap());
    }
    assert_eq!(stored, [0], "one of them stored it");
    assert_eq!(appended(&db, 2, batch, &events).await, []);
    assert_eq!(db.head(2).await, 2);
}

#[tokio::test]
async fn what_the_database_refuses_stores_nothing() {
    let db = db().await;
    let good = subject_in(&db.store, 0);
    let bad = (0..).map(|n| Subject::from_stored(format!("a\0{n}")));
    let bad = bad.into_iter().find(|s| db.store.slice_of(s) == 0).unwrap();
    let batch = [event(&good, ""), event(&bad, "")];
    let error = db.store.append(0, Some(Uuid::now_v7()), &batch).await.unwrap_err();
    assert!(matches!(error, Error::Data { .. }), "{error}");
    assert!(!error.is_transient());

    // Larger than an entry of the index over subjects.
    let long = digits(9_000);
    let error = db.store.append_one(event(&Subject::from_stored(long), "")).await.unwrap_err();
    assert!(matches!(error, Error::Data { .. }), "{error}");
    assert_eq!(db.number("SELECT count(*) FROM tallylight.event").await, 0);
    assert_eq!(db.number("SELECT count(*) FROM tallylight.event_key").await, 0);
    assert_eq!(db.head(0).await, 0);
}

#[tokio::test]
async fn an_event_of_another_slice_is_refused() {
    let db = db().await;
    let subject = subject_in(&db.store, 5);
    let error = db.store.append(6, None, &[event(&subject, "")]).await.unwrap_err();
    let Error::Data { source } = &error else { panic!("{error:?}") };
    assert!(source.to_string().contains("belongs to slice 5, not 6"), "{source}");
}

#[tokio::test]
async fn a_store_from_known_facts_appends_to_that_installation_only() {
    let db = db().await;
    let subject = subject_in(&db.store, 0);
    let (config, slices) = (Config::new(db.url.as_str()), db.store.slices());
    let known = Store::known(&config, db.store.installation(), slices).unwrap();
    known.append_one(event(&subject, "")).await.unwrap().unwrap();
    let other = Store::known(&config, Uuid::now_v7(), slices).unwrap();
    let error = other.append_one(event(&subject, "")).await.unwrap_err();
    assert!(matches!(error, Error::OtherInstallation { .. }), "{error}");
    assert_eq!(db.head(0).await, 1);
}

#[tokio::test]
async fn an_unknown_slice_is_refused() {
    let db = db().await;
    let mut connection = db.pool.acquire().await.unwrap();
    for slice in [16, -1] {
        let error = raw_append(&mut connection, slice, 1).await.unwrap_err();
        assert!(error.to_string().contains("does not exist"), "{error}");
        assert!(matches!(Error::from(error), Error::Invalid { .. }));
    }
}

/// Appends as another program does.
async fn raw_append(on: &mut PgConnection, slice: i16, count: i32) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT count(*) FROM (SELECT array_agg(gen_random_uuid()) AS ids, array_agg('s/' || n) AS subjects,
                array_agg('Tested'::text) AS types, array_agg(1::smallint) AS versions,
                array_agg(now()) AS times, array_agg(NULL::uuid) AS none, array_agg(NULL::json) AS metas,
                array_agg('x'::bytea) AS payloads FROM generate_series(1, $2) AS n) AS e,
         LATERAL tallylight.append($1, NULL, ids, subjects, types, versions, NULL, times, none, none, metas, payloads)",
    )
    .bind(slice)
    .bind(count)
    .fetch_one(on)
    .await
}

/// One appender: batches of several sizes on four slices, one in four rolled back.
async fn append_and_roll_back(pool: PgPool, seed: u64) {
    let mut rng = rand::rngs::SmallRng::seed_from_u64(seed);
    for _ in 0..60 {
        let mut tx = pool.begin().await.unwrap();
        raw_append(&mut tx, rng.random_range(0..4), rng.random_range(1..5)).await.unwrap();
        if rng.random_bool(0.25) {
            tx.rollback().await.unwrap();
        } else {
            tx.commit().await.unwrap();
        }
    }
}

/// In any snapshot: as many events as the head says, numbered from 1, recorded in order.
const DAMAGED: &str = "
    SELECT count(*) FROM tallylight.slice_head h
      LEFT JOIN (SELECT slice, count(*) AS events, min(position) AS first, max(position) AS last,
                        bool_or(recorded_at < previous) AS fell, max(recorded_at) AS last_at
                   FROM (SELECT *, lag(recorded_at) OVER (PARTITION BY slice ORDER BY position) AS previous
                           FROM tallylight.event) AS e
                  GROUP BY slice) AS e USING (slice)
     WHERE h.position <> coalesce(e.events, 0) OR h.position <> coalesce(e.last, 0)
        OR e.first <> 1 OR e.fell OR h.last_at IS DISTINCT FROM coalesce(e.last_at, 'epoch')";

#[tokio::test]
async fn no_snapshot_shows_a_hole_whoever_rolls_back() {
    let db = db().await;
    let writers: Vec<_> =
        (0..8).map(|seed| tokio::spawn(append_and_roll_back(db.pool.clone(), seed))).collect();
    let mut looks = 0;
    while looks < 20 || !writers.iter().all(tokio::task::JoinHandle::is_finished) {
        assert_eq!(db.number(DAMAGED).await, 0, "look {looks}");
        looks += 1;
    }
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(db.number(DAMAGED).await, 0);
    let total = db.number("SELECT sum(position)::bigint FROM tallylight.slice_head").await;
    assert!(total > 300, "{total}");
    for slice in 0..4 {
        let events = db.store.read_after(slice, 0, Timestamp::default(), 10_000).await.unwrap();
        assert_eq!(i64::try_from(events.len()).unwrap(), db.head(slice).await);
    }
}

#[tokio::test]
async fn recorded_at_does_not_fall_when_the_clock_does() {
    let db = db().await;
    db.sql("UPDATE tallylight.slice_head SET last_at = now() + interval '1 hour' WHERE slice = 7")
        .await;
    let subject = subject_in(&db.store, 7);
    db.store.append_one(event(&subject, "1")).await.unwrap();
    db.store.append_one(event(&subject, "2")).await.unwrap();
    let early =
        "SELECT count(*) FROM tallylight.event WHERE recorded_at < now() + interval '50 minutes'";
    assert_eq!(db.number(early).await, 0);
}

#[tokio::test]
async fn a_missing_position_stops_the_reader() {
    let db = db().await;
    let subject = subject_in(&db.store, 0);
    for _ in 0..3 {
        db.store.append_one(event(&subject, "")).await.unwrap();
    }
    db.sql("ALTER TABLE tallylight.event DISABLE TRIGGER event_append_only").await;
    db.sql("DELETE FROM tallylight.event WHERE slice = 0 AND position = 2").await;
    let error = db.store.read_after(0, 0, Timestamp::default(), 10).await.unwrap_err();
    assert!(matches!(error, Error::Hole { slice: 0, after: 1, found: 3 }), "{error}");
}

#[tokio::test]
async fn stored_events_cannot_be_changed_even_by_the_owner() {
    let db = db().await;
    let subject = subject_in(&db.store, 0);
    db.store.append_one(event(&subject, "")).await.unwrap();
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT 'event' UNION SELECT inhrelid::regclass::text FROM pg_inherits
          WHERE inhparent = 'tallylight.event'::regclass",
    )
    .fetch_all(&db.pool)
    .await
    .unwrap();
    assert!(tables.len() >= 5, "{tables:?}");
    let filled: String =
        sqlx::query_scalar("SELECT tableoid::regclass::text FROM tallylight.event")
            .fetch_one(&db.pool)
            .await
            .unwrap();
    for table in tables {
        let table = format!("tallylight.{}", table.trim_start_matches("tallylight."));
        let mut refused = vec![format!("TRUNCATE {table} CASCADE")];
        if table == "tallylight.event" || table == filled {
            refused.push(format!("UPDATE {table} SET payload = 'forged'"));
            refused.push(format!("DELETE FROM {table}"));
            refused
                .push(format!("UPDATE {table} SET recorded_at = recorded_at + interval '1 month'"));
        }
        for statement in refused {
            let done = sqlx::query(sqlx::AssertSqlSafe(statement.clone())).execute(&db.pool).await;
            let error = done.expect_err(&statement).to_string();
            assert!(error.contains("append-only"), "{statement}: {error}");
        }
    }
    assert_eq!(db.number("SELECT count(*) FROM tallylight.event").await, 1);
}

#[tokio::test]
async fn slices_are_the_same_in_sql_and_in_rust() {
    let db = db().await;
    let mut runner = TestRunner::deterministic();
    let texts = proptest::collection::vec("\\PC{0,40}", 300);
    let mut subjects: Vec<String> = texts.new_tree(&mut runner).unwrap().current();
    let known = ["", "gcore-main/stream/320423", "gcore-main/video/803111", "quelle/stream/ä"];
    subjects.extend(known.map(str::to_owned));
    let counts = (1_i16..=4096).new_tree(&mut runner).unwrap().current();
    for count in [1, 16, 256, 4096, counts] {
        let by_sql: Vec<i16> = sqlx::query_scalar(
            "SELECT tallylight.slice_of(s, $2) FROM unnest($1::text[]) WITH ORDINALITY AS u (s, n) ORDER BY n",
        )
        .bind(&subjects)
        .bind(count)
        .fetch_all(&db.pool)
        .await
        .unwrap();
        let slices = SliceCount::new(count).unwrap();
        let by_rust: Vec<i16> =
            subjects.iter().map(|s| slices.slice_of(&Subject::from_stored(s.clone()))).collect();
        assert_eq!(by_sql, by_rust, "of {count}");
    }
    let vectors = [(known[0], 0), (known[1], 2), (known[2], 10), (known[3], 13)];
    for (subject, slice) in vectors {
        assert_eq!(db.store.slice_of(&Subject::from_stored(subject.to_owned())), slice);
    }
}

#[tokio::test]
async fn subjects_are_read_apart() {
    let db = db().await;
    let (a, b) = (subject_in(&db.store, 1), subject_in(&db.store, 1));
    for n in 0..6_u8 {
        let of = if n % 2 == 0 { &a } else { &b };
        db.store.append_one(event(of, [n])).await.unwrap();
    }
    let read = db.store.read_subject(&b, 2, 10).await.unwrap();
    assert_eq!(read.iter().map(|e| e.payload[0]).collect::<Vec<_>>(), [3, 5]);
    let subjects: HashSet<_> = read.into_iter().map(|e| e.subject).collect();
    assert_eq!(subjects, HashSet::from([b]));
}
