//! Wake-ups: hints that arrive, few of them, and a listener that survives its connection.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use store::{Config, Hint, Store};
use tokio::time::timeout;

use crate::support::{db, until};

const LIMIT: Duration = Duration::from_secs(20);

#[tokio::test]
async fn who_listens_leaves_the_pool_to_others() {
    let db = db().await;
    let one = Config { max_connections: 1, ..Config::new(db.url.as_str()) };
    let store = Store::connect(&one).await.unwrap();
    let mut wakes = store.listen().await.unwrap();
    store.ping().await.unwrap();
    store.leases_given_back().await.unwrap();
    assert_eq!(wakes.recv().await.unwrap(), Hint::Leases);
}

#[tokio::test]
async fn a_hint_reaches_other_processes() {
    let db = db().await;
    let mut wakes = db.store.listen().await.unwrap();
    let notifier = db.store.notifier();
    for slice in 0..3 {
        notifier.moved(slice);
        timeout(LIMIT, wakes.recv()).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn many_hints_are_few_notifications() {
    let db = db().await;
    let mut plain = sqlx::postgres::PgListener::connect(&db.url).await.unwrap();
    plain.listen("tallylight").await.unwrap();
    let notifier = db.store.notifier();
    let begun = Instant::now();
    let mut hints = 0_u32;
    while begun.elapsed() < Duration::from_millis(300) {
        notifier.moved(i16::try_from(hints % 16).unwrap());
        hints += 1;
        tokio::task::yield_now().await;
    }
    let mut told = BTreeSet::new();
    let mut notifications = 0;
    while let Ok(one) = timeout(Duration::from_millis(500), plain.recv()).await {
        told.extend(one.unwrap().payload().split(',').map(|slice| slice.parse::<i16>().unwrap()));
        notifications += 1;
    }
    assert_eq!(told.len(), 16, "every slice is told");
    let at_most = begun.elapsed().as_millis() / 5 + 2;
    assert!(u128::from(hints) > at_most && notifications <= at_most, "{notifications} of {hints}");
    // Nearly all came while hints came, at one in 5 ms.
    assert!(notifications <= 70, "{notifications}");
}

#[tokio::test]
async fn a_listener_survives_its_connection() {
    let db = db().await;
    let mut wakes = db.store.listen().await.unwrap();
    let killed = db
        .number(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
              WHERE datname = current_database() AND query LIKE 'LISTEN %'",
        )
        .await;
    assert_eq!(killed, 1);
    // It may have missed hints, so it returns: with an answer, or an error after which it is asked again.
    let lost = timeout(LIMIT, wakes.recv()).await.unwrap();
    assert!(
        lost.as_ref().is_ok() || lost.as_ref().is_err_and(store::Error::is_transient),
        "{lost:?}"
    );
    let notifier = db.store.notifier();
    let heard = until(async || {
        notifier.moved(1);
        timeout(Duration::from_millis(100), wakes.recv()).await.ok()
    });
    heard.await.unwrap();
}

#[tokio::test]
async fn a_hint_never_waits() {
    let db = db().await;
    let notifier = db.store.notifier();
    db.store.close().await;
    for _ in 0..100_000 {
        notifier.moved(1);
    }
}
