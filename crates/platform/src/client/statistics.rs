//! Statistics: when a live stream was alive, how much runs, who watched.
//!
//! The platform has some thirty operations of four forms: samples, *charts* over time, totals of
//! watching, and *counts* by a dimension. A form is a method, and which one of it an argument.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};

use super::{Client, call::Call};
use crate::{
    Error, Operation,
    wire::{Count, Heat, ProbeSample, Series, Watched},
};

/// From when to when.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// The first moment.
    pub from: DateTime<Utc>,
    /// The last moment.
    pub to: DateTime<Utc>,
}

/// A chart over time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Chart {
    /// Minutes of transcoding.
    Streams,
    /// Live streams at the same time, nearly up to date.
    MaxStreams,
    /// Bytes that are stored.
    Storage,
    /// Minutes of transcoding, for those who resell.
    ResellerStreams,
    /// Minutes of video that are stored.
    VideoStorage,
    /// Minutes of video that were transcoded.
    VideoTranscoding,
    /// Viewers of videos.
    VideoViewers,
    /// Minutes of video that were watched.
    VideoWatching,
    /// Viewers of live streams.
    StreamViewers,
    /// Minutes of live streams that were watched.
    StreamWatching,
}

/// What a chart or a total is about; `None` is the whole account.
#[derive(Clone, Debug, Default)]
pub struct ChartFilter {
    /// `1m`, `5m`, `15m`, `1h` or `1d`; an hour unless it is set.
    pub granularity: Option<String>,
    /// One live stream, in the charts of live streams' viewers.
    pub stream_id: Option<i64>,
    /// One video, in the charts of videos' viewers.
    pub slug: Option<String>,
    /// One user of the caller's, in both.
    pub client_user_id: Option<i64>,
}

/// What was watched.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Watching {
    /// Live streams.
    Streams,
    /// Videos.
    Videos,
}

/// What views are counted by.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CountBy {
    /// Day and whatever `group` names: views.
    Day,
    /// Day and whatever `group` names: addresses of viewers.
    Address,
    /// `live`, `vod`: addresses of viewers by the CDN's count.
    CdnAddress,
    /// Country.
    Country,
    /// Region.
    Region,
    /// Browser.
    Browser,
    /// Operating system.
    System,
    /// Page that the player stands on.
    Embed,
    /// Site that the player stands on.
    Host,
    /// What was played.
    Popular,
}

/// Which views are counted, by [`CountBy::Day`], `Address` and, the first two, `CdnAddress`.
#[derive(Clone, Debug, Default)]
pub struct CountFilter {
    /// `live`, `vod` or `playlist`.
    pub kind: Option<String>,
    /// Of one live stream, video or playlist.
    pub id: Option<String>,
    /// `init`, `start` or `watch`.
    pub event: Option<String>,
    /// On one site.
    pub host: Option<String>,
    /// From one country.
    pub country: Option<String>,
    /// By which dimensions besides the day: names with commas between.
    pub group: Option<String>,
}

impl Client {
    /// When a live stream was alive: a sample for each interval in which its encoder sent. It
    /// rebuilds what webhooks and polls missed, until the live stream is deleted.
    pub async fn probe_stream(
        &self,
        stream_id: i64,
        span: Span,
        interval: Duration,
    ) -> Result<Vec<ProbeSample>, Error> {
        let call = span.on(self.to(Operation::ProbeStream), "date_from", "date_to");
        let call = call.query("stream_id", stream_id);
        let call = call.query("interval", interval.as_secs().max(1)).query("units", "second");
        call.list_in("data").await
    }

    /// How many saw each moment of a live stream, video or playlist (`kind`: `live`, `vod`,
    /// `playlist`) in the platform's player.
    pub async fn get_heatmap(&self, kind: &str, id: &str, span: Span) -> Result<Vec<Heat>, Error> {
        let call = span.on(self.to(Operation::GetHeatmap), "date_from", "date_to");
        call.query("type", kind).query("stream_id", id).list_in("data").await
    }

    /// A chart over time, a line for each account.
    pub async fn chart(
        &self,
        chart: Chart,
        span: Span,
        filter: &ChartFilter,
    ) -> Result<Vec<Series>, Error> {
        let call = span.on(self.to(chart.operation()), "from", "to");
        filter.on(call).query_if("granularity", filter.granularity.as_ref()).list().await
    }

    /// How long live streams or videos were watched in all.
    pub async fn total_watching(
        &self,
        watching: Watching,
        span: Span,
        filter: &ChartFilter,
    ) -> Result<Vec<Watched>, Error> {
        let operation = match watching {
            Watching::Streams => Operation::TotalStreamWatching,
            Watching::Videos => Operation::TotalVideoWatching,
        };
        filter.on(span.on(self.to(operation), "from", "to")).list().await
    }

    /// How often something was watched, by a dimension.
    pub async fn count(
        &self,
        by: CountBy,
        span: Span,
        filter: &CountFilter,
    ) -> Result<Vec<Count>, Error> {
        let call = span.on(self.to(by.operation()), "date_from", "date_to");
        filter.on(call).list_in("data").await
    }
}

impl Span {
    /// A call about it.
    fn on<'a>(self, call: Call<'a>, from: &'static str, to: &'static str) -> Call<'a> {
        let text = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Secs, true);
        call.query(from, text(self.from)).query(to, text(self.to))
    }
}

impl ChartFilter {
    /// A call that passes it.
    fn on<'a>(&self, call: Call<'a>) -> Call<'a> {
        call.query_if("stream_id", self.stream_id)
            .query_if("slug", self.slug.as_ref())
            .query_if("client_user_id", self.client_user_id)
    }
}

impl CountFilter {
    /// A call that passes it.
    fn on<'a>(&self, call: Call<'a>) -> Call<'a> {
        call.query_if("type", self.kind.as_ref())
            .query_if("id", self.id.as_ref())
            .query_if("event", self.event.as_ref())
            .query_if("host", self.host.as_ref())
            .query_if("country", self.country.as_ref())
            .query_if("group", self.group.as_ref())
    }
}

impl Chart {
    /// The operation that draws it.
    fn operation(self) -> Operation {
        match self {
            Self::Streams => Operation::ChartStreams,
            Self::MaxStreams => Operation::ChartMaxStreams,
            Self::Storage => Operation::ChartStorage,
            Self::ResellerStreams => Operation::ChartResellerStreams,
            Self::VideoStorage => Operation::ChartVideoStorage,
            Self::VideoTranscoding => Operation::ChartVideoTranscoding,
            Self::VideoViewers => Operation::ChartVideoViewers,
            Self::VideoWatching => Operation::ChartVideoWatching,
            Self::StreamViewers => Operation::ChartStreamViewers,
            Self::StreamWatching => Operation::ChartStreamWatching,
        }
    }
}

impl CountBy {
    /// The operation that counts.
    fn operation(self) -> Operation {
        match self {
            Self::Day => Operation::CountViews,
            Self::Address => Operation::CountUniques,
            Self::CdnAddress => Operation::CountCdnUniques,
            Self::Country => Operation::CountByCountry,
            Self::Region => Operation::CountByRegion,
            Self::Browser => Operation::CountByBrowser,
            Self::System => Operation::CountBySystem,
            Self::Embed => Operation::CountByEmbed,
            Self::Host => Operation::CountByHost,
            Self::Popular => Operation::CountPopular,
        }
    }
}
