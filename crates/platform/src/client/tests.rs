//! The client against a scripted server: what it sends, what it makes of every kind of ending.

mod fixtures;

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use serde_json::{Value, json};

use super::*;
use crate::{
    Credentials, Disposition,
    test_support::{Reply, Request, Server, json as reply_json},
    wire::{BroadcastPatch, BroadcastStatus, NewBroadcast, NewStream, StreamPatch},
};

/// Longer than every test.
const NEVER: Duration = Duration::from_hours(1);
/// What the client has to end by itself, it ends before.
const DEADLINE: Duration = Duration::from_secs(10);
const RETRY: Disposition = Disposition::Retry { after: None };

/// A client of a server that always replies so.
async fn always(reply: fn(&Request) -> Reply) -> (Server, Client) {
    let server = Server::start(reply).await;
    let client = server.client();
    (server, client)
}

fn of_stream(id: i64) -> VideoFilter {
    VideoFilter { stream_id: Some(id), ..VideoFilter::default() }
}

fn test_stream() -> NewStream {
    NewStream { name: "test".to_owned(), ..NewStream::default() }
}

#[tokio::test]
async fn every_operation_sends_its_one_request() {
    let (server, client) = always(|request| match request.method.as_str() {
        "DELETE" => Reply::Answer(204, "", Vec::new()),
        "GET" if request.target.contains("page=") => reply_json(200, &json!([{"id": 7}])),
        _ => reply_json(200, &json!({"id": 7})),
    })
    .await;
    let patch = StreamPatch { active: Some(true), ..StreamPatch::default() };
    let status = Some(BroadcastStatus::Paused);
    let paused = BroadcastPatch { status, ..BroadcastPatch::default() };
    let broadcast = NewBroadcast { stream_ids: vec![7], ..NewBroadcast::default() };
    assert_eq!(client.create_stream(&test_stream()).await.unwrap().id, 7);
    assert_eq!(client.get_stream(7).await.unwrap().id, 7);
    assert_eq!(client.streams().page(2).await.unwrap().len(), 1);
    assert_eq!(client.update_stream(7, &patch).await.unwrap().id, 7);
    client.delete_stream(7).await.unwrap();
    assert_eq!(client.start_recording(7).await.unwrap(), StartRecording::Started);
    assert_eq!(client.stop_recording(7).await.unwrap().unwrap().id, 7);
    client.dvr_cleanup(7).await.unwrap();
    assert_eq!(client.create_broadcast(&broadcast).await.unwrap().id, Some(7));
    assert_eq!(client.get_broadcast(7).await.unwrap().id, Some(7));
    assert_eq!(client.broadcasts().page(1).await.unwrap().len(), 1);
    assert_eq!(client.update_broadcast(7, &paused).await.unwrap().id, Some(7));
    client.delete_broadcast(7).await.unwrap();
    assert_eq!(client.get_video(7).await.unwrap().id, 7);
    assert_eq!(client.videos(&of_stream(7)).page(3).await.unwrap().len(), 1);
    client.delete_video(7).await.unwrap();
    let none = Value::Null;
    let expected = [
        ("POST", "/streaming/streams", json!({"name": "test"})),
        ("GET", "/streaming/streams/7", none.clone()),
        ("GET", "/streaming/streams?page=2", none.clone()),
        ("PATCH", "/streaming/streams/7", json!({"stream": {"active": true}})),
        ("DELETE", "/streaming/streams/7", none.clone()),
        ("PUT", "/streaming/streams/7/start_recording", none.clone()),
        ("PUT", "/streaming/streams/7/stop_recording", none.clone()),
        ("PUT", "/streaming/streams/7/dvr_cleanup", none.clone()),
        (
            "POST",
            "/streaming/broadcasts",
            json!({"broadcast": {"name": "", "status": "pending", "stream_ids": [7]}}),
        ),
        ("GET", "/streaming/broadcasts/7", none.clone()),
        ("GET", "/streaming/broadcasts?page=1", none.clone()),
        ("PATCH", "/streaming/broadcasts/7", json!({"broadcast": {"status": "paused"}})),
        ("DELETE", "/streaming/broadcasts/7", none.clone()),
        ("GET", "/streaming/videos/7", none.clone()),
        ("GET", "/streaming/videos?stream_id=7&page=3", none.clone()),
        ("DELETE", "/streaming/videos/7", none),
    ];
    let requests = server.requests();
    assert_eq!(requests.len(), expected.len());
    for (request, (method, target, body)) in requests.iter().zip(expected) {
        assert_eq!((request.method.as_str(), request.target.as_str()), (method, target));
        assert_eq!(request.body, body, "{target}");
        assert_eq!(request.authorization, "APIKey 1_token");
    }
}

#[tokio::test]
async fn the_create_body_is_wrapped_on_demand() {
    let server = Server::start(|_| reply_json(200, &json!({"id": 7}))).await;
    let config = Config { create_body: CreateBody::Wrapped, ..server.config() };
    Client::new(config).unwrap().create_stream(&test_stream()).await.unwrap();
    assert_eq!(server.requests()[0].body, json!({"stream": {"name": "test"}}));
}

/// The dispositions of a write that must not be repeated, of one that may, and of a read.
async fn dispositions(client: &Client) -> [Disposition; 3] {
    let (new, patch) = (test_stream(), StreamPatch::default());
    let calls = async {
        tokio::join!(
            client.create_stream(&new),
            client.update_stream(7, &patch),
            client.get_stream(7)
        )
    };
    let (create, update, get) = tokio::time::timeout(DEADLINE, calls).await.unwrap();
    [create, update, get].map(|result| result.unwrap_err().disposition())
}

#[tokio::test]
async fn a_lost_answer_is_ambiguous_only_where_repeating_does_harm() {
    let endings: [fn(&Request) -> Reply; 4] = [
        |_| Reply::Close,
        |_| Reply::Silence,
        |_| Reply::HeadOnly,
        |_| Reply::Answer(200, "", b"<html>hello</html>".to_vec()),
    ];
    for (number, ending) in endings.into_iter().enumerate() {
        let server = Server::start(ending).await;
        let config =
            Config { timeout: Duration::from_secs(1), read_timeout: NEVER, ..server.config() };
        let found = dispositions(&Client::new(config).unwrap()).await;
        assert_eq!(found, [Disposition::Ambiguous, RETRY, RETRY], "ending {number}");
        assert_eq!(server.requests().len(), 3, "one request per call, ending {number}");
    }
}

/// Each time makes another token: whoever asks again does it on purpose.
#[tokio::test]
async fn a_new_push_token_is_asked_for_once_whatever_becomes_of_the_answer() {
    let endings: [fn(&Request) -> Reply; 5] = [
        |_| Reply::Close,
        |_| Reply::Silence,
        |_| Reply::HeadOnly,
        |_| Reply::Answer(502, "", b"<html>bad gateway</html>".to_vec()),
        |_| Reply::Answer(200, "", b"<html>hello</html>".to_vec()),
    ];
    for (number, ending) in endings.into_iter().enumerate() {
        let server = Server::start(ending).await;
        let config =
            Config { timeout: Duration::from_secs(1), read_timeout: NEVER, ..server.config() };
        let client = Client::new(config).unwrap();
        let reset = tokio::time::timeout(DEADLINE, client.reset_push_token(7)).await.unwrap();
        let found = reset.unwrap_err().disposition();
        assert_eq!(found, Disposition::Ambiguous, "ending {number}");
        assert_eq!(server.requests().len(), 1, "ending {number}");
    }
}

#[tokio::test]
async fn silence_is_cut_by_the_read_timeout_too() {
    let server = Server::start(|_| Reply::Silence).await;
    let config =
        Config { read_timeout: Duration::from_millis(50), timeout: NEVER, ..server.config() };
    let client = Client::new(config).unwrap();
    let call = tokio::time::timeout(DEADLINE, client.stop_recording(7));
    let error = call.await.unwrap().unwrap_err();
    assert_eq!(error.disposition(), Disposition::Ambiguous);
    assert!(error.message().contains("in time"), "{error}");
}

#[tokio::test]
async fn what_was_never_sent_may_be_repeated_even_if_it_creates() {
    // Bound and not listening: the port is refused and nobody else can take it.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let base_url = format!("http://{}", socket.local_addr().unwrap());
    let config = Config::new(base_url, Credentials::Token("1_token".into()));
    let client = Client::new(config).unwrap();
    assert_eq!(dispositions(&client).await, [RETRY; 3]);
    let error = client.create_stream(&test_stream()).await.unwrap_err();
    assert_eq!(error.to_string(), "create_stream: no connection, nothing was sent");
    assert!(std::error::Error::source(&error).is_some());
}

#[tokio::test]
async fn an_answer_above_the_cap_is_not_read() {
    let (_server, client) = always(|_| {
        let body = format!("[{}{{\"id\":1}}]", " ".repeat(8 * 1024 * 1024));
        Reply::Answer(200, "", body.into_bytes())
    })
    .await;
    let error = client.streams().page(1).await.unwrap_err();
    assert_eq!((error.disposition(), error.message()), (RETRY, "the answer is larger than 8 MiB"));
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let (server, client) =
        always(|_| Reply::Answer(302, "location: /elsewhere\r\n", Vec::new())).await;
    let error = client.get_stream(7).await.unwrap_err();
    assert_eq!((error.status(), error.disposition()), (Some(302), Disposition::Refused));
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn retry_after_is_read_from_the_answer_against_the_servers_clock() {
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    let cases: [(&'static str, _); 4] = [
        ("retry-after: 7\r\n", seconds(7)),
        (
            "date: Thu, 01 Jan 1970 00:00:10 GMT\r\nretry-after: Thu, 01 Jan 1970 00:00:40 GMT\r\n",
            seconds(30),
        ),
        ("retry-after: 999999\r\n", seconds(3600)),
        ("retry-after: soon\r\n", None),
    ];
    for (headers, after) in cases {
        let server = Server::start(move |_| Reply::Answer(429, headers, Vec::new())).await;
        let error = server.client().create_stream(&test_stream()).await.unwrap_err();
        assert_eq!(error.retry_after(), after, "{headers}");
        assert_eq!(error.disposition(), Disposition::Wait { after }, "{headers}");
    }
}

#[tokio::test]
async fn an_error_says_what_the_platform_said_without_secrets() {
    let (_server, client) = always(|_| {
        let text =
            "Bad token 1_token, passphrase top-secret-phrase and rtmp://push.example/in/1?ab";
        reply_json(422, &json!({"errors": {"name": [text]}}))
    })
    .await;
    let new = NewStream { srt_passphrase: Some("top-secret-phrase".into()), ..test_stream() };
    let error = client.create_stream(&new).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "create_stream answered 422: name: Bad token ***, passphrase *** and \
         rtmp://push.example/***"
    );
    assert!(!format!("{error:?}").contains("top-secret"));
    assert_eq!((error.operation(), error.status()), (Operation::CreateStream, Some(422)));
    assert!(!error.is_not_found());
}

#[tokio::test]
async fn a_permanent_token_is_not_tried_twice() {
    let (server, client) = always(|_| reply_json(401, &json!({"message": "no"}))).await;
    let error = client.get_stream(7).await.unwrap_err();
    assert_eq!(error.disposition(), Disposition::Unauthorized);
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn deleting_what_is_gone_is_done() {
    let (_server, client) = always(|_| reply_json(404, &json!({"error": "Not Found"}))).await;
    for error in [
        client.delete_stream(7).await.unwrap_err(),
        client.delete_broadcast(7).await.unwrap_err(),
        client.delete_video(7).await.unwrap_err(),
    ] {
        assert_eq!(error.disposition(), Disposition::Done, "{error}");
        assert!(error.is_not_found());
    }
    assert!(client.get_video(7).await.unwrap_err().is_not_found());
    let error = client.videos(&of_stream(7)).page(1).await.unwrap_err();
    assert!(!error.is_not_found(), "a wrong path says nothing about an object");
}

#[tokio::test]
async fn nothing_recorded_has_four_forms() {
    for (status, body) in [(200, ""), (200, "null"), (200, " {} "), (204, "")] {
        let server =
            Server::start(move |_| Reply::Answer(status, "", body.as_bytes().to_vec())).await;
        let video = server.client().stop_recording(7).await.unwrap();
        assert!(video.is_none(), "{status} {body:?}");
    }
}

#[tokio::test]
async fn a_created_broadcast_may_come_without_a_body_or_an_id() {
    for body in ["", "null", "{}", r#"{"name":"a","status":"live"}"#] {
        let server = Server::start(move |_| Reply::Answer(200, "", body.as_bytes().to_vec())).await;
        let broadcast = server.client().create_broadcast(&NewBroadcast::default()).await.unwrap();
        assert_eq!(broadcast.id, None, "{body}");
    }
}

#[tokio::test]
async fn a_cut_down_answer_takes_the_id_that_was_asked_for() {
    let (_server, client) = always(|_| reply_json(200, &json!({"active": true}))).await;
    let patch = StreamPatch::default();
    assert_eq!(client.update_stream(7, &patch).await.unwrap().id, 7);
    assert_eq!(client.get_stream(7).await.unwrap().id, 7);
    assert_eq!(client.get_broadcast(7).await.unwrap().id, Some(7));
    let (_server, client) = always(|_| Reply::Answer(200, "", Vec::new())).await;
    assert_eq!(client.update_stream(7, &patch).await.unwrap().id, 7);
    assert_eq!(client.get_stream(7).await.unwrap_err().disposition(), RETRY);
    let created = client.create_stream(&test_stream()).await.unwrap_err();
    assert_eq!(created.disposition(), Disposition::Ambiguous);
}

#[tokio::test]
async fn a_success_with_errors_inside_is_a_refusal() {
    let (_server, client) =
        always(|_| reply_json(200, &json!({"id": 7, "errors": {"name": ["is odd"]}}))).await;
    let error = client.create_stream(&test_stream()).await.unwrap_err();
    assert_eq!((error.disposition(), error.message()), (Disposition::Refused, "name: is odd"));
    let (_server, client) =
        always(|_| reply_json(200, &json!({"errors": ["Active streams limit reached"]}))).await;
    let error = client.update_stream(7, &StreamPatch::default()).await.unwrap_err();
    assert_eq!(error.disposition(), Disposition::Quota);
    assert!(client.delete_stream(7).await.is_err(), "whether or not the body is read");
    let outcome = client.start_recording(7).await.unwrap();
    assert!(matches!(outcome, StartRecording::Refused(_)), "its own outcome");
    let (_server, client) = always(|_| reply_json(200, &json!({"id": 7, "errors": []}))).await;
    assert_eq!(client.get_stream(7).await.unwrap().id, 7);
}

/// Pages of a changing list: short ones in the middle, rows twice.
fn page_of(request: &Request) -> Reply {
    match request.target.rsplit_once("page=").map(|(_, page)| page) {
        Some("1") => reply_json(200, &json!([{"id": 1, "name": "old"}, {"id": 2}])),
        Some("2") => reply_json(200, &json!([{"id": "1", "name": "new", "stream_id": 7}])),
        Some("3") => reply_json(200, &json!([{"id": 3, "stream_id": 8}, {"id": 2}, {"id": 4}])),
        _ => reply_json(200, &json!([])),
    }
}

#[tokio::test]
async fn a_walk_ends_at_the_empty_page_and_keeps_the_last_sight_of_each_row() {
    let (server, client) = always(page_of).await;
    let streams = client.streams().all().await.unwrap();
    let found: Vec<_> = streams.iter().map(|one| (one.id, one.name.as_deref())).collect();
    assert_eq!(found, [(1, Some("new")), (2, None), (3, None), (4, None)]);
    assert_eq!(server.requests().len(), 4);
    let broadcasts = client.broadcasts().all().await.unwrap();
    assert_eq!(broadcasts.iter().filter_map(|one| one.id).collect::<Vec<_>>(), [1, 2, 3, 4]);
}

#[tokio::test]
async fn pages_of_a_long_list_are_read_side_by_side_each_once_and_in_order() {
    let server = Server::start(|request| {
        let page = request.target.rsplit_once("page=").and_then(|(_, page)| page.parse().ok());
        let page: u64 = page.expect("a page is asked for");
        let rows = if page <= 20 { json!([{"id": page}, {"id": 100 + page}]) } else { json!([]) };
        reply_json(200, &rows)
    })
    .await;
    let streams = server.client().streams().all().await.unwrap();
    let found: Vec<i64> = streams.iter().map(|one| one.id).collect();
    let listed: Vec<i64> = (1..=20).flat_map(|page| [page, 100 + page]).collect();
    assert_eq!(found, listed);
    let requests = server.requests();
    let mut asked: Vec<&str> = requests
        .iter()
        .filter_map(|request| request.target.rsplit_once("page=")?.1.into())
        .collect();
    asked.sort_by_key(|page| page.parse::<u32>().unwrap());
    let pages: Vec<String> = (1..=24).map(|page: u32| page.to_string()).collect();
    assert_eq!(asked, pages, "by 1, 1, 2, 4, 8 and 8");
}

#[tokio::test]
async fn a_walk_over_the_videos_of_a_stream_leaves_out_those_of_another() {
    let (_server, client) = always(page_of).await;
    let videos = client.videos_of_stream(7).await.unwrap();
    assert_eq!(videos.iter().map(|one| one.id).collect::<Vec<_>>(), [1, 2, 4]);
}

#[tokio::test]
async fn a_walk_without_an_end_is_an_error_and_no_result() {
    let (server, client) = always(|_| reply_json(200, &json!([{"id": 1}]))).await;
    let walked = client.streams().capped(5).all().await;
    assert_eq!(walked.unwrap_err().disposition(), Disposition::Refused);
    assert_eq!(server.requests().len(), 5);
}

/// Pages of which the second fails so many times.
async fn failing(times: u32, how: fn() -> Reply) -> (Server, Client) {
    let failures = std::sync::Arc::new(AtomicU32::new(0));
    let server = Server::start(move |request| {
        if request.target.ends_with("page=2") && failures.fetch_add(1, Ordering::SeqCst) < times {
            return how();
        }
        page_of(request)
    })
    .await;
    let client = server.client();
    (server, client)
}

#[tokio::test]
async fn a_walk_asks_again_for_a_page_that_fails_in_passing_and_for_no_other() {
    let ways: [fn() -> Reply; 4] = [
        || Reply::Close,
        || reply_json(503, &json!({})),
        || Reply::Answer(200, "", Vec::new()),
        || Reply::Answer(429, "Retry-After: 1\r\n", Vec::new()),
    ];
    for how in ways {
        let (server, client) = failing(2, how).await;
        assert_eq!(client.streams().all().await.unwrap().len(), 4);
        assert_eq!(server.requests().len(), 6, "the second page three times");
    }
}

#[tokio::test]
async fn a_walk_does_not_insist_where_the_platform_refuses_or_asks_to_wait_for_long() {
    let later = || Reply::Answer(429, "Retry-After: 6\r\n", Vec::new());
    let ways: [fn() -> Reply; 2] = [|| reply_json(403, &json!({})), later];
    for how in ways {
        let (server, client) = failing(1, how).await;
        client.streams().all().await.unwrap_err();
        assert_eq!(server.requests().len(), 2);
    }
}

#[tokio::test]
async fn a_page_that_failed_can_be_asked_for_again() {
    let (_server, client) = failing(5, || Reply::Close).await;
    let mut pages = client.streams();
    assert_eq!(pages.next_page().await.unwrap().unwrap().len(), 2);
    pages.next_page().await.unwrap_err();
    assert_eq!(pages.next_page().await.unwrap().unwrap().len(), 1);
    assert_eq!(pages.next_page().await.unwrap().unwrap().len(), 3);
    for _ in 0..2 {
        assert!(pages.next_page().await.unwrap().is_none());
    }
}

#[tokio::test]
async fn what_shifts_past_one_walk_is_found_by_the_next() {
    // Stream 3 moves from page 2 to page 1 while page 1 has been read: somebody deleted stream 1.
    let walks = std::sync::Arc::new(AtomicU32::new(0));
    let count = walks.clone();
    let server = Server::start(move |request| {
        let page = request.target.rsplit_once("page=").map(|(_, page)| page);
        match (page, count.load(Ordering::SeqCst)) {
            (Some("1"), 0) => reply_json(200, &json!([{"id": 1}, {"id": 2}])),
            (Some("1"), _) => reply_json(200, &json!([{"id": 2}, {"id": 3}])),
            _ => {
                count.fetch_add(1, Ordering::SeqCst);
                reply_json(200, &json!([]))
            }
        }
    })
    .await;
    let found = server.client().streams().matching(|stream| stream.id == 3).await.unwrap();
    assert_eq!((found.len(), walks.load(Ordering::SeqCst)), (1, 2));
    let found = server.client().streams().matching(|stream| stream.id == 2).await.unwrap();
    assert_eq!((found.len(), walks.load(Ordering::SeqCst)), (1, 3), "what is found ends it");
    let found = server.client().streams().matching(|stream| stream.id == 9).await.unwrap();
    assert_eq!((found.len(), walks.load(Ordering::SeqCst)), (0, 5));
}

#[tokio::test]
async fn a_walk_fails_on_a_page_that_says_nothing_or_cannot_be_read() {
    let bodies = ["", "null", "{}", r#"{"results":[]}"#, r#"[{"name":"no id"}]"#, "[null]", "[1,"];
    // Side by side: each is asked for again a few times.
    let walks = bodies.map(|body| {
        tokio::spawn(async move {
            let answer = move |_: &Request| Reply::Answer(200, "", body.as_bytes().to_vec());
            let server = Server::start(answer).await;
            let walked = server.client().streams().all().await;
            assert_eq!(walked.unwrap_err().disposition(), RETRY, "{body:?}");
        })
    });
    for walk in walks {
        walk.await.unwrap();
    }
}

#[test]
fn settings_that_would_leak_or_fail_later_are_refused_at_once() {
    let token = || Credentials::Token("1_token".into());
    let refused = |base_url: &str, credentials| {
        Client::new(Config::new(base_url, credentials)).err().map(|error| error.to_string())
    };
    for base_url in ["", "api.gcore.com", "ftp://api.gcore.com", "https://user:pw@api.gcore.com"] {
        let message = refused(base_url, token()).unwrap();
        assert!(message.contains("base_url") && !message.contains("pw"), "{message}");
    }
    for base_url in ["http://api.gcore.com", "http://10.0.0.1:80", "http://localhost.example"] {
        assert!(refused(base_url, token()).unwrap().contains("https"), "{base_url}");
    }
    for base_url in ["http://localhost:1", "http://127.0.0.1:1/", "http://[::1]:1", "https://a.b/"]
    {
        assert_eq!(refused(base_url, token()), None, "{base_url}");
    }
    let good = "https://api.gcore.com";
    for token in ["", "  \n", "1_to\nken"] {
        assert!(refused(good, Credentials::Token(token.into())).unwrap().contains("token"));
    }
    assert_eq!(refused(good, Credentials::Token("1_token\n".into())), None);
    let nobody = Credentials::Password { username: String::new(), password: "x".into() };
    assert!(refused(good, nobody).unwrap().contains("username"));
}

#[test]
fn settings_do_not_show_their_secrets() {
    let password = Credentials::Password { username: "u".to_owned(), password: "hidden".into() };
    for credentials in [Credentials::Token("hidden".into()), password] {
        let config = Config::new("https://api.gcore.com", credentials);
        assert!(!format!("{config:?}").contains("hidden"));
        assert!(!format!("{:?}", Client::new(config)).contains("hidden"));
    }
}
