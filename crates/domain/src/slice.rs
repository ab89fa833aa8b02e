//! Subject to slice: the one unit of ordering, ownership and scaling.
//!
//! The slice of a subject is the first two bytes (big-endian) of its SHA-256, modulo the number
//! of slices `S`, so that Rust, SQL (`sha256()`) and any client compute the same.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::ids::Subject;

/// The number of slices of an installation, fixed when it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SliceCount(i16);

impl SliceCount {
    /// What an installation gets unless it asks for another number.
    pub const DEFAULT: Self = Self(16);

    /// Returns `None` outside 1..=4096: more slices than that leave each with single events.
    pub fn new(count: i16) -> Option<Self> {
        (1..=4096).contains(&count).then_some(Self(count))
    }

    /// The number itself.
    pub fn get(self) -> i16 {
        self.0
    }

    /// All slices, in order.
    pub fn slices(self) -> impl Iterator<Item = i16> {
        0..self.0
    }

    /// The slice of `subject`.
    pub fn slice_of(self, subject: &Subject) -> i16 {
        let digest = Sha256::digest(subject.as_str().as_bytes());
        let hash = u16::from_be_bytes([digest[0], digest[1]]);
        // The remainder is below `self.0`, so it fits.
        i16::try_from(i32::from(hash) % i32::from(self.0)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors other languages check themselves against; the SQL function has the same test.
    #[test]
    fn slice_vectors_never_change() {
        for (subject, s16, s256) in VECTORS {
            let subject = Subject::from_stored((*subject).to_owned());
            assert_eq!(SliceCount::DEFAULT.slice_of(&subject), *s16, "{subject}");
            assert_eq!(SliceCount(256).slice_of(&subject), *s256, "{subject}");
        }
    }

    const VECTORS: &[(&str, i16, i16)] = &[
        ("", 0, 176),
        ("gcore-main/stream/320423", 2, 178),
        ("gcore-main/video/803111", 10, 154),
        ("gcore-main/broadcast/192470", 6, 38),
        ("gcore-main/unrecognized", 3, 195),
        ("quelle/stream/ä", 13, 141),
    ];

    #[test]
    fn slice_counts_are_bounded() {
        assert!(SliceCount::new(0).is_none());
        assert!(SliceCount::new(4097).is_none());
        assert_eq!(SliceCount::new(64).map(SliceCount::get), Some(64));
    }
}
