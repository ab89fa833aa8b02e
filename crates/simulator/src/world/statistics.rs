//! Statistics, computed from what the world remembers: when streams were alive, how long videos are.
//!
//! Nobody watches here: counts of viewers are those of runs and videos, so that there are rows.

use chrono::{DateTime, NaiveDate, NaiveDateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use super::live_stream::LiveStream;
use super::{CLIENT_ID, ErrorShape, Reply, Request, World, error_body};

/// Most points of one answer.
const MOST_POINTS: usize = 10_000;

/// From when to when.
#[derive(Clone, Copy)]
struct Span {
    from: DateTime<Utc>,
    to: DateTime<Utc>,
}

impl Span {
    /// Reads the two parameters, or names the one that is missing.
    fn read(request: &Request, from: &str, to: &str) -> Result<Self, Reply> {
        let read = |key: &str| request.query(key).and_then(time).ok_or_else(|| missing(key));
        Ok(Self { from: read(from)?, to: read(to)? })
    }

    /// The beginnings of its intervals.
    fn intervals(self, length: TimeDelta) -> impl Iterator<Item = DateTime<Utc>> {
        let next = move |time: &DateTime<Utc>| time.checked_add_signed(length);
        std::iter::successors(Some(self.from), next)
            .take_while(move |time| *time < self.to)
            .take(MOST_POINTS)
    }
}

impl World {
    /// Operations on statistics.
    pub(super) fn route_statistics(&mut self, rest: &[&str], request: &Request) -> Reply {
        self.statistics(rest, request).unwrap_or_else(|refusal| refusal)
    }

    /// Chooses among the forms: samples, charts, totals, counts.
    fn statistics(&self, rest: &[&str], request: &Request) -> Result<Reply, Reply> {
        match rest {
            ["ffprobe"] => self.ffprobe(request),
            ["heatmap"] => heatmap(request),
            ["stream" | "reseller" | "vod" | "max_stream" | "storage", ..]
                if rest.last() != Some(&"total") =>
            {
                self.chart(rest, request)
            }
            [group @ ("stream" | "vod"), "watching_duration", "total"] => {
                let by = if *group == "vod" { "slug" } else { "stream_id" };
                let row = json!({"client": CLIENT_ID, "duration": 0, by: request.query(by)});
                Ok(Reply::ok(json!([without_nulls(row)])))
            }
            _ => self.counts(rest, request),
        }
    }

    /// A sample for each interval in which a stream was alive.
    fn ffprobe(&self, request: &Request) -> Result<Reply, Reply> {
        let span = Span::read(request, "date_from", "date_to")?;
        let id = request.query("stream_id").ok_or_else(|| missing("stream_id"))?;
        let number = request.query("interval").and_then(|text| text.parse().ok()).unwrap_or(10);
        let unit = match request.query("units").unwrap_or("second") {
            "second" => 1,
            "minute" => 60,
            "hour" => 3600,
            _ => 86_400,
        };
        let length = TimeDelta::seconds(unit * i64::clamp(number, 1, 86_400));
        let stream = id.parse().ok().and_then(|id: i64| self.streams.get(&id));
        let alive = |begin: &DateTime<Utc>| {
            stream.is_some_and(|stream| stream.was_alive(*begin, *begin + length))
        };
        let sample = |begin: DateTime<Utc>| {
            json!({
                "time": begin.format("%Y-%m-%d %H:%M:%S").to_string(),
                "avg_bitrate": 3500.5,
                "sum_frames": length.num_seconds() * 30,
                "max_height": 1080,
                "max_fps": 30,
                "max_keyframe_interval": 2,
            })
        };
        let data: Value = span.intervals(length).filter(alive).map(sample).collect();
        Ok(Reply::ok(json!({"data": data})))
    }

    /// A chart: a value for each interval.
    fn chart(&self, rest: &[&str], request: &Request) -> Result<Reply, Reply> {
        let from = request.query("from").and_then(time).ok_or_else(|| missing("from"))?;
        let to = request.query("to").and_then(time).unwrap_or(self.now);
        let length = match request.query("granularity").unwrap_or("1h") {
            "1m" => TimeDelta::minutes(1),
            "5m" => TimeDelta::minutes(5),
            "15m" => TimeDelta::minutes(15),
            "1d" => TimeDelta::days(1),
            "1mo" => TimeDelta::days(30),
            _ => TimeDelta::hours(1),
        };
        let alive = |begin: DateTime<Utc>| {
            self.streams.values().filter(|one| one.was_alive(begin, begin + length)).count()
        };
        let made = |begin: DateTime<Utc>| {
            let until = begin + length;
            self.videos.values().filter(|video| video.created_at < until).count()
        };
        let pair = |begin: DateTime<Utc>, value: usize| json!([begin.timestamp(), value]);
        let intervals = Span { from, to }.intervals(length);
        let metrics = match rest {
            ["storage"] => {
                let points: Vec<Value> =
                    intervals.map(|at| pair(at, made(at) * 29_260_881)).collect();
                let most = points.last().cloned().unwrap_or_else(|| json!([]));
                json!({"storage": points, "max_volume_usage": most})
            }
            ["vod", ..] => {
                json!({"vod": intervals.map(|at| pair(at, made(at))).collect::<Value>()})
            }
            _ => json!({"streams": intervals.map(|at| pair(at, alive(at))).collect::<Value>()}),
        };
        Ok(Reply::ok(json!([{"client": CLIENT_ID, "metrics": metrics}])))
    }

    /// A count by a dimension.
    fn counts(&self, rest: &[&str], request: &Request) -> Result<Reply, Reply> {
        let span = Span::read(request, "date_from", "date_to")?;
        let runs: u64 = self.streams.values().map(|stream| stream.run).sum();
        let date = span.from.format("%Y-%m-%d").to_string();
        let row = match rest {
            ["views"] => json!({"views": runs, "date": date, "type": "live"}),
            ["uniqs"] => json!({"unique_ips": runs, "date": date, "type": "live"}),
            ["cdn", "uniqs"] => json!({"uniqs": runs, "type": "live"}),
            ["countries"] => json!({"views": runs, "country": "LU", "country_name": "Luxembourg"}),
            ["regions"] => json!({"views": runs, "region": "LU-LU", "region_name": "Luxembourg"}),
            ["browsers"] => json!({"views": runs, "browser": "Firefox"}),
            ["systems"] => json!({"views": runs, "os": "Linux"}),
            ["embeds"] => json!({"views": runs, "embed_url": "https://example.com/live"}),
            ["hosts"] => json!({"views": runs, "host": "example.com"}),
            ["popular"] => {
                let rows = self.videos.keys().map(|id| json!({"views": 0, "id": id}));
                return Ok(Reply::ok(json!({"data": rows.collect::<Value>()})));
            }
            _ => return Err(Reply::not_found()),
        };
        Ok(Reply::ok(json!({"data": [row]})))
    }
}

impl LiveStream {
    /// Whether it was live at any time between two moments.
    fn was_alive(&self, from: DateTime<Utc>, to: DateTime<Utc>) -> bool {
        let overlaps = |(began, ended): &(DateTime<Utc>, Option<DateTime<Utc>>)| {
            *began < to && ended.is_none_or(|ended| ended > from)
        };
        self.lives.iter().any(overlaps)
    }
}

/// How many saw each moment: nobody.
fn heatmap(request: &Request) -> Result<Reply, Reply> {
    let span = Span::read(request, "date_from", "date_to")?;
    request.query("stream_id").ok_or_else(|| missing("stream_id"))?;
    let row = match request.query("type").ok_or_else(|| missing("type"))? {
        "live" => {
            json!({"viewers": 0, "time": span.from.format("%Y-%m-%d %H:%M:%S").to_string()})
        }
        _ => json!({"viewers": 0, "seconds": 0}),
    };
    Ok(Reply::ok(json!({"data": [row]})))
}

/// Reads a time: ISO 8601, with or without zone, or a day.
fn time(text: &str) -> Option<DateTime<Utc>> {
    let zoned = DateTime::parse_from_rfc3339(text).map(|time| time.to_utc());
    let bare =
        || NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S").map(|time| time.and_utc());
    let day = || NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.and_hms_opt(0, 0, 0);
    zoned.or_else(|_| bare()).ok().or_else(|| day().map(|time| time.and_utc()))
}

/// 400 in shape D.
fn missing(parameter: &str) -> Reply {
    let text = format!("{parameter}: query param is not set");
    Reply { status: 400, body: error_body(ErrorShape::D, 400, &text) }
}

/// An object without its null fields.
fn without_nulls(mut value: Value) -> Value {
    if let Value::Object(fields) = &mut value {
        fields.retain(|_, value| !value.is_null());
    }
    value
}
