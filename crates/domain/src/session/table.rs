//! Every status against everything that can happen, played on whole sessions: the table and the
//! drawing of `docs/sessions.md` are what comes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use uuid::Uuid;

use super::Status;
use crate::call::CallResult;
use crate::ids::{LiveStreamId, Subject};
use crate::scenario::{Answer, SOURCE, Scenario};
use crate::state::Body;
use crate::timer::Limits;

const STREAM: i64 = 320_423;
const VIDEO: i64 = 803_111;
const BROADCAST: i64 = 192_470;

/// An installation whose waits are short, so that hours need not be played.
fn scenario() -> Scenario {
    let short = Duration::from_mins(10);
    let mut s = Scenario::new();
    s.policy.limits = Limits {
        slot: short,
        encoder: short,
        testing: short,
        interrupted: short,
        failed: short,
        videos: short,
        ..Limits::default()
    };
    s
}

/// A session that stands at `status`.
fn at(status: &str) -> (Scenario, Uuid) {
    let mut s = scenario();
    match status {
        "requested" => s.platform.hold("create_live_stream"),
        "preparing" => {
            for _ in 0..100 {
                let reason = "limit of active streams exceeded".to_owned();
                let refused = Answer::Done(CallResult::Deferred { reason });
                s.platform.script("activate_live_stream", refused);
            }
        }
        "failed" => s.platform.script("create_broadcast", Answer::Failed("422".to_owned())),
        "ending" => s.platform.hold("stop_recording"),
        _ => {}
    }
    let shown = ["live", "interrupted", "ending", "processing", "ended"].contains(&status);
    let session = s.request("key-1", |r| r.options.auto_go_live = shown);
    if shown || status == "testing" {
        s.encoder_connects(STREAM);
    }
    if shown {
        s.recording_shows(STREAM, true);
        s.pass(Duration::from_mins(1));
    }
    if status == "interrupted" {
        s.encoder_drops(STREAM);
        s.pass(Duration::from_secs(20));
    }
    if ["ending", "processing", "ended"].contains(&status) {
        s.end(session);
    }
    if ["processing", "ended"].contains(&status) {
        s.recording_shows(STREAM, false);
        s.tell_video(VIDEO, if status == "ended" { "ready" } else { "pending" });
        s.encoder_drops(STREAM);
    }
    assert_eq!(told(&s, session), status);
    (s, session)
}

/// Where a session stands, whether it has its live stream or not.
fn told(s: &Scenario, session: Uuid) -> &'static str {
    let request = s.state(&Subject::request(SOURCE, session)).map(|state| &state.body);
    let Some(Body::Request(request)) = request else { panic!("no request") };
    if request.live_stream.is_some() { s.session(session).status.name() } else { request.status() }
}

/// What can happen, in words, and as it is played.
type Input = (&'static str, fn(&mut Scenario, Uuid));

const INPUTS: [Input; 20] = [
    ("the encoder comes", |s, _| s.encoder_connects(STREAM)),
    ("the encoder goes, for less than the grace period", |s, _| s.encoder_drops(STREAM)),
    ("the encoder goes, for longer", |s, _| {
        s.encoder_drops(STREAM);
        s.pass(Duration::from_secs(25));
    }),
    ("the encoder reconnects in a loop", |s, _| {
        for _ in 0..7 {
            s.encoder_drops(STREAM);
            s.pass(Duration::from_secs(10));
            s.encoder_connects(STREAM);
        }
    }),
    ("go-live", Scenario::go_live),
    ("end", Scenario::end),
    ("end, while calls are answered 500", |s, session| {
        for kind in crate::call::Call::KINDS {
            s.platform.hold(kind);
        }
        s.end(session);
        s.pass(Duration::from_mins(30));
    }),
    ("retry", Scenario::retry),
    ("another session is asked for on its live stream", |s, _| {
        s.request("key-2", |r| r.live_stream = Some(LiveStreamId(STREAM)));
    }),
    ("somebody deactivates the live stream", |s, _| {
        s.platform.set(STREAM, |t| t.active = false);
        s.reconcile(STREAM);
    }),
    ("somebody deletes the live stream", |s, _| {
        s.platform.script("observe_live_stream", Answer::Done(CallResult::Gone));
        s.reconcile(STREAM);
    }),
    ("somebody starts a recording", |s, _| s.recording_shows(STREAM, true)),
    ("somebody stops the recording", |s, _| s.recording_shows(STREAM, false)),
    ("somebody pauses the broadcast", |s, _| s.tell_broadcast(BROADCAST, "paused")),
    ("somebody finishes the broadcast", |s, _| s.tell_broadcast(BROADCAST, "finished")),
    ("somebody deletes the broadcast", |s, _| {
        s.platform.delete_broadcast(BROADCAST);
        s.pass(Duration::from_secs(40));
    }),
    ("its video is ready", |s, _| s.tell_video(VIDEO, "ready")),
    ("its video is deleted", |s, _| {
        let body = format!(
            r#"{{"type":"video_delete","message":{{"video":{{"id":{VIDEO},"stream_id":{STREAM}}}}}}}"#
        );
        s.webhook(body.as_bytes());
    }),
    ("a cleanup run proposes its live stream", |s, _| {
        s.clean_up(STREAM);
    }),
    ("nothing is heard until a limit is exceeded", |s, _| s.pass(Duration::from_mins(16))),
];

/// What became of one session: where it stands, and by which statuses it came there.
fn play(status: &str, input: Input) -> (&'static str, Vec<&'static str>) {
    let (mut s, session) = at(status);
    let moments = |s: &Scenario| -> Vec<&'static str> {
        let subject = Subject::live_stream(SOURCE, LiveStreamId(STREAM));
        let is_bound = s.state(&subject).is_some() && status != "requested";
        if is_bound {
            s.session(session).moments.iter().map(|m| m.status.name()).collect()
        } else {
            Vec::new()
        }
    };
    let before = moments(&s).len();
    input.1(&mut s, session);
    let to = told(&s, session);
    let way = if status == "requested" { vec![to] } else { moments(&s).split_off(before) };
    (to, way)
}

fn statuses() -> Vec<&'static str> {
    std::iter::once("requested").chain(Status::ALL.map(Status::name)).collect()
}

/// The table and the drawing, as they stand in the document.
fn document() -> String {
    let statuses = statuses();
    let mut text = String::new();
    let mut ways: BTreeMap<(usize, usize), BTreeSet<usize>> = BTreeMap::new();
    let place = |name: &str| statuses.iter().position(|s| *s == name).unwrap();
    writeln!(text, "| | {} |", statuses.join(" | ")).unwrap();
    writeln!(text, "|---|{}", "---|".repeat(statuses.len())).unwrap();
    for (n, input) in INPUTS.into_iter().enumerate() {
        write!(text, "| {} |", input.0).unwrap();
        for status in &statuses {
            let (to, way) = play(status, input);
            let cell = if to == *status { "·" } else { to };
            write!(text, " {cell} |").unwrap();
            for (hop, pair) in [&[*status], way.as_slice()].concat().windows(2).enumerate() {
                if pair[0] != pair[1] {
                    let why = ways.entry((place(pair[0]), place(pair[1]))).or_default();
                    why.extend((hop == 0).then_some(n));
                }
            }
        }
        writeln!(text).unwrap();
    }
    writeln!(text, "\n```mermaid\nstateDiagram-v2\n    [*] --> requested").unwrap();
    for ((from, to), why) in ways {
        let why: Vec<&str> = why.into_iter().take(2).map(|n| INPUTS[n].0).collect();
        let label = if why.is_empty() { String::new() } else { format!(" : {}", why.join(" / ")) };
        writeln!(text, "    {} --> {}{label}", statuses[from], statuses[to]).unwrap();
    }
    writeln!(text, "    ended --> [*]\n```").unwrap();
    text
}

#[test]
fn the_document_shows_what_happens_in_every_status() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/sessions.md");
    let page = std::fs::read_to_string(path).unwrap();
    let (_, rest) = page.split_once("<!-- played -->\n").unwrap();
    let (shown, _) = rest.split_once("<!-- end of played -->").unwrap();
    let played = document();
    assert!(shown == played, "put this between the marks of docs/sessions.md:\n{played}");
}

#[test]
fn over_is_over() {
    for input in INPUTS {
        assert_eq!(play("ended", input).0, "ended", "{}", input.0);
    }
}
