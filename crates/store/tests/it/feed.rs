//! The feed on PostgreSQL: nothing is missed and nothing comes twice, whoever appends meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use domain::announcement::{Announcement, SessionNews, TOPICS};
use domain::event::{Event, NewEvent, RecordedEvent};
use domain::ids::{LiveStreamId, Subject};
use store::{Announced, Error, Store};
use uuid::Uuid;

use crate::support::{db, event};

pub(crate) fn announcement(name: &str) -> Announcement {
    let news = SessionNews {
        session: Uuid::nil(),
        live_stream: None,
        account: None,
        note: None,
        derived: None,
    };
    match name {
        "SessionReady" => Announcement::SessionReady(news),
        "SessionEnded" => Announcement::SessionEnded(news),
        "RecordingReady" => Announcement::RecordingReady(news),
        _ => panic!("{name}"),
    }
}

/// Announces something on a live stream.
pub(crate) async fn announce(store: &Store, live_stream: i64, name: &str) -> RecordedEvent {
    let subject = Subject::live_stream("main", LiveStreamId(live_stream));
    let event = Event::Announced(announcement(name));
    let now = std::time::SystemTime::now().into();
    let event = NewEvent::new(subject.clone(), &event, now, Uuid::now_v7());
    let stored = store.append_one(event).await.unwrap().unwrap();
    store.read_event(store.slice_of(&subject), stored.position).await.unwrap().unwrap()
}

fn all() -> Vec<&'static str> {
    TOPICS.iter().map(|(name, _)| *name).collect()
}

fn places(page: &Announced) -> Vec<(i16, i64)> {
    page.events.iter().map(|event| (event.slice, event.position)).collect()
}

/// Reads page by page to the end.
async fn read_on(store: &Store, mut point: Vec<i64>, limit: usize) -> (Vec<(i16, i64)>, Vec<i64>) {
    let mut found = Vec::new();
    loop {
        let page = store.announced(&point, &all(), limit).await.unwrap();
        assert!(page.events.len() <= limit);
        found.extend(places(&page));
        point = page.reached;
        if page.is_complete {
            return (found, point);
        }
    }
}

#[tokio::test]
async fn pages_of_any_size_hand_out_every_announcement_once() {
    let db = db().await;
    let mut expected = Vec::new();
    for n in 0..40 {
        let stored = announce(&db.store, n % 7, "SessionReady").await;
        expected.push((stored.slice, stored.position));
        // What is none stands between.
        let other = Subject::live_stream("main", LiveStreamId(n % 5));
        db.store.append_one(event(&other, "between")).await.unwrap();
    }
    let start = db.store.feed_start().await.unwrap();
    let end = db.store.feed_end().await.unwrap();
    for limit in [1, 3, 100] {
        let (found, reached) = read_on(&db.store, start.clone(), limit).await;
        assert_eq!(found, expected, "in the order of their recording, limit {limit}");
        assert_eq!(reached, end);
    }
    let nothing = db.store.announced(&end, &all(), 5).await.unwrap();
    assert!(nothing.events.is_empty() && nothing.is_complete);
}

#[tokio::test]
async fn only_the_names_that_are_asked_for_are_handed_out() {
    let db = db().await;
    announce(&db.store, 1, "SessionReady").await;
    let wanted = announce(&db.store, 1, "RecordingReady").await;
    let start = db.store.feed_start().await.unwrap();
    let page = db.store.announced(&start, &["RecordingReady"], 1).await.unwrap();
    assert_eq!(places(&page), [(wanted.slice, wanted.position)]);
    let rest = db.store.announced(&page.reached, &["RecordingReady"], 1).await.unwrap();
    assert!(rest.events.is_empty() && rest.is_complete);
    assert_eq!(
        rest.reached,
        db.store.feed_end().await.unwrap(),
        "it was looked through all the same"
    );
}

/// Many append to all slices while somebody reads in small pages: what was handed out is, slice by
/// slice, the whole log of announcements, in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_reader_beside_many_writers_misses_nothing() {
    const WRITERS: i64 = 6;
    const EACH: i64 = 40;
    let db = db().await;
    let done = Arc::new(AtomicBool::new(false));
    let start = db.store.feed_start().await.unwrap();
    let (store, stop) = (db.store.clone(), Arc::clone(&done));
    let reader = tokio::spawn(async move {
        let (mut found, mut point) = (Vec::new(), start);
        loop {
            let is_last = stop.load(Ordering::SeqCst);
            let page = store.announced(&point, &all(), 3).await.unwrap();
            found.extend(places(&page));
            point = page.reached;
            if is_last && page.is_complete {
                return found;
            }
        }
    });
    let writers = (0..WRITERS).map(|writer| {
        let store = db.store.clone();
        tokio::spawn(async move {
            for n in 0..EACH {
                announce(&store, writer * EACH + n, "SessionReady").await;
                // Several slices in one transaction, as ingest appends.
                let events: Vec<NewEvent> = (0..4)
                    .map(|k| {
                        let subject = Subject::live_stream("main", LiveStreamId(k * 97 + n));
                        let announced = Event::Announced(announcement("SessionEnded"));
                        let now = std::time::SystemTime::now().into();
                        NewEvent::new(subject, &announced, now, Uuid::now_v7())
                    })
                    .collect();
                store.append_all(Uuid::now_v7(), &events).await.unwrap();
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    done.store(true, Ordering::SeqCst);
    let found = reader.await.unwrap();
    let mut by_slice: BTreeMap<i16, Vec<i64>> = BTreeMap::new();
    for (slice, position) in &found {
        by_slice.entry(*slice).or_default().push(*position);
    }
    for (slice, positions) in &by_slice {
        let head = db.head(*slice).await;
        assert_eq!(*positions, (1..=head).collect::<Vec<_>>(), "slice {slice}");
    }
    assert_eq!(i64::try_from(found.len()).unwrap(), WRITERS * EACH * 5);
}

#[tokio::test]
async fn a_point_before_a_time_is_found_in_every_slice() {
    let db = db().await;
    for n in 0..20 {
        announce(&db.store, n, "SessionReady").await;
    }
    let since = announce(&db.store, 3, "SessionEnded").await;
    let mut later = vec![(since.slice, since.position)];
    for n in 0..5 {
        let stored = announce(&db.store, n, "SessionEnded").await;
        later.push((stored.slice, stored.position));
    }
    let point = db.store.feed_since(since.recorded_at).await.unwrap();
    let (found, _) = read_on(&db.store, point, 100).await;
    assert_eq!(found, later);
    let never =
        db.store.feed_since(since.recorded_at + std::time::Duration::from_hours(24)).await.unwrap();
    assert_eq!(never, db.store.feed_end().await.unwrap());
}

#[tokio::test]
async fn a_point_of_another_installation_is_refused() {
    let db = db().await;
    let error = db.store.announced(&[0, 0], &all(), 1).await.unwrap_err();
    assert!(matches!(error, Error::Invalid { .. }), "{error}");
}

#[tokio::test]
async fn what_is_sealed_is_handed_out_as_before() {
    let place = crate::history::place().await;
    let store = &place.store;
    let begin = store.feed_start().await.unwrap();
    for n in 0..30 {
        announce(store, n % 4, "SessionReady").await;
        let other = Subject::live_stream("main", LiveStreamId(n % 3));
        store.append_one(event(&other, "between")).await.unwrap();
    }
    let (mut expected, _) = read_on(store, begin.clone(), 7).await;
    assert_eq!(expected.len(), 30);
    place.age(400).await;
    assert!(place.seal().await.events > 0);
    let start = store.feed_start().await.unwrap();
    assert_ne!(start, begin, "the beginning is what is in the database");
    assert!(read_on(store, start.clone(), 7).await.0.is_empty());
    for n in 0..6 {
        let stored = announce(store, n, "SessionEnded").await;
        expected.push((stored.slice, stored.position));
    }
    let (mut found, _) = read_on(store, begin.clone(), 7).await;
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected);
    assert_eq!(read_on(store, start, 7).await.0.len(), 6);
    // A process that knows no place of segments says so, and does not pass over them.
    let error = place.db.store.announced(&begin, &all(), 7).await.unwrap_err();
    assert!(matches!(error, Error::NoHistory { .. }), "{error}");
}

/// The plan that makes a page cheap however many other events there are.
#[tokio::test]
async fn announcements_are_found_by_their_index() {
    let db = db().await;
    let stored = announce(&db.store, 1, "SessionReady").await;
    let others: Vec<NewEvent> =
        (0..5_000).map(|_| event(&stored.subject, "another event")).collect();
    db.store.append(stored.slice, None, &others).await.unwrap();
    db.sql("ANALYZE tallylight.event").await;
    // The condition of the feed's statement, word by word.
    let plan: Vec<String> = sqlx::query_scalar(
        "EXPLAIN (COSTS OFF) SELECT payload FROM tallylight.event
          WHERE slice = $1 AND position > 0 AND position <= 100000
            AND (event_type LIKE 'Session%' OR event_type LIKE 'Recording%'
                 OR event_type LIKE 'Quota%' OR event_type LIKE 'Cleanup%'
                 OR event_type LIKE 'Endpoint%')
            AND event_type = ANY ('{SessionReady,SessionEnded}')
          ORDER BY position LIMIT 10",
    )
    .bind(stored.slice)
    .fetch_all(&db.pool)
    .await
    .unwrap();
    let plan = plan.join("\n");
    assert!(plan.contains("_slice_position_idx"), "{plan}");
}
