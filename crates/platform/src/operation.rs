//! The operations of the client: one table, a row for each.
//!
//! A row says everything about an operation that is not a type: its name in errors and logs, the
//! request, the form of the body, and its *class*, which decides what a failure means. The methods
//! of [`crate::Client`] add the types and nothing else.

use std::fmt;

use reqwest::Method;

/// What an operation does, as far as a failure is concerned.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Class {
    /// Reads one object, or a list that belongs to one.
    Read,
    /// Reads what belongs to the account.
    List,
    /// Sets fields of one object: a second time changes nothing more.
    Change,
    /// Makes a new object: a second time makes a second one.
    Create,
    /// Does something to one object that a second time would do again: cut, rotate, add.
    Act,
    /// Deletes one object, which is gone then, whoever did it.
    Delete,
    /// Stops something that also ends by itself.
    Cancel,
}

/// The form of a request's body.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Form {
    /// There is none.
    Nothing,
    /// The fields themselves.
    Flat,
    /// The fields in a field of this name.
    In(&'static str),
}

/// A row of the table.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) method: Method,
    /// As in the platform's OpenAPI file; ids stand in braces.
    pub(crate) path: &'static str,
    pub(crate) form: Form,
    pub(crate) class: Class,
}

/// Writes the enum, the list of all its values, and the table.
macro_rules! operations {
    ($($operation:ident $name:literal $method:ident $path:literal $form:expr, $class:ident;)+) => {
        /// An operation of [`crate::Client`].
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        #[non_exhaustive]
        pub enum Operation {
            $(#[doc = concat!("`", stringify!($method), " ", $path, "`")] $operation,)+
        }

        impl Operation {
            /// Every operation, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$operation,)+];

            /// The operation's row.
            pub(crate) fn row(self) -> &'static Row {
                use Form::{Flat, In, Nothing};
                match self {
                    $(Self::$operation => const { &Row {
                        name: $name,
                        method: Method::$method,
                        path: $path,
                        form: $form,
                        class: Class::$class,
                    } },)+
                }
            }
        }
    };
}

operations! {
    CreateStream "create_stream" POST "/streaming/streams" Flat, Create;
    GetStream "get_stream" GET "/streaming/streams/{stream_id}" Nothing, Read;
    ListStreams "list_streams" GET "/streaming/streams" Nothing, List;
    UpdateStream "update_stream" PATCH "/streaming/streams/{stream_id}" In("stream"), Change;
    DeleteStream "delete_stream" DELETE "/streaming/streams/{stream_id}" Nothing, Delete;
    // A second start cuts the recording, a second stop answers as if nothing was recorded.
    StartRecording "start_recording" PUT "/streaming/streams/{stream_id}/start_recording" Nothing, Act;
    StopRecording "stop_recording" PUT "/streaming/streams/{stream_id}/stop_recording" Nothing, Act;
    // Harmless only while no new session runs: a late repetition would cut its rewind window.
    DvrCleanup "dvr_cleanup" PUT "/streaming/streams/{stream_id}/dvr_cleanup" Nothing, Act;
    // Each one invalidates the token before it.
    ResetPushToken "reset_push_token" POST "/streaming/streams/{stream_id}/reset_push_token" Nothing, Act;
    CreateClip "create_clip" PUT "/streaming/streams/{stream_id}/clip_recording" Flat, Act;
    ListClips "list_clips" GET "/streaming/streams/{stream_id}/clip_recording" Nothing, Read;

    CreateOverlays "create_overlays" POST "/streaming/streams/{stream_id}/overlays" Flat, Act;
    GetOverlay "get_overlay" GET "/streaming/streams/{stream_id}/overlays/{overlay_id}" Nothing, Read;
    ListOverlays "list_overlays" GET "/streaming/streams/{stream_id}/overlays" Nothing, Read;
    UpdateOverlay "update_overlay" PATCH "/streaming/streams/{stream_id}/overlays/{overlay_id}" Flat, Change;
    UpdateOverlays "update_overlays" PATCH "/streaming/streams/{stream_id}/overlays" Flat, Change;
    DeleteOverlay "delete_overlay" DELETE "/streaming/streams/{stream_id}/overlays/{overlay_id}" Nothing, Delete;

    CreateBroadcast "create_broadcast" POST "/streaming/broadcasts" In("broadcast"), Create;
    GetBroadcast "get_broadcast" GET "/streaming/broadcasts/{broadcast_id}" Nothing, Read;
    ListBroadcasts "list_broadcasts" GET "/streaming/broadcasts" Nothing, List;
    UpdateBroadcast "update_broadcast" PATCH "/streaming/broadcasts/{broadcast_id}" In("broadcast"), Change;
    DeleteBroadcast "delete_broadcast" DELETE "/streaming/broadcasts/{broadcast_id}" Nothing, Delete;
    CountSpectators "count_spectators" GET "/streaming/broadcasts/{broadcast_id}/spectators" Nothing, Read;

    CreateRestream "create_restream" POST "/streaming/restreams" In("restream"), Create;
    GetRestream "get_restream" GET "/streaming/restreams/{restream_id}" Nothing, Read;
    ListRestreams "list_restreams" GET "/streaming/restreams" Nothing, List;
    UpdateRestream "update_restream" PATCH "/streaming/restreams/{restream_id}" In("restream"), Change;
    DeleteRestream "delete_restream" DELETE "/streaming/restreams/{restream_id}" Nothing, Delete;

    CreateVideo "create_video" POST "/streaming/videos" In("video"), Create;
    CreateVideos "create_videos" POST "/streaming/videos/batch" In("videos"), Create;
    GetVideo "get_video" GET "/streaming/videos/{video_id}" Nothing, Read;
    ListVideos "list_videos" GET "/streaming/videos" Nothing, List;
    NameVideos "name_videos" GET "/streaming/videos/names" Nothing, List;
    UpdateVideo "update_video" PATCH "/streaming/videos/{video_id}" Flat, Change;
    DeleteVideo "delete_video" DELETE "/streaming/videos/{video_id}" Nothing, Delete;
    GetUpload "get_upload" GET "/streaming/videos/{video_id}/upload" Nothing, Read;

    CreateSubtitle "create_subtitle" POST "/streaming/videos/{video_id}/subtitles" Flat, Act;
    GetSubtitle "get_subtitle" GET "/streaming/videos/{video_id}/subtitles/{id}" Nothing, Read;
    ListSubtitles "list_subtitles" GET "/streaming/videos/{video_id}/subtitles" Nothing, Read;
    UpdateSubtitle "update_subtitle" PATCH "/streaming/videos/{video_id}/subtitles/{id}" Flat, Change;
    DeleteSubtitle "delete_subtitle" DELETE "/streaming/videos/{video_id}/subtitles/{id}" Nothing, Delete;

    CreatePlaylist "create_playlist" POST "/streaming/playlists" Flat, Create;
    GetPlaylist "get_playlist" GET "/streaming/playlists/{playlist_id}" Nothing, Read;
    ListPlaylists "list_playlists" GET "/streaming/playlists" Nothing, List;
    ListPlaylistVideos "list_playlist_videos" GET "/streaming/playlists/{playlist_id}/videos" Nothing, Read;
    UpdatePlaylist "update_playlist" PATCH "/streaming/playlists/{playlist_id}" Flat, Change;
    DeletePlaylist "delete_playlist" DELETE "/streaming/playlists/{playlist_id}" Nothing, Delete;

    CreateDirectory "create_directory" POST "/streaming/directories" Flat, Create;
    GetDirectory "get_directory" GET "/streaming/directories/{directory_id}" Nothing, Read;
    GetDirectoryTree "get_directory_tree" GET "/streaming/directories/tree" Nothing, List;
    UpdateDirectory "update_directory" PATCH "/streaming/directories/{directory_id}" Flat, Change;
    DeleteDirectory "delete_directory" DELETE "/streaming/directories/{directory_id}" Nothing, Delete;

    ListQualitySets "list_quality_sets" GET "/streaming/quality_sets" Nothing, List;
    SetDefaultQualitySets "set_default_quality_sets" PUT "/streaming/quality_sets/default" Flat, Change;

    CreatePlayer "create_player" POST "/streaming/players" In("player"), Create;
    GetPlayer "get_player" GET "/streaming/players/{player_id}" Nothing, Read;
    ListPlayers "list_players" GET "/streaming/players" Nothing, List;
    PreviewPlayer "preview_player" GET "/streaming/players/{player_id}/preview" Nothing, Read;
    UpdatePlayer "update_player" PATCH "/streaming/players/{player_id}" In("player"), Change;
    DeletePlayer "delete_player" DELETE "/streaming/players/{player_id}" Nothing, Delete;

    CreateAiTask "create_ai_task" POST "/streaming/ai/tasks" Flat, Create;
    GetAiTask "get_ai_task" GET "/streaming/ai/tasks/{task_id}" Nothing, Read;
    ListAiTasks "list_ai_tasks" GET "/streaming/ai/tasks" Nothing, List;
    CancelAiTask "cancel_ai_task" POST "/streaming/ai/tasks/{task_id}/cancel" Nothing, Cancel;
    GetAiLanguageSupport "get_ai_language_support" GET "/streaming/ai/info" Nothing, List;

    ProbeStream "probe_stream" GET "/streaming/statistics/ffprobe" Nothing, List;
    GetHeatmap "get_heatmap" GET "/streaming/statistics/heatmap" Nothing, List;
    ChartStreams "chart_streams" GET "/streaming/statistics/stream" Nothing, List;
    ChartMaxStreams "chart_max_streams" GET "/streaming/statistics/max_stream" Nothing, List;
    ChartStorage "chart_storage" GET "/streaming/statistics/storage" Nothing, List;
    ChartResellerStreams "chart_reseller_streams" GET "/streaming/statistics/reseller/stream" Nothing, List;
    ChartVideoStorage "chart_video_storage" GET "/streaming/statistics/vod/storage_duration" Nothing, List;
    ChartVideoTranscoding "chart_video_transcoding" GET "/streaming/statistics/vod/transcoding_duration" Nothing, List;
    ChartVideoViewers "chart_video_viewers" GET "/streaming/statistics/vod/viewers" Nothing, List;
    ChartVideoWatching "chart_video_watching" GET "/streaming/statistics/vod/watching_duration" Nothing, List;
    TotalVideoWatching "total_video_watching" GET "/streaming/statistics/vod/watching_duration/total" Nothing, List;
    ChartStreamViewers "chart_stream_viewers" GET "/streaming/statistics/stream/viewers" Nothing, List;
    ChartStreamWatching "chart_stream_watching" GET "/streaming/statistics/stream/watching_duration" Nothing, List;
    TotalStreamWatching "total_stream_watching" GET "/streaming/statistics/stream/watching_duration/total" Nothing, List;
    CountViews "count_views" GET "/streaming/statistics/views" Nothing, List;
    CountUniques "count_uniques" GET "/streaming/statistics/uniqs" Nothing, List;
    CountCdnUniques "count_cdn_uniques" GET "/streaming/statistics/cdn/uniqs" Nothing, List;
    CountByCountry "count_by_country" GET "/streaming/statistics/countries" Nothing, List;
    CountByRegion "count_by_region" GET "/streaming/statistics/regions" Nothing, List;
    CountByBrowser "count_by_browser" GET "/streaming/statistics/browsers" Nothing, List;
    CountBySystem "count_by_system" GET "/streaming/statistics/systems" Nothing, List;
    CountByEmbed "count_by_embed" GET "/streaming/statistics/embeds" Nothing, List;
    CountByHost "count_by_host" GET "/streaming/statistics/hosts" Nothing, List;
    CountPopular "count_popular" GET "/streaming/statistics/popular" Nothing, List;

    GetAccount "get_account" GET "/iam/clients/me" Nothing, List;
}

impl Operation {
    /// The name in snake case.
    pub fn as_str(self) -> &'static str {
        self.row().name
    }

    /// What a failure of it means.
    pub fn class(self) -> Class {
        self.row().class
    }

    /// Whether it changes nothing on the platform.
    pub fn is_read(self) -> bool {
        self.row().method == Method::GET
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}
