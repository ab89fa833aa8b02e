//! Least privilege: each program's role may do its work and nothing else.

use std::collections::BTreeSet;

use domain::ids::Subject;
use domain::personal::Pseudonym;
use serde_json::json;
use sqlx::{Executor, PgPool};
use store::Consumer::{Jobs, React};
use store::{
    Config, Ending, EnqueueOptions, Error, Finish, Page, Reaction, SealingKey, SessionFilter,
    Store, migrate,
};
use uuid::Uuid;

use crate::support::{Db, LONG, db, event, login, subject_in};

/// Tables of ours.
const TABLES: [&str; 27] = [
    "installation",
    "slice_head",
    "event",
    "event_default",
    "event_key",
    "process",
    "checkpoint",
    "parked",
    "job",
    "job_dead",
    "job_key",
    "job_step",
    "job_child",
    "event_wait",
    "job_pause",
    "subject_state",
    "session_request",
    "session",
    "live_stream",
    "sealed",
    "account_key",
    "rate_bucket",
    "schedule",
    "schedule_fire",
    "endpoint",
    "segment",
    "migration",
];

/// Whether a statement is refused for want of a privilege.
async fn is_denied(pool: &PgPool, statement: &str) -> bool {
    let mut tx = pool.begin().await.unwrap();
    match tx.execute(sqlx::AssertSqlSafe(statement.to_owned())).await {
        Ok(_) => false,
        Err(error) => {
            let code = error.as_database_error().unwrap().code().unwrap().into_owned();
            assert!(code == "42501", "{statement}: {error}");
            let text = error.to_string();
            assert!(!text.contains("append-only"), "{statement}: the second wall, not the first");
            true
        }
    }
}

async fn assert_denied(pool: &PgPool, group: &str, statements: &[String]) {
    for statement in statements {
        assert!(is_denied(pool, statement).await, "{group} may: {statement}");
    }
}

const ENQUEUE: &str = "SELECT tallylight.enqueue('a_job')";
const APPEND: &str = "SELECT tallylight.append(0::smallint, NULL, '{}', '{}', '{}', '{}', NULL, '{}', '{}', '{}', '{}', '{}')";

#[tokio::test]
async fn no_role_changes_a_stored_event() {
    let db = db().await;
    for group in ["ingest", "worker", "api", "producer", "readonly"] {
        let pool = PgPool::connect(&login(&db, group).await).await.unwrap();
        let mut denied = Vec::new();
        for table in ["event", "event_default", "slice_head", "event_key", "installation"] {
            denied.push(format!("DELETE FROM tallylight.{table}"));
            denied.push(format!("TRUNCATE tallylight.{table}"));
        }
        denied.push("UPDATE tallylight.event SET payload = ''".to_owned());
        denied.push("UPDATE tallylight.slice_head SET position = 0".to_owned());
        denied.push("INSERT INTO tallylight.event DEFAULT VALUES".to_owned());
        denied.push(
            "INSERT INTO tallylight.event_key VALUES (0, gen_random_uuid(), now())".to_owned(),
        );
        denied.push("ALTER TABLE tallylight.event DISABLE TRIGGER ALL".to_owned());
        denied.push("DROP TABLE tallylight.event".to_owned());
        denied.push("CREATE TABLE tallylight.mine (n int)".to_owned());
        denied.push(
            "CREATE FUNCTION tallylight.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'".to_owned(),
        );
        denied.push("SELECT tallylight.ensure_roles()".to_owned());
        denied.push("SELECT * FROM tallylight.migration".to_owned());
        assert_denied(&pool, group, &denied).await;
    }
}

/// All that can be tried on a table.
fn everything_on(tables: &[&str]) -> Vec<String> {
    let tries = |table: &&str| {
        [
            format!("SELECT * FROM tallylight.{table}"),
            format!("INSERT INTO tallylight.{table} DEFAULT VALUES"),
            format!("DELETE FROM tallylight.{table}"),
            format!("TRUNCATE tallylight.{table}"),
        ]
    };
    tables.iter().flat_map(tries).collect()
}

#[tokio::test]
async fn a_producer_can_enqueue_and_nothing_else() {
    let db = db().await;
    let pool = PgPool::connect(&login(&db, "producer").await).await.unwrap();
    pool.execute(ENQUEUE).await.unwrap();
    let mut denied = everything_on(&TABLES);
    denied.push(APPEND.to_owned());
    denied.push("SELECT tallylight.ensure_partitions(1)".to_owned());
    denied.push("SELECT tallylight.slice_of('x', 16::smallint)".to_owned());
    denied.push("SELECT tallylight.check_enqueue('x', '{}', '{}')".to_owned());
    assert_denied(&pool, "producer", &denied).await;
    assert_eq!(db.number("SELECT count(*) FROM tallylight.job").await, 1);
}

#[tokio::test]
async fn ingest_can_append_and_nothing_else() {
    let db = db().await;
    let url = login(&db, "ingest").await;
    let store = Store::connect(&Config::new(url.as_str())).await.unwrap();
    let subject = subject_in(&store, 0);
    store.append(0, Some(Uuid::now_v7()), &[event(&subject, "")]).await.unwrap();
    store.ping().await.unwrap();
    let pool = PgPool::connect(&url).await.unwrap();
    let others: Vec<&str> = TABLES.into_iter().filter(|table| *table != "installation").collect();
    let mut denied = everything_on(&others);
    denied.push(ENQUEUE.to_owned());
    denied.push("SELECT tallylight.ensure_partitions(1)".to_owned());
    denied.push("UPDATE tallylight.installation SET slices = 4".to_owned());
    assert_denied(&pool, "ingest", &denied).await;
}

#[tokio::test]
async fn readonly_reads_all_but_secrets() {
    let db = db().await;
    let pool = PgPool::connect(&login(&db, "readonly").await).await.unwrap();
    let hidden = ["sealed", "account_key", "endpoint", "migration", "event_key", "job_key"];
    for table in TABLES.iter().filter(|table| !hidden.contains(table)) {
        let select = format!("SELECT * FROM tallylight.{table}");
        pool.execute(sqlx::AssertSqlSafe(select)).await.unwrap();
        let write = format!("INSERT INTO tallylight.{table} DEFAULT VALUES");
        assert_denied(&pool, "readonly", &[write, format!("DELETE FROM tallylight.{table}")]).await;
    }
    let mut denied = everything_on(&hidden);
    denied.extend([ENQUEUE, APPEND].map(str::to_owned));
    assert_denied(&pool, "readonly", &denied).await;
}

#[tokio::test]
async fn a_worker_does_all_of_its_work() {
    let db = db().await;
    let url = login(&db, "worker").await;
    let store = Store::connect(&Config::new(url.as_str())).await.unwrap();
    let process = Uuid::now_v7();
    store.heartbeat(process, "h", "1", LONG).await.unwrap();
    let react = store.claim(React, 1, process, LONG).await.unwrap().unwrap();
    let jobs = store.claim(Jobs, 1, process, LONG).await.unwrap().unwrap();
    let subject = subject_in(&store, 1);
    let intent = Uuid::now_v7();
    let mut job = crate::jobs::job(&subject, domain::ids::Timestamp::default(), 2);
    job.once_for = Some(intent);
    let id = job.id;
    let reaction = Reaction {
        to: 0,
        jobs: vec![job],
        events: vec![event(&subject, "").with_key(intent)],
        ..Reaction::default()
    };
    store.commit_reaction(&react, &reaction, LONG).await.unwrap();
    store.renew(React, &[(1, react.epoch)], LONG).await.unwrap();
    assert_eq!(store.due_jobs(process, None, 5, "").await.unwrap().len(), 1);
    store.mark_started(1, jobs.epoch, &[id]).await.unwrap();
    let ending = Ending::Discarded { error: "no".to_owned() };
    store
        .finish(
            1,
            jobs.epoch,
            &[Finish { id, attempt: 1, ending, events: vec![event(&subject, "")] }],
        )
        .await
        .unwrap();
    store.retry_dead(id).await.unwrap();
    store.enqueue("a_job", &json!({}), &EnqueueOptions::default()).await.unwrap();
    let key = SealingKey::new([1; 32]);
    fire_schedules(&db, &store).await;
    crate::endpoints::as_worker(&db, &store).await;
    store.seal(&key, &subject, b"1").await.unwrap();
    store.seal(&key, &subject, b"2").await.unwrap();
    store.unseal(&key, &subject).await.unwrap();
    move_strays(&db, &store).await;
    let any = BTreeSet::from([Pseudonym(Uuid::nil())]);
    store.keyring(Some(&key), &any).await.unwrap();
    let denied =
        ["DELETE FROM tallylight.account_key", "UPDATE tallylight.account_key SET made_at = now()"];
    let pool = PgPool::connect(&url).await.unwrap();
    assert_denied(&pool, "worker", &denied.map(str::to_owned)).await;
    keep_history(&db, &store).await;
    store.verify_slice(1).await.unwrap();
    store.rebuild_status().await.unwrap();
    store.digest().await.unwrap();
    store.health_facts().await.unwrap();
    store.slice_status().await.unwrap();
    crate::cleanup::as_worker(&store).await;
    store.awaited_sessions("main").await.unwrap();
    store.listen().await.unwrap();
    store.release(React, 1, react.epoch).await.unwrap();
    store.leave(process).await.unwrap();
}

/// What a worker does with schedules; it changes none by itself.
async fn fire_schedules(db: &Db, store: &Store) {
    db.store.put_schedule(&crate::schedules::nightly()).await.unwrap();
    db.sql("UPDATE tallylight.schedule SET next_fire_at = now() - interval '2 days'").await;
    let process = Uuid::now_v7();
    let slice = store.slice_of(&Subject::schedule("nightly"));
    let lease = store.claim(Jobs, slice, process, LONG).await.unwrap().unwrap();
    let due = store.due_schedules(process, 1).await.unwrap().pop().unwrap();
    let fire = crate::schedules::fire(&due);
    store.fire_schedule(slice, lease.epoch, &fire).await.unwrap().unwrap();
    store.next_fire_in(process).await.unwrap();
    store.forget_fires(LONG, std::time::Instant::now() + LONG).await.unwrap();
    store.release(Jobs, slice, lease.epoch).await.unwrap();
}

/// What the `maintain` job does about partitions.
async fn move_strays(db: &Db, store: &Store) {
    db.sql(
        "UPDATE tallylight.slice_head SET last_at = now() + interval '300 days' WHERE slice = 2",
    )
    .await;
    store.append_one(event(&subject_in(store, 2), "far ahead")).await.unwrap();
    let done = store.ensure_partitions(std::time::Instant::now() + LONG).await.unwrap();
    assert_eq!((done.made, done.moved, done.is_complete), (1, 1, true));
}

/// What the `maintain` job does beyond partitions.
async fn keep_history(db: &Db, store: &Store) {
    let soon = std::time::Instant::now() + LONG;
    store.forget_keys(store::MIN_KEY_AGE, soon).await.unwrap();
    store.measure_history().await.unwrap();
    db.sql("CREATE TABLE tallylight.event_2020_02 PARTITION OF tallylight.event FOR VALUES FROM ('2020-02-01') TO ('2020-03-01')").await;
    let sealed = store.seal_due(LONG, soon).await.unwrap();
    assert_eq!(sealed.months, 1, "an empty month just leaves");
}

#[tokio::test]
async fn the_api_reads_commands_and_enqueues() {
    let db = db().await;
    let url = login(&db, "api").await;
    let store = Store::connect(&Config::new(url.as_str())).await.unwrap();
    let subject = Subject::request("main", Uuid::now_v7());
    store.append_one(event(&subject, "")).await.unwrap();
    store.read_subject(&subject, 0, 5).await.unwrap();
    store.enqueue("a_job", &json!({}), &EnqueueOptions::default()).await.unwrap();
    store.put_schedule(&crate::schedules::nightly()).await.unwrap();
    store.run_schedule("nightly").await.unwrap();
    store.pause_schedule("nightly").await.unwrap();
    store.resume_schedule("nightly").await.unwrap();
    store.schedule_fires("nightly", 1).await.unwrap();
    store.remove_schedule("nightly").await.unwrap();
    store.sessions(&SessionFilter::default(), &Page { limit: 5, before: None }).await.unwrap();
    store.live_streams(None, None, None, 5).await.unwrap();
    store.dead_jobs(5).await.unwrap();
    store.job_counts().await.unwrap();
    store.slice_status().await.unwrap();
    store.health_facts().await.unwrap();
    let key = SealingKey::new([1; 32]);
    store.unseal(&key, &subject).await.unwrap();
    store.account_key(&key, "user-17").await.unwrap();
    store.holdings("user-17").await.unwrap();
    crate::endpoints::as_api(&store).await;
    let sources = ["main".to_owned()];
    let at = domain::ids::Timestamp::default();
    store.erase_account("user-17", &sources, at, &json!({})).await.unwrap().unwrap();
    let pool = PgPool::connect(&url).await.unwrap();
    let denied = [
        "UPDATE tallylight.checkpoint SET epoch = 9",
        "DELETE FROM tallylight.job",
        "UPDATE tallylight.job SET args = '{}'",
        "DELETE FROM tallylight.sealed",
        "UPDATE tallylight.session SET status = 'x'",
        "SELECT tallylight.ensure_partitions(1)",
        "SELECT tallylight.drop_sealed('event_2020_02')",
        "SELECT tallylight.forget_keys(0::smallint, gen_random_uuid(), 'epoch', 1)",
    ];
    assert_denied(&pool, "api", &denied.map(str::to_owned)).await;
}

#[tokio::test]
async fn functions_with_rights_of_their_own_cannot_be_tricked() {
    let db = db().await;
    let loose = db
        .number(
            "SELECT count(*) FROM pg_proc p WHERE pronamespace = 'tallylight'::regnamespace AND prosecdef
                AND NOT coalesce('search_path=pg_catalog, pg_temp' = ANY (proconfig), false)",
        )
        .await;
    assert_eq!(loose, 0, "a fixed path, temporary objects last");
    let public = db
        .number(
            "SELECT count(*) FROM pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
              WHERE pronamespace = 'tallylight'::regnamespace AND a.grantee = 0",
        )
        .await;
    assert_eq!(public, 0, "none for everybody");

    // Names that our functions use, taken by a caller in the place that is looked at first.
    let trap = "
        SET search_path = pg_temp, pg_catalog, tallylight;
        CREATE TEMP TABLE installation (id uuid, slices smallint);
        INSERT INTO installation VALUES (gen_random_uuid(), 1::smallint);
        CREATE TEMP TABLE job (LIKE pg_catalog.pg_class);
        CREATE TEMP TABLE slice_head (slice smallint, position bigint, last_at timestamptz);
        CREATE TEMP TABLE event (slice smallint);
        CREATE DOMAIN pg_temp.uuid AS text CHECK (false);
        CREATE FUNCTION pg_temp.gen_random_uuid() RETURNS pg_catalog.uuid LANGUAGE plpgsql AS
          'BEGIN RAISE EXCEPTION ''trapped''; END';
        CREATE FUNCTION pg_temp.jsonb_typeof(jsonb) RETURNS text LANGUAGE plpgsql AS
          'BEGIN RAISE EXCEPTION ''trapped''; END';
        CREATE FUNCTION pg_temp.slice_of(text, smallint) RETURNS smallint LANGUAGE sql AS 'SELECT 1::smallint';
        CREATE FUNCTION pg_temp.eq(text, text) RETURNS boolean LANGUAGE plpgsql AS
          'BEGIN RAISE EXCEPTION ''trapped''; END';
        CREATE OPERATOR pg_temp.= (LEFTARG = text, RIGHTARG = text, FUNCTION = pg_temp.eq);
        CREATE OPERATOR pg_temp.!~ (LEFTARG = text, RIGHTARG = text, FUNCTION = pg_temp.eq);";
    let producer = PgPool::connect(&login(&db, "producer").await).await.unwrap();
    let mut on = producer.acquire().await.unwrap();
    sqlx::raw_sql(trap).execute(&mut *on).await.unwrap();
    on.execute(
        "SELECT tallylight.enqueue('a_job', '{}', '{\"subject\": \"s/1\", \"key\": \"k\"}')",
    )
    .await
    .unwrap();
    on.execute(
        "SELECT tallylight.enqueue('a_job', '{}', '{\"subject\": \"s/1\", \"key\": \"k\"}')",
    )
    .await
    .unwrap();
    let slice = db.store.slice_of(&Subject::from_stored("s/1".to_owned()));
    let lies: i16 =
        sqlx::query_scalar("SELECT slice FROM tallylight.job").fetch_one(&db.pool).await.unwrap();
    assert_eq!(lies, slice);

    let ingest = PgPool::connect(&login(&db, "ingest").await).await.unwrap();
    let mut on = ingest.acquire().await.unwrap();
    sqlx::raw_sql(trap).execute(&mut *on).await.unwrap();
    on.execute(
        "SELECT tallylight.append(3::smallint, NULL, ARRAY[pg_catalog.gen_random_uuid()], '{a}', '{T}', '{1}', NULL,
                ARRAY[pg_catalog.now()], '{NULL}', '{NULL}', '{NULL}', ARRAY['x'::pg_catalog.bytea])",
    )
    .await
    .unwrap();
    assert_eq!(db.head(3).await, 1);
}

#[tokio::test]
async fn a_migrator_that_may_not_create_roles_migrates_all_the_same() {
    let db = db().await;
    let own = format!("migrator_{}", Uuid::now_v7().simple());
    let database = format!("owned_{}", Uuid::now_v7().simple());
    // The group roles belong to the cluster and are there by now, so their creation is forbidden here.
    for statement in [
        format!("CREATE ROLE {own} LOGIN PASSWORD 'secret' NOCREATEROLE"),
        format!("CREATE DATABASE {database} OWNER {own}"),
    ] {
        db.pool.execute(sqlx::AssertSqlSafe(statement)).await.unwrap();
    }
    let (_, server) = db.url.rsplit_once('@').unwrap();
    let (server, _) = server.rsplit_once('/').unwrap();
    let url = format!("postgres://{own}:secret@{server}/{database}");
    migrate(&Config::new(url.as_str()), None).await.unwrap();
    let pool = PgPool::connect(&url).await.unwrap();
    let made: bool = sqlx::query_scalar("SELECT tallylight.ensure_role('tallylight_nobody')")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert!(!made, "it is told, and nothing fails");
    let store = Store::connect(&Config::new(url.as_str())).await.unwrap();
    store.append_one(event(&subject_in(&store, 0), "")).await.unwrap();
    drop(pool);
}

#[tokio::test]
async fn a_role_without_rights_is_told_so() {
    let db = db().await;
    let url = login(&db, "producer").await;
    let error = Store::connect(&Config::new(url.as_str())).await.unwrap_err();
    assert!(matches!(error, Error::Database { .. }), "{error:?}");
    assert!(!error.is_transient());
}
