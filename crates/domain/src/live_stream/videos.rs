//! Whose a video is: each is of one session, for ever, by when it was recorded. Not its job: what
//! a session makes of its parts, which is its [recording](crate::recording)'s.

use chrono::TimeDelta;
use uuid::Uuid;

use super::{CLOCKS_DIFFER, LiveStream};
use crate::call::CallResult;
use crate::ids::VideoId;
use crate::session::Session;
use crate::webhook::{self, VideoObserved, VideoStatus};

/// How long the platform may hold a file open for a return: twice what its pages say.
const LONGEST_HOLD: TimeDelta = TimeDelta::minutes(2);

/// Whose a video is of which nobody knew.
enum Whose {
    /// A session's.
    Of(Uuid),
    /// A session's or another's, by what is known.
    InDoubt,
    /// Nobody's.
    Nobodys,
}

impl LiveStream {
    /// Applies what was told of a video, and attaches it to its session: the one that is known for
    /// it, else the one that had the live stream when it was recorded.
    pub(super) fn video(&mut self, seen: &VideoObserved, by_api: bool) {
        let known = self.videos.get(&seen.id).copied();
        if known.is_none() && !seen.may_be_recording() {
            return;
        }
        let whose = known.map_or_else(|| self.whose(seen), Whose::Of);
        self.unclaimed.retain(|video| video.id != seen.id);
        match whose {
            Whose::Of(session) => self.claim(session, seen, by_api),
            // Of one that is gone nothing more will be told.
            Whose::InDoubt if seen.status == VideoStatus::Deleted => {
                self.claim_likely(seen, by_api);
            }
            Whose::InDoubt => self.unclaimed.push(seen.clone()),
            Whose::Nobodys => {}
        }
    }

    fn claim(&mut self, session: Uuid, seen: &VideoObserved, by_api: bool) {
        self.videos.insert(seen.id, session);
        if let Some(session) = self.session_mut(session) {
            session.recording.part(seen, by_api);
        }
    }

    /// A video whose session is in doubt: the platform knows when it began.
    pub(crate) fn to_claim(&self) -> Option<VideoId> {
        self.unclaimed.first().map(|video| video.id)
    }

    /// Applies that the platform does not tell whose a video is: it is whose it seems to be.
    pub(super) fn claimed_at_last(&mut self, id: VideoId) {
        let Some(at) = self.unclaimed.iter().position(|video| video.id == id) else { return };
        let seen = self.unclaimed.remove(at);
        self.claim_likely(&seen, false);
    }

    fn claim_likely(&mut self, seen: &VideoObserved, by_api: bool) {
        if let Some(session) = self.likely_session(seen) {
            self.claim(session, seen, by_api);
        }
    }

    /// Whose a video is that nobody has claimed. What a webhook tells is when its file was closed: it
    /// began so long before as it lasts, or earlier by what the platform held it open for a return.
    fn whose(&self, seen: &VideoObserved) -> Whose {
        let session = self.likely_session(seen);
        let is_other = |s: &Session| Some(s.id) != session && s.began_at.is_some();
        let in_doubt = match (seen.recording_started_at, seen.began_at()) {
            (None, Some(latest)) => {
                let earliest = latest - LONGEST_HOLD;
                self.sessions.iter().any(|s| is_other(s) && s.had_it(earliest, latest))
            }
            _ => false,
        };
        if in_doubt { Whose::InDoubt } else { session.map_or(Whose::Nobodys, Whose::Of) }
    }

    /// The session of a video by when it began: the one that had the live stream then. What began
    /// while nobody had it is of the first that had it before the file ended, else of one that had
    /// only just let go of it; what somebody recorded by hand between two sessions is no part of
    /// either.
    fn likely_session(&self, seen: &VideoObserved) -> Option<Uuid> {
        let Some(began) = seen.began_at() else { return self.only_session() };
        let ended = seen.ended_at().unwrap_or(began).max(began);
        let just_left = |s: &&Session| s.had_it(began - CLOCKS_DIFFER, began);
        let session = self.sessions.iter().find(|s| s.had_it(began, ended));
        session.or_else(|| self.sessions.iter().rfind(just_left)).map(|s| s.id)
    }

    /// Of a video that does not tell when it began only the one session of a live stream that was
    /// made for it is certain: elsewhere it may be an earlier one's, and a list of the live stream's
    /// videos will tell.
    fn only_session(&self) -> Option<Uuid> {
        let latest = self.sessions.iter().rfind(|s| s.began_at.is_some())?;
        latest.created.then_some(latest.id)
    }

    /// Whether a session other than `but` had the live stream when a video began.
    pub(super) fn is_of_another(&self, but: Option<Uuid>, seen: &VideoObserved) -> bool {
        let had_it = |began| self.sessions.iter().find(|s| s.had_it(began, began));
        seen.began_at().and_then(had_it).is_some_and(|session| Some(session.id) != but)
    }

    /// The session that `video` belongs to, if it is not over.
    pub(super) fn session_of(&mut self, video: VideoId) -> Option<&mut Session> {
        let id = self.videos.get(&video).copied()?;
        self.session_mut(id)
    }

    /// Applies what the platform answers of a video.
    pub(super) fn fetched(&mut self, id: VideoId, result: &CallResult) {
        if let CallResult::Video { observed } = result
            && let Some(video) = webhook::video(observed)
        {
            self.video(&video, true);
        }
        self.claimed_at_last(id);
        if let Some(session) = self.session_of(id) {
            session.recording.fetched(id);
        }
    }

    /// Applies that videos do not exist any more.
    pub(super) fn recordings_gone(&mut self, videos: &[VideoId]) {
        for video in videos {
            if let Some(session) = self.session_of(*video) {
                session.recording.gone(*video);
            }
        }
    }
}
