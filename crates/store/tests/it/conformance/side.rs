//! One of the two stores: makes a call to it and tells its answer in a form that can be compared.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use domain::effect::NewJob;
use domain::event::NewEvent;
use domain::ids::{LiveStreamId, Subject, Timestamp, VideoId};
use domain::view::{AccountRow, Row, SessionRow, VideoRow};
use serde_json::json;
use store::testing::Memory;
use store::{
    Awaits, Bucket, Committed, Consumer, DueJob, Ending, EnqueueOptions, Finish, Finishes, Lease,
    Mended, ParkedEvent, PendingRequest, Reacting, Reaction, Work,
};
use uuid::Uuid;

use super::call::{Call, Enqueue, Event, How, IsPresent, Job, React, Run};
use crate::support::{Db, READ_NOW};

mod told;
mod waiting;

pub(super) use told::told;
use told::{kind_of, sorted, told_events, told_lease, told_starts};

/// How far a clock is ahead of the machine's, in hours.
#[derive(Debug, Clone, Default)]
pub(super) struct Ahead(Arc<AtomicI64>);

impl Ahead {
    pub(super) fn now(&self) -> Timestamp {
        hours_after(SystemTime::now().into(), self.0.load(Ordering::Relaxed))
    }
}

/// A store.
pub(super) struct Side {
    pub(super) of: Of,
    /// Jobs that have got their id from the store.
    enqueued: u64,
}

/// Which one.
pub(super) enum Of {
    Postgres(Db),
    Memory(Memory, Ahead),
}

pub(super) fn hours_after(at: Timestamp, hours: i64) -> Timestamp {
    let micros = at.timestamp_micros() + hours * 3_600_000_000;
    Timestamp::from_timestamp_micros(micros).unwrap()
}

fn hours(hours: u64) -> Duration {
    Duration::from_hours(hours)
}

impl Side {
    pub(super) fn postgres(db: Db) -> Self {
        Self { of: Of::Postgres(db), enqueued: 0 }
    }

    pub(super) fn memory(memory: Memory, ahead: Ahead) -> Self {
        Self { of: Of::Memory(memory, ahead), enqueued: 0 }
    }

    pub(super) fn work(&self) -> &dyn Work {
        match &self.of {
            Of::Postgres(db) => &db.store,
            Of::Memory(memory, _) => memory,
        }
    }

    /// The store's present.
    pub(super) fn now(&self) -> Timestamp {
        match &self.of {
            Of::Postgres(_) => SystemTime::now().into(),
            Of::Memory(_, ahead) => ahead.now(),
        }
    }

    /// A time in hours from now, as good as any machine tells it.
    pub(super) fn told_at(&self, at: Timestamp) -> i64 {
        let seconds = (at - self.now()).num_seconds();
        (seconds + 1_800).div_euclid(3_600)
    }

    pub(super) fn at(&self, in_hours: i64) -> Timestamp {
        hours_after(self.now(), in_hours)
    }

    /// Makes a call and tells its answer.
    #[expect(clippy::too_many_lines, reason = "an arm for each call")]
    pub(super) async fn make(&mut self, call: &Call) -> String {
        match call {
            Call::Append { slice, batch, events } => {
                let events: Vec<NewEvent> = events.iter().map(new_event).collect();
                told(self.work().append(*slice, *batch, &events).await)
            }
            Call::AppendAll { batch, events } => {
                let events: Vec<NewEvent> = events.iter().map(new_event).collect();
                told(self.work().append_all(*batch, &events).await)
            }
            Call::Heartbeat { process, hours: ttl } => {
                told(self.work().heartbeat(*process, "here", "0", hours(*ttl)).await)
            }
            Call::Leave(process) => told(self.work().leave(*process).await),
            Call::React(reacts) => self.react(reacts).await,
            Call::RequestParked { subject, position, request } => {
                told(self.work().request_parked(subject, *position, *request, "me", None).await)
            }
            Call::Enqueue(enqueue) => self.enqueue(enqueue).await,
            Call::RetryDead(id) => {
                let id = *id;
                told(match &self.of {
                    Of::Postgres(db) => db.store.retry_dead(id).await,
                    Of::Memory(memory, _) => memory.retry_dead(id),
                })
            }
            Call::Cancel { id, force } => {
                let id = *id;
                let cancelled = match &self.of {
                    Of::Postgres(db) => db.store.cancel_job(id, *force).await,
                    Of::Memory(memory, _) => memory.cancel_job(id, *force),
                };
                told(cancelled.map(|found| found.map(|c| (c.slice, c.state))))
            }
            Call::Pass { hours } => {
                self.pass(*hours).await;
                String::new()
            }
            Call::Expire { consumer, slice } => {
                self.expire(*consumer, *slice).await;
                String::new()
            }
            Call::Read { .. }
            | Call::ReadOne { .. }
            | Call::ReadSubject { .. }
            | Call::Heads(_)
            | Call::Sample(_)
            | Call::Claim { .. }
            | Call::Lease { .. }
            | Call::Renew { .. }
            | Call::Release { .. }
            | Call::LoadStates { .. }
            | Call::Parked { .. }
            | Call::Due { .. }
            | Call::NextDue(_)
            | Call::Mark { .. }
            | Call::MarkAll(_)
            | Call::Cancellations(_)
            | Call::NoteCrashes(_)
            | Call::TakeTokens { .. }
            | Call::JobAge { .. }
            | Call::AwaitedSessions
            | Call::EndedSessions
            | Call::Finish { .. }
            | Call::FinishAll(_)
            | Call::Acquit { .. } => self.ask(call).await,
            Call::Lanes(lanes) => self.lanes(lanes).await,
            Call::Schedules(schedules) => self.schedules(schedules).await,
            Call::Waits(waits) => self.waits(waits).await,
        }
    }

    async fn react(&self, reacts: &[React]) -> String {
        let mut all: Vec<(Lease, Reaction)> = Vec::new();
        for react in reacts {
            let (lease, mut reaction) = self.reaction(react);
            if let Some((mended, IsPresent(true))) = &react.mended {
                let requested_at = self.asked_at(react.slice, mended.requested).await;
                reaction.mended = Some(Mended { requested_at, ..mended.clone() });
            }
            all.push((lease, reaction));
        }
        let all: Vec<Reacting<'_>> =
            all.iter().map(|(lease, reaction)| Reacting { lease, reaction }).collect();
        let committed = self.work().commit_reactions(&all, hours(3)).await;
        let told_one = |c: Option<Committed>| c.map(|c| (c.lease.position, c.jobs, c.events));
        told(committed.map(|all| all.into_iter().map(told_one).collect::<Vec<_>>()))
    }

    /// Makes the calls of leases, reads and jobs.
    #[expect(clippy::too_many_lines, reason = "an arm for each call")]
    async fn ask(&self, call: &Call) -> String {
        let work = self.work();
        match call {
            Call::Read { slice, position, limit } => {
                let since = Timestamp::default();
                let read = work.read_after(*slice, *position, since, *limit).await;
                told(read.map(|events| told_events(&events)))
            }
            Call::ReadOne { slice, position } => {
                let read = work.read_event(*slice, *position).await;
                told(read.map(|event| event.as_ref().map(super::dump::event)))
            }
            Call::ReadSubject { subject, position, limit } => {
                let read = work.read_subject(subject, *position, *limit).await;
                told(read.map(|events| told_events(&events)))
            }
            Call::Heads(slices) => told(work.heads(slices).await),
            Call::Sample(slice) => {
                let told_group = |g: store::JobGroup| {
                    let oldest = g.oldest.map(|oldest| (oldest.as_secs() + 1_800) / 3_600);
                    (g.kind, g.queue, g.state, g.jobs, oldest)
                };
                let sample = work.sample_jobs(*slice).await;
                told(sample.map(|s| sorted(s.groups.into_iter().map(told_group).collect())))
            }
            Call::Claim { consumer, slice, process, hours: ttl } => {
                told_lease(work.claim(*consumer, *slice, *process, hours(*ttl)).await)
            }
            Call::Lease { consumer, slice, epoch } => {
                told_lease(work.lease(*consumer, *slice, *epoch).await)
            }
            Call::Renew { consumer, held, hours: ttl } => {
                told(work.renew(*consumer, held, hours(*ttl)).await.map(sorted))
            }
            Call::Release { consumer, slice, epoch } => {
                told(work.release(*consumer, *slice, *epoch).await)
            }
            Call::LoadStates { slice, subjects } => {
                let states = work.load_states(*slice, subjects).await;
                let told_state = |(subject, state)| format!("{subject} {}", json!(state));
                told(states.map(|states| sorted(states.into_iter().map(told_state).collect())))
            }
            Call::Parked { slice, subject, limit } => {
                let counts = told(work.parked_counts(*slice).await);
                // The moment of a request is each store's own.
                let request = |r: PendingRequest| (r.subject, r.position, r.request);
                let requests = work.parked_requests(*slice).await;
                let requests =
                    told(requests.map(|all| all.into_iter().map(request).collect::<Vec<_>>()));
                let awaiting = told(work.awaiting_build(*slice).await);
                let positions = told(work.parked_positions(*slice, subject, *limit).await);
                format!("{counts} {requests} {awaiting} {positions}")
            }
            Call::Due { process, of, per_slice } => {
                let due = work.due_jobs(*process, of.as_deref(), *per_slice, "").await;
                told(due.map(|due| due.iter().map(|job| self.told_job(job)).collect::<Vec<_>>()))
            }
            Call::NextDue(process) => {
                let next = work.next_due_in(*process, &READ_NOW).await;
                told(next.map(|next| next.map(|next| (next.as_secs() + 1_800) / 3_600)))
            }
            Call::Mark { slice, epoch, ids } => {
                told(work.mark_started(*slice, *epoch, ids).await.map(told_starts))
            }
            Call::MarkAll(starts) => {
                let marked = work.mark_all(starts).await;
                told(marked.map(|all| (told_starts(all.started), sorted(all.fenced))))
            }
            Call::Cancellations(process) => {
                let told_one = |c: &store::Cancellation| (self.told_job(&c.job), c.is_running);
                let found = work.cancellations(*process).await;
                told(found.map(|all| sorted(all.iter().map(told_one).collect())))
            }
            Call::NoteCrashes(leases) => {
                let crashes = work.note_crashes(leases).await;
                told(crashes.map(|told| (told.runs, sorted(told.fenced))))
            }
            Call::Finish { slice, epoch, runs } => {
                let runs: Vec<Finish> = runs.iter().map(Self::run).collect();
                let ended = work.finish(*slice, *epoch, &runs).await;
                told(ended.map(|ids| sorted(ids.into_iter().collect())))
            }
            Call::FinishAll(all) => {
                let of = |(slice, epoch, runs): &(i16, i64, Vec<Run>)| {
                    (*slice, *epoch, runs.iter().map(Self::run).collect::<Vec<_>>())
                };
                let all: Vec<(i16, i64, Vec<Finish>)> = all.iter().map(of).collect();
                let parts: Vec<Finishes<'_>> = all
                    .iter()
                    .map(|(slice, epoch, runs)| Finishes { slice: *slice, epoch: *epoch, runs })
                    .collect();
                let ended = work.finish_all(&parts).await;
                told(ended.map(|all| (sorted(all.ended.into_iter().collect()), sorted(all.fenced))))
            }
            Call::Acquit { slice, epoch, runs } => told(work.acquit(*slice, *epoch, runs).await),
            Call::TakeTokens { name, capacity, per_hour, wanted } => {
                let bucket = Bucket {
                    name: (*name).to_owned(),
                    capacity: f64::from(*capacity),
                    per_second: f64::from(*per_hour) / 3_600.0,
                };
                let taken = work.take_tokens(&bucket, *wanted).await;
                told(taken.map(|t| (t.granted, (t.next_in.as_secs() + 1_800) / 3_600)))
            }
            Call::JobAge { slice, id } => {
                let age = work.job_age(*slice, *id).await;
                told(age.map(|age| age.map(|age| (age.as_secs() + 1_800) / 3_600)))
            }
            Call::AwaitedSessions => told(work.awaited_sessions("a").await),
            Call::EndedSessions => {
                let ended = work.ended_sessions("a", Default::default(), 3).await;
                let videos = (1..10).map(VideoId).collect::<Vec<_>>();
                told(work.video_statuses("a", &videos).await.and_then(|v| Ok((v, ended?))))
            }
            Call::Append { .. }
            | Call::AppendAll { .. }
            | Call::Heartbeat { .. }
            | Call::Leave(_)
            | Call::React(_)
            | Call::RequestParked { .. }
            | Call::Enqueue(_)
            | Call::RetryDead(_)
            | Call::Cancel { .. }
            | Call::Lanes(_)
            | Call::Waits(_)
            | Call::Pass { .. }
            | Call::Schedules(_)
            | Call::Expire { .. } => panic!("{call:?} is made elsewhere"),
        }
    }

    async fn enqueue(&mut self, enqueue: &Enqueue) -> String {
        let options = EnqueueOptions {
            subject: enqueue.subject.clone(),
            run_at: enqueue.in_hours.map(|hours| self.at(hours)),
            key: enqueue.key.clone(),
            priority: enqueue.priority,
            max_attempts: enqueue.max_attempts,
            queue: enqueue.queue.map(str::to_owned),
            limit_key: enqueue.limit_key.clone(),
            limit: enqueue.limit,
            limit_waiting: enqueue.limit_waiting,
            ordered: enqueue.ordered,
            fair_key: enqueue.fair_key.map(str::to_owned),
            on_conflict: enqueue.on_conflict,
            key_states: enqueue.key_states,
            key_period: enqueue.period_hours.map(|hours| hours * 3_600),
            wait_for: None,
        };
        match self.work().enqueue(enqueue.kind, &enqueue.args, &options).await {
            Ok(id) if self.is_known(id) => format!("the live job {id}"),
            Ok(id) => {
                self.met(id).await;
                "a new job".to_owned()
            }
            Err(error) => kind_of(&error).to_owned(),
        }
    }

    fn is_known(&self, id: Uuid) -> bool {
        (1..=self.enqueued).any(|n| Uuid::from_u64_pair(u64::MAX, n) == id)
    }

    /// Meets a job that has got its id from the store. The in-memory one numbers them, and here
    /// PostgreSQL's is named alike: jobs due at one moment are in the order of their ids.
    pub(super) async fn met(&mut self, id: Uuid) {
        self.enqueued += 1;
        let Of::Postgres(db) = &self.of else { return };
        for statement in [
            "UPDATE tallylight.job SET id = $1 WHERE id = $2",
            "UPDATE tallylight.job_key SET job_id = $1 WHERE job_id = $2",
            "UPDATE tallylight.schedule_fire SET job = $1 WHERE job = $2",
        ] {
            let number = Uuid::from_u64_pair(u64::MAX, self.enqueued);
            sqlx::query(statement).bind(number).bind(id).execute(&db.pool).await.unwrap();
        }
    }

    /// When somebody asked for something about what is set aside.
    async fn asked_at(&self, slice: i16, position: i64) -> Timestamp {
        let asked = match &self.of {
            Of::Postgres(db) => sqlx::query_scalar(
                "SELECT requested_at FROM tallylight.parked
                  WHERE consumer = $1 AND slice = $2 AND position = $3",
            )
            .bind(Consumer::React.name())
            .bind(slice)
            .bind(position)
            .fetch_optional(&db.pool)
            .await
            .unwrap()
            .flatten(),
            Of::Memory(memory, _) => memory.look(|tables| {
                let of = &tables.slices[usize::try_from(slice).unwrap()];
                of.parked.get(&position).and_then(|row| row.requested_at)
            }),
        };
        asked.unwrap_or_default()
    }

    async fn pass(&self, hours: i64) {
        match &self.of {
            Of::Postgres(db) => {
                let by = hours;
                for statement in [
                    "UPDATE tallylight.checkpoint SET lease_until = lease_until - $1 * interval '1 hour'",
                    "UPDATE tallylight.job SET run_at = run_at - $1 * interval '1 hour',
                            enqueued_at = enqueued_at - $1 * interval '1 hour'",
                    "UPDATE tallylight.job_dead SET enqueued_at = enqueued_at - $1 * interval '1 hour'",
                    "UPDATE tallylight.schedule SET next_fire_at = next_fire_at - $1 * interval '1 hour',
                            last_fire_at = last_fire_at - $1 * interval '1 hour'",
                    // Away first: a moment may be where another one was.
                    "UPDATE tallylight.schedule_fire SET fire_at = fire_at - interval '100 years' - $1 * interval '1 hour'",
                    "UPDATE tallylight.schedule_fire SET fire_at = fire_at + interval '100 years' + 0 * $1 * interval '1 hour'",
                    "UPDATE tallylight.job_key SET until = until - $1 * interval '1 hour'",
                    "UPDATE tallylight.rate_bucket SET refilled_at = refilled_at - $1 * interval '1 hour'",
                    "UPDATE tallylight.job_step SET until = until - $1 * interval '1 hour'",
                    "UPDATE tallylight.event_wait SET until = until - $1 * interval '1 hour'",
                    "UPDATE tallylight.process SET seen_at = seen_at - $1 * interval '1 hour'",
                ] {
                    sqlx::query(statement).bind(by).execute(&db.pool).await.unwrap();
                }
            }
            Of::Memory(_, ahead) => {
                ahead.0.fetch_add(hours, Ordering::Relaxed);
            }
        }
    }

    async fn expire(&self, consumer: Consumer, slice: i16) {
        match &self.of {
            Of::Postgres(db) => db.expire(consumer, slice).await,
            Of::Memory(memory, _) => memory.meddle(|tables| {
                let tables = &mut tables.slices[usize::try_from(slice).unwrap()];
                let lease = match consumer {
                    Consumer::React => &mut tables.react,
                    Consumer::Jobs => &mut tables.jobs_lease,
                };
                lease.lease_until = Timestamp::default();
            }),
        }
    }

    fn job(&self, job: &Job) -> NewJob {
        NewJob {
            id: job.id,
            kind: job.kind.to_owned(),
            subject: job.subject.clone(),
            args: json!({"n": 1}),
            run_at: self.at(job.in_hours),
            priority: job.priority,
            max_attempts: 3,
            once_for: job.once_for,
            causation_id: Some(job.id),
            correlation_id: None,
            trace: job.id.as_u128().is_multiple_of(2).then(|| TRACE.to_owned()),
        }
    }

    fn run(run: &Run) -> Finish {
        let error = || "it\0failed".to_owned();
        let ending = match run.how {
            How::Completed => Ending::Completed,
            How::Retry { hours: after } => Ending::Retry { error: error(), after: hours(after) },
            How::Snooze { hours: after } => Ending::Snooze { after: hours(after) },
            How::Again { hours: after } => Ending::Again { after: hours(after) },
            How::Discarded => Ending::Discarded { error: error() },
            How::Quarantined => Ending::Quarantined { error: error() },
            How::Cancelled => Ending::Cancelled { reason: error() },
            How::Wait { step } => Ending::Wait { step: step.to_owned() },
            How::Released => Ending::Released,
        };
        let events = run.events.iter().map(new_event).collect();
        Finish { id: run.id, attempt: run.attempt, ending, events }
    }

    fn reaction(&self, react: &React) -> (Lease, Reaction) {
        let recorded_at = Timestamp::from_timestamp(1_700_000_000 + react.to, 0).unwrap();
        let lease =
            Lease { slice: react.slice, epoch: react.epoch, position: react.from, recorded_at };
        let state = |state: &serde_json::Value| serde_json::from_value(state.clone()).unwrap();
        let account = |(id, deleted): &(&str, Option<u32>)| {
            let deleted_at = deleted.map(|s| Timestamp::from_timestamp(i64::from(s), 0).unwrap());
            Row::Account(AccountRow { source: "a".to_owned(), id: (*id).to_owned(), deleted_at })
        };
        let video = |(id, status): &(i64, &str)| {
            Row::Video(VideoRow {
                source: "a".to_owned(),
                id: VideoId(*id),
                live_stream: None,
                status: (*status).to_owned(),
                duration_ms: Some(*id),
            })
        };
        let rows = react.accounts.iter().map(account).chain(react.videos.iter().map(video));
        let rows = rows.chain(react.sessions.iter().map(|(id, status)| session(*id, status)));
        let parked = react.parked.iter().map(|parked| ParkedEvent {
            position: parked.position,
            subject: parked.subject.clone(),
            error: parked.error.map(str::to_owned),
            awaits_build: parked.awaits_build,
        });
        let states = react.states.iter().map(|(s, json)| (s.clone(), state(json), react.to));
        let reaction = Reaction {
            to: react.to,
            recorded_at,
            states: states.collect(),
            rows: rows.map(|row| (row, react.to)).collect(),
            jobs: react.jobs.iter().map(|job| self.job(job)).collect(),
            cancels: react.cancels.clone(),
            events: react.events.iter().map(new_event).collect(),
            parked: parked.collect(),
            mended: react.mended.as_ref().map(|(mended, _)| mended.clone()),
        };
        (lease, reaction)
    }

    fn told_job(&self, job: &DueJob) -> String {
        let DueJob { slice, kind, args, attempt, errors, max_attempts, .. } = job;
        let DueJob { priority, queue, lane, limit_key, limit, ordered, fair_key, crashes, .. } =
            job;
        let (id, due) = (job.id, self.told_at(job.run_at));
        let (subject, causation) = (&job.subject, job.causation_id);
        let waited = (job.waited.so_far().as_secs() + 1_800) / 3_600;
        format!(
            "{slice} {id} {kind} {subject} {args} {due} {attempt} {errors} {max_attempts} {causation:?} \
             {priority} {queue} {lane:?} {limit_key:?} {limit} {ordered} {fair_key:?} {crashes} {waited}"
        )
    }
}

fn awaits(subject: &Subject, after: i64) -> Awaits {
    Awaits { subject: subject.clone(), types: vec!["Tested".to_owned()], after }
}

fn new_event(event: &Event) -> NewEvent {
    NewEvent {
        event_id: event.id,
        subject: event.subject.clone(),
        event_type: event.name.to_owned(),
        schema_version: 3,
        key: event.key,
        received_at: Timestamp::from_timestamp(1_700_000_000, 123_456_789).unwrap(),
        causation_id: event.key,
        correlation_id: None,
        meta: event.key.map(|_| json!({"remote": "ä"}).into()),
        payload: event.id.as_bytes().to_vec(),
    }
}

/// A trace that some jobs are part of.
const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// A row of a session of the source `a`.
fn session(id: i64, status: &str) -> Row {
    let detail = serde_json::json!({
        "name": "n", "interruptions": 0, "parts": [], "gaps": [], "recording_warnings": [],
        "problems": [], "moments": [],
    });
    Row::Session(SessionRow {
        session: Uuid::from_u128(id.unsigned_abs().into()),
        source: "a".to_owned(),
        account: None,
        live_stream: LiveStreamId(id),
        status: status.to_owned(),
        status_at: Timestamp::from_timestamp(1_700_000_000 + id, 0).unwrap(),
        detail: serde_json::from_value(detail).unwrap(),
    })
}
