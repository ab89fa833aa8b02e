//! Partitions of the log: made ahead, by whoever comes first, and stray events moved home.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use domain::ids::Timestamp;

use crate::support::{db, event, subject_in, until};

const MONTHS: &str =
    "SELECT count(*) FROM pg_inherits WHERE inhparent = 'tallylight.event'::regclass
                         AND inhrelid <> 'tallylight.event_default'::regclass";

/// Without a trigger of its own, a partition could be truncated.
const UNGUARDED: &str =
    "SELECT count(*) FROM pg_inherits i WHERE inhparent = 'tallylight.event'::regclass
    AND (SELECT count(*) FROM pg_trigger t WHERE t.tgrelid = i.inhrelid AND NOT tgisinternal
           OR t.tgrelid = i.inhrelid AND tgparentid <> 0) < 2";

#[tokio::test]
async fn months_are_made_ahead_and_once() {
    let db = db().await;
    assert_eq!(db.number(MONTHS).await, 4, "this month and three more");
    assert_eq!(db.store.ensure_partitions().await.unwrap(), 0);
    assert_eq!(db.number("SELECT tallylight.ensure_partitions(5)::bigint").await, 2);
    assert_eq!(db.number(MONTHS).await, 6);
    assert_eq!(db.number(UNGUARDED).await, 0);
}

#[tokio::test]
async fn many_at_once_make_each_month_once() {
    let db = db().await;
    // None gets to the end before all have begun.
    let mut gate = db.pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE tallylight.event IN SHARE UPDATE EXCLUSIVE MODE")
        .execute(&mut *gate)
        .await
        .unwrap();
    let calls: Vec<_> = (0..4)
        .map(|_| {
            let pool = db.pool.clone();
            tokio::spawn(async move {
                sqlx::query_scalar::<_, i32>("SELECT tallylight.ensure_partitions(9)")
                    .fetch_one(&pool)
                    .await
                    .unwrap()
            })
        })
        .collect();
    db.blocked(4).await;
    gate.rollback().await.unwrap();
    let mut made = 0;
    for call in calls {
        made += call.await.unwrap();
    }
    assert_eq!(made, 6);
}

#[tokio::test]
async fn bounds_are_months_in_utc_whatever_the_callers_zone() {
    let db = db().await;
    sqlx::raw_sql("SET timezone = 'Pacific/Auckland'; SELECT tallylight.ensure_partitions(14)")
        .execute(&mut *db.pool.acquire().await.unwrap())
        .await
        .unwrap();
    let bad = db
        .number(
            "SELECT count(*) FROM pg_class c JOIN pg_inherits i ON i.inhrelid = c.oid
              WHERE i.inhparent = 'tallylight.event'::regclass AND c.relname <> 'event_default'
                AND pg_get_expr(c.relpartbound, c.oid)
                    NOT LIKE format('FOR VALUES FROM (''%s-01 00:00:00+00'')%%', replace(substr(c.relname, 7), '_', '-'))",
        )
        .await;
    assert_eq!(bad, 0);
}

#[tokio::test]
async fn events_that_met_no_month_are_moved_to_one() {
    let db = db().await;
    let subject = subject_in(&db.store, 0);
    db.store.append_one(event(&subject, "now")).await.unwrap();
    db.sql(
        "UPDATE tallylight.slice_head SET last_at = now() + interval '300 days' WHERE slice = 0",
    )
    .await;
    db.store.append_one(event(&subject, "far ahead")).await.unwrap();
    assert_eq!(db.store.health_facts().await.unwrap().default_partition_rows, 1);

    assert_eq!(db.store.ensure_partitions().await.unwrap(), 1);
    assert_eq!(db.store.health_facts().await.unwrap().default_partition_rows, 0);
    assert_eq!(db.number(UNGUARDED).await, 0);
    let read = db.store.read_after(0, 0, Timestamp::default(), 10).await.unwrap();
    assert_eq!(
        read.iter().map(|e| e.payload.as_slice()).collect::<Vec<_>>(),
        [&b"now"[..], b"far ahead"]
    );
    // The default partition is in its place again.
    db.sql(
        "UPDATE tallylight.slice_head SET last_at = now() + interval '900 days' WHERE slice = 0",
    )
    .await;
    db.store.append_one(event(&subject, "farther")).await.unwrap();
    assert_eq!(db.store.health_facts().await.unwrap().default_partition_rows, 1);
    let refused = sqlx::query("DELETE FROM tallylight.event_default").execute(&db.pool).await;
    assert!(refused.unwrap_err().to_string().contains("append-only"));
}

#[tokio::test]
async fn appends_go_on_while_a_reader_delays_a_month() {
    let db = db().await;
    let mut reader = db.pool.begin().await.unwrap();
    sqlx::query("SELECT count(*) FROM tallylight.event").execute(&mut *reader).await.unwrap();
    let store = db.store.clone();
    let making = db.pool.clone();
    let month = tokio::spawn(async move {
        sqlx::query("SELECT tallylight.ensure_partitions(4)").execute(&making).await.map(|_| ())
    });
    db.blocked(1).await;
    store.append_one(event(&subject_in(&store, 0), "meanwhile")).await.unwrap();
    reader.commit().await.unwrap();
    month.await.unwrap().unwrap();
    assert_eq!(db.number(MONTHS).await, 5);
}

#[tokio::test]
async fn a_default_partition_that_fills_is_emptied_while_appends_go_on() {
    let db = db().await;
    let ahead = "UPDATE tallylight.slice_head SET last_at = now() + slice * interval '31 days' + interval '200 days'";
    db.sql(ahead).await;
    let done = Arc::new(AtomicBool::new(false));
    let appending: Vec<_> = (0..4)
        .map(|slice| {
            let (store, done) = (db.store.clone(), Arc::clone(&done));
            tokio::spawn(async move {
                let subject = subject_in(&store, slice);
                let mut count = 0;
                while !done.load(Ordering::Relaxed) {
                    store.append_one(event(&subject, "far ahead")).await.unwrap();
                    count += 1;
                }
                count
            })
        })
        .collect();
    for slice in 0..4 {
        until(async || (db.head(slice).await > 20).then_some(())).await;
    }
    assert!(db.store.measure_history().await.unwrap() > 80, "told");
    // Each makes the months of the events that it finds; slices come to theirs at different times.
    db.store.ensure_partitions().await.unwrap();
    let after = db.head(0).await;
    until(async || (db.head(0).await > after + 20).then_some(())).await;
    done.store(true, Ordering::Relaxed);
    db.store.ensure_partitions().await.unwrap();
    assert_eq!(db.store.measure_history().await.unwrap(), 0);
    for (slice, task) in (0..4).zip(appending) {
        let count: usize = task.await.unwrap();
        let read = db.store.read_after(slice, 0, Timestamp::default(), 1_000_000).await.unwrap();
        assert_eq!(read.len(), count, "slice {slice}");
    }
}

#[tokio::test]
async fn a_new_month_begins_under_load() {
    let db = db().await;
    let done = Arc::new(AtomicBool::new(false));
    let appending: Vec<_> = (0..3)
        .map(|slice| {
            let (store, done) = (db.store.clone(), Arc::clone(&done));
            tokio::spawn(async move {
                let subject = subject_in(&store, slice);
                while !done.load(Ordering::Relaxed) {
                    store.append_one(event(&subject, "on")).await.unwrap();
                }
            })
        })
        .collect();
    for month in ["0", "1", "2"] {
        let goal = db.head(2).await + 20;
        until(async || (db.head(2).await > goal).then_some(())).await;
        // The clock of a slice, set into the next month: the database's own cannot be.
        let next = format!(
            "UPDATE tallylight.slice_head
                SET last_at = date_trunc('month', now()) + interval '1 month' * ({month} + 1)"
        );
        sqlx::query(sqlx::AssertSqlSafe(next)).execute(&db.pool).await.unwrap();
    }
    let goal = db.head(2).await + 20;
    until(async || (db.head(2).await > goal).then_some(())).await;
    done.store(true, Ordering::Relaxed);
    for task in appending {
        task.await.unwrap();
    }
    assert_eq!(db.number("SELECT count(DISTINCT tableoid) FROM tallylight.event").await, 4);
    assert_eq!(db.store.measure_history().await.unwrap(), 0);
    for slice in 0..3 {
        let read = db.store.read_after(slice, 0, Timestamp::default(), 1_000_000).await.unwrap();
        assert_eq!(read.len() as u64, db.head(slice).await.unsigned_abs());
    }
}
