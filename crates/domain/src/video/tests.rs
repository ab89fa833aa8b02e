//! Rules of a video until its live stream is known, and of the order of its statuses.

use serde_json::json;

use crate::call::CallResult;
use crate::event::Event;
use crate::ids::{LiveStreamId, Subject, VideoId};
use crate::reconcile::{SeenOtherwise, VideoSigns};
use crate::scenario::{Answer, SOURCE, Scenario};
use crate::state::Body;
use crate::webhook::{VideoObserved, VideoStatus};

fn status(s: &Scenario, id: i64) -> VideoStatus {
    let subject = Subject::video(SOURCE, VideoId(id));
    let Some(Body::Video(video)) = s.state(&subject).map(|state| &state.body) else {
        panic!("no video")
    };
    video.seen.status
}

#[test]
fn a_video_without_live_stream_is_looked_up_once() {
    let mut s = Scenario::new();
    s.platform.hold("fetch_video");
    for status in ["pending", "viewable", "ready"] {
        s.tell_video(1, status);
    }
    s.then_calls(&["fetch_video"]);
    s.answer("fetch_video", Answer::Failed("503".to_owned()));
    s.tell_video(1, "viewable");
    s.then_calls(&[]);
}

#[test]
fn an_uploaded_video_is_not_looked_up() {
    let mut s = Scenario::new();
    let body = json!({"type": "video", "message": {"video":
        {"id": 1, "status": "pending", "stream_id": null}}});
    s.webhook(body.to_string().as_bytes());
    s.then_calls(&[]);
}

#[test]
fn a_video_that_is_not_found_is_deleted() {
    let mut s = Scenario::new();
    s.tell_video(1, "pending");
    assert_eq!(status(&s, 1), VideoStatus::Deleted);
    s.tell_video(1, "ready");
    assert_eq!(status(&s, 1), VideoStatus::Deleted);
}

#[test]
fn webhooks_never_lower_a_status_and_the_api_may() {
    let mut s = Scenario::new();
    s.platform.hold("fetch_video");
    s.tell_video(1, "ready");
    s.tell_video(1, "pending");
    assert_eq!(status(&s, 1), VideoStatus::Ready);
    let observed = json!({"id": 1, "status": "viewable", "stream_id": 5});
    s.answer("fetch_video", Answer::Done(CallResult::Video { observed }));
    assert_eq!(status(&s, 1), VideoStatus::Viewable);
}

#[test]
fn the_error_of_a_video_that_was_repaired_is_gone() {
    let video = |status, error: Option<&str>| {
        let seen: VideoObserved = serde_json::from_value(json!({"id": 1})).unwrap();
        VideoObserved { status, error: error.map(str::to_owned), ..seen }
    };
    let mut known = video(VideoStatus::Viewable, Some("The storage limit has been exceeded"));
    super::merge(&mut known, &video(VideoStatus::Ready, None), false);
    assert!(known.error.is_some(), "webhooks tell no errors");
    super::merge(&mut known, &video(VideoStatus::Ready, None), true);
    assert_eq!((known.status, known.error), (VideoStatus::Ready, None));
}

#[test]
fn a_repeated_webhook_of_a_video_is_not_forwarded() {
    let mut s = Scenario::new();
    let body = json!({"type": "video", "message": {"video":
        {"id": 1, "status": "pending", "stream_id": 5}}});
    s.webhook(body.to_string().as_bytes());
    let events = s.log().len();
    s.webhook(body.to_string().as_bytes());
    assert_eq!(s.log().len(), events + 1);
}

fn hint(signs: VideoSigns) -> Event {
    Event::SeenOtherwise(SeenOtherwise { videos: vec![signs], ..SeenOtherwise::default() })
}

#[test]
fn what_a_sweep_saw_of_a_video_is_asked_for_and_only_the_answer_counts() {
    let subject = Subject::video(SOURCE, VideoId(1));
    let missing = VideoSigns::missing(VideoId(1));
    let mut s = Scenario::new();
    s.platform.add_video(5, 1, "ready", s.now());
    let body = json!({"type": "video", "message": {"video":
        {"id": 1, "status": "ready", "stream_id": 5}}});
    s.webhook(body.to_string().as_bytes());
    s.given();
    s.event(subject.clone(), &hint(missing));
    s.then_calls(&["fetch_video"]);
    assert_eq!(status(&s, 1), VideoStatus::Ready, "a list is no proof");
    s.platform.delete_video(1);
    s.event(subject.clone(), &hint(missing));
    s.then_calls(&["fetch_video"]);
    assert_eq!(status(&s, 1), VideoStatus::Deleted);
    s.event(subject, &hint(missing));
    s.then_calls(&[]);
}

#[test]
fn a_video_that_a_sweep_alone_tells_of_finds_its_live_stream() {
    let mut s = Scenario::new();
    s.platform.add_video(5, 1, "ready", s.now());
    let status = Some(VideoStatus::Ready);
    let signs = VideoSigns { status, ..VideoSigns::missing(VideoId(1)) };
    s.event(Subject::video(SOURCE, VideoId(1)), &hint(VideoSigns { missing: false, ..signs }));
    s.then_calls(&["fetch_video"]);
    let subject = Subject::video(SOURCE, VideoId(1));
    let Some(Body::Video(video)) = s.state(&subject).map(|state| &state.body) else { panic!() };
    assert_eq!(video.live_stream(), Some(LiveStreamId(5)));
}
