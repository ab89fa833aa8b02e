//! Events in words, one line each, for people who look at a timeline. Says what is known and
//! nothing of the payload that may be secret.

use crate::announcement::{Announcement, CleanupRunNews, PartNews, QuotaNews, SessionNews};
use crate::call::{Call, CallResult};
use crate::event::{Event, RecordedEvent, SessionRequested};
use crate::reconcile::{BroadcastSigns, SeenOtherwise};
use crate::timer::TimerKind;
use crate::webhook::{self, LiveStreamObserved, Observation, Rendition, VideoStatus};

/// Longest text of others within a summary, characters.
const MAX_QUOTED: usize = 300;

/// What sort of event it is, in one word of at most nine letters.
pub fn sort(event: &Event) -> &'static str {
    match event {
        Event::WebhookReceived(_) => "webhook",
        Event::SessionRequested(_)
        | Event::GoLiveRequested(_)
        | Event::EndRequested(_)
        | Event::RetryRequested(_)
        | Event::AccountDeleted(_)
        | Event::AccountErased(_)
        | Event::CleanupRequested(_)
        | Event::ReconcileRequested(_) => "command",
        Event::SessionBound(_)
        | Event::Bound(_)
        | Event::VideoChanged(_)
        | Event::BroadcastChanged(_)
        | Event::Slot(_) => "forwarded",
        Event::CallIntended(_) | Event::LimitExceeded(_) => "decided",
        Event::SeenOtherwise(_) => "swept",
        Event::CallSucceeded(_) => "called",
        Event::CallFailed(_) => "failed",
        Event::TimerElapsed(_) => "timer",
        Event::JobCompleted(_) | Event::JobDiscarded(_) | Event::JobCancelled(_) => "job",
        Event::Cleanup(_) => "cleanup",
        Event::Announced(_) => "state",
        Event::Unrecognized => "unknown",
    }
}

/// The event in words. `event` is what was read of `stored`.
pub fn words(stored: &RecordedEvent, event: &Event) -> String {
    match event {
        Event::WebhookReceived(webhook) => told(stored, &webhook.observation),
        Event::SessionRequested(request) => requested(request),
        Event::GoLiveRequested(_) => "go live".to_owned(),
        Event::EndRequested(_) => "end".to_owned(),
        Event::RetryRequested(_) => "try again".to_owned(),
        Event::AccountDeleted(deleted) => format!("account {} was deleted", deleted.account),
        Event::AccountErased(erased) => format!("account {} was forgotten", erased.account),
        Event::CleanupRequested(cleanup) => format!("clean up: {}", quoted(&cleanup.reason)),
        Event::ReconcileRequested(reconcile) => {
            format!("ask the platform: {}", quoted(&reconcile.reason))
        }
        Event::SeenOtherwise(seen) => seen_otherwise(seen),
        Event::SessionBound(bound) if bound.created => {
            format!("live stream {} was made for the session", bound.live_stream)
        }
        Event::SessionBound(bound) => {
            format!("the session reuses live stream {}", bound.live_stream)
        }
        Event::Bound(bound) => format!("belongs to live stream {}", bound.live_stream),
        Event::VideoChanged(changed) => {
            video(changed.video.id.0, changed.video.status, &changed.video.renditions)
        }
        Event::BroadcastChanged(changed) => {
            format!("broadcast {} is {}", changed.broadcast, quoted(&changed.status))
        }
        Event::CallIntended(intended) => intent(&intended.call),
        Event::CallSucceeded(done) => answered(&done.result),
        Event::CallFailed(failed) => format!("given up: {}", quoted(&failed.reason)),
        Event::TimerElapsed(elapsed) => match elapsed.timer {
            TimerKind::Grace => "the encoder's grace period is over".to_owned(),
            TimerKind::Poll => "nothing was heard for a while: time to ask".to_owned(),
            TimerKind::Call => "the call in flight had its time".to_owned(),
            TimerKind::Sweep => "time to look at the active live streams".to_owned(),
            TimerKind::Steady => "the encoder had time to show that it is steady".to_owned(),
        },
        Event::LimitExceeded(exceeded) => exceeded.limit.words().to_owned(),
        Event::Slot(slot) => slot.words(),
        Event::JobCompleted(job) => format!("{} is done", job.kind),
        Event::JobDiscarded(job) => {
            format!("{} was given up: {}", job.kind, quoted(job.error.as_deref().unwrap_or("")))
        }
        Event::JobCancelled(job) => {
            format!("{} was cancelled: {}", job.kind, quoted(job.error.as_deref().unwrap_or("")))
        }
        Event::Cleanup(cleanup) => quoted(&cleanup.words()),
        Event::Announced(announcement) => announced(announcement),
        Event::Unrecognized => "an event that this version cannot read".to_owned(),
    }
}

fn requested(request: &SessionRequested) -> String {
    let name = quoted(&request.name);
    match request.live_stream {
        Some(live_stream) => format!("run session \"{name}\" on live stream {live_stream}"),
        None => format!("run session \"{name}\""),
    }
}

/// What a webhook told.
fn told(stored: &RecordedEvent, observation: &Observation) -> String {
    match observation {
        Observation::LiveStream(seen) => {
            let id = stored.subject.parts().map_or("", |(_, _, id)| id);
            format!("live stream {id}: {}", flags(seen))
        }
        Observation::Video(seen) => video(seen.id.0, seen.status, &seen.renditions),
        Observation::Broadcast(seen) => {
            let status = seen.status.as_deref().map_or("in an unknown status".to_owned(), quoted);
            format!("broadcast {} is {status}", seen.id)
        }
        Observation::Unrecognized => {
            format!("not recognized, kept ({} bytes)", stored.payload.len())
        }
    }
}

/// What was seen of a live stream.
fn flags(seen: &LiveStreamObserved) -> String {
    let word = |value: Option<bool>, yes, no| value.map(|value| if value { yes } else { no });
    let words: Vec<&str> = [
        word(seen.active, "active", "not active"),
        word(seen.live, "live", "not live"),
        seen.backup_live.filter(|live| *live).map(|_| "backup live"),
        word(seen.recording, "recording", "not recording"),
        seen.transcoding.filter(|on| *on).map(|_| "playable"),
    ]
    .into_iter()
    .flatten()
    .collect();
    if words.is_empty() { "nothing new".to_owned() } else { words.join(", ") }
}

fn video(id: i64, status: VideoStatus, renditions: &[Rendition]) -> String {
    let complete = renditions.iter().filter(|r| r.status == "complete").count();
    let of = match renditions.len() {
        0 => String::new(),
        total => format!(", {complete} of {total} renditions"),
    };
    format!("video {id} is {}{of}", status.name())
}

fn intent(call: &Call) -> String {
    if let Call::SetBroadcastStatus { status, .. } = call {
        return format!("set broadcast {status}");
    }
    call.kind().replace('_', " ")
}

/// What a call was answered.
fn answered(result: &CallResult) -> String {
    match result {
        CallResult::LiveStream { observed } => {
            let id = observed.get("id").map(ToString::to_string).unwrap_or_default();
            format!("live stream {id}: {}", flags(&webhook::live_stream(observed)))
        }
        CallResult::Broadcast { observed } => match webhook::broadcast(observed) {
            Some(seen) => {
                format!("broadcast {} is {}", seen.id, seen.status.as_deref().unwrap_or("made"))
            }
            None => "broadcast accepted".to_owned(),
        },
        CallResult::RecordingStarted { warnings } if warnings.is_empty() => {
            "recording accepted".to_owned()
        }
        CallResult::RecordingStarted { warnings } => {
            format!("recording accepted, with warnings: {}", quoted(&warnings.join("; ")))
        }
        CallResult::RecordingRefused { errors } => {
            format!("recording refused: {}", quoted(&errors.join("; ")))
        }
        CallResult::RecordingStopped { video: Some(observed) } => {
            let id = observed.get("id").map(ToString::to_string).unwrap_or_default();
            format!("recording stopped, video {id}")
        }
        CallResult::RecordingStopped { video: None } => {
            "recording stopped, no video told".to_owned()
        }
        CallResult::Videos { observed } => format!("{} videos listed", observed.len()),
        CallResult::Video { observed } => match webhook::video(observed) {
            Some(seen) => video(seen.id.0, seen.status, &seen.renditions),
            None => "video told".to_owned(),
        },
        CallResult::ActiveStreams { active, .. } => {
            format!("{} live streams are active", active.len())
        }
        CallResult::AirTimes { times, .. } => format!("on air {} times", times.len()),
        CallResult::Gone => "it is gone".to_owned(),
        CallResult::Done => "done".to_owned(),
        CallResult::Deleted { videos } => {
            format!("live stream deleted, {} videos before it", videos.len())
        }
        CallResult::RecordingsDeleted { videos, kept } if kept.is_empty() => {
            format!("{} videos deleted", videos.len())
        }
        CallResult::RecordingsDeleted { videos, kept } => {
            format!("{} videos deleted, kept: {}", videos.len(), quoted(&kept.join("; ")))
        }
        CallResult::Deferred { reason } => format!("no room now: {}", quoted(reason)),
        CallResult::Kept { reason } => format!("live stream kept: {}", quoted(reason)),
    }
}

/// What a sweep saw, as a list of what is otherwise.
fn seen_otherwise(seen: &SeenOtherwise) -> String {
    let signs = seen.signs.unwrap_or_default();
    let sign = |told: Option<bool>, what: &str| match told {
        Some(true) => Some(what.to_owned()),
        Some(false) => Some(format!("not {what}")),
        None => None,
    };
    let video = |v: &crate::reconcile::VideoSigns| {
        let status = v.status.map_or("not there", VideoStatus::name);
        format!("video {} {status}", v.video)
    };
    let broadcast = |b: &BroadcastSigns| {
        let status = if b.missing { "not there" } else { b.status.as_deref().unwrap_or("other") };
        format!("broadcast {} {status}", b.broadcast)
    };
    let all = [sign(signs.live, "live"), sign(signs.active, "active")].into_iter();
    let all = all.chain([sign(signs.recording, "recording")]).flatten();
    let all = all.chain(seen.missing.then(|| "not there".to_owned()));
    let all = all.chain(seen.broadcasts.iter().map(broadcast));
    let all: Vec<String> = all.chain(seen.videos.iter().map(video)).collect();
    format!("a sweep saw it otherwise: {}", all.join(", "))
}

fn announced(announcement: &Announcement) -> String {
    let noted = |text: &str, news: &SessionNews| match &news.note {
        Some(note) => format!("{text}: {}", quoted(note)),
        None => text.to_owned(),
    };
    match announcement {
        Announcement::SessionReady(news) => noted("ready: the encoder may connect", news),
        Announcement::SessionTestStarted(news) => {
            noted("testing: the encoder sends, the audience does not see it", news)
        }
        Announcement::SessionWentLive(news) => noted("live", news),
        Announcement::SessionInterrupted(news) => noted("interrupted", news),
        Announcement::SessionResumed(news) => noted("live again", news),
        Announcement::SessionStopped(news) => noted("off air, videos are processed", news),
        Announcement::SessionEnded(news) => noted("ended", news),
        Announcement::SessionFailed(news) => noted("failed", news),
        Announcement::SessionUnstable(news) => noted("the encoder is unstable", news),
        Announcement::RecordingPartOverdue(news) => {
            let PartNews { part, video, status, .. } = news;
            format!("part {part} of the recording is overdue: video {video} is {status}")
        }
        Announcement::RecordingPartDeleted(news) => {
            format!("part {} of the recording is gone: video {} was deleted", news.part, news.video)
        }
        Announcement::RecordingPartReady(news) => {
            format!("part {} of the recording can be played: video {}", news.part, news.video)
        }
        Announcement::RecordingReady(news) => noted("the recording is complete", news),
        Announcement::QuotaWaiting(QuotaNews { place: Some(place), .. }) => {
            format!("number {place} of those that wait for a slot of the account")
        }
        Announcement::QuotaWaiting(_) => "waits for a free slot of the account".to_owned(),
        Announcement::EndpointDisabled(news) => {
            format!("endpoint {} is told nothing any more: {}", news.endpoint, quoted(&news.reason))
        }
        Announcement::CleanupDone(news) => {
            let what = match (news.deleted, news.videos.len()) {
                (true, _) => "deleted".to_owned(),
                (false, 0) => "kept".to_owned(),
                (false, n) => format!("rid of {n} videos"),
            };
            format!("live stream {} {what}: {}", news.live_stream, quoted(&news.reason))
        }
        Announcement::CleanupFinished(news) => {
            let CleanupRunNews { policy, deleted, videos_deleted, kept, left, .. } = news;
            format!(
                "cleanup by {policy} is over: {deleted} live streams and {videos_deleted} videos \
                 deleted, {kept} kept, {left} left"
            )
        }
    }
}

/// A text of others: of bounded length, on one line.
fn quoted(text: &str) -> String {
    let line = |c: char| if c.is_control() { ' ' } else { c };
    let mut quoted: String = text.chars().take(MAX_QUOTED).map(line).collect();
    if text.chars().nth(MAX_QUOTED).is_some() {
        quoted.push('…');
    }
    quoted
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::event::CallFailed;
    use crate::ids::{LiveStreamId, Subject, Timestamp};

    fn stored() -> RecordedEvent {
        RecordedEvent {
            slice: 0,
            position: 1,
            recorded_at: Timestamp::default(),
            received_at: Timestamp::default(),
            event_id: Uuid::nil(),
            subject: Subject::live_stream("a", LiveStreamId(7)),
            event_type: String::new(),
            schema_version: 1,
            causation_id: None,
            correlation_id: None,
            meta: None,
            payload: Vec::new(),
        }
    }

    #[test]
    fn texts_of_others_are_bounded_and_stay_on_one_line() {
        let reason = format!("line\nline\u{1b}{}", "x".repeat(400));
        let event = Event::CallFailed(CallFailed { intent: Uuid::nil(), reason });
        let text = words(&stored(), &event);
        assert!(text.starts_with("given up: line line x"), "{text}");
        assert!(text.ends_with("x…") && text.chars().count() < 330);
    }

    #[test]
    fn a_webhook_says_what_it_told_and_nothing_else() {
        let body =
            br#"{"type":"stream","message":{"stream":{"id":7,"live":false,"uri":"srt://x"}}}"#;
        let event = Event::WebhookReceived(webhook::read(body));
        assert_eq!(words(&stored(), &event), "live stream 7: not live");
    }
}
