//! Personal values are sealed with a key per account, and gone with it: for every reader, for ever,
//! and without a row being rewritten.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use domain::event::{Event, RecordedEvent, SessionRequested};
use domain::ids::{LiveStreamId, Subject, Timestamp, session_id};
use domain::personal::{ERASED, Pseudonym};
use domain::scenario::{SOURCE, Scenario};
use serde_json::{Value, json};
use store::{AccountKey, AsOf, Error, Page, SealingKey, SessionFilter, SessionView, Store};
use uuid::Uuid;

use crate::history;
use crate::rebuild::{append, apply_all, leases, rebuild};
use crate::support::{Db, db};

const ACCOUNT: &str = "ann@example.org";
const NAME: &str = "Ann at home";
const LIVE_STREAM: i64 = 320_423;

fn sealing() -> SealingKey {
    SealingKey::new([7; 32])
}

fn sources() -> Vec<String> {
    vec![SOURCE.to_owned()]
}

fn seal(key: &AccountKey, request: &mut SessionRequested) {
    NAME.clone_into(&mut request.name);
    request.options.client_user_id = Some(987_654);
    request.options.data = Some(json!({"of": "Ann"}));
    request.options.auto_go_live = true;
    key.seal_request(request).unwrap();
}

/// The log of one session of the account: to its end, or while it is on air.
fn log(key: &AccountKey, is_over: bool) -> Vec<RecordedEvent> {
    let mut scenario = Scenario::new();
    let session = scenario.request("key", |request| seal(key, request));
    scenario.encoder_connects(LIVE_STREAM);
    scenario.recording_shows(LIVE_STREAM, true);
    if is_over {
        scenario.end(session);
        scenario.pass(Duration::from_mins(30));
    }
    scenario.log().to_vec()
}

fn session() -> Uuid {
    session_id(SOURCE, "key")
}

fn stream() -> Subject {
    Subject::live_stream(SOURCE, LiveStreamId(LIVE_STREAM))
}

/// Folds everything into the projections.
async fn apply(db: &Db) {
    db.sql("UPDATE tallylight.checkpoint SET lease_until = now() - interval '1 second'").await;
    apply_all(&db.store, &mut leases(db).await, &HashSet::new()).await;
}

/// A database with one session of the account, applied.
async fn filled(is_over: bool) -> (Db, AccountKey) {
    let db = db().await;
    let key = db.store.account_key(&sealing(), ACCOUNT).await.unwrap();
    append(&db.store, &log(&key, is_over)).await;
    apply(&db).await;
    (db, key)
}

async fn erase(store: &Store) -> Result<Option<store::Erased>, Error> {
    let at = Timestamp::from_timestamp(1_700_000_000, 0).unwrap();
    store.erase_account(ACCOUNT, &sources(), at, &json!({"by": "a test"})).await
}

async fn the_session(store: &Store) -> SessionView {
    store.session(session()).await.unwrap().unwrap()
}

/// Account and name of the session, as they are shown.
async fn shown(store: &Store) -> (String, String) {
    let view = the_session(store).await;
    let texts = [view.account.unwrap(), view.name].map(Value::String);
    let mut opened = store.open(Some(&sealing()), Value::Array(texts.to_vec())).await.unwrap();
    let mut take = |n: usize| opened[n].take().as_str().unwrap().to_owned();
    (take(0), take(1))
}

/// What the log says of the request, opened.
async fn request(store: &Store, of: Uuid) -> SessionRequested {
    let subject = Subject::request(SOURCE, of);
    let mut events = store.read_subject(&subject, 0, 1).await.unwrap();
    store.open_events(Some(&sealing()), &mut events).await.unwrap();
    let Event::SessionRequested(request) = Event::decode(&events[0]) else {
        panic!("{:?}", events[0]);
    };
    request
}

/// Every slice is what the log folds to.
async fn assert_clean(store: &Store) {
    for slice in store.slices().slices() {
        assert_eq!(store.verify_slice(slice).await.unwrap().differing, 0, "slice {slice}");
    }
}

/// All that the database holds, as text.
async fn dump(db: &Db) -> String {
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT relname::text FROM pg_class
          WHERE relnamespace = 'tallylight'::regnamespace AND relkind = 'r' ORDER BY 1",
    )
    .fetch_all(&db.pool)
    .await
    .unwrap();
    let mut text = String::new();
    for table in tables {
        // Bodies are bytes, which a row's text shows in hexadecimal.
        let body = if table.starts_with("event_") && !["event_key", "event_wait"].contains(&&*table)
        {
            "convert_from(payload, 'UTF8')"
        } else {
            "''"
        };
        let query = format!(
            "SELECT coalesce(string_agg(t::text || {body}, E'\n'), '') FROM tallylight.{table} t"
        );
        let rows: String =
            sqlx::query_scalar(sqlx::AssertSqlSafe(query)).fetch_one(&db.pool).await.unwrap();
        text += &rows;
    }
    text
}

#[tokio::test]
async fn personal_values_lie_in_the_open_in_no_table_and_open_with_the_key() {
    let (db, key) = filled(false).await;
    let dump = dump(&db).await;
    assert!(dump.contains(&key.pseudonym().to_string()) && dump.contains("SessionWentLive"));
    for value in [ACCOUNT, NAME, "Ann", "987654"] {
        assert!(!dump.contains(value), "{value}");
    }
    assert_eq!(shown(&db.store).await, (ACCOUNT.to_owned(), NAME.to_owned()));
    let request = request(&db.store, session()).await;
    assert_eq!(request.options.client_user_id, Some(987_654));
    assert_eq!(request.options.data, Some(json!({"of": "Ann"})));
    assert_eq!((request.account.as_deref(), request.name.as_str()), (Some(ACCOUNT), NAME));
    assert_eq!(request.options.sealed, None);
}

#[tokio::test]
async fn what_is_erased_is_read_by_nobody_and_nothing_else_changes() {
    let (db, key) = filled(true).await;
    let store = &db.store;
    let before = (store.digest().await.unwrap(), the_session(store).await);
    let events = store.read_subject(&stream(), 0, 1_000).await.unwrap();

    let erased = erase(store).await.unwrap().unwrap();
    assert_eq!((erased.pseudonym, erased.events), (key.pseudonym(), 1));
    assert_eq!(store.digest().await.unwrap(), before.0, "no row is rewritten");
    assert_eq!(store.read_subject(&stream(), 0, 1_000).await.unwrap(), events);
    assert_eq!(shown(store).await, (ERASED.to_owned(), ERASED.to_owned()));
    let request = request(store, session()).await;
    assert_eq!((request.options.client_user_id, request.options.data), (None, Some(json!(ERASED))));

    // What was known before is forgotten too.
    let first = AsOf::Position { slice: store.slice_of(&stream()), position: events[0].position };
    let (state, _) = store.state_as_of(&stream(), Some(first)).await.unwrap().unwrap();
    let state = store.open(Some(&sealing()), json!(state)).await.unwrap().to_string();
    assert!(state.contains(ERASED) && !state.contains("Ann"), "{state}");
    let at = AsOf::Time(Timestamp::MAX_UTC);
    let then = store.session_as_of(SOURCE, session(), at).await.unwrap().unwrap().session;
    assert_eq!(then, before.1, "sealed as ever");

    apply(&db).await;
    let live = store.digest().await.unwrap();
    assert_clean(store).await;
    rebuild(store).await;
    assert_eq!(store.digest().await.unwrap(), live);
    assert_clean(store).await;
    let subject = Subject::account(SOURCE, &key.pseudonym().to_string());
    let told = store.read_subject(&subject, 0, 10).await.unwrap();
    assert!(matches!(Event::decode(&told[0]), Event::AccountErased(_)));
    assert_eq!(told[0].meta, Some(json!({"by": "a test"})));
}

#[tokio::test]
async fn history_in_segments_is_erased_without_being_touched() {
    let place = history::place().await;
    let key = place.store.account_key(&sealing(), ACCOUNT).await.unwrap();
    append(&place.store, &log(&key, true)).await;
    apply(&place.db).await;
    place.age(400).await;
    assert!(place.seal().await.events > 0);
    assert_eq!(request(&place.store, session()).await.name, NAME, "read from its segment");
    let held = place.store.holdings(ACCOUNT).await.unwrap();
    assert!(held.events > 5, "{held:?}");

    erase(&place.store).await.unwrap().unwrap();
    assert_eq!(request(&place.store, session()).await.name, ERASED);
    for segment in place.store.segments().await.unwrap() {
        place.store.verify_segment(&segment).await.unwrap();
    }
    let live = place.store.digest().await.unwrap();
    rebuild(&place.store).await;
    assert_eq!(shown(&place.store).await, (ERASED.to_owned(), ERASED.to_owned()));
    assert_eq!(place.store.digest().await.unwrap(), live);
}

#[tokio::test]
async fn what_is_held_is_told_before_it_is_erased() {
    let (db, key) = filled(true).await;
    let mut plain = Scenario::new();
    plain.request("open", |request| request.account = Some(ACCOUNT.to_owned()));
    append(&db.store, &plain.log()[..1]).await;
    apply(&db).await;
    let held = db.store.holdings(ACCOUNT).await.unwrap();
    assert_eq!(held.pseudonym, Some(key.pseudonym()));
    assert_eq!((held.sessions, held.subjects, held.in_the_open), (2, 3, 1), "{held:?}");
    assert!(held.events > 5 && held.rows >= 4, "{held:?}");
    assert_eq!(db.store.holdings("nobody").await.unwrap(), store::Holdings::default());
    let unchanged = db.store.holdings(ACCOUNT).await.unwrap();
    assert_eq!(unchanged, held, "looking changes nothing");
    // Of the two requests the one whose values are sealed: the other names its account in the open.
    sqlx::query(
        "INSERT INTO tallylight.job_history (slice, id, kind, subject, args, priority, max_attempts, enqueued_at,
                                             attempt, errors, crashes, state, ended_at)
         SELECT slice, gen_random_uuid(), 'a_job', subject, to_jsonb(state), 2, 1, now(), 1, 0, 0, 'completed', now()
           FROM tallylight.subject_state
          WHERE subject LIKE '%/request/%' AND strpos(state::text, $1) > 0",
    )
    .bind(key.pseudonym().to_string())
    .execute(&db.pool)
    .await
    .unwrap();
    let with_history = db.store.holdings(ACCOUNT).await.unwrap();
    assert_eq!(with_history.jobs, held.jobs + 1, "what is kept of ended jobs is held too");
    erase(&db.store).await.unwrap().unwrap();
    let left = db.store.holdings(ACCOUNT).await.unwrap();
    assert_eq!((left.pseudonym, left.events, left.in_the_open), (None, 0, 1), "{left:?}");
}

#[tokio::test]
async fn sessions_that_are_not_off_air_hold_an_erasure_up() {
    let (db, _) = filled(false).await;
    let error = erase(&db.store).await.unwrap_err();
    assert!(error.to_string().contains("end them first"), "{error}");
    let Error::SessionsRun { sessions } = error else { panic!("{error}") };
    assert_eq!(sessions, [session()]);
    assert_eq!(shown(&db.store).await.1, NAME, "nothing happened");
    assert_eq!(
        db.number("SELECT count(*) FROM tallylight.event WHERE event_type = 'AccountErased'").await,
        0
    );
}

#[tokio::test]
async fn erasing_again_or_the_unknown_changes_nothing() {
    let (db, _) = filled(true).await;
    erase(&db.store).await.unwrap().unwrap();
    let heads = "SELECT sum(position)::bigint FROM tallylight.slice_head";
    let head = db.number(heads).await;
    assert_eq!(erase(&db.store).await.unwrap(), None);
    let at = Timestamp::default();
    assert_eq!(db.store.erase_account("nobody", &sources(), at, &json!({})).await.unwrap(), None);
    assert_eq!(db.number(heads).await, head);
}

#[tokio::test]
async fn an_erasure_that_was_cut_off_is_completed() {
    let (db, key) = filled(true).await;
    // It was said, and its process died before it was done.
    db.sql("CREATE FUNCTION tallylight.refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''cut off''; END'").await;
    db.sql("CREATE TRIGGER cut BEFORE DELETE ON tallylight.account_key EXECUTE FUNCTION tallylight.refuse()").await;
    assert!(erase(&db.store).await.is_err());
    db.sql("DROP TRIGGER cut ON tallylight.account_key").await;
    let erased = erase(&db.store).await.unwrap().unwrap();
    assert_eq!((erased.pseudonym, erased.events), (key.pseudonym(), 0), "said once");
    assert_eq!(shown(&db.store).await.1, ERASED);
}

#[tokio::test]
async fn what_is_appended_while_an_account_is_erased_is_erased_with_it() {
    let (db, key) = filled(true).await;
    // A request that was sealed before, and stored after.
    let mut late = Scenario::new();
    let session = late.request("late", |request| seal(&key, request));
    erase(&db.store).await.unwrap().unwrap();
    append(&db.store, &late.log()[..1]).await;
    apply(&db).await;
    assert_eq!(request(&db.store, session).await.name, ERASED);
    assert_clean(&db.store).await;
}

#[tokio::test]
async fn an_account_that_comes_back_is_another_one() {
    let (db, old) = filled(true).await;
    erase(&db.store).await.unwrap().unwrap();
    let new = db.store.account_key(&sealing(), ACCOUNT).await.unwrap();
    assert_ne!(new.pseudonym(), old.pseudonym());
    let mut again = Scenario::new();
    let session = again.request("again", |request| seal(&new, request));
    append(&db.store, &again.log()[..1]).await;
    apply(&db).await;
    assert_eq!(request(&db.store, session).await.name, NAME);
    assert_eq!(shown(&db.store).await.1, ERASED, "the old one stays forgotten");
}

#[tokio::test]
async fn of_processes_that_make_a_key_at_once_one_wins() {
    let db = db().await;
    // Many at once on a slow machine wait for their turn.
    let config = || store::Config {
        acquire_timeout: Duration::from_secs(30),
        max_connections: 3,
        ..store::Config::new(db.url.as_str())
    };
    let stores =
        [Store::connect(&config()).await.unwrap(), Store::connect(&config()).await.unwrap()];
    let made = |store: Store| {
        tokio::spawn(
            async move { store.account_key(&sealing(), ACCOUNT).await.unwrap().pseudonym() },
        )
    };
    let tasks: Vec<_> = stores.iter().cycle().take(12).map(|store| made(store.clone())).collect();
    let mut made = BTreeSet::new();
    for task in tasks {
        made.insert(task.await.unwrap());
    }
    assert_eq!(made.len(), 1, "{made:?}");
    assert_eq!(db.number("SELECT count(*) FROM tallylight.account_key").await, 1);
}

#[tokio::test]
async fn another_sealing_key_opens_nothing_and_makes_nothing() {
    let (db, _) = filled(true).await;
    let other = SealingKey::new([8; 32]);
    for account in [ACCOUNT, "new"] {
        let error = db.store.account_key(&other, account).await.unwrap_err();
        assert!(matches!(error, Error::AccountKey { .. }), "{error}");
        assert!(error.to_string().contains("another sealing key"), "{error}");
    }
    assert_eq!(db.number("SELECT count(*) FROM tallylight.account_key").await, 1);
    let name = the_session(&db.store).await.name;
    let error = db.store.open(Some(&other), json!([name])).await.unwrap_err();
    assert!(matches!(error, Error::AccountKey { .. }), "{error}");
    assert_eq!(db.store.open(None, json!([name])).await.unwrap(), json!(["[sealed]"]));
    // Whoever lost the sealing key can still forget.
    erase(&db.store).await.unwrap().unwrap();
    assert_eq!(db.store.open(Some(&other), json!([name])).await.unwrap(), json!([ERASED]));
}

#[tokio::test]
async fn a_sealed_value_cannot_be_moved_nor_changed() {
    let db = db().await;
    let key = db.store.account_key(&sealing(), ACCOUNT).await.unwrap();
    let (mine, yours) = (session_id(SOURCE, "mine"), session_id(SOURCE, "yours"));
    let logs = ["mine", "yours"].map(|name| {
        let mut scenario = Scenario::new();
        scenario.request(name, |request| seal(&key, request));
        scenario
    });
    let body = |log: &Scenario| serde_json::from_slice::<Value>(&log.log()[0].payload).unwrap();
    let (own, mut moved) = (body(&logs[0]), body(&logs[1]));
    moved["name"] = own["name"].clone();
    moved["options"]["sealed"] = own["options"]["sealed"].clone();
    let mut damaged = own.clone();
    let text = own["name"].as_str().unwrap();
    // Not the last digit, of which not every bit counts.
    let at = text.len() - 5;
    let other = if text[at..].starts_with('A') { 'B' } else { 'A' };
    damaged["name"] = json!(format!("{}{other}{}", &text[..at], &text[at + 1..]));
    // Its own place is part of it: said to be another session's, it opens nowhere.
    let renamed = text.replace(&mine.simple().to_string(), &yours.simple().to_string());
    let mut forged = body(&logs[1]);
    forged["name"] = json!(renamed);
    for (body, session) in [(moved, yours), (damaged, mine), (forged, yours)] {
        let opened = db.store.open(Some(&sealing()), body).await.unwrap();
        assert_eq!(opened["name"], "[unreadable]", "{session}");
    }
    assert_eq!(db.store.open(Some(&sealing()), own).await.unwrap()["name"], NAME);
}

#[tokio::test]
async fn sessions_are_found_by_account_until_it_is_erased() {
    let (db, key) = filled(true).await;
    let page = Page { limit: 10, before: None };
    let filter = |account: &str| SessionFilter {
        account: Some(account.to_owned()),
        ..SessionFilter::default()
    };
    let found = |name: String| {
        let (store, page) = (db.store.clone(), page.clone());
        async move { store.sessions(&filter(&name), &page).await.unwrap().len() }
    };
    assert_eq!(found(key.pseudonym().to_string()).await, 1);
    assert_eq!(found(ACCOUNT.to_owned()).await, 1);
    assert_eq!(found("nobody".to_owned()).await, 0);
    assert_eq!(db.store.pseudonym_of(ACCOUNT).await.unwrap(), Some(key.pseudonym()));
    assert_eq!(db.store.pseudonym_of("nobody").await.unwrap(), None::<Pseudonym>);
    erase(&db.store).await.unwrap().unwrap();
    assert_eq!(found(ACCOUNT.to_owned()).await, 0);
}
