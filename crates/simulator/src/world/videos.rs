//! The operations on videos: list with filters, names, get, delete.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::video::Video;
use super::{Reply, Request, World};

impl World {
    /// A page of the videos that pass all filters, newest first.
    pub(super) fn list_videos(&mut self, request: &Request) -> Reply {
        let count = self.videos.values().filter(|video| passes(video, request)).count();
        let range = self.page_range(request, true, count);
        let found: Vec<&Video> =
            self.videos.values().rev().filter(|video| passes(video, request)).collect();
        let fields = request.query("fields");
        Reply::ok(found[range].iter().map(|video| trimmed(video.view(), fields)).collect())
    }

    /// Id and name of the named videos.
    pub(super) fn video_names(&self, request: &Request) -> Reply {
        let ids = id_list(request.query("ids").unwrap_or_default());
        let named = self.videos.values().filter(|video| ids.contains(&video.id));
        Reply::ok(named.map(|video| json!({"id": video.id, "name": video.name()})).collect())
    }

    /// One video.
    pub(super) fn get_video(&self, id: &str) -> Reply {
        match id.parse().ok().and_then(|id: i64| self.videos.get(&id)) {
            Some(video) => Reply::ok(video.view()),
            None => Reply::not_found(),
        }
    }

    /// Deletes a video for good and tells it.
    pub(super) fn delete_video(&mut self, id: &str) -> Reply {
        match id.parse().ok().and_then(|id: i64| self.videos.remove(&id)) {
            Some(video) => {
                self.subtitles.retain(|row| row["video_id"] != video.id);
                self.ledger.video_deleted(self.now, &video);
                self.tell_video_deleted(&video);
                Reply::empty(204)
            }
            None => Reply::not_found(),
        }
    }
}

/// True if a video passes every filter of the request.
fn passes(video: &Video, request: &Request) -> bool {
    let all = |key: &str, test: &dyn Fn(&str) -> bool| request.query(key).is_none_or(test);
    all("id", &|ids| id_list(ids).contains(&video.id))
        && all("stream_id", &|id| id.parse().ok() == video.stream_id && video.stream_id.is_some())
        && all("status", &|status| status == video.status.word())
        && all("client_user_id", &|id| {
            video.field("client_user_id").as_i64().is_some_and(|user| id.parse() == Ok(user))
        })
        && all("search", &|text| {
            text == video.slug || text.parse() == Ok(video.id) || video.name().contains(text)
        })
}

/// Reads a comma-separated list of ids; what is no number is left out.
fn id_list(text: &str) -> BTreeSet<i64> {
    text.split(',').filter_map(|id| id.trim().parse().ok()).collect()
}

/// Keeps only the fields asked for.
fn trimmed(mut view: Value, fields: Option<&str>) -> Value {
    if let (Some(fields), Value::Object(view)) = (fields, &mut view) {
        let wanted: BTreeSet<&str> = fields.split(',').map(str::trim).collect();
        view.retain(|field, _| wanted.contains(field.as_str()));
    }
    view
}
