//! Calls and their outcomes read fast: flat, where the derived reading of a tagged enum holds the
//! whole body twice. What does not fit is left to the derived reading, which decides.

use serde::{Deserialize, Deserializer, de::DeserializeSeed as _};
use serde_json::Value;
use uuid::Uuid;

use super::{CallIntended, CallSucceeded, SessionOptions};
use crate::call::{Call, CallResult};
use crate::cleanup::CleanupPolicy;
use crate::ids::{BroadcastId, LiveStreamId, Timestamp, VideoId};
use crate::webhook::seen::Seen;

#[derive(Deserialize)]
struct Intended<'a> {
    intent: Uuid,
    #[serde(borrow)]
    call: FlatCall<'a>,
}

/// The fields of all calls.
#[derive(Deserialize)]
struct FlatCall<'a> {
    kind: &'a str,
    live_stream: Option<LiveStreamId>,
    broadcast: Option<BroadcastId>,
    video: Option<VideoId>,
    name: Option<String>,
    options: Option<SessionOptions>,
    status: Option<String>,
    run: Option<Uuid>,
    delete_recordings: Option<bool>,
    #[serde(default)]
    policy: CleanupPolicy,
    made_before: Option<Timestamp>,
    #[serde(default)]
    videos: Vec<VideoId>,
    #[serde(default)]
    earlier: Vec<Uuid>,
    #[serde(default)]
    check: Vec<LiveStreamId>,
    #[serde(default)]
    only_look: bool,
    since: Option<Timestamp>,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
}

#[derive(Deserialize)]
struct Succeeded<'a> {
    intent: Uuid,
    #[serde(borrow)]
    result: FlatResult<'a>,
}

/// The fields of those results that hold an object, or nothing.
#[derive(Deserialize)]
struct FlatResult<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    observed: Option<Observed>,
    video: Option<Observed>,
}

/// An object of the platform as far as it is read.
struct Observed(Value);

impl<'de> Deserialize<'de> for Observed {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Seen::Object.deserialize(from).map(Self)
    }
}

/// Reads a decided call.
pub(super) fn intended(text: &str) -> Option<CallIntended> {
    let Intended { intent, call } = serde_json::from_str(text).ok()?;
    let live_stream = call.live_stream;
    let call = match call.kind {
        "create_live_stream" => Call::CreateLiveStream {
            name: call.name?,
            options: call.options?,
            earlier: call.earlier,
            only_look: call.only_look,
        },
        "update_live_stream" => Call::UpdateLiveStream {
            live_stream: live_stream?,
            name: call.name?,
            options: call.options?,
        },
        "clear_dvr" => Call::ClearDvr { live_stream: live_stream? },
        "create_broadcast" => Call::CreateBroadcast {
            live_stream: live_stream?,
            name: call.name?,
            earlier: call.earlier,
            only_look: call.only_look,
        },
        "activate_live_stream" => Call::ActivateLiveStream { live_stream: live_stream? },
        "deactivate_live_stream" => Call::DeactivateLiveStream { live_stream: live_stream? },
        "set_broadcast_status" => {
            Call::SetBroadcastStatus { broadcast: call.broadcast?, status: call.status? }
        }
        "start_recording" => Call::StartRecording { live_stream: live_stream? },
        "stop_recording" => Call::StopRecording { live_stream: live_stream?, since: call.since },
        "delete_broadcast" => Call::DeleteBroadcast { broadcast: call.broadcast? },
        "observe_live_stream" => Call::ObserveLiveStream { live_stream: live_stream? },
        "observe_broadcast" => Call::ObserveBroadcast { broadcast: call.broadcast? },
        "list_videos" => Call::ListVideos { live_stream: live_stream? },
        "fetch_video" => Call::FetchVideo { video: call.video? },
        "observe_quota" => Call::ObserveQuota { check: call.check },
        "probe_live_stream" => {
            Call::ProbeLiveStream { live_stream: live_stream?, from: call.from?, to: call.to? }
        }
        "delete_live_stream" => Call::DeleteLiveStream {
            live_stream: live_stream?,
            run: call.run?,
            delete_recordings: call.delete_recordings?,
            policy: call.policy,
            made_before: call.made_before,
        },
        "delete_recordings" => Call::DeleteRecordings {
            live_stream: live_stream?,
            run: call.run?,
            videos: call.videos,
            made_before: call.made_before,
        },
        _ => return None,
    };
    Some(CallIntended { intent, call })
}

/// Reads an outcome for a fold: of observed objects what is read of them alone.
pub(super) fn succeeded(text: &str) -> Option<CallSucceeded> {
    let Succeeded { intent, result } = serde_json::from_str(text).ok()?;
    let observed = result.observed.map(|observed| observed.0);
    let result = match result.kind {
        "live_stream" => CallResult::LiveStream { observed: observed? },
        "broadcast" => CallResult::Broadcast { observed: observed? },
        "video" => CallResult::Video { observed: observed? },
        "videos" => match observed? {
            Value::Array(observed) => CallResult::Videos { observed },
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Object(_) => {
                return None;
            }
        },
        "recording_stopped" => CallResult::RecordingStopped { video: Some(result.video?.0) },
        "gone" => CallResult::Gone,
        "done" => CallResult::Done,
        _ => return None,
    };
    Some(CallSucceeded { intent, result })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;
    use crate::scenario::{Answer, Scenario};

    /// Bodies of one type: the golden ones and those of a whole session.
    fn bodies(name: &str) -> Vec<Vec<u8>> {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("golden/{name}.v1.json"));
        let mut bodies = vec![std::fs::read(golden).unwrap()];
        let mut s = Scenario::new();
        let session = s.request("key", |r| r.options.auto_go_live = true);
        s.encoder_connects(320_423);
        s.recording_shows(320_423, true);
        s.platform.script("observe_live_stream", Answer::Done(CallResult::Gone));
        s.pass(std::time::Duration::from_mins(2));
        s.end(session);
        s.pass(std::time::Duration::from_mins(10));
        let events = s.log().iter().filter(|event| event.event_type == name);
        bodies.extend(events.map(|event| event.payload.clone()));
        bodies
    }

    #[test]
    fn a_call_is_read_as_its_derived_reading_does() {
        let options =
            SessionOptions { data: Some(json!({"a": [1, 2.5]})), ..SessionOptions::default() };
        let live_stream = LiveStreamId(1);
        let calls = [
            Call::CreateLiveStream {
                name: "\"n\"\n".to_owned(),
                options: options.clone(),
                earlier: vec![Uuid::nil()],
                only_look: true,
            },
            Call::UpdateLiveStream { live_stream, name: "n".to_owned(), options },
            Call::ClearDvr { live_stream },
            Call::CreateBroadcast {
                live_stream,
                name: "n".to_owned(),
                earlier: Vec::new(),
                only_look: true,
            },
            Call::ActivateLiveStream { live_stream },
            Call::DeactivateLiveStream { live_stream },
            Call::SetBroadcastStatus { broadcast: BroadcastId(2), status: "live".to_owned() },
            Call::StartRecording { live_stream },
            Call::StopRecording { live_stream, since: Some(Timestamp::default()) },
            Call::DeleteBroadcast { broadcast: BroadcastId(2) },
            Call::ObserveLiveStream { live_stream },
            Call::ObserveBroadcast { broadcast: BroadcastId(2) },
            Call::ListVideos { live_stream },
            Call::FetchVideo { video: VideoId(3) },
            Call::ObserveQuota { check: vec![live_stream] },
            Call::ProbeLiveStream {
                live_stream,
                from: Timestamp::default(),
                to: Timestamp::default(),
            },
            Call::DeleteLiveStream {
                live_stream,
                run: Uuid::nil(),
                delete_recordings: true,
                policy: CleanupPolicy::Orphans,
                made_before: Some(Timestamp::default()),
            },
            Call::DeleteRecordings {
                live_stream,
                run: Uuid::nil(),
                videos: vec![VideoId(3)],
                made_before: None,
            },
        ];
        assert_eq!(calls.len(), Call::KINDS.len());
        for call in calls {
            let told = CallIntended { intent: Uuid::nil(), call };
            assert_eq!(intended(&serde_json::to_string(&told).unwrap()), Some(told));
        }
        for body in bodies("CallIntended") {
            let derived: CallIntended = serde_json::from_slice(&body).unwrap();
            assert_eq!(intended(std::str::from_utf8(&body).unwrap()), Some(derived));
        }
        let odd =
            r#"{"intent":"00000000-0000-0000-0000-000000000000","call":{"kind":"clear_dvr"}}"#;
        assert_eq!(intended(odd), None);
    }

    #[test]
    fn an_outcome_is_read_as_its_derived_reading_does() {
        for body in bodies("CallSucceeded") {
            let derived: CallSucceeded = serde_json::from_slice(&body).unwrap();
            let Some(fast) = succeeded(std::str::from_utf8(&body).unwrap()) else { continue };
            assert_eq!(fast.intent, derived.intent);
            // Of objects less is kept: what is kept is the same.
            let (fast, derived) = (json!(fast.result), json!(derived.result));
            assert_eq!(fast["type"], derived["type"]);
            let Some(fast) = fast["observed"].as_object() else { continue };
            assert!(fast.iter().all(|(name, value)| derived["observed"][name] == *value));
        }
    }
}
