//! Writing and syncing a file of the spool, and in tests the disk that fails at it.

use std::fs::File;
use std::io::{self, Write as _};

use super::Config;

/// The disk of a spool.
#[derive(Debug)]
pub(super) struct Disk {
    #[cfg(test)]
    faults: Faults,
}

/// What the disk is to fail at.
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

impl Disk {
    /// The disk that `config` speaks of.
    #[cfg_attr(
        not(test),
        expect(unused_variables, reason = "only a test's disk can be told to fail")
    )]
    pub(super) fn of(config: &Config) -> Self {
        Self {
            #[cfg(test)]
            faults: config.faults.clone(),
        }
    }

    /// Writes all of `bytes` at the end.
    pub(super) fn write(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        #[cfg(test)]
        if self.faults.is(&[Fault::Write, Fault::WriteAndCut]) {
            file.write_all(&bytes[..bytes.len() / 2])?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        file.write_all(bytes)
    }

    /// Makes the file's content durable.
    pub(super) fn sync(&self, file: &File) -> io::Result<()> {
        #[cfg(test)]
        if self.faults.is(&[Fault::Sync]) {
            return Err(io::Error::other("it fails"));
        }
        file.sync_data()
    }

    /// Cuts the file back to `length`.
    pub(super) fn cut(&self, file: &File, length: u64) -> io::Result<()> {
        #[cfg(test)]
        if self.faults.is(&[Fault::WriteAndCut]) {
            return Err(io::Error::other("it fails"));
        }
        file.set_len(length)
    }
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
