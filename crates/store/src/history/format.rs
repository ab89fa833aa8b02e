//! The file format of a segment: header, compressed blocks, index, subjects, trailer.
//!
//! A *segment* is a closed range of one slice. Everything needed to read it is in it, and a range
//! of positions or one subject is read without the rest. Pure functions over bytes: nothing here
//! reads a file, and no bytes whatever make it panic. The layout stands in docs/history.md.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::ops::Range;

use domain::ids::Timestamp;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::damage::Damage;
use super::record::{Bytes, Record};

/// The first and the last bytes of a segment. A line break in it tells a transfer as text.
const MAGIC: [u8; 8] = *b"TLSEG\r\n\x01";
/// The version that this build writes.
const VERSION: u16 = 1;
/// Bytes of the header.
pub(super) const HEADER: usize = 76;
/// Bytes of the trailer.
pub(super) const TRAILER: usize = 48;
/// Bytes of a block's entry in the index.
const ENTRY: usize = 32;
/// Bytes of a pair of the subjects.
const PAIR: usize = 8;

/// Most events of a block: what is decompressed to read one event.
const BLOCK_EVENTS: u32 = 4096;
/// A block is closed when it has this many bytes, whatever its number of events.
const BLOCK_BYTES: usize = 4 * 1024 * 1024;
/// A segment is closed when it has this many events.
const SEGMENT_EVENTS: u64 = 64 * BLOCK_EVENTS as u64;
/// A segment is closed when it has this many bytes: it is built in memory.
const SEGMENT_BYTES: usize = 64 * 1024 * 1024;
/// Effort of the compression. On blocks of webhooks level 3 came to 1/11.5 at 190 MB/s, level 6 to
/// 1/13 at 50 MB/s, level 9 to 1/13.3 at 31 MB/s; all are read at about 700 MB/s.
const LEVEL: i32 = 3;

/// What a segment holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) slice: i16,
    pub(super) from: i64,
    pub(super) to: i64,
    pub(super) from_at: Timestamp,
    pub(super) to_at: Timestamp,
    pub(super) installation: Uuid,
}

impl Header {
    /// The number of its events.
    pub(super) fn count(&self) -> u64 {
        self.to.abs_diff(self.from) + 1
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&self.slice.to_le_bytes());
        out.extend_from_slice(&self.from.to_le_bytes());
        out.extend_from_slice(&self.to.to_le_bytes());
        out.extend_from_slice(&self.count().to_le_bytes());
        out.extend_from_slice(&self.from_at.timestamp_micros().to_le_bytes());
        out.extend_from_slice(&self.to_at.timestamp_micros().to_le_bytes());
        out.extend_from_slice(self.installation.as_bytes());
        // Reserved, so that what follows stays aligned.
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
        out
    }

    /// Reads a header.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        const WHAT: &str = "the header";
        let mut bytes = Bytes(bytes.get(..HEADER).ok_or(Damage::Short(WHAT))?);
        let all = bytes.0;
        if bytes.array(WHAT)? != MAGIC {
            return Err(Damage::NotASegment);
        }
        let version = u16::from_le_bytes(bytes.array(WHAT)?);
        if version != VERSION {
            return Err(Damage::Version(version));
        }
        let sum = u32::from_le_bytes(Bytes(&all[HEADER - 4..]).array(WHAT)?);
        if crc32c::crc32c(&all[..HEADER - 4]) != sum {
            return Err(Damage::Checksum(WHAT));
        }
        let slice = i16::from_le_bytes(bytes.array(WHAT)?);
        let from = i64::from_le_bytes(bytes.array(WHAT)?);
        let to = i64::from_le_bytes(bytes.array(WHAT)?);
        let count = u64::from_le_bytes(bytes.array(WHAT)?);
        let mut time = || {
            let micros = i64::from_le_bytes(bytes.array(WHAT)?);
            Timestamp::from_timestamp_micros(micros).ok_or(Damage::Value(WHAT))
        };
        let (from_at, to_at) = (time()?, time()?);
        let installation = Uuid::from_bytes(bytes.array(WHAT)?);
        let header = Self { slice, from, to, from_at, to_at, installation };
        if from < 1 || to < from || count != header.count() {
            return Err(Damage::Value(WHAT));
        }
        Ok(header)
    }
}

/// Where a block lies and what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) first: i64,
    pub(super) count: u32,
    offset: u64,
    length: u32,
    raw_length: u32,
    crc: u32,
}

impl Block {
    /// Its last position.
    pub(super) fn last(&self) -> i64 {
        self.first.saturating_add(i64::from(self.count)).saturating_sub(1)
    }

    /// Its bytes in the file.
    pub(super) fn range(&self) -> Range<u64> {
        self.offset..self.offset.saturating_add(u64::from(self.length))
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.first.to_le_bytes());
        out.extend_from_slice(&self.offset.to_le_bytes());
        out.extend_from_slice(&self.count.to_le_bytes());
        out.extend_from_slice(&self.length.to_le_bytes());
        out.extend_from_slice(&self.raw_length.to_le_bytes());
        out.extend_from_slice(&self.crc.to_le_bytes());
    }

    fn decode(bytes: &mut Bytes<'_>) -> Result<Self, Damage> {
        const WHAT: &str = "the index";
        Ok(Self {
            first: i64::from_le_bytes(bytes.array(WHAT)?),
            offset: u64::from_le_bytes(bytes.array(WHAT)?),
            count: u32::from_le_bytes(bytes.array(WHAT)?),
            length: u32::from_le_bytes(bytes.array(WHAT)?),
            raw_length: u32::from_le_bytes(bytes.array(WHAT)?),
            crc: u32::from_le_bytes(bytes.array(WHAT)?),
        })
    }

    /// Reads the events of the block from its bytes.
    pub(super) fn decode_events(&self, bytes: &[u8]) -> Result<Vec<Record>, Damage> {
        const WHAT: &str = "a block";
        if crc32c::crc32c(bytes) != self.crc {
            return Err(Damage::Checksum(WHAT));
        }
        let mut raw = Vec::new();
        let limit = u64::from(self.raw_length) + 1;
        zstd::stream::read::Decoder::with_buffer(bytes)
            .and_then(|decoder| decoder.take(limit).read_to_end(&mut raw))
            .map_err(|_| Damage::Value(WHAT))?;
        if raw.len() as u64 != u64::from(self.raw_length) {
            return Err(Damage::Value(WHAT));
        }
        let mut bytes = Bytes(&raw);
        let mut events = Vec::new();
        for n in 0..i64::from(self.count) {
            events.push(Record::decode(&mut bytes, self.first.saturating_add(n))?);
        }
        if bytes.is_empty() { Ok(events) } else { Err(Damage::Value(WHAT)) }
    }
}

/// Where index and subjects lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Trailer {
    index_at: u64,
    index_length: u32,
    index_crc: u32,
    subjects_at: u64,
    subjects_length: u32,
    subjects_crc: u32,
}

impl Trailer {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(TRAILER);
        out.extend_from_slice(&self.index_at.to_le_bytes());
        out.extend_from_slice(&self.index_length.to_le_bytes());
        out.extend_from_slice(&self.index_crc.to_le_bytes());
        out.extend_from_slice(&self.subjects_at.to_le_bytes());
        out.extend_from_slice(&self.subjects_length.to_le_bytes());
        out.extend_from_slice(&self.subjects_crc.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
        out.extend_from_slice(&MAGIC);
        out
    }

    /// Reads a trailer.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        const WHAT: &str = "the trailer";
        let mut bytes = Bytes(bytes.get(..TRAILER).ok_or(Damage::Short(WHAT))?);
        if bytes.0.get(TRAILER - 8..) != Some(MAGIC.as_slice()) {
            return Err(Damage::NotASegment);
        }
        let sum = crc32c::crc32c(&bytes.0[..TRAILER - 12]);
        let trailer = Self {
            index_at: u64::from_le_bytes(bytes.array(WHAT)?),
            index_length: u32::from_le_bytes(bytes.array(WHAT)?),
            index_crc: u32::from_le_bytes(bytes.array(WHAT)?),
            subjects_at: u64::from_le_bytes(bytes.array(WHAT)?),
            subjects_length: u32::from_le_bytes(bytes.array(WHAT)?),
            subjects_crc: u32::from_le_bytes(bytes.array(WHAT)?),
        };
        bytes.take(4, WHAT)?;
        if u32::from_le_bytes(bytes.array(WHAT)?) != sum {
            return Err(Damage::Checksum(WHAT));
        }
        if trailer.subjects_at != trailer.index_at.saturating_add(trailer.index_length.into()) {
            return Err(Damage::Value(WHAT));
        }
        Ok(trailer)
    }

    /// The bytes of index and subjects, which lie side by side.
    pub(super) fn index_range(&self) -> Range<u64> {
        self.index_at..self.subjects_at.saturating_add(self.subjects_length.into())
    }
}

/// Where everything in a segment lies.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Index {
    pub(super) header: Header,
    pub(super) blocks: Vec<Block>,
    subjects: Vec<(u32, u32)>,
}

impl Index {
    /// Reads index and subjects from the bytes that the trailer names.
    pub(super) fn decode(header: Header, trailer: &Trailer, bytes: &[u8]) -> Result<Self, Damage> {
        let index_length = usize::try_from(trailer.index_length).map_err(|_| Damage::TooLarge)?;
        let (index, subjects) =
            bytes.split_at_checked(index_length).ok_or(Damage::Short("the index"))?;
        if crc32c::crc32c(index) != trailer.index_crc {
            return Err(Damage::Checksum("the index"));
        }
        if crc32c::crc32c(subjects) != trailer.subjects_crc {
            return Err(Damage::Checksum("the subjects"));
        }
        let mut blocks = Vec::with_capacity(index.len() / ENTRY);
        let mut rest = Bytes(index);
        while !rest.is_empty() {
            blocks.push(Block::decode(&mut rest)?);
        }
        let index = Self { header, blocks, subjects: pairs(subjects)? };
        index.check().map(|()| index)
    }

    /// The blocks must hold exactly the header's positions, one after the other.
    fn check(&self) -> Result<(), Damage> {
        let mut next = self.header.from;
        let mut offset = HEADER as u64;
        for block in &self.blocks {
            if block.first != next || block.count == 0 || block.offset != offset {
                return Err(Damage::Value("the index"));
            }
            next = block.last().saturating_add(1);
            offset = block.range().end;
        }
        if next == self.header.to.saturating_add(1) {
            Ok(())
        } else {
            Err(Damage::Value("the index"))
        }
    }

    /// The blocks that hold positions after `after`, in order.
    pub(super) fn blocks_after(&self, after: i64) -> &[Block] {
        let begin = self.blocks.partition_point(|block| block.last() <= after);
        self.blocks.get(begin..).unwrap_or_default()
    }

    /// The blocks that may hold events of `subject` after `after`, in order. One of them that holds
    /// none means that another subject has the same hash.
    pub(super) fn blocks_of(&self, subject: &str, after: i64) -> Vec<Block> {
        let hash = subject_hash(subject);
        let begin = self.subjects.partition_point(|(h, _)| *h < hash);
        self.subjects
            .iter()
            .skip(begin)
            .take_while(|(h, _)| *h == hash)
            .filter_map(|(_, n)| self.blocks.get(usize::try_from(*n).ok()?))
            .filter(|block| block.last() > after)
            .copied()
            .collect()
    }
}

fn pairs(bytes: &[u8]) -> Result<Vec<(u32, u32)>, Damage> {
    let mut pairs = Vec::with_capacity(bytes.len() / PAIR);
    let mut bytes = Bytes(bytes);
    while !bytes.is_empty() {
        let hash = u32::from_le_bytes(bytes.array("the subjects")?);
        pairs.push((hash, u32::from_le_bytes(bytes.array("the subjects")?)));
    }
    if pairs.is_sorted() { Ok(pairs) } else { Err(Damage::Value("the subjects")) }
}

/// Bytes 2 to 5 of the subject's SHA-256: the first two decide its slice, which all share.
fn subject_hash(subject: &str) -> u32 {
    let digest = Sha256::digest(subject.as_bytes());
    u32::from_be_bytes([digest[2], digest[3], digest[4], digest[5]])
}

/// A segment that is being written.
#[derive(Debug)]
pub(super) struct Writer {
    header: Option<Header>,
    slice: i16,
    installation: Uuid,
    file: Vec<u8>,
    raw: Vec<u8>,
    raw_count: u32,
    blocks: Vec<Block>,
    subjects: BTreeSet<(u32, u32)>,
}

impl Writer {
    /// An empty segment of `slice`.
    pub(super) fn new(slice: i16, installation: Uuid) -> Self {
        Self {
            header: None,
            slice,
            installation,
            file: vec![0; HEADER],
            raw: Vec::new(),
            raw_count: 0,
            blocks: Vec::new(),
            subjects: BTreeSet::new(),
        }
    }

    /// The last position in it; `None`: it is empty.
    pub(super) fn last(&self) -> Option<i64> {
        self.header.map(|header| header.to)
    }

    /// Whether it should be finished.
    pub(super) fn is_full(&self) -> bool {
        self.file.len() >= SEGMENT_BYTES
            || self.header.is_some_and(|header| header.count() >= SEGMENT_EVENTS)
    }

    /// Adds the next event.
    pub(super) fn push(&mut self, record: &Record) -> Result<(), Damage> {
        let header = self.header.get_or_insert(Header {
            slice: self.slice,
            from: record.position,
            to: record.position.saturating_sub(1),
            from_at: record.recorded_at,
            to_at: record.recorded_at,
            installation: self.installation,
        });
        if record.position != header.to + 1 {
            return Err(Damage::Value("the order of events"));
        }
        header.to = record.position;
        header.to_at = record.recorded_at;
        let block = u32::try_from(self.blocks.len()).map_err(|_| Damage::TooLarge)?;
        self.subjects.insert((subject_hash(&record.subject), block));
        record.encode(&mut self.raw)?;
        self.raw_count += 1;
        if self.raw_count >= BLOCK_EVENTS || self.raw.len() >= BLOCK_BYTES {
            self.close_block(record.position)?;
        }
        Ok(())
    }

    /// Compresses what has gathered up to position `last`.
    fn close_block(&mut self, last: i64) -> Result<(), Damage> {
        let bytes = zstd::bulk::compress(&self.raw, LEVEL).map_err(|_| Damage::Value("a block"))?;
        self.blocks.push(Block {
            first: last + 1 - i64::from(self.raw_count),
            count: self.raw_count,
            offset: self.file.len() as u64,
            length: u32::try_from(bytes.len()).map_err(|_| Damage::TooLarge)?,
            raw_length: u32::try_from(self.raw.len()).map_err(|_| Damage::TooLarge)?,
            crc: crc32c::crc32c(&bytes),
        });
        self.file.extend_from_slice(&bytes);
        self.raw.clear();
        self.raw_count = 0;
        Ok(())
    }

    /// The whole file; `None`: it has no event.
    pub(super) fn finish(mut self) -> Result<Option<(Header, Vec<u8>)>, Damage> {
        let Some(header) = self.header else { return Ok(None) };
        if self.raw_count > 0 {
            self.close_block(header.to)?;
        }
        let index_at = self.file.len();
        for block in &self.blocks {
            block.encode(&mut self.file);
        }
        let subjects_at = self.file.len();
        for (hash, block) in &self.subjects {
            self.file.extend_from_slice(&hash.to_le_bytes());
            self.file.extend_from_slice(&block.to_le_bytes());
        }
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).map_err(|_| Damage::TooLarge);
        let (index, subjects) = (&self.file[index_at..subjects_at], &self.file[subjects_at..]);
        let trailer = Trailer {
            index_at: index_at as u64,
            index_length: length(index)?,
            index_crc: crc32c::crc32c(index),
            subjects_at: subjects_at as u64,
            subjects_length: length(subjects)?,
            subjects_crc: crc32c::crc32c(subjects),
        };
        self.file.extend_from_slice(&trailer.encode());
        self.file[..HEADER].copy_from_slice(&header.encode());
        Ok(Some((header, self.file)))
    }
}

/// Reads a whole file: where everything lies, and that it is the file of these bytes.
pub(super) fn open(file: &[u8]) -> Result<Index, Damage> {
    let header = Header::decode(file)?;
    let trailer_at = file.len().checked_sub(TRAILER).ok_or(Damage::Short("the trailer"))?;
    let trailer = Trailer::decode(&file[trailer_at..])?;
    if trailer.index_range().end != trailer_at as u64 {
        return Err(Damage::Value("the trailer"));
    }
    Index::decode(header, &trailer, part(file, &trailer.index_range())?)
}

/// A part of a file.
pub(super) fn part<'a>(file: &'a [u8], range: &Range<u64>) -> Result<&'a [u8], Damage> {
    let index = |n: u64| usize::try_from(n).map_err(|_| Damage::TooLarge);
    file.get(index(range.start)?..index(range.end)?).ok_or(Damage::Short("the file"))
}

#[cfg(test)]
mod tests;
