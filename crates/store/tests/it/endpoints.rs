//! Endpoints on PostgreSQL: secrets, filters, failures, and what is sent again; and the in-memory
//! store beside it.

use std::time::Duration;

use domain::endpoint::{DELIVER, Filter, QUEUE, delivery};
use domain::event::{Event, NewEvent, RecordedEvent};
use domain::ids::{LiveStreamId, Subject, Timestamp};
use domain::message::MessageId;
use store::testing::{EndpointRow, Memory};
use store::{
    Again, Consumer, EndpointChange, Error, NewEndpoint, Reaction, SealingKey, Store, Work,
};
use uuid::Uuid;

use crate::feed::{announce, announcement};
use crate::support::{Db, LONG, db};

fn key() -> SealingKey {
    SealingKey::new([1; 32])
}

fn new(types: &[&str]) -> NewEndpoint {
    let types = types.iter().map(|text| (*text).to_owned()).collect();
    let filter = Filter { types, ..Filter::default() };
    NewEndpoint { url: "https://shop.example/hooks".to_owned(), description: None, filter }
}

#[tokio::test]
async fn a_secret_is_kept_sealed_and_opens_for_its_receiver() {
    let db = db().await;
    let (id, secret) = db.store.add_endpoint(&key(), &new(&[])).await.unwrap();
    let receiver = db.store.receiver(&key(), id).await.unwrap().unwrap();
    assert_eq!(receiver.secrets, std::slice::from_ref(&secret));
    assert_eq!(receiver.url, "https://shop.example/hooks");
    let sealed: Vec<u8> = sqlx::query_scalar("SELECT secret FROM tallylight.endpoint")
        .fetch_one(&db.pool)
        .await
        .unwrap();
    assert!(!sealed.windows(32).any(|window| window == secret.bytes()));
    let other = db.store.receiver(&SealingKey::new([2; 32]), id).await.unwrap_err();
    assert!(matches!(other, Error::Seal { .. }), "{other}");
    assert_eq!(db.store.receiver(&key(), Uuid::nil()).await.unwrap(), None);
}

#[tokio::test]
async fn a_delivery_that_failed_tells_its_last_status() {
    let db = db().await;
    let (id, _) = db.store.add_endpoint(&key(), &new(&[])).await.unwrap();
    let stranger = db.store.add_endpoint(&key(), &new(&[])).await.unwrap().0;
    for endpoint in [id, stranger] {
        db.store.test_endpoint(endpoint, Timestamp::default()).await.unwrap();
    }
    assert_eq!(db.store.deliveries(id, true, 10).await.unwrap(), []);
    db.sql(
        "UPDATE tallylight.job SET errors = 1, attempt = 1, last_error = 'it answered 503 -',
                run_at = now() + interval '1 hour'",
    )
    .await;
    let found = db.store.deliveries(id, true, 10).await.unwrap();
    assert_eq!(found.len(), 1, "those of the other endpoint are its own");
    assert_eq!((found[0].state.as_str(), found[0].last_status), ("retryable", Some(503)));
    assert_eq!(found[0].topic.as_deref(), Some("endpoint.test"));
}

#[tokio::test]
async fn after_a_rotation_both_secrets_sign_for_a_day() {
    let db = db().await;
    let (id, first) = db.store.add_endpoint(&key(), &new(&[])).await.unwrap();
    let second = db.store.rotate_secret(&key(), id).await.unwrap().unwrap();
    let secrets = async || db.store.receiver(&key(), id).await.unwrap().unwrap().secrets;
    assert_eq!(secrets().await, [second.clone(), first]);
    let third = db.store.rotate_secret(&key(), id).await.unwrap().unwrap();
    assert_eq!(secrets().await, [third.clone(), second], "the first signs no more");
    db.sql("UPDATE tallylight.endpoint SET old_secret_until = now()").await;
    assert_eq!(secrets().await, [third]);
    assert_eq!(db.store.rotate_secret(&key(), Uuid::nil()).await.unwrap(), None);
}

#[tokio::test]
async fn a_change_leaves_what_it_does_not_name() {
    let db = db().await;
    let (id, _) = db.store.add_endpoint(&key(), &new(&["session.*"])).await.unwrap();
    let find = async || db.store.endpoint(id).await.unwrap().unwrap();
    let before = find().await;
    let change = EndpointChange { sources: Some(vec!["main".to_owned()]), ..Default::default() };
    assert!(db.store.change_endpoint(id, &change).await.unwrap());
    let after = find().await;
    assert_eq!(after.filter.types, before.filter.types);
    assert_eq!((after.filter.sources, after.url), (vec!["main".to_owned()], before.url));
    assert!(!db.store.change_endpoint(Uuid::nil(), &change).await.unwrap());
    assert!(db.store.remove_endpoint(id).await.unwrap());
    assert!(!db.store.remove_endpoint(id).await.unwrap());
    assert!(db.store.endpoints().await.unwrap().is_empty());
}

#[tokio::test]
async fn what_no_message_could_reach_is_refused() {
    let db = db().await;
    let mut bad_url = new(&[]);
    bad_url.url = "https://user@shop.example/".to_owned();
    for bad in [bad_url, new(&["session.gone"]), new(&vec!["*"; 101])] {
        let error = db.store.add_endpoint(&key(), &bad).await.unwrap_err();
        assert!(matches!(error, Error::Invalid { .. }), "{error}");
    }
    for _ in 0..store::MOST_ENDPOINTS {
        db.store.add_endpoint(&key(), &new(&[])).await.unwrap();
    }
    let error = db.store.add_endpoint(&key(), &new(&[])).await.unwrap_err();
    assert!(error.to_string().contains("100 endpoints"), "{error}");
}

/// A store that has one endpoint, which hears recordings.
struct Side<'a> {
    work: &'a dyn Work,
    id: Uuid,
}

impl Side<'_> {
    /// What it answers to one course of things, without its times.
    async fn course(&self) -> Vec<String> {
        let (work, id, nobody) = (self.work, self.id, Uuid::nil());
        let mut told = Vec::new();
        let hearing = work.hearing().await.unwrap();
        told.push(format!("{:?}", hearing.iter().map(|h| &h.filter).collect::<Vec<_>>()));
        for id in [id, nobody] {
            let receiver = work.receiver(&key(), id).await.unwrap();
            told.push(format!("{:?}", receiver.map(|r| (r.url, r.is_disabled, r.is_failing))));
        }
        let failing = async |id| {
            let failing = work.endpoint_failed(id, "down").await.unwrap();
            format!("{:?}", failing.map(|f| (f.since < Duration::from_mins(1), f.version)))
        };
        told.extend([failing(id).await, failing(id).await, failing(nobody).await]);
        let is_failing = async || work.receiver(&key(), id).await.unwrap().unwrap().is_failing;
        told.push(is_failing().await.to_string());
        work.endpoint_accepted(id).await.unwrap();
        work.endpoint_accepted(nobody).await.unwrap();
        told.push(is_failing().await.to_string());
        for (id, version) in [(id, 7), (nobody, 1), (id, 1), (id, 1), (id, 2)] {
            told.push(work.disable_endpoint(id, version, "gone").await.unwrap().to_string());
        }
        told.push(format!("{:?}", work.hearing().await.unwrap()));
        told.push(work.receiver(&key(), id).await.unwrap().unwrap().is_disabled.to_string());
        told
    }
}

#[tokio::test]
async fn memory_answers_about_endpoints_as_postgresql_does() {
    let db = db().await;
    let wanted = new(&["recording.*"]);
    let (id, _) = db.store.add_endpoint(&key(), &wanted).await.unwrap();
    let memory = Memory::new(db.store.slices(), || std::time::SystemTime::now().into());
    let row = EndpointRow::new(&wanted.url, wanted.filter);
    memory.meddle(|tables| tables.endpoints.insert(id, row));
    let expected = Side { work: &db.store, id }.course().await;
    let found = Side { work: &memory, id }.course().await;
    assert_eq!(found, expected);
    assert!(expected.iter().any(|told| told == "true"), "{expected:?}");
}

#[tokio::test]
async fn a_delivery_of_a_reaction_can_be_paused_with_its_queue() {
    let db = db().await;
    let stored = announce(&db.store, 1, "SessionReady").await;
    let lease = db.claim(Consumer::React, stored.slice).await;
    let reaction = Reaction {
        to: stored.position,
        recorded_at: stored.recorded_at,
        jobs: vec![delivery(Uuid::nil(), &stored), delivery(Uuid::nil(), &stored)],
        ..Reaction::default()
    };
    let committed = db.store.commit_reaction(&lease, &reaction, LONG).await.unwrap();
    assert_eq!(committed.jobs, 1, "one message is one job");
    let (kind, queue): (String, String) =
        sqlx::query_as("SELECT kind, queue FROM tallylight.job").fetch_one(&db.pool).await.unwrap();
    assert_eq!((kind.as_str(), queue.as_str()), (DELIVER, QUEUE));
}

/// The messages that wait to be sent, by what stands in their arguments.
async fn waiting(db: &Db) -> Vec<(i64, i64)> {
    sqlx::query_as(
        "SELECT (args -> 'message' -> 'at' ->> 0)::bigint, (args -> 'message' -> 'at' ->> 1)::bigint
           FROM tallylight.job WHERE kind = 'deliver_webhook' ORDER BY 1, 2",
    )
    .fetch_all(&db.pool)
    .await
    .unwrap()
}

fn at(stored: &RecordedEvent) -> (i64, i64) {
    (stored.slice.into(), stored.position)
}

#[tokio::test]
async fn one_message_is_sent_again_by_its_id_and_once_while_it_waits() {
    let db = db().await;
    let (id, _) = db.store.add_endpoint(&key(), &new(&["recording.*"])).await.unwrap();
    let endpoint = db.store.endpoint(id).await.unwrap().unwrap();
    let stored = announce(&db.store, 1, "SessionReady").await;
    let again = Again::Message(MessageId::of(&stored));
    for _ in 0..2 {
        let resent = db.store.resend(&endpoint, again, false).await.unwrap().unwrap();
        assert_eq!(resent.messages, 1, "it was asked for by name, whatever the filter says");
    }
    assert_eq!(waiting(&db).await, [at(&stored)]);
    let text = MessageId::of(&stored).to_string();
    let other = MessageId::read(&format!("{}00000001", &text[..text.len() - 8])).unwrap();
    let none = db.store.resend(&endpoint, Again::Message(other), false).await.unwrap();
    assert_eq!(none, None, "another event stood there before a restore");
}

#[tokio::test]
async fn all_that_an_endpoint_hears_since_a_time_is_sent_again() {
    let db = db().await;
    let (id, _) = db.store.add_endpoint(&key(), &new(&["recording.*"])).await.unwrap();
    let endpoint = db.store.endpoint(id).await.unwrap().unwrap();
    announce(&db.store, 1, "RecordingReady").await;
    let mut meant = Vec::new();
    let mut since = Timestamp::UNIX_EPOCH;
    for live_stream in 1..=6 {
        let first = announce(&db.store, live_stream, "RecordingReady").await;
        if live_stream == 1 {
            since = first.recorded_at;
        }
        meant.push(at(&first));
        announce(&db.store, live_stream, "SessionReady").await;
    }
    let until = announce(&db.store, 7, "RecordingReady").await.recorded_at;
    meant.sort_unstable();
    let again = Again::Since { since, until: Some(until) };
    let counted = db.store.resend(&endpoint, again, true).await.unwrap().unwrap();
    assert_eq!((counted.messages, counted.next_since), (6, None));
    assert!(waiting(&db).await.is_empty(), "it was only counted");
    let sent = db.store.resend(&endpoint, again, false).await.unwrap().unwrap();
    assert_eq!(sent.messages, 6);
    assert!(!sent.slices.is_empty());
    assert_eq!(waiting(&db).await, meant);
    let open = Again::Since { since, until: None };
    assert_eq!(db.store.resend(&endpoint, open, true).await.unwrap().unwrap().messages, 7);
}

/// As roles do it.
pub(crate) async fn as_worker(db: &Db, store: &Store) {
    let (id, _) = db.store.add_endpoint(&key(), &new(&[])).await.unwrap();
    store.hearing().await.unwrap();
    let receiver = store.receiver(&key(), id).await.unwrap().unwrap();
    store.endpoint_failed(id, "down").await.unwrap();
    store.endpoint_accepted(id).await.unwrap();
    assert!(store.disable_endpoint(id, receiver.version, "gone").await.unwrap());
}

/// As roles do it.
pub(crate) async fn as_api(store: &Store) {
    let (id, _) = store.add_endpoint(&key(), &new(&[])).await.unwrap();
    store.change_endpoint(id, &EndpointChange::default()).await.unwrap();
    store.rotate_secret(&key(), id).await.unwrap();
    store.test_endpoint(id, Timestamp::UNIX_EPOCH).await.unwrap();
    let endpoint = store.endpoint(id).await.unwrap().unwrap();
    announce(store, 1, "SessionReady").await;
    let again = Again::Since { since: Timestamp::UNIX_EPOCH, until: None };
    assert_eq!(store.resend(&endpoint, again, false).await.unwrap().unwrap().messages, 1);
    let point = store.feed_start().await.unwrap();
    assert_eq!(store.announced(&point, &["SessionReady"], 5).await.unwrap().events.len(), 1);
    store.remove_endpoint(id).await.unwrap();
}

#[tokio::test]
async fn an_announcement_of_another_kind_is_no_message() {
    let db = db().await;
    let subject = Subject::live_stream("main", LiveStreamId(1));
    let event = NewEvent::new(
        subject.clone(),
        &Event::Announced(announcement("SessionReady")),
        Timestamp::UNIX_EPOCH,
        Uuid::now_v7(),
    );
    let event = NewEvent { event_type: "SessionRequested".to_owned(), ..event };
    let stored = db.store.append_one(event).await.unwrap().unwrap();
    let slice = db.store.slice_of(&subject);
    let stored = db.store.read_event(slice, stored.position).await.unwrap().unwrap();
    assert_eq!(db.store.announcement(MessageId::of(&stored)).await.unwrap(), None);
}
