//! What the tests share: a database, events, and waiting for a condition.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use domain::event::NewEvent;
use domain::ids::{Subject, Timestamp};
use sqlx::{Executor as _, PgPool};
use store::{Config, Consumer, Lease, Store};
use uuid::Uuid;

/// Longest wait for what must come.
const LIMIT: Duration = Duration::from_secs(20);

/// How often a condition is looked at: not as often as can be, since other tests run beside.
const EVERY: Duration = Duration::from_millis(2);

/// A lease that no test outlasts.
pub(crate) const LONG: Duration = Duration::from_mins(10);

/// All slices, as read at this moment.
pub(crate) const READ_NOW: [(i16, Duration); 16] = {
    let mut slices = [(0, Duration::ZERO); 16];
    let mut n = 1;
    while n < 16 {
        slices[n].0 = slices[n - 1].0 + 1;
        n += 1;
    }
    slices
};

/// A database of its own: the store, and a pool for plain SQL.
pub(crate) struct Db {
    pub(crate) store: Store,
    pub(crate) pool: PgPool,
    pub(crate) url: String,
}

/// Makes a migrated database.
pub(crate) async fn db() -> Db {
    let url = store::testing::database().await;
    let store = Store::connect(&Config::new(url.as_str())).await.unwrap();
    let pool = PgPool::connect(&url).await.unwrap();
    Db { store, pool, url }
}

impl Db {
    /// Runs a statement.
    pub(crate) async fn sql(&self, statement: &'static str) -> u64 {
        sqlx::query(statement).execute(&self.pool).await.unwrap().rows_affected()
    }

    /// Asks for one number.
    pub(crate) async fn number(&self, query: &'static str) -> i64 {
        sqlx::query_scalar(query).fetch_one(&self.pool).await.unwrap()
    }

    /// Claims a slice that is free.
    pub(crate) async fn claim(&self, consumer: Consumer, slice: i16) -> Lease {
        self.store.claim(consumer, slice, Uuid::now_v7(), LONG).await.unwrap().expect("it is free")
    }

    /// Ends a lease by the database's clock.
    pub(crate) async fn expire(&self, consumer: Consumer, slice: i16) {
        sqlx::query(
            "UPDATE tallylight.checkpoint SET lease_until = now() - interval '1 second'
              WHERE consumer = $1 AND slice = $2",
        )
        .bind(consumer.name())
        .bind(slice)
        .execute(&self.pool)
        .await
        .unwrap();
    }

    /// Waits until `count` statements of this database wait for a lock.
    pub(crate) async fn blocked(&self, count: i64) {
        until(async || {
            let waiting = self
                .number(
                    "SELECT count(*) FROM pg_stat_activity
                      WHERE datname = current_database() AND wait_event_type = 'Lock'",
                )
                .await;
            (waiting >= count).then_some(())
        })
        .await;
    }

    /// Uses up the pool of a store that has one connection: a statement waits on it for a lock, for
    /// as long as what is returned lives, but no longer than a serving connection waits.
    pub(crate) async fn use_up(&self, store: &Store) -> sqlx::Transaction<'static, sqlx::Postgres> {
        let mut gate = self.pool.begin().await.unwrap();
        let lock = "SELECT FROM tallylight.slice_head FOR UPDATE";
        sqlx::query(lock).execute(&mut *gate).await.unwrap();
        let (store, subject) = (store.clone(), subject_in(&self.store, 0));
        tokio::spawn(async move { store.append_one(event(&subject, "waits")).await });
        self.blocked(1).await;
        gate
    }

    /// The head of a slice.
    pub(crate) async fn head(&self, slice: i16) -> i64 {
        self.store.heads(&[slice]).await.unwrap()[0].1
    }
}

/// Waits until `ask` answers.
pub(crate) async fn until<T>(mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(begun.elapsed() < LIMIT, "waited too long");
        tokio::time::sleep(EVERY).await;
    }
}

/// A subject of its own in a slice.
pub(crate) fn subject_in(store: &Store, slice: i16) -> Subject {
    let own = Uuid::now_v7();
    let mut subjects = (0_i64..).map(|n| Subject::object("test", &own.to_string(), n));
    subjects.find(|subject| store.slice_of(subject) == slice).unwrap()
}

/// An event.
pub(crate) fn event(subject: &Subject, payload: impl Into<Vec<u8>>) -> NewEvent {
    NewEvent {
        event_id: Uuid::now_v7(),
        subject: subject.clone(),
        event_type: "Tested".to_owned(),
        schema_version: 1,
        key: None,
        received_at: Timestamp::from_timestamp(1_700_000_000, 0).unwrap(),
        causation_id: None,
        correlation_id: None,
        meta: None,
        payload: payload.into(),
    }
}

/// An event that is stored once for its key.
pub(crate) fn keyed(subject: &Subject, key: Uuid) -> NewEvent {
    event(subject, "{}").with_key(key)
}

/// A text of that many bytes that does not compress well.
pub(crate) fn digits(bytes: usize) -> String {
    let mut text = String::new();
    for n in 0_u32.. {
        if text.len() >= bytes {
            break;
        }
        text += &n.wrapping_mul(2_654_435_761).to_string();
    }
    text.truncate(bytes);
    text
}

/// Makes a login role in a group and returns the address it connects with.
pub(crate) async fn login(db: &Db, group: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("login_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let create = format!("CREATE ROLE {name} LOGIN PASSWORD 'secret' IN ROLE tallylight_{group}");
    db.pool.execute(sqlx::AssertSqlSafe(create)).await.unwrap();
    let (_, server) = db.url.rsplit_once('@').unwrap();
    format!("postgres://{name}:secret@{server}")
}
