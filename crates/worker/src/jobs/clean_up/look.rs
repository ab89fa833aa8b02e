//! How candidates are found, one way for each policy. Finding deletes nothing and decides nothing:
//! every candidate goes through `judge`.

use std::sync::Arc;
use std::time::Duration;

use domain::cleanup::{
    CleanupPolicy, Keep, Maker, OrphanFacts, RecordingFacts, Rules, days, earlier,
};
use domain::ids::LiveStreamId;
use domain::webhook::Tag;
use platform::wire::Stream;

use super::{Proposal, Run};
use crate::calls::{self, Destination};
use crate::jobs::JobError;

/// Live streams of deleted accounts that are looked at in one run.
const MOST_INACTIVE: i64 = 2_000;

/// Ended sessions that are read in one go.
const PAGE: i64 = 200;

/// Ended sessions that are looked at in one run.
const MOST_SESSIONS: u64 = 10_000;

/// Recordings of one live stream that a run proposes: one call deletes them, in its time.
const MOST_VIDEOS: usize = 20;

/// How far projections may be behind when it counts what they do not know.
const BEHIND: Duration = Duration::from_mins(1);

/// A wait for the projections.
const BEHIND_WAIT: Duration = Duration::from_mins(5);

/// The rule that a policy judges by, for people.
pub(super) fn rule(policy: CleanupPolicy, rules: &Rules) -> String {
    match policy {
        CleanupPolicy::Inactive => {
            let recordings = if rules.delete_recordings { "go with them" } else { "stay" };
            format!(
                "live streams of deleted accounts, idle for {}; recordings {recordings}",
                days(rules.inactive_after)
            )
        }
        CleanupPolicy::Orphans => {
            let after = days(rules.orphans_after);
            format!("made by this installation {after} ago or longer, and no session has it")
        }
        CleanupPolicy::Recordings => {
            let accounts = rules.keep_recordings_of.len();
            let own = if accounts == 0 { "" } else { "; some accounts have a rule of their own" };
            match rules.keep_recordings {
                Keep::For(time) => format!("recordings are kept for {}{own}", days(time)),
                Keep::Unset | Keep::Forever => format!("recordings are kept for ever{own}"),
            }
        }
    }
}

/// Live streams of deleted accounts.
pub(super) async fn inactive(run: &mut Run<'_>) -> Result<(), JobError> {
    let found = run.ctx.store().inactive_live_streams(run.source, MOST_INACTIVE).await?;
    for facts in found {
        if run.is_judged(facts.live_stream) {
            continue;
        }
        let verdict = facts.judge(run.now, run.rules.inactive_after);
        let keep = run.rules.keeps(Some(&facts.account));
        let proposal = Proposal {
            // What is kept for ever stays when its live stream goes, as the platform lets it.
            delete_recordings: run.rules.delete_recordings && keep != Keep::Forever,
            made_before: keep.before(run.now),
            videos: Vec::new(),
        };
        run.judge(facts.live_stream, verdict, proposal).await?;
    }
    Ok(())
}

/// Live streams that carry this installation's tag and no session has. They are known to the
/// platform alone; who made them, to the log: neither an empty list nor a lost log makes an orphan.
pub(super) async fn orphans(run: &mut Run<'_>) -> Result<(), JobError> {
    if !run.ctx.store().is_caught_up(BEHIND).await? {
        return Err(JobError::Snooze {
            after: BEHIND_WAIT,
            reason: "not every event is applied yet, and a session may be among them: see \
                     `tallylight status`"
                .to_owned(),
        });
    }
    let Some(platform) = run.ctx.platform(run.source) else { return Ok(()) };
    let permit = calls::admit(run.ctx, run.job, Destination::source(run.ctx, run.source)).await?;
    let platform = platform.behind(Arc::new(permit));
    let mut pages = platform.streams();
    while let Some(page) = pages.next_page().await? {
        for stream in page {
            look_at_orphan(run, &stream).await?;
        }
    }
    Ok(())
}

async fn look_at_orphan(run: &mut Run<'_>, stream: &Stream) -> Result<(), JobError> {
    let id = LiveStreamId(stream.id);
    let store = run.ctx.store();
    let tag = stream.client_entity_data.as_deref().and_then(Tag::read);
    let Some(tag) = tag.filter(|tag| tag.installation == store.installation()) else {
        return Ok(());
    };
    if run.is_judged(id) {
        return Ok(());
    }
    let made_at = stream.created_at.unwrap_or(run.now);
    let maker = store.maker_of(run.source, id, tag.key, made_at).await?;
    // Those are no candidates at all: nearly all that is ours.
    if let Maker::Has(_) = maker {
        return Ok(());
    }
    let before = OrphanFacts::before(run.now, run.rules.orphans_after);
    let verdict = facts(stream, maker).judge(before);
    let proposal = Proposal { made_before: Some(before), ..Proposal::default() };
    run.judge(id, verdict, proposal).await
}

/// What the platform says of a live stream that no session may have.
pub(in crate::jobs) fn facts(stream: &Stream, maker: Maker) -> OrphanFacts {
    OrphanFacts {
        maker,
        made_at: stream.created_at,
        live: stream.is_live(),
        active: stream.active,
        recording: stream.recording,
    }
}

/// Recordings of sessions that ended long ago.
pub(super) async fn recordings(run: &mut Run<'_>) -> Result<(), JobError> {
    let Some(shortest) = run.rules.shortest_keep() else { return Ok(()) };
    let ended_by = earlier(run.now, shortest);
    let (mut after, mut seen) = (None, 0);
    while seen < MOST_SESSIONS {
        let store = run.ctx.store();
        let page = store.ended_recordings(run.source, ended_by, after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some((last.ended_at, last.session));
        for facts in page {
            seen += 1;
            look_at_recordings(run, facts).await?;
        }
    }
    Ok(())
}

async fn look_at_recordings(run: &mut Run<'_>, facts: RecordingFacts) -> Result<(), JobError> {
    // A live stream of several sessions has one proposal in a run: the next run goes on.
    if run.is_judged(facts.live_stream) {
        return Ok(());
    }
    let keep = run.rules.keeps(facts.account.as_deref());
    let verdict = facts.judge(run.now, keep);
    let mut videos = facts.videos;
    videos.truncate(MOST_VIDEOS);
    let proposal = Proposal { videos, made_before: keep.before(run.now), delete_recordings: false };
    run.judge(facts.live_stream, verdict, proposal).await
}
