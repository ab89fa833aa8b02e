//! Goes through the recordings of sessions that are over, now and then, and hints at what is
//! otherwise than it is known: a video that somebody deleted and no webhook told of, one that was
//! given up and is ready by now, a file that never had a name (docs/adr/0033-old-recordings.md).
//!
//! One job per source, which comes again for ever. A run goes through a few pages and goes on from
//! there the next time; where it is lies in its process's memory alone, so that whoever takes it
//! over begins anew. Nothing is concluded from a list: a hint goes to the video's own subject, whose
//! fold asks for it by GET.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use domain::cleanup::earlier;
use domain::event::{Event, NewEvent};
use domain::ids::{Subject, VideoId};
use domain::reconcile::{SeenOtherwise, VideoSigns};
use platform::Client;
use serde::Deserialize;
use serde_json::json;
use store::EndedSession;
use uuid::Uuid;

use super::{Done, JobError, UNAUTHORIZED_WAIT, video_lists};
use crate::calls::{self, Destination};
use crate::claimed::ClaimedJob;
use crate::context::Context;
use crate::sweeps::Round;

/// Its name.
pub(super) const KIND: &str = "sweep_recordings";

/// Sessions of a page: with a video or two each they fill a list or two.
const PAGE: i64 = 100;

/// Pages of a run: what is urgent has the source's rate for itself in between.
const PAGES: usize = 5;

/// Time between two runs of one round.
const PAUSE: Duration = Duration::from_secs(10);

/// Most live streams of a page that are asked for a file without a name, each by itself.
const MOST_LISTS: usize = 10;

/// Where nothing is looked through: when that is looked at again.
const NEVER: Duration = Duration::from_hours(1);

/// Arguments of a run.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct SweepRecordings {
    /// The source.
    source: String,
    /// It comes again; else it goes through all of them once.
    #[serde(default)]
    recurs: bool,
}

/// Enqueues a recurring job for each source, once per installation.
pub(super) async fn schedule(ctx: &Context) -> Result<(), store::Error> {
    for source in ctx.sources() {
        let key = Some(format!("recurring/{source}"));
        let options = store::EnqueueOptions { key, ..Default::default() };
        let args = json!({ "source": source, "recurs": true });
        ctx.store().enqueue(KIND, &args, &options).await?;
    }
    Ok(())
}

/// Looks through some of the recordings.
pub(super) async fn run(ctx: &Context, job: &ClaimedJob) -> Result<Done, JobError> {
    let args: SweepRecordings = serde_json::from_value(job.args.clone())
        .map_err(|error| JobError::fail(format!("its arguments are wrong: {error}")))?;
    let every = ctx.config().policy.recordings;
    if args.recurs && every.is_zero() {
        return Ok(Done::Again { after: NEVER });
    }
    match go_through(ctx, job, &args).await {
        Ok(None) if args.recurs => Ok(Done::Again { after: PAUSE.min(every) }),
        Ok(None) => {
            let reason = "there is more to go through".to_owned();
            Err(JobError::Snooze { after: PAUSE, reason })
        }
        Ok(Some(_)) if args.recurs => Ok(Done::Again { after: every }),
        Ok(Some(round)) => {
            Ok(Done::Value(json!({ "looked_at": round.looks, "differences": round.differences })))
        }
        // Nobody would enqueue it again if it were given up.
        Err(JobError::Retry { after, reason }) if args.recurs => {
            let after = after.unwrap_or_default().max(UNAUTHORIZED_WAIT);
            Err(JobError::Snooze { after, reason })
        }
        Err(JobError::Fail { reason }) if args.recurs => {
            tracing::error!(source = args.source, reason, "the platform refuses lists of videos");
            Err(JobError::Snooze { after: every, reason })
        }
        Err(error) => Err(error),
    }
}

/// Goes through some pages, from where the last run stopped. Returns the round where it is over.
async fn go_through(
    ctx: &Context,
    job: &ClaimedJob,
    args: &SweepRecordings,
) -> Result<Option<Round>, JobError> {
    let source = args.source.as_str();
    let platform = ctx.platform(source).ok_or_else(|| JobError::Snooze {
        after: UNAUTHORIZED_WAIT,
        reason: format!("source \"{source}\" is not configured in this process"),
    })?;
    let begin = earlier(ctx.now(), ctx.config().policy.recordings_within);
    let mut round = ctx.sweeps().round(job.id).unwrap_or_default();
    round.after = round.after.max((begin, Uuid::nil()));
    for _ in 0..PAGES {
        let page = ctx.store().ended_sessions(source, round.after, PAGE).await?;
        let Some(last) = page.last() else {
            ctx.sweeps().go_on_from(job.id, None);
            return Ok(Some(round));
        };
        let permit = calls::admit(ctx, job, Destination::source(ctx, source)).await?;
        let platform = platform.behind(Arc::new(permit));
        let look = Look { ctx, job, source, platform: &platform };
        let (looks, differences) = look.page(&page).await?;
        ctx.metrics().sweeps.swept(source, looks, differences);
        round.after = (last.ended_at, last.session);
        round.looks += looks;
        round.differences += differences;
        ctx.sweeps().go_on_from(job.id, Some(round));
    }
    Ok(None)
}

/// A look at a page of sessions.
struct Look<'a> {
    ctx: &'a Context,
    job: &'a ClaimedJob,
    source: &'a str,
    platform: &'a Client,
}

impl Look<'_> {
    /// Looks at the videos of some sessions and hints at those that are otherwise. Returns how many
    /// were looked at, and how many hinted at.
    async fn page(&self, sessions: &[EndedSession]) -> Result<(usize, usize), JobError> {
        let parts = || sessions.iter().flat_map(|session| &session.videos);
        let ids: Vec<VideoId> = parts().map(|(video, _)| *video).collect();
        let by_itself = self.ctx.store().video_statuses(self.source, &ids).await?;
        let by_part: BTreeMap<VideoId, &str> = parts().map(|(id, s)| (*id, s.as_str())).collect();
        let is_deleted = |id: &VideoId| by_itself.get(id).is_some_and(|status| status == "deleted");
        let wanted: Vec<VideoId> = ids.iter().filter(|id| !is_deleted(id)).copied().collect();
        let mut hints = Vec::new();
        for some in wanted.chunks(video_lists::AT_ONCE) {
            let signs = video_lists::signs_of(self.platform, some).await?;
            hints.extend(signs.into_iter().filter(|signs| {
                let known = [
                    by_part.get(&signs.video).copied(),
                    by_itself.get(&signs.video).map(String::as_str),
                ];
                let is = |name: &str| known.contains(&Some(name));
                signs.missing || signs.status.is_some_and(|status| !is(status.name()))
            }));
        }
        hints.extend(self.nameless(sessions).await?);
        self.hint(&hints).await?;
        Ok((wanted.len(), hints.len()))
    }

    /// Videos of live streams whose sessions lack a file, and which nobody has heard of.
    async fn nameless(&self, sessions: &[EndedSession]) -> Result<Vec<VideoSigns>, JobError> {
        let lacking = sessions.iter().filter(|session| session.lacks_file);
        let mut found = Vec::new();
        for session in lacking.take(MOST_LISTS) {
            let rows = self.platform.videos_of_stream(session.live_stream.0).await?;
            let seen: Vec<_> =
                rows.iter().filter_map(|row| domain::webhook::video(&row.observed())).collect();
            let ids: Vec<VideoId> = seen.iter().map(|video| video.id).collect();
            let known = self.ctx.store().video_statuses(self.source, &ids).await?;
            let is_new = |video: &&domain::webhook::VideoObserved| !known.contains_key(&video.id);
            found.extend(seen.iter().filter(is_new).map(VideoSigns::of));
        }
        Ok(found)
    }

    /// Hints at videos, each on its own subject.
    async fn hint(&self, all: &[VideoSigns]) -> Result<(), JobError> {
        let now = self.ctx.now();
        let event = |signs: &VideoSigns| {
            let subject = Subject::video(self.source, signs.video);
            let seen = SeenOtherwise { videos: vec![*signs], ..SeenOtherwise::default() };
            let mut event =
                NewEvent::new(subject, &Event::SeenOtherwise(seen), now, Uuid::now_v7());
            event.causation_id = self.job.causation_id;
            event.correlation_id = self.job.correlation_id;
            event
        };
        let events: Vec<NewEvent> = all.iter().map(event).collect();
        if events.is_empty() {
            return Ok(());
        }
        self.ctx.store().append_all(Uuid::now_v7(), &events).await?;
        for event in &events {
            self.ctx.events_appended(self.ctx.store().slice_of(&event.subject));
        }
        Ok(())
    }
}
