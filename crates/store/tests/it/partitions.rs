//! Partitions of the log: made ahead, by whoever comes first, and stray events moved home.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use domain::event::NewEvent;
use domain::ids::Timestamp;
use store::{Error, Partitions, Store};
use uuid::Uuid;

use crate::support::{Db, db, event, subject_in, until};

const MONTHS: &str =
    "SELECT count(*) FROM pg_inherits WHERE inhparent = 'tallylight.event'::regclass
                         AND inhrelid <> 'tallylight.event_default'::regclass";

/// Without a trigger of its own, a partition could be truncated.
const UNGUARDED: &str =
    "SELECT count(*) FROM pg_inherits i WHERE inhparent = 'tallylight.event'::regclass
    AND (SELECT count(*) FROM pg_trigger t WHERE t.tgrelid = i.inhrelid AND NOT tgisinternal
           OR t.tgrelid = i.inhrelid AND tgparentid <> 0) < 2";

/// Makes all that is missing.
async fn ensure(db: &Db) -> Partitions {
    let done = db.store.ensure_partitions(Instant::now() + Duration::from_mins(10)).await.unwrap();
    assert!(done.is_complete);
    done
}

/// Sets the clock of slices 0 to 3 far ahead, each to a month of its own.
const FAR_AHEAD: &str = "UPDATE tallylight.slice_head
    SET last_at = now() + slice * interval '31 days' + interval '200 days' WHERE slice < 4";

/// Appends events to slices 0 to 3.
async fn append(db: &Db, count: usize) {
    for slice in 0..4 {
        let event = event(&subject_in(&db.store, slice), "far ahead");
        db.store.append(slice, None, &vec![event; count]).await.unwrap();
    }
}

/// All of slices 0 to 3, which must be dense.
async fn count(db: &Db) -> usize {
    let mut count = 0;
    for slice in 0..4 {
        count +=
            db.store.read_after(slice, 0, Timestamp::default(), 1_000_000).await.unwrap().len();
    }
    count
}

#[tokio::test]
async fn appends_go_on_while_stray_events_are_copied() {
    let db = db().await;
    db.sql(FAR_AHEAD).await;
    append(&db, 10).await;
    // A run that was killed after its first step.
    assert_eq!(db.number("SELECT tallylight.copy_strays(3, 7)").await, 7);
    assert_eq!(count(&db).await, 40, "a copy is no part of the log");
    // The next one stands still in the middle of copying.
    for statement in [
        "CREATE TABLE public.gate ()",
        "INSERT INTO public.gate DEFAULT VALUES",
        "CREATE FUNCTION public.wait() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN WHILE EXISTS (SELECT FROM public.gate) LOOP PERFORM pg_sleep(0.01); END LOOP; RETURN NULL; END $$",
        "CREATE TRIGGER wait BEFORE INSERT ON tallylight.event_stray EXECUTE FUNCTION public.wait()",
    ] {
        db.sql(statement).await;
    }
    let store = db.store.clone();
    let moving = tokio::spawn(async move {
        store.ensure_partitions(Instant::now() + Duration::from_mins(10)).await
    });
    until(async || {
        let asleep = "SELECT count(*) FROM pg_stat_activity
                       WHERE datname = current_database() AND wait_event = 'PgSleep'";
        (db.number(asleep).await > 0).then_some(())
    })
    .await;
    append(&db, 10).await;
    assert_eq!(count(&db).await, 80, "read, too");
    db.sql("DELETE FROM public.gate").await;
    let done = moving.await.unwrap().unwrap();
    assert!(done.is_complete && done.made >= 4, "{done:?}");
    assert_eq!(count(&db).await, 80);
    assert_eq!(db.number("SELECT count(*) FROM tallylight.event_default").await, 0);
    assert_eq!(db.number(UNGUARDED).await, 0);
    assert_eq!(db.number("SELECT count(*) FROM pg_class WHERE relname = 'event_stray'").await, 0);
}

#[tokio::test]
async fn no_more_than_a_few_stray_events_are_copied_while_the_log_waits() {
    let db = db().await;
    db.sql(FAR_AHEAD).await;
    append(&db, 10).await;
    assert_eq!(db.number("SELECT tallylight.copy_strays(3, 1)").await, 1);
    let attach = |most: i32| {
        let pool = db.pool.clone();
        async move {
            let attach =
                sqlx::query_scalar::<_, Option<i32>>("SELECT tallylight.attach_strays($1)");
            attach.bind(most).fetch_one(&pool).await.unwrap()
        }
    };
    assert_eq!(attach(5).await, None, "39 are left");
    assert_eq!(db.number("SELECT count(*) FROM tallylight.event_default").await, 40);
    assert_eq!(count(&db).await, 40);
    assert!(attach(100).await.is_some());
    assert_eq!(count(&db).await, 40);
    assert_eq!(db.number("SELECT count(*) FROM tallylight.event_default").await, 0);
}

#[tokio::test]
async fn what_was_not_copied_whole_is_not_taken_from_the_default_partition() {
    let db = db().await;
    db.sql(FAR_AHEAD).await;
    append(&db, 10).await;
    assert_eq!(db.number("SELECT tallylight.copy_strays(3, 100)").await, 40);
    db.sql("DELETE FROM tallylight.event_stray WHERE slice = 2 AND position = 4").await;
    let refused = sqlx::query("SELECT tallylight.attach_strays(100)").execute(&db.pool).await;
    assert!(refused.unwrap_err().to_string().contains("left out"));
    assert_eq!(count(&db).await, 40);
    db.sql("DROP TABLE tallylight.event_stray").await;
    ensure(&db).await;
    assert_eq!(count(&db).await, 40);
}

#[tokio::test]
async fn months_look_alike_however_they_were_made() {
    let db = db().await;
    db.sql(FAR_AHEAD).await;
    append(&db, 1).await;
    ensure(&db).await;
    let kinds: Vec<String> = sqlx::query_scalar(
        "SELECT DISTINCT format('%s %s %s',
                (SELECT array_agg(format('%s %s %s %s', a.attname, a.atttypid, a.attnotnull, a.attcompression) ORDER BY a.attnum)
                   FROM pg_attribute a WHERE a.attrelid = i.inhrelid AND a.attnum > 0),
                (SELECT array_agg(regexp_replace(pg_get_constraintdef(n.oid), '\\d', '', 'g') ORDER BY n.contype)
                   FROM pg_constraint n WHERE n.conrelid = i.inhrelid AND n.contype <> 'n'),
                (SELECT array_agg(substring(pg_get_indexdef(x.indexrelid) FROM ' USING .*') ORDER BY x.indkey::text)
                   FROM pg_index x WHERE x.indrelid = i.inhrelid))
           FROM pg_inherits i WHERE i.inhparent = 'tallylight.event'::regclass",
    )
    .fetch_all(&db.pool)
    .await
    .unwrap();
    assert_eq!(kinds.len(), 1, "{kinds:#?}");
}

#[tokio::test]
async fn months_are_made_ahead_and_once() {
    let db = db().await;
    assert_eq!(db.number(MONTHS).await, 4, "this month and three more");
    assert_eq!(ensure(&db).await.made, 0);
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

    let done = ensure(&db).await;
    assert_eq!((done.made, done.moved), (1, 1));
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

/// Appends an event once, however long a busy machine lets it wait for a connection.
async fn append_patiently(store: &Store, event: NewEvent) {
    let batch = Uuid::now_v7();
    loop {
        match store.append_all(batch, std::slice::from_ref(&event)).await {
            Ok(_) => return,
            Err(Error::Unreachable { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
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
                    append_patiently(&store, event(&subject, "far ahead")).await;
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
    ensure(&db).await;
    let after = db.head(0).await;
    until(async || (db.head(0).await > after + 20).then_some(())).await;
    done.store(true, Ordering::Relaxed);
    ensure(&db).await;
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
                    append_patiently(&store, event(&subject, "on")).await;
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
