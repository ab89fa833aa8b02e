//! Which operation a method and path name, and who may call it.
//!
//! Names in the comments are the `operationId`s of the published API description.

use serde_json::{Map, Value};

use super::{Reply, Request, World};

impl World {
    /// Answers a request: login and refresh are open, everything else needs credentials.
    pub(super) fn route(&mut self, request: &Request) -> Reply {
        let segments = request.segments();
        match (request.method.as_str(), segments.as_slice()) {
            ("POST", ["iam", "auth", "jwt", "login"]) => self.login(request),
            ("POST", ["iam", "auth", "jwt", "refresh"]) => self.refresh(request),
            (method, ["iam" | "streaming", ..]) => match self.authenticate(request) {
                Err(refusal) => refusal,
                Ok(()) => self.route_known_caller(method, &segments, request),
            },
            _ => Reply::not_found(),
        }
    }

    /// Chooses among the operations that need credentials, by the first words of the path.
    fn route_known_caller(&mut self, method: &str, segments: &[&str], request: &Request) -> Reply {
        match (method, segments) {
            ("GET", ["iam", "clients", "me"]) => self.account_details(),
            (_, ["streaming", "streams", rest @ ..]) => self.route_streams(method, rest, request),
            (_, ["streaming", "broadcasts", rest @ ..]) => {
                self.route_broadcasts(method, rest, request)
            }
            (_, ["streaming", "videos", rest @ ..]) => self.route_videos(method, rest, request),
            (_, ["streaming", rest @ ..]) => self.route_others(method, rest, request),
            _ => Reply::not_found(),
        }
    }

    /// Operations that no session needs.
    fn route_others(&mut self, method: &str, segments: &[&str], request: &Request) -> Reply {
        match (method, segments) {
            (_, ["restreams", rest @ ..]) => self.route_restreams(method, rest, request),
            (_, ["playlists", rest @ ..]) => self.route_playlists(method, rest, request),
            (_, ["directories", rest @ ..]) => self.route_directories(method, rest, request),
            (_, ["players", rest @ ..]) => self.route_players(method, rest, request),
            (_, ["ai", rest @ ..]) => self.route_ai(method, rest, request),
            ("GET", ["quality_sets"]) => self.quality_sets(),
            ("PUT", ["quality_sets", "default"]) => self.set_default_quality_sets(request),
            ("GET", ["statistics", rest @ ..]) => self.route_statistics(rest, request),
            _ => Reply::not_found(),
        }
    }

    /// Operations on streams.
    fn route_streams(&mut self, method: &str, rest: &[&str], request: &Request) -> Reply {
        match (method, rest) {
            ("GET", []) => self.list_streams(request),   // get_streams
            ("POST", []) => self.create_stream(request), // post_streams_id
            (_, [id, rest @ ..]) => match self.known_stream(id) {
                None => Reply::not_found(),
                Some(id) => self.route_one_stream(method, id, rest, request),
            },
            _ => Reply::not_found(),
        }
    }

    /// Operations on one existing stream.
    fn route_one_stream(
        &mut self,
        method: &str,
        id: i64,
        rest: &[&str],
        request: &Request,
    ) -> Reply {
        match (method, rest) {
            ("GET", []) => self.get_stream(id),              // get_streams_id
            ("PATCH", []) => self.patch_stream(id, request), // patch_streams_id
            ("DELETE", []) => self.delete_stream(id),        // delete_streams_id
            ("PUT", ["start_recording"]) => self.start_recording(id), // put_streams_id_start_recording
            ("PUT", ["stop_recording"]) => self.stop_recording(id), // put_streams_id_stop_recording
            ("PUT", ["dvr_cleanup"]) => Reply::empty(204),          // put_streams_id_dvr_cleanup
            ("PUT", ["clip_recording"]) => self.create_clip(id, request), // put_streams_id_clip_recording
            ("GET", ["clip_recording"]) => self.list_clips(id), // get_streams_id_clip_recording
            (_, ["overlays", rest @ ..]) => self.route_overlays(method, id, rest, request),
            ("POST", ["reset_push_token"]) => self.reset_push_token(id), // post_streams_id_reset_push_token
            _ => Reply::not_found(),
        }
    }

    /// Operations on broadcasts.
    fn route_broadcasts(&mut self, method: &str, rest: &[&str], request: &Request) -> Reply {
        match (method, rest) {
            ("GET", []) => self.list_broadcasts(request),
            ("POST", []) => self.create_broadcast(request),
            ("GET", [id]) => self.get_broadcast(id),
            ("PATCH", [id]) => self.patch_broadcast(id, request),
            ("DELETE", [id]) => self.delete_broadcast(id),
            ("GET", [id, "spectators"]) => self.spectators(id),
            _ => Reply::not_found(),
        }
    }

    /// Operations on videos.
    fn route_videos(&mut self, method: &str, rest: &[&str], request: &Request) -> Reply {
        match (method, rest) {
            ("GET", []) => self.list_videos(request),
            ("POST", []) => self.create_video(request),
            ("POST", ["batch"]) => self.create_videos(request),
            ("GET", ["names"]) => self.video_names(request),
            ("PATCH", [id]) => self.patch_video(id, request),
            ("GET", [id, "upload"]) => self.upload_parameters(id),
            (_, [id, "subtitles", rest @ ..]) => self.route_subtitles(method, id, rest, request),
            ("GET", [id]) => self.get_video(id),
            ("DELETE", [id]) => self.delete_video(id),
            _ => Reply::not_found(),
        }
    }

    /// Returns the id of an existing stream from its text.
    fn known_stream(&self, id: &str) -> Option<i64> {
        id.parse().ok().filter(|id| self.streams.contains_key(id))
    }
}

/// Takes the fields out of `{"<entity>":{..}}`; `None` if the wrapping is missing.
pub(super) fn unwrapped(mut body: Map<String, Value>, entity: &str) -> Option<Map<String, Value>> {
    match body.remove(entity) {
        Some(Value::Object(fields)) => Some(fields),
        _ => None,
    }
}
