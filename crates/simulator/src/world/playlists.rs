//! Playlists: videos one after the other.

use serde_json::{Value, json};

use super::accepts::Accepts;
use super::shelf::{Kind, Shelf, Start};
use super::{CLIENT_ID, Reply, Request, World};

/// A playlist's fields.
const KIND: Kind = Kind {
    wrapper: None,
    fields: &[
        ("name", Accepts::Text { max: 255 }, Start::Word("")),
        ("active", Accepts::Flag, Start::Flag(true)),
        ("start_time", Accepts::Text { max: 64 }, Start::Null),
        ("loop", Accepts::Flag, Start::Flag(false)),
        ("video_ids", Accepts::Numbers, Start::Empty),
        ("client_user_id", Accepts::Number, Start::Null),
        ("ad_id", Accepts::Number, Start::Null),
        ("player_id", Accepts::Number, Start::Null),
        ("countdown", Accepts::Flag, Start::Flag(false)),
        ("playlist_type", Accepts::Word(&["live", "vod"]), Start::Word("live")),
    ],
    required: &[],
};

/// Most videos of a playlist.
const MOST_VIDEOS: usize = 128;

/// An empty shelf of playlists.
pub(super) fn shelf() -> Shelf {
    Shelf::new(&KIND, 9001)
}

impl World {
    /// Operations on playlists.
    pub(super) fn route_playlists(
        &mut self,
        method: &str,
        rest: &[&str],
        request: &Request,
    ) -> Reply {
        if too_long(request) {
            return Reply::invalid("video_ids", "is too long");
        }
        match (method, rest) {
            ("GET", []) => self.playlists.page(request, &self.behaviour),
            ("POST", []) => {
                let made = self.playlists.create(request, addresses(CLIENT_ID));
                self.playlists.outcome(made)
            }
            ("GET", [id]) => self.playlists.reply(id),
            ("GET", [id, "videos"]) => self.playlist_videos(id),
            ("PATCH", [id]) => {
                let changed = self.playlists.change(id, request);
                self.playlists.outcome(changed)
            }
            ("DELETE", [id]) => self.playlists.deletion(id),
            _ => Reply::not_found(),
        }
    }

    /// The videos of a playlist in their order; those that are gone are left out.
    fn playlist_videos(&self, id: &str) -> Reply {
        let Some(row) = self.playlists.get(id) else { return Reply::not_found() };
        let ids = row["video_ids"].as_array().into_iter().flatten().filter_map(Value::as_i64);
        Reply::ok(ids.filter_map(|id| self.videos.get(&id)).map(super::Video::view).collect())
    }
}

/// Whether a body names too many videos.
fn too_long(request: &Request) -> bool {
    let body = request.object().unwrap_or_default();
    body.get("video_ids").and_then(Value::as_array).is_some_and(|ids| ids.len() > MOST_VIDEOS)
}

/// What the platform adds to a playlist.
fn addresses(client: i64) -> Value {
    let base = format!("https://demo.gvideo.example/playlists/{client}");
    json!({
        "client_id": client,
        "hls_url": format!("{base}/master.m3u8"),
        "hls_cmaf_url": format!("{base}/master-cmaf.m3u8"),
        "iframe_url": format!("https://player.gvideo.example/playlists/{client}"),
    })
}
