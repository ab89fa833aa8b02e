//! Throwaway clusters for tests: the same code as the durable one, in a directory marked for deletion.
//!
//! A static is never dropped, so the shared cluster of a test binary cannot delete itself. Its server
//! stops with the process; the next start of a throwaway cluster sweeps the directory: if and only if
//! it has our name and marker, belongs to us, nobody holds its lock and no process uses its data.

use std::{
    env, fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process,
    sync::{Mutex, OnceLock, PoisonError},
};

use rustix::process::{Signal, geteuid, kill_process};

use crate::{Cluster, Error, find::Places, layout::Layout, lock::DirLock, recover, run::Kind};

/// The start of every throwaway directory's name.
const PREFIX: &str = "tallylight-throwaway-";

/// The throwaway cluster of this process, started at the first call and stopped with the process.
/// Tests make their own databases in it; it takes 250 connections.
///
/// # Errors
/// As [`Cluster::start`]. The next call tries again.
pub fn shared_throwaway() -> Result<&'static Cluster, Error> {
    static SHARED: OnceLock<Cluster> = OnceLock::new();
    static STARTING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(cluster) = SHARED.get() {
        return Ok(cluster);
    }
    let cluster = throwaway(None)?;
    Ok(SHARED.get_or_init(|| cluster))
}

/// A throwaway cluster of its own in a new directory below `parent`, else in memory where the system
/// has room for files there, else below its directory for temporary files. Its server stops and the directory is deleted when it is dropped.
///
/// # Errors
/// As [`Cluster::start`].
pub fn throwaway(parent: Option<&Path>) -> Result<Cluster, Error> {
    let parent = parent.map_or_else(usual_parent, Path::to_owned);
    sweep(&parent);
    let layout = Layout::create(&parent.join(new_name()))?;
    let lock = DirLock::try_acquire(&layout.lock())?
        .ok_or_else(|| Error::ForeignDirectory { path: layout.root().to_owned() })?;
    // Marked only under the lock: a sweeper never sees the marker of a directory in use unlocked.
    layout.mark_throwaway()?;
    let started = Cluster::own(layout.clone(), Kind::Throwaway, &Places::of_system(None), lock);
    if started.is_err() {
        layout.delete_marked()?;
    }
    started
}

/// Where Linux keeps files in memory: making a test's database there takes half the time.
const IN_MEMORY: &str = "/dev/shm";

/// Room that must be left there: some tests at a time, each with tens of megabytes, and containers
/// come with 64 MB.
const ROOM: u64 = 4 << 30;

/// Where throwaway clusters are.
fn usual_parent() -> PathBuf {
    let has_room = |found: rustix::fs::StatVfs| found.f_bavail * found.f_frsize >= ROOM;
    let in_memory = rustix::fs::statvfs(IN_MEMORY).is_ok_and(has_room);
    if in_memory { PathBuf::from(IN_MEMORY) } else { env::temp_dir() }
}

/// A name that no other throwaway directory has.
fn new_name() -> String {
    format!("{PREFIX}{}-{:08x}", process::id(), rand::random::<u32>())
}

/// Deletes what dead processes left below `parent`; what cannot be deleted waits for the next sweep.
fn sweep(parent: &Path) {
    for directory in leftovers(parent) {
        if let Err(error) = delete_if_abandoned(&directory) {
            tracing::debug!(%error, directory = %directory.display(), "left a throwaway cluster");
        }
    }
}

/// Our own directories (no links) with the name of a throwaway cluster.
fn leftovers(parent: &Path) -> Vec<PathBuf> {
    let ours = |path: &PathBuf| {
        fs::symlink_metadata(path)
            .is_ok_and(|found| found.is_dir() && found.uid() == geteuid().as_raw())
    };
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX)))
        .map(|entry| entry.path())
        .filter(ours)
        .collect()
}

/// Deletes one directory if its marker is there and nobody uses it.
fn delete_if_abandoned(directory: &Path) -> Result<(), Error> {
    let layout = Layout::existing(directory)?;
    if !layout.is_throwaway() {
        return Ok(());
    }
    let Some(_lock) = DirLock::try_acquire_existing(&layout.lock())? else {
        return Ok(());
    };
    let data = layout.data();
    if let Some(orphan) = recover::live_server(&data) {
        // Where the kernel does not stop it with its owner, nobody else will; the next sweep deletes.
        tracing::debug!(pid = %orphan.pid, "stopping an abandoned throwaway server");
        return kill_process(orphan.pid, Signal::QUIT)
            .map_err(|error| Error::io("stop the server of", directory)(error.into()));
    }
    if recover::processes_on(&data).is_empty() {
        layout.remove_outside_socket_dir();
        layout.delete_marked()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leftover(parent: &Path) -> Layout {
        let layout = Layout::create(&parent.join(new_name())).unwrap();
        drop(DirLock::try_acquire(&layout.lock()).unwrap().unwrap());
        layout
    }

    #[test]
    fn abandoned_marked_directory_is_swept() {
        let parent = tempfile::tempdir().unwrap();
        let layout = leftover(parent.path());
        fs::create_dir_all(layout.data().join("base")).unwrap();
        layout.mark_throwaway().unwrap();
        sweep(parent.path());
        assert!(!layout.root().exists());
    }

    #[test]
    fn many_sweepers_at_once_leave_nothing() {
        let parent = tempfile::tempdir().unwrap();
        for _ in 0..20 {
            let layout = leftover(parent.path());
            fs::create_dir_all(layout.data().join("base")).unwrap();
            layout.mark_throwaway().unwrap();
        }
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| sweep(parent.path()));
            }
        });
        let left = leftovers(parent.path());
        assert!(left.is_empty(), "{left:?}");
    }

    #[test]
    fn unmarked_directory_is_not_swept() {
        let parent = tempfile::tempdir().unwrap();
        let layout = leftover(parent.path());
        fs::create_dir(layout.data()).unwrap();
        sweep(parent.path());
        assert!(layout.data().is_dir());
    }

    #[test]
    fn directory_in_use_is_not_swept() {
        let parent = tempfile::tempdir().unwrap();
        let layout = leftover(parent.path());
        layout.mark_throwaway().unwrap();
        let lock = DirLock::try_acquire(&layout.lock()).unwrap().unwrap();
        sweep(parent.path());
        assert!(layout.root().is_dir());
        drop(lock);
        sweep(parent.path());
        assert!(!layout.root().exists());
    }

    #[test]
    fn marked_directory_under_another_name_is_not_swept() {
        let parent = tempfile::tempdir().unwrap();
        let layout = Layout::create(&parent.path().join("precious")).unwrap();
        drop(DirLock::try_acquire(&layout.lock()).unwrap().unwrap());
        layout.mark_throwaway().unwrap();
        sweep(parent.path());
        assert!(layout.root().is_dir());
    }

    #[test]
    fn throwaway_cluster_runs_and_deletes_itself() {
        let cluster = throwaway(None).unwrap();
        let directory = cluster.data_dir().to_owned();
        assert!(cluster.is_owner() && directory.join("data").is_dir());
        drop(cluster);
        assert!(!directory.exists());
    }

    #[test]
    fn shared_cluster_is_one() {
        fn is_send_and_sync<T: Send + Sync>(_: &T) {}
        let first = shared_throwaway().unwrap();
        let second = shared_throwaway().unwrap();
        assert_eq!(first.url("a"), second.url("a"));
        is_send_and_sync(first);
    }
}
