//! A stream object: its switch, its two ingest lines, its recorder, and how it looks from outside.
//!
//! `active` is a *switch* that the customer (or, for an idle PULL, the platform) turns; `live` and
//! `backup_live` say that media really arrives. Either may be true without the other.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};

use super::encoder::Line;
use super::options::Options;
use super::recorder::Recorder;
use super::{CLIENT_ID, World, timestamp};
use crate::{FlagInGet, SourceType};

/// One of the two ways into a stream.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Ingest {
    /// An encoder holds a connection (PUSH), or the source answers (PULL).
    pub(super) connected: bool,
    /// The ingester shows the line as live; lags behind `connected` both ways.
    pub(super) live: bool,
    /// Counts connections, so that a late step of an earlier one is recognised.
    pub(super) connection: u64,
    /// When the line went live last.
    pub(super) started_at: Option<DateTime<Utc>>,
    /// When the line ended last; never reset.
    pub(super) finished_at: Option<DateTime<Utc>>,
}

impl Ingest {
    /// True while media really flows.
    pub(super) fn flows(&self) -> bool {
        self.connected && self.live
    }
}

/// What a stream webhook tells: live, `backup_live`, transcoding, recording. A webhook is sent when
/// it differs from what was told last.
pub(super) type Told = [bool; 4];

/// One stream object.
#[derive(Clone, Debug)]
pub(super) struct LiveStream {
    pub(super) id: i64,
    pub(super) options: Options,
    pub(super) token: String,
    pub(super) created_at: DateTime<Utc>,
    pub(super) primary: Ingest,
    pub(super) backup: Ingest,
    pub(super) transcoding: bool,
    /// Counts the runs: a run lasts while any line is live.
    pub(super) run: u64,
    /// Counts the changes of `active`.
    pub(super) switches: u64,
    /// Counts the times at which a PULL stream began to wait for its source.
    pub(super) idle: u64,
    pub(super) recorder: Recorder,
    pub(super) told: Told,
    /// What was told, and since when, for answers that lag.
    pub(super) past: Vec<(DateTime<Utc>, Told)>,
    /// When runs began and ended, for the statistics.
    pub(super) lives: Vec<(DateTime<Utc>, Option<DateTime<Utc>>)>,
}

impl LiveStream {
    /// Makes a stream that has never been live.
    pub(super) fn new(id: i64, options: Options, token: String, created_at: DateTime<Utc>) -> Self {
        Self {
            id,
            options,
            token,
            created_at,
            primary: Ingest::default(),
            backup: Ingest::default(),
            transcoding: false,
            run: 0,
            switches: 0,
            idle: 0,
            recorder: Recorder::default(),
            told: Told::default(),
            past: Vec::new(),
            lives: Vec::new(),
        }
    }

    /// True if the switch is on.
    pub(super) fn is_active(&self) -> bool {
        self.options.flag("active")
    }

    /// True if the platform fetches the source itself.
    pub(super) fn is_pull(&self) -> bool {
        self.options.flag("pull")
    }

    /// True if either line is live.
    pub(super) fn is_live(&self) -> bool {
        self.primary.live || self.backup.live
    }

    /// True if media flows on either line.
    pub(super) fn flows(&self) -> bool {
        self.primary.flows() || self.backup.flows()
    }

    /// True if a recording is open and the stream is live: what the platform calls `recording`.
    pub(super) fn is_recording(&self) -> bool {
        self.recorder.is_open() && self.is_live()
    }

    /// Returns one of the lines.
    pub(super) fn ingest(&self, line: Line) -> &Ingest {
        match line {
            Line::Primary => &self.primary,
            Line::Backup => &self.backup,
        }
    }

    /// Returns one of the lines, to change it.
    pub(super) fn ingest_mut(&mut self, line: Line) -> &mut Ingest {
        match line {
            Line::Primary => &mut self.primary,
            Line::Backup => &mut self.backup,
        }
    }

    /// Returns the state that webhooks tell.
    pub(super) fn to_tell(&self) -> Told {
        [self.primary.live, self.backup.live, self.transcoding, self.is_recording()]
    }

    /// Returns the flags as they were at a moment.
    fn flags_at(&self, moment: DateTime<Utc>) -> Told {
        let then = self.past.iter().rev().find(|(since, _)| *since <= moment);
        then.map_or_else(Told::default, |(_, told)| *told)
    }

    /// Returns the protocol of the source. Webhooks show it always, GET only while it is live.
    pub(super) fn source_type(&self, push: SourceType) -> &'static str {
        if self.is_pull() { "https" } else { source_name(push) }
    }

    /// Returns the address that a webhook shows: the source of a PULL, the push address of a PUSH.
    pub(super) fn source_uri(&self, push: SourceType) -> Value {
        if self.is_pull() {
            return self.options.value("uri");
        }
        let key = if self.backup.live && !self.primary.live { "b" } else { "" };
        self.push_address(push, key).into()
    }

    /// Writes a push address; `key` is `b` for the backup line.
    fn push_address(&self, protocol: SourceType, key: &str) -> String {
        let (id, token, region) = (self.id, &self.token, self.options.region());
        match protocol {
            SourceType::Rtmp => {
                format!("rtmp://vp-push-{region}.gvideo.example/in/{id}{key}?{token}")
            }
            SourceType::Srt => {
                format!("srt://vp-push-{region}-srt.gvideo.example:5001?streamid={id}{key}#{token}")
            }
            SourceType::Webrtc => format!("https://whip.gvideo.example/{id}{key}_{token}/whip"),
        }
    }

    /// Returns a stream as people want to see it: what is told, and what is behind it.
    pub(super) fn state(&self) -> Value {
        json!({
            "id": self.id,
            "name": self.options.text("name"),
            "active": self.is_active(),
            "live": self.primary.live,
            "backup_live": self.backup.live,
            "transcoding": self.transcoding,
            "recording": self.is_recording(),
            "recording_open": self.recorder.is_open(),
            "encoder_connected": self.primary.connected,
            "backup_encoder_connected": self.backup.connected,
            "runs": self.run,
            "client_entity_data": self.options.value("client_entity_data"),
        })
    }

    /// Adds the push addresses and the token: the secret part of a stream object.
    fn add_addresses(&self, fields: &mut Map<String, Value>) {
        for (field, protocol, key) in [
            ("push_url", SourceType::Rtmp, ""),
            ("backup_push_url", SourceType::Rtmp, "b"),
            ("push_url_srt", SourceType::Srt, ""),
            ("backup_push_url_srt", SourceType::Srt, "b"),
            ("push_url_whip", SourceType::Webrtc, ""),
        ] {
            fields.insert(field.to_owned(), self.push_address(protocol, key).into());
        }
        fields.insert("token".to_owned(), self.token.as_str().into());
    }

    /// Adds where viewers find the stream.
    fn add_playback(&self, fields: &mut Map<String, Value>) {
        let (client, id) = (CLIENT_ID, self.id);
        for (field, address) in [
            ("iframe_url", format!("https://demo.gvideo.example/streams/{client}_{id}")),
            ("dash_url", format!("https://demo.gvideo.example/cmaf/{client}_{id}/index.mpd")),
            ("hls_cmaf_url", format!("https://demo.gvideo.example/cmaf/{client}_{id}/master.m3u8")),
            (
                "hls_mpegts_url",
                format!("https://demo.gvideo.example/mpegts/{client}_{id}/master_mpegts.m3u8"),
            ),
            (
                "screenshot",
                format!("https://static.gvideo.example/streams/{client}/{id}/screenshots/last.jpg"),
            ),
        ] {
            fields.insert(field.to_owned(), address.into());
        }
    }

    /// Adds times and media data; what is unknown while idle is null.
    fn add_state(&self, fields: &mut Map<String, Value>, now: DateTime<Utc>, push: SourceType) {
        let time = |time: Option<DateTime<Utc>>| time.map(timestamp);
        let region = |ingest: &Ingest| ingest.live.then(|| self.options.region().to_owned());
        let live = self.is_live();
        let media = |value: Value| if live { value } else { Value::Null };
        let state = json!({
            "id": self.id,
            "live": self.primary.live,
            "backup_live": self.backup.live,
            "created_at": timestamp(self.created_at),
            "started_at_primary": time(self.primary.started_at),
            "started_at_backup": time(self.backup.started_at),
            "finished_at_primary": time(self.primary.finished_at),
            "active_ingest_region_primary": region(&self.primary),
            "active_ingest_region_backup": region(&self.backup),
            "recording_duration": if live { self.recorder.seconds(now) } else { None },
            "stream_source_type": live.then(|| self.source_type(push)),
            "transcoded_qualities":
                media(json!(["audioa", "360pa", "480pa", "720pa", "1080pa"])),
            "transcoding_speed": media(json!(1.0)),
            "frame_rate": media(json!(29.97)),
            "video_width": media(json!(1920)),
            "video_height": media(json!(1080)),
        });
        if let Value::Object(state) = state {
            fields.extend(state);
        }
    }
}

/// The platform's word for a protocol.
fn source_name(source: SourceType) -> &'static str {
    match source {
        SourceType::Rtmp => "rtmp",
        SourceType::Srt => "srt",
        SourceType::Webrtc => "webrtc",
    }
}

impl World {
    /// Returns a stream as create, get and patch answer it.
    pub(super) fn stream_view(&self, stream: &LiveStream) -> Value {
        let mut fields = stream.options.fields().clone();
        stream.add_addresses(&mut fields);
        stream.add_playback(&mut fields);
        stream.add_state(&mut fields, self.now, self.behaviour.source_type);
        let mut recording = stream.is_recording();
        if self.behaviour.flags_lag_s > 0 {
            let lag = self.pace.scaled(f64::from(self.behaviour.flags_lag_s));
            let [live, backup_live, _, was_recording] = stream.flags_at(self.now - lag);
            fields.insert("live".to_owned(), live.into());
            fields.insert("backup_live".to_owned(), backup_live.into());
            recording = was_recording;
        }
        match self.behaviour.recording_in_get {
            FlagInGet::Present => {
                fields.insert("recording".to_owned(), recording.into());
            }
            FlagInGet::Null => {
                fields.insert("recording".to_owned(), Value::Null);
            }
            FlagInGet::Absent => {}
        }
        fields.insert("broadcast_ids".to_owned(), json!(self.broadcasts_of(stream.id)));
        fields.insert("html_overlays".to_owned(), self.overlays_of(stream.id));
        Value::Object(fields)
    }
}
