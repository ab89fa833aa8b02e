//! What can be wrong with the bytes of a segment.

/// Why bytes are no sound segment. Readable after "read segment ..:".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// The file is no segment.
    #[error("it does not carry the mark of a segment")]
    NotASegment,
    /// A newer build wrote it.
    #[error("it has format version {0}, and this build reads version 1")]
    Version(u16),
    /// It ends too early.
    #[error("{0} is cut short")]
    Short(&'static str),
    /// A checksum is wrong.
    #[error("the checksum of {0} is wrong")]
    Checksum(&'static str),
    /// A value is impossible.
    #[error("{0} holds an impossible value")]
    Value(&'static str),
    /// A value does not fit the format.
    #[error("an event is larger than 4 GiB")]
    TooLarge,
    /// It is sound, but not the segment that it should be.
    #[error("{0} is not that of the segment noted in the database")]
    Another(&'static str),
    /// Decoded, it is not what the table holds.
    #[error("its event {0} is not the one of the table")]
    Differs(i64),
}
