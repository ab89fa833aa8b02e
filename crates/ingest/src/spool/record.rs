//! The bytes of a spooled batch: one record, `marker, length, crc32c, body`.
//!
//! A record is *whole* if its checksum over marker, length and body holds. The marker is random for
//! each file, so that no payload can pass for a record when a damaged file is searched for the next
//! one. Numbers are little-endian; texts and bytes carry their length before them.

use std::borrow::Borrow;

use domain::event::{Meta, NewEvent};
use domain::ids::{Subject, Timestamp};
use uuid::Uuid;

/// Begins every record of one file.
pub(super) type Marker = [u8; 8];

/// Marker, length of the body, checksum.
const HEAD: usize = 16;

/// Longer than any batch: the largest body that can be configured, and room for what goes with it.
/// A length above it is damage.
const LONGEST_BODY: usize = 64 << 20;

/// A batch as it was frozen: events of one slice that are appended in one call under one id.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Frozen {
    /// The slice of all its events.
    pub(crate) slice: i16,
    /// Makes a repeated append harmless.
    pub(crate) id: Uuid,
    /// In order.
    pub(crate) events: Vec<NewEvent>,
}

/// What stands at a place of a file.
#[derive(Debug, PartialEq)]
pub(super) enum Found {
    /// A record.
    Whole {
        /// With marker, length and checksum.
        length: usize,
        /// The slice that it belongs to.
        slice: i16,
    },
    /// The beginning of a record whose end is missing.
    Torn,
    /// Anything else.
    Damage,
}

/// The body of a batch. Its head is added when the file, and so the marker, is known.
pub(super) fn body<E: Borrow<NewEvent>>(slice: i16, id: Uuid, events: &[E]) -> Vec<u8> {
    let payloads: usize = events.iter().map(|event| event.borrow().payload.len() + 256).sum();
    let mut out = Vec::with_capacity(payloads + 32);
    out.extend_from_slice(&slice.to_le_bytes());
    out.extend_from_slice(id.as_bytes());
    put_length(&mut out, events.len());
    for event in events {
        put_event(&mut out, event.borrow());
    }
    out
}

/// Adds the record of `body` to `out`.
pub(super) fn put(out: &mut Vec<u8>, marker: Marker, body: &[u8]) {
    let start = out.len();
    out.extend_from_slice(&marker);
    put_length(out, body.len());
    let sum = checksum(&out[start..], body);
    out.extend_from_slice(&sum.to_le_bytes());
    out.extend_from_slice(body);
}

/// Bytes that the record of `body` takes.
pub(super) fn size(body: &[u8]) -> u64 {
    (HEAD + body.len()) as u64
}

/// What begins at the start of `bytes`, which go on to the end of the file.
pub(super) fn find(bytes: &[u8], marker: Marker) -> Found {
    let known = bytes.len().min(marker.len());
    if bytes[..known] != marker[..known] {
        return Found::Damage;
    }
    let Some((head, rest)) = bytes.split_at_checked(HEAD) else { return Found::Torn };
    let mut head = Reader(&head[marker.len()..]);
    let (Some(length), Some(sum)) = (head.length(), head.number().map(u32::from_le_bytes)) else {
        return Found::Damage;
    };
    if length > LONGEST_BODY {
        return Found::Damage;
    }
    let Some(body) = rest.get(..length) else { return Found::Torn };
    let slice = Reader(body).number().map(i16::from_le_bytes);
    match slice {
        Some(slice) if checksum(&bytes[..HEAD - 4], body) == sum => {
            Found::Whole { length: HEAD + length, slice }
        }
        Some(_) | None => Found::Damage,
    }
}

/// Reads a record; `None` where it is not whole or not understood.
pub(super) fn read(bytes: &[u8], marker: Marker) -> Option<Frozen> {
    let Found::Whole { length, .. } = find(bytes, marker) else { return None };
    let mut body = Reader(&bytes[HEAD..length]);
    let slice = i16::from_le_bytes(body.number()?);
    let id = Uuid::from_bytes(body.number()?);
    let count = body.length()?;
    let events: Option<Vec<NewEvent>> = (0..count).map(|_| body.event()).collect();
    Some(Frozen { slice, id, events: events? })
}

/// CRC-32C over marker and length, then over the body.
fn checksum(head: &[u8], body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(head), body)
}

fn put_event(out: &mut Vec<u8>, event: &NewEvent) {
    out.extend_from_slice(event.event_id.as_bytes());
    put_bytes(out, event.subject.as_str().as_bytes());
    put_bytes(out, event.event_type.as_bytes());
    out.extend_from_slice(&event.schema_version.to_le_bytes());
    put_id(out, event.key);
    out.extend_from_slice(&event.received_at.timestamp_micros().to_le_bytes());
    put_id(out, event.causation_id);
    put_id(out, event.correlation_id);
    // No meta is an empty text: none of JSON is empty.
    let meta = event.meta.as_ref().map(Meta::as_str).unwrap_or_default();
    put_bytes(out, meta.as_bytes());
    put_bytes(out, &event.payload);
}

fn put_length(out: &mut Vec<u8>, length: usize) {
    // A batch is far below 4 GiB; what were not would be found damaged by its checksum.
    out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_length(out, bytes.len());
    out.extend_from_slice(bytes);
}

fn put_id(out: &mut Vec<u8>, id: Option<Uuid>) {
    out.push(u8::from(id.is_some()));
    if let Some(id) = id {
        out.extend_from_slice(id.as_bytes());
    }
}

/// What is left to read; every read past the end is `None`.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn number<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn length(&mut self) -> Option<usize> {
        usize::try_from(u32::from_le_bytes(self.number()?)).ok()
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.length()?;
        self.take(length)
    }

    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?.to_vec()).ok()
    }

    /// Reads an id that may be absent into `id`.
    fn id(&mut self, id: &mut Option<Uuid>) -> Option<()> {
        match self.number::<1>()? {
            [0] => {}
            [1] => *id = Some(Uuid::from_bytes(self.number()?)),
            [_] => return None,
        }
        Some(())
    }

    fn event(&mut self) -> Option<NewEvent> {
        let event_id = Uuid::from_bytes(self.number()?);
        let subject = Subject::from_stored(self.text()?);
        let event_type = self.text()?;
        let schema_version = i16::from_le_bytes(self.number()?);
        let (mut key, mut causation_id, mut correlation_id) = (None, None, None);
        self.id(&mut key)?;
        let received_at = Timestamp::from_timestamp_micros(i64::from_le_bytes(self.number()?))?;
        self.id(&mut causation_id)?;
        self.id(&mut correlation_id)?;
        let meta = self.text()?;
        let meta = if meta.is_empty() { None } else { Some(Meta::read(meta)?) };
        let payload = self.bytes()?.to_vec();
        Some(NewEvent {
            event_id,
            subject,
            event_type,
            schema_version,
            key,
            received_at,
            causation_id,
            correlation_id,
            meta,
            payload,
        })
    }
}
