//! Arguments that no version can read.

use super::*;

#[tokio::test]
async fn arguments_that_no_version_can_read_end_as_dead_letters_and_hold_up_nobody() {
    let store = store::testing::store().await;
    let subject = Subject::from_stored("a/stream/1".to_owned());
    let kinds = [TIMER, FORWARD, "clear_dvr", "http_call", "clean_up_inactive"];
    let garbage = |(n, kind): (u8, &&str)| {
        let args = json!({ "timer": ["?"], "url": 7, "inactive_days": "many" });
        NewJob { max_attempts: 1, ..job(&subject, kind, n, args, now()) }
    };
    insert(&store, &subject, (1..).zip(&kinds).map(garbage).collect()).await;
    let worker = start(&store, config());
    let dead = until(async || {
        let dead = store.dead_jobs(10).await.unwrap();
        (dead.len() == kinds.len()).then_some(dead)
    })
    .await;
    assert!(dead.iter().all(|job| job.state == "discarded"), "{dead:?}");
    let options = EnqueueOptions { subject: Some(subject.to_string()), ..Default::default() };
    let id = store.enqueue("test_ok", &json!({}), &options).await.unwrap();
    until(async || (starts_of(id) == [1]).then_some(())).await;
    worker.shutdown().await;
}
