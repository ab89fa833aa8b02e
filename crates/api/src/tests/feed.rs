//! The feed: pages, waiting, streams, and reading on at another process.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::Method;
use domain::announcement::Announcement;
use futures_util::StreamExt as _;
use serde_json::Value;

use super::support::{App, config, request};
use crate::{Api, Config, Scope};

/// Longest wait for what must come.
const LIMIT: Duration = Duration::from_secs(20);

impl App {
    async fn page(&self, query: &str) -> Value {
        self.get(&format!("/v1/events?{query}")).await.ok(200).clone()
    }

    /// Opens a stream; `last` is the id of the last event that was heard.
    async fn listen(&self, query: &str, last: Option<&str>) -> Listening {
        let path = format!("/v1/events/stream?{query}");
        let mut request = request(Method::GET, &path, Scope::EventsRead);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = self.open(request.body(Body::empty()).unwrap()).await;
        assert_eq!(response.status().as_u16(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Listening { body: response.into_body().into_data_stream(), rest: String::new() }
    }
}

/// A stream that is read.
struct Listening {
    body: BodyDataStream,
    rest: String,
}

/// A frame: its id, and its message if it has one.
#[derive(Debug)]
struct Frame {
    id: String,
    message: Option<Value>,
}

impl Listening {
    /// The next frame; `None`: the stream has ended.
    async fn frame(&mut self) -> Option<Frame> {
        loop {
            if let Some((frame, rest)) = self.rest.split_once("\n\n") {
                let field = |name: &str| {
                    let mut lines = frame.lines().filter_map(|line| line.split_once(": "));
                    lines.find(|(field, _)| *field == name).map(|(_, value)| value.to_owned())
                };
                let message = field("data").map(|data| serde_json::from_str(&data).unwrap());
                let frame = Frame { id: field("id").unwrap(), message };
                self.rest = rest.to_owned();
                return Some(frame);
            }
            let more = tokio::time::timeout(LIMIT, self.body.next()).await.expect("a frame comes");
            self.rest.push_str(std::str::from_utf8(&more?.unwrap()).unwrap());
        }
    }

    /// The next message, and the id of its frame.
    async fn message(&mut self) -> (Value, String) {
        loop {
            let frame = self.frame().await.expect("the stream goes on");
            if let Some(message) = frame.message {
                return (message, frame.id);
            }
        }
    }
}

fn types(page: &Value) -> Vec<&str> {
    page["events"].as_array().unwrap().iter().map(|e| e["type"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn pages_go_on_from_their_cursor_and_end_at_the_present() {
    let app = App::start().await;
    let empty = app.page("").await;
    assert_eq!((types(&empty), &empty["has_more"]), (vec![], &Value::Bool(false)));
    let before = empty["next"].as_str().unwrap().to_owned();
    for live_stream in 1..=4 {
        app.announce(live_stream, Announcement::SessionReady).await;
        app.announce(live_stream, Announcement::RecordingReady).await;
    }
    let mut seen = Vec::new();
    let mut after = before.clone();
    loop {
        let page = app.page(&format!("limit=3&after={after}")).await;
        seen.extend(types(&page).into_iter().map(str::to_owned));
        after = page["next"].as_str().unwrap().to_owned();
        if page["has_more"] == false {
            break;
        }
    }
    assert_eq!(seen, ["session.ready", "recording.ready"].repeat(4));
    let recordings = app.page("types=recording.*,session.ended").await;
    assert_eq!(types(&recordings), ["recording.ready"; 4]);
    assert!(types(&app.page("after=now").await).is_empty());
    let first = &app.page("limit=1").await["events"][0];
    assert!(first["id"].as_str().unwrap().starts_with("evt_"));
    assert_eq!(first["data"]["live_stream_id"], 1);
}

#[tokio::test]
async fn odd_questions_are_refused() {
    let app = App::start().await;
    for (query, field) in [
        ("after=x", "after"),
        ("types=session.gone", "types"),
        ("limit=501", "limit"),
        ("wait=61", "wait"),
        ("before=x", "before"),
    ] {
        assert_eq!(app.get(&format!("/v1/events?{query}")).await.wrong_fields(), [field]);
    }
    // A cursor of the time before a restore, and one of this log.
    let next = app.page("").await["next"].as_str().unwrap().to_owned();
    let other = format!("AQAAAAA{}", &next[7..]);
    app.get(&format!("/v1/events?after={other}")).await.problem(410, "log-restored");
    app.get(&format!("/v1/events/stream?after={other}")).await.problem(410, "log-restored");
}

#[tokio::test]
async fn an_empty_page_waits_for_something_to_come() {
    let app = App::start().await;
    let after = app.page("").await["next"].as_str().unwrap().to_owned();
    let query = format!("wait=60&types=session.ended&after={after}");
    let asked = app.page(&query);
    let told = async {
        app.announce(1, Announcement::SessionReady).await;
        app.announce(1, Announcement::SessionEnded).await;
    };
    let (page, ()) =
        tokio::time::timeout(LIMIT, async { tokio::join!(asked, told) }).await.unwrap();
    assert_eq!(types(&page), ["session.ended"]);
}

#[tokio::test]
async fn a_stream_tells_what_was_what_comes_and_goes_on_elsewhere() {
    let app = App::start().await;
    app.announce(1, Announcement::SessionReady).await;
    let mut listening = app.listen("", None).await;
    let (first, id) = listening.message().await;
    assert_eq!(first["type"], "session.ready");
    app.announce(1, Announcement::SessionWentLive).await;
    app.announce(2, Announcement::SessionReady).await;
    let live = [listening.message().await, listening.message().await];
    let sessions = live.each_ref().map(|(message, _)| message["type"].as_str().unwrap());
    assert_eq!(sessions, ["session.live", "session.ready"]);
    drop(listening);
    // Another process over the same database.
    let other = app.beside();
    let mut again = other.listen("after=now", Some(&id)).await;
    for (expected, _) in &live {
        assert_eq!(again.message().await.0, *expected, "what the client knows beats its address");
    }
    let mut tail = other.listen("after=now&types=session.ended", None).await;
    app.announce(1, Announcement::SessionStopped).await;
    app.announce(1, Announcement::SessionEnded).await;
    assert_eq!(tail.message().await.0["type"], "session.ended");
}

/// Every message comes once and in order, whether a reader is ahead of the hub or behind it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn streams_beside_many_writers_miss_nothing() {
    const WRITERS: i64 = 4;
    const EACH: usize = 25;
    let app = std::sync::Arc::new(App::start().await);
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let app = std::sync::Arc::clone(&app);
            tokio::spawn(async move {
                let mut listening = app.listen("", None).await;
                let mut seen = Vec::new();
                while seen.len() < EACH * usize::try_from(WRITERS).unwrap() {
                    let (message, id) = listening.message().await;
                    seen.push(message["id"].as_str().unwrap().to_owned());
                    // Now and then a client loses its connection.
                    if seen.len() % 17 == 0 {
                        listening = app.listen("", Some(&id)).await;
                    }
                }
                seen
            })
        })
        .collect();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let app = std::sync::Arc::clone(&app);
            tokio::spawn(async move {
                for n in 0..EACH {
                    app.announce(
                        writer * 31 + i64::try_from(n % 5).unwrap(),
                        Announcement::SessionReady,
                    )
                    .await;
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let all = app.page("limit=500").await;
    let ids = |page: &Value| -> Vec<String> {
        page["events"]
            .as_array()
            .unwrap()
            .iter()
            .map(|e| e["id"].as_str().unwrap().to_owned())
            .collect()
    };
    let mut expected = ids(&all);
    expected.sort_unstable();
    for reader in readers {
        let mut seen = reader.await.unwrap();
        seen.sort_unstable();
        assert_eq!(seen, expected, "each once");
    }
}

#[tokio::test]
async fn listeners_are_bounded_and_sent_away_when_the_process_stops() {
    let app = App::with(Config { listeners: 1, ..config() }).await;
    let mut one = app.listen("after=now", None).await;
    let refused = app.get("/v1/events/stream").await;
    refused.problem(503, "too-many-listeners");
    app.get("/v1/events?wait=5").await.problem(503, "too-many-listeners");
    assert!(one.frame().await.unwrap().message.is_none(), "the first frame is a cursor");
    Api::end_streams(&app.api);
    assert!(one.frame().await.is_none(), "it ends");
    app.get("/v1/events/stream").await.problem(503, "too-many-listeners");
}
