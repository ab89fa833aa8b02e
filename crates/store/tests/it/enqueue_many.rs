//! The SQL function `enqueue_many`: batches, all or nothing.

use serde_json::{Value, json};
use sqlx::{Executor as _, PgPool, Row};
use store::{EnqueueOptions, Enqueued, Error, PlainJob};
use uuid::Uuid;

use crate::support::{Db, db, login};

fn mail(options: EnqueueOptions) -> PlainJob {
    PlainJob { kind: "send_mail".to_owned(), args: json!({"to": "ä"}), options }
}

fn keyed(key: &str) -> PlainJob {
    mail(EnqueueOptions { key: Some(key.to_owned()), ..EnqueueOptions::default() })
}

async fn jobs(db: &Db) -> i64 {
    db.number("SELECT count(*) FROM tallylight.job").await
}

async fn refused(db: &Db, jobs: Value) -> String {
    let call = sqlx::query("SELECT * FROM tallylight.enqueue_many($1)").bind(jobs.clone());
    let error = call.execute(&db.pool).await.expect_err(&jobs.to_string());
    let error = error.into_database_error().unwrap();
    assert!(error.code().unwrap().starts_with("22"), "{error}");
    error.message().to_owned()
}

#[tokio::test]
async fn ids_come_in_the_order_of_the_jobs() {
    let db = db().await;
    let batch: Vec<PlainJob> = (1..=40)
        .map(|n: i16| {
            let job =
                if n % 5 == 0 { keyed(&n.to_string()) } else { mail(EnqueueOptions::default()) };
            PlainJob { args: json!({"n": n}), ..job }
        })
        .collect();
    let enqueued = db.store.enqueue_many(&batch, None).await.unwrap();
    for (n, Enqueued { id, is_new }) in (1_i64..).zip(&enqueued) {
        let row = sqlx::query("SELECT slice, subject, args FROM tallylight.job WHERE id = $1")
            .bind(id)
            .fetch_one(&db.pool)
            .await
            .unwrap();
        assert!(is_new);
        assert_eq!(row.get::<Value, _>("args"), json!({"n": n}));
        let subject = domain::ids::Subject::from_stored(row.get("subject"));
        assert_eq!(row.get::<i16, _>("slice"), db.store.slice_of(&subject));
    }
    assert_eq!(enqueued.len(), 40);
}

#[tokio::test]
async fn every_option_means_what_it_means_for_one_job() {
    let db = db().await;
    let run_at = domain::ids::Timestamp::from_timestamp_micros(4_102_444_800_000_001);
    let plain = EnqueueOptions {
        subject: Some("app/order/7".to_owned()),
        run_at,
        priority: Some(4),
        max_attempts: Some(2),
        ..EnqueueOptions::default()
    };
    let keyed = EnqueueOptions { key: Some("k".to_owned()), ..plain.clone() };
    db.store.enqueue_many(&[mail(plain), mail(keyed.clone())], None).await.unwrap();
    db.store.enqueue("fax", &json!({"to": "ä"}), &keyed).await.unwrap();
    let differing = db
        .number(
            "SELECT count(DISTINCT (slice, subject, args, priority, run_at, max_attempts))
               FROM tallylight.job",
        )
        .await;
    assert_eq!((jobs(&db).await, differing), (3, 1));
    assert_eq!(db.number("SELECT min(priority)::bigint FROM tallylight.job").await, 4);
}

#[tokio::test]
async fn a_key_returns_the_live_job_also_within_a_batch() {
    let db = db().await;
    let first = db.store.enqueue_many(&[keyed("a"), keyed("b"), keyed("a")], None).await.unwrap();
    assert_eq!(first.iter().map(|e| e.is_new).collect::<Vec<_>>(), [true, true, false]);
    assert_eq!(first[0].id, first[2].id);
    let again = db.store.enqueue_many(&[keyed("b")], None).await.unwrap();
    assert_eq!(again, [Enqueued { id: first[1].id, is_new: false }]);
    assert_eq!(jobs(&db).await, 2);
}

#[tokio::test]
async fn one_bad_job_refuses_all_and_is_named() {
    let db = db().await;
    let good = json!({"kind": "mail"});
    let bad = [
        (json!({"kind": "Mail"}), "job 2: kind must be"),
        (json!({}), "job 2: kind must be"),
        (json!({"kind": "timer"}), "job 2: kind \"timer\" is reserved"),
        (json!({"kind": "mail", "args": []}), "job 2: args and opts must be"),
        (json!({"kind": "mail", "opts": null}), "job 2: args and opts must be"),
        (json!({"kind": "mail", "opts": {"prio": 1}}), "job 2: unknown option \"prio\""),
        (json!({"kind": "mail", "options": {}}), "job 2: a job must be an object"),
        (json!({"kind": "mail", "opts": {"run_at": "2026-13-22T14:00:00Z"}}), "job 2: "),
        (json!("mail"), "job 2: a job must be an object"),
        (json!([]), "job 2: a job must be an object"),
    ];
    for (bad, words) in bad {
        let text = refused(&db, json!([good, bad, good])).await;
        assert!(text.starts_with(words), "{bad}: {text}");
    }
    for all in [json!({}), json!("x"), json!(null), json!(vec![json!({"kind": "mail"}); 10_001])] {
        assert!(refused(&db, all).await.contains("at most 10000"));
    }
    assert_eq!(jobs(&db).await, 0);
    let error = db.store.enqueue_many(&[mail(EnqueueOptions::default()), keyed("")], None).await;
    assert!(matches!(error, Err(Error::Invalid { reason }) if reason.starts_with("job 2: ")));
    assert_eq!(db.store.enqueue_many(&[], None).await.unwrap(), []);
}

#[tokio::test]
async fn batches_with_the_same_keys_in_other_orders_do_not_lock_each_other_out() {
    let db = db().await;
    let keys: Vec<String> = (0..30).map(|n| format!("k{n}")).collect();
    let forth: Vec<PlainJob> = keys.iter().map(|key| keyed(key)).collect();
    let back: Vec<PlainJob> = keys.iter().rev().map(|key| keyed(key)).collect();
    for _ in 0..10 {
        let (one, other) =
            tokio::join!(db.store.enqueue_many(&forth, None), db.store.enqueue_many(&back, None));
        let (one, other) = (one.unwrap(), other.unwrap());
        let mut other: Vec<Option<Uuid>> = other.iter().map(|e| e.id).collect();
        other.reverse();
        assert_eq!(one.iter().map(|e| e.id).collect::<Vec<_>>(), other);
        db.sql("DELETE FROM tallylight.job").await;
    }
}

#[tokio::test]
async fn workers_are_told_at_the_commit_and_only_where_it_was_asked_for() {
    let db = db().await;
    let mut wakes = db.store.listen().await.unwrap();
    let mut tx = db.pool.begin().await.unwrap();
    let quiet = "SELECT * FROM tallylight.enqueue_many('[{\"kind\": \"mail\"}]')";
    let loud = "SELECT * FROM tallylight.enqueue_many('[{\"kind\": \"mail\"}]', wake => true)";
    tx.execute(quiet).await.unwrap();
    tx.commit().await.unwrap();
    // Heard first, so nothing was sent before it.
    db.sql("SELECT pg_notify('tallylight', 'schedules')").await;
    assert_eq!(wakes.recv().await.unwrap(), store::Hint::Schedules);
    let mut tx = db.pool.begin().await.unwrap();
    tx.execute(loud).await.unwrap();
    tx.commit().await.unwrap();
    let jobs = db.store.slices().slices().collect();
    let events = std::collections::BTreeSet::new();
    assert_eq!(wakes.recv().await.unwrap(), store::Hint::Slices { events, jobs });
}

#[tokio::test]
async fn a_producer_may_enqueue_many() {
    let db = db().await;
    let pool = PgPool::connect(&login(&db, "producer").await).await.unwrap();
    pool.execute(
        "SELECT * FROM tallylight.enqueue_many('[{\"kind\": \"mail\", \"opts\": {\"key\": \"k\"}}]', true)",
    )
    .await
    .unwrap();
    assert_eq!(jobs(&db).await, 1);
}
