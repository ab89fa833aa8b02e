//! Rebuilding: the same rows from the same log, whoever writes meanwhile, and no effects.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use domain::event::{AccountDeleted, Event, NewEvent, RecordedEvent};
use domain::ids::Subject;
use domain::scenario::{SOURCE, Scenario};
use domain::state::evolve;
use domain::view::rows;
use store::Consumer::React;
use store::{
    Digest, Error, JobCounts, Lease, ParkedEvent, Reaction, RebuildOptions, RebuildProgress,
    RebuildState, Rebuilt, Store,
};
use uuid::Uuid;

use crate::support::{Db, LONG, db};

/// The log of a few sessions: one that runs well, one with a dropped encoder, one that failed, and
/// an account that is deleted.
pub(crate) fn log() -> Vec<RecordedEvent> {
    let mut scenario = Scenario::new();
    for n in 0..3 {
        let session = scenario.request(&format!("key-{n}"), |_| {});
        let held: Vec<i64> = scenario
            .states()
            .filter_map(|(s, _)| s.parts().filter(|p| p.1 == "stream")?.2.parse().ok())
            .collect();
        for live_stream in held {
            scenario.encoder_connects(live_stream);
            scenario.go_live(session);
            scenario.recording_shows(live_stream, true);
            scenario.encoder_drops(live_stream);
            scenario.pass(Duration::from_secs(20));
            scenario.encoder_connects(live_stream);
            scenario.tell_video(live_stream + 1_000, "ready");
        }
        scenario.end(session);
        scenario.pass(Duration::from_mins(10));
    }
    scenario.delete_account("user-17");
    scenario.log().to_vec()
}

/// Appends a log as it was, in its order, over all slices too: what comes later is recorded later.
pub(crate) async fn append(store: &Store, log: &[RecordedEvent]) {
    for run in log.chunk_by(|a, b| a.slice == b.slice) {
        let events: Vec<NewEvent> = run.iter().map(again).collect();
        store.append(run[0].slice, None, &events).await.unwrap();
    }
}

/// A recorded event, to be appended once more.
fn again(event: &RecordedEvent) -> NewEvent {
    NewEvent {
        event_id: event.event_id,
        subject: event.subject.clone(),
        event_type: event.event_type.clone(),
        schema_version: event.schema_version,
        key: None,
        received_at: event.received_at,
        causation_id: event.causation_id,
        correlation_id: event.correlation_id,
        meta: event.meta.clone().map(Into::into),
        payload: event.payload.clone(),
    }
}

/// Applies up to `limit` events of a slice as the worker does, setting those of `poison` aside.
pub(crate) async fn apply(
    store: &Store,
    lease: Lease,
    limit: i64,
    poison: &HashSet<Subject>,
) -> Lease {
    try_apply(store, lease, limit, poison).await.unwrap()
}

/// Applies what there is as a worker does, which claims a slice anew where it was fenced.
pub(crate) async fn live(store: &Store, lease: Lease) -> Lease {
    match try_apply(store, lease, 100, &HashSet::new()).await {
        Err(Error::Fenced { slice }) => {
            let lease = store.claim(React, slice, Uuid::now_v7(), LONG).await.unwrap().unwrap();
            apply(store, lease, 100, &HashSet::new()).await
        }
        other => other.unwrap(),
    }
}

async fn try_apply(
    store: &Store,
    lease: Lease,
    limit: i64,
    poison: &HashSet<Subject>,
) -> Result<Lease, Error> {
    let events =
        store.read_after(lease.slice, lease.position, lease.recorded_at, limit).await.unwrap();
    let Some(last) = events.last() else { return Ok(lease) };
    let subjects: Vec<Subject> = events.iter().map(|e| e.subject.clone()).collect();
    let mut states = store.load_states(lease.slice, &subjects).await.unwrap();
    let mut touched = HashMap::new();
    let mut rows_now = HashMap::new();
    let mut reaction =
        Reaction { to: last.position, recorded_at: last.recorded_at, ..Reaction::default() };
    for stored in &events {
        if poison.contains(&stored.subject) {
            let (position, subject) = (stored.position, stored.subject.clone());
            reaction.parked.push(ParkedEvent {
                position,
                subject,
                error: None,
                awaits_build: false,
            });
            continue;
        }
        let before = states.get(&stored.subject).cloned();
        if let Some(state) = evolve(before, stored, &Event::decode(stored)) {
            for row in rows(&stored.subject, &state) {
                rows_now.insert(row.key(), (row, stored.position));
            }
            touched.insert(stored.subject.clone(), stored.position);
            states.insert(stored.subject.clone(), state);
        }
    }
    let state =
        |(subject, position): (Subject, i64)| (subject.clone(), states[&subject].clone(), position);
    reaction.states = touched.into_iter().map(state).collect();
    reaction.rows = rows_now.into_values().collect();
    store.commit_reaction(&lease, &reaction, LONG).await.map(|committed| committed.lease)
}

/// Applies all there is, a few events at a time.
pub(crate) async fn apply_all(store: &Store, leases: &mut [Lease], poison: &HashSet<Subject>) {
    for lease in leases {
        loop {
            let next = apply(store, *lease, 3, poison).await;
            if next.position == lease.position {
                break;
            }
            *lease = next;
        }
    }
}

pub(crate) async fn leases(db: &Db) -> Vec<Lease> {
    let mut leases = Vec::new();
    for slice in db.store.slices().slices() {
        leases.push(db.claim(React, slice).await);
    }
    leases
}

pub(crate) async fn rebuild(store: &Store) -> Rebuilt {
    store.rebuild(&RebuildOptions::default(), &RebuildProgress::default()).await.unwrap()
}

/// A database with applied sessions.
pub(crate) async fn applied() -> (Db, Vec<Lease>, Digest, usize) {
    let db = db().await;
    let log = log();
    append(&db.store, &log).await;
    let mut leases = leases(&db).await;
    apply_all(&db.store, &mut leases, &HashSet::new()).await;
    let digest = db.store.digest().await.unwrap();
    for table in ["subject_state", "session_request", "session", "live_stream", "video", "account"]
    {
        let query = format!("SELECT count(*) FROM tallylight.{table}");
        let rows: i64 =
            sqlx::query_scalar(sqlx::AssertSqlSafe(query)).fetch_one(&db.pool).await.unwrap();
        assert!(rows > 0, "the log fills {table}");
    }
    (db, leases, digest, log.len())
}

#[tokio::test]
async fn a_rebuild_folds_the_whole_log_to_the_same_rows() {
    let (db, _, before, events) = applied().await;
    let rebuilt = rebuild(&db.store).await;
    assert_eq!(rebuilt.events, events as u64);
    assert_eq!(
        i64::try_from(rebuilt.subjects).unwrap(),
        db.number("SELECT count(*) FROM tallylight.subject_state").await
    );
    assert_eq!(db.store.digest().await.unwrap(), before);
    assert_eq!(rebuilt.state, Some(RebuildState::Live));
}

#[tokio::test]
async fn a_rebuild_has_no_effects() {
    let (db, _, _, events) = applied().await;
    rebuild(&db.store).await;
    assert_eq!(db.store.job_counts().await.unwrap(), JobCounts::default());
    assert_eq!(
        db.number("SELECT count(*) FROM tallylight.event").await,
        i64::try_from(events).unwrap()
    );
    assert_eq!(db.number("SELECT count(*) FROM tallylight.event_key").await, 0);
}

#[tokio::test]
async fn damage_shows_in_the_digest_and_is_mended() {
    let (db, _, before, _) = applied().await;
    let damage = [
        "UPDATE tallylight.session SET status = 'forged'",
        "UPDATE tallylight.subject_state SET state = jsonb_set(state, '{at}', '\"2001-01-01T00:00:00Z\"')",
        "UPDATE tallylight.live_stream SET live = NOT live",
        "UPDATE tallylight.session_request SET name = 'forged', account = 'nobody'",
        "DELETE FROM tallylight.video",
        "DELETE FROM tallylight.subject_state WHERE subject LIKE '%/video/%'",
        "INSERT INTO tallylight.account VALUES (0, 'gcore-main', 'stranger', now(), 1)",
        "INSERT INTO tallylight.video VALUES (3, 'gcore-main', 1, 1, 'ready', 1, 1)",
        "INSERT INTO tallylight.live_stream VALUES (3, 'x', 1, NULL, NULL, NULL, false, NULL, false, NULL, NULL, NULL, 1)",
        "INSERT INTO tallylight.session SELECT slice, gen_random_uuid(), source, account, live_stream_id, status,
                status_at, detail, position FROM tallylight.session LIMIT 1",
        "INSERT INTO tallylight.session_request SELECT slice, gen_random_uuid(), source, account, name, status, failure,
                live_stream_id, requested_at, position FROM tallylight.session_request LIMIT 1",
        "INSERT INTO tallylight.subject_state VALUES (1, 'gcore-main/account/stranger', '{}', 1)",
    ];
    let mut last = before.clone();
    for statement in damage {
        assert!(db.sql(statement).await > 0, "{statement}");
        let digest = db.store.digest().await.unwrap();
        assert_ne!(digest, last, "{statement}");
        last = digest;
    }
    rebuild(&db.store).await;
    assert_eq!(db.store.digest().await.unwrap(), before);
}

#[tokio::test]
async fn events_may_come_while_it_rebuilds() {
    let (db, mut leases, _, events) = applied().await;
    db.sql("UPDATE tallylight.session SET status = 'forged'").await;
    db.sql("DELETE FROM tallylight.subject_state WHERE subject LIKE '%/account/%'").await;
    let stop = Arc::new(AtomicBool::new(false));
    let (store, flag) = (db.store.clone(), stop.clone());
    let writer = tokio::spawn(async move {
        let mut written = 0_u32;
        while !flag.load(Ordering::Relaxed) || written < 200 {
            let account = format!("account-{}", written % 40);
            let event = Event::AccountDeleted(AccountDeleted { account: account.clone() });
            let subject = Subject::account(SOURCE, &account);
            let at = domain::ids::Timestamp::from_timestamp(1_700_000_000 + i64::from(written), 0)
                .unwrap();
            let slice = store.slice_of(&subject);
            store.append_one(NewEvent::new(subject, &event, at, Uuid::now_v7())).await.unwrap();
            written += 1;
            let lease = &mut leases[usize::try_from(slice).unwrap()];
            *lease = live(&store, *lease).await;
        }
        written
    });
    for _ in 0..2 {
        rebuild(&db.store).await;
    }
    stop.store(true, Ordering::Relaxed);
    let written = writer.await.unwrap();
    let after = db.store.digest().await.unwrap();
    assert_eq!(
        db.number("SELECT count(*) FROM tallylight.session WHERE status = 'forged'").await,
        0
    );
    assert_eq!(rebuild(&db.store).await.events, events as u64 + u64::from(written));
    assert_eq!(db.store.digest().await.unwrap(), after, "live rows were those of a rebuild");
}

#[tokio::test]
async fn a_reaction_in_progress_is_waited_for_and_not_overwritten() {
    let db = db().await;
    let subject = Subject::account(SOURCE, "a");
    let slice = db.store.slice_of(&subject);
    let mut lease = db.claim(React, slice).await;
    let event = Event::AccountDeleted(AccountDeleted { account: "a".to_owned() });
    for second in [1, 2] {
        let at = domain::ids::Timestamp::from_timestamp(1_700_000_000 + second, 0).unwrap();
        let event = NewEvent::new(subject.clone(), &event, at, Uuid::now_v7());
        db.store.append_one(event).await.unwrap();
    }
    lease = apply(&db.store, lease, 1, &HashSet::new()).await;
    // The second event's rows are written, its transaction is not yet at its end.
    let mut open = db.pool.begin().await.unwrap();
    sqlx::query(
        "UPDATE tallylight.checkpoint SET position = 2, recorded_at = $2 WHERE consumer = 'react' AND slice = $1",
    )
    .bind(slice)
    .bind(lease.recorded_at)
    .execute(&mut *open)
    .await
    .unwrap();
    let second = db.store.read_event(slice, 2).await.unwrap().unwrap();
    let state =
        db.store.load_states(slice, std::slice::from_ref(&subject)).await.unwrap().remove(&subject);
    let state = evolve(state, &second, &event).unwrap();
    sqlx::query("UPDATE tallylight.subject_state SET state = $1, position = 2")
        .bind(serde_json::to_value(state).unwrap())
        .execute(&mut *open)
        .await
        .unwrap();
    let store = db.store.clone();
    let rebuilding = tokio::spawn(async move { rebuild(&store).await });
    // The swap waits for the checkpoint, and tries again.
    db.blocked(1).await;
    open.commit().await.unwrap();
    assert_eq!(rebuilding.await.unwrap().events, 2);
    assert_eq!(db.number("SELECT position FROM tallylight.subject_state").await, 2);
    let digest = db.store.digest().await.unwrap();
    rebuild(&db.store).await;
    assert_eq!(db.store.digest().await.unwrap(), digest);
}

#[tokio::test]
async fn what_is_set_aside_stays_as_it_is() {
    let db = db().await;
    let log = log();
    append(&db.store, &log).await;
    let mut leases = leases(&db).await;
    let stream = log
        .iter()
        .map(|e| &e.subject)
        .find(|s| s.parts().is_some_and(|p| p.1 == "stream"))
        .unwrap();
    // The first events of the subject are applied, then it is poisoned.
    let at = usize::try_from(db.store.slice_of(stream)).unwrap();
    leases[at] = apply(&db.store, leases[at], 4, &HashSet::new()).await;
    apply_all(&db.store, &mut leases, &HashSet::from([stream.clone()])).await;
    assert_eq!(
        db.store.parked_subjects(leases[at].slice).await.unwrap(),
        std::slice::from_ref(stream)
    );
    let parked = db.number("SELECT count(*) FROM tallylight.parked").await;
    let before = db.store.digest().await.unwrap();
    db.sql("DELETE FROM tallylight.subject_state").await;
    rebuild(&db.store).await;
    assert_eq!(db.store.digest().await.unwrap(), before);
    assert_eq!(db.number("SELECT count(*) FROM tallylight.parked").await, parked);
}

#[tokio::test]
async fn what_is_not_applied_yet_is_not_rebuilt() {
    let db = db().await;
    append(&db.store, &log()).await;
    let nothing = Rebuilt { state: Some(RebuildState::Live), ..Rebuilt::default() };
    assert_eq!(rebuild(&db.store).await, nothing);
    assert_eq!(db.store.digest().await.unwrap().rows, 0);
}

#[tokio::test]
async fn one_connection_is_enough() {
    let (db, _, before, _) = applied().await;
    let one = store::Config { max_connections: 1, ..store::Config::new(db.url.as_str()) };
    let store = Store::connect(&one).await.unwrap();
    db.sql("UPDATE tallylight.session SET status = 'forged'").await;
    rebuild(&store).await;
    assert_eq!(store.digest().await.unwrap(), before);
}
