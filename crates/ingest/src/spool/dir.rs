//! The spool's directory: names of files, and what makes them durable.
//!
//! A file's *number* tells its age and is given once: what was set aside counts too, so that no
//! later file takes its name.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use super::file::State;
use crate::Error;

/// Files with an incomplete last record that are kept: each is a crash, and nobody was told that
/// what is incomplete is stored. They are for whoever doubts that.
const TORN_KEPT: usize = 8;

/// What a directory holds.
pub(super) struct Listed {
    /// Files to be read, by number.
    pub(super) files: BTreeMap<u64, PathBuf>,
    /// The first number that no file ever had.
    pub(super) next: u64,
}

/// The path of a file.
pub(super) fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:012}.spool"))
}

/// Makes a directory and its ancestors where they are missing, durably.
pub(super) fn make(dir: &Path) -> io::Result<()> {
    let dir = std::path::absolute(dir)?;
    let holders = holders(&dir);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
    holders.into_iter().try_for_each(sync)
}

/// The directories that get a new name when `dir` is made.
fn holders(dir: &Path) -> Vec<&Path> {
    let missing = dir.ancestors().take_while(|path| !path.exists());
    missing.filter_map(Path::parent).collect()
}

/// Makes new names durable.
pub(super) fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Lists a directory. Files set aside are told about and left alone, but for the oldest torn ones.
pub(super) fn list(dir: &Path) -> Result<Listed, Error> {
    let failed = || Error::spool("list the spool", dir);
    let (mut files, mut torn, mut next) = (BTreeMap::new(), BTreeMap::new(), 1);
    for entry in fs::read_dir(dir).map_err(failed())? {
        let path = entry.map_err(failed())?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let Ok(number) = stem.parse::<u64>() else { continue };
        next = next.max(number.saturating_add(1));
        match path.extension().and_then(|end| end.to_str()) {
            Some("spool") => _ = files.insert(number, path),
            Some("torn") => _ = torn.insert(number, path),
            Some("damaged") => tracing::warn!(
                file = %path.display(),
                "a damaged spool file is set aside: keep it until its events were recovered, then delete it"
            ),
            _ => {}
        }
    }
    let too_many = torn.len().saturating_sub(TORN_KEPT);
    for path in torn.into_values().take(too_many) {
        // It goes at another start, then.
        let _ = fs::remove_file(path);
    }
    Ok(Listed { files, next })
}

/// Removes a file whose records are all committed, or sets it aside.
pub(super) fn retire(path: &Path, state: State) -> io::Result<()> {
    let aside = match state {
        State::Whole => return fs::remove_file(path),
        State::Torn => path.with_extension("torn"),
        State::Damaged => path.with_extension("damaged"),
    };
    // A link and not a new name: what is there already is not replaced.
    fs::hard_link(path, &aside)?;
    fs::remove_file(path)?;
    if state == State::Damaged {
        tracing::error!(file = %aside.display(), "a damaged spool file was set aside");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_gets_a_new_name_is_synced_up_to_the_first_that_was_there() {
        let there = tempfile::tempdir().unwrap();
        let (one, two) = (there.path().join("one"), there.path().join("one/two"));
        assert_eq!(holders(&two), [one.as_path(), there.path()]);
        make(&two).unwrap();
        assert!(two.is_dir());
        assert!(holders(&two).is_empty());
        make(&two).unwrap();
    }

    #[test]
    fn what_is_set_aside_keeps_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let file = path(dir.path(), 1);
        fs::write(&file, "new").unwrap();
        fs::write(file.with_extension("damaged"), "old").unwrap();
        let error = retire(&file, State::Damaged).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(file.with_extension("damaged")).unwrap(), b"old");
        assert_eq!(fs::read(&file).unwrap(), b"new");
    }

    #[test]
    fn numbers_of_files_set_aside_are_not_given_again() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(list(dir.path()).unwrap().next, 1);
        for name in ["000000000003.damaged", "000000000001.spool", "x.spool", "lock"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let Listed { files, next } = list(dir.path()).unwrap();
        assert_eq!(next, 4);
        assert_eq!(files.into_keys().collect::<Vec<_>>(), [1]);
        fs::write(dir.path().join("000000000007.torn"), "").unwrap();
        assert_eq!(list(dir.path()).unwrap().next, 8);
    }

    #[test]
    fn of_torn_files_the_newest_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        for number in 0..TORN_KEPT as u64 + 3 {
            fs::write(path(dir.path(), number).with_extension("torn"), "").unwrap();
        }
        list(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), TORN_KEPT);
        assert!(!path(dir.path(), 2).with_extension("torn").exists());
    }
}
