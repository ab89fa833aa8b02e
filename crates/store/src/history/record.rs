//! One event as it stands in a segment: the columns of its row, byte for byte.
//!
//! `meta` stays the text that the table holds, so that nothing is lost by reading and writing it.
//! The layout is documented in docs/history.md; a change of it is a new format version.

use domain::event::RecordedEvent;
use domain::ids::{Subject, Timestamp};
use uuid::Uuid;

use super::damage::Damage;

/// The event has a `causation_id`.
const HAS_CAUSATION: u8 = 1;
/// The event has a `correlation_id`.
const HAS_CORRELATION: u8 = 2;
/// The event has `meta`.
const HAS_META: u8 = 4;

/// A row of `event` without its slice, which a segment states once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) position: i64,
    pub(super) recorded_at: Timestamp,
    pub(super) received_at: Timestamp,
    pub(super) event_id: Uuid,
    pub(super) subject: String,
    pub(super) event_type: String,
    pub(super) schema_version: i16,
    pub(super) causation_id: Option<Uuid>,
    pub(super) correlation_id: Option<Uuid>,
    pub(super) meta: Option<String>,
    pub(super) payload: Vec<u8>,
}

impl Record {
    /// Appends the record's bytes. Its position is not among them: a block states that of its
    /// first record.
    pub(super) fn encode(&self, out: &mut Vec<u8>) -> Result<(), Damage> {
        let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
        out.push(
            flag(self.causation_id.is_some(), HAS_CAUSATION)
                | flag(self.correlation_id.is_some(), HAS_CORRELATION)
                | flag(self.meta.is_some(), HAS_META),
        );
        out.extend_from_slice(&self.recorded_at.timestamp_micros().to_le_bytes());
        out.extend_from_slice(&self.received_at.timestamp_micros().to_le_bytes());
        out.extend_from_slice(self.event_id.as_bytes());
        for id in [self.causation_id, self.correlation_id].into_iter().flatten() {
            out.extend_from_slice(id.as_bytes());
        }
        out.extend_from_slice(&self.schema_version.to_le_bytes());
        sized(out, self.subject.as_bytes())?;
        sized(out, self.event_type.as_bytes())?;
        if let Some(meta) = &self.meta {
            sized(out, meta.as_bytes())?;
        }
        sized(out, &self.payload)
    }

    /// Reads a record's bytes.
    pub(super) fn decode(bytes: &mut Bytes<'_>, position: i64) -> Result<Self, Damage> {
        let [flags] = bytes.array("an event")?;
        if flags & !(HAS_CAUSATION | HAS_CORRELATION | HAS_META) != 0 {
            return Err(Damage::Value("an event"));
        }
        let recorded_at = bytes.timestamp()?;
        let received_at = bytes.timestamp()?;
        let event_id = bytes.uuid()?;
        let has = |flag: u8| flags & flag != 0;
        Ok(Self {
            position,
            recorded_at,
            received_at,
            event_id,
            causation_id: has(HAS_CAUSATION).then(|| bytes.uuid()).transpose()?,
            correlation_id: has(HAS_CORRELATION).then(|| bytes.uuid()).transpose()?,
            schema_version: i16::from_le_bytes(bytes.array("an event")?),
            subject: bytes.text()?,
            event_type: bytes.text()?,
            meta: has(HAS_META).then(|| bytes.text()).transpose()?,
            payload: bytes.sized()?.to_vec(),
        })
    }

    /// The event as every reader of the log knows it.
    pub(super) fn into_event(self, slice: i16) -> Result<RecordedEvent, Damage> {
        let meta = self.meta.as_deref().map(serde_json::from_str).transpose();
        Ok(RecordedEvent {
            slice,
            position: self.position,
            recorded_at: self.recorded_at,
            received_at: self.received_at,
            event_id: self.event_id,
            subject: Subject::from_stored(self.subject),
            event_type: self.event_type,
            schema_version: self.schema_version,
            causation_id: self.causation_id,
            correlation_id: self.correlation_id,
            meta: meta.map_err(|_| Damage::Value("the meta of an event"))?,
            payload: self.payload,
        })
    }
}

/// Appends a length and that many bytes.
fn sized(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), Damage> {
    let length = u32::try_from(bytes.len()).map_err(|_| Damage::TooLarge)?;
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}

/// Bytes that are read from their beginning; reading past their end is damage, never a panic.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bytes<'a>(pub(super) &'a [u8]);

impl<'a> Bytes<'a> {
    /// Takes `length` bytes of `what`.
    pub(super) fn take(&mut self, length: usize, what: &'static str) -> Result<&'a [u8], Damage> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Damage::Short(what))?;
        self.0 = rest;
        Ok(taken)
    }

    /// Takes `N` bytes of `what`.
    pub(super) fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Damage> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(Damage::Short(what))?;
        self.0 = rest;
        Ok(*taken)
    }

    /// Whether nothing is left.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn sized(&mut self) -> Result<&'a [u8], Damage> {
        let length = u32::from_le_bytes(self.array("an event")?);
        self.take(usize::try_from(length).map_err(|_| Damage::TooLarge)?, "an event")
    }

    fn text(&mut self) -> Result<String, Damage> {
        let bytes = self.sized()?.to_vec();
        String::from_utf8(bytes).map_err(|_| Damage::Value("a text of an event"))
    }

    fn uuid(&mut self) -> Result<Uuid, Damage> {
        Ok(Uuid::from_bytes(self.array("an event")?))
    }

    fn timestamp(&mut self) -> Result<Timestamp, Damage> {
        let micros = i64::from_le_bytes(self.array("an event")?);
        Timestamp::from_timestamp_micros(micros).ok_or(Damage::Value("a time of an event"))
    }
}
