//! Folded states and rows of the projections: written by reactions and by rebuilds, alike.

use std::collections::HashMap;

use domain::ids::{Subject, Timestamp};
use domain::state::State;
use domain::view::{AccountRow, LiveStreamRow, RequestRow, Row, SessionRow, VideoRow};
use sqlx::PgConnection;
use uuid::Uuid;

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
            // As text, which is read straight into a state.
            r#"SELECT subject, state::text AS "state!" FROM tallylight.subject_state
                WHERE slice = $1 AND subject = ANY ($2)"#,
            slice,
            &subjects as &[&str],
        )
        .fetch_all(&self.pool)
        .await?;
        let read = |subject: String, state: &str| {
            let state = serde_json::from_str(state).map_err(|source| Error::Inconsistent {
                table: "subject_state",
                row: subject.clone(),
                source,
            })?;
            Ok((Subject::from_stored(subject), state))
        };
        rows.into_iter().map(|row| read(row.subject, &row.state)).collect()
    }
}

/// Writes states, each of its slice. What is equal already is not written, so a rebuild that mends nothing costs
/// reads alone.
pub(crate) async fn upsert_states(
    connection: &mut PgConnection,
    states: &[(i16, &(Subject, State, i64))],
) -> Result<(), Error> {
    if states.is_empty() {
        return Ok(());
    }
    let slices: Vec<i16> = states.iter().map(|(slice, _)| *slice).collect();
    let mut subjects = Vec::with_capacity(states.len());
    let mut bodies = Vec::with_capacity(states.len());
    let mut positions = Vec::with_capacity(states.len());
    for (_, (subject, state, position)) in states {
        subjects.push(subject.as_str());
        positions.push(*position);
        bodies.push(json("subject_state", subject, state)?);
    }
    sqlx::query!(
        "INSERT INTO tallylight.subject_state AS present (slice, subject, state, position)
         SELECT u.slice, u.subject, u.state::jsonb, u.position
           FROM unnest($1::smallint[], $2::text[], $3::text[], $4::bigint[])
             AS u (slice, subject, state, position)
         ON CONFLICT (slice, subject)
         DO UPDATE SET state = excluded.state, position = excluded.position
          WHERE present IS DISTINCT FROM excluded",
        &slices,
        &subjects as &[&str],
        &bodies,
        &positions,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// A value as the text of a `jsonb`.
fn json(
    table: &'static str,
    row: &impl ToString,
    value: &impl serde::Serialize,
) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|source| Error::Inconsistent {
        table,
        row: row.to_string(),
        source,
    })
}

/// A row of a slice, with the position it follows from.
struct Placed<'a, R> {
    slice: i16,
    row: &'a R,
    position: i64,
}

/// Rows by their table.
#[derive(Default)]
struct Tables<'a> {
    requests: Vec<Placed<'a, RequestRow>>,
    sessions: Vec<Placed<'a, SessionRow>>,
    live_streams: Vec<Placed<'a, LiveStreamRow>>,
    videos: Vec<Placed<'a, VideoRow>>,
    accounts: Vec<Placed<'a, AccountRow>>,
}

impl<'a> Tables<'a> {
    fn of(rows: &[(i16, &'a (Row, i64))]) -> Self {
        let mut tables = Self::default();
        for (slice, (row, position)) in rows {
            let (slice, position) = (*slice, *position);
            match row {
                Row::Request(row) => tables.requests.push(Placed { slice, row, position }),
                Row::Session(row) => tables.sessions.push(Placed { slice, row, position }),
                Row::LiveStream(row) => tables.live_streams.push(Placed { slice, row, position }),
                Row::Video(row) => tables.videos.push(Placed { slice, row, position }),
                Row::Account(row) => tables.accounts.push(Placed { slice, row, position }),
            }
        }
        tables
    }
}

/// One column of rows: what `value` takes of each.
fn column<'a, R, T>(rows: &[Placed<'a, R>], value: impl Fn(&'a R) -> T) -> Vec<T> {
    rows.iter().map(|placed| value(placed.row)).collect()
}

/// The slices of rows.
fn slices<R>(rows: &[Placed<'_, R>]) -> Vec<i16> {
    rows.iter().map(|placed| placed.slice).collect()
}

/// The positions of rows.
fn positions<R>(rows: &[Placed<'_, R>]) -> Vec<i64> {
    rows.iter().map(|placed| placed.position).collect()
}

/// Writes rows; each key at most once. One statement for each table that has any.
pub(crate) async fn upsert_rows(
    connection: &mut PgConnection,
    rows: &[(i16, &(Row, i64))],
) -> Result<(), Error> {
    let tables = Tables::of(rows);
    if !tables.requests.is_empty() {
        upsert_requests(connection, &tables.requests).await?;
    }
    if !tables.sessions.is_empty() {
        upsert_sessions(connection, &tables.sessions).await?;
    }
    if !tables.live_streams.is_empty() {
        upsert_live_streams(connection, &tables.live_streams).await?;
    }
    if !tables.videos.is_empty() {
        upsert_videos(connection, &tables.videos).await?;
    }
    if !tables.accounts.is_empty() {
        upsert_accounts(connection, &tables.accounts).await?;
    }
    Ok(())
}

async fn upsert_requests(
    connection: &mut PgConnection,
    rows: &[Placed<'_, RequestRow>],
) -> Result<(), Error> {
    sqlx::query!(
        "INSERT INTO tallylight.session_request AS present
               (slice, session_id, source, account, name, status, failure, live_stream_id,
                requested_at, position)
         SELECT u.* FROM unnest($1::smallint[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[],
                $7::text[], $8::bigint[], $9::timestamptz[], $10::bigint[]) AS u
         ON CONFLICT (slice, session_id)
         DO UPDATE SET source = excluded.source, account = excluded.account,
                       name = excluded.name, status = excluded.status,
                       failure = excluded.failure, live_stream_id = excluded.live_stream_id,
                       requested_at = excluded.requested_at, position = excluded.position
          WHERE present IS DISTINCT FROM excluded",
        &slices(rows),
        &column(rows, |r| r.session),
        &column(rows, |r| r.source.as_str()) as &[&str],
        &column(rows, |r| r.account.as_deref()) as &[Option<&str>],
        &column(rows, |r| r.name.as_str()) as &[&str],
        &column(rows, |r| r.status.as_str()) as &[&str],
        &column(rows, |r| r.failure.as_deref()) as &[Option<&str>],
        &column(rows, |r| r.live_stream.map(|id| id.0)) as &[Option<i64>],
        &column(rows, |r| r.requested_at),
        &positions(rows),
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn upsert_sessions(
    connection: &mut PgConnection,
    rows: &[Placed<'_, SessionRow>],
) -> Result<(), Error> {
    let details: Result<Vec<String>, Error> =
        rows.iter().map(|p| json("session", &p.row.session, &p.row.detail)).collect();
    sqlx::query!(
        "INSERT INTO tallylight.session AS present
               (slice, session_id, source, account, live_stream_id, status, status_at, detail,
                position)
         SELECT u.slice, u.session_id, u.source, u.account, u.live_stream_id, u.status, u.status_at,
                u.detail::jsonb, u.position
           FROM unnest($1::smallint[], $2::uuid[], $3::text[], $4::text[], $5::bigint[],
                       $6::text[], $7::timestamptz[], $8::text[], $9::bigint[])
             AS u (slice, session_id, source, account, live_stream_id, status, status_at, detail,
                   position)
         ON CONFLICT (slice, session_id)
         DO UPDATE SET source = excluded.source, account = excluded.account,
                       live_stream_id = excluded.live_stream_id, status = excluded.status,
                       status_at = excluded.status_at, detail = excluded.detail,
                       position = excluded.position
          WHERE present IS DISTINCT FROM excluded",
        &slices(rows),
        &column(rows, |r| r.session),
        &column(rows, |r| r.source.as_str()) as &[&str],
        &column(rows, |r| r.account.as_deref()) as &[Option<&str>],
        &column(rows, |r| r.live_stream.0),
        &column(rows, |r| r.status.as_str()) as &[&str],
        &column(rows, |r| r.status_at),
        &details?,
        &positions(rows),
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn upsert_live_streams(
    connection: &mut PgConnection,
    rows: &[Placed<'_, LiveStreamRow>],
) -> Result<(), Error> {
    sqlx::query!(
        "INSERT INTO tallylight.live_stream AS present
               (slice, source, live_stream_id, account, installation, active, live, idle_since,
                deleted, hls_url, dash_url, iframe_url, position)
         SELECT u.* FROM unnest($1::smallint[], $2::text[], $3::bigint[], $4::text[], $5::uuid[],
                $6::boolean[], $7::boolean[], $8::timestamptz[], $9::boolean[], $10::text[],
                $11::text[], $12::text[], $13::bigint[]) AS u
         ON CONFLICT (slice, source, live_stream_id)
         DO UPDATE SET account = excluded.account, installation = excluded.installation,
                       active = excluded.active, live = excluded.live,
                       idle_since = excluded.idle_since, deleted = excluded.deleted,
                       hls_url = excluded.hls_url, dash_url = excluded.dash_url,
                       iframe_url = excluded.iframe_url, position = excluded.position
          WHERE present IS DISTINCT FROM excluded",
        &slices(rows),
        &column(rows, |r| r.source.as_str()) as &[&str],
        &column(rows, |r| r.id.0),
        &column(rows, |r| r.account.as_deref()) as &[Option<&str>],
        &column(rows, |r| r.installation) as &[Option<Uuid>],
        &column(rows, |r| r.active) as &[Option<bool>],
        &column(rows, |r| r.live),
        &column(rows, |r| r.idle_since) as &[Option<Timestamp>],
        &column(rows, |r| r.deleted),
        &column(rows, |r| r.hls_url.as_deref()) as &[Option<&str>],
        &column(rows, |r| r.dash_url.as_deref()) as &[Option<&str>],
        &column(rows, |r| r.iframe_url.as_deref()) as &[Option<&str>],
        &positions(rows),
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn upsert_videos(
    connection: &mut PgConnection,
    rows: &[Placed<'_, VideoRow>],
) -> Result<(), Error> {
    sqlx::query!(
        "INSERT INTO tallylight.video AS present
               (slice, source, video_id, live_stream_id, status, duration_ms, position)
         SELECT u.* FROM unnest($1::smallint[], $2::text[], $3::bigint[], $4::bigint[], $5::text[],
                $6::bigint[], $7::bigint[]) AS u
         ON CONFLICT (slice, source, video_id)
         DO UPDATE SET live_stream_id = excluded.live_stream_id, status = excluded.status,
                       duration_ms = excluded.duration_ms, position = excluded.position
          WHERE present IS DISTINCT FROM excluded",
        &slices(rows),
        &column(rows, |r| r.source.as_str()) as &[&str],
        &column(rows, |r| r.id.0),
        &column(rows, |r| r.live_stream.map(|id| id.0)) as &[Option<i64>],
        &column(rows, |r| r.status.as_str()) as &[&str],
        &column(rows, |r| r.duration_ms) as &[Option<i64>],
        &positions(rows),
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn upsert_accounts(
    connection: &mut PgConnection,
    rows: &[Placed<'_, AccountRow>],
) -> Result<(), Error> {
    sqlx::query!(
        "INSERT INTO tallylight.account AS present (slice, source, account, deleted_at, position)
         SELECT u.* FROM unnest($1::smallint[], $2::text[], $3::text[], $4::timestamptz[], $5::bigint[]) AS u
         ON CONFLICT (slice, source, account)
         DO UPDATE SET deleted_at = excluded.deleted_at, position = excluded.position
          WHERE present IS DISTINCT FROM excluded",
        &slices(rows),
        &column(rows, |r| r.source.as_str()) as &[&str],
        &column(rows, |r| r.id.as_str()) as &[&str],
        &column(rows, |r| r.deleted_at) as &[Option<Timestamp>],
        &positions(rows),
    )
    .execute(connection)
    .await?;
    Ok(())
}
