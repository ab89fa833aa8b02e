//! Verifying: live rows against a fold of the log, while everything runs.
//!
//! Per slice one short snapshot puts the live rows and the checkpoint aside; the log is folded up
//! to that checkpoint outside of it; the database compares. Events that are set aside are left
//! out of the fold, as they are live.

use std::time::{Duration, Instant};

use domain::ids::{LiveStreamId, Subject, Timestamp, VideoId};
use domain::slice::SliceCount;
use serde_json::Value;
use sqlx::{Connection as _, PgConnection};

use crate::consumer::Consumer;
use crate::rebuild::{Generation, load, set_aside};
use crate::{Error, Store};

mod bisect;

/// Differing rows that are told of a table and slice; all are counted.
const TOLD: i32 = 20;

/// What a verification of a slice found.
#[derive(Debug, Clone, PartialEq)]
pub struct Verified {
    /// The slice.
    pub slice: i16,
    /// The last position that was compared.
    pub position: i64,
    /// Live rows that were compared.
    pub rows: u64,
    /// Rows that differ.
    pub differing: u64,
    /// The first of them.
    pub differences: Vec<Difference>,
    /// Subjects with events that are set aside, whose later events are not folded.
    pub parked: Vec<Subject>,
    /// How long reading and folding the log took.
    pub folded_in: Duration,
}

/// A row that is not what the log folds to.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// The table.
    pub table: String,
    /// The row's key, as a JSON object.
    pub key: Value,
    /// Whose row it is; `None`: no event tells of it.
    pub subject: Option<Subject>,
    /// Columns that differ; empty where the row is missing on one side.
    pub columns: Vec<String>,
    /// The live row; `None`: it is missing.
    pub live: Option<Value>,
    /// What the log folds to; `None`: nothing.
    pub folded: Option<Value>,
    /// Where they part.
    pub parting: Parting,
}

/// Where a live row parts from the fold of its subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parting {
    /// The live row is the fold of all events before this position, and not of this one.
    At(i64),
    /// At no event is the fold what the live row is; the subject's first event is at this position.
    NeverEqual {
        /// The subject's first event.
        first: i64,
    },
    /// No event tells of such a row.
    NoEvent,
}

impl Store {
    /// One of each `of` slices, at least one; others each day, so that all have their turn.
    pub fn sample(&self, of: u16, day: Timestamp) -> Vec<i16> {
        sample(self.slices, of, day)
    }

    /// Compares the live rows of a slice with a fold of the log up to its checkpoint.
    ///
    /// # Errors
    /// [`Error::Hole`] and [`Error::Unfoldable`] naming the event.
    pub async fn verify_slice(&self, slice: i16) -> Result<Verified, Error> {
        // Of its own: it holds tables of its session.
        let mut connection = PgConnection::connect_with(&self.pool.connect_options()).await?;
        let verified = self.verify_with(&mut connection, slice).await;
        // Closing drops the tables, after a failure too.
        connection.close().await?;
        verified
    }

    async fn verify_with(
        &self,
        connection: &mut PgConnection,
        slice: i16,
    ) -> Result<Verified, Error> {
        let tables = sqlx::query_scalar!(
            r#"SELECT name::text AS "name!" FROM tallylight.projection ORDER BY 1"#
        )
        .fetch_all(&mut *connection)
        .await?;
        let (position, aside) = put_aside(connection, slice, &tables).await?;
        let begun = Instant::now();
        let texts = self.fold_whole(slice, position, &aside).await?;
        let folded_in = begun.elapsed();
        let parked = parked_subjects(connection, slice, position).await?;
        load(connection, Generation::Folded, texts).await?;
        let differences = Vec::new();
        let mut verified =
            Verified { slice, position, rows: 0, differing: 0, differences, parked, folded_in };
        for table in tables {
            let compared = compare(connection, &table).await?;
            verified.rows += compared.rows;
            verified.differing += compared.differing;
            for mut difference in compared.differences {
                difference.subject = subject_of(&difference);
                let log = bisect::Log {
                    slice,
                    goal: position,
                    archive: self.history.as_ref(),
                    set_aside: &aside,
                };
                difference.parting = bisect::parting(connection, log, &difference).await?;
                verified.differences.push(difference);
            }
        }
        Ok(verified)
    }
}

/// One of each `of` slices, as [`Store::sample`].
pub(crate) fn sample(slices: SliceCount, of: u16, day: Timestamp) -> Vec<i16> {
    let of = i64::from(of).clamp(1, i64::from(slices.get()));
    let today = day.timestamp().div_euclid(24 * 60 * 60).rem_euclid(of);
    slices.slices().filter(|slice| i64::from(*slice).rem_euclid(of) == today).collect()
}

/// Copies the live rows of a slice to tables of this session, in one snapshot with its checkpoint
/// and with what is set aside up to there.
async fn put_aside(
    connection: &mut PgConnection,
    slice: i16,
    tables: &[String],
) -> Result<(i64, Vec<i64>), Error> {
    let mut tx = connection.begin().await?;
    sqlx::query!("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ").execute(&mut *tx).await?;
    // Before the snapshot, which the first query takes: a swap between the two would show tables of
    // the new generation as the snapshot knows them, without their rows. The names are ours, and
    // the macros check no lock.
    let tables: Vec<String> = tables.iter().map(|name| format!("tallylight.{name}")).collect();
    let lock = format!("LOCK TABLE {} IN ACCESS SHARE MODE", tables.join(", "));
    sqlx::raw_sql(sqlx::AssertSqlSafe(lock)).execute(&mut *tx).await?;
    let position = sqlx::query_scalar!(
        "SELECT position FROM tallylight.checkpoint WHERE consumer = $1 AND slice = $2",
        Consumer::React.name(),
        slice,
    )
    .fetch_one(&mut *tx)
    .await?;
    let aside = set_aside(&mut tx, slice, position).await?;
    sqlx::query!("SELECT tallylight.verify_put_aside($1)", slice).execute(&mut *tx).await?;
    tx.commit().await?;
    Ok((position, aside))
}

async fn parked_subjects(
    connection: &mut PgConnection,
    slice: i16,
    position: i64,
) -> Result<Vec<Subject>, Error> {
    let subjects = sqlx::query_scalar!(
        "SELECT DISTINCT subject FROM tallylight.parked
          WHERE consumer = $1 AND slice = $2 AND position <= $3 AND skipped_at IS NULL
          ORDER BY subject",
        Consumer::React.name(),
        slice,
        position,
    )
    .fetch_all(connection)
    .await?;
    Ok(subjects.into_iter().map(Subject::from_stored).collect())
}

/// What a comparison of one table found.
struct Compared {
    rows: u64,
    differing: u64,
    differences: Vec<Difference>,
}

async fn compare(connection: &mut PgConnection, table: &str) -> Result<Compared, Error> {
    let found = sqlx::query!(
        r#"SELECT of_key AS key, live, folded, differing AS "differing!", compared AS "compared!"
             FROM tallylight.verify_compare($1::text::name, $2)"#,
        table,
        TOLD,
    )
    .fetch_all(connection)
    .await?;
    let count = |n: i64| u64::try_from(n).unwrap_or_default();
    let mut compared = Compared { rows: 0, differing: 0, differences: Vec::new() };
    for row in found {
        compared.rows = count(row.compared);
        compared.differing = count(row.differing);
        let Some(key) = row.key else { continue };
        compared.differences.push(Difference {
            table: table.to_owned(),
            key,
            subject: None,
            columns: differing_columns(row.live.as_ref(), row.folded.as_ref()),
            live: row.live,
            folded: row.folded,
            parting: Parting::NoEvent,
        });
    }
    Ok(compared)
}

fn differing_columns(live: Option<&Value>, folded: Option<&Value>) -> Vec<String> {
    let (Some(Value::Object(live)), Some(folded)) = (live, folded) else { return Vec::new() };
    live.iter()
        .filter(|(name, value)| folded.get(name.as_str()) != Some(value))
        .map(|(name, _)| name.clone())
        .collect()
}

/// Whose row it is: rows carry what their subject is named by.
fn subject_of(difference: &Difference) -> Option<Subject> {
    let row = difference.folded.as_ref().or(difference.live.as_ref())?;
    let source = || row["source"].as_str();
    let id = |name: &str| row[name].as_i64();
    let session = || row["session_id"].as_str()?.parse().ok();
    Some(match difference.table.as_str() {
        "subject_state" => Subject::from_stored(row["subject"].as_str()?.to_owned()),
        "session_request" => Subject::request(source()?, session()?),
        "session" | "live_stream" => {
            Subject::live_stream(source()?, LiveStreamId(id("live_stream_id")?))
        }
        "video" => Subject::video(source()?, VideoId(id("video_id")?)),
        "account" => Subject::account(source()?, row["account"].as_str()?),
        _ => return None,
    })
}
