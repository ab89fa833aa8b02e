//! `db backup` and `db restore`: PostgreSQL's own programs copy, this says what and guards it.
//!
//! A backup is an archive of `pg_dump` in its custom format: the schema `tallylight` as it was at
//! one moment. A restore happens as a whole or not at all, and gives the log a new incarnation.
//! The sealing key is no part of a backup, nor are the product's own tables.

use std::fs::{self, File, OpenOptions};
use std::io::IsTerminal;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use secrecy::ExposeSecret;
use store::{OwnerConnection, Present};

use super::db::ask;
use crate::config::Config;
use crate::database::Database;
use crate::output::say;

/// What must be in an archive for it to be a backup of ours, in the words of `pg_restore --list`.
const MARK: &str = "TABLE DATA tallylight installation";

/// Whether an installation may be replaced.
pub(crate) struct Replace {
    /// It was said to be replaced.
    pub(crate) allowed: bool,
    /// And nobody is to be asked again.
    pub(crate) unasked: bool,
}

/// Writes a backup of the database to `file`.
pub(crate) async fn back_up(config: &Config, file: &Path) -> Result<()> {
    ensure!(!file.exists(), "{} exists: choose another name", file.display());
    let database = Database::open(config).await?;
    let mut connection = OwnerConnection::open(&database.config).await?;
    let Some(Present { installation: Some(installation), events, .. }) =
        connection.present().await?
    else {
        bail!("the database holds nothing to back up: `tallylight migrate` has not run there");
    };
    let major = connection.server_major().await?;
    connection.close().await?;

    let part = beside(file);
    let create = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part);
    create.with_context(|| format!("write {}", part.display()))?;
    let mut dump = program(config, &database, "pg_dump", major)?;
    dump.args(["--format=custom", "--schema=tallylight", "--lock-wait-timeout=30s", "--file"]);
    dump.arg(&part);
    run(dump).await.context("back up the database")?;
    check(config, &database, major, &part).await?;
    keep(&part, file).with_context(|| format!("write {}", file.display()))?;
    let bytes = fs::metadata(file)?.len();
    say(format!("installation {installation}, {events} events or more, is in {}", file.display()));
    say(format!("{bytes} bytes; the sealing key is not among them: keep it elsewhere"));
    database.close().await
}

/// Restores the backup in `file`.
pub(crate) async fn restore(config: &Config, file: &Path, replace: &Replace) -> Result<()> {
    ensure!(file.is_file(), "{} is not there", file.display());
    let database = Database::open(config).await?;
    let mut connection = OwnerConnection::open(&database.config).await?;
    let major = connection.server_major().await?;
    check(config, &database, major, file).await?;
    let programs = connection.programs().await?;
    ensure!(programs == 0, "{programs} connections of Tallylight are open: stop its roles first");
    let present = connection.present().await?;
    if let Some(present) = &present {
        permit(present, replace)?;
        connection.set_aside().await.context("set the present installation aside")?;
    }

    let mut restore = program(config, &database, "pg_restore", major)?;
    // Owner and privileges are this database's own; `migrate` grants them.
    restore.args(["--single-transaction", "--exit-on-error", "--no-owner", "--no-privileges"]);
    // An empty name: the one in the environment.
    restore.args(["--dbname", ""]).arg(file);
    if let Err(error) = run(restore).await {
        if present.is_some() {
            connection.put_back().await.context("put the present installation back")?;
        }
        return Err(error).context("restore; the database is as it was");
    }
    let migrated = store::migrate_restored(&database.config)
        .await
        .context("migrate what was restored: run `tallylight migrate`")?;
    connection.drop_set_aside().await.context("drop what was replaced")?;
    connection.close().await?;
    say(format!("installation {} is restored", migrated.installation));
    say(format!("its log begins incarnation {}", migrated.incarnation));
    database.close().await
}

/// Lets an installation be replaced only if that was said, and said again.
fn permit(present: &Present, replace: &Replace) -> Result<()> {
    if present.is_unused() {
        return Ok(());
    }
    let Present { installation, events, jobs } = present;
    let name = installation.map_or_else(|| "without a name".to_owned(), |id| id.to_string());
    let what = format!("installation {name} with {events} events and {jobs} jobs");
    ensure!(
        replace.allowed,
        "the database holds {what}: restore into an empty one, or say --replace"
    );
    if replace.unasked {
        return Ok(());
    }
    ensure!(
        std::io::stdin().is_terminal(),
        "nobody can be asked here: add --yes to replace {what}"
    );
    ensure!(ask(&format!("Replace {what}? It cannot be undone. [y/N] "))?, "nothing was replaced");
    Ok(())
}

/// Makes sure that `file` is a backup of ours that can be read to its table of contents.
async fn check(config: &Config, database: &Database, major: u32, file: &Path) -> Result<()> {
    let mut list = program(config, database, "pg_restore", major)?;
    list.arg("--list").arg(file);
    let contents = run(list).await.with_context(|| format!("read {}", file.display()))?;
    ensure!(contents.contains(MARK), "{} is no backup of Tallylight", file.display());
    Ok(())
}

/// One of PostgreSQL's programs, ready to reach the database. Address and password stand in its
/// environment, which only its own user can read.
fn program(config: &Config, database: &Database, name: &str, major: u32) -> Result<Command> {
    let path = postgres::client_program(name, major, config.database.pg_bin.as_deref())?;
    let mut command = Command::new(path);
    command.stdin(std::process::Stdio::null()).env("LC_ALL", "C");
    for (variable, value) in store::libpq_environment(&database.config)? {
        command.env(variable, value.expose_secret());
    }
    Ok(command)
}

/// Runs a program to its end and returns what it printed.
async fn run(mut command: Command) -> Result<String> {
    let name = Path::new(command.get_program()).display().to_string();
    let output = tokio::task::spawn_blocking(move || command.output())
        .await?
        .with_context(|| format!("run {name}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{name} ended with {}: {}", output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The name under which a backup is written until it is whole.
fn beside(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".part");
    PathBuf::from(name)
}

/// Gives a whole backup its name, durably.
fn keep(part: &Path, file: &Path) -> std::io::Result<()> {
    File::open(part)?.sync_all()?;
    fs::rename(part, file)?;
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}
