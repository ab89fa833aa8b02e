//! Finds the PostgreSQL programs on this machine.
//!
//! Order: the directory in the settings (and then nothing else), `pg_config --bindir`, `PATH`, the usual
//! places of packages with the newest version first, and what `tallylight db install` unpacked. An
//! existing cluster's major version decides: another one is never used on it.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use crate::{Error, OLDEST_MAJOR, SystemPackages, account::Account, install_dir};

/// Where packages put PostgreSQL: parent directory, prefix before the version, rest of the path.
const PACKAGED: [(&str, &str, &str); 7] = [
    ("/usr/lib/postgresql", "", "bin"),
    ("/usr", "pgsql-", "bin"),
    ("/usr/libexec", "postgresql", ""),
    ("/opt/homebrew/opt", "postgresql@", "bin"),
    ("/usr/local/opt", "postgresql@", "bin"),
    ("/home/linuxbrew/.linuxbrew/opt", "postgresql@", "bin"),
    ("/Applications/Postgres.app/Contents/Versions", "", "bin"),
];

/// A directory with usable PostgreSQL programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Binaries {
    /// The directory that holds `postgres` and `initdb`.
    pub(crate) bin: PathBuf,
    /// The version as the program prints it, such as `15.18`.
    pub(crate) version: String,
    /// The major version.
    pub(crate) major: u32,
}

/// Where to look.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    /// The directory from the settings; nothing else is tried if set.
    pub(crate) explicit: Option<PathBuf>,
    /// The directories of `PATH`.
    pub(crate) path: Option<OsString>,
    /// The root under which packages are looked for; `/` but in tests.
    pub(crate) root: PathBuf,
    /// What `tallylight db install` unpacked, one directory a version.
    pub(crate) installed: PathBuf,
}

impl Places {
    /// This machine.
    pub(crate) fn of_system(explicit: Option<PathBuf>) -> Places {
        Places {
            explicit,
            path: env::var_os("PATH"),
            root: PathBuf::from("/"),
            installed: install_dir(),
        }
    }

    /// Every directory that may hold the server's programs, in the order of preference.
    fn candidates(&self, account: Account) -> Vec<PathBuf> {
        let mut all = self.directories(account);
        all.retain(|dir| dir.join("postgres").is_file() && dir.join("initdb").is_file());
        all
    }

    /// Every directory that may hold programs of PostgreSQL, in the order of preference.
    pub(crate) fn directories(&self, account: Account) -> Vec<PathBuf> {
        let on_path = || env::split_paths(self.path.as_deref().unwrap_or_default());
        let mut all: Vec<PathBuf> = self.ask_pg_config(account).into_iter().collect();
        all.extend(on_path().filter(|dir| dir.is_absolute()));
        for (parent, prefix, rest) in PACKAGED {
            let parent = self.root.join(parent.trim_start_matches('/'));
            all.extend(versions_in(&parent, prefix, rest));
        }
        all.extend(versions_in(&self.installed, "", "bin"));
        all
    }

    /// The directory that the first `pg_config` on `PATH` names.
    fn ask_pg_config(&self, account: Account) -> Option<PathBuf> {
        let path = self.path.as_ref()?;
        let program = env::split_paths(path)
            .filter(|dir| dir.is_absolute())
            .map(|dir| dir.join("pg_config"))
            .find(|program| program.is_file())?;
        let output = account.command(&program).arg("--bindir").env("PATH", path).output().ok()?;
        let dir = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim_end());
        dir.is_absolute().then_some(dir)
    }
}

/// Finds programs that `account` can run, of the major version `wanted` if a cluster exists.
pub(crate) fn find(
    places: &Places,
    account: Account,
    cluster: Option<(&Path, u32)>,
) -> Result<Binaries, Error> {
    let found = match &places.explicit {
        Some(bin) => vec![examine(bin, account)?],
        None => usable(places, account),
    };
    let Some(first) = found.first() else {
        return Err(Error::NoBinaries { packages: SystemPackages::hint() });
    };
    let Some((data, data_major)) = cluster else {
        return Ok(first.clone());
    };
    found.iter().find(|binaries| binaries.major == data_major).cloned().ok_or_else(|| {
        let versions: Vec<_> = found
            .iter()
            .map(|binaries| format!("{} in {}", binaries.version, binaries.bin.display()))
            .collect();
        Error::VersionMismatch { data: data.to_owned(), data_major, found: versions.join(", ") }
    })
}

/// All usable programs; a broken or old candidate is skipped, for a later one may do.
fn usable(places: &Places, account: Account) -> Vec<Binaries> {
    let mut found: Vec<Binaries> = Vec::new();
    for dir in places.candidates(account) {
        if found.iter().any(|binaries| binaries.bin == dir) {
            continue;
        }
        match examine(&dir, account) {
            Ok(binaries) => found.push(binaries),
            Err(error) => tracing::debug!(%error, "skipped a PostgreSQL"),
        }
    }
    found
}

/// Asks the programs in `bin` for their version, as the account that will run them.
pub(crate) fn examine(bin: &Path, account: Account) -> Result<Binaries, Error> {
    let unusable = |reason: String| Error::UnusableBinaries { path: bin.to_owned(), reason };
    if !bin.join("initdb").is_file() {
        return Err(unusable("it has no initdb".into()));
    }
    let output = account
        .command(&bin.join("postgres"))
        .arg("--version")
        .output()
        .map_err(|error| unusable(format!("postgres does not run: {error}")))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let (version, major) = parse_version(&text)
        .ok_or_else(|| unusable(format!("postgres --version ended with {}", output.status)))?;
    if major < OLDEST_MAJOR {
        return Err(unusable(format!("{version} is older than {OLDEST_MAJOR}")));
    }
    Ok(Binaries { bin: bin.to_owned(), version, major })
}

/// Reads `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`, also `19beta1`.
pub(crate) fn parse_version(text: &str) -> Option<(String, u32)> {
    let version = text.split_once("(PostgreSQL) ")?.1.split_whitespace().next()?;
    Some((version.to_owned(), leading_number(version)?))
}

/// The number that a text starts with.
fn leading_number(text: &str) -> Option<u32> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.get(..digits)?.parse().ok()
}

/// The directories `parent/<prefix><version>/rest`, newest version first.
fn versions_in(parent: &Path, prefix: &str, rest: &str) -> Vec<PathBuf> {
    let mut versions: Vec<(Vec<u32>, PathBuf)> = fs::read_dir(parent)
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let name = entry.ok()?.file_name().into_string().ok()?;
            let version = name.strip_prefix(prefix)?;
            leading_number(version)?;
            let numbers = version.split('.').filter_map(leading_number).collect();
            Some((numbers, parent.join(&name).join(rest)))
        })
        .collect();
    versions.sort_by(|a, b| b.cmp(a));
    versions.into_iter().map(|(_, dir)| dir).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use rustix::process::geteuid;

    use super::*;

    /// A directory open to everybody: root's tests run the programs as another user.
    fn open_dir() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        dir
    }

    /// Programs that only know their version.
    fn fake(bin: &Path, version: &str) {
        fs::create_dir_all(bin).unwrap();
        let script = format!("#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n");
        for program in ["postgres", "initdb"] {
            fs::write(bin.join(program), &script).unwrap();
            fs::set_permissions(bin.join(program), fs::Permissions::from_mode(0o755)).unwrap();
        }
    }

    fn places(root: &Path) -> Places {
        Places {
            explicit: None,
            path: None,
            root: root.to_owned(),
            installed: root.join("installed"),
        }
    }

    fn account() -> Account {
        if geteuid().is_root() {
            Account::Dropped { uid: 65_534, gid: 65_534 }
        } else {
            Account::Current
        }
    }

    #[test]
    fn versions_are_read_as_printed() {
        let debian = "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n";
        assert_eq!(parse_version(debian), Some(("15.18".into(), 15)));
        assert_eq!(parse_version("postgres (PostgreSQL) 19beta1"), Some(("19beta1".into(), 19)));
        assert_eq!(parse_version("command not found"), None);
    }

    #[test]
    fn newest_packaged_version_wins_by_number() {
        let root = open_dir();
        for major in ["9", "16", "14"] {
            fake(&root.path().join("usr/lib/postgresql").join(major).join("bin"), major);
        }
        let found = find(&places(root.path()), account(), None).unwrap();
        assert_eq!(found.version, "16");
    }

    #[test]
    fn path_comes_before_packages_and_packages_before_our_install() {
        let root = open_dir();
        fake(&root.path().join("installed/18.4/bin"), "18.4");
        let mut places = places(root.path());
        assert_eq!(find(&places, account(), None).unwrap().version, "18.4");
        fake(&root.path().join("usr/lib/postgresql/15/bin"), "15.1");
        assert_eq!(find(&places, account(), None).unwrap().version, "15.1");
        fake(&root.path().join("local"), "16.2");
        places.path = Some(root.path().join("local").into());
        assert_eq!(find(&places, account(), None).unwrap().version, "16.2");
    }

    #[test]
    fn pg_config_comes_before_path() {
        let root = open_dir();
        fake(&root.path().join("local"), "16.2");
        fake(&root.path().join("configured"), "17.5");
        let pg_config = root.path().join("local/pg_config");
        let script = format!("#!/bin/sh\necho {}\n", root.path().join("configured").display());
        fs::write(&pg_config, script).unwrap();
        fs::set_permissions(&pg_config, fs::Permissions::from_mode(0o755)).unwrap();
        let mut places = places(root.path());
        places.path = Some(root.path().join("local").into());
        assert_eq!(find(&places, account(), None).unwrap().version, "17.5");
    }

    #[test]
    fn cluster_decides_the_major_version() {
        let root = open_dir();
        for major in ["15", "16", "17"] {
            fake(&root.path().join("usr/lib/postgresql").join(major).join("bin"), major);
        }
        let data = Path::new("/data");
        let found = find(&places(root.path()), account(), Some((data, 16))).unwrap();
        assert_eq!(found.major, 16);
        let error = find(&places(root.path()), account(), Some((data, 14))).unwrap_err();
        assert!(matches!(error, Error::VersionMismatch { data_major: 14, .. }), "{error}");
    }

    #[test]
    fn explicit_directory_is_the_only_one_tried() {
        let root = open_dir();
        fake(&root.path().join("usr/lib/postgresql/16/bin"), "16.0");
        let mut places = places(root.path());
        places.explicit = Some(root.path().join("nothing"));
        let error = find(&places, account(), None).unwrap_err();
        assert!(matches!(error, Error::UnusableBinaries { .. }), "{error}");
    }

    #[test]
    fn old_version_is_refused_where_it_was_asked_for() {
        let root = open_dir();
        fake(&root.path().join("old"), "13.9");
        let mut places = places(root.path());
        places.explicit = Some(root.path().join("old"));
        let error = find(&places, account(), None).unwrap_err();
        assert!(error.to_string().contains("13.9 is older than 14"), "{error}");
    }

    #[test]
    fn nothing_found_names_both_install_commands() {
        let root = open_dir();
        let error = find(&places(root.path()), account(), None).unwrap_err();
        let message = error.to_string();
        assert!(message.contains("`tallylight db install`"), "{message}");
        assert!(message.contains(&SystemPackages::hint()), "{message}");
    }
}
