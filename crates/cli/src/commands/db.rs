//! `db`: the managed database's address, and its programs. Backup and restore are in `backup`.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use anyhow::{Context, Result};
use postgres::{ArchiveSource, SystemPackages};

use super::backup::{self, Replace};
use crate::cli::Db;
use crate::config::Config;
use crate::database;
use crate::output::say;

/// Does what was asked for.
pub(crate) async fn run(config: Config, command: Db) -> Result<()> {
    match command {
        Db::Url => {
            let cluster = database::start_cluster(database::settings(&config)).await?;
            say(cluster.url("tallylight"));
            if cluster.is_owner() {
                say("note: it runs only while a tallylight process runs, such as `tallylight up`");
            }
            tokio::task::spawn_blocking(move || cluster.stop()).await??;
        }
        Db::Install { archive, sha256 } => {
            let installed =
                tokio::task::spawn_blocking(move || install(archive, sha256.as_deref())).await??;
            say(installed);
        }
        Db::Backup { file } => backup::back_up(&config, &file).await?,
        Db::Restore { file, replace, yes } => {
            backup::restore(&config, &file, &Replace { allowed: replace, unasked: yes }).await?;
        }
    }
    Ok(())
}

fn install(archive: Option<String>, sha256: Option<&str>) -> Result<String> {
    let source = match archive {
        None => ArchiveSource::Pinned,
        Some(text) if text.contains("://") => ArchiveSource::Url(text),
        Some(text) => ArchiveSource::File(PathBuf::from(text)),
    };
    let into = postgres::install_dir();
    let installed = postgres::install_archive(&source, sha256, &into)
        .context("install PostgreSQL's programs")?;
    Ok(format!("PostgreSQL {} is in {}", installed.version, installed.bin.display()))
}

/// Where somebody sits at a terminal, offers to run the package manager's command, which it shows
/// first. Returns whether PostgreSQL was installed.
pub(crate) fn offer_install() -> Result<bool> {
    let Some(packages) = SystemPackages::detect() else { return Ok(false) };
    if !(std::io::stdin().is_terminal() && std::io::stdout().is_terminal()) {
        return Ok(false);
    }
    say("No PostgreSQL was found. This command installs it:");
    say("");
    for line in packages.to_string().lines() {
        say(format!("    {line}"));
    }
    say("");
    if !ask("Run it now? [y/N] ")? {
        return Ok(false);
    }
    packages.run().context("install PostgreSQL")?;
    Ok(true)
}

#[expect(clippy::print_stdout, reason = "a question to the user")]
pub(crate) fn ask(question: &str) -> Result<bool> {
    print!("{question}");
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
