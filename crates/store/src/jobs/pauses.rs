//! Pauses: queues, kinds and keys of which nothing is to be started. A small table without slices,
//! which every owner of slices reads again and again; so a pause needs no word to anybody.
//!
//! Holding jobs back is not its job: the engine does, and puts those in the way into a lane of
//! their own (`lanes`).

use domain::effect::{FORWARD, RELAY, TIMER};
use domain::ids::Timestamp;

use super::DueJob;
use crate::{Error, Store};

/// What a pause is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PauseScope {
    /// Jobs of a queue.
    Queue,
    /// Jobs of a kind.
    Kind,
    /// Jobs with a limit key; those without one by their subject.
    Key,
}

impl PauseScope {
    /// Its name in the database.
    pub fn name(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Kind => "kind",
            Self::Key => "key",
        }
    }

    fn of(name: &str) -> Self {
        match name {
            "queue" => Self::Queue,
            "kind" => Self::Kind,
            _ => Self::Key,
        }
    }
}

/// A pause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// What it is about.
    pub scope: PauseScope,
    /// Which queue, kind or key.
    pub name: String,
    /// Since when.
    pub paused_at: Timestamp,
    /// Who asked for it.
    pub paused_by: String,
    /// Why.
    pub reason: Option<String>,
}

/// All pauses, as a look for jobs needs them. Sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pauses {
    /// Queues.
    pub queues: Vec<String>,
    /// Kinds.
    pub kinds: Vec<String>,
    /// Keys.
    pub keys: Vec<String>,
}

impl Pauses {
    /// Whether a job is paused. Timers, forwards and relays never are.
    pub fn hold(&self, job: &DueJob) -> bool {
        self.hold_one(&job.kind, &job.queue, job.key())
    }

    pub(crate) fn hold_one(&self, kind: &str, queue: &str, key: &str) -> bool {
        let has = |list: &[String], name: &str| list.iter().any(|one| one == name);
        ![TIMER, FORWARD, RELAY].contains(&kind)
            && (has(&self.queues, queue) || has(&self.kinds, kind) || has(&self.keys, key))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.queues.is_empty() && self.kinds.is_empty() && self.keys.is_empty()
    }

    pub(crate) fn add(&mut self, scope: PauseScope, name: String) {
        match scope {
            PauseScope::Queue => self.queues.push(name),
            PauseScope::Kind => self.kinds.push(name),
            PauseScope::Key => self.keys.push(name),
        }
    }
}

impl Store {
    /// Pauses a queue, a kind or a key; a pause that is there stays as it is. Returns whether it
    /// is new. Workers heed it after their `poll` at the latest; what runs goes on.
    ///
    /// # Errors
    /// [`Error::Invalid`] where it cannot be paused.
    pub async fn pause(
        &self,
        scope: PauseScope,
        name: &str,
        by: &str,
        reason: Option<&str>,
    ) -> Result<bool, Error> {
        check(scope, name)?;
        let done = sqlx::query!(
            "INSERT INTO tallylight.job_pause (scope, name, paused_by, reason)
             VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
            scope.name(),
            name,
            by,
            reason,
        )
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected() > 0)
    }

    /// Ends a pause. Returns whether there was one.
    pub async fn resume(&self, scope: PauseScope, name: &str) -> Result<bool, Error> {
        let done = sqlx::query!(
            "DELETE FROM tallylight.job_pause WHERE scope = $1 AND name = $2",
            scope.name(),
            name,
        )
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected() > 0)
    }

    /// The pauses, for people.
    pub async fn paused(&self) -> Result<Vec<Pause>, Error> {
        let rows = sqlx::query!(
            "SELECT scope, name, paused_at, paused_by, reason FROM tallylight.job_pause
              ORDER BY scope, name"
        )
        .fetch_all(&self.pool)
        .await?;
        let pause = |scope: &str, name, paused_at, paused_by, reason| Pause {
            scope: PauseScope::of(scope),
            name,
            paused_at,
            paused_by,
            reason,
        };
        Ok(rows
            .into_iter()
            .map(|r| pause(&r.scope, r.name, r.paused_at, r.paused_by, r.reason))
            .collect())
    }

    /// The pauses, for a look for jobs.
    pub async fn pauses(&self) -> Result<Pauses, Error> {
        let rows = sqlx::query!("SELECT scope, name FROM tallylight.job_pause ORDER BY name")
            .fetch_all(&self.pool)
            .await?;
        let mut pauses = Pauses::default();
        for row in rows {
            pauses.add(PauseScope::of(&row.scope), row.name);
        }
        Ok(pauses)
    }
}

/// What can be paused.
fn check(scope: PauseScope, name: &str) -> Result<(), Error> {
    let reason = if scope == PauseScope::Kind && [TIMER, FORWARD, RELAY].contains(&name) {
        format!("kind \"{name}\" cannot be paused: time and facts would stand still")
    } else if !(1..=1024).contains(&name.len()) || name.contains('\0') {
        "a name of 1 to 1024 bytes is needed".to_owned()
    } else {
        return Ok(());
    };
    Err(Error::Invalid { reason })
}
