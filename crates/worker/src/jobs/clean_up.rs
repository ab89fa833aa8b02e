//! Cleanup runs: looks through sources by one policy, judges candidates, and proposes some. It deletes
//! nothing itself: each live stream decides on its own state, and the call that follows looks again.
//!
//! A *run* is of one source and has a subject of its own, on which every verdict stands before its
//! proposal is made. A job that starts again goes on with its run: what is judged stays judged, and
//! the cap counts what was proposed before. Judging is `domain::cleanup`'s, finding is [`look`]'s.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use domain::cleanup::{
    CleanupEvent, CleanupJudged, CleanupListed, CleanupPolicy, CleanupStarted, Rules, Verdict,
    run_id,
};
use domain::event::{CleanupRequested, Event, NewEvent};
use domain::ids::{LiveStreamId, Subject, Timestamp, VideoId, derived_id};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Done, JobError};
use crate::claimed::ClaimedJob;
use crate::context::Context;

mod look;

pub(super) use look::facts;

/// Its name.
pub(super) const KIND: &str = "clean_up";

/// The name of the kind before there were policies: rows of it are still run, and callers served.
pub(super) const OLD_KIND: &str = "clean_up_inactive";

/// Candidates that are kept and told one by one: enough to see why, and no more for a large account.
const KEPT_TOLD: u64 = 100;

/// Events of a run that are read in one go.
const PAGE: i64 = 500;

/// Arguments of a cleanup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CleanUp {
    /// What to look for.
    pub policy: CleanupPolicy,
    /// Only judge, and say so.
    pub dry_run: bool,
    /// Only in this source; none: in all.
    pub source: Option<String>,
    /// Most live streams that are proposed in a source; none: as its rules say.
    pub cap: Option<u32>,
    /// The age in days from which things go, in the place of the rules'.
    pub after_days: Option<u32>,
    /// Whether recordings go with their live stream, in the place of the rules'.
    pub delete_recordings: Option<bool>,
}

impl Default for CleanUp {
    fn default() -> Self {
        Self {
            policy: CleanupPolicy::default(),
            dry_run: true,
            source: None,
            cap: None,
            after_days: None,
            delete_recordings: None,
        }
    }
}

/// Arguments of the kind before there were policies.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct CleanUpInactive {
    inactive_days: u32,
    cap: u32,
    dry_run: bool,
    delete_recordings: bool,
    source: Option<String>,
    every_seconds: Option<u64>,
}

impl Default for CleanUpInactive {
    fn default() -> Self {
        Self {
            inactive_days: 30,
            cap: 20,
            dry_run: true,
            delete_recordings: false,
            source: None,
            every_seconds: None,
        }
    }
}

/// Runs a cleanup.
pub(super) async fn run(ctx: &Context, job: &ClaimedJob) -> Result<Done, JobError> {
    let args: CleanUp = read(job)?;
    clean_up(ctx, job, job.id, &args).await.map(Done::Value)
}

/// Runs a cleanup as callers named it before there were policies.
pub(super) async fn run_old(ctx: &Context, job: &ClaimedJob) -> Result<Done, JobError> {
    let old: CleanUpInactive = read(job)?;
    let args = CleanUp {
        policy: CleanupPolicy::Inactive,
        dry_run: old.dry_run,
        source: old.source,
        cap: Some(old.cap),
        after_days: Some(old.inactive_days),
        delete_recordings: Some(old.delete_recordings),
    };
    let Some(seconds) = old.every_seconds else {
        return clean_up(ctx, job, job.id, &args).await.map(Done::Value);
    };
    // Each time is a run of its own.
    let time = derived_id("cleanup", &[&job.id.to_string(), &job.attempt.to_string()]);
    clean_up(ctx, job, time, &args).await?;
    Ok(Done::Again { after: Duration::from_secs(seconds.max(60)) })
}

fn read<A: serde::de::DeserializeOwned>(job: &ClaimedJob) -> Result<A, JobError> {
    serde_json::from_value(job.args.clone())
        .map_err(|error| JobError::fail(format!("its arguments are wrong: {error}")))
}

/// Looks through the sources, each in a run. One that cannot be looked through keeps no other back.
async fn clean_up(
    ctx: &Context,
    job: &ClaimedJob,
    time: Uuid,
    args: &CleanUp,
) -> Result<Value, JobError> {
    if args.cap == Some(0) {
        return Err(JobError::fail("cap must be 1 or more"));
    }
    if let Some(source) = &args.source
        && ctx.platform(source).is_none()
    {
        return Err(JobError::fail(format!("source \"{source}\" is not configured here")));
    }
    let is_wanted = |source: &&String| args.source.as_ref().is_none_or(|only| only == *source);
    let mut sources: Vec<&String> = ctx.sources().filter(is_wanted).collect();
    sources.sort();
    let (mut runs, mut failed) = (Vec::new(), None);
    for source in sources {
        match Run::begin(ctx, job, time, source, args).await {
            Ok(told) => runs.push(told),
            Err(error) => {
                tracing::warn!(source, %error, policy = %args.policy, "cleanup run not made");
                failed = failed.or(Some(error));
            }
        }
    }
    match failed {
        Some(error) => Err(error),
        None => Ok(json!({ "policy": args.policy, "dry_run": args.dry_run, "runs": runs })),
    }
}

/// A run in the making.
struct Run<'a> {
    ctx: &'a Context,
    job: &'a ClaimedJob,
    source: &'a str,
    policy: CleanupPolicy,
    only_judges: bool,
    rules: Rules,
    id: Uuid,
    subject: Subject,
    /// One moment for all verdicts.
    now: Timestamp,
    listed: CleanupListed,
    /// What was judged at an earlier start.
    judged: BTreeSet<LiveStreamId>,
    proposals: Vec<Value>,
}

/// What a run would delete.
#[derive(Default)]
struct Proposal {
    /// Its recordings too, before it.
    delete_recordings: bool,
    /// Only what was made before.
    made_before: Option<Timestamp>,
    /// Recordings in the place of the live stream.
    videos: Vec<VideoId>,
}

impl<'a> Run<'a> {
    /// Makes the run of a source, or goes on with it, and tells what it came to.
    async fn begin(
        ctx: &'a Context,
        job: &'a ClaimedJob,
        time: Uuid,
        source: &'a str,
        args: &CleanUp,
    ) -> Result<Value, JobError> {
        let id = run_id(time, source);
        let mut run = Self {
            ctx,
            job,
            source,
            policy: args.policy,
            only_judges: args.dry_run,
            rules: rules(ctx, source, args).await?,
            id,
            subject: Subject::cleanup(source, id),
            now: ctx.now(),
            listed: CleanupListed { run: id, ..CleanupListed::default() },
            judged: BTreeSet::new(),
            proposals: Vec::new(),
        };
        let is_over = run.read_back().await?;
        if !is_over {
            run.start().await?;
            run.look().await?;
            let listed = CleanupEvent::Listed(run.listed);
            run.tell(&listed, "listed").await?;
        }
        let CleanupListed { looked_at, proposed, kept, left, .. } = run.listed;
        tracing::info!(
            source,
            run = %id,
            policy = %run.policy,
            dry_run = run.only_judges,
            looked_at,
            proposed,
            kept,
            left,
            "cleanup run"
        );
        Ok(json!({
            "run": id, "source": source, "looked_at": looked_at, "proposed": proposed,
            "kept": kept, "left": left, "candidates": run.proposals,
        }))
    }

    /// Reads what an earlier start of the job told. Returns whether all was judged.
    async fn read_back(&mut self) -> Result<bool, JobError> {
        let mut after = 0;
        loop {
            let events = self.ctx.store().read_subject(&self.subject, after, PAGE).await?;
            let Some(last) = events.last() else { return Ok(false) };
            after = last.position;
            for stored in &events {
                let Event::Cleanup(event) = Event::decode(stored) else { continue };
                match event {
                    CleanupEvent::Judged(judged) => self.take_up(&judged).await?,
                    CleanupEvent::Listed(listed) => {
                        self.listed = listed;
                        return Ok(true);
                    }
                    CleanupEvent::Started(_)
                    | CleanupEvent::Settled(_)
                    | CleanupEvent::Captured(_)
                    | CleanupEvent::VideoDeleted(_) => {}
                }
            }
        }
    }

    /// Counts what was judged, and makes the proposal that may not have been made.
    async fn take_up(&mut self, judged: &CleanupJudged) -> Result<(), JobError> {
        // A session whose recordings are kept says nothing of the next one on its live stream: it is
        // judged again.
        if !judged.proposed && self.policy == CleanupPolicy::Recordings {
            return Ok(());
        }
        self.judged.insert(judged.live_stream);
        self.listed.looked_at += 1;
        self.listed.proposed += u64::from(judged.proposed);
        self.listed.kept += u64::from(!judged.proposed);
        if judged.proposed { self.propose(judged).await } else { Ok(()) }
    }

    /// Says by which rule it judges.
    async fn start(&self) -> Result<(), JobError> {
        let started = CleanupEvent::Started(CleanupStarted {
            run: self.id,
            job: self.job.id,
            policy: self.policy,
            dry_run: self.only_judges,
            cap: self.rules.cap,
            rule: look::rule(self.policy, &self.rules),
        });
        self.tell(&started, "started").await
    }

    async fn look(&mut self) -> Result<(), JobError> {
        match self.policy {
            CleanupPolicy::Inactive => look::inactive(self).await,
            CleanupPolicy::Orphans => look::orphans(self).await,
            CleanupPolicy::Recordings => look::recordings(self).await,
        }
    }

    /// Whether a candidate was judged at an earlier start, or in this one.
    fn is_judged(&self, live_stream: LiveStreamId) -> bool {
        self.judged.contains(&live_stream)
    }

    /// Notes a verdict, and makes the proposal unless it is a dry run or the cap is reached.
    async fn judge(
        &mut self,
        live_stream: LiveStreamId,
        verdict: Verdict,
        proposal: Proposal,
    ) -> Result<(), JobError> {
        self.listed.looked_at += 1;
        let proposed = verdict.proposes();
        if proposed && self.listed.proposed >= u64::from(self.rules.cap) {
            self.listed.left += 1;
            return Ok(());
        }
        if proposed || self.policy != CleanupPolicy::Recordings {
            self.judged.insert(live_stream);
        }
        let Proposal { delete_recordings, made_before, videos } = proposal;
        let judged = CleanupJudged {
            run: self.id,
            live_stream,
            videos,
            proposed,
            reason: verdict.reason().to_owned(),
            delete_recordings: proposed && delete_recordings,
            made_before: made_before.filter(|_| proposed),
        };
        self.listed.proposed += u64::from(proposed);
        self.listed.kept += u64::from(!proposed);
        if proposed || self.listed.kept <= KEPT_TOLD {
            let key = format!("judged/{live_stream}/{}", judged.reason);
            self.tell(&CleanupEvent::Judged(judged.clone()), &key).await?;
        }
        if proposed { self.propose(&judged).await } else { Ok(()) }
    }

    /// Proposes to the live stream, once per run, unless it is a dry run.
    async fn propose(&mut self, judged: &CleanupJudged) -> Result<(), JobError> {
        self.proposals.push(json!({
            "live_stream_id": judged.live_stream, "video_ids": judged.videos,
            "reason": judged.reason,
        }));
        if self.only_judges {
            return Ok(());
        }
        let subject = Subject::live_stream(self.source, judged.live_stream);
        let event = Event::CleanupRequested(CleanupRequested {
            run: self.id,
            reason: judged.reason.clone(),
            delete_recordings: judged.delete_recordings,
            policy: self.policy,
            made_before: judged.made_before,
            videos: judged.videos.clone(),
        });
        let key = derived_id("cleanup-request", &[&self.id.to_string(), subject.as_str()]);
        self.append(subject, &event, key).await
    }

    /// Appends to the run's subject, once for each `what`.
    async fn tell(&self, event: &CleanupEvent, what: &str) -> Result<(), JobError> {
        let key = derived_id("cleanup-run", &[&self.id.to_string(), what]);
        self.append(self.subject.clone(), &Event::Cleanup(event.clone()), key).await
    }

    async fn append(&self, subject: Subject, event: &Event, key: Uuid) -> Result<(), JobError> {
        let (ctx, job) = (self.ctx, self.job);
        let slice = ctx.store().slice_of(&subject);
        let mut event = NewEvent::new(subject, event, ctx.now(), key).with_key(key);
        event.causation_id = job.causation_id;
        event.correlation_id = job.correlation_id.or(Some(job.id));
        ctx.store().append_one(event).await?;
        ctx.events_appended(slice);
        Ok(())
    }
}

/// The rules of a source, as the job's arguments change them. Accounts in them are named as rows
/// name them.
async fn rules(ctx: &Context, source: &str, args: &CleanUp) -> Result<Rules, JobError> {
    let mut rules = ctx.config().cleanup.get(source).cloned().unwrap_or_default();
    let after = args.after_days.map(|days| Duration::from_hours(24 * u64::from(days)));
    rules.cap = args.cap.unwrap_or(rules.cap);
    rules.delete_recordings = args.delete_recordings.unwrap_or(rules.delete_recordings);
    match (args.policy, after) {
        (CleanupPolicy::Inactive, Some(after)) => rules.inactive_after = after,
        (CleanupPolicy::Orphans, Some(after)) => rules.orphans_after = after,
        // Never shorter than a rule: what is kept for somebody is not a caller's to delete.
        (CleanupPolicy::Recordings, Some(after)) => {
            let own = rules.keep_recordings_of.values_mut();
            own.chain([&mut rules.keep_recordings]).for_each(|keep| *keep = keep.at_least(after));
        }
        (_, None) => {}
    }
    let mut named = BTreeMap::new();
    for (account, keep) in &rules.keep_recordings_of {
        for name in ctx.store().names_of(account).await? {
            named.insert(name, *keep);
        }
    }
    rules.keep_recordings_of = named;
    Ok(rules)
}

#[cfg(test)]
mod tests;
