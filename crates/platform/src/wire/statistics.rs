//! Statistics: what ran when, how much of it, and who watched.
//!
//! Times in answers carry no zone; they are UTC. What a chart counts depends on the chart: minutes,
//! bytes, viewers, live streams.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::{
    fields::{self, Fields, Object, known, time_value},
    macros::object,
};

object! {
    /// What came in from the encoder in one interval. An interval without one is not in the answer,
    /// so the samples tell when a live stream was alive, also long after.
    ProbeSample "sample" {
        /// When the interval began.
        time: time,
        /// Bits per second, in thousands.
        avg_bitrate: amount,
        /// Pictures.
        sum_frames: whole,
        /// Largest height, pixels.
        max_height: whole,
        /// Largest number of pictures per second.
        max_fps: amount,
        /// Longest time between key frames, seconds.
        max_keyframe_interval: amount,
    }
}

object! {
    /// How many viewers saw one moment.
    Heat "moment" {
        /// How many.
        viewers: whole,
        /// The moment of a video, seconds from its beginning.
        seconds: whole,
        /// The moment of a live stream.
        time: time,
    }
}

object! {
    /// A count, with those of its dimensions that were asked for.
    Count "count" {
        /// How often it was played.
        views: whole,
        /// From how many addresses, by the players' count.
        unique_ips: whole,
        /// From how many addresses, by the CDN's count.
        uniques as "uniqs": whole,
        /// The day.
        date: text,
        /// `live`, `vod` or `playlist`.
        kind as "type": text,
        /// `init`, `start` or `watch`.
        event: text,
        /// The live stream, video or playlist, by number or by name.
        id: word,
        /// The site that the player stands on.
        host: text,
        /// The page that the player stands on.
        embed_url: text,
        /// Two letters.
        country: text,
        /// In words.
        country_name: text,
        /// ISO 3166-2.
        region: text,
        /// In words.
        region_name: text,
        /// The viewer's browser.
        browser: text,
        /// The viewer's operating system.
        os: text,
        /// The viewer's kind of machine.
        platform: text,
    }
    unobserved {
        /// The viewer's address, which is personal.
        ip: text,
    }
}

object! {
    /// How long something was watched in all.
    Watched "total" {
        /// The account.
        client: id,
        /// Minutes.
        minutes as "duration": whole,
        /// The live stream.
        stream_id: id,
        /// The video.
        slug: text,
        /// The caller's user id.
        client_user_id: integer,
    }
}

/// One line of a chart.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Series {
    /// The account.
    pub client: Option<i64>,
    /// What is counted, in the platform's word, e.g. `streams`.
    pub metric: String,
    /// When, and how much.
    pub points: Vec<(DateTime<Utc>, i64)>,
}

impl Series {
    /// The largest value; `None` without points.
    pub fn max(&self) -> Option<i64> {
        self.points.iter().map(|(_, value)| *value).max()
    }
}

impl Object for Series {
    const WHAT: &'static str = "line of a chart";

    fn read(fields: &Fields<'_>) -> Option<Self> {
        let metrics = fields.json("metrics")?;
        // Storage has a second metric, its maximum, which the points hold as well.
        let of = |name: &str| Some((name.to_owned(), metrics.get(name)?.as_array()?.clone()));
        let (metric, points) = ["streams", "vod", "storage"].into_iter().find_map(of)?;
        let points = points.iter().filter_map(point).collect();
        Some(Self { client: fields.id("client"), metric, points })
    }

    fn observed(&self) -> Value {
        let pair = |(time, value): &(DateTime<Utc>, i64)| -> Value {
            [time_value(Some(*time)), (*value).into()].into_iter().collect()
        };
        let points: Value = self.points.iter().map(pair).collect();
        known([
            ("client", self.client.into()),
            ("metrics", known([(self.metric.as_str(), points)])),
        ])
    }
}

impl<'de> Deserialize<'de> for Series {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        fields::deserialize(deserializer)
    }
}

/// A pair of Unix time in seconds and value.
fn point(pair: &Value) -> Option<(DateTime<Utc>, i64)> {
    let time = DateTime::from_timestamp(pair.get(0)?.as_i64()?, 0)?;
    Some((time, pair.get(1)?.as_i64()?))
}
