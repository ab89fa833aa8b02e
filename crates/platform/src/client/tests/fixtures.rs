//! Every recorded body of the API, and what it has to be for the client.

use std::{collections::BTreeSet, fs, path::PathBuf};

use serde::de::DeserializeOwned;

use super::*;
use crate::{refusal::Refusal, wire::*};

/// What a file has to be.
enum Is {
    Stream(i64),
    Broadcast(Option<i64>),
    Video(i64),
    /// The number of rows.
    Streams(usize),
    Videos(usize),
    NothingRecorded,
    Start(StartRecording),
    /// A request; the name of its wrapper, or "" for a flat one.
    NewStream(&'static str),
    StreamPatch,
    NewBroadcast,
    BroadcastPatch,
    /// Of these, status, message and disposition for an operation that creates a stream.
    Error(u16, &'static str, Disposition),
    /// Something else, and how it is known to be read.
    Reads(fn(&Value) -> bool),
    /// A body of the login.
    Login,
}

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(name)
}

fn names(folder_name: &str) -> Vec<String> {
    let entries = fs::read_dir(folder(folder_name)).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn answer(status: u16, folder_name: &str, name: &str) -> Answer {
    let body = fs::read(folder(folder_name).join(name)).unwrap();
    Answer { status, retry_after: None, body }
}

fn object<T: DeserializeOwned>(name: &str) -> T {
    decode::object(Operation::GetStream, &answer(200, "api", name)).unwrap()
}

fn body_of<T: DeserializeOwned>(name: &str, wrapper: &str) -> T {
    let body: Value = object(name);
    let body = if wrapper.is_empty() { body } else { body[wrapper].clone() };
    serde_json::from_value(body).unwrap()
}

/// The table: what each file has to be.
fn table() -> Vec<(&'static str, Is)> {
    [tutorial(), published(), refusals(), others()].into_iter().flatten().collect()
}

/// The samples of the tutorial.
#[rustfmt::skip]
fn tutorial() -> Vec<(&'static str, Is)> {
    use Is::{Broadcast, BroadcastPatch, NewBroadcast, NewStream, Stream, StreamPatch, Video};
    vec![
        ("tutorial-step-01-create-stream.request.json", NewStream("stream")),
        ("tutorial-step-01-create-stream.request-flat.json", NewStream("")),
        ("tutorial-step-01-create-stream.response.json", Stream(320_423)),
        ("tutorial-step-02-create-broadcast.request.json", NewBroadcast),
        ("tutorial-step-02-create-broadcast.response.json", Broadcast(Some(192_470))),
        ("tutorial-step-03-enable-stream.request.json", StreamPatch),
        ("tutorial-step-03-enable-stream.response.json", Stream(320_423)),
        ("tutorial-step-05-broadcast-live.request.json", BroadcastPatch),
        ("tutorial-step-05-broadcast-live.response.json", Broadcast(Some(192_470))),
        ("tutorial-step-09-stop-recording.response.json", Video(803_111)),
        ("tutorial-step-12-broadcast-finished.request.json", BroadcastPatch),
        ("tutorial-step-12-broadcast-finished.response.json", Broadcast(Some(192_470))),
        ("tutorial-step-14-disable-stream.request.json", StreamPatch),
        ("tutorial-step-14-disable-stream.response.json", Stream(320_423)),
        ("tutorial-step-19-get-video.response.json", Video(803_111)),
        ("tutorial-special-reuse-stream.request.json", StreamPatch),
        ("tutorial-special-reuse-stream.response.json", Stream(320_423)),
        ("tutorial-special-broadcast-paused.request.json", BroadcastPatch),
        ("tutorial-special-broadcast-paused.response.json", Broadcast(Some(192_470))),
    ]
}

/// Objects of the OpenAPI file and the documentation.
#[rustfmt::skip]
fn published() -> Vec<(&'static str, Is)> {
    use Is::{Broadcast, NewBroadcast, NewStream, NothingRecorded, Start, Stream, Streams, Video, Videos};
    vec![
        ("openapi-create-stream.request.json", NewStream("")),
        ("openapi-stream.response.json", Stream(1_080_200)),
        ("openapi-stream-never-started.response.json", Stream(1_080_201)),
        ("openapi-stream-ended.response.json", Stream(1_080_202)),
        ("openapi-stream-with-recording-flag.response.json", Stream(1_080_200)),
        ("openapi-stream-list-page-1.response.json", Streams(3)),
        ("openapi-stream-list-page-past-end.response.json", Streams(0)),
        ("openapi-create-broadcast.request.json", NewBroadcast),
        ("openapi-broadcast.response.json", Broadcast(None)),
        ("openapi-broadcast-with-id.response.json", Broadcast(Some(192_470))),
        ("openapi-start-recording-200-warning.response.json",
            Start(StartRecording::Warned(vec!["client_storage_almost_exceeded".to_owned()]))),
        ("openapi-start-recording-200-errors.response.json",
            Start(StartRecording::Refused(vec!["example_error: Recording was not started".to_owned()]))),
        ("openapi-stop-recording-200-empty-object.response.json", NothingRecorded),
        ("openapi-stop-recording-200-null.response.json", NothingRecorded),
        ("openapi-video.response.json", Video(70_575)),
        ("openapi-video-recording-pending.response.json", Video(803_111)),
        ("docs-video-viewable-terminal.response.json", Video(11_936_778)),
        ("docs-video-empty-with-error.response.json", Video(2_558_799)),
        ("docs-video-pending-progress.response.json", Video(2_558_721)),
        ("openapi-video-error.response.json", Video(803_111)),
        ("openapi-video-list-by-stream.response.json", Videos(2)),
    ]
}

/// What is no success.
#[rustfmt::skip]
fn refusals() -> Vec<(&'static str, Is)> {
    use Disposition::{Ambiguous, FeatureMissing, Quota, Refused, Unauthorized};
    use Is::Error;
    vec![
        ("openapi-start-recording-422-no-space.response.json",
            Error(422, "name: Error text: No space for recording the stream.", Quota)),
        ("error-a-422-name-blank.response.json", Error(422, "name: can't be blank", Refused)),
        ("error-a-422-status-blank.response.json", Error(422, "status: can't be blank", Refused)),
        ("error-a-422-restream-stream.response.json",
            Error(422, "stream: does not belong to the same client", Refused)),
        ("error-b-404.response.json",
            Error(404, "Not Found. Entity you are looking for was not found, please check the initial parameters", Refused)),
        ("error-b-400.response.json",
            Error(400, "Bad Request response status code indicates that the server cannot or will not process the request due to something that is perceived to be a client error (for example, malformed request syntax, invalid request message framing, or deceptive request routing).", Refused)),
        ("error-c-queue-limit.response.json",
            Error(429, "Queue limit reached (100), try later.", Quota)),
        ("error-c-feature-disabled.response.json",
            Error(422, "Feature is disabled. Contact support to enable.", FeatureMissing)),
        ("error-d-400-missing-parameter.response.json",
            Error(400, "from: query param is not set", Refused)),
        ("error-d-500.response.json", Error(500, "internal server error", Ambiguous)),
        ("error-e-quota.response.json",
            Error(403, "Quota limit for volume_size exceeded by 70", Quota)),
        ("error-e-validation.response.json",
            Error(400, "Validation Error: {'interfaces': ['Field required'], 'volumes': ['Field required']}", Refused)),
        ("error-e-validation-without-request-id.response.json",
            Error(400, "Following name templates are not allowed for this client: ['my-vm'], use one of ['frn-c2-{ip_octets}']", Refused)),
        ("error-e-401-no-credentials.response.json",
            Error(401, "Authentication credentials were not provided.", Unauthorized)),
        ("error-e-401-wrong-scheme.response.json",
            Error(401, "Given token not valid for any token type", Unauthorized)),
        ("error-e-401-expired.response.json",
            Error(401, "Token is invalid or expired", Unauthorized)),
        ("error-iam-login-field.response.json",
            Error(400, "password: This field is required", Refused)),
        ("error-iam-login-no-account.response.json",
            Error(400, "No active account found with the given credentials.", Refused)),
        ("error-iam-json-parse.response.json",
            Error(400, "JSON parse error - Expecting ',' delimiter: line 3 column 33 (char 77)", Refused)),
    ]
}

/// A body as an object.
fn read<T: DeserializeOwned>(body: &Value) -> T {
    serde_json::from_value(body.clone()).unwrap()
}

/// What is read as an object of one operation alone.
#[rustfmt::skip]
fn others() -> Vec<(&'static str, Is)> {
    use Is::{Login, Reads};
    vec![
        ("iam-login.response.json", Login),
        ("iam-account.response.json", Reads(|body| {
            let account: Account = read(body);
            account.is_streaming_enabled() == Some(true) && account.status.as_deref() == Some("active")
        })),
        ("openapi-broadcast-spectators.response.json", Reads(|body| body["spectators_count"] == 100)),
        ("openapi-clip.response.json", Reads(|body| {
            let clip: Clip = read(body);
            (clip.id.as_deref(), clip.video_id, clip.start, clip.duration_seconds)
                == (Some("d7bsli54p8n4"), Some(459_857), Some(1_716_559_200), Some(60))
        })),
        ("openapi-ffprobe.response.json", Reads(|body| {
            let sample: ProbeSample = read(&body["data"][0]);
            (sample.max_height, sample.avg_bitrate) == (Some(1080), Some(3500.5))
                && sample.time.is_some_and(|time| time.to_rfc3339() == "2006-01-02T15:04:05+00:00")
        })),
        ("openapi-max-stream.response.json", Reads(|body| {
            let series: Series = read(&body[0]);
            (series.client, series.points.len(), series.max()) == (Some(123), 5, Some(20))
        })),
        ("openapi-reset-push-token-202.response.json", Reads(|body| body["message"].is_string())),
        ("openapi-restream.response.json", Reads(|body| {
            let restream: Restream = read(body);
            let shown = format!("{restream:?} {}", restream.observed());
            (restream.id, restream.stream_id) == (Some(3001), Some(20)) && !shown.contains("k17a")
        })),
        ("openapi-upload-parameters.response.json", Reads(|body| {
            let upload: Upload = read(body);
            let shown = format!("{upload:?} {}", upload.observed());
            upload.video.is_some_and(|video| video.id == 17) && !shown.contains("X2lkIjoxMDE1fSwi")
        })),
    ]
}

#[test]
fn the_table_names_every_file() {
    let table = table();
    let listed: BTreeSet<String> = table.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(listed.len(), table.len());
    assert_eq!(listed, names("api").into_iter().collect());
}

#[test]
fn every_recorded_body_is_what_its_description_says() {
    let operation = Operation::ListStreams;
    for (name, is) in table() {
        let success = || answer(200, "api", name);
        match is {
            Is::Stream(id) => assert_eq!(object::<Stream>(name).id, id, "{name}"),
            Is::Broadcast(id) => assert_eq!(object::<Broadcast>(name).id, id, "{name}"),
            Is::Video(id) => assert_eq!(object::<Video>(name).id, id, "{name}"),
            Is::Streams(rows) => {
                let list: Vec<Stream> = decode::list(operation, &success(), None).unwrap();
                assert_eq!(list.len(), rows, "{name}");
            }
            Is::Videos(rows) => {
                let list: Vec<Video> = decode::list(operation, &success(), None).unwrap();
                assert_eq!(list.len(), rows, "{name}");
            }
            Is::NothingRecorded => {
                let video: Option<Video> = decode::optional(operation, &success()).unwrap();
                assert!(video.is_none(), "{name}");
            }
            Is::Start(expected) => {
                let found =
                    StartRecording::read(&decode::value(operation, &success()).unwrap(), &[]);
                assert_eq!(found, expected, "{name}");
            }
            Is::NewStream(wrapper) => {
                assert!(!body_of::<NewStream>(name, wrapper).name.is_empty(), "{name}");
            }
            Is::StreamPatch => drop(body_of::<StreamPatch>(name, "stream")),
            Is::NewBroadcast => {
                assert!(!body_of::<NewBroadcast>(name, "broadcast").name.is_empty(), "{name}");
            }
            Is::BroadcastPatch => {
                assert!(body_of::<BroadcastPatch>(name, "broadcast").status.is_some(), "{name}");
            }
            Is::Error(status, message, disposition) => {
                let answer = answer(status, "api", name);
                let error = Error::of_answer(Operation::CreateStream, &answer, &[]);
                assert_eq!(error.message(), message, "{name}");
                assert_eq!(error.disposition(), disposition, "{name}");
            }
            Is::Reads(is_read) => assert!(is_read(&object(name)), "{name}"),
            Is::Login => assert!(object::<Value>(name)["access"].is_string(), "{name}"),
        }
    }
}

#[test]
fn a_broken_body_is_an_unknown_outcome_and_never_a_panic() {
    let create = Operation::CreateStream;
    for name in names("malformed") {
        let read: Result<Stream, _> = decode::object(create, &answer(200, "malformed", &name));
        assert_eq!(read.unwrap_err().disposition(), Disposition::Ambiguous, "{name}");
        let list: Result<Vec<Stream>, _> =
            decode::list(Operation::ListStreams, &answer(200, "malformed", &name), None);
        assert_eq!(list.unwrap_err().disposition(), RETRY, "{name}");
        let refused = Error::of_answer(create, &answer(422, "malformed", &name), &[]);
        assert_eq!(refused.disposition(), Disposition::Refused, "{name}");
        assert!(refused.message().chars().count() <= 401, "{name}");
        assert!(!refused.message().contains(char::is_control), "{name}: {refused}");
    }
}

#[test]
fn a_page_of_an_edge_proxy_is_known_by_its_title() {
    let message = |body: &[u8]| Refusal::read(body, &[]).message;
    let html = answer(502, "malformed", "html-502.json");
    assert_eq!(message(&html.body), "502 Bad Gateway");
    assert_eq!(message(b"<h1>Sorry</h1> <p>We are\n down</p>"), "Sorry We are down");
    assert_eq!(message(b""), "");
    assert_eq!(message(b"\xff\xfe gone"), "\u{fffd}\u{fffd} gone");
    let unknown = br#"{"detail":"x","token":"t"}"#;
    assert_eq!(message(unknown), r#"{"detail":"x","token":"***"}"#);
    let long = format!(r#"{{"error":"{}"}}"#, "word ".repeat(1000));
    assert_eq!(message(long.as_bytes()).chars().count(), 401);
    let list = br#"{"errors":[{"key":"k","message":"m"},"n"]}"#;
    assert_eq!(message(list), "k: m; n");
}
