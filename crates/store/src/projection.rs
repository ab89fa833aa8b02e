//! Folded states and rows of the projections: written by reactions and by rebuilds, alike.

use std::collections::HashMap;

use domain::ids::Subject;
use domain::state::State;
use domain::view::Row;
use serde_json::{Value, json};
use sqlx::PgConnection;

use crate::{Error, Store};

impl Store {
    /// The states of `subjects`, all of `slice`; those without one are left out.
    pub async fn load_states(
        &self,
        slice: i16,
        subjects: &[Subject],
    ) -> Result<HashMap<Subject, State>, Error> {
        let subjects: Vec<&str> = subjects.iter().map(Subject::as_str).collect();
        let rows = sqlx::query!(
            "SELECT subject, state FROM tallylight.subject_state
              WHERE slice = $1 AND subject = ANY ($2)",
            slice,
            &subjects as &[&str],
        )
        .fetch_all(&self.pool)
        .await?;
        let read =
            |subject: String, state: Value| {
                let state = serde_json::from_value(state).map_err(|source| {
                    Error::Inconsistent { table: "subject_state", row: subject.clone(), source }
                })?;
                Ok((Subject::from_stored(subject), state))
            };
        rows.into_iter().map(|row| read(row.subject, row.state)).collect()
    }
}

/// Writes states. What is equal already is not written, so a rebuild that mends nothing costs
/// reads alone.
pub(crate) async fn upsert_states(
    connection: &mut PgConnection,
    slice: i16,
    states: &[(Subject, State, i64)],
) -> Result<(), Error> {
    if states.is_empty() {
        return Ok(());
    }
    let mut subjects = Vec::with_capacity(states.len());
    let mut bodies = Vec::with_capacity(states.len());
    let mut positions = Vec::with_capacity(states.len());
    for (subject, state, position) in states {
        subjects.push(subject.as_str());
        positions.push(*position);
        bodies.push(serde_json::to_value(state).map_err(|source| Error::Inconsistent {
            table: "subject_state",
            row: subject.to_string(),
            source,
        })?);
    }
    sqlx::query!(
        "INSERT INTO tallylight.subject_state AS present (slice, subject, state, position)
         SELECT $1, u.subject, u.state, u.position
           FROM unnest($2::text[], $3::jsonb[], $4::bigint[]) AS u (subject, state, position)
         ON CONFLICT (slice, subject)
         DO UPDATE SET state = excluded.state, position = excluded.position
          WHERE present IS DISTINCT FROM excluded",
        slice,
        &subjects as &[&str],
        &bodies,
        &positions,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Rows as JSON, one list per table.
#[derive(Default)]
pub(crate) struct Tables {
    requests: Vec<Value>,
    sessions: Vec<Value>,
    live_streams: Vec<Value>,
    videos: Vec<Value>,
    accounts: Vec<Value>,
}

impl Tables {
    /// The lists with the names of their tables.
    pub(crate) fn into_lists(self) -> [(&'static str, Vec<Value>); 5] {
        [
            ("session_request", self.requests),
            ("session", self.sessions),
            ("live_stream", self.live_streams),
            ("video", self.videos),
            ("account", self.accounts),
        ]
    }

    pub(crate) fn add(&mut self, row: &Row, position: i64) {
        match row {
            Row::Request(r) => self.requests.push(json!({
                "session_id": r.session, "source": r.source, "account": r.account, "name": r.name,
                "status": r.status, "failure": r.failure, "live_stream_id": r.live_stream,
                "requested_at": r.requested_at, "position": position,
            })),
            Row::Session(r) => self.sessions.push(json!({
                "session_id": r.session, "source": r.source, "account": r.account,
                "live_stream_id": r.live_stream, "status": r.status, "status_at": r.status_at,
                "detail": r.detail, "position": position,
            })),
            Row::LiveStream(r) => self.live_streams.push(json!({
                "source": r.source, "live_stream_id": r.id, "account": r.account,
                "installation": r.installation, "active": r.active, "live": r.live,
                "idle_since": r.idle_since, "deleted": r.deleted, "hls_url": r.hls_url,
                "dash_url": r.dash_url, "iframe_url": r.iframe_url, "position": position,
            })),
            Row::Video(r) => self.videos.push(json!({
                "source": r.source, "video_id": r.id, "live_stream_id": r.live_stream,
                "status": r.status, "duration_ms": r.duration_ms, "position": position,
            })),
            Row::Account(r) => self.accounts.push(json!({
                "source": r.source, "account": r.id, "deleted_at": r.deleted_at,
                "position": position,
            })),
        }
    }
}

/// Writes rows; each key at most once.
pub(crate) async fn upsert_rows(
    connection: &mut PgConnection,
    slice: i16,
    rows: &[(Row, i64)],
) -> Result<(), Error> {
    let mut tables = Tables::default();
    for (row, position) in rows {
        tables.add(row, *position);
    }
    upsert_sessions(connection, slice, tables.requests, tables.sessions).await?;
    upsert_objects(connection, slice, tables.live_streams, tables.videos).await?;
    if !tables.accounts.is_empty() {
        sqlx::query!(
            "INSERT INTO tallylight.account AS present
             SELECT $1, r.* FROM jsonb_to_recordset($2)
                 AS r (source text, account text, deleted_at timestamptz, position bigint)
             ON CONFLICT (slice, source, account)
             DO UPDATE SET deleted_at = excluded.deleted_at, position = excluded.position
              WHERE present IS DISTINCT FROM excluded",
            slice,
            Value::Array(tables.accounts),
        )
        .execute(connection)
        .await?;
    }
    Ok(())
}

async fn upsert_sessions(
    connection: &mut PgConnection,
    slice: i16,
    requests: Vec<Value>,
    sessions: Vec<Value>,
) -> Result<(), Error> {
    if !requests.is_empty() {
        sqlx::query!(
            "INSERT INTO tallylight.session_request AS present
             SELECT $1, r.* FROM jsonb_to_recordset($2)
                 AS r (session_id uuid, source text, account text, name text, status text,
                       failure text, live_stream_id bigint, requested_at timestamptz,
                       position bigint)
             ON CONFLICT (slice, session_id)
             DO UPDATE SET source = excluded.source, account = excluded.account,
                           name = excluded.name, status = excluded.status,
                           failure = excluded.failure, live_stream_id = excluded.live_stream_id,
                           requested_at = excluded.requested_at, position = excluded.position
              WHERE present IS DISTINCT FROM excluded",
            slice,
            Value::Array(requests),
        )
        .execute(&mut *connection)
        .await?;
    }
    if !sessions.is_empty() {
        sqlx::query!(
            "INSERT INTO tallylight.session AS present
             SELECT $1, r.* FROM jsonb_to_recordset($2)
                 AS r (session_id uuid, source text, account text, live_stream_id bigint,
                       status text, status_at timestamptz, detail jsonb, position bigint)
             ON CONFLICT (slice, session_id)
             DO UPDATE SET source = excluded.source, account = excluded.account,
                           live_stream_id = excluded.live_stream_id, status = excluded.status, status_at = excluded.status_at,
                           detail = excluded.detail, position = excluded.position
              WHERE present IS DISTINCT FROM excluded",
            slice,
            Value::Array(sessions),
        )
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

async fn upsert_objects(
    connection: &mut PgConnection,
    slice: i16,
    live_streams: Vec<Value>,
    videos: Vec<Value>,
) -> Result<(), Error> {
    if !live_streams.is_empty() {
        sqlx::query!(
            "INSERT INTO tallylight.live_stream AS present
             SELECT $1, r.* FROM jsonb_to_recordset($2)
                 AS r (source text, live_stream_id bigint, account text, installation uuid,
                       active boolean, live boolean, idle_since timestamptz, deleted boolean,
                       hls_url text, dash_url text, iframe_url text, position bigint)
             ON CONFLICT (slice, source, live_stream_id)
             DO UPDATE SET account = excluded.account, installation = excluded.installation,
                           active = excluded.active, live = excluded.live,
                           idle_since = excluded.idle_since, deleted = excluded.deleted,
                           hls_url = excluded.hls_url, dash_url = excluded.dash_url,
                           iframe_url = excluded.iframe_url, position = excluded.position
              WHERE present IS DISTINCT FROM excluded",
            slice,
            Value::Array(live_streams),
        )
        .execute(&mut *connection)
        .await?;
    }
    if !videos.is_empty() {
        sqlx::query!(
            "INSERT INTO tallylight.video AS present
             SELECT $1, r.* FROM jsonb_to_recordset($2)
                 AS r (source text, video_id bigint, live_stream_id bigint, status text,
                       duration_ms bigint, position bigint)
             ON CONFLICT (slice, source, video_id)
             DO UPDATE SET live_stream_id = excluded.live_stream_id, status = excluded.status,
                           duration_ms = excluded.duration_ms, position = excluded.position
              WHERE present IS DISTINCT FROM excluded",
            slice,
            Value::Array(videos),
        )
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}
