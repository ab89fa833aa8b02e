//! Lanes while the database is away, comes back, or turns out to be another one.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use domain::event::{NewEvent, RecordedEvent};
use domain::ids::Subject;
use store::Store;
use tempfile::TempDir;
use uuid::Uuid;

use super::{append_all, event, payloads};
use crate::lanes::{Config, Kept, Lanes};
use crate::spool;
use crate::testing::{
    Wire, eventually, impatient, lanes_of, lock, log, patient, spool as open, told,
};
use crate::{Known, Metrics, Rejected};

const LIVE_STREAM: &str = "a/stream/1";

/// Events without the requests for a look, and the subjects of those.
async fn stored(store: &Store) -> (Vec<RecordedEvent>, Vec<String>) {
    let (asked, told): (Vec<_>, Vec<_>) =
        log(store).await.into_iter().partition(|e| e.event_type == "ReconcileRequested");
    (told, asked.into_iter().map(|event| event.subject.to_string()).collect())
}

/// Waits until nothing is spooled and no file is left.
async fn drained(wire: &Wire, lanes: &Lanes) {
    let files = || fs::read_dir(wire.dir.path()).unwrap().count();
    // The lock and the note of the installation stay.
    let records = || lanes.metrics().spool_records();
    eventually(async || !lanes.is_spooling() && files() == 2 && records() == 0).await;
}

fn events(subject: &str, range: std::ops::Range<u8>) -> Vec<NewEvent> {
    range.map(|n| event(subject, &[n])).collect()
}

#[tokio::test]
async fn draining_does_not_wait_for_a_database_that_is_away() {
    let wire = Wire::new(2).await;
    let lanes = wire.lanes(impatient());
    wire.down();
    assert_eq!(lanes.append(event(LIVE_STREAM, b"")).await, Ok(Kept::Spooled));
    assert!(!lanes.drain().await);
    assert_eq!(lanes.oldest(), Duration::ZERO);
    assert!(lanes.is_spooling());
    wire.up();
    drained(&wire, &lanes).await;
    assert_eq!(stored(&wire.direct).await.0.len(), 1);
}

#[tokio::test]
async fn order_is_kept_from_live_to_spool_and_back() {
    let wire = Wire::new(4).await;
    let lanes = wire.lanes(Config { batch_events: 3, ..impatient() });
    let mut kept = append_all(&lanes, events(LIVE_STREAM, 0..10)).await;
    wire.down();
    let away = append_all(&lanes, events(LIVE_STREAM, 10..20)).await;
    assert!(away.iter().all(|ended| *ended == Ok(Kept::Spooled)), "{away:?}");
    kept.extend(away);
    assert!(told(&lanes, "spool_bytes") > 0.0 && told(&lanes, "spool_age_seconds") > 0.0);
    wire.up();
    // Newer ones go behind what is spooled, however far the draining is.
    for n in 20..40 {
        kept.push(lanes.append(event(LIVE_STREAM, &[n])).await);
    }
    drained(&wire, &lanes).await;
    kept.push(lanes.append(event(LIVE_STREAM, &[40])).await);
    assert!(kept.iter().all(Result::is_ok), "{kept:?}");
    let (told, asked) = stored(&wire.direct).await;
    assert_eq!(payloads(&told), (0..41).map(|n| vec![n]).collect::<Vec<_>>());
    assert!(told.iter().all(|event| event.received_at == super::Timestamp::default()));
    assert!(asked.iter().all(|subject| subject == LIVE_STREAM));
    assert!(!asked.is_empty());
}

// One thread: all events are queued before the lane takes the first.
#[tokio::test]
async fn a_batch_of_several_slices_is_drained_in_one_commit() {
    let wire = Wire::new(4).await;
    let lanes = wire.lanes(impatient());
    wire.down();
    let events = (0..32).map(|n| event(&format!("a/video/{n}"), &[n])).collect();
    let ended = append_all(&lanes, events).await;
    assert!(ended.iter().all(|ended| *ended == Ok(Kept::Spooled)), "{ended:?}");
    assert!(lanes.metrics().spool_records() > 4, "a record for each slice");
    wire.up();
    drained(&wire, &lanes).await;
    assert_eq!(stored(&wire.direct).await.0.len(), 32);
    // The try before it may have come through, unheard.
    let commits = told(&lanes, "append_batch_events_count");
    assert!(commits < 3.0, "{commits}");
}

#[tokio::test]
async fn each_live_stream_is_looked_at_once_after_a_drain() {
    let wire = Wire::new(4).await;
    let lanes = wire.lanes(impatient());
    wire.down();
    let subjects = ["a/stream/1", "a/stream/2", "a/video/3", "a/stream/1", "a/stream/x", "b"];
    for subject in subjects {
        assert_eq!(lanes.append(event(subject, b"")).await, Ok(Kept::Spooled));
    }
    wire.up();
    drained(&wire, &lanes).await;
    let (told, mut asked) = stored(&wire.direct).await;
    assert_eq!(told.len(), subjects.len());
    asked.sort();
    assert_eq!(asked, ["a/stream/1", "a/stream/2"]);
}

#[tokio::test]
async fn a_batch_whose_reply_was_lost_is_spooled_and_stored_once() {
    let wire = Wire::new(2).await;
    // Long enough for the call to be sent, however busy the machine is.
    let lanes = wire.lanes(Config { spool_after: Duration::from_secs(3), ..impatient() });
    // The connection has the statement prepared now.
    lanes.append(event(LIVE_STREAM, b"0")).await.unwrap();
    wire.mute();
    let ended = tokio::spawn({
        let lanes = lanes.clone();
        async move { lanes.append(event(LIVE_STREAM, b"1")).await }
    });
    eventually(async || log(&wire.direct).await.len() == 2).await;
    assert_eq!(ended.await.unwrap(), Ok(Kept::Spooled));
    wire.up();
    wire.cut();
    drained(&wire, &lanes).await;
    assert_eq!(payloads(&stored(&wire.direct).await.0), [b"0", b"1"]);
}

/// The same files in another directory.
fn copy(dir: &Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(dir).unwrap() {
        let from = entry.unwrap().path();
        fs::copy(&from, copy.path().join(from.file_name().unwrap())).unwrap();
    }
    copy
}

#[tokio::test]
async fn draining_the_same_spool_twice_stores_nothing_twice() {
    let wire = Wire::new(2).await;
    let lanes = wire.lanes(impatient());
    wire.down();
    // Neighbours in one batch, one of which the database refuses: halves have the same ids, too.
    let slice = wire.direct.slice_of(&Subject::from_stored("a\0b".to_owned()));
    let subject = (0..).map(|n| format!("a/video/{n}"));
    let in_slice = |s: &String| wire.direct.slice_of(&Subject::from_stored(s.clone())) == slice;
    let neighbour = subject.into_iter().find(in_slice).unwrap();
    let mut batch = events(&neighbour, 0..20);
    batch.insert(7, event("a\0b", b"refused"));
    let ended = append_all(&lanes, batch).await;
    assert!(ended.iter().all(|ended| *ended == Ok(Kept::Spooled)), "{ended:?}");

    // As killed processes leave them: the same files for one and for the next.
    let copies = [copy(wire.dir.path()), copy(wire.dir.path())];
    for dir in &copies {
        let after = wire.lanes_on(open(&wire.direct, &spool::Config::new(dir.path())), patient());
        assert!(after.is_spooling(), "what was left is found");
        wire.up();
        eventually(async || !after.is_spooling()).await;
        assert_eq!(stored(&wire.direct).await.0.len(), 21);
        wire.down();
    }
    wire.up();
    drained(&wire, &lanes).await;
    let (told, _) = stored(&wire.direct).await;
    let (refused, neighbours): (Vec<_>, Vec<_>) =
        told.into_iter().partition(|event| event.subject.as_str() == "unknown/unrecognized");
    assert_eq!(payloads(&neighbours), (0..20).map(|n| vec![n]).collect::<Vec<_>>());
    assert_eq!(payloads(&refused), [b"refused"]);
}

#[tokio::test]
async fn a_full_spool_gives_up_and_the_lane_goes_on() {
    let wire = Wire::new(2).await;
    let config = spool::Config { max_bytes: 1500, ..spool::Config::new(wire.dir.path()) };
    let lanes = wire.lanes_on(open(&wire.direct, &config), impatient());
    wire.down();
    let mut spooled = 0;
    while lanes.append(event(LIVE_STREAM, &[0; 100])).await == Ok(Kept::Spooled) {
        spooled += 1;
    }
    assert!(spooled > 1);
    assert!(lanes.is_spool_failing());
    assert_eq!(lanes.append(event("a/video/1", &[0; 100])).await, Err(Rejected::Unavailable));
    assert!(lanes.metrics().events_given_up.get() >= 2);
    wire.up();
    drained(&wire, &lanes).await;
    assert_eq!(lanes.append(event(LIVE_STREAM, b"")).await, Ok(Kept::Appended));
    assert!(!lanes.is_spool_failing());
    assert_eq!(stored(&wire.direct).await.0.len(), spooled + 1);
}

#[tokio::test]
async fn without_a_database_at_its_start_a_process_spools_by_what_it_knows() {
    let wire = Wire::new(2).await;
    wire.down();
    drop(open(&wire.direct, &spool::Config::new(wire.dir.path())));
    let locked = lock(&spool::Config::new(wire.dir.path()));
    let known = locked.known().expect("the last process noted it");
    let mut config = store::Config::new(wire.url.as_str());
    config.max_connections = 2;
    let store = Store::known(&config, known.installation, known.slices).unwrap();
    let metrics = Arc::new(Metrics::new());
    let spool = locked.open(known, Arc::clone(&metrics)).unwrap();
    let notifier = wire.direct.notifier();
    let lanes = Lanes::start(store, notifier, spool, metrics, impatient());
    assert_eq!(lanes.append(event(LIVE_STREAM, b"1")).await, Ok(Kept::Spooled));
    wire.up();
    drained(&wire, &lanes).await;
    assert_eq!(payloads(&stored(&wire.direct).await.0), [b"1"]);
}

#[tokio::test]
async fn nothing_is_drained_into_the_database_of_another_installation() {
    let wire = Wire::new(2).await;
    let known = Known { installation: Uuid::now_v7(), slices: wire.direct.slices() };
    let store =
        Store::known(&store::Config::new(wire.url.as_str()), known.installation, known.slices);
    let metrics = Arc::new(Metrics::new());
    let locked = lock(&spool::Config::new(wire.dir.path()));
    let spool = locked.open(known, Arc::clone(&metrics)).unwrap();
    let notifier = wire.direct.notifier();
    let lanes = Lanes::start(store.unwrap(), notifier, spool, metrics, impatient());
    assert_eq!(lanes.append(event(LIVE_STREAM, b"1")).await, Ok(Kept::Spooled));
    // It tries, and tries again.
    eventually(async || lanes.metrics().append_retries.get() > 4).await;
    assert!(lanes.is_spooling());
    assert!(log(&wire.direct).await.is_empty());
}

#[tokio::test]
async fn a_request_is_answered_in_its_order_whatever_became_of_each_event() {
    let store = store::testing::store().await;
    let lanes = lanes_of(&store, patient());
    let key = Uuid::now_v7();
    let keyed = |payload: &[u8]| event("a/stream/1", payload).with_key(key);
    let mut all: Vec<NewEvent> = (0..50).map(|n| event(&format!("a/stream/{n}"), b"")).collect();
    all.insert(3, keyed(b"first"));
    all.insert(20, event("a\0b", b""));
    all.insert(30, keyed(b"second"));
    let ended = lanes.append_all(all).await;
    assert_eq!(ended.len(), 53);
    for (n, ended) in ended.into_iter().enumerate() {
        let expected = match n {
            20 => Err(Rejected::Refused { sqlstate: "22021".to_owned() }),
            30 => Ok(Kept::Known),
            _ => Ok(Kept::Appended),
        };
        assert_eq!(ended, expected, "{n}");
    }
    assert_eq!(log(&store).await.len(), 51);
}
