//! What the API and the commands read: sessions, live streams, progress. Never on a hot path.

use domain::ids::{LiveStreamId, Subject, Timestamp, VideoId};
use domain::quota::Quota;
use domain::state::Body;
use domain::view::{RequestRow, SessionDetail};
use serde_json::Value;
use uuid::Uuid;

use crate::consumer::Consumer;
use crate::{Error, Store};

/// Which sessions to list.
#[derive(Debug, Clone, Default)]
pub struct SessionFilter {
    /// Only of this platform account.
    pub source: Option<String>,
    /// Only of this account of the product.
    pub account: Option<String>,
    /// Only with this status.
    pub status: Option<String>,
}

/// A page of a list, the latest first.
#[derive(Debug, Clone)]
pub struct Page {
    /// Most rows.
    pub limit: i64,
    /// Only sessions before this one: the last of the page before.
    pub before: Option<(Timestamp, Uuid)>,
}

/// A session as the projections know it.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionView {
    /// Its id.
    pub id: Uuid,
    /// The platform account.
    pub source: String,
    /// The product's account.
    pub account: Option<String>,
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub status: String,
    /// Its live stream, once known.
    pub live_stream: Option<LiveStreamId>,
    /// When it was asked for.
    pub requested_at: Timestamp,
    /// Why its live stream could not be made.
    pub failure: Option<String>,
    /// The rest, once it has its live stream.
    pub detail: Option<SessionDetail>,
}

impl SessionView {
    /// A session of which its request alone tells.
    pub(crate) fn requested(row: RequestRow) -> Self {
        Self {
            id: row.session,
            source: row.source,
            account: row.account,
            name: row.name,
            status: row.status,
            live_stream: row.live_stream,
            requested_at: row.requested_at,
            failure: row.failure,
            detail: None,
        }
    }

    /// The same session once it is on its live stream.
    pub(crate) fn run(&mut self, row: domain::view::SessionRow) {
        self.status = row.status;
        self.live_stream = Some(row.live_stream);
        self.detail = Some(row.detail);
    }
}

/// A live stream as the projections know it: its row, read back.
pub use domain::view::LiveStreamRow as LiveStreamView;

/// A video as the projections know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VideoView {
    /// Its id.
    pub id: i64,
    /// Its status.
    pub status: String,
}

/// Progress of the consumer `react` on a slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SliceStatus {
    /// The slice.
    pub slice: i16,
    /// Its last position.
    pub head: i64,
    /// The last applied position.
    pub position: i64,
    /// Since when the first event that is not applied waits, in milliseconds; `None` while the
    /// head is ahead: that event is missing, see [`SliceStatus::has_hole`].
    pub waits_ms: Option<i64>,
    /// Who holds it; none where its lease has ended.
    pub owner: Option<Uuid>,
    /// Raised at every change of hands.
    pub epoch: i64,
    /// Events set aside that wait.
    pub parked: i64,
}

impl SliceStatus {
    /// Events that are not applied yet.
    pub fn lag(&self) -> i64 {
        self.head - self.position
    }

    /// Whether the next event is missing although the head has passed it.
    pub fn has_hole(&self) -> bool {
        self.lag() > 0 && self.waits_ms.is_none()
    }
}

/// Facts that a check of the set-up asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HealthFacts {
    /// Whether commits are durable.
    pub fsync: bool,
    /// Events outside of the monthly partitions; should be 0.
    pub default_partition_rows: i64,
    /// The database's clock.
    pub now: Timestamp,
}

impl Store {
    /// Facts that a check of the set-up asks for.
    pub async fn health_facts(&self) -> Result<HealthFacts, Error> {
        let row = sqlx::query!(
            r#"SELECT current_setting('fsync') = 'on' AS "fsync!",
                      (SELECT count(*) FROM tallylight.event_default) AS "rows!",
                      clock_timestamp() AS "now!""#
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(HealthFacts { fsync: row.fsync, default_partition_rows: row.rows, now: row.now })
    }

    /// Lists sessions, the latest first.
    pub async fn sessions(
        &self,
        filter: &SessionFilter,
        page: &Page,
    ) -> Result<Vec<SessionView>, Error> {
        let (before_at, before_id) = page.before.unzip();
        let accounts = match &filter.account {
            Some(account) => Some(self.names_of(account).await?),
            None => None,
        };
        let rows = sqlx::query_as!(
            SessionRow,
            r#"SELECT r.session_id, r.source, r.account, r.name,
                      coalesce(s.status, r.status) AS "status!",
                      coalesce(s.live_stream_id, r.live_stream_id) AS live_stream_id,
                      r.requested_at, r.failure, s.detail AS "detail?"
                 FROM tallylight.session_request r
                 LEFT JOIN tallylight.session s ON s.session_id = r.session_id
                WHERE ($1::text IS NULL OR r.source = $1)
                  AND ($2::text[] IS NULL OR r.account = ANY ($2))
                  AND ($3::text IS NULL OR coalesce(s.status, r.status) = $3)
                  AND (r.requested_at, r.session_id)
                  < (coalesce($4::timestamptz, 'infinity'),
                     coalesce($5::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
                ORDER BY r.requested_at DESC, r.session_id DESC LIMIT $6"#,
            filter.source,
            accounts.as_deref(),
            filter.status,
            before_at,
            before_id,
            page.limit,
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter().map(SessionRow::view).collect()
    }

    /// A session, if the projections know it already. Of one that is over, its videos are told as
    /// they are by now; a list tells them as they were when it was folded last.
    pub async fn session(&self, id: Uuid) -> Result<Option<SessionView>, Error> {
        let row = sqlx::query_as!(
            SessionRow,
            r#"SELECT r.session_id, r.source, r.account, r.name,
                      coalesce(s.status, r.status) AS "status!",
                      coalesce(s.live_stream_id, r.live_stream_id) AS live_stream_id,
                      r.requested_at, r.failure, s.detail AS "detail?"
                 FROM tallylight.session_request r
                 LEFT JOIN tallylight.session s ON s.session_id = r.session_id
                WHERE r.session_id = $1"#,
            id,
        )
        .fetch_optional(&self.pool)
        .await?;
        let mut view = row.map(SessionRow::view).transpose()?;
        if let Some(view) = view.as_mut().filter(|view| view.status == "ended")
            && let Some(detail) = view.detail.as_mut()
        {
            // Its videos go on without it.
            let videos: Vec<VideoId> = detail.parts.iter().map(|part| part.video).collect();
            detail.hear(&self.video_statuses(&view.source, &videos).await?);
        }
        Ok(view)
    }

    /// The quota of active live streams of a source; `None`: nobody has asked for a slot yet.
    pub async fn quota(&self, source: &str) -> Result<Option<Quota>, Error> {
        let subject = Subject::quota(source);
        let slice = self.slice_of(&subject);
        let mut states = self.load_states(slice, std::slice::from_ref(&subject)).await?;
        let body = states.remove(&subject).map(|state| state.body);
        Ok(if let Some(Body::Quota(quota)) = body { Some(quota) } else { None })
    }

    /// The place of a session in the queue for a slot, from 1; `None`: it does not wait for one.
    pub async fn slot_place(&self, session: &SessionView) -> Result<Option<u64>, Error> {
        let waits = session.detail.as_ref().is_some_and(|d| d.waits_for_slot.is_some());
        if !waits {
            return Ok(None);
        }
        Ok(self.quota(&session.source).await?.and_then(|quota| quota.place(session.id)))
    }

    /// Lists live streams by id and source, those behind `after`; `source` and `account` narrow.
    pub async fn live_streams(
        &self,
        source: Option<&str>,
        account: Option<&str>,
        after: Option<(LiveStreamId, &str)>,
        limit: i64,
    ) -> Result<Vec<LiveStreamView>, Error> {
        let (id, of) = after.map_or((i64::MIN, ""), |(id, source)| (id.0, source));
        let accounts = match account {
            Some(account) => Some(self.names_of(account).await?),
            None => None,
        };
        let rows = sqlx::query_as!(
            LiveStreamRow,
            "SELECT source, live_stream_id, account, installation, active, live, idle_since, deleted,
                    hls_url, dash_url, iframe_url
               FROM tallylight.live_stream
              WHERE ($1::text IS NULL OR source = $1) AND ($2::text[] IS NULL OR account = ANY ($2))
                AND (live_stream_id, source) > ($3, $4)
              ORDER BY live_stream_id, source LIMIT $5",
            source,
            accounts.as_deref(),
            id,
            of,
            limit,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(LiveStreamView::from).collect())
    }

    /// A live stream.
    pub async fn live_stream(
        &self,
        source: &str,
        id: LiveStreamId,
    ) -> Result<Option<LiveStreamView>, Error> {
        let row = sqlx::query_as!(
            LiveStreamRow,
            "SELECT source, live_stream_id, account, installation, active, live, idle_since, deleted,
                    hls_url, dash_url, iframe_url
               FROM tallylight.live_stream
              WHERE slice = $1 AND source = $2 AND live_stream_id = $3",
            self.slice_of(&Subject::live_stream(source, id)),
            source,
            id.0,
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(row.map(LiveStreamView::from))
    }

    /// Videos recorded from a live stream.
    pub async fn videos(
        &self,
        source: &str,
        live_stream: LiveStreamId,
    ) -> Result<Vec<VideoView>, Error> {
        let rows = sqlx::query!(
            "SELECT video_id, status FROM tallylight.video
              WHERE source = $1 AND live_stream_id = $2 ORDER BY video_id",
            source,
            live_stream.0,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(|r| VideoView { id: r.video_id, status: r.status }).collect())
    }

    /// Progress on every slice.
    pub async fn slice_status(&self) -> Result<Vec<SliceStatus>, Error> {
        let rows = sqlx::query!(
            r#"SELECT h.slice, h.position AS head, c.position, c.epoch,
                      CASE WHEN c.lease_until > now() THEN c.owner END AS owner,
                      (SELECT (extract(epoch FROM clock_timestamp() - e.recorded_at) * 1000)::bigint
                         FROM tallylight.event e
                        WHERE e.slice = h.slice AND e.position = c.position + 1
                          AND e.recorded_at >= c.recorded_at) AS waits_ms,
                      (SELECT count(*) FROM tallylight.parked p
                        WHERE p.consumer = c.consumer AND p.slice = h.slice
                          AND p.skipped_at IS NULL) AS "parked!"
                 FROM tallylight.slice_head h
                 JOIN tallylight.checkpoint c ON c.slice = h.slice AND c.consumer = $1
                ORDER BY h.slice"#,
            Consumer::React.name(),
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows
            .into_iter()
            .map(|r| SliceStatus {
                slice: r.slice,
                head: r.head,
                position: r.position,
                waits_ms: r.waits_ms,
                owner: r.owner,
                epoch: r.epoch,
                parked: r.parked,
            })
            .collect())
    }
}

struct SessionRow {
    session_id: Uuid,
    source: String,
    account: Option<String>,
    name: String,
    status: String,
    live_stream_id: Option<i64>,
    requested_at: Timestamp,
    failure: Option<String>,
    detail: Option<Value>,
}

impl SessionRow {
    fn view(self) -> Result<SessionView, Error> {
        let id = self.session_id;
        let detail = self.detail.map(serde_json::from_value).transpose().map_err(|source| {
            Error::Inconsistent { table: "session", row: id.to_string(), source }
        })?;
        Ok(SessionView {
            id,
            source: self.source,
            account: self.account,
            name: self.name,
            status: self.status,
            live_stream: self.live_stream_id.map(LiveStreamId),
            requested_at: self.requested_at,
            failure: self.failure,
            detail,
        })
    }
}

struct LiveStreamRow {
    source: String,
    live_stream_id: i64,
    account: Option<String>,
    installation: Option<Uuid>,
    active: Option<bool>,
    live: bool,
    idle_since: Option<Timestamp>,
    deleted: bool,
    hls_url: Option<String>,
    dash_url: Option<String>,
    iframe_url: Option<String>,
}

impl From<LiveStreamRow> for LiveStreamView {
    fn from(row: LiveStreamRow) -> Self {
        Self {
            source: row.source,
            id: LiveStreamId(row.live_stream_id),
            account: row.account,
            installation: row.installation,
            active: row.active,
            live: row.live,
            idle_since: row.idle_since,
            deleted: row.deleted,
            hls_url: row.hls_url,
            dash_url: row.dash_url,
            iframe_url: row.iframe_url,
        }
    }
}
