//! The transaction of a reaction: all of it or nothing, and each event once.

use domain::account::Account;
use domain::effect::NewJob;
use domain::ids::{Subject, Timestamp, VideoId};
use domain::state::{Body, State};
use domain::view::{AccountRow, Row, VideoRow};
use serde_json::json;
use store::Consumer::{Jobs, React};
use store::{Error, Lease, ParkedEvent, Reacting, Reaction};
use uuid::Uuid;

use crate::support::{Db, LONG, db, event, keyed, subject_in};

fn job(subject: &Subject, once_for: Option<Uuid>) -> NewJob {
    NewJob {
        id: Uuid::now_v7(),
        kind: "a_job".to_owned(),
        subject: subject.clone(),
        args: json!({"n": 1}),
        run_at: Timestamp::default(),
        priority: 2,
        max_attempts: 3,
        once_for,
        causation_id: Some(Uuid::now_v7()),
        correlation_id: None,
        trace: None,
    }
}

fn state(account: &str) -> State {
    let account = Account { id: account.to_owned(), deleted_at: None, erased_at: None };
    State { at: Timestamp::default(), body: Body::Account(account) }
}

fn video(source: &str, id: i64) -> Row {
    let status = "ready".to_owned();
    Row::Video(VideoRow {
        source: source.to_owned(),
        id: VideoId(id),
        live_stream: None,
        status,
        duration_ms: Some(7),
    })
}

/// A reaction that does something of everything.
fn everything(db: &Db, lease: &Lease) -> Reaction {
    let subject = subject_in(&db.store, lease.slice);
    let at = Timestamp::from_timestamp(1_700_000_000, 0).unwrap();
    let account =
        AccountRow { source: "test".to_owned(), id: "a".to_owned(), deleted_at: Some(at) };
    Reaction {
        to: lease.position + 3,
        recorded_at: at,
        states: vec![(subject.clone(), state("a"), lease.position + 2)],
        rows: vec![
            (video("test", 1), lease.position + 1),
            (Row::Account(account), lease.position + 2),
        ],
        jobs: vec![job(&subject, None), job(&subject, None)],
        cancels: Vec::new(),
        events: vec![event(&subject, "announced")],
        parked: Vec::new(),
        mended: None,
    }
}

const WRITTEN: &str = "SELECT (SELECT count(*) FROM tallylight.subject_state)
    + (SELECT count(*) FROM tallylight.video) + (SELECT count(*) FROM tallylight.account)
    + (SELECT count(*) FROM tallylight.job) + (SELECT count(*) FROM tallylight.event)
    + (SELECT count(*) FROM tallylight.event_key) + (SELECT count(*) FROM tallylight.parked)
    + (SELECT sum(position) FROM tallylight.checkpoint)::bigint";

#[tokio::test]
async fn a_reaction_does_everything_and_advances() {
    let db = db().await;
    let lease = db.claim(React, 5).await;
    let reaction = everything(&db, &lease);
    let committed = db.store.commit_reaction(&lease, &reaction, LONG).await.unwrap();
    assert_eq!((committed.jobs, committed.events), (2, 1));
    let expected = Lease { position: 3, recorded_at: reaction.recorded_at, ..lease };
    assert_eq!(committed.lease, expected);
    assert_eq!(db.store.checkpoint(5).await.unwrap(), (3, reaction.recorded_at));
    let subject = &reaction.states[0].0;
    let states = db.store.load_states(5, std::slice::from_ref(subject)).await.unwrap();
    assert_eq!(states[subject], state("a"));
    assert_eq!(db.number(WRITTEN).await, 1 + 1 + 1 + 2 + 1 + 3);

    // The same again was done by then: its old position is not ours any more.
    let again = db.store.commit_reaction(&lease, &reaction, LONG).await.unwrap_err();
    assert!(matches!(again, Error::Fenced { slice: 5 }), "{again}");
    let next = Reaction { to: 4, ..Reaction::default() };
    db.store.commit_reaction(&committed.lease, &next, LONG).await.unwrap();
}

#[tokio::test]
async fn reactions_of_several_slices_share_a_transaction_and_each_has_its_own_fence() {
    let db = db().await;
    let (lost, first, second) =
        (db.claim(React, 3).await, db.claim(React, 5).await, db.claim(React, 9).await);
    db.store.release(React, 3, lost.epoch).await.unwrap();
    db.claim(React, 3).await;
    let of = |lease: &Lease| everything(&db, lease);
    let leases = [lost, first, second];
    let reactions = [of(&lost), of(&first), of(&second)];
    let all: Vec<Reacting<'_>> = leases
        .iter()
        .zip(&reactions)
        .map(|(lease, reaction)| Reacting { lease, reaction })
        .collect();
    let committed = db.store.commit_reactions(&all, LONG).await.unwrap();
    assert_eq!(committed[0], None, "its lease has passed on");
    for (one, slice) in committed[1..].iter().zip([5, 9]) {
        let one = one.unwrap();
        assert_eq!((one.lease.slice, one.lease.position, one.jobs, one.events), (slice, 3, 2, 1));
        assert_eq!(db.store.checkpoint(slice).await.unwrap().0, 3);
    }
    // Twice what a reaction writes, and nothing besides: an append without a name leaves no key.
    assert_eq!(db.number(WRITTEN).await, 2 * (1 + 1 + 1 + 2 + 1 + 3));
    let events = db.number("SELECT count(DISTINCT slice) FROM tallylight.event").await;
    assert_eq!(events, 2);
}

#[tokio::test]
async fn a_value_that_is_refused_spoils_the_whole_transaction_and_no_slice_alone() {
    let db = db().await;
    let (first, second) = (db.claim(React, 5).await, db.claim(React, 9).await);
    let (fine, mut spoilt) = (everything(&db, &first), everything(&db, &second));
    spoilt.jobs[0].subject = Subject::from_stored("a/request/\0".to_owned());
    let all = [
        Reacting { lease: &first, reaction: &fine },
        Reacting { lease: &second, reaction: &spoilt },
    ];
    let error = db.store.commit_reactions(&all, LONG).await.unwrap_err();
    assert!(matches!(error, Error::Data { .. }), "{error}");
    assert_eq!(db.number(WRITTEN).await, 0);
    db.store.commit_reaction(&first, &fine, LONG).await.unwrap();
}

#[tokio::test]
async fn a_reaction_cancels_jobs_of_its_slice_that_are_live() {
    let db = db().await;
    let lease = db.claim(React, 5).await;
    let process = Uuid::now_v7();
    let jobs_lease = db.store.claim(Jobs, 5, process, LONG).await.unwrap().unwrap();
    let subject = subject_in(&db.store, 5);
    let (waiting, running, other) = (job(&subject, None), job(&subject, None), job(&subject, None));
    let (waits, runs) = (waiting.id, running.id);
    let first = Reaction { to: 1, jobs: vec![waiting, running, other], ..Reaction::default() };
    let committed = db.store.commit_reaction(&lease, &first, LONG).await.unwrap();
    db.store.mark_started(5, jobs_lease.epoch, &[runs]).await.unwrap();
    let cancels = vec![waits, runs, Uuid::now_v7()];
    let next = Reaction { to: 2, cancels, ..Reaction::default() };
    db.store.commit_reaction(&committed.lease, &next, LONG).await.unwrap();
    let found = db.store.cancellations(process).await.unwrap();
    let mut found: Vec<_> = found.into_iter().map(|c| (c.job.id, c.is_running)).collect();
    found.sort_unstable();
    let mut cancelled = [(waits, false), (runs, true)];
    cancelled.sort_unstable();
    assert_eq!(found, cancelled);
    // What waits is not started any more.
    let started = db.store.mark_started(5, jobs_lease.epoch, &[waits]).await.unwrap();
    assert!(started.is_empty());
}

#[tokio::test]
async fn a_refused_value_leaves_everything_untouched() {
    let db = db().await;
    let lease = db.claim(React, 5).await;
    let subject = subject_in(&db.store, 5);
    let deep = (0..100_000).fold(String::new(), |text, _| text + "[");
    let spoils: [fn(&mut Reaction); 6] = [
        |r| r.events[0].subject = Subject::from_stored("gcore-main/video/803111".to_owned()),
        |r| r.rows.push((video("a\0b", 2), 1)),
        |r| r.jobs[1].args = json!({"text": "a\0b"}),
        |r| r.jobs[1].kind = "k".repeat(64),
        |r| r.events[0].event_type = "a\0b".to_owned(),
        |r| {
            let subject = r.states[0].0.clone();
            r.parked.push(ParkedEvent { position: 1, subject, error: None, awaits_build: false });
            r.parked.push(r.parked[0].clone());
        },
    ];
    for (n, spoil) in spoils.iter().enumerate() {
        let mut reaction = everything(&db, &lease);
        reaction.events.push(keyed(&subject, Uuid::now_v7()));
        spoil(&mut reaction);
        let error = db.store.commit_reaction(&lease, &reaction, LONG).await.unwrap_err();
        assert!(matches!(error, Error::Data { .. }), "{n}: {error:?}");
        assert_eq!(db.number(WRITTEN).await, 0, "{n}");
        assert_eq!(db.head(5).await, 0, "{n}");
    }
    // Too deep for jsonb: the data's fault as well.
    let error =
        sqlx::query("SELECT $1::text::jsonb").bind(deep).execute(&db.pool).await.unwrap_err();
    assert!(matches!(Error::from(error), Error::Data { .. }));
    db.store.commit_reaction(&lease, &everything(&db, &lease), LONG).await.unwrap();
}

#[tokio::test]
async fn a_job_is_not_inserted_again_for_a_key_that_was_claimed() {
    let db = db().await;
    let lease = db.claim(React, 5).await;
    let subject = subject_in(&db.store, 5);
    let intent = Uuid::now_v7();
    let first = Reaction {
        to: 1,
        jobs: vec![job(&subject, Some(intent))],
        events: vec![keyed(&subject, intent)],
        ..Reaction::default()
    };
    let committed = db.store.commit_reaction(&lease, &first, LONG).await.unwrap();
    assert_eq!((committed.jobs, committed.events), (1, 1));
    // Done and gone: only the key tells that it was there.
    assert_eq!(db.sql("DELETE FROM tallylight.job").await, 1);
    let other = Uuid::now_v7();
    let second = Reaction {
        to: 2,
        jobs: vec![job(&subject, Some(intent)), job(&subject, Some(other)), job(&subject, None)],
        events: vec![keyed(&subject, intent), keyed(&subject, other)],
        ..Reaction::default()
    };
    let committed = db.store.commit_reaction(&committed.lease, &second, LONG).await.unwrap();
    assert_eq!((committed.jobs, committed.events), (2, 1));
}

#[tokio::test]
async fn a_job_id_that_is_there_is_left_as_it_is() {
    let db = db().await;
    let lease = db.claim(React, 5).await;
    let subject = subject_in(&db.store, 5);
    let mut one = job(&subject, None);
    let jobs = vec![one.clone()];
    let first = Reaction { to: 1, jobs, ..Reaction::default() };
    let lease = db.store.commit_reaction(&lease, &first, LONG).await.unwrap().lease;
    one.args = json!({"n": 2});
    let second = Reaction { to: 2, jobs: vec![one.clone(), one], ..Reaction::default() };
    assert_eq!(db.store.commit_reaction(&lease, &second, LONG).await.unwrap().jobs, 0);
    assert_eq!(db.number("SELECT (args ->> 'n')::bigint FROM tallylight.job").await, 1);
}

#[tokio::test]
async fn events_set_aside_are_known_by_their_subject() {
    let db = db().await;
    let lease = db.claim(React, 5).await;
    let subject = subject_in(&db.store, 5);
    let parked = |position, error: Option<&str>| ParkedEvent {
        awaits_build: false,
        position,
        subject: subject.clone(),
        error: error.map(str::to_owned),
    };
    let reaction = Reaction {
        to: 2,
        parked: vec![parked(1, Some("a\0b")), parked(2, None)],
        ..Reaction::default()
    };
    db.store.commit_reaction(&lease, &reaction, LONG).await.unwrap();
    assert_eq!(db.store.parked_subjects(5).await.unwrap(), [subject]);
    assert!(db.store.parked_subjects(6).await.unwrap().is_empty());
    assert_eq!(db.store.slice_status().await.unwrap()[5].parked, 2);
}

#[tokio::test]
async fn a_row_is_replaced_by_its_key_and_not_written_when_equal() {
    let db = db().await;
    let lease = db.claim(React, 5).await;
    let first = Reaction { to: 1, rows: vec![(video("test", 1), 1)], ..Reaction::default() };
    let lease = db.store.commit_reaction(&lease, &first, LONG).await.unwrap().lease;
    let version = "SELECT xmin::text::bigint FROM tallylight.video";
    let before = db.number(version).await;
    let second = Reaction { to: 2, rows: vec![(video("test", 1), 1)], ..Reaction::default() };
    let lease = db.store.commit_reaction(&lease, &second, LONG).await.unwrap().lease;
    assert_eq!(db.number(version).await, before);
    let third = Reaction { to: 3, rows: vec![(video("test", 1), 3)], ..Reaction::default() };
    db.store.commit_reaction(&lease, &third, LONG).await.unwrap();
    assert_ne!(db.number(version).await, before);
    assert_eq!(db.number("SELECT position FROM tallylight.video").await, 3);
}
