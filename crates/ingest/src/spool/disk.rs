//! Writing and syncing a file of the spool: the local disk, and in tests one that fails.

use std::fmt::Debug;
use std::fs::File;
use std::io::{self, Write as _};

use super::Config;

/// What the spool wants of a disk.
pub(super) trait Disk: Debug + Send {
    /// Writes all of `bytes` at the end of a file.
    fn write(&self, file: &mut File, bytes: &[u8]) -> io::Result<()>;

    /// Makes the content of a file durable.
    fn sync(&self, file: &File) -> io::Result<()>;

    /// Cuts a file back to `length`.
    fn cut(&self, file: &File, length: u64) -> io::Result<()>;
}

/// The disk that the directory lies on.
#[derive(Debug)]
struct Local;

impl Disk for Local {
    fn write(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn cut(&self, file: &File, length: u64) -> io::Result<()> {
        file.set_len(length)
    }
}

/// The disk of a spool.
#[cfg(not(test))]
pub(super) fn of(_: &Config) -> Box<dyn Disk> {
    Box::new(Local)
}

/// The disk of a spool, which fails as its test says.
#[cfg(test)]
pub(super) fn of(config: &Config) -> Box<dyn Disk> {
    Box::new(config.faults.clone())
}

/// What a disk fails at, for as long as it is set.
#[cfg(test)]
#[derive(Debug, Clone, Default)]
pub(crate) struct Faults(std::sync::Arc<std::sync::Mutex<Option<Fault>>>);

/// What a disk can fail at.
#[cfg(test)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is full in the middle of a record.
    Write,
    /// The same, and the file cannot be cut back.
    WriteAndCut,
    /// What was written did not reach it.
    Sync,
}

#[cfg(test)]
impl Faults {
    /// Fails from now on, or no more.
    pub(crate) fn set(&self, fault: Option<Fault>) {
        *self.0.lock().unwrap() = fault;
    }

    fn is(&self, faults: &[Fault]) -> bool {
        self.0.lock().unwrap().is_some_and(|present| faults.contains(&present))
    }
}

#[cfg(test)]
impl Disk for Faults {
    fn write(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        if self.is(&[Fault::Write, Fault::WriteAndCut]) {
            Local.write(file, &bytes[..bytes.len() / 2])?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        Local.write(file, bytes)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        if self.is(&[Fault::Sync]) { Err(io::Error::other("it fails")) } else { Local.sync(file) }
    }

    fn cut(&self, file: &File, length: u64) -> io::Result<()> {
        if self.is(&[Fault::WriteAndCut]) {
            return Err(io::Error::other("it fails"));
        }
        Local.cut(file, length)
    }
}
