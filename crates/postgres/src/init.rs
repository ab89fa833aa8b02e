//! Makes a new cluster: whole or not at all.
//!
//! `initdb` works in `data.tmp-<pid>-<random>`, which becomes `data` by one rename. A crash on the way
//! leaves a directory that nothing reads, and no half cluster. (The pid alone would meet such a leftover
//! again: in a container it is the same at every start.)

use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process,
};

use crate::{
    Error,
    account::Account,
    find::Binaries,
    layout::{Layout, NO_FOLLOW, Password, USER, create_private_dir, sync_parent},
    run::Kind,
};

/// The major version of the cluster in `data`; `None` if there is none yet.
///
/// # Errors
/// The directory exists but is not a cluster.
pub(crate) fn existing_major(data: &Path) -> Result<Option<u32>, Error> {
    if !data.exists() {
        return Ok(None);
    }
    fs::read_to_string(data.join("PG_VERSION"))
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .map(Some)
        .ok_or_else(|| Error::NotACluster { data: data.to_owned() })
}

/// Makes the cluster of `layout` and returns its superuser's password. Only the lock's holder may call it.
pub(crate) fn initialise(
    layout: &Layout,
    kind: Kind,
    account: Account,
    binaries: &Binaries,
) -> Result<Password, Error> {
    account.check_reaches(layout.root())?;
    // The password is on disk before the cluster exists, so no cluster is ever without one.
    let password = layout.new_password()?;
    let random = rand::random::<u32>();
    let unfinished = layout.root().join(format!("data.tmp-{}-{random:08x}", process::id()));
    create_private_dir(&unfinished, account)?;
    tracing::info!(version = binaries.version, data = %layout.data().display(), "making a PostgreSQL cluster");
    run_initdb(layout, kind, account, binaries, &password, &unfinished)?;
    append_settings(&unfinished.join("postgresql.conf"), kind)?;
    let data = layout.data();
    fs::rename(&unfinished, &data).map_err(Error::io("create", &data))?;
    sync_parent(&data)?;
    Ok(password)
}

/// Runs `initdb` into the empty directory `into`.
fn run_initdb(
    layout: &Layout,
    kind: Kind,
    account: Account,
    binaries: &Binaries,
    password: &Password,
    into: &Path,
) -> Result<(), Error> {
    let password_copy = PasswordCopy::write(layout, account, password)?;
    let program = binaries.bin.join("initdb");
    let mut command = account.command(&program);
    command
        .arg("--pgdata")
        .arg(into)
        .arg("--pwfile")
        .arg(&password_copy.0)
        .arg(format!("--username={USER}"))
        .args(kind.authentication())
        .args(["--encoding=UTF8", "--no-locale", "--data-checksums"])
        .args(kind.initdb_arguments());
    let output = command.output().map_err(Error::io("run", &program))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    // initdb has emptied the directory; this succeeds only then.
    let _ = fs::remove_dir(into);
    Err(Error::Initdb { output: said })
}

/// Puts our defaults behind those of `initdb`, in the file that a user may edit.
fn append_settings(config: &Path, kind: Kind) -> Result<(), Error> {
    let append = || {
        let mut file = OpenOptions::new().append(true).custom_flags(NO_FOLLOW).open(config)?;
        writeln!(file, "\n# tallylight's defaults; change them here and restart.")?;
        for (name, value) in kind.tunables() {
            writeln!(file, "{name} = {value}")?;
        }
        file.sync_all()
    };
    append().map_err(Error::io("write", config))
}

/// A copy of the password that the server's user can read, deleted when dropped.
struct PasswordCopy(PathBuf);

impl PasswordCopy {
    /// Writes the copy, in place of one that a crash may have left.
    fn write(
        layout: &Layout,
        account: Account,
        password: &Password,
    ) -> Result<PasswordCopy, Error> {
        let path = layout.root().join("password.tmp");
        let _ = fs::remove_file(&path);
        let copy = PasswordCopy(path);
        let write = || {
            OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&copy.0)?
                .write_all(password.0.as_bytes())
        };
        write().map_err(Error::io("write", &copy.0))?;
        account.give(&copy.0)?;
        Ok(copy)
    }
}

impl Drop for PasswordCopy {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            tracing::warn!(%error, path = %self.0.display(), "could not remove a copy of the password");
        }
    }
}
