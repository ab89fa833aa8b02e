//! The client on a real PostgreSQL, as the role of another service.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::error::Error as _;
use std::time::{Duration, SystemTime};

use client::{Enqueued, Error, Job, KeyStates, OnChildFailure, OnConflict, enqueue_many};
use serde_json::{Value, json};
use sqlx::{Executor, PgPool, Row};
use uuid::Uuid;

mod examples;

/// Two views of one database: the service's, whose role is in `tallylight_producer` only and owns
/// a table of its own, and the owner's, to look at the jobs.
struct Db {
    service: PgPool,
    service_url: String,
    owner: PgPool,
}

async fn db() -> Db {
    let url = store::testing::database().await;
    let owner = PgPool::connect(&url).await.unwrap();
    let role = format!("service_{}", Uuid::now_v7().simple());
    for statement in [
        format!("CREATE ROLE {role} LOGIN PASSWORD 'secret' IN ROLE tallylight_producer"),
        format!("CREATE SCHEMA product AUTHORIZATION {role}"),
    ] {
        owner.execute(sqlx::AssertSqlSafe(statement)).await.unwrap();
    }
    let (_, server) = url.rsplit_once('@').unwrap();
    let service_url = format!("postgres://{role}:secret@{server}");
    let service = PgPool::connect(&service_url).await.unwrap();
    service.execute("CREATE TABLE product.orders (number int PRIMARY KEY)").await.unwrap();
    Db { service, service_url, owner }
}

impl Db {
    async fn count(&self, table: &'static str) -> i64 {
        let count = format!("SELECT count(*) FROM {table}");
        sqlx::query_scalar(sqlx::AssertSqlSafe(count)).fetch_one(&self.owner).await.unwrap()
    }

    async fn refusal(&self, job: Job) -> String {
        let error = job.enqueue(&self.service).await.unwrap_err();
        assert!(matches!(error, Error::Refused { .. }), "{error:?}");
        error.to_string()
    }
}

fn mail() -> Job {
    Job::new("send_mail", &json!({ "to": "ä" })).unwrap()
}

#[tokio::test]
async fn a_job_commits_with_its_callers_transaction() {
    let db = db().await;
    let mut tx = db.service.begin().await.unwrap();
    sqlx::query("INSERT INTO product.orders VALUES (7)").execute(&mut *tx).await.unwrap();
    let Enqueued { id, is_new } = mail().enqueue(&mut *tx).await.unwrap();
    assert!(is_new);
    assert_eq!(db.count("tallylight.job").await, 0, "nobody sees it yet");
    tx.commit().await.unwrap();
    let row = db.owner.fetch_one("SELECT id, kind, args FROM tallylight.job").await.unwrap();
    assert_eq!(Some(row.get::<Uuid, _>("id")), id);
    assert_eq!(row.get::<String, _>("kind"), "send_mail");
    assert_eq!(row.get::<Value, _>("args"), json!({ "to": "ä" }));
    assert_eq!(db.count("product.orders").await, 1);
}

#[tokio::test]
async fn a_job_vanishes_with_its_callers_rollback() {
    let db = db().await;
    let mut tx = db.service.begin().await.unwrap();
    sqlx::query("INSERT INTO product.orders VALUES (7)").execute(&mut *tx).await.unwrap();
    let first = mail().key("k").enqueue(&mut *tx).await.unwrap();
    tx.rollback().await.unwrap();
    assert_eq!((db.count("tallylight.job").await, db.count("product.orders").await), (0, 0));
    let second = mail().key("k").enqueue(&db.service).await.unwrap();
    assert!(second.is_new, "the key was never taken");
    assert_ne!(second.id, first.id);
}

#[tokio::test]
async fn a_key_given_twice_returns_the_live_job_and_the_transaction_goes_on() {
    let db = db().await;
    let mut tx = db.service.begin().await.unwrap();
    let first = mail().key("k").enqueue(&mut *tx).await.unwrap();
    let again = mail().key("k").priority(1).enqueue(&mut *tx).await.unwrap();
    assert_eq!(again, Enqueued { id: first.id, is_new: false });
    sqlx::query("INSERT INTO product.orders VALUES (7)").execute(&mut *tx).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!((db.count("tallylight.job").await, db.count("product.orders").await), (1, 1));
    let later = mail().key("k").enqueue(&db.service).await.unwrap();
    assert_eq!(later, Enqueued { id: first.id, is_new: false });
    let other = mail().key("k").subject("app/order/7").enqueue(&db.service).await.unwrap();
    assert!(other.is_new, "a subject's keys are its own");
}

#[tokio::test]
async fn a_key_from_many_at_once_is_new_once() {
    let db = db().await;
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let pool = db.service.clone();
        calls.spawn(async move { mail().key("k").enqueue(&pool).await.unwrap() });
    }
    let enqueued = calls.join_all().await;
    assert_eq!(enqueued.iter().filter(|e| e.is_new).count(), 1);
    assert!(enqueued.iter().all(|e| e.id == enqueued[0].id));
}

#[tokio::test]
async fn every_option_arrives() {
    let db = db().await;
    let at = SystemTime::UNIX_EPOCH + Duration::from_micros(4_102_444_800_000_001);
    let job = mail().subject("app/order/7").key("k").priority(4).max_attempts(2).queue("mails");
    let job = job.limit_key("account/7").limit(3).limit_waiting(50).ordered().fair_key("shop");
    let job = job.on_conflict(OnConflict::Existing).key_states(KeyStates::UntilStarted);
    let job = job.key_period(Duration::from_millis(59_001)).traceparent(TRACE);
    job.run_at(at).enqueue(&db.service).await.unwrap();
    let row = db
        .owner
        .fetch_one(
            "SELECT *, (extract(epoch FROM run_at) * 1000000)::bigint AS micros FROM tallylight.job",
        )
        .await
        .unwrap();
    assert_eq!(row.get::<String, _>("subject"), "app/order/7");
    assert_eq!(row.get::<String, _>("unique_key"), "k");
    assert_eq!((row.get::<i16, _>("priority"), row.get::<i32, _>("max_attempts")), (4, 2));
    assert_eq!(row.get::<i64, _>("micros"), 4_102_444_800_000_001, "to the microsecond");
    let texts = ["queue", "limit_key", "fair_key", "trace"].map(|name| row.get::<String, _>(name));
    assert_eq!(texts, ["mails", "account/7", "shop", TRACE]);
    assert_eq!(
        (row.get::<i16, _>("max_running"), row.get::<bool, _>("key_until_started")),
        (3, true)
    );
    assert!(row.get::<bool, _>("ordered"));
    let period = "SELECT extract(epoch FROM until - now())::int FROM tallylight.job_key";
    let period: i32 = sqlx::query_scalar(period).fetch_one(&db.owner).await.unwrap();
    assert!((1..=60).contains(&period), "{period}");
}

/// A trace, and another one.
const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const OTHER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

#[tokio::test]
async fn what_a_taken_key_comes_to_is_the_callers_choice() {
    let db = db().await;
    let later = SystemTime::UNIX_EPOCH + Duration::from_hours(1_139_568);
    let replace = |n: i32| {
        let job = Job::new("pack", &json!({ "n": n })).unwrap();
        job.key("k").on_conflict(OnConflict::Replace).priority(3)
    };
    let first = replace(1).enqueue(&db.service).await.unwrap();
    let second = replace(2).run_at(later).enqueue(&db.service).await.unwrap();
    assert_eq!(second, Enqueued { id: first.id, is_new: false });
    let ignored = replace(3).on_conflict(OnConflict::Ignore).enqueue(&db.service).await.unwrap();
    assert_eq!(ignored, Enqueued { id: None, is_new: false });
    let earlier = replace(4).on_conflict(OnConflict::Debounce).enqueue(&db.service).await.unwrap();
    assert_eq!(earlier.id, first.id);
    let row = db.owner.fetch_one("SELECT args, run_at::text FROM tallylight.job").await.unwrap();
    assert_eq!(row.get::<Value, _>("args"), json!({ "n": 2 }));
    assert!(row.get::<String, _>("run_at").starts_with("2100-01-01"), "never made earlier");
    let many = [replace(5).on_conflict(OnConflict::Ignore), replace(6)];
    let many = enqueue_many(&many, &db.service).await.unwrap();
    assert_eq!(many.iter().map(|e| e.id).collect::<Vec<_>>(), [None, first.id]);
}

#[tokio::test]
async fn arguments_of_a_mebibyte_are_taken_and_larger_ones_refused_in_words() {
    let db = db().await;
    let of = |bytes: usize| Job::new("mail", &json!({ "text": "x".repeat(bytes) })).unwrap();
    assert!(of((1 << 20) - 100).enqueue(&db.service).await.unwrap().is_new);
    for bytes in [1 << 20, 10 << 20] {
        let error = of(bytes).enqueue(&db.service).await.unwrap_err();
        assert!(matches!(error, Error::Refused { .. }), "{error}");
        assert!(error.to_string().contains("keep what is larger elsewhere"), "{error}");
        let error = enqueue_many(&[of(1), of(bytes)], &db.service).await.unwrap_err();
        assert!(error.to_string().contains("job 2: args must have at most 1 MiB"), "{error}");
    }
}

#[tokio::test]
async fn a_full_limit_key_is_an_error_of_its_own() {
    let db = db().await;
    let job = mail().limit_key("account/7").limit_waiting(1);
    job.enqueue(&db.service).await.unwrap();
    let error = job.enqueue(&db.service).await.unwrap_err();
    assert!(matches!(error, Error::TooMany { .. }), "{error:?}");
    assert!(error.to_string().contains("account/7"), "{error}");
    let error = enqueue_many(&[mail(), job], &db.service).await.unwrap_err();
    assert!(matches!(error, Error::TooMany { .. }), "{error:?}");
    assert_eq!(db.count("tallylight.job").await, 1);
}

#[tokio::test]
async fn a_job_is_part_of_its_own_trace_and_the_next_of_the_transactions() {
    let db = db().await;
    let trace_of = async |enqueued: &Enqueued| -> Option<String> {
        let query = sqlx::query_scalar("SELECT trace FROM tallylight.job WHERE id = $1");
        query.bind(enqueued.id).fetch_one(&db.owner).await.unwrap()
    };
    let mut tx = db.service.begin().await.unwrap();
    let bare = mail().enqueue(&mut *tx).await.unwrap();
    let own = mail().traceparent(OTHER).enqueue(&mut *tx).await.unwrap();
    let again_bare = mail().enqueue(&mut *tx).await.unwrap();
    let setting = format!("SET LOCAL tallylight.traceparent = '{TRACE}'");
    tx.execute(sqlx::AssertSqlSafe(setting)).await.unwrap();
    let own_besides = mail().traceparent(OTHER).enqueue(&mut *tx).await.unwrap();
    let of_transaction = mail().enqueue(&mut *tx).await.unwrap();
    let batch = [1, 2].map(|_| mail().traceparent(OTHER));
    let batch = enqueue_many(&batch, &mut *tx).await.unwrap();
    let after_batch = enqueue_many(&[mail()], &mut *tx).await.unwrap();
    let family = mail().traceparent(OTHER).after_children([mail()]);
    let family = family.enqueue(&mut *tx).await.unwrap();
    let child = Enqueued { id: Some(family.children[0]), is_new: true };
    let after_family = mail().enqueue(&mut *tx).await.unwrap();
    tx.commit().await.unwrap();
    for (job, trace) in [
        (&bare, None),
        (&own, Some(OTHER)),
        (&again_bare, None),
        (&own_besides, Some(OTHER)),
        (&of_transaction, Some(TRACE)),
        (&batch[0], Some(OTHER)),
        (&batch[1], Some(OTHER)),
        (&after_batch[0], Some(TRACE)),
        (&family.parent, Some(OTHER)),
        (&child, Some(OTHER)),
        (&after_family, Some(TRACE)),
    ] {
        assert_eq!(trace_of(job).await.as_deref(), trace);
    }
    let mixed = [mail().traceparent(OTHER), mail()];
    let error = enqueue_many(&mixed, &db.service).await.unwrap_err();
    assert!(error.to_string().contains("different traces"), "{error}");
    let mixed = mail().after_children([mail().traceparent(OTHER)]);
    let error = mixed.enqueue(&db.service).await.unwrap_err();
    assert!(error.to_string().contains("part of their parent's"), "{error}");
}

#[tokio::test]
async fn a_delay_counts_by_the_databases_clock() {
    let db = db().await;
    let mut tx = db.service.begin().await.unwrap();
    // A time zone of the service's own changes nothing.
    tx.execute("SET LOCAL timezone = 'America/St_Johns'").await.unwrap();
    mail().after(Duration::from_hours(1)).enqueue(&mut *tx).await.unwrap();
    tx.commit().await.unwrap();
    let late: bool = sqlx::query_scalar(
        "SELECT run_at - enqueued_at BETWEEN '1 hour' AND '1 hour 1 minute' FROM tallylight.job",
    )
    .fetch_one(&db.owner)
    .await
    .unwrap();
    assert!(late);
    let past = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
    assert!(mail().run_at(past).enqueue(&db.service).await.unwrap().is_new, "due at once");
}

#[tokio::test]
async fn a_bad_job_is_refused_in_words() {
    let db = db().await;
    let kind = |kind: &str| Job::new(kind, &json!({})).unwrap();
    for (job, words) in [
        (kind("Mail"), "kind must be"),
        (kind("timer"), "is reserved"),
        (Job::new("mail", &7).unwrap(), "must be JSON objects"),
        (mail().priority(5), "\"priority\" must"),
        (mail().max_attempts(0), "\"max_attempts\" must"),
        (mail().queue("Mails"), "\"queue\" must"),
        (mail().limit(3), "need \"limit_key\""),
        (mail().limit_key("a").limit(1001), "\"limit\" must"),
        (mail().ordered(), "\"ordered\" needs"),
        (mail().fair_key(""), "\"fair_key\" must"),
        (mail().key_period(Duration::from_secs(1)), "need \"key\""),
        (mail().key("k").key_period(Duration::ZERO), "\"key_period\" must"),
        (mail().key(""), "\"key\" must"),
        (mail().subject("x".repeat(1025)), "\"subject\" must"),
        (mail().after(Duration::MAX), "out of range"),
        (mail().key("\0"), "\\u0000 cannot"),
    ] {
        let text = db.refusal(job).await;
        assert!(text.contains(words), "{text}");
    }
    assert_eq!(db.count("tallylight.job").await, 0);
    let unwritable = BTreeMap::from([((1, 2), 3)]);
    let error = Job::new("mail", &unwritable).unwrap_err();
    assert!(matches!(error, Error::Args { .. }), "{error:?}");
    assert!(error.source().is_some());
}

#[tokio::test]
async fn a_batch_commits_as_a_whole_and_keeps_its_order() {
    let db = db().await;
    let at = SystemTime::UNIX_EPOCH + Duration::from_micros(4_102_444_800_000_001);
    let batch = [
        mail().priority(4).run_at(at),
        mail().key("k"),
        mail().after(Duration::from_hours(1)),
        mail().key("k"),
    ];
    let mut tx = db.service.begin().await.unwrap();
    let enqueued = enqueue_many(&batch, &mut *tx).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(enqueued.iter().map(|e| e.is_new).collect::<Vec<_>>(), [true, true, true, false]);
    assert_eq!(enqueued[1].id, enqueued[3].id);
    let rows = db.owner.fetch_all(
        "SELECT id, (extract(epoch FROM run_at) * 1000000)::bigint AS micros,
                run_at > now() + interval '50 minutes' AS later, args FROM tallylight.job ORDER BY run_at",
    );
    let rows = rows.await.unwrap();
    let ids: Vec<Uuid> = rows.iter().map(|row| row.get("id")).collect();
    assert_eq!(ids, [1, 2, 0].map(|n: usize| enqueued[n].id.unwrap()));
    assert_eq!(rows.iter().map(|row| row.get("later")).collect::<Vec<bool>>(), [false, true, true]);
    assert_eq!(rows[2].get::<i64, _>("micros"), 4_102_444_800_000_001);
    assert!(rows.iter().all(|row| row.get::<Value, _>("args") == json!({ "to": "ä" })));
    assert!(enqueue_many(&[], &db.service).await.unwrap().is_empty());

    let bad = [mail(), mail().priority(9)];
    let error = enqueue_many(&bad, &db.service).await.unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error:?}");
    assert!(error.to_string().contains("job 2: option \"priority\" must"), "{error}");
    assert_eq!(db.count("tallylight.job").await, 3);
}

#[tokio::test]
async fn a_producer_can_do_nothing_else() {
    let db = db().await;
    mail().enqueue(&db.service).await.unwrap();
    enqueue_many(&[mail()], &db.service).await.unwrap();
    for statement in [
        "SELECT * FROM tallylight.job",
        "SELECT * FROM tallylight.event",
        "DELETE FROM tallylight.job",
        "INSERT INTO tallylight.job (slice, id, kind, subject) VALUES (0, gen_random_uuid(), 'a', 'b')",
        "SELECT tallylight.slice_of('x', 16::smallint)",
        "SELECT tallylight.append(0::smallint, NULL, '{}', '{}', '{}', '{}', NULL, '{}', '{}', '{}', '{}', '{}')",
    ] {
        let error = db.service.execute(statement).await.unwrap_err();
        assert_eq!(error.as_database_error().unwrap().code().unwrap(), "42501", "{statement}");
    }
}

#[tokio::test]
async fn a_missing_privilege_and_a_missing_schema_say_what_to_do() {
    let db = db().await;
    let mut on = db.owner.acquire().await.unwrap();
    let stranger = format!("stranger_{}", Uuid::now_v7().simple());
    for statement in [format!("CREATE ROLE {stranger}"), format!("SET ROLE {stranger}")] {
        on.execute(sqlx::AssertSqlSafe(statement)).await.unwrap();
    }
    let error = mail().enqueue(&mut *on).await.unwrap_err();
    assert!(matches!(error, Error::NotAllowed { .. }), "{error:?}");
    assert!(error.to_string().contains("GRANT tallylight_producer"), "{error}");

    on.execute("RESET ROLE; DROP FUNCTION tallylight.enqueue_job").await.unwrap();
    let error = mail().enqueue(&mut *on).await.unwrap_err();
    assert!(matches!(error, Error::NotInstalled { .. }), "{error:?}");
    on.execute("DROP SCHEMA tallylight CASCADE").await.unwrap();
    let error = mail().enqueue(&mut *on).await.unwrap_err();
    assert!(matches!(error, Error::NotInstalled { .. }), "{error:?}");
    assert!(error.to_string().contains("`tallylight migrate`"), "{error}");
}

#[tokio::test]
async fn a_parent_waits_for_its_children_from_the_commit_on() {
    let db = db().await;
    let children = || [mail().priority(1), mail().after(Duration::from_hours(1))];
    let parent = mail().key("nightly").after_children(children());
    let parent = parent.on_child_failure(OnChildFailure::Wait);
    let mut tx = db.service.begin().await.unwrap();
    let family = parent.enqueue(&mut *tx).await.unwrap();
    assert_eq!(db.count("tallylight.job").await, 0, "nobody sees them yet");
    tx.commit().await.unwrap();
    assert!(family.parent.is_new);
    let ids: Vec<Uuid> = sqlx::query_scalar("SELECT child FROM tallylight.job_child ORDER BY n")
        .fetch_all(&db.owner)
        .await
        .unwrap();
    assert_eq!(family.children, ids);
    let due = "SELECT id FROM tallylight.job WHERE run_at <= now()";
    let due: Vec<Uuid> = sqlx::query_scalar(due).fetch_all(&db.owner).await.unwrap();
    assert_eq!(due, ids[..1], "neither the parent nor the child of later");

    let again = parent.enqueue(&db.service).await.unwrap();
    assert_eq!((again.parent.id, again.parent.is_new), (family.parent.id, false));
    assert_eq!((again.children.len(), db.count("tallylight.job").await), (0, 3));
    let keyed = mail().after_children([mail(), mail().key("k")]).enqueue(&db.service).await;
    let refused = keyed.unwrap_err().to_string();
    assert!(refused.contains("child 2: a child is a new job of its parent"), "{refused}");
}

#[tokio::test]
async fn a_job_waits_for_an_event_or_its_time() {
    let db = db().await;
    let job = mail().wait_for("orders/7", &["Paid"], Duration::from_mins(1));
    let id = job.enqueue(&db.service).await.unwrap().id;
    let row = db.owner.fetch_one("SELECT job, awaits FROM tallylight.job_step").await.unwrap();
    assert_eq!(row.get::<Option<Uuid>, _>("job"), id);
    assert_eq!(row.get::<Value, _>("awaits")["types"], json!(["Paid"]));
    let refused = db.refusal(mail().wait_for("orders/7", &[], Duration::ZERO)).await;
    assert!(refused.contains("\"timeout\""), "{refused}");
}
