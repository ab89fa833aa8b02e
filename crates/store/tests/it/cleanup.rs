//! What cleanup runs ask: facts of candidates, and who made a live stream.

use std::time::{Duration, SystemTime};

use domain::cleanup::{InactiveFacts, Maker};
use domain::ids::{LiveStreamId, Subject, Timestamp, VideoId, intent_id};
use store::Store;
use uuid::Uuid;

use crate::support::{Db, db};

const DAY: Duration = Duration::from_hours(24);

fn now() -> Timestamp {
    SystemTime::now().into()
}

/// Everything that a worker asks for cleanup.
pub(crate) async fn as_worker(store: &Store) {
    store.inactive_live_streams("main", 1).await.unwrap();
    store.ended_recordings("main", now(), None, 1).await.unwrap();
    store.maker_of("main", LiveStreamId(1), Uuid::nil(), now()).await.unwrap();
    store.is_caught_up(DAY).await.unwrap();
    store.names_of("acme").await.unwrap();
    store.ended_sessions("main", (now(), Uuid::nil()), 1).await.unwrap();
    store.video_statuses("main", &[VideoId(1)]).await.unwrap();
}

/// Makes one live stream that may be cleaned up, spoils it, and tells what may go then.
async fn candidates(db: &Db, spoil: &'static str) -> Vec<InactiveFacts> {
    db.sql("DELETE FROM tallylight.live_stream").await;
    db.sql("DELETE FROM tallylight.account").await;
    sqlx::query(
        "INSERT INTO tallylight.live_stream
         VALUES (1, 'main', 7, 'gone', $1, false, false, now() - interval '31 days', false, NULL, NULL, NULL, 1)",
    )
    .bind(db.store.installation())
    .execute(&db.pool)
    .await
    .unwrap();
    // On another slice than its live stream, as accounts are.
    db.sql(
        "INSERT INTO tallylight.account VALUES (5, 'main', 'gone', now() - interval '40 days', 1)",
    )
    .await;
    db.sql(spoil).await;
    let mut found = db.store.inactive_live_streams("main", 10).await.unwrap();
    found.retain(|facts| facts.judge(now(), 30 * DAY).proposes());
    found
}

#[tokio::test]
async fn only_an_idle_live_stream_of_ours_and_of_a_deleted_account_may_go() {
    let db = db().await;
    let found = candidates(&db, "SELECT").await.pop().unwrap();
    assert_eq!((found.live_stream, found.account.as_str()), (LiveStreamId(7), "gone"));
    assert!(!found.judge(now(), 32 * DAY).proposes(), "idle for 31 days");
    assert_eq!(db.store.inactive_live_streams("other", 10).await.unwrap(), []);
    let unknown = "UPDATE tallylight.live_stream SET active = NULL";
    assert_eq!(candidates(&db, unknown).await.len(), 1);
}

#[tokio::test]
async fn each_guard_alone_keeps_a_live_stream() {
    let db = db().await;
    for spoil in [
        "UPDATE tallylight.account SET deleted_at = NULL",
        "UPDATE tallylight.account SET source = 'other'",
        "DELETE FROM tallylight.account",
        "UPDATE tallylight.live_stream SET account = NULL",
        "UPDATE tallylight.live_stream SET account = 'another'",
        "UPDATE tallylight.live_stream SET installation = NULL",
        "UPDATE tallylight.live_stream SET installation = gen_random_uuid()",
        "UPDATE tallylight.live_stream SET live = true",
        "UPDATE tallylight.live_stream SET active = true",
        "UPDATE tallylight.live_stream SET deleted = true",
        "UPDATE tallylight.live_stream SET idle_since = NULL",
        "UPDATE tallylight.live_stream SET idle_since = now() - interval '29 days'",
        "UPDATE tallylight.live_stream SET idle_since = 'infinity'",
    ] {
        assert_eq!(candidates(&db, spoil).await, [], "{spoil}");
    }
}

#[tokio::test]
async fn the_longest_idle_go_first() {
    let db = db().await;
    candidates(&db, "SELECT").await;
    db.sql(
        "INSERT INTO tallylight.live_stream
         SELECT 2, source, 8, account, installation, active, live, idle_since - interval '1 day', deleted, NULL, NULL, NULL, 1
           FROM tallylight.live_stream",
    )
    .await;
    for (limit, wanted) in [(10, vec![8, 7]), (1, vec![8])] {
        let found = db.store.inactive_live_streams("main", limit).await.unwrap();
        assert_eq!(found.iter().map(|f| f.live_stream.0).collect::<Vec<_>>(), wanted);
    }
}

/// An ended session of a live stream with videos, some days ago.
async fn ended(db: &Db, n: u8, days: i32, detail: &str) -> Uuid {
    let session = Uuid::from_u128(n.into());
    sqlx::query(
        "INSERT INTO tallylight.session
         VALUES (1, $1, 'main', NULL, $2, 'ended', now() - make_interval(days => $3), $4::jsonb, 1)",
    )
    .bind(session)
    .bind(i64::from(n))
    .bind(days)
    .bind(detail)
    .execute(&db.pool)
    .await
    .unwrap();
    session
}

#[tokio::test]
async fn recordings_of_ended_sessions_are_paged_without_what_is_deleted() {
    let db = db().await;
    let parts = |videos: &[(i64, &str)]| {
        let part = |(id, status): &(i64, &str)| serde_json::json!({"video": id, "status": status});
        serde_json::json!({"parts": videos.iter().map(part).collect::<Vec<_>>()}).to_string()
    };
    let old = ended(&db, 1, 100, &parts(&[(11, "ready"), (12, "deleted"), (13, "ready")])).await;
    let less = ended(&db, 2, 50, &parts(&[(21, "viewable")])).await;
    ended(&db, 3, 90, &parts(&[])).await;
    ended(&db, 4, 10, &parts(&[(41, "ready")])).await;
    // Deleted since the session left its live stream's state.
    let slice = db.store.slice_of(&Subject::video("main", VideoId(13)));
    sqlx::query("INSERT INTO tallylight.video VALUES ($1, 'main', 13, 1, 'deleted', NULL, 1)")
        .bind(slice)
        .execute(&db.pool)
        .await
        .unwrap();
    let by = now() - 20 * DAY;
    let first = db.store.ended_recordings("main", by, None, 1).await.unwrap();
    assert_eq!((first[0].session, first[0].videos.as_slice()), (old, [VideoId(11)].as_slice()));
    let after = Some((first[0].ended_at, old));
    let rest = db.store.ended_recordings("main", by, after, 10).await.unwrap();
    assert_eq!(rest.iter().map(|f| f.session).collect::<Vec<_>>(), [less]);
    assert_eq!(db.store.ended_recordings("other", by, None, 10).await.unwrap(), []);
}

/// A request as its projection has it.
async fn requested(db: &Db, session: Uuid, status: &str, live_stream: Option<i64>) {
    db.sql("DELETE FROM tallylight.session_request").await;
    sqlx::query(
        "INSERT INTO tallylight.session_request
         VALUES (1, $1, 'main', NULL, 'n', $2, NULL, $3, now() - interval '9 days', 1)",
    )
    .bind(session)
    .bind(status)
    .bind(live_stream)
    .execute(&db.pool)
    .await
    .unwrap();
}

#[tokio::test]
async fn the_maker_of_a_live_stream_is_found_by_the_key_of_its_tag() {
    let db = db().await;
    let session = Uuid::from_u128(1);
    let key = intent_id(&Subject::request("main", session), 3);
    let orphan = LiveStreamId(7);
    let made_at = now() - 8 * DAY;
    let maker = async |key: Uuid, made_at: Timestamp| {
        db.store.maker_of("main", orphan, key, made_at).await.unwrap()
    };
    assert_eq!(maker(key, made_at).await, Maker::Unknown);
    for (status, live_stream, is) in [
        ("requested", None, Maker::MayTake(session)),
        ("failed", None, Maker::MayTake(session)),
        ("ended", None, Maker::Left(session)),
        ("preparing", Some(8), Maker::Left(session)),
        ("preparing", Some(7), Maker::Has(session)),
    ] {
        requested(&db, session, status, live_stream).await;
        assert_eq!(maker(key, made_at).await, is, "{status} {live_stream:?}");
    }
    requested(&db, session, "ended", None).await;
    let stranger = intent_id(&Subject::request("other", session), 3);
    assert_eq!(maker(stranger, made_at).await, Maker::Unknown);
    assert_eq!(maker(key, now() - 10 * DAY).await, Maker::Unknown, "made before it was asked for");
    // Whoever made it, a session that runs on it has it.
    let another = ended(&db, 7, 1, "{}").await;
    assert_eq!(maker(key, made_at).await, Maker::Has(another));
}

#[tokio::test]
async fn what_waits_or_is_set_aside_is_not_caught_up() {
    let db = db().await;
    assert!(db.store.is_caught_up(Duration::from_mins(1)).await.unwrap());
    db.sql("UPDATE tallylight.slice_head SET position = 5 WHERE slice = 1").await;
    assert!(!db.store.is_caught_up(Duration::from_mins(1)).await.unwrap(), "a hole");
}
