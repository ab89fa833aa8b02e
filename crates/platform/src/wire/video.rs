//! The video object: one file of a recording (or an upload) and its renditions.

use secrecy::SecretString;

use super::{
    SubtitleFields,
    macros::{body, object},
    secret,
};

object! {
    /// A video as the platform shows it.
    ///
    /// `viewable` may be its last status (a rendition failed), and a failed upload stays `empty` with
    /// `error` set. `updated_at` only grows and orders the answers of GET; webhooks lack it.
    Video "video" {
        /// The platform's id.
        id: key,
        /// For recordings `Stream Record: {stream's name}, {end}`.
        name: text,
        /// Part of the playback addresses.
        slug: text,
        /// `empty`, `pending`, `viewable`, `ready`, `error`, or whatever the platform says.
        status: text,
        /// Why processing failed; may be set at any status.
        error: note,
        /// Length in milliseconds (`duration` on the wire).
        duration_ms as "duration": whole,
        /// The live stream that it was recorded from. The stream may be gone already.
        stream_id: id,
        /// When its recording began.
        recording_started_at: time,
        /// When the object was made.
        created_at: time,
        /// When the object last changed.
        updated_at: time,
        /// The caller's user id.
        client_user_id: integer,
        /// The renditions, often lower qualities first.
        converted_videos: objects(Rendition),
        /// Playback by HLS.
        hls_url: text,
        /// Playback by HLS with CMAF segments.
        hls_cmaf_url: text,
        /// Playback by DASH.
        dash_url: text,
        /// Player page.
        iframe_url: text,
    }
    unobserved {
        /// Further text, not shown to viewers.
        description: text,
        /// `origin` or `transcoded`; `None` if it was uploaded.
        record_type: text,
        /// Size of the original file, bytes.
        origin_size: whole,
        /// Length of the original file, milliseconds.
        origin_duration_ms as "origin_video_duration": whole,
        /// Where the original file was fetched from. It may be signed.
        origin_url: secret,
        /// The folder that it is in.
        directory_id: id,
        /// The set of renditions that it is transcoded to.
        quality_set_id: id,
        /// Its place in the queue, -10 to 10.
        priority: integer,
        /// How often it was played in the platform's player.
        views: whole,
        /// How often it was played, by the CDN's count.
        cdn_views: whole,
        /// A picture of it.
        screenshot: text,
        /// Pictures to choose from.
        screenshots: texts,
        /// The poster.
        poster: text,
        /// All thumbnails in one picture.
        sprite: text,
        /// Which thumbnail is when, as WebVTT.
        sprite_vtt: text,
        /// `regular` or one of the forms of 360 degrees.
        projection: text,
    }
}

object! {
    /// One transcoded form of a video.
    #[derive(Default, PartialEq)]
    Rendition "rendition" {
        /// The quality, e.g. `vod720p`.
        name: text,
        /// `processing`, `complete`, `error`, or whatever the platform says.
        status: text,
        /// Why it failed.
        error: note,
        /// Download address.
        mp4_url: text,
    }
    unobserved {
        /// Percent done, 0 to 100.
        progress: whole,
        /// Height in pixels.
        height: whole,
        /// Width in pixels.
        width: whole,
        /// Size in bytes.
        size: whole,
    }
}

object! {
    /// Where the file of a video is uploaded to, by the protocol tus. The token works for 4 hours.
    Upload "upload" {
        /// The servers to choose from.
        servers: objects(UploadServer),
        /// The video that it becomes.
        video: object(Video),
    }
    unobserved {
        /// What permits it.
        token: secret,
    }
}

object! {
    /// A server that takes files.
    UploadServer "server" {
        /// The platform's id.
        id: id,
        /// Its name.
        hostname: text,
    }
}

object! {
    /// A video's name.
    VideoName "name of a video" {
        /// The platform's id.
        id: key,
        /// Free text, not unique.
        name: text,
    }
}

body! {
    /// The body that creates or changes a video. Without `origin_url` it waits for an upload.
    VideoFields {
        /// Free text. There is no opaque field for a tag, so what finds the video after a lost
        /// answer has to be part of the name.
        name: String,
        /// Further text, not shown to viewers.
        description: String,
        /// Where the platform fetches the file. It may be signed.
        #[serde(with = "secret")]
        origin_url: SecretString,
        /// The header `Authorization` that it fetches with, name and value.
        #[serde(with = "secret")]
        origin_http_headers: SecretString,
        /// Its place in the queue, -10 to 10.
        priority: i64,
        /// The set of renditions to transcode to.
        quality_set_id: i64,
        /// Where it begins in the file, seconds.
        clip_start_seconds: u32,
        /// Its length, seconds.
        clip_duration_seconds: u32,
        /// Whether renditions stay below the bitrate of the file.
        source_bitrate_limit: bool,
        /// The folder that it is in.
        directory_id: i64,
        /// The poster, a picture as a data address.
        poster: String,
        /// The poster's address.
        remote_poster_url: String,
        /// Takes the poster away.
        remove_poster: bool,
        /// The screenshot that is shown.
        screenshot_id: i64,
        /// The caller's user id.
        client_user_id: i64,
        /// Has subtitles written: `disable`, `auto` or the language that is spoken.
        auto_transcribe_audio_language: String,
        /// Has them translated: `disable`, `default` or languages with commas between.
        auto_translate_subtitles_language: String,
        /// `regular` or one of the forms of 360 degrees.
        projection: String,
        /// Address for sharing.
        share_url: String,
        /// Player page of the customer.
        custom_iframe_url: String,
        /// Subtitles, where many videos are created at once.
        subtitles: Vec<SubtitleFields>,
    }
}
