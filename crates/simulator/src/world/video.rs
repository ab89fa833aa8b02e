//! A video: one recorded file on its way from `pending` to `ready`, and its renditions.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Map, Value, json};

use super::truth::Origin;
use super::{CLIENT_ID, World, timestamp, uploads};

/// How far a video or one of its renditions has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum VideoStatus {
    /// There is no file yet.
    Empty,
    /// Queued or being transcoded; not playable.
    Pending,
    /// At least one rendition is complete.
    Viewable,
    /// All renditions are complete.
    Ready,
    /// No rendition will be.
    Error,
}

impl VideoStatus {
    /// The platform's word.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Pending => "pending",
            Self::Viewable => "viewable",
            Self::Ready => "ready",
            Self::Error => "error",
        }
    }
}

/// How far one rendition has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RenditionStatus {
    /// Being made.
    Processing,
    /// Can be played.
    Complete,
    /// Will not be made.
    Error,
}

impl RenditionStatus {
    /// The platform's word.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Processing => "processing",
            Self::Complete => "complete",
            Self::Error => "error",
        }
    }
}

/// Name, width and height of the renditions, in the order in which they end.
pub(super) const LADDER: [(&str, u32, u32); 4] =
    [("vod720n", 1280, 720), ("vod480n", 854, 480), ("vod360n", 640, 360), ("vod240n", 426, 240)];

/// One quality of a video.
#[derive(Clone, Debug)]
pub(super) struct Rendition {
    pub(super) id: i64,
    pub(super) name: &'static str,
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) status: RenditionStatus,
}

/// One video.
#[derive(Clone, Debug)]
pub(super) struct Video {
    pub(super) id: i64,
    pub(super) slug: String,
    /// What a body sets.
    pub(super) fields: Map<String, Value>,
    /// The stream that it was recorded from.
    pub(super) stream_id: Option<i64>,
    pub(super) record_type: Value,
    pub(super) duration: TimeDelta,
    pub(super) recording_started_at: Option<DateTime<Utc>>,
    pub(super) created_at: DateTime<Utc>,
    pub(super) updated_at: DateTime<Utc>,
    pub(super) status: VideoStatus,
    pub(super) error: Option<&'static str>,
    /// Empty until transcoding has begun.
    pub(super) renditions: Vec<Rendition>,
}

impl Video {
    /// Returns its name.
    pub(super) fn name(&self) -> &str {
        self.field("name").as_str().unwrap_or_default()
    }

    /// Returns one of the fields that a body sets.
    pub(super) fn field(&self, field: &str) -> &Value {
        self.fields.get(field).unwrap_or(&Value::Null)
    }

    /// Returns the address of a rendition's file.
    pub(super) fn mp4_url(&self, rendition: &Rendition) -> String {
        let (base, quality) = (self.base_url(), rendition.id);
        format!("{base}/qid{quality}v1_h264_{}.mp4", rendition.height)
    }

    /// Returns the folder of everything that can be played.
    fn base_url(&self) -> String {
        format!("https://demo.gvideo.example/videos/{CLIENT_ID}_{}", self.slug)
    }

    /// Returns the renditions as GET shows them: no address before there is a file.
    fn rendition_views(&self) -> Vec<Value> {
        self.renditions
            .iter()
            .map(|rendition| {
                let complete = rendition.status == RenditionStatus::Complete;
                json!({
                    "id": rendition.id,
                    "name": rendition.name,
                    "width": rendition.width,
                    "height": rendition.height,
                    "size": complete.then_some(37_651_798),
                    "progress": if complete { 100 } else { 0 },
                    "status": rendition.status.word(),
                    "error": if rendition.status == RenditionStatus::Error { self.error } else { None },
                    "mp4_url": complete.then(|| self.mp4_url(rendition)),
                })
            })
            .collect()
    }

    /// Returns the video as GET answers it. Playback addresses are null until it can be played.
    pub(super) fn view(&self) -> Value {
        let playable = matches!(self.status, VideoStatus::Viewable | VideoStatus::Ready);
        let playback = |file: &str| playable.then(|| format!("{}/{file}", self.base_url()));
        let picture = |file: &str| {
            playable.then(|| {
                format!("https://static.gvideo.example/{file}/{CLIENT_ID}/{}.jpg", self.id)
            })
        };
        let duration = self.duration.num_milliseconds();
        let mut view = json!({
            "id": self.id,
            "client_id": CLIENT_ID,
            "duration": duration,
            "slug": self.slug,
            "status": self.status.word(),
            "origin_size": 29_260_881,
            "origin_video_duration": duration,
            "origin_audio_channels": 2,
            "origin_width": 1920,
            "origin_height": 1080,
            "created_at": timestamp(self.created_at),
            "updated_at": timestamp(self.updated_at),
            "record_type": self.record_type,
            "hls_url": playback("master.m3u8"),
            "hls_cmaf_url": playback("master-cmaf.m3u8"),
            "dash_url": playback("master.mpd"),
            "poster": null,
            "poster_thumb": null,
            "screenshot": picture("screenshots"),
            "screenshots": [],
            "views": 0,
            "cdn_views": 0,
            "converted_videos": self.rendition_views(),
            "iframe_url": format!("https://player.gvideo.example/videos/{CLIENT_ID}_{}", self.slug),
            "sprite": picture("sprites"),
            "sprite_vtt": null,
            "stream_id": self.stream_id,
            "recording_started_at": self.recording_started_at.map(timestamp),
            "error": self.error,
        });
        if let Value::Object(view) = &mut view {
            view.extend(self.fields.clone());
        }
        view
    }
}

impl World {
    /// Makes the video of a closed file and starts its transcoding; returns its id.
    ///
    /// The time in its name is when the file was closed, the same as `created_at`.
    pub(super) fn add_recorded_video(
        &mut self,
        stream: i64,
        recording_started_at: DateTime<Utc>,
        duration: TimeDelta,
    ) -> i64 {
        let id = self.next_video;
        self.next_video += 1;
        let option = |field| self.streams.get(&stream).map(|stream| stream.options.value(field));
        let name = option("name").unwrap_or_default();
        let ended = self.now.format("%Y-%m-%d %H:%M:%S +0000");
        let name = format!("Stream Record: {}, {ended}", name.as_str().unwrap_or_default());
        let set = json!({"name": name, "client_user_id": option("client_user_id")});
        let set = if let Value::Object(set) = set { set } else { Map::new() };
        let video = Video {
            id,
            fields: uploads::KIND.filled(set).unwrap_or_default(),
            stream_id: Some(stream),
            record_type: option("record_type").unwrap_or_default(),
            duration,
            recording_started_at: Some(recording_started_at),
            created_at: self.now,
            updated_at: self.now,
            status: VideoStatus::Pending,
            error: None,
            renditions: Vec::new(),
            slug: self.dice.slug(),
        };
        self.videos.insert(id, video);
        self.ledger.video_made(id, stream, Origin::Recording);
        self.transcoding_is_queued(id);
        id
    }
}
