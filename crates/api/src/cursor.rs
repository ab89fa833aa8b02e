//! Cursors: where a page of a list ended, as text that callers hand back and do not read.

use domain::ids::{LiveStreamId, Timestamp};
use uuid::Uuid;

/// The end of a page of sessions.
pub(crate) fn of_session(requested_at: Timestamp, id: Uuid) -> String {
    format!("{:x}.{}", requested_at.timestamp_micros(), id.simple())
}

/// Reads [`of_session`]; `None` where the text is something else.
pub(crate) fn read_session(text: &str) -> Option<(Timestamp, Uuid)> {
    let (micros, id) = text.split_once('.')?;
    let at = Timestamp::from_timestamp_micros(i64::from_str_radix(micros, 16).ok()?)?;
    Some((at, Uuid::try_parse(id).ok()?))
}

/// The end of a page of live streams. Ids are the platform's, and each source has its own: two may
/// share one.
pub(crate) fn of_live_stream(id: LiveStreamId, source: &str) -> String {
    format!("{:x}.{source}", id.0)
}

/// Reads [`of_live_stream`]; `None` where the text is something else.
pub(crate) fn read_live_stream(text: &str) -> Option<(LiveStreamId, String)> {
    let (id, source) = text.split_once('.')?;
    let id = i64::from_str_radix(id, 16).ok().filter(|id| *id >= 0)?;
    Some((LiveStreamId(id), source.to_owned()))
}

/// The end of a page of a timeline: the last positions told of the request's subject and of the
/// live stream's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// On the request's subject; 0: none.
    pub(crate) request: i64,
    /// On the live stream's subject; 0: none.
    pub(crate) live_stream: i64,
}

/// Why a text is no cursor of a timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotTold {
    /// It is something else.
    Unreadable,
    /// It is one of a log that was restored since: its positions may be other events' now.
    Restored,
}

impl Told {
    /// As text, with the incarnation of the log that the positions belong to.
    pub(crate) fn text(self, incarnation: Uuid) -> String {
        format!("{}.{:x}.{:x}", incarnation.simple(), self.request, self.live_stream)
    }

    /// Reads [`Told::text`] of the log in its present incarnation.
    pub(crate) fn read(text: &str, incarnation: Uuid) -> Result<Self, NotTold> {
        let (its, told) = Self::parts(text).ok_or(NotTold::Unreadable)?;
        if its == incarnation { Ok(told) } else { Err(NotTold::Restored) }
    }

    fn parts(text: &str) -> Option<(Uuid, Self)> {
        let (incarnation, positions) = text.split_once('.')?;
        let (request, live_stream) = positions.split_once('.')?;
        let position = |text: &str| i64::from_str_radix(text, 16).ok().filter(|n| *n >= 0);
        let told = Self { request: position(request)?, live_stream: position(live_stream)? };
        Some((Uuid::try_parse(incarnation).ok()?, told))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_come_back_as_they_were_given() {
        let at = Timestamp::from_timestamp_micros(1_772_366_400_123_456).unwrap();
        let id = Uuid::from_u128(7);
        assert_eq!(read_session(&of_session(at, id)), Some((at, id)));
        let live_stream = (LiveStreamId(320_423), "gcore-main".to_owned());
        let text = of_live_stream(live_stream.0, &live_stream.1);
        assert_eq!(read_live_stream(&text), Some(live_stream));
        let told = Told { request: 12, live_stream: i64::MAX };
        let (incarnation, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        assert_eq!(Told::read(&told.text(incarnation), incarnation), Ok(told));
        assert_eq!(Told::read(&told.text(incarnation), other), Err(NotTold::Restored));
    }

    #[test]
    fn other_texts_are_no_cursors() {
        for text in ["", ".", "1", "x.y", "1.2.3", "-1.0", "7fffffffffffffff.0", "1.\u{0}"] {
            assert_eq!(read_session(text), None, "{text}");
        }
        for text in ["", ".", "1", "x.y", "-1.a"] {
            assert_eq!(read_live_stream(text), None, "{text}");
        }
        let own = Uuid::nil().simple();
        for text in ["", ".", "1", "x.y", "1.2.3", "-1.0", "1.-1"] {
            let unreadable = Err(NotTold::Unreadable);
            assert_eq!(Told::read(text, Uuid::nil()), unreadable, "{text}");
            assert_eq!(Told::read(&format!("{own}.{text}.-1"), Uuid::nil()), unreadable, "{text}");
        }
    }
}
