//! Sweeps: looks at many live streams and videos of a source at once, and hints at what is otherwise
//! than it is known (docs/adr/0028-sweeps.md). One job per source, which comes again for ever.
//!
//! What is due and what differs are pure functions of `domain::reconcile`. This walks the lists,
//! asks by GET for what they lack, and appends; it changes nothing on the platform and concludes
//! nothing from a row that is absent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use domain::cleanup::Rules;
use domain::event::{CleanupRequested, Event, NewEvent};
use domain::ids::{BroadcastId, LiveStreamId, Subject, Timestamp, VideoId, derived_id};
use domain::live_stream::LiveStream;
use domain::reconcile::{
    BroadcastSigns, Made, SeenOtherwise, Signs, Swept, Tier, often, orphans, orphans_made_before,
};
use domain::state::{Body, State};
use domain::webhook::{self, Tag};
use platform::Client;
use platform::wire::{Broadcast, Stream};
use serde::Deserialize;
use serde_json::json;
use store::AwaitedSession;
use tokio::time::Instant;
use uuid::Uuid;

use super::{Done, JobError, UNAUTHORIZED_WAIT, video_lists};
use crate::calls::{self, Destination};
use crate::claimed::ClaimedJob;
use crate::context::Context;
use crate::sweeps::Sweep;

/// Its name.
pub(super) const KIND: &str = "reconcile";

/// Shortest time between two sweeps, for demonstrations at many times real speed.
const SHORTEST: Duration = Duration::from_millis(100);

/// Time for looking, below the limit of a handler: what was seen by then is told, the rest is left to
/// the next sweep.
const BUDGET: Duration = Duration::from_mins(1);

/// Most GETs of a sweep for what a list lacked: a list that is empty in error must not lead to a
/// call for each live stream there is. The rest is asked for by the next sweeps, or by itself.
const MOST_GETS: usize = 100;

/// Live streams whose states are read at once, and hints appended at once.
const AT_ONCE: usize = 500;

/// Arguments of a sweep.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Reconcile {
    /// The source.
    source: String,
    /// It comes again; else it looks at all once.
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

/// Sweeps once.
pub(super) async fn run(ctx: &Context, job: &ClaimedJob) -> Result<Done, JobError> {
    let args: Reconcile = serde_json::from_value(job.args.clone())
        .map_err(|error| JobError::fail(format!("its arguments are wrong: {error}")))?;
    let after = often(&ctx.config().policy).max(SHORTEST);
    match sweep(ctx, job, &args).await {
        Ok(_) if args.recurs => Ok(Done::Again { after }),
        Ok(told) => {
            Ok(Done::Value(json!({ "looked_at": told.looks, "differences": told.differences })))
        }
        // Nobody would enqueue it again if it were given up.
        Err(JobError::Retry { after: asked, reason }) if args.recurs => {
            Err(JobError::Snooze { after: asked.unwrap_or_default().max(after * 3), reason })
        }
        Err(JobError::Fail { reason }) if args.recurs => {
            tracing::error!(
                source = args.source,
                reason,
                "no sweep: the platform refuses its lists"
            );
            Err(JobError::Snooze { after: UNAUTHORIZED_WAIT, reason })
        }
        Err(error) => Err(error),
    }
}

/// What a sweep did.
struct Told {
    looks: usize,
    differences: usize,
}

async fn sweep(ctx: &Context, job: &ClaimedJob, args: &Reconcile) -> Result<Told, JobError> {
    let source = args.source.as_str();
    let platform = ctx.platform(source).ok_or_else(|| JobError::Snooze {
        after: UNAUTHORIZED_WAIT,
        reason: format!("source \"{source}\" is not configured in this process"),
    })?;
    let (policy, now) = (&ctx.config().policy, ctx.now());
    let last = ctx.sweeps().of(source);
    let all = !args.recurs || last.is_none_or(|last| last.swept.is_all_due(policy, now));
    let is_due =
        |tier, since| all || last.is_some_and(|last| last.swept.is_due(policy, tier, since, now));
    let awaited = ctx.store().awaited_sessions(source).await?;
    let due: BTreeSet<LiveStreamId> = due(&awaited, is_due);
    let mut told = Told { looks: 0, differences: 0 };
    let mut pages = last.map_or(0, |last| last.pages);
    if all || !due.is_empty() {
        let permit = calls::admit(ctx, job, Destination::source(ctx, source)).await?;
        let platform = platform.behind(Arc::new(permit));
        let mut look = Look::new(ctx, source, &platform, pages);
        look.look(&awaited, due, all).await?;
        pages = look.pages;
        told.looks = look.seen.len() + look.videos;
        told.differences = look.tell(job, now, all).await?;
        ctx.metrics().sweeps.swept(source, told.looks, told.differences);
        if let Some(error) = look.trouble {
            return Err(error);
        }
    }
    let differed = told.differences > 0;
    // Counted from its end: a walk that takes long is no time in which nobody looked.
    let ended = ctx.now();
    let swept = match last {
        Some(last) if !all => last.swept.then(policy, ended, differed),
        _ => Swept::all(ended, differed),
    };
    ctx.sweeps().remember(source, Sweep { swept, pages });
    Ok(told)
}

/// The live streams whose waits are due.
fn due(
    awaited: &[AwaitedSession],
    is_due: impl Fn(Tier, Timestamp) -> bool,
) -> BTreeSet<LiveStreamId> {
    let due = awaited.iter().filter(|session| {
        Tier::of_status(&session.status).is_some_and(|tier| is_due(tier, session.since))
    });
    due.map(|session| session.live_stream).collect()
}

/// A look at a source.
struct Look<'a> {
    ctx: &'a Context,
    source: &'a str,
    platform: &'a Client,
    until: Instant,
    /// Pages of the list of live streams.
    pages: usize,
    known: BTreeMap<LiveStreamId, LiveStream>,
    /// What was seen of each live stream.
    seen: BTreeMap<LiveStreamId, SeenOtherwise>,
    /// The broadcasts that show each, where that was told.
    broadcasts: BTreeMap<LiveStreamId, Vec<BroadcastSigns>>,
    /// Those that this installation made, where all were looked at.
    made: Vec<Made>,
    /// How many videos were asked for.
    videos: usize,
    /// Why it was cut short.
    trouble: Option<JobError>,
}

impl<'a> Look<'a> {
    fn new(ctx: &'a Context, source: &'a str, platform: &'a Client, pages: usize) -> Self {
        Self {
            ctx,
            source,
            platform,
            until: Instant::now() + BUDGET,
            pages,
            known: BTreeMap::new(),
            seen: BTreeMap::new(),
            broadcasts: BTreeMap::new(),
            made: Vec::new(),
            videos: 0,
            trouble: None,
        }
    }

    /// Looks at those that are `due`, by whichever takes fewer requests: a walk over the list, which
    /// shows others too, or a GET for each.
    async fn look(
        &mut self,
        awaited: &[AwaitedSession],
        due: BTreeSet<LiveStreamId>,
        all: bool,
    ) -> Result<(), JobError> {
        self.learn(due.iter().copied().collect()).await?;
        let asks = |id: &LiveStreamId| {
            let tier = self.known.get(id).and_then(LiveStream::tier);
            matches!(tier, Some(Tier::Live | Tier::Idle))
        };
        let wanted: BTreeSet<LiveStreamId> = due.iter().copied().filter(asks).collect();
        let shown = wanted.iter().filter(|id| self.shown_broadcast(**id).is_some()).count();
        if all || wanted.len() + shown > self.pages {
            self.learn(awaited.iter().map(|session| session.live_stream).collect()).await?;
            self.walk(&wanted, all).await?;
        }
        self.ask_for_missing(&wanted).await;
        self.look_at_videos().await;
        Ok(())
    }

    /// Reads what is known of live streams.
    async fn learn(&mut self, ids: Vec<LiveStreamId>) -> Result<(), JobError> {
        let mut by_slice: BTreeMap<i16, Vec<Subject>> = BTreeMap::new();
        for id in ids.into_iter().filter(|id| !self.known.contains_key(id)) {
            let subject = Subject::live_stream(self.source, id);
            let slice = self.ctx.store().slice_of(&subject);
            by_slice.entry(slice).or_default().push(subject);
        }
        for (slice, subjects) in by_slice {
            for some in subjects.chunks(AT_ONCE) {
                let states = self.ctx.store().load_states(slice, some).await?;
                for State { body, .. } in states.into_values() {
                    if let Body::LiveStream(stream) = body {
                        self.known.insert(stream.id, *stream);
                    }
                }
            }
        }
        Ok(())
    }

    /// Walks the list of live streams, until those that are wanted were seen or, for all, to its end.
    async fn walk(&mut self, wanted: &BTreeSet<LiveStreamId>, all: bool) -> Result<(), JobError> {
        let mut list = self.platform.streams_with_broadcasts();
        let mut pages = 0;
        let mut ours = BTreeMap::new();
        while Instant::now() < self.until {
            match list.next_page().await {
                Ok(Some(rows)) => {
                    pages += 1;
                    for row in rows {
                        self.saw(&row);
                        ours.extend(self.made(&row).map(|made| (made.live_stream, made)));
                    }
                }
                Ok(None) => {
                    self.pages = pages + 1;
                    break;
                }
                Err(error) => {
                    self.trouble = Some(error.into());
                    break;
                }
            }
            if !all && wanted.iter().all(|id| self.seen.contains_key(id)) {
                break;
            }
        }
        self.pages = self.pages.max(pages);
        if all {
            self.learn(ours.keys().copied().collect()).await?;
            let had_session = |id| self.known.get(&id).is_some_and(|stream| stream.had_session);
            let made = ours.into_values();
            self.made =
                made.map(|m| Made { had_session: had_session(m.live_stream), ..m }).collect();
        }
        Ok(())
    }

    /// The broadcast that shows the session of a live stream.
    fn shown_broadcast(&self, id: LiveStreamId) -> Option<BroadcastId> {
        self.known.get(&id).and_then(LiveStream::shown_broadcast)
    }

    /// Asks for those that are wanted and were not seen: that a list lacks them says nothing.
    async fn ask_for_missing(&mut self, wanted: &BTreeSet<LiveStreamId>) {
        let missing = wanted.iter().filter(|id| !self.seen.contains_key(id));
        let missing: Vec<LiveStreamId> = missing.copied().take(MOST_GETS).collect();
        for id in missing {
            if self.trouble.is_some() || Instant::now() >= self.until {
                return;
            }
            match self.platform.get_stream(id.0).await {
                Ok(stream) => self.saw(&stream),
                Err(error) if error.is_not_found() => self.of(id).missing = true,
                Err(error) => self.trouble = Some(error.into()),
            }
            if let Some(broadcast) = self.shown_broadcast(id).filter(|_| self.trouble.is_none()) {
                self.ask_for_broadcast(id, broadcast).await;
            }
        }
    }

    /// Asks for the broadcast that shows a live stream, where that did not tell it.
    async fn ask_for_broadcast(&mut self, of: LiveStreamId, id: BroadcastId) {
        if self.broadcasts.contains_key(&of) {
            return;
        }
        let signs = match self.platform.get_broadcast(id.0).await {
            Ok(broadcast) => broadcast_signs(&broadcast),
            Err(error) if error.is_not_found() => Some(BroadcastSigns::missing(id)),
            Err(error) => return self.trouble = Some(error.into()),
        };
        self.broadcasts.insert(of, signs.into_iter().collect());
    }

    /// Asks for all videos that are awaited of the live streams that are known by now.
    async fn look_at_videos(&mut self) {
        let owners: BTreeMap<VideoId, LiveStreamId> = self
            .known
            .values()
            .flat_map(|stream| stream.awaited_videos().map(|video| (video, stream.id)))
            .collect();
        let ids: Vec<VideoId> = owners.keys().copied().collect();
        for some in ids.chunks(video_lists::AT_ONCE) {
            if self.trouble.is_some() || Instant::now() >= self.until {
                return;
            }
            match video_lists::signs_of(self.platform, some).await {
                Ok(signs) => {
                    self.videos += some.len();
                    for sign in signs {
                        let Some(owner) = owners.get(&sign.video) else { continue };
                        self.of(*owner).videos.push(sign);
                    }
                }
                Err(error) => self.trouble = Some(error.into()),
            }
        }
    }

    fn saw(&mut self, row: &Stream) {
        let signs = Signs::of(&webhook::live_stream(&row.observed()));
        let id = LiveStreamId(row.id);
        self.of(id).signs = Some(signs);
        // A list that does not name its broadcasts lacks none of them.
        let told = row.broadcasts.as_ref();
        let named = told.and_then(|all| all.iter().map(broadcast_signs).collect());
        self.broadcasts.extend(named.map(|named| (id, named)));
    }

    fn of(&mut self, id: LiveStreamId) -> &mut SeenOtherwise {
        self.seen.entry(id).or_default()
    }

    /// What of a row tells that this installation made it.
    fn made(&self, row: &Stream) -> Option<Made> {
        let tag = row.client_entity_data.as_deref().and_then(Tag::read)?;
        let live_stream = LiveStreamId(row.id);
        let (key, at, had_session) = (tag.key, row.created_at, false);
        let is_ours = tag.installation == self.ctx.store().installation();
        is_ours.then_some(Made { live_stream, key, at, had_session })
    }

    /// Hints at what differs, and proposes orphans for deletion. Returns how many hints.
    async fn tell(&self, job: &ClaimedJob, now: Timestamp, all: bool) -> Result<usize, JobError> {
        let differs = |(id, seen): (&LiveStreamId, &SeenOtherwise)| {
            let known = self.known.get(id)?;
            let broadcasts = self.broadcasts.get(id).map(|told| known.broadcast_signs(told));
            let broadcasts = broadcasts.flatten().into_iter().collect();
            let seen = known.compare(SeenOtherwise { broadcasts, ..seen.clone() })?;
            let subject = Subject::live_stream(self.source, *id);
            Some(NewEvent::new(subject, &Event::SeenOtherwise(seen), now, Uuid::now_v7()))
        };
        let mut events: Vec<NewEvent> = self.seen.iter().filter_map(differs).collect();
        let differences = events.len();
        if all {
            let rules = self.ctx.config().cleanup.get(self.source);
            let cap = usize::try_from(rules.map_or(Rules::default().cap, |rules| rules.cap));
            let orphans = orphans(&self.made, now).into_iter().take(cap.unwrap_or_default());
            events.extend(orphans.map(|orphan| self.proposal(orphan, now)));
        }
        for event in &mut events {
            event.causation_id = job.causation_id;
            event.correlation_id = job.correlation_id;
        }
        for some in events.chunks(AT_ONCE) {
            self.ctx.store().append_all(Uuid::now_v7(), some).await?;
            for event in some {
                self.ctx.events_appended(self.ctx.store().slice_of(&event.subject));
            }
        }
        Ok(differences)
    }

    /// Proposes an orphan, once a day: its own guards may keep it.
    fn proposal(&self, orphan: LiveStreamId, now: Timestamp) -> NewEvent {
        let subject = Subject::live_stream(self.source, orphan);
        let run = derived_id("orphan", &[subject.as_str(), &now.date_naive().to_string()]);
        let reason = "made twice for one session, which runs on another one".to_owned();
        tracing::warn!(%subject, "an orphan: {reason}");
        let event = CleanupRequested::orphan(run, reason, orphans_made_before(now));
        NewEvent::new(subject, &Event::CleanupRequested(event), now, run).with_key(run)
    }
}

/// What a broadcast shows; `None`: it does not say which one it is.
fn broadcast_signs(broadcast: &Broadcast) -> Option<BroadcastSigns> {
    webhook::broadcast(&broadcast.observed()).map(BroadcastSigns::of)
}
