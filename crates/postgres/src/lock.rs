//! Who owns a cluster directory: the holder of an exclusive `flock` on its lock file.
//!
//! The kernel releases the lock with the process, whatever ends it, so a lock is never stale and the
//! lock file is never deleted while its directory stays.

use std::{
    fs::{File, OpenOptions, TryLockError},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use crate::{Error, layout::NO_FOLLOW};

/// The exclusive lock on one cluster directory, held until dropped.
#[derive(Debug)]
pub(crate) struct DirLock {
    /// Closing the file releases the lock. It is close-on-exec, so the server does not inherit it.
    _file: File,
}

impl DirLock {
    /// Takes the lock; `None` if another process, or another handle of this one, holds it.
    pub(crate) fn try_acquire(path: &Path) -> Result<Option<DirLock>, Error> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(NO_FOLLOW)
            .open(path)
            .map_err(Error::io("open", path))?;
        DirLock::try_lock(file, path)
    }

    /// The same for a lock file that must exist: a directory being deleted gets no new one.
    pub(crate) fn try_acquire_existing(path: &Path) -> Result<Option<DirLock>, Error> {
        let mut options = OpenOptions::new();
        let opened = options.read(true).write(true).custom_flags(NO_FOLLOW).open(path);
        let file = opened.map_err(Error::io("open", path))?;
        DirLock::try_lock(file, path)
    }

    /// Locks an open lock file without waiting.
    fn try_lock(file: File, path: &Path) -> Result<Option<DirLock>, Error> {
        match file.try_lock() {
            Ok(()) => Ok(Some(DirLock { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(Error::io("lock", path)(error)),
        }
    }
}
