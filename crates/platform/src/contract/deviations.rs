//! What the client and the simulator do otherwise than the platform's file, each with its reason.
//!
//! `docs/platform.md` has the same as a table.

/// One kind of deviation of one object.
pub(super) struct Deviation {
    /// Side and object, or the answer that it is about.
    pub(super) of: &'static str,
    /// The fields; none where it is about the whole.
    pub(super) fields: &'static [&'static str],
    /// What is found.
    pub(super) problem: &'static str,
    /// Why it is so.
    pub(super) reason: &'static str,
}

impl Deviation {
    /// The findings that it allows, word for word.
    pub(super) fn findings(&self) -> Vec<String> {
        if self.fields.is_empty() {
            return vec![format!("{}: {}", self.of, self.problem)];
        }
        let of_field = |field: &&str| format!("{}.{field}: {}", self.of, self.problem);
        self.fields.iter().map(of_field).collect()
    }
}

const ABSENT: &str = "not in the file";
const REQUIRED: &str = "required and absent";

/// The list.
#[rustfmt::skip]
pub(super) const DEVIATIONS: &[Deviation] = &[
    Deviation { of: "request: createStream", fields: &["name"], problem: REQUIRED,
        reason: "a PATCH sends what changes: the documentation's own example sends `active` alone" },
    Deviation { of: "request: createBroadcast", fields: &["name"], problem: REQUIRED,
        reason: "a PATCH sends what changes, as the tutorial does" },
    Deviation { of: "request: createStream", fields: &["transcoding_region"], problem: ABSENT,
        reason: "the tutorial sends it; for accounts that may choose their region" },
    Deviation { of: "request: createRestream", fields: &["no_audio", "no_audio_mode", "source"], problem: ABSENT,
        reason: "the platform's own library sends them" },

    Deviation { of: "answer: stream", fields: &["recording"], problem: ABSENT,
        reason: "the description of start_recording relies on it, and real answers had it" },
    Deviation { of: "answer: stream", fields: &["broadcasts"], problem: ABSENT,
        reason: "what `with_broadcasts=1` is for" },
    Deviation { of: "answer of stop_recording 200", fields: &[], problem: "no body",
        reason: "the description says that nothing recorded is an empty answer" },
    Deviation { of: "answer of create_broadcast 200", fields: &[], problem: "the file has no body",
        reason: "the tutorial shows the broadcast; the client lives without" },
    Deviation { of: "answer of create_restream 200", fields: &[], problem: "the file has no body",
        reason: "the platform's own library reads a restream; the client lives without" },
    Deviation { of: "answer of create_player 200", fields: &[], problem: "the file has no body",
        reason: "by analogy with the others; the client lives without" },
    Deviation { of: "answer of name_videos 200", fields: &[], problem: "the file has no body",
        reason: "the description says that names are answered" },
    Deviation { of: "answer: broadcast",
        fields: &["id", "client_id", "client_user_id", "custom_messages", "iframe_embed_code", "iframe_url", "poster_thumb"],
        problem: ABSENT, reason: "the tutorial shows `id`, the platform's own library reads the rest" },
    Deviation { of: "answer: createBroadcast", fields: &["ad_id", "player_id"], problem: "is not integer",
        reason: "null where there is none" },
    Deviation { of: "answer: createBroadcast", fields: &["poster"], problem: "is not string",
        reason: "null where there is none" },
    Deviation { of: "answer: restream", fields: &["id", "no_audio", "no_audio_mode", "source"], problem: ABSENT,
        reason: "webhooks have `id`, the platform's own library reads the rest" },
    Deviation { of: "answer: playlist", fields: &["id"], problem: ABSENT,
        reason: "the answer to creating one has it, and nothing could be done without" },
    Deviation { of: "answer: playlist", fields: &["ad_id", "player_id"], problem: "is not integer",
        reason: "null where there is none" },
    Deviation { of: "answer: subtitlePatched", fields: &["id"], problem: ABSENT,
        reason: "the same object as in the other answers" },
    Deviation { of: "answer: directories_tree",
        fields: &["created_at", "descendants", "id", "items_count", "name", "parent_id", "updated_at"],
        problem: ABSENT, reason: "the schema nests a tree in a tree; its example nests directories" },
    Deviation { of: "answer: directory.directory.items[]",
        fields: &["clip_duration_seconds", "clip_start_seconds", "iframe_url", "origin_audio_channels",
            "origin_height", "origin_width", "sprite", "sprite_vtt"],
        problem: ABSENT, reason: "a video is the whole video" },
    Deviation { of: "answer: directory.directory.items[]", fields: &[], problem: "fits 0 of the forms",
        reason: "the same, and null where the schema of a video knows no null" },
    Deviation { of: "answer: videoListItem",
        fields: &["converted_videos[].mp4_url", "dash_url", "description", "error", "hls_cmaf_url", "hls_url",
            "recording_started_at", "screenshot"],
        problem: "is not string", reason: "null until there is something to tell, as in the file's own example" },
    Deviation { of: "answer: videoListItem", fields: &["stream_id"], problem: "is not integer",
        reason: "null for a video that is no recording" },
    Deviation { of: "answer: videoListItem",
        fields: &["clip_duration_seconds", "clip_start_seconds", "iframe_url", "origin_audio_channels",
            "origin_height", "origin_width", "sprite", "sprite_vtt"],
        problem: ABSENT, reason: "a row of the list is the whole video" },
    Deviation { of: "answer: videoDetails",
        fields: &["clip_duration_seconds", "clip_start_seconds", "origin_audio_channels", "origin_height", "origin_width"],
        problem: ABSENT, reason: "the file's own example has them" },
    Deviation { of: "answer: video",
        fields: &["cdn_views", "client_id", "converted_videos", "created_at", "dash_url", "duration", "error",
            "hls_cmaf_url", "hls_url", "id", "iframe_url", "origin_audio_channels", "origin_height",
            "origin_size", "origin_video_duration", "origin_width", "poster_thumb", "record_type",
            "recording_started_at", "screenshot", "screenshots", "slug", "sprite", "sprite_vtt", "status",
            "stream_id", "updated_at", "views"],
        problem: ABSENT, reason: "the videos of a playlist: the schema is that of a request, the example a whole video" },
    Deviation { of: "answer: max_stream[].metrics", fields: &["streams[]"], problem: "is not integer",
        reason: "pairs of time and value, as in the file's own example" },
    Deviation { of: "answer: streamstat[].metrics", fields: &["streams[]"], problem: "is not integer",
        reason: "the same" },
    Deviation { of: "answer: stream_stat[].metrics", fields: &["streams[]"], problem: "is not integer",
        reason: "the same" },
    Deviation { of: "answer: vod_stat[].metrics", fields: &["vod[]"], problem: "is not integer",
        reason: "the same" },
    Deviation { of: "answer: popular.data[]", fields: &["id"], problem: "is not string",
        reason: "a number in the file's own example; the client reads both" },
    Deviation { of: "answer 404 of streams", fields: &[], problem: ABSENT,
        reason: "the file lists no 404 here; what is gone cannot be answered otherwise" },
    Deviation { of: "answer 404 of broadcasts", fields: &[], problem: ABSENT, reason: "the same" },
    Deviation { of: "answer 404 of restreams", fields: &[], problem: ABSENT, reason: "the same" },
    Deviation { of: "answer 404 of videos", fields: &[], problem: ABSENT, reason: "the same" },
    Deviation { of: "answer 404 of playlists", fields: &[], problem: ABSENT, reason: "the same" },
    Deviation { of: "answer 404 of players", fields: &[], problem: ABSENT, reason: "the same" },
];
