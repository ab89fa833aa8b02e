//! Appends to several slices in one transaction: each slice as if it were alone.

use std::collections::BTreeMap;

use domain::event::NewEvent;
use domain::ids::{Subject, Timestamp};
use store::{AppendedAll, Error, Store};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::support::{Db, db, event, keyed, subject_in};

/// Payloads of a slice's log, read where positions are dense.
async fn log(store: &Store, slice: i16) -> Vec<String> {
    let events = store.read_after(slice, 0, Timestamp::default(), 10_000).await.unwrap();
    events.into_iter().map(|event| String::from_utf8(event.payload).unwrap()).collect()
}

/// A subject in each of the first `count` slices.
fn subjects(db: &Db, count: i16) -> Vec<Subject> {
    (0..count).map(|slice| subject_in(&db.store, slice)).collect()
}

async fn append(db: &Db, batch: Uuid, events: &[NewEvent]) -> AppendedAll {
    db.store.append_all(batch, events).await.unwrap()
}

#[tokio::test]
async fn each_slice_gets_its_events_in_their_order() {
    let db = db().await;
    let of = subjects(&db, 3);
    db.store.append_one(event(&of[1], "before")).await.unwrap();
    let events = [(2, "a"), (0, "b"), (2, "c"), (1, "d"), (2, "e"), (0, "f")]
        .map(|(slice, payload): (usize, _)| event(&of[slice], payload));
    let all = append(&db, Uuid::now_v7(), &events).await;
    assert_eq!(all, AppendedAll { slices: vec![0, 1, 2], stored: 6, skipped: vec![] });
    assert_eq!(log(&db.store, 0).await, ["b", "f"]);
    assert_eq!(log(&db.store, 1).await, ["before", "d"]);
    assert_eq!(log(&db.store, 2).await, ["a", "c", "e"]);
    for (slice, head) in [(0, 2), (1, 2), (2, 3), (3, 0)] {
        assert_eq!(db.head(slice).await, head);
    }
}

#[tokio::test]
async fn what_is_sent_again_stores_nothing_even_where_only_one_slice_had_stored_it() {
    let db = db().await;
    let of = subjects(&db, 3);
    let events: Vec<NewEvent> = of.iter().map(|subject| event(subject, "1")).collect();
    let batch = Uuid::now_v7();
    // As on Citus, or before an upgrade: one slice by a call of its own.
    db.store.append(1, Some(batch), &events[1..2]).await.unwrap();
    assert_eq!(append(&db, batch, &events).await.stored, 2);
    assert_eq!(append(&db, batch, &events).await.stored, 0);
    let again = db.store.append(2, Some(batch), &events[2..]).await.unwrap();
    assert_eq!(again.after, None);
    for slice in 0..3 {
        assert_eq!(log(&db.store, slice).await, ["1"]);
    }
}

#[tokio::test]
async fn a_key_is_stored_once_in_its_slice_and_told_by_its_number() {
    let db = db().await;
    let of = subjects(&db, 2);
    let [known, twice, free] = [(); 3].map(|()| Uuid::now_v7());
    db.store.append_one(keyed(&of[1], known)).await.unwrap();
    let events = [
        keyed(&of[1], known),
        // The same key in another slice is another key.
        keyed(&of[0], known),
        keyed(&of[0], twice),
        event(&of[1], "plain"),
        keyed(&of[0], twice),
        keyed(&of[1], free),
    ];
    let all = append(&db, Uuid::now_v7(), &events).await;
    assert_eq!(all, AppendedAll { slices: vec![0, 1], stored: 4, skipped: vec![0, 4] });
    assert_eq!((db.head(0).await, db.head(1).await), (2, 3));
    assert_eq!(log(&db.store, 1).await, ["{}", "plain", "{}"]);
    let all = append(&db, Uuid::now_v7(), &events[..3]).await;
    assert_eq!(all, AppendedAll { slices: vec![0, 1], stored: 0, skipped: vec![0, 1, 2] });
    assert_eq!((db.head(0).await, db.head(1).await), (2, 3));
}

#[tokio::test]
async fn keys_of_a_slice_that_had_stored_the_batch_are_not_told_as_known() {
    let db = db().await;
    let of = subjects(&db, 2);
    let events = [keyed(&of[0], Uuid::now_v7()), keyed(&of[1], Uuid::now_v7())];
    let batch = Uuid::now_v7();
    db.store.append(0, Some(batch), &events[..1]).await.unwrap();
    let all = append(&db, batch, &events).await;
    assert_eq!(all, AppendedAll { slices: vec![0, 1], stored: 1, skipped: vec![] });
}

#[tokio::test]
async fn one_refused_value_stores_nothing_anywhere() {
    let db = db().await;
    let of = subjects(&db, 2);
    let long = Subject::from_stored(crate::support::digits(9_000));
    let events = [event(&of[0], ""), event(&long, ""), event(&of[1], "")];
    let error = db.store.append_all(Uuid::now_v7(), &events).await.unwrap_err();
    assert!(matches!(error, Error::Data { .. }), "{error}");
    assert_eq!(db.number("SELECT count(*) FROM tallylight.event").await, 0);
    assert_eq!(db.number("SELECT count(*) FROM tallylight.event_key").await, 0);
}

#[tokio::test]
async fn calls_that_share_slices_wait_for_each_other_and_never_in_a_circle() {
    let db = db().await;
    let of = subjects(&db, 6);
    let mut calls = JoinSet::new();
    for n in 0..60_usize {
        let store = db.store.clone();
        // Slices of any order and number, single ones too.
        let chosen: Vec<Subject> =
            (0..=n % 5).map(|k| of[(n * 7 + k * 5) % of.len()].clone()).collect();
        calls.spawn(async move {
            let events: Vec<NewEvent> =
                chosen.iter().map(|subject| event(subject, n.to_string())).collect();
            let batch = Uuid::now_v7();
            let (one, two) =
                tokio::join!(store.append_all(batch, &events), store.append_all(batch, &events));
            let mut counts = BTreeMap::<i16, usize>::new();
            for subject in &chosen {
                *counts.entry(store.slice_of(subject)).or_default() += 1;
            }
            assert_eq!(one.unwrap().stored + two.unwrap().stored, events.len());
            counts
        });
    }
    let mut expected = BTreeMap::<i16, usize>::new();
    for counts in calls.join_all().await {
        for (slice, n) in counts {
            *expected.entry(slice).or_default() += n;
        }
    }
    for (slice, count) in expected {
        assert_eq!(log(&db.store, slice).await.len(), count);
        assert_eq!(usize::try_from(db.head(slice).await).unwrap(), count);
    }
}

#[tokio::test]
async fn positions_are_dense_whatever_counts_are_sent() {
    let db = db().await;
    let call = |slices: &str, counts: &str| {
        format!(
            "SELECT tallylight.append_batches({slices}::smallint[],
               ARRAY(SELECT gen_random_uuid() FROM unnest({slices}::smallint[])), {counts}::int[],
               ARRAY[gen_random_uuid(), gen_random_uuid()], '{{a,b}}', '{{T,T}}', '{{1,1}}', NULL,
               ARRAY[now(), now()], NULL, NULL, NULL, '{{a,b}}')"
        )
    };
    for (slices, counts, said) in [
        ("'{0,1}'", "'{1,2}'", "counts"),
        ("'{0,1}'", "'{2,0}'", "counts"),
        ("'{0,1}'", "'{3,-1}'", "counts"),
        ("'{0,1}'", "'{2}'", "counts"),
        ("'{0,1}'", "NULL", "counts"),
        ("'{1,0}'", "'{1,1}'", "ascending"),
        ("'{0,0}'", "'{1,1}'", "ascending"),
        ("'{0,16}'", "'{1,1}'", "ascending"),
    ] {
        let call = sqlx::AssertSqlSafe(call(slices, counts));
        let error = sqlx::raw_sql(call).execute(&db.pool).await.unwrap_err();
        assert!(error.to_string().contains(said), "{slices} {counts}: {error}");
    }
    sqlx::raw_sql(sqlx::AssertSqlSafe(call("'{0,1}'", "'{1,1}'"))).execute(&db.pool).await.unwrap();
    assert_eq!((db.head(0).await, db.head(1).await), (1, 1));
}

#[tokio::test]
async fn where_slices_lie_on_several_nodes_each_has_its_own_call() {
    let db = db().await;
    let of = subjects(&db, 3);
    // What Citus answers to a lock on rows of several nodes.
    sqlx::raw_sql(
        "CREATE OR REPLACE FUNCTION tallylight.append_batches(
           p_slices smallint[], p_batch uuid[], p_count int[], p_event_id uuid[], p_subject text[],
           p_type text[], p_version smallint[], p_key uuid[], p_received timestamptz[],
           p_causation uuid[], p_correlation uuid[], p_meta text[], p_payload bytea[],
           OUT after_position bigint[], OUT skipped int[])
         LANGUAGE plpgsql AS $$ BEGIN
           RAISE feature_not_supported USING MESSAGE = 'could not run distributed query'; END $$",
    )
    .execute(&db.pool)
    .await
    .unwrap();
    let key = Uuid::now_v7();
    let events = [event(&of[2], "a"), keyed(&of[0], key), event(&of[2], "b"), keyed(&of[0], key)];
    let batch = Uuid::now_v7();
    let all = append(&db, batch, &events).await;
    assert_eq!(all, AppendedAll { slices: vec![0, 2], stored: 3, skipped: vec![3] });
    assert_eq!(append(&db, batch, &events).await.stored, 0);
    assert_eq!(log(&db.store, 2).await, ["a", "b"]);
}
