//! Schedules: jobs that are enqueued again and again, by cron expression and time zone.
//!
//! What is put here is fired by the workers. A schedule is named by its caller, so that it can be
//! put again and again, by each deployment.

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use domain::ids::{Subject, Timestamp};
use domain::schedule::{MAX_CATCH_UP, Missed};
use serde::Serialize;
use serde_json::{Map, Value};
use store::{Kept, NewSchedule};
use uuid::Uuid;

use crate::Api;
use crate::auth::needs;
use crate::error::Problem;
use crate::extract::{Body, Segment};
use crate::fields::Fields;
use crate::jobs::{args, kind};
use crate::token::Scope;

/// How many fires to come an answer tells.
const UPCOMING: usize = 3;

/// How many past fires an answer tells.
const PAST: i64 = 10;

/// The routes.
pub(crate) fn routes() -> Router<Api> {
    let of = |routes| needs(Scope::JobsWrite, routes);
    let read = |routes| needs(Scope::JobsRead, routes);
    Router::new()
        .route("/v1/schedules", read(get(list)))
        .route(
            "/v1/schedules/{name}",
            read(get(show)).merge(of(axum::routing::put(put).delete(remove))),
        )
        .route("/v1/schedules/{name}/pause", of(post(pause)))
        .route("/v1/schedules/{name}/resume", of(post(resume)))
        .route("/v1/schedules/{name}/run", of(post(run)))
}

/// A schedule, for callers.
#[derive(Debug, Serialize)]
struct Schedule {
    name: String,
    cron: String,
    time_zone: String,
    kind: String,
    args: Value,
    options: Value,
    missed: &'static str,
    /// The most jobs that catching up enqueues at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    catch_up: Option<u16>,
    paused: bool,
    /// Its next fires; empty while it is paused.
    next: Vec<Timestamp>,
    last_fire_at: Option<Timestamp>,
    /// Why the last fire enqueued no job.
    last_error: Option<String>,
    made_at: Timestamp,
    changed_at: Timestamp,
}

impl From<store::Schedule> for Schedule {
    fn from(schedule: store::Schedule) -> Self {
        Self {
            next: schedule.upcoming(UPCOMING),
            name: schedule.name,
            cron: schedule.cron,
            time_zone: schedule.time_zone,
            kind: schedule.kind,
            args: schedule.args,
            options: schedule.options,
            missed: schedule.missed.name(),
            catch_up: match schedule.missed {
                Missed::CatchUp(limit) => Some(limit),
                Missed::Skip | Missed::Coalesce => None,
            },
            paused: schedule.paused,
            last_fire_at: schedule.last_fire_at,
            last_error: schedule.last_error,
            made_at: schedule.made_at,
            changed_at: schedule.changed_at,
        }
    }
}

/// All schedules.
#[derive(Debug, Serialize)]
struct List {
    schedules: Vec<Schedule>,
}

/// A schedule with its past.
#[derive(Debug, Serialize)]
struct Shown {
    #[serde(flatten)]
    schedule: Schedule,
    /// Its last fires, the latest first.
    fires: Vec<Past>,
}

/// A fire that was performed.
#[derive(Debug, Serialize)]
struct Past {
    fire_at: Timestamp,
    fired_at: Timestamp,
    job: Option<Uuid>,
    by_hand: bool,
}

/// A job that was enqueued by hand.
#[derive(Debug, Serialize)]
struct Ran {
    job: Uuid,
}

async fn list(State(api): State<Api>) -> Result<Json<List>, Problem> {
    let schedules = api.store().schedules().await?;
    Ok(Json(List { schedules: schedules.into_iter().map(Schedule::from).collect() }))
}

async fn show(State(api): State<Api>, Segment(name): Segment) -> Result<Json<Shown>, Problem> {
    let schedule = find(&api, &name).await?;
    let fires = api.store().schedule_fires(&name, PAST).await?;
    let fires = fires.into_iter().map(|f| Past {
        fire_at: f.fire_at,
        fired_at: f.fired_at,
        job: f.job,
        by_hand: f.by_hand,
    });
    Ok(Json(Shown { schedule, fires: fires.collect() }))
}

async fn put(
    State(api): State<Api>,
    Segment(name): Segment,
    Body(mut fields): Body,
) -> Result<(StatusCode, Json<Schedule>), Problem> {
    let new = NewSchedule {
        cron: fields.required_text("cron", 255),
        time_zone: fields.text("time_zone", 64).unwrap_or_else(|| "UTC".to_owned()),
        kind: kind(&mut fields, api.config()),
        args: args(&mut fields),
        options: options(&mut fields),
        missed: missed(&mut fields),
        paused: fields.optional_flag("paused"),
        name,
    };
    fields.finish()?;
    let kept = api.store().put_schedule(&new).await.map_err(refused)?;
    let status = if kept == Kept::Added { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(find(&api, &new.name).await?)))
}

/// The options of its jobs, which the database reads.
fn options(fields: &mut Fields) -> Value {
    let options = fields.json("options").unwrap_or_else(|| Value::Object(Map::new()));
    if !options.is_object() {
        fields.wrong("options", "must be a JSON object");
    }
    options
}

fn missed(fields: &mut Fields) -> Missed {
    let name = fields.text("missed", 16);
    let limit = fields.integer("catch_up", 1..=i64::from(MAX_CATCH_UP));
    let limit = limit.and_then(|limit| u16::try_from(limit).ok());
    let name = name.as_deref().unwrap_or("coalesce");
    if name == "catch_up" && limit.is_none() {
        fields.wrong("catch_up", format!("is needed: the most jobs at once, 1 to {MAX_CATCH_UP}"));
    } else if name != "catch_up" && limit.is_some() {
        fields.wrong("catch_up", "is for missed = catch_up only");
    }
    Missed::of(name, limit.unwrap_or(1)).unwrap_or_else(|| {
        fields.wrong("missed", "must be skip, coalesce or catch_up");
        Missed::Coalesce
    })
}

async fn remove(State(api): State<Api>, Segment(name): Segment) -> Result<StatusCode, Problem> {
    found(api.store().remove_schedule(&name).await?)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn pause(State(api): State<Api>, Segment(name): Segment) -> Result<Json<Schedule>, Problem> {
    found(api.store().pause_schedule(&name).await?)?;
    find(&api, &name).await.map(Json)
}

async fn resume(State(api): State<Api>, Segment(name): Segment) -> Result<Json<Schedule>, Problem> {
    found(api.store().resume_schedule(&name).await?)?;
    find(&api, &name).await.map(Json)
}

async fn run(
    State(api): State<Api>,
    Segment(name): Segment,
) -> Result<(StatusCode, Json<Ran>), Problem> {
    let job = api.store().run_schedule(&name).await.map_err(refused)?;
    let job = job.ok_or_else(|| Problem::not_found("schedule"))?;
    api.0.notifier.enqueued(api.store().slice_of(&Subject::schedule(&name)));
    Ok((StatusCode::CREATED, Json(Ran { job })))
}

async fn find(api: &Api, name: &str) -> Result<Schedule, Problem> {
    let found = api.store().schedule(name).await?;
    found.map(Schedule::from).ok_or_else(|| Problem::not_found("schedule"))
}

fn found(is_there: bool) -> Result<(), Problem> {
    if is_there { Ok(()) } else { Err(Problem::not_found("schedule")) }
}

/// What is refused is the caller's to change, and told in words that were made for him.
fn refused(error: store::Error) -> Problem {
    if let store::Error::Invalid { reason } = error {
        return Problem::invalid_field("schedule", reason);
    }
    error.into()
}
