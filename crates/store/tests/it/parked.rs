//! What is set aside: listed by subject, requested by anybody, changed by the holder alone.

use domain::event::{AccountDeleted, Event, NewEvent};
use domain::ids::{Subject, Timestamp};
use store::Consumer::React;
use store::{AsOf, Error, Lease, Mended, Next, ParkedEvent, Reaction, Request};
use uuid::Uuid;

use crate::support::{Db, LONG, db, event, subject_in};

/// Sets the events at `positions` of a subject aside, the first of them as failed.
async fn park(db: &Db, lease: Lease, subject: &Subject, positions: &[i64]) -> Lease {
    let parked = |(n, position): (usize, &i64)| ParkedEvent {
        position: *position,
        subject: subject.clone(),
        error: (n == 0).then(|| "it went wrong".to_owned()),
        awaits_build: false,
    };
    let to = positions.iter().copied().max().unwrap().max(lease.position);
    let reaction = Reaction {
        to,
        parked: positions.iter().enumerate().map(parked).collect(),
        ..Reaction::default()
    };
    db.store.commit_reaction(&lease, &reaction, LONG).await.unwrap().lease
}

/// Commits what became of the pending request; the checkpoint stays.
async fn mend(db: &Db, lease: &Lease, mended: Mended) {
    let requested_at = db.store.parked_requests(lease.slice).await.unwrap()[0].requested_at;
    try_mend(db, lease, Mended { requested_at, ..mended }).await.unwrap();
}

async fn try_mend(db: &Db, lease: &Lease, mended: Mended) -> Result<(), Error> {
    let (to, recorded_at) = (lease.position, lease.recorded_at);
    let reaction = Reaction { to, recorded_at, mended: Some(mended), ..Reaction::default() };
    db.store.commit_reaction(lease, &reaction, LONG).await.map(|_| ())
}

#[tokio::test]
async fn parked_subjects_are_listed_with_their_failed_event() {
    let db = db().await;
    let (a, b) = (subject_in(&db.store, 5), subject_in(&db.store, 5));
    let lease = db.claim(React, 5).await;
    let lease = park(&db, lease, &a, &[1, 3, 4]).await;
    park(&db, lease, &b, &[2]).await;
    let parked = db.store.parked().await.unwrap();
    assert_eq!(parked.len(), 2);
    let first = &parked[0];
    assert_eq!((first.slice, &first.subject, first.position, first.events), (5, &a, 1, 3));
    assert_eq!((first.error.as_deref(), first.attempts), (Some("it went wrong"), 1));
    assert!(!first.is_requested);
    assert_eq!((&parked[1].subject, parked[1].events), (&b, 1));
    let mut counts = db.store.parked_counts(5).await.unwrap();
    counts.sort_by_key(|(_, events)| *events);
    assert_eq!(counts, [(b, 1), (a.clone(), 3)]);
    assert_eq!(db.store.parked_at(5, 3).await.unwrap(), Some(a));
    assert_eq!(db.store.slice_status().await.unwrap()[5].parked, 4);
}

#[tokio::test]
async fn only_the_first_waiting_event_of_a_subject_can_be_requested() {
    let db = db().await;
    let subject = subject_in(&db.store, 5);
    let lease = db.claim(React, 5).await;
    park(&db, lease, &subject, &[1, 3]).await;
    let ask = async |position| {
        db.store.request_parked(&subject, position, Request::Skip, "me", Some("why")).await
    };
    for position in [2, 3, 9] {
        let refused = ask(position).await.unwrap_err();
        assert!(matches!(refused, Error::NotParked { slice: 5, .. }), "{refused}");
    }
    assert!(db.store.parked_requests(5).await.unwrap().is_empty());
    ask(1).await.unwrap();
    let requests = db.store.parked_requests(5).await.unwrap();
    assert_eq!((requests[0].position, requests[0].request), (1, Request::Skip));
    assert!(db.store.parked().await.unwrap()[0].is_requested);
}

#[tokio::test]
async fn a_retry_that_fails_keeps_the_rest_with_the_new_error() {
    let db = db().await;
    let subject = subject_in(&db.store, 5);
    let lease = db.claim(React, 5).await;
    let lease = park(&db, lease, &subject, &[1, 2, 3]).await;
    db.store.request_parked(&subject, 1, Request::Retry, "me", None).await.unwrap();
    let error = "wrong\0 again".to_owned();
    let next = Some(Next::Failed { position: 2, error, awaits_build: false });
    mend(&db, &lease, Mended { requested: 1, applied: vec![1], next, ..Mended::default() }).await;
    let parked = &db.store.parked().await.unwrap()[0];
    assert_eq!((parked.position, parked.events, parked.attempts), (2, 2, 1));
    assert_eq!(parked.error.as_deref(), Some("wrong\u{fffd} again"));
    assert!(!parked.is_requested, "the request has its answer");
    assert_eq!(db.store.checkpoint(5).await.unwrap().0, 3);

    db.store.request_parked(&subject, 2, Request::Retry, "me", None).await.unwrap();
    let next = Some(Next::Failed { position: 2, error: "still".to_owned(), awaits_build: true });
    mend(&db, &lease, Mended { requested: 2, next, ..Mended::default() }).await;
    assert_eq!(db.store.parked().await.unwrap()[0].attempts, 2);
    assert_eq!(db.store.awaiting_build(5).await.unwrap(), [(subject.clone(), 2)]);
    db.store.request_parked(&subject, 2, Request::Retry, "me", None).await.unwrap();
    assert_eq!(db.store.awaiting_build(5).await.unwrap(), [], "somebody has asked");
}

#[tokio::test]
async fn a_request_goes_on_with_the_next_event_until_all_are_applied() {
    let db = db().await;
    let subject = subject_in(&db.store, 5);
    let lease = db.claim(React, 5).await;
    let lease = park(&db, lease, &subject, &[1, 2, 3]).await;
    db.store.request_parked(&subject, 1, Request::Retry, "me", None).await.unwrap();
    let next = Some(Next::GoesOn { position: 3 });
    mend(&db, &lease, Mended { requested: 1, applied: vec![1, 2], next, ..Mended::default() })
        .await;
    let requests = db.store.parked_requests(5).await.unwrap();
    assert_eq!((requests[0].position, requests[0].request), (3, Request::Retry));
    let done = Mended { requested: 3, applied: vec![3], ..Mended::default() };
    mend(&db, &lease, done).await;
    assert!(db.store.parked().await.unwrap().is_empty());
    assert!(db.store.skipped().await.unwrap().is_empty());
}

#[tokio::test]
async fn what_is_skipped_is_kept_with_who_and_why() {
    let db = db().await;
    let subject = subject_in(&db.store, 5);
    let lease = db.claim(React, 5).await;
    let lease = park(&db, lease, &subject, &[1, 2]).await;
    db.store.request_parked(&subject, 1, Request::Skip, "me", Some("it is wrong")).await.unwrap();
    let next = Some(Next::GoesOn { position: 2 });
    mend(&db, &lease, Mended { requested: 1, skipped: Some(1), next, ..Mended::default() }).await;
    let skipped = db.store.skipped().await.unwrap();
    assert_eq!((skipped[0].slice, skipped[0].position, &skipped[0].subject), (5, 1, &subject));
    assert_eq!(skipped[0].by.as_deref(), Some("me"));
    assert_eq!(skipped[0].reason.as_deref(), Some("it is wrong"));
    assert_eq!(skipped[0].error.as_deref(), Some("it went wrong"));
    let requests = db.store.parked_requests(5).await.unwrap();
    assert_eq!((requests[0].position, requests[0].request), (2, Request::Retry));
    assert_eq!(db.store.parked_positions(5, &subject, 9).await.unwrap(), [2]);
    assert_eq!(db.store.slice_status().await.unwrap()[5].parked, 1);
}

#[tokio::test]
async fn a_request_that_comes_while_another_is_performed_is_performed_next() {
    let db = db().await;
    let subject = subject_in(&db.store, 5);
    let lease = db.claim(React, 5).await;
    let lease = park(&db, lease, &subject, &[1, 2]).await;
    let ask = async |request| db.store.request_parked(&subject, 1, request, "me", None).await;
    ask(Request::Retry).await.unwrap();
    let performed = db.store.parked_requests(5).await.unwrap()[0].requested_at;
    ask(Request::Skip).await.unwrap();
    let failed = Some(Next::Failed { position: 1, error: "still".to_owned(), awaits_build: false });
    for next in [failed, Some(Next::GoesOn { position: 2 }), None] {
        let answer = Mended { requested: 1, requested_at: performed, next, ..Mended::default() };
        let refused = try_mend(&db, &lease, answer).await.unwrap_err();
        assert!(matches!(refused, Error::RequestReplaced { slice: 5, position: 1 }), "{refused}");
    }
    let requests = db.store.parked_requests(5).await.unwrap();
    assert_eq!((requests.len(), requests[0].request), (1, Request::Skip));
    mend(&db, &lease, Mended { requested: 1, skipped: Some(1), ..Mended::default() }).await;
    assert_eq!(db.store.skipped().await.unwrap().len(), 1);
}

#[tokio::test]
async fn what_was_set_aside_at_a_time_was_not_known_then() {
    let db = db().await;
    let subject = Subject::account("gcore-main", "late");
    let slice = db.store.slice_of(&subject);
    let deleted = Event::AccountDeleted(AccountDeleted { account: "late".to_owned() });
    for _ in 0..2 {
        let event = NewEvent::new(subject.clone(), &deleted, Timestamp::default(), Uuid::now_v7());
        db.store.append_one(event).await.unwrap();
    }
    let lease = db.claim(React, slice).await;
    let lease = park(&db, lease, &subject, &[1, 2]).await;
    let clock = async || -> Timestamp {
        sqlx::query_scalar("SELECT clock_timestamp()").fetch_one(&db.pool).await.unwrap()
    };
    let known = async |at| {
        let at = Some(AsOf::Time(at));
        db.store.state_as_of(&subject, at).await.unwrap().map(|(_, position)| position)
    };
    let waiting = clock().await;
    db.store.request_parked(&subject, 1, Request::Retry, "me", None).await.unwrap();
    let next = Some(Next::GoesOn { position: 2 });
    mend(&db, &lease, Mended { requested: 1, applied: vec![1], next, ..Mended::default() }).await;
    let half = clock().await;
    mend(&db, &lease, Mended { requested: 2, applied: vec![2], ..Mended::default() }).await;
    let applied = clock().await;
    assert_eq!(known(waiting).await, None, "both waited");
    assert_eq!(known(half).await, Some(1));
    assert_eq!(known(applied).await, Some(2));
    // A position stands for the time at which it was recorded: both were about to be set aside.
    let first = Some(AsOf::Position { slice, position: 1 });
    assert_eq!(db.store.state_as_of(&subject, first).await.unwrap(), None);
}

#[tokio::test]
async fn a_zombie_mends_nothing() {
    let db = db().await;
    let subject = subject_in(&db.store, 5);
    let lease = db.claim(React, 5).await;
    let lease = park(&db, lease, &subject, &[1]).await;
    db.store.request_parked(&subject, 1, Request::Skip, "me", Some("why")).await.unwrap();
    db.expire(React, 5).await;
    db.claim(React, 5).await;
    let mended = Mended { requested: 1, skipped: Some(1), ..Mended::default() };
    let reaction = Reaction {
        to: lease.position,
        recorded_at: lease.recorded_at,
        mended: Some(mended),
        ..Reaction::default()
    };
    let error = db.store.commit_reaction(&lease, &reaction, LONG).await.unwrap_err();
    assert!(matches!(error, Error::Fenced { slice: 5 }), "{error}");
    assert!(db.store.skipped().await.unwrap().is_empty());
    assert_eq!(db.store.parked_requests(5).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_missing_position_shows_in_the_progress() {
    let db = db().await;
    let subject = subject_in(&db.store, 5);
    for _ in 0..3 {
        db.store.append_one(event(&subject, "")).await.unwrap();
    }
    let status = &db.store.slice_status().await.unwrap()[5];
    assert!(status.lag() == 3 && !status.has_hole() && status.waits_ms.is_some());
    db.sql("ALTER TABLE tallylight.event DISABLE TRIGGER event_append_only").await;
    db.sql("DELETE FROM tallylight.event WHERE slice = 5 AND position = 1").await;
    let status = &db.store.slice_status().await.unwrap()[5];
    assert!(status.has_hole());
    assert!(!db.store.slice_status().await.unwrap()[6].has_hole());
}

#[tokio::test]
async fn the_lease_as_the_table_has_it_is_told_to_its_holder_alone() {
    let db = db().await;
    let lease = db.claim(React, 5).await;
    let reaction = Reaction { to: 4, ..Reaction::default() };
    let advanced = db.store.commit_reaction(&lease, &reaction, LONG).await.unwrap().lease;
    assert_eq!(db.store.lease(React, 5, lease.epoch).await.unwrap(), Some(advanced));
    assert_eq!(db.store.lease(React, 5, lease.epoch + 1).await.unwrap(), None);
}
