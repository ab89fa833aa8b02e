//! A live stream that was used before.

use domain::ids::VideoId;
use serde_json::json;
use simulator::RequestLogEntry;

use crate::system::{Setup, TestSystem};

#[tokio::test]
async fn a_second_session_on_a_live_stream_begins_clean_and_leaves_the_first_its_video() {
    let simulator = simulator::Config { time_scale: 10.0, ..Setup::default().simulator };
    let system = TestSystem::start(Setup { simulator, ..Setup::default() }).await;
    let first = system.on_air("first").await;
    let fields = json!({"live_stream_id": first.stream, "dvr": true, "client_user_id": 1001});
    let second = system.request("second", fields).await;
    system.tell(first.session, "end").await;
    system.until_ready(second).await;
    // The second is ready while the first one's video is still being processed.
    assert_eq!(system.session(first.session).await["status"], "processing");
    let second = system.show(second, first.stream).await;
    let first_end = system.until_ended(first.session).await;
    let second_end = system.finish(second.session).await;

    assert_eq!(first_end.videos.len(), 1);
    assert_eq!(second_end.videos.len(), 1);
    assert!(first_end.videos[0] < second_end.videos[0]);
    system.until_video_ready(first.stream, VideoId(second_end.videos[0])).await;

    // The old rewind window goes first, then the settings come, then the audience.
    let changes = system.changes();
    let cleared = position(&changes, "PUT", "/dvr_cleanup");
    let configured = cleared + 1;
    let stream = format!("/streaming/streams/{}", first.stream);
    assert_eq!(
        (changes[configured].method.as_str(), &changes[configured].path),
        ("PATCH", &stream)
    );
    let settings = &changes[configured].body.as_ref().unwrap()["stream"];
    assert_eq!(settings["name"], "second");
    assert_eq!(settings["dvr_enabled"], true);
    assert_eq!(settings["client_user_id"], 1001);
    assert_eq!(changes[configured + 1].path, "/streaming/broadcasts");
    assert_eq!(system.changes_like("POST /streaming/streams").len(), 1);
    system.end().await;
}

/// Where the one request stands whose path ends so.
fn position(changes: &[RequestLogEntry], method: &str, end: &str) -> usize {
    let is_it = |r: &&RequestLogEntry| r.method == method && r.path.ends_with(end);
    assert_eq!(changes.iter().filter(is_it).count(), 1);
    changes.iter().position(|r| is_it(&r)).unwrap()
}
