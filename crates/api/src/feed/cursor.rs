//! Cursors of the feed: a position in every slice, as text that callers hand back and do not read.
//!
//! A version, the first bytes of the incarnation of the log, and the positions as numbers of seven
//! bits a byte, in base64 that needs no escapes: some 70 characters for 16 slices.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use domain::slice::SliceCount;
use uuid::Uuid;

/// The version of this form.
const VERSION: u8 = 1;

/// Bytes of the incarnation that tell it from another one.
const MARK: usize = 4;

/// A point of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cursor {
    /// Which history its positions belong to.
    pub(super) incarnation: Uuid,
    /// By slice: the last position that was looked through.
    pub(super) point: Vec<i64>,
}

/// Why a text is no cursor of this log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotACursor {
    /// It is something else.
    Unreadable,
    /// It is one of a log that was restored since: its positions may be other events' now.
    Restored,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&self.incarnation.as_bytes()[..MARK]);
        for position in &self.point {
            write_number(&mut bytes, position.unsigned_abs());
        }
        f.write_str(&URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl Cursor {
    /// Reads a cursor of a log with so many slices, in its present incarnation.
    pub(super) fn read(
        text: &str,
        incarnation: Uuid,
        slices: SliceCount,
    ) -> Result<Self, NotACursor> {
        let (mark, point) = parts(text, slices).ok_or(NotACursor::Unreadable)?;
        if mark[..] != incarnation.as_bytes()[..MARK] {
            return Err(NotACursor::Restored);
        }
        Ok(Self { incarnation, point })
    }
}

fn parts(text: &str, slices: SliceCount) -> Option<([u8; MARK], Vec<i64>)> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let (version, rest) = bytes.split_first()?;
    let (mark, mut rest) = rest.split_first_chunk::<MARK>()?;
    let mut point = Vec::new();
    while !rest.is_empty() {
        let (number, behind) = read_number(rest)?;
        point.push(i64::try_from(number).ok()?);
        rest = behind;
    }
    let fits = *version == VERSION && point.len() == slices.slices().count();
    fits.then_some((*mark, point))
}

/// Writes seven bits a byte, the lowest first; the high bit says that there are more.
fn write_number(to: &mut Vec<u8>, mut number: u64) {
    loop {
        let low = u8::try_from(number & 0x7f).unwrap_or_default();
        number >>= 7;
        if number == 0 {
            return to.push(low);
        }
        to.push(low | 0x80);
    }
}

/// Reads a number, and what stands behind it.
fn read_number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut number = 0_u64;
    for (nth, byte) in (0..).zip(bytes.iter().take(10)) {
        let bits = u64::from(byte & 0x7f);
        number |= bits.checked_shl(7 * nth).filter(|shifted| shifted >> (7 * nth) == bits)?;
        if byte & 0x80 == 0 {
            return Some((number, &bytes[usize::try_from(nth).ok()? + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slices(count: i16) -> SliceCount {
        SliceCount::new(count).unwrap()
    }

    #[test]
    fn a_cursor_comes_back_as_it_was_given() {
        let (incarnation, other) = (Uuid::from_u128(u128::MAX), Uuid::nil());
        let point = vec![0, 1, 127, 128, 5_000_000_000, i64::MAX, 2, 3];
        let cursor = Cursor { incarnation, point };
        let text = cursor.to_string();
        assert!(
            text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'),
            "{text}"
        );
        assert_eq!(Cursor::read(&text, incarnation, slices(8)), Ok(cursor));
        assert_eq!(Cursor::read(&text, other, slices(8)), Err(NotACursor::Restored));
        assert_eq!(Cursor::read(&text, incarnation, slices(16)), Err(NotACursor::Unreadable));
    }

    #[test]
    fn a_cursor_of_many_events_is_short() {
        let cursor = Cursor { incarnation: Uuid::nil(), point: vec![1_000_000; 16] };
        assert!(cursor.to_string().len() <= 72, "{}", cursor.to_string().len());
    }

    #[test]
    fn other_texts_are_no_cursors() {
        let own = Cursor { incarnation: Uuid::nil(), point: vec![200; 4] }.to_string();
        let cut = own[..own.len() - 1].to_owned();
        let wide = URL_SAFE_NO_PAD.encode([&[1, 0, 0, 0, 0][..], &[0xff; 10], &[1]].concat());
        let newer = URL_SAFE_NO_PAD.encode([2, 0, 0, 0, 0, 1, 1, 1, 1]);
        for text in ["", "now", "AQ", "!", &format!("{own}A"), &cut, &wide, &newer] {
            let read = Cursor::read(text, Uuid::nil(), slices(4));
            assert_eq!(read, Err(NotACursor::Unreadable), "{text}");
        }
    }
}
