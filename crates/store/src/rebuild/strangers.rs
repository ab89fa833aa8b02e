//! Rows that no fold of the log explains: a rebuild deletes them.

use domain::ids::Subject;
use domain::view::RowKey;
use sqlx::PgConnection;
use uuid::Uuid;

use super::Fold;
use crate::Error;

/// Objects of one table: source and the platform's id.
type Objects<'a> = (Vec<&'a str>, Vec<i64>);

/// The keys of a fold's rows, one list per table.
#[derive(Default)]
struct Keys<'a> {
    requests: Vec<Uuid>,
    sessions: Vec<Uuid>,
    live_streams: Objects<'a>,
    videos: Objects<'a>,
    accounts: (Vec<&'a str>, Vec<&'a str>),
}

impl<'a> Keys<'a> {
    fn of(fold: &'a Fold) -> Self {
        let mut keys = Self::default();
        for key in fold.rows.keys() {
            match key {
                RowKey::Request(id) => keys.requests.push(*id),
                RowKey::Session(id) => keys.sessions.push(*id),
                RowKey::LiveStream(source, id) => {
                    keys.live_streams.0.push(source);
                    keys.live_streams.1.push(id.0);
                }
                RowKey::Video(source, id) => {
                    keys.videos.0.push(source);
                    keys.videos.1.push(id.0);
                }
                RowKey::Account(source, id) => {
                    keys.accounts.0.push(source);
                    keys.accounts.1.push(id);
                }
            }
        }
        keys
    }
}

/// Deletes the rows of a slice that `fold` does not have.
pub(super) async fn delete(
    connection: &mut PgConnection,
    slice: i16,
    fold: &Fold,
) -> Result<(), Error> {
    let subjects: Vec<&str> = fold.states.keys().map(Subject::as_str).collect();
    sqlx::query!(
        "DELETE FROM tallylight.subject_state t WHERE slice = $1 AND NOT EXISTS (
           SELECT FROM unnest($2::text[]) AS k (subject) WHERE k.subject = t.subject)",
        slice,
        &subjects as &[&str],
    )
    .execute(&mut *connection)
    .await?;
    let keys = Keys::of(fold);
    delete_sessions(connection, slice, &keys).await?;
    delete_objects(connection, slice, &keys).await?;
    sqlx::query!(
        "DELETE FROM tallylight.account t WHERE slice = $1 AND NOT EXISTS (
           SELECT FROM unnest($2::text[], $3::text[]) AS k (source, account)
            WHERE k.source = t.source AND k.account = t.account)",
        slice,
        &keys.accounts.0 as &[&str],
        &keys.accounts.1 as &[&str],
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn delete_sessions(
    connection: &mut PgConnection,
    slice: i16,
    keys: &Keys<'_>,
) -> Result<(), Error> {
    sqlx::query!(
        "DELETE FROM tallylight.session_request t WHERE slice = $1 AND NOT EXISTS (
           SELECT FROM unnest($2::uuid[]) AS k (id) WHERE k.id = t.session_id)",
        slice,
        &keys.requests,
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query!(
        "DELETE FROM tallylight.session t WHERE slice = $1 AND NOT EXISTS (
           SELECT FROM unnest($2::uuid[]) AS k (id) WHERE k.id = t.session_id)",
        slice,
        &keys.sessions,
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn delete_objects(
    connection: &mut PgConnection,
    slice: i16,
    keys: &Keys<'_>,
) -> Result<(), Error> {
    sqlx::query!(
        "DELETE FROM tallylight.live_stream t WHERE slice = $1 AND NOT EXISTS (
           SELECT FROM unnest($2::text[], $3::bigint[]) AS k (source, id)
            WHERE k.source = t.source AND k.id = t.live_stream_id)",
        slice,
        &keys.live_streams.0 as &[&str],
        &keys.live_streams.1,
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query!(
        "DELETE FROM tallylight.video t WHERE slice = $1 AND NOT EXISTS (
           SELECT FROM unnest($2::text[], $3::bigint[]) AS k (source, id)
            WHERE k.source = t.source AND k.id = t.video_id)",
        slice,
        &keys.videos.0 as &[&str],
        &keys.videos.1,
    )
    .execute(connection)
    .await?;
    Ok(())
}
