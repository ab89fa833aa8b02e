//! The recordings of sessions that are over: what the rare sweep goes through, and what is known of
//! their videos by now. Not its job: judging what is otherwise, which `domain::reconcile` does.

use std::collections::BTreeMap;

use domain::ids::{LiveStreamId, Subject, Timestamp, VideoId};
use domain::view::SessionDetail;
use uuid::Uuid;

use crate::{AfterSession, Error, Store};

/// A session that is over, with the videos of its recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedSession {
    /// The session.
    pub session: Uuid,
    /// Its live stream.
    pub live_stream: LiveStreamId,
    /// When it ended.
    pub ended_at: Timestamp,
    /// Its recording is incomplete, and no part of it says why: a file never became a video.
    pub lacks_file: bool,
    /// The videos of its recording that were not deleted by then, each with its status.
    pub videos: Vec<(VideoId, String)>,
}

impl EndedSession {
    /// The session of a row.
    pub(crate) fn of(
        (session, live_stream): (Uuid, LiveStreamId),
        ended_at: Timestamp,
        detail: &SessionDetail,
    ) -> Self {
        let is_incomplete = detail.recording.as_deref() == Some("incomplete");
        let lacks_file = is_incomplete && detail.parts.iter().all(|part| part.status == "ready");
        let parts = detail.parts.iter().filter(|part| part.status != "deleted");
        let videos = parts.map(|part| (part.video, part.status.clone())).collect();
        Self { session, live_stream, ended_at, lacks_file, videos }
    }
}

impl Store {
    /// Sessions of a source that are over and come after `after` in the order of their ends.
    pub async fn ended_sessions(
        &self,
        source: &str,
        after: AfterSession,
        limit: i64,
    ) -> Result<Vec<EndedSession>, Error> {
        let rows = sqlx::query!(
            "SELECT session_id, live_stream_id, status_at, detail FROM tallylight.session
              WHERE source = $1 AND status = 'ended' AND (status_at, session_id) > ($2, $3)
              ORDER BY status_at, session_id LIMIT $4",
            source,
            after.0,
            after.1,
            limit,
        )
        .fetch_all(&self.pool)
        .await?;
        let session =
            |id: Uuid, stream, at, detail| {
                let detail = serde_json::from_value(detail).map_err(|source| {
                    Error::Inconsistent { table: "session", row: id.to_string(), source }
                })?;
                Ok(EndedSession::of((id, LiveStreamId(stream)), at, &detail))
            };
        rows.into_iter()
            .map(|row| session(row.session_id, row.live_stream_id, row.status_at, row.detail))
            .collect()
    }

    /// How far videos are by what was told of each by itself; those of which nothing was are left
    /// out.
    pub async fn video_statuses(
        &self,
        source: &str,
        videos: &[VideoId],
    ) -> Result<BTreeMap<VideoId, String>, Error> {
        if videos.is_empty() {
            return Ok(BTreeMap::new());
        }
        let slice = |video: &VideoId| self.slice_of(&Subject::video(source, *video));
        let slices: Vec<i16> = videos.iter().map(slice).collect();
        let ids: Vec<i64> = videos.iter().map(|video| video.0).collect();
        let rows = sqlx::query!(
            "SELECT v.video_id, v.status
               FROM unnest($1::smallint[], $2::bigint[]) AS u (slice, id)
               JOIN tallylight.video v
                 ON v.slice = u.slice AND v.source = $3 AND v.video_id = u.id",
            &slices,
            &ids,
            source,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(|row| (VideoId(row.video_id), row.status)).collect())
    }
}
