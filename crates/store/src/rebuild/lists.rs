//! Rows of a fold as JSON objects of their columns: what COPY, an upsert into either generation and
//! a comparison need alike. The live consumer writes its rows typed, in `projection.rs`; `verify`
//! holds the two together.

use domain::view::Row;
use serde_json::{Value, json};

/// Rows as JSON objects of their columns, without the slice; one list for each table.
#[derive(Default)]
pub(crate) struct Lists {
    requests: Vec<Value>,
    sessions: Vec<Value>,
    live_streams: Vec<Value>,
    videos: Vec<Value>,
    accounts: Vec<Value>,
}

impl Lists {
    /// The lists with the names of their tables.
    pub(crate) fn into_lists(self) -> [(&'static str, Vec<Value>); 5] {
        [
            ("session_request", self.requests),
            ("session", self.sessions),
            ("live_stream", self.live_streams),
            ("video", self.videos),
            ("account", self.accounts),
        ]
    }

    /// Adds a row that follows from the event at `position`.
    pub(crate) fn add(&mut self, row: &Row, position: i64) {
        match row {
            Row::Request(r) => self.requests.push(json!({
                "session_id": r.session, "source": r.source, "account": r.account, "name": r.name,
                "status": r.status, "failure": r.failure, "live_stream_id": r.live_stream,
                "requested_at": r.requested_at, "position": position,
            })),
            Row::Session(r) => self.sessions.push(json!({
                "session_id": r.session, "source": r.source, "account": r.account,
                "live_stream_id": r.live_stream, "status": r.status, "status_at": r.status_at,
                "detail": r.detail, "position": position,
            })),
            Row::LiveStream(r) => self.live_streams.push(json!({
                "source": r.source, "live_stream_id": r.id, "account": r.account,
                "installation": r.installation, "active": r.active, "live": r.live,
                "idle_since": r.idle_since, "deleted": r.deleted, "hls_url": r.hls_url,
                "dash_url": r.dash_url, "iframe_url": r.iframe_url, "position": position,
            })),
            Row::Video(r) => self.videos.push(json!({
                "source": r.source, "video_id": r.id, "live_stream_id": r.live_stream,
                "status": r.status, "duration_ms": r.duration_ms, "position": position,
            })),
            Row::Account(r) => self.accounts.push(json!({
                "source": r.source, "account": r.id, "deleted_at": r.deleted_at,
                "position": position,
            })),
        }
    }
}
