//! Whose a video is: each is of one session, for ever, by when it was recorded. Not its job: what
//! a session makes of its parts, which is its [recording](crate::recording)'s.

use chrono::TimeDelta;
use uuid::Uuid;

use super::{CLOCKS_DIFFER, LiveStream};
use crate::call::CallResult;
use crate::ids::{Timestamp, VideoId};
use crate::session::Session;
use crate::webhook::{self, VideoObserved, VideoStatus};

/// How long the platform may hold a file open for a return: twice what its pages say.
const LONGEST_HOLD: TimeDelta = TimeDelta::minutes(2);

/// Whose a video is of which nobody knew.
enum Whose {
    /// A session's.
    Of(Uuid),
    /// A session's, by what is known; another may have it.
    PerhapsOf(Uuid),
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
            Whose::PerhapsOf(session) if seen.status == VideoStatus::Deleted => {
                self.claim(session, seen, by_api);
            }
            Whose::PerhapsOf(_) => self.unclaimed.push(seen.clone()),
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
        if let Whose::Of(session) | Whose::PerhapsOf(session) = self.whose(&seen) {
            self.claim(session, &seen, false);
        }
    }

    /// Whose a video is that nobody has claimed. What a webhook tells is when its file was closed: it
    /// began so long before as it lasts, or earlier by what the platform held it open for a return.
    fn whose(&self, seen: &VideoObserved) -> Whose {
        let latest = seen.began_at();
        let Some(session) = self.session_at(latest) else { return Whose::Nobodys };
        if seen.recording_started_at.is_some() {
            return Whose::Of(session);
        }
        let earliest = latest.map(|latest| latest - LONGEST_HOLD);
        let is_other = |s: &Session| s.id != session && s.began_at.is_some();
        let had_it = |s: &Session| s.off_air_at.is_none_or(|end| earliest.is_none_or(|e| end >= e));
        let began_before = |s: &Session| s.began_at <= latest;
        let is_doubtful = self.sessions.iter().any(|s| is_other(s) && had_it(s) && began_before(s));
        if latest.is_some() && is_doubtful { Whose::PerhapsOf(session) } else { Whose::Of(session) }
    }

    /// The session of a video that began at `began`: the one that had the live stream then, so that
    /// what somebody recorded by hand between two sessions is no part of either. Without that time
    /// only the one session of a live stream that was made for it is certain: elsewhere the video
    /// may be an earlier one's, and a list of the live stream's videos will tell.
    fn session_at(&self, began: Option<Timestamp>) -> Option<Uuid> {
        let mut holders = self.sessions.iter().rev().filter_map(|s| Some((s, s.began_at?)));
        let (session, _) = match began {
            Some(time) => holders
                .find(|(s, since)| s.created || *since <= time)
                .filter(|(s, _)| s.off_air_at.is_none_or(|end| time - end <= CLOCKS_DIFFER))?,
            None => holders.next().filter(|(s, _)| s.created)?,
        };
        Some(session.id)
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
