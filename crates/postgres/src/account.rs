//! The user that PostgreSQL runs as: never root.
//!
//! Root drops to the owner of the existing data, else to `postgres`, else to `nobody`. Everybody else
//! stays who they are. Every program of PostgreSQL is started through [`Account::command`], with a clean
//! environment: a `PGDATA`, `PGPORT` or locale of the caller must not leak into the cluster.

use std::{
    fs, io,
    os::unix::{
        fs::{MetadataExt, lchown},
        process::CommandExt,
    },
    path::Path,
    process::{Command, Stdio},
};

use rustix::process::geteuid;

use crate::Error;

/// Who runs PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Account {
    /// The current user, who is not root.
    Current,
    /// Another user, because the current one is root.
    Dropped {
        /// User id.
        uid: u32,
        /// Group id.
        gid: u32,
    },
}

impl Account {
    /// The account for the cluster in `data`, which need not exist yet.
    pub(crate) fn for_data(data: &Path) -> Result<Account, Error> {
        if !geteuid().is_root() {
            return Ok(Account::Current);
        }
        match fs::metadata(data) {
            Ok(data_dir) if data_dir.uid() == 0 => {
                Err(Error::DataOwnedByRoot { data: data.to_owned() })
            }
            Ok(data_dir) => Ok(Account::Dropped { uid: data_dir.uid(), gid: data_dir.gid() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Account::for_new_data(),
            Err(error) => Err(Error::io("look at", data)(error)),
        }
    }

    /// The account for a cluster that is yet to be made.
    pub(crate) fn for_new_data() -> Result<Account, Error> {
        if !geteuid().is_root() {
            return Ok(Account::Current);
        }
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        unprivileged(&passwd).ok_or(Error::NoUnprivilegedUser)
    }

    /// A command of PostgreSQL run as this account, in `/`, with a clean environment and no input.
    pub(crate) fn command(self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("LC_ALL", "C")
            .env("TZ", "UTC")
            .current_dir("/")
            .stdin(Stdio::null());
        if let Account::Dropped { uid, gid } = self {
            // With a uid and root's rights, std also empties the supplementary groups.
            command.uid(uid).gid(gid);
        }
        command
    }

    /// Gives a file or directory to this account.
    pub(crate) fn give(self, path: &Path) -> Result<(), Error> {
        match self {
            Account::Current => Ok(()),
            Account::Dropped { uid, gid } => {
                lchown(path, Some(uid), Some(gid)).map_err(Error::io("change the owner of", path))
            }
        }
    }

    /// Fails with the first directory on the way to `dir`, or `dir` itself, that this account may not enter.
    pub(crate) fn check_reaches(self, dir: &Path) -> Result<(), Error> {
        let Account::Dropped { uid, gid } = self else {
            return Ok(());
        };
        for directory in dir.ancestors() {
            let metadata = fs::metadata(directory).map_err(Error::io("look at", directory))?;
            let bit = if metadata.uid() == uid {
                0o100
            } else if metadata.gid() == gid {
                0o010
            } else {
                0o001
            };
            if metadata.mode() & bit == 0 {
                return Err(Error::Unreachable { path: directory.to_owned(), uid });
            }
        }
        Ok(())
    }
}

/// The first of `postgres` and `nobody` in the text of `/etc/passwd`.
fn unprivileged(passwd: &str) -> Option<Account> {
    ["postgres", "nobody"].into_iter().find_map(|name| {
        passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            let found = fields.next() == Some(name);
            let uid = fields.nth(1)?.parse().ok().filter(|&uid| uid != 0)?;
            let gid = fields.next()?.parse().ok()?;
            found.then_some(Account::Dropped { uid, gid })
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = "root:x:0:0:root:/root:/bin/bash\n";
    const NOBODY: &str = "nobody:x:65534:65533:nobody:/nonexistent:/usr/sbin/nologin\n";
    const POSTGRES: &str = "postgres:x:101:104::/var/lib/postgresql:/bin/bash\n";

    #[test]
    fn root_drops_to_postgres_before_nobody() {
        let passwd = format!("{ROOT}{NOBODY}{POSTGRES}");
        assert_eq!(unprivileged(&passwd), Some(Account::Dropped { uid: 101, gid: 104 }));
        let passwd = format!("{ROOT}{NOBODY}");
        assert_eq!(unprivileged(&passwd), Some(Account::Dropped { uid: 65534, gid: 65533 }));
    }

    #[test]
    fn root_under_another_name_is_never_chosen() {
        assert_eq!(unprivileged(&format!("{ROOT}nobody:x:0:0::/:/bin/sh\n")), None);
    }

    #[test]
    fn closed_ancestor_is_named() {
        use std::os::unix::fs::PermissionsExt;
        let top = tempfile::tempdir().unwrap();
        let closed = top.path().join("closed");
        fs::create_dir_all(closed.join("pg")).unwrap();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
        let stranger = Account::Dropped { uid: 12_345, gid: 12_345 };
        let error = stranger.check_reaches(&closed).unwrap_err();
        assert!(matches!(error, Error::Unreachable { uid: 12_345, .. }), "{error}");
        Account::Current.check_reaches(&closed).unwrap();
    }
}
