//! Rates that the fleet shares: never more than the bucket holds and what has come back since,
//! whoever takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use store::{Bucket, Config, EnqueueOptions, Error, Store};

use crate::support::{db, until};

fn bucket(name: &str, capacity: f64, per_second: f64) -> Bucket {
    Bucket { name: name.to_owned(), capacity, per_second }
}

/// Takes as fast as it can until all takers together have taken `enough`.
async fn take(store: Store, bucket: Bucket, wanted: u32, taken: Arc<AtomicU32>, enough: u32) {
    while taken.load(Ordering::Relaxed) < enough {
        let tokens = store.take_tokens(&bucket, wanted).await.unwrap();
        taken.fetch_add(tokens.granted, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_takers_together_get_what_the_rate_allows_and_no_more() {
    let db = db().await;
    let (capacity, per_second) = (5.0, 40.0);
    let bucket = bucket("source/a", capacity, per_second);
    let taken = Arc::new(AtomicU32::new(0));
    let begun = Instant::now();
    let mut takers = Vec::new();
    for n in 0..12 {
        // Each is a process of its own.
        let store = Store::connect(&Config::new(db.url.as_str())).await.unwrap();
        let taken = Arc::clone(&taken);
        takers.push(tokio::spawn(take(store, bucket.clone(), 1 + n % 2, taken, 60)));
    }
    for taker in takers {
        taker.await.unwrap();
    }
    let most = capacity + per_second * begun.elapsed().as_secs_f64();
    let taken = taken.load(Ordering::Relaxed);
    assert!(taken >= 60 && f64::from(taken) <= most, "{taken} of at most {most}");
}

#[tokio::test]
async fn an_empty_bucket_tells_when_it_has_a_token_again() {
    let db = db().await;
    let bucket = bucket("b", 2.0, 0.1);
    let taken = db.store.take_tokens(&bucket, 5).await.unwrap();
    assert_eq!(taken.granted, 2, "it begins full");
    assert!(taken.next_in > Duration::from_secs(9) && taken.next_in <= Duration::from_secs(10));
    let again = db.store.take_tokens(&bucket, 1).await.unwrap();
    assert!(again.granted == 0 && again.next_in <= taken.next_in, "{again:?}");
    db.sql("UPDATE tallylight.rate_bucket SET refilled_at = refilled_at - interval '10 seconds'")
        .await;
    assert_eq!(db.store.take_tokens(&bucket, 5).await.unwrap().granted, 1);
}

#[tokio::test]
async fn a_long_rest_fills_a_bucket_and_does_not_make_it_larger() {
    let db = db().await;
    let bucket = bucket("b", 3.0, 1.0);
    assert_eq!(db.store.take_tokens(&bucket, 3).await.unwrap().granted, 3);
    db.sql("UPDATE tallylight.rate_bucket SET refilled_at = refilled_at - interval '1 day'").await;
    assert_eq!(db.store.take_tokens(&bucket, 100).await.unwrap().granted, 3);
}

#[tokio::test]
async fn a_clock_that_was_set_back_gives_nothing_twice() {
    let db = db().await;
    let bucket = bucket("b", 1.0, 1.0);
    assert_eq!(db.store.take_tokens(&bucket, 1).await.unwrap().granted, 1);
    db.sql("UPDATE tallylight.rate_bucket SET refilled_at = refilled_at + interval '1 hour'").await;
    assert_eq!(db.store.take_tokens(&bucket, 1).await.unwrap().granted, 0);
}

#[tokio::test]
async fn the_time_before_a_change_counts_at_the_old_rate() {
    let db = db().await;
    let slow = bucket("b", 100.0, 0.001);
    assert_eq!(db.store.take_tokens(&slow, 100).await.unwrap().granted, 100);
    db.sql("UPDATE tallylight.rate_bucket SET refilled_at = refilled_at - interval '1 hour'").await;
    let fast = bucket("b", 100.0, 0.002);
    assert_eq!(db.store.take_tokens(&fast, 100).await.unwrap().granted, 3);
}

#[tokio::test]
async fn a_bucket_that_cannot_be_is_refused() {
    let db = db().await;
    for bucket in [bucket("", 1.0, 1.0), bucket("b", 0.5, 1.0), bucket("b", 1.0, 0.0)] {
        let error = db.store.take_tokens(&bucket, 1).await.unwrap_err();
        assert!(matches!(error, Error::Data { .. }), "{bucket:?}: {error}");
    }
}

#[tokio::test]
async fn the_age_of_a_job_counts_from_its_enqueueing_until_it_is_over() {
    let db = db().await;
    let id = db.store.enqueue("maintain", &serde_json::json!({}), &EnqueueOptions::default()).await;
    let id = id.unwrap();
    let slice = db.store.slice_of(&domain::ids::Subject::job(id));
    db.sql("UPDATE tallylight.job SET enqueued_at = enqueued_at - interval '1 hour'").await;
    let age = until(async || db.store.job_age(slice, id).await.unwrap()).await;
    assert!(age >= Duration::from_hours(1) && age < Duration::from_hours(2), "{age:?}");
    db.sql("DELETE FROM tallylight.job").await;
    assert_eq!(db.store.job_age(slice, id).await.unwrap(), None);
}
