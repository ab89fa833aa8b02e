//! Every method of the client once, with all that it can send, against the simulator.

use std::time::{Duration, SystemTime};

use chrono::{DateTime, TimeDelta, Utc};
use simulator::{Config as Platform, RequestLogEntry, Simulator};

use crate::{
    AiTaskFilter, Chart, ChartFilter, Client, Config, CountBy, CountFilter, Credentials,
    Disposition, Error, Span, StartRecording, TokenReset, VideoFilter, Watching,
    wire::{
        AiTask, AiWork, Broadcast, BroadcastPatch, BroadcastStatus, DefaultQualitySet,
        DefaultQualitySets, DirectoryPatch, NewAiTask, NewBroadcast, NewClip, NewDirectory,
        NewStream, OverlayFields, PlayerFields, Playlist, PlaylistFields, RestreamFields, Stream,
        StreamPatch, SubtitleFields, Video, VideoFields,
    },
};

/// How long anything of the simulator may take; at its pace nothing takes a second.
const PATIENCE: Duration = Duration::from_secs(20);

/// A simulator, and a client of it.
struct Stage {
    simulator: Simulator,
    client: Client,
}

/// Makes every call, and returns what was sent and answered.
pub(super) async fn walk() -> Vec<RequestLogEntry> {
    let config = Platform { time_scale: 500.0, ..Platform::default() };
    let simulator = Simulator::start(config).await.unwrap();
    let token = Credentials::Token("1_token".into());
    let client = Client::new(Config::new(simulator.base_url(), token)).unwrap();
    let stage = Stage { simulator, client };
    let stream = stage.streams().await;
    stage.recordings(stream).await;
    stage.clips(stream).await;
    stage.overlays(stream).await;
    stage.broadcasts(stream).await;
    stage.restreams(stream).await;
    let directory = stage.directories().await;
    let video = stage.videos(directory).await;
    stage.subtitles(video).await;
    stage.playlists(video).await;
    stage.players().await;
    stage.ai_tasks().await;
    stage.statistics(stream).await;
    stage.deletions(stream, video, directory).await;
    assert_eq!(stage.client.get_account().await.unwrap().is_streaming_enabled(), Some(true));
    stage.simulator.requests()
}

/// Asks until an answer passes.
async fn until<T, F>(ask: impl Fn() -> F, passes: impl Fn(&T) -> bool) -> T
where
    F: Future<Output = Result<T, Error>>,
{
    let asking = async {
        loop {
            let answer = ask().await.unwrap();
            if passes(&answer) {
                return answer;
            }
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.unwrap()
}

/// That something is gone: deleting it again finds the goal reached.
fn gone(deleted: Result<(), Error>) {
    let error = deleted.unwrap_err();
    assert_eq!(error.disposition(), Disposition::Done, "{error}");
}

fn now() -> DateTime<Utc> {
    SystemTime::now().into()
}

/// A field that is set.
#[expect(clippy::unnecessary_wraps, reason = "the fields of bodies are optional")]
fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

impl Stage {
    async fn streams(&self) -> i64 {
        let client = &self.client;
        let new = NewStream {
            name: "evening".to_owned(),
            active: Some(true),
            auto_record: Some(false),
            record_type: text("origin"),
            dvr_enabled: Some(true),
            dvr_duration_seconds: Some(3600),
            html_overlay: Some(true),
            projection: text("regular"),
            quality_set_id: Some(77),
            transcoding_region: text("ed1"),
            client_user_id: Some(10),
            client_entity_data: text(r#"{"v":1}"#),
            pull: Some(false),
            uri: Some("https://camera.example/1".into()),
            srt_passphrase: Some("a-passphrase".into()),
            ..NewStream::default()
        };
        let made = client.create_stream(&new).await.unwrap();
        let error = client.create_stream(&NewStream::default()).await.unwrap_err();
        assert_eq!(error.disposition(), Disposition::Refused);
        let patch = StreamPatch { dvr_enabled: Some(true), ..StreamPatch::default() };
        assert_eq!(client.update_stream(made.id, &patch).await.unwrap().dvr_enabled, Some(true));
        let one = client.get_stream(made.id).await.unwrap();
        assert_eq!((one.dvr_duration_seconds, one.quality_set_id), (Some(3600), Some(77)));
        let tagged = |stream: &Stream| stream.client_entity_data.as_deref() == Some(r#"{"v":1}"#);
        let found = client.streams().matching(tagged).await.unwrap();
        assert_eq!(found.iter().map(|stream| stream.id).collect::<Vec<_>>(), [made.id]);
        let listed = client.streams_with_broadcasts().all().await.unwrap();
        assert!(listed[0].broadcasts.is_some());
        let reset = client.reset_push_token(made.id).await.unwrap();
        let TokenReset::Cut(fresh) = reset else { panic!("{reset:?}") };
        assert!(fresh.token.is_some());
        assert!(client.get_stream(7).await.unwrap_err().is_not_found());
        made.id
    }

    async fn recordings(&self, stream: i64) {
        let client = &self.client;
        let began = now();
        client.start_recording(stream).await.unwrap_err();
        self.simulator.push(stream).unwrap();
        until(|| client.get_stream(stream), |one| one.is_live() == Some(true)).await;
        assert_eq!(client.start_recording(stream).await.unwrap(), StartRecording::Started);
        let long = |one: &Stream| one.recording_duration_seconds > Some(0.1);
        until(|| client.get_stream(stream), long).await;
        let video = client.stop_recording(stream).await.unwrap().unwrap();
        assert!(client.stop_recording(stream).await.unwrap().is_none(), "a second stop");
        let found = client.videos_recorded(stream, began).await.unwrap();
        assert_eq!(found.iter().map(|one| one.id).collect::<Vec<_>>(), [video.id]);
        assert!(client.videos_recorded(stream, now()).await.unwrap().is_empty());
        client.dvr_cleanup(stream).await.unwrap();
    }

    async fn clips(&self, stream: i64) {
        let start = now().timestamp();
        let expiration = Some(start + 3600);
        let new =
            NewClip { start: Some(start), duration_seconds: 20, expiration, vod_required: true };
        let made = self.client.create_clip(stream, &new).await.unwrap();
        assert!(made.video_id.is_some() && made.mp4_master.is_some());
        let listed = self.client.list_clips(stream).await.unwrap();
        assert_eq!((listed[0].start, listed[0].duration_seconds), (Some(start), Some(20)));
        let never = NewClip { duration_seconds: 0, ..new };
        let error = self.client.create_clip(stream, &never).await.unwrap_err();
        assert_eq!(error.disposition(), Disposition::Refused);
    }

    async fn overlays(&self, stream: i64) {
        let client = &self.client;
        let new = OverlayFields {
            url: text("https://example.com/score.html"),
            width: Some(120),
            height: Some(40),
            x: Some(30),
            y: Some(30),
            stretch: Some(false),
            ..OverlayFields::default()
        };
        let made = client.create_overlays(stream, &[new]).await.unwrap();
        let id = made[0].id;
        assert_eq!((made[0].stream_id, made[0].width), (Some(stream), Some(120)));
        let moved = OverlayFields { x: Some(0), ..OverlayFields::default() };
        assert_eq!(client.update_overlay(stream, id, &moved).await.unwrap().x, Some(0));
        let many = [OverlayFields { id: Some(id), y: Some(0), ..OverlayFields::default() }];
        assert_eq!(client.update_overlays(stream, &many).await.unwrap()[0].y, Some(0));
        assert_eq!(client.get_overlay(stream, id).await.unwrap().height, Some(40));
        assert_eq!(client.get_stream(stream).await.unwrap().html_overlays.unwrap().len(), 1);
        let nothing = [OverlayFields::default()];
        client.create_overlays(stream, &nothing).await.unwrap_err();
        client.delete_overlay(stream, id).await.unwrap();
        gone(client.delete_overlay(stream, id).await);
        assert!(client.list_overlays(stream).await.unwrap().is_empty());
    }

    async fn broadcasts(&self, stream: i64) {
        let client = &self.client;
        let new = NewBroadcast {
            name: "evening [1]".to_owned(),
            stream_ids: vec![stream],
            pending_message: text("Soon"),
            show_dvr_after_finish: Some(false),
            ..NewBroadcast::default()
        };
        let id = client.create_broadcast(&new).await.unwrap().id.unwrap();
        let named = |one: &Broadcast| one.name.as_deref().is_some_and(|name| name.ends_with("[1]"));
        assert_eq!(client.broadcasts().matching(named).await.unwrap().len(), 1);
        let live = Some(BroadcastStatus::Live);
        let patch = BroadcastPatch { status: live, ..BroadcastPatch::default() };
        let changed = client.update_broadcast(id, &patch).await.unwrap();
        assert_eq!(changed.status.as_deref(), Some("live"));
        assert_eq!(client.get_broadcast(id).await.unwrap().stream_ids, Some(vec![stream]));
        assert!(client.count_spectators(id).await.unwrap().is_some());
        client.create_broadcast(&NewBroadcast::default()).await.unwrap_err();
        client.delete_broadcast(id).await.unwrap();
        gone(client.delete_broadcast(id).await);
    }

    async fn restreams(&self, stream: i64) {
        let client = &self.client;
        let new = RestreamFields {
            name: text("elsewhere [1]"),
            active: Some(true),
            uri: Some("rtmp://elsewhere.example/live/key-0001".into()),
            stream_id: Some(stream),
            client_user_id: Some(10),
            no_audio: Some(false),
            no_audio_mode: text("drop"),
            source: text("original"),
        };
        let id = client.create_restream(&new).await.unwrap().id.unwrap();
        let error = client.create_restream(&new).await.unwrap_err();
        assert_eq!(error.disposition(), Disposition::Quota, "one per account");
        assert!(!format!("{error:?}").contains("key-0001"), "{error:?}");
        assert_eq!(client.restreams().all().await.unwrap()[0].stream_id, Some(stream));
        let off = RestreamFields { active: Some(false), ..RestreamFields::default() };
        assert_eq!(client.update_restream(id, &off).await.unwrap().active, Some(false));
        assert!(!format!("{:?}", client.get_restream(id).await.unwrap()).contains("key-0001"));
        client.delete_restream(id).await.unwrap();
        gone(client.delete_restream(id).await);
    }

    async fn directories(&self) -> i64 {
        let client = &self.client;
        let series = NewDirectory { name: "Series".to_owned(), parent_id: None };
        let top = client.create_directory(&series).await.unwrap().id;
        let season = NewDirectory { name: "Season".to_owned(), parent_id: Some(top) };
        let inner = client.create_directory(&season).await.unwrap().id;
        let named = DirectoryPatch { name: text("Season 1"), parent_id: Some(top) };
        client.update_directory(inner, &named).await.unwrap();
        let tree = client.get_directory_tree().await.unwrap();
        let descendants = tree[0].descendants.as_ref().unwrap();
        assert_eq!((tree[0].id, descendants[0].id), (top, inner));
        let nameless = NewDirectory { name: String::new(), parent_id: None };
        client.create_directory(&nameless).await.unwrap_err();
        top
    }

    async fn videos(&self, directory: i64) -> i64 {
        let client = &self.client;
        let new = VideoFields {
            name: text("trailer [1]"),
            description: text("first"),
            origin_url: Some("https://files.example/a.mp4?signature=s-0001".into()),
            origin_http_headers: Some("Authorization: Bearer b-0001".into()),
            priority: Some(1),
            client_user_id: Some(10),
            directory_id: Some(directory),
            ..VideoFields::default()
        };
        let id = client.create_video(&new).await.unwrap().unwrap().id;
        let error = client.create_video(&VideoFields::default()).await.unwrap_err();
        assert_eq!(error.disposition(), Disposition::Refused);
        let batch = [VideoFields { name: text("to upload"), ..VideoFields::default() }];
        let waiting = client.create_videos(&batch).await.unwrap()[0].clone();
        assert_eq!(waiting.status.as_deref(), Some("empty"));
        let upload = client.get_upload(waiting.id).await.unwrap();
        assert!(upload.token.is_some() && upload.servers.unwrap()[0].hostname.is_some());
        let search =
            VideoFilter { search: text("[1]"), per_page: Some(10), ..VideoFilter::default() };
        assert_eq!(client.videos(&search).matching(|one| one.id == id).await.unwrap().len(), 1);
        let filter = VideoFilter {
            ids: Some(vec![id, waiting.id]),
            client_user_id: Some(10),
            fields: text("id,name,status"),
            ..VideoFilter::default()
        };
        assert_eq!(client.videos(&filter).all().await.unwrap().len(), 1);
        assert_eq!(client.name_videos(&[id, 7]).await.unwrap().len(), 1);
        let renamed = VideoFields { name: text("trailer"), ..VideoFields::default() };
        assert_eq!(
            client.update_video(id, &renamed).await.unwrap().name.as_deref(),
            Some("trailer")
        );
        let ready = |one: &Video| one.status.as_deref() == Some("ready");
        let video = until(|| client.get_video(id), ready).await;
        assert!(!format!("{video:?}").contains("s-0001"), "{video:?}");
        let inside = client.get_directory(directory).await.unwrap().items.unwrap();
        assert_eq!(inside.len(), 2);
        client.delete_video(waiting.id).await.unwrap();
        gone(client.delete_video(waiting.id).await);
        id
    }

    async fn subtitles(&self, video: i64) {
        let client = &self.client;
        let new = SubtitleFields {
            name: text("German"),
            language: text("ger"),
            vtt: text("WEBVTT\n\n1\n00:00:00.031 --> 00:00:03.831\nGuten Abend."),
            ..SubtitleFields::default()
        };
        let id = client.create_subtitle(video, &new).await.unwrap().id;
        client.create_subtitle(video, &SubtitleFields::default()).await.unwrap_err();
        assert_eq!(client.list_subtitles(video).await.unwrap()[0].language.as_deref(), Some("ger"));
        let named = SubtitleFields { name: text("Deutsch"), ..SubtitleFields::default() };
        client.update_subtitle(video, id, &named).await.unwrap();
        let one = client.get_subtitle(video, id).await.unwrap();
        assert_eq!(one.name.as_deref(), Some("Deutsch"));
        client.delete_subtitle(video, id).await.unwrap();
        gone(client.delete_subtitle(video, id).await);
    }

    async fn playlists(&self, video: i64) {
        let client = &self.client;
        let new = PlaylistFields {
            name: text("all day [1]"),
            active: Some(true),
            start_time: text("2026-07-01T11:00:00Z"),
            repeats: Some(true),
            video_ids: Some(vec![video]),
            client_user_id: Some(10),
            countdown: Some(false),
            playlist_type: text("live"),
            ..PlaylistFields::default()
        };
        let id = client.create_playlist(&new).await.unwrap().id.unwrap();
        assert_eq!(client.list_playlist_videos(id).await.unwrap()[0].id, video);
        let named = |one: &Playlist| one.name.as_deref() == Some("all day [1]");
        assert_eq!(client.playlists().matching(named).await.unwrap().len(), 1);
        let off = PlaylistFields { active: Some(false), ..PlaylistFields::default() };
        assert_eq!(client.update_playlist(id, &off).await.unwrap().active, Some(false));
        assert_eq!(client.get_playlist(id).await.unwrap().repeats, Some(true));
        client.delete_playlist(id).await.unwrap();
        gone(client.delete_playlist(id).await);
    }

    async fn players(&self) {
        let client = &self.client;
        let new = PlayerFields {
            name: text("ours"),
            autoplay: Some(true),
            mute: Some(true),
            bg_color: text("#AAAAAA"),
            ..PlayerFields::default()
        };
        let id = client.create_player(&new).await.unwrap().id.unwrap();
        client.create_player(&PlayerFields::default()).await.unwrap_err();
        assert_eq!(client.players().all().await.unwrap().len(), 1);
        assert!(client.preview_player(id).await.unwrap().starts_with("<!doctype html>"));
        let named = PlayerFields { name: text("theirs"), ..PlayerFields::default() };
        client.update_player(id, &named).await.unwrap();
        assert_eq!(client.get_player(id).await.unwrap().mute, Some(true));
        client.delete_player(id).await.unwrap();
        gone(client.delete_player(id).await);
        let sets = client.list_quality_sets().await.unwrap().live.unwrap();
        let other = sets.iter().find(|set| set.is_default == Some(false)).unwrap().id;
        let live = Some(DefaultQualitySet { id: Some(other) });
        let choice = DefaultQualitySets { live, vod: Some(DefaultQualitySet { id: None }) };
        let sets = client.set_default_quality_sets(&choice).await.unwrap().live.unwrap();
        assert!(sets.iter().all(|set| (set.id == other) == (set.is_default == Some(true))));
    }

    async fn ai_tasks(&self) {
        let client = &self.client;
        let new = |work| NewAiTask {
            work,
            url: Some("https://files.example/a.mp4?signature=s-0001".into()),
            client_user_id: text("10"),
            client_entity_data: text("tag-1"),
        };
        let (audio_language, subtitles_language) = (text("eng"), text("ger"));
        let words = new(AiWork::Transcription { audio_language, subtitles_language });
        let sport =
            new(AiWork::ContentModeration { category: "sport".to_owned(), stop_objects: None });
        let id = client.create_ai_task(&words).await.unwrap();
        client.create_ai_task(&sport).await.unwrap();
        let odd = AiWork::ContentModeration { category: "odd".to_owned(), stop_objects: None };
        client.create_ai_task(&new(odd)).await.unwrap_err();
        let filter =
            AiTaskFilter { search: text("tag-1"), limit: Some(1), ..AiTaskFilter::default() };
        assert_eq!(client.ai_tasks(&filter).all().await.unwrap().len(), 2);
        let done = until(|| client.get_ai_task(&id), AiTask::is_final).await;
        assert!(done.result.is_some() && !format!("{done:?}").contains("s-0001"));
        gone(client.cancel_ai_task(&id).await);
        let id = client.create_ai_task(&sport).await.unwrap();
        client.cancel_ai_task(&id).await.unwrap();
        assert!(client.get_ai_task("no-such-task").await.unwrap_err().is_not_found());
        assert_eq!(client.get_ai_language_support("eng", Some("fre")).await.unwrap(), Some(true));
    }

    async fn statistics(&self, stream: i64) {
        let client = &self.client;
        let to = DateTime::from_timestamp(now().timestamp() + 60, 0).unwrap();
        let span = Span { from: to - TimeDelta::minutes(30), to };
        let samples = client.probe_stream(stream, span, Duration::from_secs(10)).await.unwrap();
        assert!(samples.iter().all(|one| one.time.is_some()) && !samples.is_empty());
        for (kind, id) in [("live", stream.to_string()), ("vod", "slug".to_owned())] {
            assert_eq!(client.get_heatmap(kind, &id, span).await.unwrap().len(), 1);
        }
        let plain = ChartFilter { granularity: text("5m"), ..ChartFilter::default() };
        let of_stream =
            ChartFilter { stream_id: Some(stream), client_user_id: Some(10), ..plain.clone() };
        let of_video =
            ChartFilter { slug: text("slug"), client_user_id: Some(10), ..plain.clone() };
        for (chart, filter) in [
            (Chart::Streams, &plain),
            (Chart::MaxStreams, &plain),
            (Chart::Storage, &plain),
            (Chart::ResellerStreams, &plain),
            (Chart::VideoStorage, &ChartFilter::default()),
            (Chart::VideoTranscoding, &ChartFilter::default()),
            (Chart::VideoViewers, &of_video),
            (Chart::VideoWatching, &of_video),
            (Chart::StreamViewers, &of_stream),
            (Chart::StreamWatching, &of_stream),
        ] {
            let series = client.chart(chart, span, filter).await.unwrap();
            assert!(series[0].max().is_some(), "{chart:?}");
        }
        for (watching, filter) in [(Watching::Streams, of_stream), (Watching::Videos, of_video)] {
            let filter = ChartFilter { granularity: None, ..filter };
            let total = client.total_watching(watching, span, &filter).await.unwrap();
            assert_eq!(total[0].minutes, Some(0));
        }
        self.counts(span).await;
    }

    async fn counts(&self, span: Span) {
        let by_kind = CountFilter { kind: text("live"), id: text("7"), ..CountFilter::default() };
        let full = CountFilter {
            event: text("start"),
            host: text("example.com"),
            country: text("LU"),
            group: text("country,browser"),
            ..by_kind.clone()
        };
        for (by, filter) in [
            (CountBy::Day, &full),
            (CountBy::Address, &full),
            (CountBy::CdnAddress, &by_kind),
            (CountBy::Country, &CountFilter::default()),
            (CountBy::Region, &CountFilter::default()),
            (CountBy::Browser, &CountFilter::default()),
            (CountBy::System, &CountFilter::default()),
            (CountBy::Embed, &CountFilter::default()),
            (CountBy::Host, &CountFilter::default()),
            (CountBy::Popular, &CountFilter::default()),
        ] {
            let counts = self.client.count(by, span, filter).await.unwrap();
            let one = &counts[0];
            assert!(one.views.or(one.unique_ips).or(one.uniques).is_some(), "{by:?}");
        }
    }

    async fn deletions(&self, stream: i64, video: i64, directory: i64) {
        let client = &self.client;
        client.delete_directory(directory).await.unwrap();
        gone(client.delete_directory(directory).await);
        gone(client.delete_video(video).await);
        client.delete_stream(stream).await.unwrap();
        gone(client.delete_stream(stream).await);
    }
}
