//! Draws a story from a seed: a platform, sessions with their encoders, and what goes wrong
//! meanwhile, by two tables.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// What goes wrong: its name in docs/simulator.md, its weight, and its line.
type Fault = (&'static str, u32, fn(&mut Draw) -> String);

/// Everything that may go wrong.
pub(super) const FAULTS: [Fault; 23] = [
    ("all webhooks are lost", 3, |_| "network loses all webhooks".to_owned()),
    ("webhooks of a type are lost", 2, |draw| {
        format!("network loses {} webhooks", draw.one(&["stream", "video", "video_delete"]))
    }),
    ("webhooks are repeated", 2, |_| "network repeats all webhooks".to_owned()),
    ("webhooks are late and overtake each other", 3, |_| "network delays all webhooks".to_owned()),
    ("the network is well again", 4, |_| "network is well".to_owned()),
    ("a reply is lost after the effect", 5, |draw| {
        format!("network loses the reply to {}", draw.request())
    }),
    ("a request fails before the effect", 5, |draw| {
        let request = draw.request();
        format!("network answers {request} with {}", draw.one(&["408", "429", "500", "502", "503"]))
    }),
    ("a request is refused", 2, |draw| {
        let request = draw.request();
        format!("network answers {request} with {}", draw.one(&["400", "403", "404", "422"]))
    }),
    ("a worker dies", 3, |_| "worker dies".to_owned()),
    ("a worker dies before a request arrives", 3, |draw| {
        format!("worker dies before {}", draw.request())
    }),
    ("a worker dies after an effect", 4, |draw| format!("worker dies after {}", draw.request())),
    ("the platform restarts", 1, |_| "platform restarts".to_owned()),
    ("the platform switches a live stream off", 1, |draw| draw.of("platform switches_off")),
    ("the storage is full", 1, |_| "platform runs_full".to_owned()),
    ("somebody deletes a live stream", 1, |draw| draw.of("portal deletes_stream")),
    ("somebody switches a live stream off", 1, |draw| draw.of("portal deactivates")),
    ("somebody stops a recording", 1, |draw| draw.of("portal stops_recording")),
    ("somebody starts a recording", 1, |draw| draw.of("portal starts_recording")),
    ("somebody deletes a video", 1, |draw| draw.of("portal deletes_video")),
    ("somebody renames a live stream", 1, |draw| draw.of("portal renames_stream")),
    ("somebody sets a broadcast to paused", 1, |draw| draw.of("portal pauses_broadcast")),
    ("somebody deletes a broadcast", 1, |draw| draw.of("portal deletes_broadcast")),
    ("somebody takes a slot", 1, |_| "portal takes_slot".to_owned()),
];

/// How the platform may be otherwise: a switch of `simulator::Behaviour`, and its values.
pub(super) const PLATFORMS: [(&str, &[&str]); 23] = [
    ("quota_breach", &["stays_inactive", "varied"]),
    ("create_body", &["flat", "wrapped"]),
    ("patch_needs_name", &["true"]),
    ("create_broadcast_answers_body", &["false"]),
    ("start_recording", &["warning", "errors", "no_space"]),
    ("nothing_recorded", &["null", "empty_object", "no_content"]),
    ("recording_hold_s", &["0", "60", "null"]),
    ("recording_resumes", &["false"]),
    ("deactivation", &["at_once", "never_until_stop"]),
    ("minimum_fragment_s", &["0", "30"]),
    ("cut_after_s", &["60"]),
    ("recording_in_get", &["absent", "null"]),
    ("encoding", &["rendition_fails", "fails", "varied"]),
    ("viewable", &["per_rendition", "skipped"]),
    ("legacy_stream_webhooks", &["true"]),
    ("legacy_video_webhooks", &["true"]),
    ("user_id_form", &["text", "null"]),
    ("source_type", &["srt", "webrtc"]),
    ("clip_video", &["of_stream"]),
    ("delete_guard", &["refuse"]),
    ("page_size", &["1", "2"]),
    ("short_pages", &["true"]),
    ("pages_shift_by", &["1"]),
];

/// The requests that fail.
const REQUESTS: [&str; 12] = [
    "POST /streaming/streams",
    "PATCH /streaming/streams/*",
    "POST /streaming/broadcasts",
    "PATCH /streaming/broadcasts/*",
    "DELETE /streaming/broadcasts/*",
    "PUT /streaming/streams/*/start_recording",
    "PUT /streaming/streams/*/stop_recording",
    "GET /streaming/streams/*",
    "GET /streaming/streams",
    "GET /streaming/videos",
    "GET /streaming/videos/*",
    "* /**",
];

/// Names of sessions.
const NAMES: [&str; 4] = ["A", "B", "C", "D"];

/// A story in the making.
pub(super) struct Draw {
    rng: StdRng,
    /// Lines, each with when it happens, in seconds.
    lines: Vec<(u32, String)>,
    names: Vec<&'static str>,
}

/// Draws the story of a seed, a line a step.
pub(super) fn story(seed: u64) -> Vec<String> {
    let mut draw = Draw { rng: StdRng::seed_from_u64(seed), lines: Vec::new(), names: Vec::new() };
    let count = draw.rng.random_range(1..=NAMES.len());
    let mut length = 0;
    for name in &NAMES[..count] {
        length = length.max(draw.session(name));
        draw.names.push(name);
    }
    let faults = draw.rng.random_range(0..8);
    for _ in 0..faults {
        let at = draw.rng.random_range(0..length);
        let line = draw.fault();
        draw.lines.push((at, line));
    }
    let mut told = draw.given();
    // Those of one second stay as they were drawn.
    draw.lines.sort_by_key(|(at, _)| *at);
    let mut now = 0;
    for (at, line) in draw.lines {
        told.push(if at > now { format!("+{} {line}", at - now) } else { line });
        now = at;
    }
    told
}

impl Draw {
    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.rng.random_range(0..of.len())]
    }

    fn request(&mut self) -> &'static str {
        self.one(&REQUESTS)
    }

    /// A line about some session.
    fn of(&mut self, what: &str) -> String {
        let names = self.names.clone();
        format!("{what} of {}", self.one(&names))
    }

    fn fault(&mut self) -> String {
        let all: u32 = FAULTS.iter().map(|(_, weight, _)| weight).sum();
        let mut dice = self.rng.random_range(0..all);
        for (_, weight, line) in FAULTS {
            if dice < weight {
                return line(self);
            }
            dice -= weight;
        }
        FAULTS[0].2(self)
    }

    /// What is given of the platform.
    fn given(&mut self) -> Vec<String> {
        let mut given = Vec::new();
        if self.rng.random_ratio(1, 2) {
            given.push(format!("given quota {}", self.rng.random_range(1..4)));
        }
        if self.rng.random_ratio(1, 4) {
            given.push(format!("given lag {}", self.rng.random_range(2..12)));
        }
        // Half of the platforms are as the documents have them.
        if self.rng.random_ratio(1, 2) {
            for (switch, values) in PLATFORMS {
                if self.rng.random_ratio(1, 8) {
                    given.push(format!("given {switch} {}", self.one(values)));
                }
            }
        }
        given
    }

    /// The life of a session. Returns when it is over, in seconds.
    fn session(&mut self, name: &'static str) -> u32 {
        let mut at = self.rng.random_range(0..90);
        let reuses = !self.names.is_empty() && self.rng.random_ratio(1, 4);
        let on = if reuses {
            let names = self.names.clone();
            at += 60;
            format!(" on the live stream of {}", self.one(&names))
        } else {
            String::new()
        };
        self.lines.push((at, format!("product asks for {name}{on}")));
        at += self.rng.random_range(3..40);
        self.lines.push((at, format!("encoder of {name} connects")));
        let has_backup = self.rng.random_ratio(1, 6);
        if has_backup {
            self.lines.push((at + 2, format!("backup of {name} connects")));
        }
        for _ in 0..self.rng.random_range(0..3) {
            at += self.rng.random_range(5..120);
            self.lines.push((at, format!("encoder of {name} drops")));
            let is_short = self.rng.random_ratio(1, 2);
            at +=
                if is_short { self.rng.random_range(1..12) } else { self.rng.random_range(15..90) };
            self.lines.push((at, format!("encoder of {name} returns")));
        }
        at += self.rng.random_range(10..120);
        match self.rng.random_range(0..4) {
            0 => self.lines.push((at, format!("encoder of {name} stops"))),
            1 => self.lines.push((at, format!("encoder of {name} drops"))),
            _ => {}
        }
        at += self.rng.random_range(0..40);
        self.lines.push((at, format!("product ends {name}")));
        at + 20
    }
}
