//! Playlists: videos one after the other, on demand or as if they were live.

use super::macros::{body, object};

object! {
    /// A playlist as the platform shows it. The published schema has an `id` in one answer only.
    #[derive(Default)]
    Playlist "playlist" {
        /// The platform's id.
        id: id,
        /// Free text, not unique.
        name: text,
        /// Whether it can be played.
        active: flag,
        /// Not before this time.
        start_time: time,
        /// Whether it begins again at its end.
        repeats as "loop": flag,
        /// The videos in their order, at most 128.
        video_ids: ids,
        /// The caller's user id.
        client_user_id: integer,
        /// The advertisement that is put in.
        ad_id: id,
        /// The player that it uses.
        player_id: id,
        /// Whether the seconds to its start are shown.
        countdown: flag,
        /// `live` or `vod`.
        playlist_type: text,
        /// Playback by HLS.
        hls_url: text,
        /// Playback by HLS with CMAF segments.
        hls_cmaf_url: text,
        /// Player page.
        iframe_url: text,
    }
}

body! {
    /// The body that creates or changes a playlist.
    PlaylistFields {
        /// Free text.
        name: String,
        /// Whether it can be played.
        active: bool,
        /// Not before this time, RFC 3339.
        start_time: String,
        /// Whether it begins again at its end; needed to send it on.
        #[serde(rename = "loop")]
        repeats: bool,
        /// The videos in their order, at most 128.
        video_ids: Vec<i64>,
        /// The caller's user id.
        client_user_id: i64,
        /// The advertisement that is put in.
        ad_id: i64,
        /// The player that it uses.
        player_id: i64,
        /// Whether the seconds to its start are shown.
        countdown: bool,
        /// `live` or `vod`.
        playlist_type: String,
    }
}
