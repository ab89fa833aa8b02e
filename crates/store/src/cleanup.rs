//! What cleanup runs ask: which live streams and recordings may go, and who made a live stream.
//!
//! Not the job of this module: judging them, which `domain::cleanup` does on these facts and on
//! what the platform says. Once a day or so, and never on a hot path.

use std::time::Duration;

use domain::cleanup::{InactiveFacts, Maker, RecordingFacts};
use domain::ids::{LiveStreamId, Subject, Timestamp, VideoId, intent_id};
use uuid::Uuid;

use crate::{Error, Store};

/// Calls of one request: what makes its live stream, and what is tried again after a failure.
const CALLS: u64 = 32;

/// Requests looked at in one go when the maker of a live stream is sought.
const PAGE: i64 = 1_000;

/// Most of such pages: a maker beyond them is unknown, which keeps the live stream.
const PAGES: usize = 100;

/// How far the platform's clock may be behind ours.
const CLOCKS_DIFFER: Duration = Duration::from_hours(1);

/// Ended sessions with recordings: what comes after them on the next page.
pub type AfterSession = (Timestamp, Uuid);

impl Store {
    /// Live streams of deleted accounts that are not known to be deleted, the longest idle first.
    pub async fn inactive_live_streams(
        &self,
        source: &str,
        limit: i64,
    ) -> Result<Vec<InactiveFacts>, Error> {
        let rows = sqlx::query!(
            r#"SELECT l.live_stream_id, a.account, l.installation = $2 AS is_ours, l.live, l.active,
                      nullif(l.idle_since, 'infinity') AS idle_since
                 FROM tallylight.live_stream l
                 JOIN tallylight.account a ON a.source = l.source AND a.account = l.account
                WHERE l.source = $1 AND a.deleted_at IS NOT NULL AND NOT l.deleted
                ORDER BY l.idle_since, l.live_stream_id LIMIT $3"#,
            source,
            self.installation,
            limit,
        )
        .fetch_all(&self.pool)
        .await?;
        let facts = rows.into_iter().map(|r| InactiveFacts {
            live_stream: LiveStreamId(r.live_stream_id),
            account: r.account,
            is_ours: r.is_ours == Some(true),
            live: r.live,
            active: r.active,
            idle_since: r.idle_since,
        });
        Ok(facts.collect())
    }

    /// Recordings of sessions that ended at or before `ended_by` and after `after` in order, the
    /// longest ago first; sessions without videos are left out.
    pub async fn ended_recordings(
        &self,
        source: &str,
        ended_by: Timestamp,
        after: Option<AfterSession>,
        limit: i64,
    ) -> Result<Vec<RecordingFacts>, Error> {
        let (after_at, after_id) = after.unzip();
        let rows = sqlx::query!(
            r#"SELECT s.session_id, s.live_stream_id, s.account, s.status_at, v.videos AS "videos!"
                 FROM tallylight.session s
                CROSS JOIN LATERAL (
                      SELECT array_agg((p ->> 'video')::bigint ORDER BY (p ->> 'video')::bigint) AS videos
                        FROM jsonb_array_elements(s.detail -> 'parts') p
                       WHERE p ->> 'status' <> 'deleted' AND NOT EXISTS (
                             SELECT FROM tallylight.video g
                              WHERE g.slice = tallylight.slice_of(s.source || '/video/' || (p ->> 'video'), $6)
                                AND g.source = s.source AND g.video_id = (p ->> 'video')::bigint
                                AND g.status = 'deleted')) v
                WHERE s.source = $1 AND s.status = 'ended' AND s.status_at <= $2
                  AND (s.status_at, s.session_id)
                    > (coalesce($3::timestamptz, '-infinity'),
                       coalesce($4::uuid, '00000000-0000-0000-0000-000000000000'))
                  AND v.videos IS NOT NULL
                ORDER BY s.status_at, s.session_id LIMIT $5"#,
            source,
            ended_by,
            after_at,
            after_id,
            limit,
            self.slices().get(),
        )
        .fetch_all(&self.pool)
        .await?;
        let facts = rows.into_iter().map(|r| RecordingFacts {
            session: r.session_id,
            live_stream: LiveStreamId(r.live_stream_id),
            account: r.account,
            ended_at: r.status_at,
            videos: r.videos.into_iter().map(VideoId).collect(),
        });
        Ok(facts.collect())
    }

    /// Who made a live stream, by `key` of its tag: the id of one of its request's first calls.
    /// Requests that came after `made_at` are not looked at.
    pub async fn maker_of(
        &self,
        source: &str,
        live_stream: LiveStreamId,
        key: Uuid,
        made_at: Timestamp,
    ) -> Result<Maker, Error> {
        let session = sqlx::query_scalar!(
            "SELECT session_id FROM tallylight.session
              WHERE source = $1 AND live_stream_id = $2 LIMIT 1",
            source,
            live_stream.0,
        )
        .fetch_optional(&self.pool)
        .await?;
        if let Some(session) = session {
            return Ok(Maker::Has(session));
        }
        let mut before = (made_at + CLOCKS_DIFFER, Uuid::max());
        for _ in 0..PAGES {
            let rows = sqlx::query!(
                "SELECT session_id, live_stream_id, status, requested_at
                   FROM tallylight.session_request
                  WHERE source = $1 AND (requested_at, session_id) < ($2, $3)
                  ORDER BY requested_at DESC, session_id DESC LIMIT $4",
                source,
                before.0,
                before.1,
                PAGE,
            )
            .fetch_all(&self.pool)
            .await?;
            if let Some(row) = rows.iter().find(|row| made(source, row.session_id, key)) {
                let session = row.session_id;
                return Ok(match row.live_stream_id {
                    Some(id) if id == live_stream.0 => Maker::Has(session),
                    Some(_) => Maker::Left(session),
                    None if row.status == "ended" => Maker::Left(session),
                    None => Maker::MayTake(session),
                });
            }
            let Some(last) = rows.last() else { break };
            before = (last.requested_at, last.session_id);
        }
        Ok(Maker::Unknown)
    }

    /// Whether nothing is left to apply that is older than `within`, and nothing is set aside: what
    /// the projections do not know then is not in the log.
    pub async fn is_caught_up(&self, within: Duration) -> Result<bool, Error> {
        let within = i64::try_from(within.as_millis()).unwrap_or(i64::MAX);
        let slices = self.slice_status().await?;
        let is_well = |s: &crate::SliceStatus| {
            s.parked == 0 && !s.has_hole() && s.waits_ms.is_none_or(|waits| waits <= within)
        };
        Ok(slices.iter().all(is_well))
    }
}

/// Whether the request of `session` made what carries `key`.
fn made(source: &str, session: Uuid, key: Uuid) -> bool {
    let subject = Subject::request(source, session);
    (0..CALLS).any(|n| intent_id(&subject, n) == key)
}
