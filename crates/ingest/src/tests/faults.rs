//! The endpoint while what it stands on fails: the address, the connection, the disk.

use std::time::Duration;

use axum::http::{StatusCode, header};
use serde_json::Value;
use uuid::Uuid;

use super::{batch, stream};
use crate::spool::{self, Fault};
use crate::testing::{
    TOKEN, Wire, config, endpoint, eventually, get, impatient, log, path, patient, post, routes,
    spool as open,
};

/// Ids of the stored webhooks, in order within their slices.
async fn stored(wire: &Wire) -> Vec<Uuid> {
    let events = log(&wire.direct).await.into_iter();
    events.filter(|e| e.event_type != "ReconcileRequested").map(|e| e.event_id).collect()
}

#[tokio::test]
async fn what_comes_while_the_address_leads_to_another_installation_is_kept_for_ours() {
    let wire = Wire::new(4).await;
    let lanes = wire.lanes(impatient());
    let router = routes(config(), &wire.wired, &lanes);
    let first = post(&router, &path(), stream(1)).await.event_id();
    let appended = || lanes.metrics().events_appended.get();
    eventually(async || appended() > 0 && lanes.metrics().spool_records() == 0).await;
    let before = appended();
    store::testing::become_installation(&wire.direct, Uuid::now_v7()).await;
    wire.cut();
    let second = post(&router, &path(), stream(1)).await.event_id();
    let tries = || lanes.metrics().append_retries.get();
    let some = tries() + 3;
    eventually(async || tries() > some || !lanes.is_spooling()).await;
    assert!(lanes.is_spooling());
    assert_eq!(appended(), before, "nothing is written to the other installation");
    let probe = get(&router, "/readyz").await;
    let told: Value = serde_json::from_slice(&probe.body).unwrap();
    assert_eq!((probe.status, &told["spooling"]), (StatusCode::OK, &Value::Bool(true)));
    let refused = wire.wired.ping().await.unwrap_err().to_string();
    assert!(refused.contains("of installation"), "{refused}");
    store::testing::become_installation(&wire.direct, wire.wired.installation()).await;
    eventually(async || !lanes.is_spooling()).await;
    assert_eq!(stored(&wire).await, [first, second]);
}

#[tokio::test]
async fn connections_that_are_cut_during_the_commit_neither_lose_nor_double_an_event() {
    let wire = Wire::new(4).await;
    let lanes = wire.lanes(patient());
    let router = routes(config(), &wire.wired, &lanes);
    let mut acknowledged = Vec::new();
    for _ in 0..30 {
        wire.cut_next_append();
        acknowledged.push(post(&router, &path(), stream(1)).await.event_id());
        assert!(!wire.is_to_cut(), "the call met no cut");
    }
    assert!(lanes.metrics().append_retries.get() >= 30);
    assert_eq!(stored(&wire).await, acknowledged);
}

#[tokio::test]
async fn a_full_disk_is_told_to_callers_and_what_was_acknowledged_is_stored() {
    let wire = Wire::new(4).await;
    let settings = spool::Config::new(wire.dir.path());
    let lanes = wire.lanes_on(open(&wire.direct, &settings), impatient());
    let router = routes(config(), &wire.wired, &lanes);
    wire.down();
    let mut acknowledged = vec![post(&router, &path(), stream(1)).await.event_id()];
    settings.faults.set(Some(Fault::Write));
    let refused = post(&router, &path(), stream(1)).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    let after: u64 = refused.headers[header::RETRY_AFTER].to_str().unwrap().parse().unwrap();
    assert!((1..=5).contains(&after), "{after}");
    let probe = get(&router, "/readyz").await;
    assert_eq!(probe.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(String::from_utf8_lossy(&probe.body).contains("full or its disk fails"));
    settings.faults.set(None);
    acknowledged.push(post(&router, &path(), stream(1)).await.event_id());
    wire.up();
    eventually(async || !lanes.is_spooling()).await;
    assert_eq!(stored(&wire).await, acknowledged);
}

#[tokio::test]
async fn a_known_key_is_answered_with_the_id_that_the_log_has() {
    let line = r#"{"type":"shop.OrderPaid","subject":"gcore-main/order/17","payload":1,"key":"a"}"#;
    let (router, store, _lanes) = endpoint(config()).await;
    let (_, first) = batch(&router, TOKEN, line).await;
    let (_, second) = batch(&router, TOKEN, &line.replace("1,", "2,")).await;
    assert_eq!(
        (&first[0]["status"], &second[0]["status"]),
        (&"stored".into(), &"duplicate".into())
    );
    let [event] = &log(&store).await[..] else { panic!("one event") };
    for answer in [&first[0], &second[0]] {
        assert_eq!(answer["event_id"], event.event_id.to_string());
    }

    // The same where the database's answer was lost.
    let wire = Wire::new(2).await;
    let lanes = wire.lanes(patient());
    let router = routes(config(), &wire.wired, &lanes);
    for _ in 0..2 {
        wire.cut_next_append();
        let (_, told) = batch(&router, TOKEN, line).await;
        assert!(!wire.is_to_cut());
        let [event] = &log(&wire.direct).await[..] else { panic!("one event") };
        assert_eq!(told[0]["event_id"], event.event_id.to_string());
    }
}

#[tokio::test]
async fn a_spool_directory_that_goes_away_is_told_to_callers() {
    let wire = Wire::new(4).await;
    let dir = wire.dir.path().join("spool");
    let lanes = wire.lanes_on(open(&wire.direct, &spool::Config::new(&dir)), impatient());
    let router = routes(config(), &wire.wired, &lanes);
    wire.down();
    std::fs::remove_dir_all(&dir).unwrap();
    let refused = post(&router, &path(), stream(1)).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(lanes.oldest() < Duration::from_secs(1));
}
