//! The SQL function `enqueue`: the contract with other services.

use domain::ids::{Subject, Timestamp};
use serde_json::{Value, json};
use sqlx::{PgConnection, Row};
use store::{EnqueueOptions, Error};
use uuid::Uuid;

use crate::support::{Db, db, digits};

/// Enqueues as another service does.
async fn enqueue(on: &mut PgConnection, kind: &str, opts: Value) -> Result<Uuid, sqlx::Error> {
    sqlx::query_scalar("SELECT tallylight.enqueue($1, '{\"n\": 1}', $2)")
        .bind(kind)
        .bind(opts)
        .fetch_one(on)
        .await
}

async fn refused(db: &Db, kind: &str, args: Value, opts: Value) -> String {
    let call = sqlx::query("SELECT tallylight.enqueue($1, $2, $3)")
        .bind(kind)
        .bind(args)
        .bind(opts.clone());
    let error = call.execute(&db.pool).await.expect_err(&format!("{kind} {opts}"));
    let code = error.as_database_error().unwrap().code().unwrap().into_owned();
    assert!(code.starts_with("22"), "{code}: {error}");
    error.to_string()
}

#[tokio::test]
async fn a_plain_job_has_defaults() {
    let db = db().await;
    let before = db.store.health_facts().await.unwrap().now;
    let id: Uuid = sqlx::query_scalar("SELECT tallylight.enqueue('send_mail')")
        .fetch_one(&db.pool)
        .await
        .unwrap();
    let row = sqlx::query(
        "SELECT *, run_at >= $1 AND run_at <= clock_timestamp() AS now FROM tallylight.job",
    )
    .bind(before)
    .fetch_one(&db.pool)
    .await
    .unwrap();
    assert_eq!(row.get::<Uuid, _>("id"), id);
    assert_eq!(row.get::<String, _>("kind"), "send_mail");
    assert_eq!(row.get::<Value, _>("args"), json!({}));
    assert_eq!((row.get::<i16, _>("priority"), row.get::<i32, _>("max_attempts")), (2, 14));
    assert!(row.get::<bool, _>("now"), "due at once");
    assert_eq!(row.get::<Option<String>, _>("unique_key"), None);
    let subject = Subject::job(id);
    assert_eq!(row.get::<String, _>("subject"), subject.as_str());
    assert_eq!(row.get::<i16, _>("slice"), db.store.slice_of(&subject));
    assert_eq!(
        db.number("SELECT sum(position)::bigint FROM tallylight.slice_head").await,
        0,
        "no event"
    );
}

#[tokio::test]
async fn options_are_taken() {
    let db = db().await;
    let run_at = Timestamp::from_timestamp(4_102_444_800, 0);
    let options = EnqueueOptions {
        subject: Some("app/order/7".to_owned()),
        run_at,
        key: Some("k".to_owned()),
        priority: Some(4),
        max_attempts: Some(2),
        ..EnqueueOptions::default()
    };
    let id = db.store.enqueue("send_mail", &json!({"to": "ä"}), &options).await.unwrap();
    let row = sqlx::query("SELECT * FROM tallylight.job WHERE id = $1")
        .bind(id)
        .fetch_one(&db.pool)
        .await
        .unwrap();
    assert_eq!(
        row.get::<i16, _>("slice"),
        db.store.slice_of(&Subject::from_stored("app/order/7".to_owned()))
    );
    assert_eq!(row.get::<Option<Timestamp>, _>("run_at"), run_at);
    assert_eq!((row.get::<i16, _>("priority"), row.get::<i32, _>("max_attempts")), (4, 2));
    assert_eq!(row.get::<Value, _>("args"), json!({"to": "ä"}));
}

#[tokio::test]
async fn arguments_have_at_most_a_mebibyte_wherever_they_were_read() {
    let db = db().await;
    let of = |bytes: usize| json!({ "text": "x".repeat(bytes) });
    let id = db.store.enqueue("mail", &of((1 << 20) - 100), &EnqueueOptions::default()).await;
    id.unwrap();
    for bytes in [1 << 20, 10 << 20] {
        let text = refused(&db, "mail", of(bytes), json!({})).await;
        assert!(text.contains("at most 1 MiB: keep what is larger elsewhere"), "{text}");
        let many = sqlx::query("SELECT * FROM tallylight.enqueue_many($1)")
            .bind(json!([{ "kind": "mail", "args": of(bytes) }]));
        let text = many.execute(&db.pool).await.unwrap_err().to_string();
        assert!(text.contains("job 1: args must have at most 1 MiB"), "{text}");
    }
    // In a table they are compressed, to a hundredth of that.
    db.sql("CREATE TABLE public.big (args jsonb)").await;
    let insert = sqlx::query("INSERT INTO public.big VALUES ($1)").bind(of(10 << 20));
    insert.execute(&db.pool).await.unwrap();
    let call = sqlx::query("SELECT tallylight.enqueue('mail', args) FROM public.big");
    let text = call.execute(&db.pool).await.unwrap_err().to_string();
    assert!(text.contains("at most 1 MiB"), "{text}");
}

#[tokio::test]
async fn a_bad_call_is_refused_in_words() {
    let db = db().await;
    let none = json!({});
    for kind in ["", "Mail", "1st", "a b", "a-b", &"x".repeat(64)] {
        let text = refused(&db, kind, none.clone(), none.clone()).await;
        assert!(text.contains("kind must be"), "{text}");
    }
    let options = [
        (json!({"prio": 1}), "unknown option \"prio\""),
        (json!([]), "must be JSON objects"),
        (json!("x"), "must be JSON objects"),
        (json!({"priority": 0}), "\"priority\" must"),
        (json!({"priority": 5}), "\"priority\" must"),
        (json!({"priority": 1.5}), "\"priority\" must"),
        (json!({"max_attempts": 0}), "\"max_attempts\" must"),
        (json!({"max_attempts": 99_999_999_999_i64}), "\"max_attempts\" must"),
        (json!({"run_at": "tomorrow"}), "\"run_at\" must"),
        (json!({"run_at": "infinity"}), "\"run_at\" must"),
        (json!({"run_at": "-infinity"}), "\"run_at\" must"),
        (json!({"run_at": "2026-11-22T14:00:00"}), "\"run_at\" must"),
        (json!({"run_at": 1_700_000_000}), "\"run_at\" must"),
        (json!({"run_at": "2026-13-22T14:00:00Z"}), "out of range"),
        (json!({"key": ""}), "\"key\" must"),
        (json!({"key": "x".repeat(513)}), "\"key\" must"),
        (json!({"subject": ""}), "\"subject\" must"),
        (json!({"subject": "x".repeat(1025)}), "\"subject\" must"),
    ];
    for (opts, words) in options {
        let text = refused(&db, "mail", none.clone(), opts.clone()).await;
        assert!(text.contains(words), "{opts}: {text}");
    }
    for args in [json!([]), json!(1), json!("x"), Value::Null] {
        let text = refused(&db, "mail", args, none.clone()).await;
        assert!(text.contains("must be JSON objects"), "{text}");
    }
    assert_eq!(db.number("SELECT count(*) FROM tallylight.job").await, 0);

    let error = db.store.enqueue("Mail", &json!({}), &EnqueueOptions::default()).await.unwrap_err();
    assert!(
        matches!(&error, Error::Invalid { reason } if reason.contains("kind must be")),
        "{error}"
    );
    let error = db
        .store
        .enqueue("mail", &json!({"a": "\0"}), &EnqueueOptions::default())
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Invalid { .. }), "{error}");
}

#[tokio::test]
async fn jobs_that_only_decisions_make_are_refused() {
    let db = db().await;
    let own = [domain::effect::TIMER, domain::effect::FORWARD, domain::effect::RELAY];
    for kind in own.into_iter().chain(domain::call::Call::KINDS) {
        let text = refused(&db, kind, json!({}), json!({})).await;
        assert!(text.contains("is reserved"), "{text}");
    }
}

#[tokio::test]
async fn the_largest_subject_and_key_are_taken() {
    let db = db().await;

    let opts = json!({"subject": digits(1024), "key": digits(512)});
    let kind = "k".repeat(63);
    let mut on = db.pool.acquire().await.unwrap();
    let id = enqueue(&mut on, &kind, opts.clone()).await.unwrap();
    assert_eq!(enqueue(&mut on, &kind, opts).await.unwrap(), id);
}

#[tokio::test]
async fn a_key_returns_the_live_job() {
    let db = db().await;
    let mut on = db.pool.acquire().await.unwrap();
    let first = enqueue(&mut on, "mail", json!({"key": "k"})).await.unwrap();
    assert_eq!(enqueue(&mut on, "mail", json!({"key": "k", "priority": 1})).await.unwrap(), first);
    assert_ne!(enqueue(&mut on, "fax", json!({"key": "k"})).await.unwrap(), first, "another kind");
    // The slices of these subjects do not matter: a subject's keys are its own.
    let mut ids = std::collections::HashSet::new();
    for n in 0..40 {
        let opts = json!({"key": "k", "subject": format!("app/order/{n}")});
        ids.insert(enqueue(&mut on, "mail", opts).await.unwrap());
    }
    assert_eq!(ids.len(), 40);
    db.sql("DELETE FROM tallylight.job").await;
    assert_ne!(enqueue(&mut on, "mail", json!({"key": "k"})).await.unwrap(), first, "it has ended");
}

#[tokio::test]
async fn a_key_from_many_at_once_is_one_job() {
    let db = db().await;
    for round in 0..10 {
        let calls: Vec<_> = (0..6)
            .map(|_| {
                let pool = db.pool.clone();
                tokio::spawn(async move {
                    let mut on = pool.acquire().await.unwrap();
                    enqueue(&mut on, "mail", json!({"key": format!("k{round}")})).await.unwrap()
                })
            })
            .collect();
        let mut ids = std::collections::HashSet::new();
        for call in calls {
            ids.insert(call.await.unwrap());
        }
        assert_eq!(ids.len(), 1);
    }
    assert_eq!(db.number("SELECT count(*) FROM tallylight.job").await, 10);
}

#[tokio::test]
async fn a_job_that_ends_while_its_key_is_looked_up_is_replaced() {
    let db = db().await;
    let mut on = db.pool.acquire().await.unwrap();
    let first = enqueue(&mut on, "mail", json!({"key": "k"})).await.unwrap();
    // It ends right after the insert that met its key.
    let ending = format!(
        "CREATE FUNCTION end_it() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN DELETE FROM tallylight.job WHERE id = '{first}'; RETURN NULL; END $$;
         CREATE TRIGGER end_it AFTER INSERT ON tallylight.job FOR EACH STATEMENT EXECUTE FUNCTION end_it()"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(ending)).execute(&db.pool).await.unwrap();
    let second = enqueue(&mut on, "mail", json!({"key": "k"})).await.unwrap();
    let live: Vec<Uuid> =
        sqlx::query_scalar("SELECT id FROM tallylight.job").fetch_all(&db.pool).await.unwrap();
    assert_ne!(second, first);
    assert_eq!(live, [second], "a returned id is always that of a job");
}

#[tokio::test]
async fn an_open_transaction_holds_up_nobody_but_its_own_key() {
    let db = db().await;
    let mut open = db.pool.begin().await.unwrap();
    let opts = json!({"key": "k", "subject": "app/order/1"});
    let first = enqueue(&mut open, "mail", opts.clone()).await.unwrap();
    let mut on = db.pool.acquire().await.unwrap();
    // Same slice, even same subject: no wait.
    enqueue(&mut on, "mail", json!({"key": "other", "subject": "app/order/1"})).await.unwrap();
    enqueue(&mut on, "mail", json!({"subject": "app/order/1"})).await.unwrap();
    let subject = Subject::from_stored("app/order/1".to_owned());
    db.store.append_one(crate::support::event(&subject, "")).await.unwrap();

    let same = tokio::spawn(async move { enqueue(&mut on, "mail", opts).await.unwrap() });
    db.blocked(1).await;
    open.commit().await.unwrap();
    assert_eq!(same.await.unwrap(), first);
}

#[tokio::test]
async fn a_rolled_back_job_was_never_there() {
    let db = db().await;
    let mut open = db.pool.begin().await.unwrap();
    let first = enqueue(&mut open, "mail", json!({"key": "k"})).await.unwrap();
    let mut on = db.pool.acquire().await.unwrap();
    let second =
        tokio::spawn(async move { enqueue(&mut on, "mail", json!({"key": "k"})).await.unwrap() });
    db.blocked(1).await;
    open.rollback().await.unwrap();
    let second = second.await.unwrap();
    assert_ne!(second, first);
    assert_eq!(db.number("SELECT count(*) FROM tallylight.job").await, 1);
}
