//! Restreams: a live stream that is sent on to another service; one per account unless a switch
//! says more.

use serde_json::{Value, json};

use super::accepts::Accepts;
use super::shelf::{Kind, Shelf, Start};
use super::{Reply, Request, World};

/// A restream's fields.
const KIND: Kind = Kind {
    wrapper: Some("restream"),
    fields: &[
        ("name", Accepts::Name, Start::Word("")),
        ("active", Accepts::Flag, Start::Flag(true)),
        ("uri", Accepts::Text { max: 8192 }, Start::Word("")),
        ("stream_id", Accepts::Number, Start::Null),
        ("client_user_id", Accepts::Number, Start::Null),
        ("no_audio", Accepts::Flag, Start::Flag(false)),
        ("no_audio_mode", Accepts::Word(&["drop", "silence"]), Start::Word("drop")),
        ("source", Accepts::Word(&["original", "transcoded"]), Start::Word("original")),
    ],
    required: &["name", "uri", "stream_id"],
};

/// An empty shelf of restreams.
pub(super) fn shelf() -> Shelf {
    Shelf::new(&KIND, 41_021)
}

impl World {
    /// Operations on restreams.
    pub(super) fn route_restreams(
        &mut self,
        method: &str,
        rest: &[&str],
        request: &Request,
    ) -> Reply {
        match (method, rest) {
            ("GET", []) => self.restreams.page(request, &self.behaviour),
            ("POST", []) => self.create_restream(request),
            ("GET", [id]) => self.restreams.reply(id),
            ("PATCH", [id]) => {
                let changed = self.restreams.change(id, request);
                self.restreams.outcome(changed)
            }
            ("DELETE", [id]) => self.restreams.deletion(id),
            _ => Reply::not_found(),
        }
    }

    /// Makes a restream of a stream of this account, within the quota.
    fn create_restream(&mut self, request: &Request) -> Reply {
        let stream =
            request.object().and_then(|body| body.get("restream")?.get("stream_id")?.as_i64());
        let Some(stream) = stream.and_then(|id| self.streams.get(&id)) else {
            return Reply::invalid("stream", "does not belong to the same client");
        };
        let live = stream.is_live();
        if self.restreams.all().count() >= usize::from(self.behaviour.restream_quota) {
            return Reply::invalid("base", "Restreams limit is exceeded");
        }
        let made = self.restreams.create(request, json!({"live": live}));
        self.restreams.outcome(made)
    }

    /// Lets the restreams of a stream follow it.
    pub(super) fn restreams_follow(&mut self, stream: i64, live: bool) {
        let of_stream = |row: &&serde_json::Map<String, Value>| row["stream_id"] == stream;
        let ids: Vec<i64> =
            self.restreams.all().filter(of_stream).filter_map(|row| row["id"].as_i64()).collect();
        for id in ids {
            self.restreams.set(id, "live", live.into());
            self.tell_restream(id);
        }
    }
}
