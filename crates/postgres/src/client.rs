//! Finds PostgreSQL's client programs, such as `pg_dump`, for a server of a known version.
//!
//! They are looked for where the server's programs are, and also where only clients are installed.
//! A program older than the server is refused by the server's makers, and a newer `pg_restore`
//! may say things that an older server does not know: so the server's own version comes first.

use std::path::{Path, PathBuf};

use crate::{
    Error, SystemPackages,
    account::Account,
    find::{Places, parse_version},
};

/// Finds `program` for a server of `major`: of that version, else the oldest newer one.
/// With `pg_bin`, no other directory is looked at.
///
/// # Errors
/// [`Error::NoClientProgram`] names what to install.
pub fn client_program(program: &str, major: u32, pg_bin: Option<&Path>) -> Result<PathBuf, Error> {
    find_in(&Places::of_system(pg_bin.map(Path::to_owned)), program, major)
}

fn find_in(places: &Places, program: &str, major: u32) -> Result<PathBuf, Error> {
    let directories = match &places.explicit {
        Some(bin) => vec![bin.clone()],
        None => places.directories(Account::Current),
    };
    let found = directories.into_iter().map(|dir| dir.join(program)).filter(|path| path.is_file());
    let versions = found.filter_map(|path| Some((version(&path)?, path)));
    // Of equals the first one stays, so the order of places holds.
    versions.filter(|(its, _)| *its >= major).min_by_key(|(its, _)| *its).map_or_else(
        || {
            Err(Error::NoClientProgram {
                program: program.to_owned(),
                major,
                packages: SystemPackages::hint(),
            })
        },
        |(_, path)| Ok(path),
    )
}

/// The major version that a program tells of itself.
fn version(program: &Path) -> Option<u32> {
    let output = Account::Current.command(program).arg("--version").output().ok()?;
    parse_version(&String::from_utf8_lossy(&output.stdout)).map(|(_, major)| major)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    /// A root with the `pg_dump` of some versions, and nothing else.
    fn root_with(versions: &[&str]) -> (tempfile::TempDir, Places) {
        let root = tempfile::tempdir().unwrap();
        for version in versions {
            let bin = root.path().join("usr/lib/postgresql").join(version).join("bin");
            fs::create_dir_all(&bin).unwrap();
            let program = bin.join("pg_dump");
            let script = format!("#!/bin/sh\necho 'pg_dump (PostgreSQL) {version}.2'\n");
            fs::write(&program, script).unwrap();
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let installed = root.path().join("installed");
        let places = Places { explicit: None, path: None, root: root.path().to_owned(), installed };
        (root, places)
    }

    #[test]
    fn the_servers_own_version_comes_first_then_the_oldest_newer_one() {
        let (root, mut places) = root_with(&["14", "15", "16", "17"]);
        let bin = |major: &str| root.path().join("usr/lib/postgresql").join(major).join("bin");
        assert_eq!(find_in(&places, "pg_dump", 15).unwrap(), bin("15").join("pg_dump"));
        fs::remove_dir_all(bin("15")).unwrap();
        assert_eq!(find_in(&places, "pg_dump", 15).unwrap(), bin("16").join("pg_dump"));
        places.explicit = Some(bin("17"));
        assert_eq!(find_in(&places, "pg_dump", 15).unwrap(), bin("17").join("pg_dump"));
    }

    #[test]
    fn an_older_program_than_the_server_is_not_taken() {
        let (_root, places) = root_with(&["14"]);
        let error = find_in(&places, "pg_dump", 15).unwrap_err();
        assert!(error.to_string().contains("pg_dump of PostgreSQL 15 or later"), "{error}");
        assert!(find_in(&places, "pg_restore", 14).is_err());
    }
}
