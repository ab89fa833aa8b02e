//! All tables of a store as lines that can be compared.

use domain::event::RecordedEvent;
use domain::ids::{Subject, Timestamp};
use domain::view::{Row, RowKey};
use serde_json::Value;
use sqlx::PgPool;
use store::testing::{Checkpoint, JobRow, Memory, Order, SliceTables};
use store::{Consumer, Lane};
use uuid::Uuid;

use super::side::{Of, Side};

/// The first difference of two dumps.
pub(super) fn differ(postgres: &[String], memory: &[String]) -> Result<(), String> {
    let missing = postgres.iter().find(|line| !memory.contains(line));
    let extra = memory.iter().find(|line| !postgres.contains(line));
    if missing.is_none() && extra.is_none() && postgres.len() == memory.len() {
        return Ok(());
    }
    Err(format!("only PostgreSQL has {missing:?}\n  only memory has {extra:?}"))
}

/// An event, without the moment of its commit.
pub(super) fn event(event: &RecordedEvent) -> String {
    let RecordedEvent { slice, position, event_id, subject, event_type, schema_version, .. } =
        event;
    let RecordedEvent { received_at, causation_id, correlation_id, meta, payload, .. } = event;
    format!(
        "event {slice}:{position} {event_id} {subject} {event_type} {schema_version} {received_at} \
         {causation_id:?} {correlation_id:?} {meta:?} {payload:?}"
    )
}

impl Side {
    /// All that the store holds, sorted.
    pub(super) async fn dump(&self) -> Vec<String> {
        let mut lines = match &self.of {
            Of::Postgres(db) => self.dump_postgres(&db.pool, &db.store).await,
            Of::Memory(memory, _) => self.dump_memory(memory),
        };
        lines.sort();
        lines
    }

    fn dump_memory(&self, memory: &Memory) -> Vec<String> {
        memory.look(|tables| {
            let slices = (0_i16..).zip(&tables.slices);
            slices.flat_map(|(slice, tables)| self.dump_slice(slice, tables)).collect()
        })
    }

    fn dump_slice(&self, slice: i16, tables: &SliceTables) -> Vec<String> {
        let mut lines: Vec<String> = tables.events.iter().map(event).collect();
        lines.push(format!("head {slice} {}", tables.head()));
        lines.extend(tables.keys.iter().map(|key| format!("key {slice} {key}")));
        lines.push(self.checkpoint(Consumer::React, slice, &tables.react));
        lines.push(self.checkpoint(Consumer::Jobs, slice, &tables.jobs_lease));
        for (subject, (state, position)) in &tables.states {
            lines.push(state_line(slice, subject, state, *position));
        }
        for (key, (row, position)) in &tables.rows {
            lines.push(row_line(slice, key, row, *position));
        }
        for (position, row) in &tables.parked {
            let request = row.request.map(store::Request::name);
            lines.push(format!(
                "parked {slice}:{position} {} {:?} {} {request:?} {:?} {} {} {}",
                row.subject,
                row.error,
                row.attempts,
                row.requested_by,
                row.requested_at.is_some(),
                row.awaits_build,
                row.is_skipped
            ));
        }
        let live = tables.jobs.iter().map(|(id, job)| self.job_line(slice, *id, job, "live"));
        let dead = tables.dead.iter().map(|(id, d)| self.job_line(slice, *id, &d.job, d.state));
        lines.extend(live);
        lines.extend(dead);
        let run = |((id, attempt), outcome): &((Uuid, i32), &str)| {
            format!("run {slice} {} {attempt} {outcome}", *id)
        };
        lines.extend(tables.attempts.iter().map(run));
        lines.extend(self.dump_schedules(slice, tables));
        let step = |((job, _), row): (&(Uuid, String), &store::testing::StepRow)| {
            let store::Step { name, kind, value, until, is_closed, .. } = &row.step;
            let until = until.map(|until| self.told_at(until));
            step_line(slice, *job, (name, kind.name()), value.as_ref(), until, *is_closed)
        };
        lines.extend(tables.steps.iter().map(step));
        let wait = |((subject, job, step), wait): (&(Subject, Uuid, String), &store::EventWait)| {
            format!("wait {slice} {subject} {job} {step} {}", wait.awaits.after)
        };
        lines.extend(tables.event_waits.iter().map(wait));
        lines
    }

    fn checkpoint(&self, consumer: Consumer, slice: i16, row: &Checkpoint) -> String {
        let Checkpoint { owner, epoch, position, recorded_at, lease_until } = row;
        let is_held = *lease_until > self.now();
        let name = consumer.name();
        format!("checkpoint {name} {slice} {owner:?} {epoch} {position} {recorded_at} {is_held}")
    }

    fn job_line(&self, slice: i16, id: Uuid, job: &JobRow, state: &str) -> String {
        // The dead have neither a time nor a run.
        let is_live = state == "live";
        let due = is_live.then(|| self.told_at(job.run_at));
        let run = is_live.then_some((
            job.run_epoch,
            &job.unique_key,
            job.lane,
            job.edits,
            job.is_cancelled,
        ));
        let waits = job.waits.as_ref().map(without_times);
        let age = self.told_at(job.enqueued_at);
        let limits = (&job.queue, &job.limit_key, job.limit, job.order, &job.fair_key);
        let JobRow { kind, subject, args, priority, max_attempts, attempt, errors, .. } = job;
        format!(
            "job {slice} {} {state} {kind} {subject} {args} {priority} {max_attempts} {:?} {:?} \
             {attempt} {errors} {} {:?} {age} {due:?} {run:?} {limits:?} {:?} {waits:?}",
            id, job.causation_id, job.correlation_id, job.crashes, job.last_error, job.trace
        )
    }

    async fn dump_postgres(&self, pool: &PgPool, store: &store::Store) -> Vec<String> {
        let mut lines = Vec::new();
        for slice in store.slices().slices() {
            let events = store.read_after(slice, 0, Timestamp::default(), 100_000).await.unwrap();
            assert!(events.is_sorted_by_key(|event| event.recorded_at), "of slice {slice}");
            lines.extend(events.iter().map(event));
        }
        lines.extend(self.leases(pool).await);
        lines.extend(projections(pool).await);
        lines.extend(self.jobs(pool, "tallylight.job", false).await);
        lines.extend(self.jobs(pool, "tallylight.job_dead", true).await);
        lines.extend(parked(pool).await);
        lines.extend(self.read_schedules(pool).await);
        let steps: Vec<StepRow> = all(
            pool,
            "SELECT slice, job, name, kind, value, until, closed_at IS NOT NULL FROM tallylight.job_step",
        )
        .await;
        lines.extend(steps.into_iter().map(|(slice, job, name, kind, value, until, is_closed)| {
            let until = until.map(|until| self.told_at(until));
            step_line(slice, job, (&name, &kind), value.as_ref(), until, is_closed)
        }));
        let waits: Vec<(i16, String, Uuid, String, i64)> =
            all(pool, "SELECT slice, subject, job, step, after FROM tallylight.event_wait").await;
        lines.extend(waits.into_iter().map(|(slice, subject, job, step, after)| {
            format!("wait {slice} {subject} {job} {step} {after}")
        }));
        let runs: Vec<(i16, Uuid, i32, String)> =
            all(pool, "SELECT slice, job, attempt, outcome FROM tallylight.job_attempt").await;
        lines.extend(
            runs.into_iter().map(|(slice, id, attempt, outcome)| {
                format!("run {slice} {id} {attempt} {outcome}")
            }),
        );
        lines
    }

    async fn leases(&self, pool: &PgPool) -> Vec<String> {
        let heads: Vec<(i16, i64)> =
            all(pool, "SELECT slice, position FROM tallylight.slice_head").await;
        let keys: Vec<(i16, Uuid)> = all(pool, "SELECT slice, key FROM tallylight.event_key").await;
        let rows: Vec<Lease> = all(
            pool,
            "SELECT consumer, slice, owner, epoch, position, recorded_at, lease_until
               FROM tallylight.checkpoint",
        )
        .await;
        let checkpoint = |(name, slice, owner, epoch, position, recorded_at, lease_until)| {
            let row = Checkpoint { owner, epoch, position, recorded_at, lease_until };
            let name: String = name;
            let is = |consumer: &Consumer| consumer.name() == name;
            self.checkpoint(Consumer::ALL.into_iter().find(is).unwrap(), slice, &row)
        };
        let heads = heads.into_iter().map(|(slice, head)| format!("head {slice} {head}"));
        let keys = keys.into_iter().map(|(slice, key)| format!("key {slice} {key}"));
        heads.chain(keys).chain(rows.into_iter().map(checkpoint)).collect()
    }

    async fn jobs(&self, pool: &PgPool, table: &str, is_dead: bool) -> Vec<String> {
        let run = if is_dead { "state, to_jsonb(j)" } else { "'live', to_jsonb(j)" };
        let query = format!(
            "SELECT slice, id, kind, subject, args, priority, max_attempts, causation_id,
                    correlation_id, enqueued_at, attempt, errors, crashes, last_error, {run}
               FROM {table} j"
        );
        let rows: Vec<Job> =
            sqlx::query_as(sqlx::AssertSqlSafe(query)).fetch_all(pool).await.unwrap();
        rows.into_iter().map(|row| row.line(self)).collect()
    }
}

type StepRow = (i16, Uuid, String, String, Option<Value>, Option<Timestamp>, bool);

fn step_line(
    slice: i16,
    job: Uuid,
    (name, kind): (&str, &str),
    value: Option<&Value>,
    until: Option<i64>,
    is_closed: bool,
) -> String {
    format!("step {slice} {job} {name} {kind} {value:?} {until:?} {is_closed}")
}

type Lease = (String, i16, Option<Uuid>, i64, i64, Timestamp, Timestamp);

/// A row of either table of jobs, the last field all of it as JSON.
#[derive(sqlx::FromRow)]
struct Job(
    i16,
    Uuid,
    String,
    String,
    Value,
    i16,
    i32,
    Option<Uuid>,
    Option<Uuid>,
    Timestamp,
    i32,
    i32,
    i32,
    Option<String>,
    String,
    Value,
);

impl Job {
    fn line(self, side: &Side) -> String {
        let run = &self.15;
        let time = |name: &str| run[name].as_str().and_then(|at| at.parse().ok());
        let row = JobRow {
            kind: self.2,
            subject: Subject::from_stored(self.3),
            args: self.4,
            run_at: time("run_at").unwrap_or_default(),
            priority: self.5,
            max_attempts: self.6,
            unique_key: run["unique_key"].as_str().map(str::to_owned),
            causation_id: self.7,
            correlation_id: self.8,
            enqueued_at: self.9,
            attempt: self.10,
            errors: self.11,
            crashes: self.12,
            run_epoch: run["run_epoch"].as_i64(),
            last_error: self.13,
            queue: run["queue"].as_str().unwrap_or_default().to_owned(),
            lane: match run["lane"].as_i64() {
                Some(1) => Lane::Parked,
                Some(2) => Lane::Aside,
                Some(3) => Lane::Shared,
                _ => Lane::Open,
            },
            limit_key: run["limit_key"].as_str().map(str::to_owned),
            limit: run["max_running"].as_i64().and_then(|limit| limit.try_into().ok()),
            order: Order::of(
                run["ordered"] == Value::Bool(true),
                run["holds"] == Value::Bool(true),
            ),
            fair_key: run["fair_key"].as_str().map(str::to_owned),
            key_until_started: run["key_until_started"] == Value::Bool(true),
            edits: run["edits"]
                .as_i64()
                .and_then(|edits| edits.try_into().ok())
                .unwrap_or_default(),
            is_cancelled: !run["cancel_at"].is_null(),
            trace: run["trace"].as_str().map(str::to_owned),
            waits: Some(run["waits"].clone()).filter(|waits| !waits.is_null()),
        };
        side.job_line(self.0, self.1, &row, &self.14)
    }
}

/// The names of steps without the moments at which each store began them.
fn without_times(waits: &Value) -> Value {
    let mut waits = waits.clone();
    if let Some(Value::Object(steps)) = waits.get_mut("steps") {
        steps.values_mut().for_each(|at| *at = Value::Null);
    }
    waits
}

fn state_line(slice: i16, subject: &Subject, state: &Value, position: i64) -> String {
    format!("state {slice} {subject} {state} {position}")
}

fn row_line(slice: i16, key: &RowKey, row: &Row, position: i64) -> String {
    match row {
        Row::Account(row) => format!("row {slice} {} {:?} {position}", row.id, row.deleted_at),
        Row::Video(row) => {
            format!("row {slice} {} {} {:?} {position}", row.id.0, row.status, row.duration_ms)
        }
        Row::Session(row) => format!("row {slice} {} {} {position}", row.session, row.status),
        Row::Request(_) | Row::LiveStream(_) => {
            panic!("no call makes the row {key:?}")
        }
    }
}

async fn projections(pool: &PgPool) -> Vec<String> {
    let states: Vec<(i16, String, Value, i64)> =
        all(pool, "SELECT slice, subject, state, position FROM tallylight.subject_state").await;
    let accounts: Vec<(i16, String, Option<Timestamp>, i64)> =
        all(pool, "SELECT slice, account, deleted_at, position FROM tallylight.account").await;
    let videos: Vec<(i16, i64, String, Option<i64>, i64)> =
        all(pool, "SELECT slice, video_id, status, duration_ms, position FROM tallylight.video")
            .await;
    let states = states.into_iter().map(|(slice, subject, state, position)| {
        state_line(slice, &Subject::from_stored(subject), &state, position)
    });
    let accounts = accounts
        .into_iter()
        .map(|(slice, id, deleted, position)| format!("row {slice} {id} {deleted:?} {position}"));
    let videos = videos.into_iter().map(|(slice, id, status, duration, position)| {
        format!("row {slice} {id} {status} {duration:?} {position}")
    });
    let sessions: Vec<(i16, Uuid, String, i64)> =
        sqlx::query_as("SELECT slice, session_id, status, position FROM tallylight.session")
            .fetch_all(pool)
            .await
            .unwrap();
    let sessions = sessions.into_iter().map(|(slice, session, status, position)| {
        format!("row {slice} {session} {status} {position}")
    });
    states.chain(accounts).chain(videos).chain(sessions).collect()
}

type Parked =
    (i16, i64, String, Option<String>, i32, Option<String>, Option<String>, bool, bool, bool);

async fn parked(pool: &PgPool) -> Vec<String> {
    let rows: Vec<Parked> = all(
        pool,
        "SELECT slice, position, subject, error, attempts, request, requested_by,
                requested_at IS NOT NULL, awaits_build, skipped_at IS NOT NULL
           FROM tallylight.parked",
    )
    .await;
    let line = |row: Parked| {
        let (slice, position, subject, error, attempts, request, by, is_asked, awaits, is_skipped) =
            row;
        format!(
            "parked {slice}:{position} {subject} {error:?} {attempts} {request:?} {by:?} \
             {is_asked} {awaits} {is_skipped}"
        )
    };
    rows.into_iter().map(line).collect()
}

pub(super) async fn all<T>(pool: &PgPool, query: &'static str) -> Vec<T>
where
    T: for<'r> sqlx::FromRow<'r, sqlx::postgres::PgRow> + Send + Unpin,
{
    sqlx::query_as(query).fetch_all(pool).await.unwrap()
}
