//! What people do in a session: the encoder connects, is lost and returns, the show goes on for
//! half an hour to an hour and a half, the product ends it.

use std::time::Duration;

use domain::announcement::Announcement;
use domain::call::CallResult;
use domain::event::Event;
use domain::ids::{Subject, session_id};
use uuid::Uuid;

use super::{History, SOURCE, Step};
use crate::generator::dice;

/// From a request to the last video, on average.
pub(super) const LENGTH: Duration = Duration::from_mins(80);

/// A session on its live stream.
#[derive(Debug, Clone)]
pub(super) struct Run {
    n: u64,
    session: Uuid,
    began: bool,
}

impl Run {
    /// The `n`th session.
    pub(super) fn of(n: u64, session: Uuid) -> Self {
        Self { n, session, began: false }
    }
}

/// Number of the session in a name that `request` gave.
fn number(name: &str) -> Option<u64> {
    name.rsplit(' ').next()?.parse().ok()
}

impl History {
    /// A live stream was made for a session.
    pub(super) fn created(&mut self, request: &Subject, result: &CallResult) {
        let CallResult::LiveStream { observed } = result else { return };
        let Some((id, n)) = observed["id"].as_i64().zip(observed["name"].as_str().and_then(number))
        else {
            return;
        };
        let session = session_id(SOURCE, &format!("session-{n}"));
        debug_assert_eq!(request, &Subject::request(SOURCE, session), "its own session's request");
        self.runs.insert(id, Run::of(n, session));
    }

    /// The encoder is let in: it connects within two minutes.
    pub(super) fn activated(&mut self, stream: i64) {
        let Some(run) = self.runs.get(&stream) else { return };
        let wait = dice::time("connect", run.n, 20..120);
        self.after(wait, Step::Encoder { stream, sends: true });
    }

    /// The encoder begins or ceases to send. What it sends no more closes the file.
    pub(super) fn encoder(&mut self, stream: i64, sends: bool) {
        if self.platform.stream(stream).live == sends {
            return;
        }
        self.platform.set_live(stream, sends, self.now);
        let video = if sends { None } else { self.platform.close_file(stream, self.now) };
        self.webhook(&self.platform.stream_webhook(stream));
        self.process(video);
        if sends && let Some(run) = self.runs.get_mut(&stream).filter(|run| !run.began) {
            run.began = true;
            let run = run.clone();
            self.begin(stream, &run);
        }
    }

    /// Plans the rest of a session whose encoder has connected.
    fn begin(&mut self, stream: i64, run: &Run) {
        let Run { n, session, .. } = *run;
        let show = dice::time("show", n, 15..60);
        if !n.is_multiple_of(3) {
            self.after(show, Step::Command { session, command: Event::GoLiveRequested });
        }
        let length = show + dice::time("length", n, 2100..6060);
        for lost in 0..dice::draw("losses", n, 0..3) {
            let each = n * 8 + lost;
            let at = show + dice::time("loss", each, 60..1500);
            // Every second outlasts the grace period of 20 s.
            let away = if lost % 2 == 0 { 25..90 } else { 3..15 };
            let back = at + dice::time("away", each, away);
            self.after(at, Step::Encoder { stream, sends: false });
            self.after(back, Step::Encoder { stream, sends: true });
        }
        self.after(length, Step::Command { session, command: Event::EndRequested });
        let off = length + dice::time("off", n, 1..8);
        self.after(off, Step::Encoder { stream, sends: false });
    }

    /// A session is over: its live stream may be used again, its request is not heard of again.
    pub(super) fn session_ended(&mut self, event: &Event) {
        let Event::Announced(Announcement::SessionEnded(news)) = event else { return };
        self.ended += 1;
        self.states.remove(&Subject::request(SOURCE, news.session));
        if let Some(stream) = news.live_stream {
            self.runs.remove(&stream.0);
            self.free.push_back(stream.0);
        }
    }
}
