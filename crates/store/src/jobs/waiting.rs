//! What a job waits for, and whose child it is, for people. Of a job that has ended, the names of
//! its steps, where it is kept.

use std::collections::BTreeMap;

use domain::ids::{Subject, Timestamp};
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::waits::{Awaits, Parent};
use crate::{Error, Store};

/// What a job has of steps and of a parent.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct JobWaits {
    /// Of which job it is a child.
    pub parent: Option<Parent>,
    /// The names of its steps, and when each was begun.
    pub steps: BTreeMap<String, Timestamp>,
    /// The step it waits for.
    pub open: Option<OpenStep>,
}

/// A step that a job waits for.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OpenStep {
    /// Its name.
    pub name: String,
    /// `sleep`, `event` or `children`.
    pub kind: String,
    /// Until when at most.
    pub until: Option<Timestamp>,
    /// Subject and types of the event.
    pub event: Option<(Subject, Vec<String>)>,
    /// How many children it has.
    pub children: i64,
    /// How many of them have not ended.
    pub open_children: i64,
    /// Dead letters among those: retry them, or throw them away.
    pub dead_children: i64,
}

impl Store {
    /// What a job waits for; nothing, where it has neither steps nor a parent.
    pub async fn job_waits(&self, slice: i16, id: Uuid) -> Result<JobWaits, Error> {
        let waits = sqlx::query_scalar!(
            r#"SELECT waits AS "waits!" FROM (
                 SELECT 1 AS place, waits FROM tallylight.job WHERE slice = $1 AND id = $2
                 UNION ALL
                 SELECT 2, waits FROM tallylight.job_dead WHERE slice = $1 AND id = $2
                 UNION ALL
                 SELECT 3, waits FROM tallylight.job_history WHERE slice = $1 AND id = $2) AS found
                WHERE waits IS NOT NULL ORDER BY place LIMIT 1"#,
            slice,
            id,
        )
        .fetch_optional(&self.pool)
        .await?;
        let Some(waits) = waits else { return Ok(JobWaits::default()) };
        let steps = waits.get("steps").cloned().unwrap_or_default();
        Ok(JobWaits {
            parent: Parent::of(&waits),
            steps: serde_json::from_value(steps).unwrap_or_default(),
            open: match waits.get("for").and_then(Value::as_str) {
                Some(name) => self.open_step(slice, id, name).await?,
                None => None,
            },
        })
    }

    async fn open_step(&self, slice: i16, id: Uuid, name: &str) -> Result<Option<OpenStep>, Error> {
        let row = sqlx::query!(
            r#"SELECT s.kind, s.until, s.awaits, count(c.n) AS "children!",
                      count(c.n) FILTER (WHERE c.is_open) AS "open!",
                      count(c.n) FILTER (WHERE c.is_open AND c.state IS NOT NULL) AS "dead!"
                 FROM tallylight.job_step s
                 LEFT JOIN tallylight.job_child c
                   ON c.slice = $1 AND c.parent = s.job AND c.step = s.name
                WHERE s.slice = $1 AND s.job = $2 AND s.name = $3 AND s.closed_at IS NULL
                  AND (s.kind <> 'sleep' OR s.until > now())
                GROUP BY s.slice, s.job, s.name"#,
            slice,
            id,
            name,
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(row.map(|row| OpenStep {
            name: name.to_owned(),
            kind: row.kind,
            until: row.until,
            event: row
                .awaits
                .and_then(|awaits| serde_json::from_value::<Awaits>(awaits).ok())
                .map(|awaits| (awaits.subject, awaits.types)),
            children: row.children,
            open_children: row.open,
            dead_children: row.dead,
        }))
    }
}
