//! What the API reads: pages, filters, and which live streams may be cleaned up.

use domain::ids::{LiveStreamId, Subject, Timestamp};
use store::{Page, SessionFilter};
use uuid::Uuid;

use crate::support::{Db, db};

const SOURCE: &str = "gcore-main";

/// Fills `session_request` with 25 requests, of which three always came in the same moment.
async fn requests(db: &Db) {
    db.sql(
        "INSERT INTO tallylight.session_request
         SELECT n % 16, md5(n::text)::uuid, CASE WHEN n % 5 = 0 THEN 'other' ELSE 'gcore-main' END,
                CASE WHEN n % 2 = 0 THEN 'even' END, 'session ' || n, 'requested', NULL, NULL,
                '2026-01-01T00:00:00Z'::timestamptz + (n / 3) * interval '1 second', 1
           FROM generate_series(1, 25) AS n",
    )
    .await;
}

async fn all_pages(db: &Db, filter: &SessionFilter, limit: i64) -> Vec<(Timestamp, Uuid)> {
    let mut seen = Vec::new();
    let mut before = None;
    loop {
        let page = db.store.sessions(filter, &Page { limit, before }).await.unwrap();
        let Some(last) = page.last() else { return seen };
        before = Some((last.requested_at, last.id));
        seen.extend(page.iter().map(|s| (s.requested_at, s.id)));
    }
}

#[tokio::test]
async fn pages_show_every_session_once_the_latest_first() {
    let db = db().await;
    requests(&db).await;
    for limit in [1, 2, 7, 25, 100] {
        let seen = all_pages(&db, &SessionFilter::default(), limit).await;
        let mut sorted = seen.clone();
        sorted.sort_by(|a, b| b.cmp(a));
        sorted.dedup();
        assert_eq!(seen.len(), 25, "by {limit}");
        assert_eq!(seen, sorted, "by {limit}");
    }
}

#[tokio::test]
async fn filters_narrow_together() {
    let db = db().await;
    requests(&db).await;
    db.sql(
        "INSERT INTO tallylight.session SELECT 0, session_id, source, account, 7, 'live', now(), '{}', 1
           FROM tallylight.session_request WHERE name = 'session 4'",
    )
    .await;
    db.sql("UPDATE tallylight.session SET detail = (SELECT to_jsonb(d) FROM (SELECT 'session 4' AS name, 0 AS interruptions,
              '[]'::jsonb AS parts, '[]'::jsonb AS gaps, '[]'::jsonb AS recording_warnings, '[]'::jsonb AS problems,
              '[]'::jsonb AS moments) AS d)").await;
    let text = |text: &str| Some(text.to_owned());
    let filter = |source, account, status| SessionFilter { source, account, status };
    for (filter, count) in [
        (filter(text("other"), None, None), 5),
        (filter(None, text("even"), None), 12),
        (filter(text("other"), text("even"), None), 2),
        (filter(None, None, text("live")), 1),
        (filter(None, None, text("requested")), 24),
        (filter(text("other"), None, text("live")), 0),
        (filter(text("nowhere"), None, None), 0),
    ] {
        assert_eq!(all_pages(&db, &filter, 2).await.len(), count, "{filter:?}");
    }
    let live = filter(None, None, text("live"));
    let found =
        db.store.sessions(&live, &Page { limit: 1, before: None }).await.unwrap().pop().unwrap();
    assert_eq!((found.live_stream, found.status.as_str()), (Some(LiveStreamId(7)), "live"));
    assert_eq!(db.store.session(found.id).await.unwrap(), Some(found));
    assert_eq!(db.store.session(Uuid::nil()).await.unwrap(), None);
}

#[tokio::test]
async fn awaited_sessions_are_those_of_a_source_that_are_not_over() {
    let db = db().await;
    db.sql(
        "INSERT INTO tallylight.session
         SELECT n % 16, md5(n::text)::uuid, CASE WHEN n % 5 = 0 THEN 'other' ELSE 'gcore-main' END, NULL, 100 - n,
                CASE WHEN n % 2 = 0 THEN 'ended' WHEN n % 3 = 0 THEN 'live' ELSE 'processing' END,
                '2026-01-01T00:00:00Z'::timestamptz + n * interval '1 second', '{}', 1
           FROM generate_series(1, 10) AS n",
    )
    .await;
    let awaited = db.store.awaited_sessions(SOURCE).await.unwrap();
    let found: Vec<_> =
        awaited.iter().map(|s| (s.slice, s.live_stream.0, s.status.as_str())).collect();
    let one = "processing";
    assert_eq!(found, [(9, 91, "live"), (7, 93, one), (3, 97, "live"), (1, 99, one)]);
    assert_eq!(awaited[3].since.timestamp() % 60, 1);
    assert_eq!(db.store.awaited_sessions("nowhere").await.unwrap(), []);
    let plan = "SELECT count(*) FROM pg_indexes WHERE indexname = 'session_awaited'";
    assert_eq!(db.number(plan).await, 1, "few among all that ever ran");
}

#[tokio::test]
async fn a_page_reads_no_more_than_itself() {
    let db = db().await;
    db.sql(
        "INSERT INTO tallylight.session_request
         SELECT n % 16, gen_random_uuid(), 's', NULL, 'n', 'requested', NULL, NULL, now() - n * interval '1 second', 1
           FROM generate_series(1, 20000) AS n",
    )
    .await;
    db.sql("ANALYZE tallylight.session_request").await;
    let read = "SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = 'session_request_recent'";
    let before = db.number(read).await;
    let store = store::Store::connect(&store::Config::new(db.url.as_str())).await.unwrap();
    let middle =
        Timestamp::from(std::time::SystemTime::now()) - std::time::Duration::from_secs(10_000);
    for _ in 0..8 {
        let page = Page { limit: 20, before: Some((middle, Uuid::nil())) };
        assert_eq!(store.sessions(&SessionFilter::default(), &page).await.unwrap().len(), 20);
    }
    store.close().await;
    crate::support::until(async || (db.number(read).await > before).then_some(())).await;
    let rows = db.number(read).await - before;
    assert!(rows <= 8 * 21, "{rows}");
}

#[tokio::test]
async fn live_streams_and_their_videos_are_found() {
    let db = db().await;
    let slice = db.store.slice_of(&Subject::live_stream(SOURCE, LiveStreamId(7)));
    sqlx::query(
        "INSERT INTO tallylight.live_stream
         SELECT $1, s, n, 'a' || n % 2, NULL, NULL, n = 7, NULL, false, 'hls', NULL, NULL, 1
           FROM generate_series(5, 9) AS n, unnest(ARRAY['gcore-main', 'x']) AS s",
    )
    .bind(slice)
    .execute(&db.pool)
    .await
    .unwrap();
    db.sql("INSERT INTO tallylight.video VALUES (1, 'gcore-main', 12, 7, 'ready', 5, 1), (2, 'gcore-main', 11, 7, 'error', 5, 1),
            (3, 'gcore-main', 13, 8, 'ready', 5, 1), (3, 'x', 14, 7, 'ready', 5, 1)").await;
    let one = db.store.live_stream(SOURCE, LiveStreamId(7)).await.unwrap().unwrap();
    assert!(
        one.live && one.hls_url.as_deref() == Some("hls") && one.account.as_deref() == Some("a1")
    );
    assert_eq!(db.store.live_stream(SOURCE, LiveStreamId(1)).await.unwrap(), None);
    let ids = async |source, account, after| {
        let found = db.store.live_streams(source, account, after, 3).await.unwrap();
        found.iter().map(|l| l.id.0).collect::<Vec<_>>()
    };
    assert_eq!(ids(Some(SOURCE), None, None).await, [5, 6, 7]);
    assert_eq!(ids(Some(SOURCE), None, Some((LiveStreamId(7), SOURCE))).await, [8, 9]);
    assert_eq!(ids(Some(SOURCE), Some("a0"), None).await, [6, 8]);
    assert_eq!(ids(None, Some("a0"), None).await, [6, 6, 8]);
    // A page may end between two sources' live streams of one id.
    assert_eq!(ids(None, None, Some((LiveStreamId(7), SOURCE))).await, [7, 8, 8]);
    let videos = db.store.videos(SOURCE, LiveStreamId(7)).await.unwrap();
    assert_eq!(
        videos.iter().map(|v| (v.id, v.status.as_str())).collect::<Vec<_>>(),
        [(11, "error"), (12, "ready")]
    );
}

#[tokio::test]
async fn facts_of_health_are_told() {
    let db = db().await;
    let facts = db.store.health_facts().await.unwrap();
    assert!(!facts.fsync, "a throwaway cluster");
    assert_eq!(facts.default_partition_rows, 0);
    db.store.ping().await.unwrap();
}
