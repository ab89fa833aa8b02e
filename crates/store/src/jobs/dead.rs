//! Dead letters: jobs that were given up, until somebody lets them run again or throws them away.
//!
//! One filter for all verbs: `tallylight.is_dead_match`, so that what was listed, or counted by a
//! dry run, is what is redriven.

use domain::ids::{Subject, Timestamp};
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::refusal;
use crate::{Error, Store};

/// A dead letter.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DeadJob {
    /// Its id.
    pub id: Uuid,
    /// Its kind.
    pub kind: String,
    /// What it is about.
    pub subject: Subject,
    /// Its arguments.
    pub args: Value,
    /// Starts it took.
    pub attempt: i32,
    /// `discarded` or `quarantined`.
    pub state: String,
    /// Its last error.
    pub last_error: Option<String>,
    /// When it died.
    pub died_at: Timestamp,
    /// Of a quarantined one: the processes that ended while it ran, a JSON array.
    pub killed: Option<Value>,
}

/// Which dead letters: those that meet every condition. Without any, `all` has to be set.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct DeadFilter {
    /// All of them.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
    /// This one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Uuid>,
    /// Of this kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Of this queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// About this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// `discarded` or `quarantined`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// With this in the text of the last error, in whatever case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Died then or later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Died before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

impl DeadFilter {
    /// All dead letters.
    pub fn all() -> Self {
        Self { all: true, ..Self::default() }
    }

    /// The one of this id.
    pub fn id(id: Uuid) -> Self {
        Self { id: Some(id), ..Self::default() }
    }

    fn json(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

/// How dead letters are let run again.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Redrive {
    /// A JSON merge patch of their arguments.
    pub edit: Option<Value>,
    /// Only count them.
    pub dry_run: bool,
    /// Also those that a session waited for, and has taken for failed.
    pub decided: bool,
}

impl Store {
    /// Dead letters, the latest first.
    pub async fn dead_jobs(&self, limit: i64) -> Result<Vec<DeadJob>, Error> {
        self.dead_page(&DeadFilter::all(), None, limit).await
    }

    /// A page of the dead letters that meet a filter, the latest first; `before`: those that come
    /// after this one.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the reason where the filter is refused.
    pub async fn dead_page(
        &self,
        filter: &DeadFilter,
        before: Option<(Timestamp, Uuid)>,
        limit: i64,
    ) -> Result<Vec<DeadJob>, Error> {
        let (at, id) = before.unzip();
        let rows = sqlx::query!(
            "SELECT d.id, d.kind, d.subject, d.args, d.attempt, d.state, d.last_error, d.died_at, d.killed
               FROM tallylight.job_dead d
              WHERE tallylight.is_dead_match(d, $1)
                AND ($2::timestamptz IS NULL OR (d.died_at, d.id) < ($2, $3::uuid))
              ORDER BY d.died_at DESC, d.id DESC LIMIT $4",
            filter.json(),
            at,
            id,
            limit,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows
            .into_iter()
            .map(|r| DeadJob {
                id: r.id,
                kind: r.kind,
                subject: Subject::from_stored(r.subject),
                args: r.args,
                attempt: r.attempt,
                state: r.state,
                last_error: r.last_error,
                died_at: r.died_at,
                killed: r.killed,
            })
            .collect())
    }

    /// Moves a dead job back among the living, its budgets reset; `attempt` goes on.
    ///
    /// # Errors
    /// [`Error::NoSuchJob`].
    pub async fn retry_dead(&self, id: Uuid) -> Result<(), Error> {
        let how = Redrive { decided: true, ..Redrive::default() };
        let moved = self.redrive(&DeadFilter::id(id), &how).await?;
        if moved == 0 { Err(Error::NoSuchJob { id }) } else { Ok(()) }
    }

    /// Moves all dead jobs that meet a filter back among the living. Returns how many; with
    /// `dry_run` how many it would be.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the reason where filter or patch are refused.
    pub async fn redrive(&self, filter: &DeadFilter, how: &Redrive) -> Result<i64, Error> {
        let count = sqlx::query_scalar!(
            r#"SELECT tallylight.redrive_jobs($1, $2, $3, $4) AS "count!""#,
            filter.json(),
            how.edit,
            how.dry_run,
            how.decided,
        )
        .fetch_one(&self.pool)
        .await
        .map_err(Error::from)
        .map_err(refusal)?;
        Ok(count)
    }

    /// Throws dead letters away for good. Returns how many; with `dry_run` how many it would be.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the reason where the filter is refused.
    pub async fn discard_dead(&self, filter: &DeadFilter, dry_run: bool) -> Result<i64, Error> {
        let count = sqlx::query_scalar!(
            r#"SELECT tallylight.discard_dead($1, $2) AS "count!""#,
            filter.json(),
            dry_run,
        )
        .fetch_one(&self.pool)
        .await
        .map_err(Error::from)
        .map_err(refusal)?;
        Ok(count)
    }
}
