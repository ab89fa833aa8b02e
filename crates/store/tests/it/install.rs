//! Migrating, connecting, and what is said where that fails.

use std::time::{Duration, Instant};

use domain::slice::SliceCount;
use secrecy::ExposeSecret;
use serde_json::json;
use sqlx::{Connection, PgConnection, PgPool};
use store::{
    Config, Consumer, EnqueueOptions, Error, Store, create_database, drop_database, idle_databases,
    migrate, migrate_restored,
};
use uuid::Uuid;

use crate::support::{Db, LONG, db, until};

/// The address of another database of the test cluster.
fn sibling(url: &str, name: &str) -> Config {
    let (server, _) = url.rsplit_once('/').unwrap();
    Config::new(format!("{server}/{name}"))
}

/// An empty database of its own.
async fn empty() -> Config {
    let url = store::testing::database().await;
    let config = sibling(&url, &format!("empty_{}", Uuid::now_v7().simple()));
    assert!(create_database(&config).await.unwrap());
    config
}

async fn plain(config: &Config) -> PgPool {
    PgPool::connect(config.url.expose_secret()).await.unwrap()
}

#[tokio::test]
async fn an_empty_database_is_not_migrated() {
    let config = empty().await;
    let error = Store::connect(&config).await.unwrap_err();
    assert!(matches!(error, Error::NotMigrated), "{error}");
    assert!(error.to_string().contains("tallylight migrate"));
}

#[tokio::test]
async fn migrating_twice_changes_nothing() {
    let config = empty().await;
    let first = migrate(&config, SliceCount::new(8)).await.unwrap();
    assert!(first.is_new);
    let second = migrate(&config, None).await.unwrap();
    assert_eq!(
        (second.installation, second.slices, second.is_new),
        (first.installation, first.slices, false)
    );
    let store = Store::connect(&config).await.unwrap();
    assert_eq!((store.installation(), store.slices().get()), (first.installation, 8));
    assert_eq!(store.heads(&[0, 7, 8]).await.unwrap(), [(0, 0), (7, 0)]);
    assert_eq!(store.slice_status().await.unwrap().len(), 8);
}

#[tokio::test]
async fn a_restored_schema_begins_a_new_incarnation_that_nothing_of_the_former_reaches() {
    let db = db().await;
    let former = db.claim(Consumer::Jobs, 0).await;
    let none = EnqueueOptions::default();
    let never_started = db.store.enqueue("a_job", &json!({}), &none).await.unwrap();
    // As a restore leaves it: another schema than the row was made in, everybody may execute.
    db.sql("UPDATE tallylight.installation SET schema_oid = 1").await;
    db.sql("GRANT EXECUTE ON FUNCTION tallylight.append TO PUBLIC").await;
    let config = Config::new(db.url.as_str());
    let error = Store::connect(&config).await.unwrap_err();
    assert!(matches!(error, Error::Restored), "{error}");
    assert!(error.to_string().contains("`tallylight migrate`"), "{error}");

    let migrated = migrate(&config, None).await.unwrap();
    assert!(migrated.is_restored && !migrated.is_new);
    assert_eq!(migrated.installation, db.store.installation());
    assert_ne!(Some(migrated.incarnation), db.store.incarnation());
    let store = Store::connect(&config).await.unwrap();
    assert_eq!(store.incarnation(), Some(migrated.incarnation));
    assert!(!migrate(&config, None).await.unwrap().is_restored, "once");

    // Fenced by its epoch on a connection that it has; it gets no new one.
    let renewed = db.store.renew(Consumer::Jobs, &[(0, former.epoch)], LONG).await;
    assert!(renewed.unwrap_or_default().is_empty());
    let db = crate::support::Db { store: store.clone(), ..db };
    // A process of the former incarnation may have claimed more often since the backup.
    let later = former.epoch + 1_000_000;
    let lease = db.claim(Consumer::Jobs, 0).await;
    assert!(lease.epoch > later, "{}", lease.epoch);
    // Either may have been run in what the backup does not tell of.
    let enqueued_now = store.enqueue("a_job", &json!({}), &none).await.unwrap();
    for id in [never_started, enqueued_now] {
        let slice = store.slice_of(&domain::ids::Subject::job(id));
        let epoch =
            if slice == 0 { lease.epoch } else { db.claim(Consumer::Jobs, slice).await.epoch };
        let started = store.mark_started(slice, epoch, &[id]).await.unwrap();
        assert_eq!(started[0].attempt, 2, "it looks first");
        db.sql("UPDATE tallylight.checkpoint SET owner = NULL").await;
    }
    let public = db
        .number(
            "SELECT count(*) FROM pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
              WHERE pronamespace = 'tallylight'::regnamespace AND a.grantee = 0",
        )
        .await;
    assert_eq!(public, 0);
}

#[tokio::test]
async fn a_backup_from_before_incarnations_begins_one_when_it_is_restored() {
    let db = db().await;
    let former = db.claim(Consumer::Jobs, 0).await;
    // As `pg_restore` leaves what an older version had dumped.
    for statement in [
        "DROP FUNCTION tallylight.begin_incarnation()",
        "ALTER TABLE tallylight.installation DROP COLUMN incarnation, DROP COLUMN schema_oid",
        "DELETE FROM tallylight.migration WHERE version = 20261122150200",
        "UPDATE tallylight.installation SET migrated_to = 20261122150100",
    ] {
        db.sql(statement).await;
    }
    let config = Config::new(db.url.as_str());
    let migrated = migrate_restored(&config).await.unwrap();
    assert!(migrated.is_restored && !migrated.is_new);
    // Who was connected before is refused from now on.
    let db = Db { store: Store::connect(&config).await.unwrap(), ..db };
    let renewed = db.store.renew(Consumer::Jobs, &[(0, former.epoch)], LONG).await.unwrap();
    assert!(renewed.is_empty(), "nobody holds what was held when the backup was made");
    assert!(db.claim(Consumer::Jobs, 0).await.epoch > former.epoch + 1_000_000);
    assert!(!migrate(&config, None).await.unwrap().is_restored, "once");
}

#[tokio::test]
async fn the_number_of_slices_is_fixed() {
    let config = empty().await;
    migrate(&config, SliceCount::new(8)).await.unwrap();
    migrate(&config, SliceCount::new(8)).await.unwrap();
    let error = migrate(&config, SliceCount::new(16)).await.unwrap_err();
    assert!(matches!(error, Error::SlicesFixed { wanted: 16, present: 8 }), "{error}");
    assert_eq!(Store::connect(&config).await.unwrap().heads(&[8]).await.unwrap(), []);
}

#[tokio::test]
async fn many_migrate_at_once_to_one_installation() {
    let config = empty().await;
    let all: Vec<_> = (0..4)
        .map(|_| {
            let config = config.clone();
            tokio::spawn(async move { migrate(&config, None).await.unwrap() })
        })
        .collect();
    let mut made = Vec::new();
    for one in all {
        made.push(one.await.unwrap());
    }
    assert!(made.iter().all(|m| m.installation == made[0].installation));
    assert_eq!(made.iter().filter(|m| m.is_new).count(), 1);
}

#[tokio::test]
async fn a_migration_waits_for_its_turn_however_long() {
    let config = empty().await;
    let pool = plain(&config).await;
    let mut other = pool.acquire().await.unwrap();
    sqlx::query("SELECT pg_advisory_lock(x'74616c6c796c6967'::bigint)")
        .execute(&mut *other)
        .await
        .unwrap();
    let migrating = tokio::spawn(async move { migrate(&config, None).await });
    crate::support::until(async || {
        let limits: Option<String> = sqlx::query_scalar(
            "SELECT wait_event FROM pg_stat_activity
              WHERE datname = current_database() AND wait_event = 'advisory'",
        )
        .fetch_optional(&pool)
        .await
        .unwrap();
        limits
    })
    .await;
    other.close().await.unwrap();
    assert!(migrating.await.unwrap().unwrap().is_new);
}

#[tokio::test]
async fn a_products_own_migrations_are_not_met() {
    let config = empty().await;
    let pool = plain(&config).await;
    sqlx::raw_sql(
        "CREATE TABLE _sqlx_migrations (version bigint PRIMARY KEY, description text NOT NULL,
           installed_on timestamptz NOT NULL DEFAULT now(), success boolean NOT NULL, checksum bytea NOT NULL,
           execution_time bigint NOT NULL);
         INSERT INTO _sqlx_migrations VALUES (20261122100000, 'orders', now(), true, 'x', 1);
         CREATE TABLE job (id int); CREATE TABLE event (id int)",
    )
    .execute(&pool)
    .await
    .unwrap();
    migrate(&config, None).await.unwrap();
    let theirs: i64 =
        sqlx::query_scalar("SELECT count(*) FROM _sqlx_migrations").fetch_one(&pool).await.unwrap();
    assert_eq!(theirs, 1);
    Store::connect(&config).await.unwrap();
}

#[tokio::test]
async fn tables_of_an_older_version_are_not_migrated_and_newer_ones_are() {
    let db = db().await;
    db.sql("UPDATE tallylight.installation SET migrated_to = migrated_to + 1").await;
    Store::connect(&Config::new(db.url.as_str())).await.unwrap();
    db.sql("UPDATE tallylight.installation SET migrated_to = migrated_to - 2").await;
    let error = Store::connect(&Config::new(db.url.as_str())).await.unwrap_err();
    assert!(matches!(error, Error::NotMigrated), "{error}");
    migrate(&Config::new(db.url.as_str()), None).await.unwrap();
    Store::connect(&Config::new(db.url.as_str())).await.unwrap();
}

#[tokio::test]
async fn a_closed_port_is_unreachable_in_time() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let config = Config {
        acquire_timeout: Duration::from_millis(300),
        ..Config::new(format!("postgres://nobody:hunter2@127.0.0.1:{port}/none"))
    };
    let begun = Instant::now();
    for error in
        [Store::connect(&config).await.unwrap_err(), migrate(&config, None).await.unwrap_err()]
    {
        assert!(matches!(error, Error::Unreachable { .. }), "{error}");
        assert!(error.is_transient());
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains("refused"), "{cause}");
        assert!(!format!("{error:?}").contains("hunter2"));
    }
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_full_pool_is_unreachable_in_time() {
    let db = db().await;
    let acquire_timeout = Duration::from_millis(500);
    let one = Config { max_connections: 1, acquire_timeout, ..Config::new(db.url.as_str()) };
    let store = Store::connect(&one).await.unwrap();
    let _work = db.use_up(&store).await;
    let error = store.ping().await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn serving_connections_have_limits_and_broken_ones_are_replaced() {
    let db = db().await;
    db.store.ping().await.unwrap();
    let limited = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                     AND application_name = 'tallylight'";
    assert!(db.number(limited).await >= 1);
    let error = sqlx::query("SELECT").execute(&db.pool).await;
    assert!(error.is_ok());
    // A table that stays locked is given up on, and worth another try.
    let mut other = db.pool.begin().await.unwrap();
    sqlx::query("LOCK tallylight.process").execute(&mut *other).await.unwrap();
    let begun = Instant::now();
    let error = db.store.leave(Uuid::now_v7()).await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    assert!((1..10).contains(&begun.elapsed().as_secs()));
    other.rollback().await.unwrap();
    db.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND application_name = 'tallylight'",
    )
    .await;
    crate::support::until(async || db.store.ping().await.ok()).await;
}

#[tokio::test]
async fn databases_are_made_listed_and_dropped() {
    let url = store::testing::database().await;
    let prefix = format!("demo_{}", Uuid::now_v7().simple());
    let config = sibling(&url, &format!("{prefix}_1"));
    let (one, two) = tokio::join!(create_database(&config), create_database(&config));
    assert!(one.unwrap() != two.unwrap(), "made once");
    let list = async || idle_databases(&sibling(&url, "postgres"), &prefix).await.unwrap();
    crate::support::until(async || (list().await.len() == 1).then_some(())).await;
    let busy = PgConnection::connect(config.url.expose_secret()).await.unwrap();
    assert!(list().await.is_empty(), "somebody is connected");
    drop_database(&config).await.unwrap();
    drop_database(&config).await.unwrap();
    drop(busy);
    assert!(list().await.is_empty());
}

/// Ends the connections of our programs to a database.
async fn cut(db: &crate::support::Db) {
    db.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
          WHERE datname = current_database() AND application_name = 'tallylight'",
    )
    .await;
}

#[tokio::test]
async fn an_address_that_comes_to_lead_elsewhere_is_refused_until_it_leads_back() {
    let db = db().await;
    // Whoever waits for a connection that is refused waits as long as the pool allows.
    let acquire_timeout = Duration::from_millis(300);
    let config = Config { acquire_timeout, ..Config::new(db.url.as_str()) };
    let store = until(async || Store::connect(&config).await.ok()).await;
    let subject = crate::support::subject_in(&store, 0);
    let append = async || store.append_one(crate::support::event(&subject, "")).await;
    until(async || append().await.ok()).await;
    let changes = [
        ("UPDATE tallylight.installation SET id = gen_random_uuid()", "of installation"),
        ("UPDATE tallylight.installation SET incarnation = gen_random_uuid()", "was restored and"),
        ("UPDATE tallylight.installation SET schema_oid = 1", "`tallylight migrate`"),
        ("UPDATE tallylight.installation SET migrated_to = 1", "`tallylight migrate`"),
        ("DELETE FROM tallylight.installation", "`tallylight migrate`"),
    ];
    db.sql("CREATE TABLE was AS SELECT * FROM tallylight.installation").await;
    for (change, said) in changes {
        db.sql(change).await;
        cut(&db).await;
        let refused = until(async || {
            // The first try may meet a connection that has just been cut; none waits in vain.
            let error = append().await.err()?;
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            assert!(!cause.unwrap_or_default().contains("timed out"), "{change}");
            Some(error).filter(|error| !error.is_transient())
        });
        assert!(refused.await.to_string().contains(said), "{change}");
        let refusal = |error: &Error| !error.is_transient();
        let refused = until(async || store.ping().await.err().filter(refusal)).await;
        assert!(refused.to_string().contains(said), "{change}");
        db.sql("DELETE FROM tallylight.installation").await;
        db.sql("INSERT INTO tallylight.installation SELECT * FROM was").await;
        let head = async || store.heads(&[0]).await.ok();
        let before = until(head).await;
        until(async || append().await.ok()).await;
        let [(_, after)] = until(head).await[..] else { panic!("one slice") };
        assert_eq!(after, before[0].1 + 1, "nothing was written meanwhile");
    }
}
