//! One file of the spool: a header, then records. Read whole at start, so that what is wrong with
//! it is known before anything is drained.
//!
//! *Torn*: the last record is incomplete, because the process died while it wrote; nobody was told
//! that it is stored. *Damaged*: bytes that were written are not what was written.

use domain::slice::SliceCount;
use uuid::Uuid;

use super::record::{self, Found, Marker};
use crate::Error;

/// Kind of file and version of its form.
const MAGIC: &[u8; 8] = b"TLSPOOL1";

/// Magic, installation, number of slices, marker, checksum.
pub(super) const HEADER: usize = 38;

/// Whose events these are. Cached beside the spool, so that ingest can start without a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Known {
    /// The installation.
    pub installation: Uuid,
    /// Its number of slices, which says where a subject belongs.
    pub slices: SliceCount,
}

/// Where a record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// The file's number.
    pub(super) file: u64,
    pub(super) marker: Marker,
    pub(super) offset: u64,
    pub(super) length: usize,
    /// Its slice.
    pub(crate) slice: i16,
}

impl Place {
    /// The number of its file.
    pub(crate) fn file(&self) -> u64 {
        self.file
    }
}

/// How much of a file can be read, and so what becomes of it in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    /// All of it.
    Whole,
    /// All but its last record.
    Torn,
    /// Not what was written.
    Damaged,
}

/// What a file holds.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Scan {
    /// Its whole records, in order.
    pub(super) records: Vec<Place>,
    /// Where an incomplete last record begins.
    pub(super) torn_at: Option<usize>,
    /// Bytes that belong to no whole record, the torn one aside.
    pub(super) damaged: usize,
}

impl Scan {
    /// The worst that is true of the file.
    pub(super) fn state(&self) -> State {
        match self {
            Self { damaged: 1.., .. } => State::Damaged,
            Self { torn_at: Some(_), .. } => State::Torn,
            Self { .. } => State::Whole,
        }
    }
}

/// A header for a new file.
pub(super) fn header(known: Known, marker: Marker) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(known.installation.as_bytes());
    out.extend_from_slice(&known.slices.get().to_le_bytes());
    out.extend_from_slice(&marker);
    let sum = crc32c::crc32c(&out);
    out.extend_from_slice(&sum.to_le_bytes());
    out
}

/// Finds the records of file number `file`.
///
/// # Errors
/// [`Error::SpoolOfAnother`] where it belongs to another installation.
pub(super) fn scan(file: u64, bytes: &[u8], known: Known) -> Result<Scan, Error> {
    let mut scan = Scan::default();
    let Some(head) = bytes.get(..HEADER) else {
        // Not even its header was written: no record was.
        scan.torn_at = Some(0);
        return Ok(scan);
    };
    let Some(marker) = marker_of(head, known)? else {
        // The first record, which begins at once, has it too.
        scan.damaged += HEADER;
        let Some(marker) = bytes.get(HEADER..HEADER + 8).and_then(|m| m.try_into().ok()) else {
            return Ok(scan);
        };
        scan_records(file, bytes, marker, &mut scan);
        return Ok(scan);
    };
    scan_records(file, bytes, marker, &mut scan);
    Ok(scan)
}

/// The marker in a header; `None` where the header is damaged.
fn marker_of(head: &[u8], known: Known) -> Result<Option<Marker>, Error> {
    let (text, sum) = head.split_at(HEADER - 4);
    if crc32c::crc32c(text).to_le_bytes() != sum || !text.starts_with(MAGIC) {
        return Ok(None);
    }
    let Ok(marker) = <Marker>::try_from(&text[HEADER - 12..]) else { return Ok(None) };
    if text == &header(known, marker)[..HEADER - 4] {
        return Ok(Some(marker));
    }
    let mut theirs = [0; 16];
    theirs.copy_from_slice(&text[8..24]);
    Err(Error::SpoolOfAnother { ours: known.installation, theirs: Uuid::from_bytes(theirs) })
}

fn scan_records(file: u64, bytes: &[u8], marker: Marker, scan: &mut Scan) {
    let mut at = HEADER;
    while at < bytes.len() {
        let found = record::find(&bytes[at..], marker);
        if let Found::Whole { length, slice } = found {
            scan.records.push(Place { file, marker, offset: at as u64, length, slice });
            at += length;
        } else if let Some(next) = next_whole(bytes, at + 1, marker) {
            scan.damaged += next - at;
            at = next;
        } else {
            if found == Found::Torn {
                scan.torn_at = Some(at);
            } else {
                scan.damaged += bytes.len() - at;
            }
            break;
        }
    }
}

/// Where the next whole record begins, from `at` on.
fn next_whole(bytes: &[u8], at: usize, marker: Marker) -> Option<usize> {
    let candidates = bytes.get(at..)?.windows(marker.len()).enumerate();
    let mut candidates = candidates.filter(|(_, window)| *window == marker).map(|(n, _)| at + n);
    candidates.find(|n| matches!(record::find(&bytes[*n..], marker), Found::Whole { .. }))
}
