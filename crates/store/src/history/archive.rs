//! Where segment files lie: a directory now, and an object store behind the same trait later.
//!
//! A file is named by its range and its checksum, is written once and never changed. What was
//! written is on disk when `put` returns, directories included.

use std::collections::VecDeque;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::TryStreamExt as _;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};

use super::Segment;
use super::damage::Damage;
use super::format::{HEADER, Header, Index, TRAILER, Trailer};
use crate::Error;

/// Segments whose index is kept in memory: about 100 kB each.
const KEPT: usize = 64;

/// Why a segment could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SegmentFault {
    /// Its file is missing or cannot be read.
    #[error(transparent)]
    File(#[from] object_store::Error),
    /// The file is not what it should be.
    #[error(transparent)]
    Damage(#[from] Damage),
}

/// The place of segment files.
#[derive(Debug, Clone)]
pub(crate) struct Archive(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    directory: PathBuf,
    /// The latest opened segments, by file name.
    kept: Mutex<VecDeque<(String, Arc<Index>)>>,
}

impl Archive {
    /// The place that `url` names. The directory is looked for when it is first needed: a process
    /// that never reads history starts without it.
    ///
    /// # Errors
    /// [`Error::Invalid`] where it is no absolute `file://` address.
    pub(crate) fn new(url: &str) -> Result<Self, Error> {
        let scheme = url.split("://").next().unwrap_or_default();
        let Some(path) = url.strip_prefix("file://").filter(|path| path.starts_with('/')) else {
            let reason = format!(
                "history.url begins with \"{scheme}\": only file:///AN/ABSOLUTE/DIRECTORY is supported"
            );
            return Err(Error::Invalid { reason });
        };
        let directory = PathBuf::from(path);
        Ok(Self(Arc::new(Inner { directory, kept: Mutex::default() })))
    }

    /// The files. A missing directory is an error and not made: it may be a disk that is not
    /// mounted.
    fn files(&self) -> Result<Arc<dyn ObjectStore>, object_store::Error> {
        let files = LocalFileSystem::new_with_prefix(&self.0.directory)?;
        Ok(Arc::new(files.with_fsync(true)))
    }

    /// Writes a file, durably.
    pub(super) async fn put(&self, file: &str, bytes: Vec<u8>) -> Result<(), Error> {
        let failed = |source| Error::History { file: file.to_owned(), source };
        let files = self.files().map_err(failed)?;
        files.put(&Path::from(file), bytes.into()).await.map_err(failed)?;
        Ok(())
    }

    /// Reads a whole segment.
    pub(super) async fn whole(&self, segment: &Segment) -> Result<Vec<u8>, Error> {
        let read = async || -> Result<Vec<u8>, SegmentFault> {
            let file = self.files()?.get(&Path::from(segment.file.as_str())).await?;
            Ok(file.bytes().await?.to_vec())
        };
        read().await.map_err(|fault| failed(segment, fault))
    }

    /// Reads some bytes of a segment.
    pub(super) async fn range(
        &self,
        segment: &Segment,
        range: Range<u64>,
    ) -> Result<bytes::Bytes, SegmentFault> {
        let length = range.end.saturating_sub(range.start);
        let file = Path::from(segment.file.as_str());
        let bytes = self.files()?.get_range(&file, range).await?;
        // An object store answers a range beyond the end with what there is.
        if bytes.len() as u64 != length {
            return Err(Damage::Short("the file").into());
        }
        Ok(bytes)
    }

    /// Where everything in a segment lies, read once and kept.
    pub(super) async fn index(&self, segment: &Segment) -> Result<Arc<Index>, Error> {
        if let Some(index) = self.kept(&segment.file) {
            return Ok(index);
        }
        let index = Arc::new(self.open(segment).await.map_err(|fault| failed(segment, fault))?);
        let mut kept = self.0.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.truncate(KEPT - 1);
        kept.push_front((segment.file.clone(), Arc::clone(&index)));
        Ok(index)
    }

    fn kept(&self, file: &str) -> Option<Arc<Index>> {
        let kept = self.0.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().find(|(name, _)| name == file).map(|(_, index)| Arc::clone(index))
    }

    async fn open(&self, segment: &Segment) -> Result<Index, SegmentFault> {
        let size = segment.bytes.unsigned_abs();
        let trailer_at = size.checked_sub(TRAILER as u64).ok_or(Damage::Short("the file"))?;
        let header = Header::decode(&self.range(segment, 0..HEADER as u64).await?)?;
        let trailer = Trailer::decode(&self.range(segment, trailer_at..size).await?)?;
        let range = trailer.index_range();
        if range.end != trailer_at || range.start > range.end {
            return Err(Damage::Value("the trailer").into());
        }
        let index = Index::decode(header, &trailer, &self.range(segment, range).await?)?;
        check_same(&index.header, segment)?;
        Ok(index)
    }

    /// The names of all segment files.
    pub(super) async fn list(&self) -> Result<Vec<String>, Error> {
        let failed = |source| Error::History { file: "*".to_owned(), source };
        let files = self.files().map_err(failed)?;
        let found: Vec<_> = files.list(None).try_collect().await.map_err(failed)?;
        let mut names: Vec<String> = found.into_iter().map(|f| f.location.to_string()).collect();
        names.sort();
        Ok(names)
    }
}

/// A segment must be the one that the database notes.
pub(super) fn check_same(header: &Header, segment: &Segment) -> Result<(), Damage> {
    if header.slice != segment.slice {
        return Err(Damage::Another("its slice"));
    }
    if (header.from, header.to) != (segment.from, segment.to) {
        return Err(Damage::Another("its range"));
    }
    Ok(())
}

/// The error that names the segment.
pub(super) fn failed(segment: &Segment, fault: SegmentFault) -> Error {
    Error::Segment {
        slice: segment.slice,
        from: segment.from,
        to: segment.to,
        file: segment.file.clone(),
        source: Box::new(fault),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_places_than_a_directory_are_refused_without_being_quoted() {
        for url in ["s3://key:hunter2@bucket/x", "/var/lib/hunter2", "file://relative", ""] {
            let error = Archive::new(url).unwrap_err().to_string();
            assert!(error.contains("file:///"), "{error}");
            assert!(!error.contains('@') && !error.contains("bucket"), "{error}");
        }
        assert!(Archive::new("file:///var/lib/tallylight/history").is_ok());
    }
}
