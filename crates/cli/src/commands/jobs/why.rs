//! `jobs why`: the chain of a job, from what started it to what came of it, and what it waits for.
//!
//! The chain is read from the log: each event names its cause, a forwarded one says where its cause
//! stands, and an outcome names its job. So it can be told of jobs that have long ended, too.

use anyhow::{Result, bail};
use domain::effect::{FORWARD, ForwardArgs};
use domain::event::{Event, RecordedEvent};
use domain::ids::{Subject, Timestamp, derived_id};
use domain::summary;
use serde::Serialize;
use serde_json::json;
use store::{Attempt, JobView, JobWaits, OpenStep, SealingKey, Standing, Store};
use uuid::Uuid;

use super::{describe, describe_waits, run_line, time};
use crate::config::Config;
use crate::home;
use crate::output::say;

/// Most causes that are told: chains of forwards are short.
const MOST_CAUSES: usize = 50;

/// The chain of a job.
#[derive(Debug, Serialize)]
struct Chain {
    /// The job; none: it has ended and is not kept.
    job: Option<JobView>,
    /// What keeps it from running, if it is live.
    waits_for: Vec<String>,
    /// Its steps, and whose child it is.
    waits: JobWaits,
    /// What it follows from, the first cause first.
    causes: Vec<Link>,
    /// Its runs that are kept.
    attempts: Vec<Attempt>,
    /// The events that it appended.
    outcomes: Vec<Link>,
    /// The events that these caused on the same subject.
    effects: Vec<Link>,
}

/// An event of the chain.
#[derive(Debug, Clone, Serialize)]
struct Link {
    slice: i16,
    position: i64,
    recorded_at: Timestamp,
    subject: Subject,
    event_type: String,
    event_id: Uuid,
    trace: Option<String>,
    words: String,
}

impl Link {
    fn of(event: &RecordedEvent) -> Self {
        Self {
            slice: event.slice,
            position: event.position,
            recorded_at: event.recorded_at,
            subject: event.subject.clone(),
            event_type: event.event_type.clone(),
            event_id: event.event_id,
            trace: event.trace().map(str::to_owned),
            words: summary::words(event, &Event::decode(event)),
        }
    }

    fn line(&self) -> String {
        let Self { slice, position, subject, event_type, words, .. } = self;
        format!(
            "  {}  {slice}:{position}  {subject}  {event_type}: {words}",
            time(self.recorded_at)
        )
    }
}

/// Tells the chain.
pub(super) async fn run(
    store: &Store,
    config: &Config,
    id: Uuid,
    subject: Option<String>,
    json: bool,
) -> Result<()> {
    let chain = read(store, config, id, subject).await?;
    if json {
        say(json!(chain));
        return Ok(());
    }
    section("because of", chain.causes.iter().map(Link::line));
    match &chain.job {
        Some(job) => {
            describe(job);
            describe_waits(&chain.waits);
        }
        None => say(format!("job        {id}, which has ended and is not kept")),
    }
    for attempt in &chain.attempts {
        say(run_line(attempt));
    }
    for reason in &chain.waits_for {
        say(format!("waits for  {reason}"));
    }
    section("it appended", chain.outcomes.iter().map(Link::line));
    section("and from that followed", chain.effects.iter().map(Link::line));
    Ok(())
}

fn section(title: &str, lines: impl Iterator<Item = String>) {
    let lines: Vec<String> = lines.collect();
    if !lines.is_empty() {
        say(title);
        for line in lines {
            say(line);
        }
    }
}

async fn read(store: &Store, config: &Config, id: Uuid, subject: Option<String>) -> Result<Chain> {
    let key = home::sealing_key(config)?;
    let key = key.as_ref();
    let job = store.find_job(id).await?;
    let subject = match (&job, subject) {
        (Some(job), _) => job.subject.clone(),
        (None, Some(subject)) => Subject::from_stored(subject),
        // Where a plain job without a subject of its own tells of its end.
        (None, None) => Subject::job(id),
    };
    let events = all(store, key, &subject).await?;
    let mut outcomes: Vec<&RecordedEvent> =
        events.iter().filter(|event| tells_of(event, id)).collect();
    let elsewhere = forwarded(store, key, job.as_ref()).await?;
    outcomes.extend(&elsewhere);
    if job.is_none() && outcomes.is_empty() {
        bail!(
            "no job {id} is live, dead or of the kept history, and {subject} tells nothing of it; \
             name its subject by --subject"
        );
    }
    let cause = job.as_ref().and_then(|job| job.causation_id);
    let cause = cause.or_else(|| outcomes.first().and_then(|outcome| outcome.causation_id));
    let causes = causes(store, key, &events, cause).await?;
    let attempts = match &job {
        Some(job) => store.job_attempts(job.slice, id).await?,
        None => store.job_attempts(store.slice_of(&subject), id).await?,
    };
    let waits = match &job {
        Some(job) => store.job_waits(job.slice, id).await?,
        None => JobWaits::default(),
    };
    let live = job.as_ref().filter(|job| job.ended_at.is_none());
    let waits_for = match live {
        None => Vec::new(),
        Some(job) => {
            let now = Timestamp::from(std::time::SystemTime::now());
            let standing = store.standing(job).await?;
            let open = waits.open.as_ref();
            let is_known = config.knows(&job.kind);
            let reasons = |standing| waits_for(job, is_known, &standing, open, now);
            standing.map(reasons).unwrap_or_default()
        }
    };
    let is_caused = |event: &&RecordedEvent| {
        event.causation_id.is_some_and(|cause| outcomes.iter().any(|o| o.event_id == cause))
    };
    let effects = events.iter().filter(is_caused).map(Link::of).collect();
    let outcomes = outcomes.into_iter().map(Link::of).collect();
    Ok(Chain { job, waits_for, waits, causes, attempts, outcomes, effects })
}

/// All events of a subject, their personal values in the open.
async fn all(
    store: &Store,
    key: Option<&SealingKey>,
    subject: &Subject,
) -> Result<Vec<RecordedEvent>> {
    let mut events: Vec<RecordedEvent> = Vec::new();
    loop {
        let after = events.last().map_or(0, |event| event.position);
        let mut more = store.read_subject(subject, after, 500).await?;
        if more.is_empty() {
            return Ok(events);
        }
        store.open_events(key, &mut more).await?;
        events.extend(more);
    }
}

/// Whether an event is the outcome of a job. A call's job has the id of its intent.
fn tells_of(event: &RecordedEvent, job: Uuid) -> bool {
    match Event::decode(event) {
        Event::CallSucceeded(told) => told.intent == job,
        Event::CallFailed(told) => told.intent == job,
        Event::JobCompleted(told) | Event::JobDiscarded(told) | Event::JobCancelled(told) => {
            told.job == job
        }
        Event::TimerElapsed(_) => {
            let key = derived_id("timer-elapsed", &[&job.to_string()]);
            event.event_id == derived_id("event", &[&key.to_string()])
        }
        Event::WebhookReceived(_)
        | Event::LimitExceeded(_)
        | Event::Slot(_)
        | Event::SessionRequested(_)
        | Event::GoLiveRequested(_)
        | Event::EndRequested(_)
        | Event::RetryRequested(_)
        | Event::AccountDeleted(_)
        | Event::AccountErased(_)
        | Event::CleanupRequested(_)
        | Event::Cleanup(_)
        | Event::ReconcileRequested(_)
        | Event::SeenOtherwise(_)
        | Event::SessionBound(_)
        | Event::Bound(_)
        | Event::VideoChanged(_)
        | Event::BroadcastChanged(_)
        | Event::CallIntended(_)
        | Event::Announced(_)
        | Event::Unrecognized => false,
    }
}

/// The event that a forward has appended elsewhere.
async fn forwarded(
    store: &Store,
    key: Option<&SealingKey>,
    job: Option<&JobView>,
) -> Result<Vec<RecordedEvent>> {
    let args = job.filter(|job| job.kind == FORWARD);
    let args = args.and_then(|job| serde_json::from_value::<ForwardArgs>(job.args.clone()).ok());
    let Some(event) = args.map(|args| args.event()) else { return Ok(Vec::new()) };
    let mut events = all(store, key, &event.subject).await?;
    events.retain(|stored| stored.event_id == event.event_id);
    Ok(events)
}

/// The causes of a job, the first one first: along the subject, and back over forwards.
async fn causes(
    store: &Store,
    key: Option<&SealingKey>,
    events: &[RecordedEvent],
    cause: Option<Uuid>,
) -> Result<Vec<Link>> {
    let mut causes = Vec::new();
    let mut events = events.to_vec();
    let mut next = cause;
    while let Some(id) = next.take()
        && causes.len() < MOST_CAUSES
    {
        let Some(event) = events.iter().find(|event| event.event_id == id) else { break };
        causes.push(Link::of(event));
        next = event.causation_id;
        if let Some((slice, position)) = event.cause_at()
            && let Some(origin) = store.read_event(slice, position).await?
        {
            next = Some(origin.event_id);
            events = all(store, key, &origin.subject).await?;
        }
    }
    causes.reverse();
    Ok(causes)
}

/// A step that is waited for, in words.
fn step(step: &OpenStep) -> String {
    let OpenStep { name, kind, until, event, children, open_children, dead_children } = step;
    let until = until.map(|until| until.to_rfc3339()).unwrap_or_default();
    match (kind.as_str(), event) {
        ("event", Some((subject, types))) => {
            let types = if types.is_empty() { "any type".to_owned() } else { types.join(" or ") };
            format!("an event of {subject}, {types}, until {until} (its step \"{name}\")")
        }
        ("children", _) => {
            let dead = match dead_children {
                0 => String::new(),
                dead => format!(", {dead} of them dead letters to be retried or discarded"),
            };
            format!("{open_children} of its {children} children{dead} (its step \"{name}\")")
        }
        _ => format!("the end of its sleep, {until} (its step \"{name}\")"),
    }
}

/// What keeps a live job from running, in words; empty: nothing.
fn waits_for(
    job: &JobView,
    is_known: bool,
    standing: &Standing,
    open: Option<&OpenStep>,
    now: Timestamp,
) -> Vec<String> {
    let mut reasons = Vec::new();
    match job.state.as_str() {
        "running" if job.cancel_at.is_some() => {
            return vec!["its run to be stopped: it was cancelled".to_owned()];
        }
        "running" => return reasons,
        "cancelled" => {
            reasons.push("the holder of its slice to end it: it was cancelled".to_owned());
        }
        _ => {}
    }
    if let Some(run_at) = job.run_at.filter(|run_at| *run_at > now) {
        let time = || format!("its time, {}", run_at.to_rfc3339());
        // After a failure it is the time, whatever else it waits for.
        let open = open.filter(|_| job.state == "scheduled");
        reasons.push(open.map_or_else(time, step));
    }
    match standing.holder {
        None => reasons
            .push(format!("a worker that holds slice {}: start `tallylight worker`", job.slice)),
        Some(holder) if !standing.is_held => reasons.push(format!(
            "a worker to take slice {} over from {holder}, whose lease has ended",
            job.slice
        )),
        Some(_) => {}
    }
    if !is_known {
        reasons.push(format!("a build that knows the kind \"{}\": this one does not", job.kind));
    }
    for paused in &standing.paused {
        reasons.push(format!("the end of a pause: {paused} is paused (`tallylight jobs resume`)"));
    }
    if let Some(busy) = standing.key_busy_with {
        reasons.push(format!(
            "job {busy}, which has begun and not ended: no more of the key \"{}\" run at once",
            standing.key
        ));
    }
    if reasons.is_empty() && job.crashes >= worker::SUSPECT {
        reasons.push(format!(
            "its turn: {} processes have died while it ran, so it runs while no other such job does",
            job.crashes
        ));
    }
    if reasons.is_empty() && standing.before_it > 0 {
        reasons.push(format!(
            "a free place: {} jobs of its slice are due before it",
            standing.before_it
        ));
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(state: &str, kind: &str) -> JobView {
        let now = Timestamp::default();
        JobView {
            id: Uuid::nil(),
            state: state.to_owned(),
            kind: kind.to_owned(),
            slice: 3,
            subject: Subject::from_stored("a/b/1".to_owned()),
            args: json!({}),
            priority: 2,
            run_at: Some(now),
            attempt: 0,
            errors: 0,
            max_attempts: 14,
            crashes: 0,
            last_error: None,
            enqueued_at: now,
            started_at: None,
            cancel_at: None,
            ended_at: None,
            causation_id: None,
            correlation_id: None,
            trace: None,
            args_digest: String::new(),
            killed: None,
        }
    }

    fn standing() -> Standing {
        let holder = Some(Uuid::from_u128(7));
        Standing {
            holder,
            is_held: true,
            key: "a/b/1".to_owned(),
            key_busy_with: None,
            paused: Vec::new(),
            before_it: 0,
        }
    }

    #[test]
    fn each_reason_to_wait_is_told() {
        let now = Timestamp::default() + std::time::Duration::from_secs(9);
        let told = |job: JobView, standing: Standing| {
            waits_for(&job, true, &standing, None, now).join("; ")
        };
        assert_eq!(told(job("available", "maintain"), standing()), "");
        assert_eq!(told(job("running", "maintain"), standing()), "");
        let later = JobView {
            run_at: Some(now + std::time::Duration::from_secs(1)),
            ..job("scheduled", "maintain")
        };
        assert!(told(later, standing()).starts_with("its time"));
        assert!(told(job("cancelled", "maintain"), standing()).contains("it was cancelled"));
        let unknown = waits_for(&job("available", "made_up"), false, &standing(), None, now);
        assert!(unknown.join("; ").contains("made_up"));
        let none = Standing { holder: None, is_held: false, ..standing() };
        assert!(told(job("available", "maintain"), none).contains("start `tallylight worker`"));
        let ended = Standing { is_held: false, ..standing() };
        assert!(told(job("available", "maintain"), ended).contains("whose lease has ended"));
        let busy = Standing { key_busy_with: Some(Uuid::from_u128(9)), ..standing() };
        assert!(told(job("available", "maintain"), busy).contains("of the key \"a/b/1\""));
        let paused = Standing { paused: vec!["queue mail".to_owned()], ..standing() };
        assert!(told(job("available", "maintain"), paused).contains("queue mail is paused"));
        let suspect = JobView { crashes: worker::SUSPECT, ..job("available", "maintain") };
        assert!(told(suspect, standing()).contains("2 processes have died"));
        let behind = Standing { before_it: 5, ..standing() };
        assert!(told(job("available", "maintain"), behind).contains("5 jobs"));
    }
    #[test]
    fn what_a_step_waits_for_is_told_instead_of_its_time() {
        let now = Timestamp::default();
        let until = now + std::time::Duration::from_hours(1);
        let step = |kind: &str| OpenStep {
            name: "parts".to_owned(),
            kind: kind.to_owned(),
            until: Some(until),
            event: None,
            children: 40,
            open_children: 3,
            dead_children: 0,
        };
        let told = |state: &str, open: &OpenStep| {
            let job = JobView { run_at: Some(until), ..job(state, "maintain") };
            waits_for(&job, true, &standing(), Some(open), now).join("; ")
        };
        let children = told("scheduled", &step("children"));
        assert_eq!(children, "3 of its 40 children (its step \"parts\")");
        let dead = OpenStep { dead_children: 2, ..step("children") };
        assert!(told("scheduled", &dead).contains("2 of them dead letters"));
        assert!(told("scheduled", &step("sleep")).starts_with("the end of its sleep"));
        let subject = Subject::from_stored("orders/1".to_owned());
        let event = Some((subject, vec!["Approved".to_owned()]));
        let event = OpenStep { event, ..step("event") };
        assert!(told("scheduled", &event).starts_with("an event of orders/1, Approved, until"));
        assert!(told("retryable", &event).starts_with("its time"));
    }
}
