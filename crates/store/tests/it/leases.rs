//! Leases: one owner of a slice, told by the epoch.

use std::time::{Duration, Instant};

use store::Consumer::{Jobs, React};
use store::{Config, Store};
use uuid::Uuid;

use crate::support::{LONG, db, event, subject_in};

#[tokio::test]
async fn of_many_claimers_one_wins() {
    let db = db().await;
    let claims: Vec<_> = (0..8)
        .map(|_| {
            let store = db.store.clone();
            tokio::spawn(async move { store.claim(React, 3, Uuid::now_v7(), LONG).await.unwrap() })
        })
        .collect();
    let mut won = Vec::new();
    for claim in claims {
        won.extend(claim.await.unwrap());
    }
    assert_eq!(won.len(), 1, "{won:?}");
    assert_eq!((won[0].slice, won[0].epoch, won[0].position), (3, 1, 0));
    assert!(
        db.store.claim(Jobs, 3, Uuid::now_v7(), LONG).await.unwrap().is_some(),
        "another lease"
    );
}

#[tokio::test]
async fn a_lease_that_ended_is_taken_over_and_its_epoch_raised() {
    let db = db().await;
    let first = db.claim(React, 0).await;
    assert_eq!(db.store.claim(React, 0, Uuid::now_v7(), LONG).await.unwrap(), None);
    db.expire(React, 0).await;
    let second = db.claim(React, 0).await;
    assert_eq!(second.epoch, first.epoch + 1);
    let held = [(0, first.epoch)];
    assert!(db.store.renew(React, &held, LONG).await.unwrap().is_empty(), "the first lost it");
    db.store.release(React, 0, first.epoch).await.unwrap();
    assert_eq!(db.store.claim(React, 0, Uuid::now_v7(), LONG).await.unwrap(), None, "not released");
}

#[tokio::test]
async fn a_lease_ends_by_itself() {
    let db = db().await;
    let short = Duration::from_millis(50);
    db.store.claim(React, 0, Uuid::now_v7(), short).await.unwrap().unwrap();
    let begun = Instant::now();
    let second = crate::support::until(async || {
        db.store.claim(React, 0, Uuid::now_v7(), LONG).await.unwrap()
    })
    .await;
    assert_eq!(second.epoch, 2);
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn a_renewed_lease_cannot_be_claimed() {
    let db = db().await;
    let (a, b) = (db.claim(React, 1).await, db.claim(React, 2).await);
    db.expire(React, 1).await;
    db.expire(React, 2).await;
    let stale = (2, b.epoch - 1);
    assert_eq!(db.store.renew(React, &[(1, a.epoch), stale], LONG).await.unwrap(), [1]);
    assert_eq!(db.store.claim(React, 1, Uuid::now_v7(), LONG).await.unwrap(), None);
    assert!(db.store.claim(React, 2, Uuid::now_v7(), LONG).await.unwrap().is_some());
    assert!(db.store.renew(Jobs, &[(1, a.epoch)], LONG).await.unwrap().is_empty());
    assert!(db.store.renew(React, &[], LONG).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_released_slice_is_free_at_once_and_not_renewed() {
    let db = db().await;
    let lease = db.claim(Jobs, 4).await;
    db.store.release(Jobs, 4, lease.epoch).await.unwrap();
    assert!(db.store.renew(Jobs, &[(4, lease.epoch)], LONG).await.unwrap().is_empty());
    assert_eq!(db.claim(Jobs, 4).await.epoch, lease.epoch + 1);
}

#[tokio::test]
async fn a_locked_checkpoint_delays_its_own_renewal_alone() {
    let db = db().await;
    let epochs = [db.claim(React, 0).await.epoch, db.claim(React, 1).await.epoch];
    let held = [(0, epochs[0]), (1, epochs[1])];
    let mut other = db.pool.begin().await.unwrap();
    sqlx::query(
        "SELECT FROM tallylight.checkpoint WHERE consumer = 'react' AND slice = 0 FOR UPDATE",
    )
    .execute(&mut *other)
    .await
    .unwrap();
    db.expire(React, 1).await;
    let store = db.store.clone();
    let renewing = tokio::spawn(async move { store.renew(React, &held, LONG).await.unwrap() });
    db.blocked(1).await;
    let free = "SELECT count(*) FROM tallylight.checkpoint
                 WHERE consumer = 'react' AND slice = 1 AND lease_until > now()";
    assert_eq!(db.number(free).await, 1, "the other one is renewed already");
    // Longer than anybody waits for a lock: it counts as held, since its epoch is ours.
    let mut renewed = renewing.await.unwrap();
    renewed.sort_unstable();
    assert_eq!(renewed, [0, 1]);
    other.rollback().await.unwrap();
}

#[tokio::test]
async fn the_living_are_those_seen_lately() {
    let db = db().await;
    let (a, b) = (Uuid::now_v7(), Uuid::now_v7());
    db.store.heartbeat(a, "h", "1", LONG).await.unwrap();
    assert_eq!(db.store.heartbeat(b, "h", "1", LONG).await.unwrap(), [a, b]);
    db.sql("UPDATE tallylight.process SET seen_at = now() - interval '1 hour'").await;
    assert_eq!(db.store.heartbeat(b, "h", "1", LONG).await.unwrap(), [b]);
    db.store.leave(b).await.unwrap();
    assert_eq!(db.store.heartbeat(a, "h", "1", LONG).await.unwrap(), [a]);
}

#[tokio::test]
async fn progress_and_owners_are_told_per_slice() {
    let db = db().await;
    let subject = subject_in(&db.store, 6);
    db.store.append_one(event(&subject, "")).await.unwrap();
    let process = Uuid::now_v7();
    db.store.claim(React, 6, process, LONG).await.unwrap().unwrap();
    let status = db.store.slice_status().await.unwrap();
    assert_eq!(status.len(), 16);
    let six = &status[6];
    assert_eq!((six.slice, six.head, six.position, six.owner), (6, 1, 0, Some(process)));
    assert_eq!(status[7].owner, None);
    db.expire(React, 6).await;
    let status = db.store.slice_status().await.unwrap();
    assert_eq!(status[6].owner, None, "a dead process owns nothing");
}

#[tokio::test]
async fn leases_are_renewed_while_work_has_all_connections() {
    let db = db().await;
    let acquire_timeout = Duration::from_millis(500);
    let config = Config::new(db.url.as_str());
    let store =
        Store::connect(&Config { max_connections: 1, acquire_timeout, ..config }).await.unwrap();
    let process = Uuid::now_v7();
    let lease = store.claim(React, 0, process, LONG).await.unwrap().unwrap();
    let _work = db.use_up(&store).await;
    assert!(store.ping().await.is_err(), "no connection is left");
    store.heartbeat(process, "host", "1", LONG).await.unwrap();
    let renewed = store.renew(React, &[(0, lease.epoch)], LONG).await.unwrap();
    assert_eq!(renewed.len(), 1);
    store.release(React, 0, lease.epoch).await.unwrap();
    store.leave(process).await.unwrap();
}
