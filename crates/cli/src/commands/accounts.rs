//! `accounts`: what is held of an account of the product, and erasing it.

use std::time::SystemTime;

use anyhow::{Result, bail};
use domain::ids::{Timestamp, is_account_id};
use serde_json::json;
use store::{Holdings, Store};

use crate::cli::Accounts;
use crate::config::{self, Config};
use crate::database::with_store;
use crate::output::say;

/// Does what was asked for.
pub(crate) async fn run(config: Config, command: Accounts) -> Result<()> {
    let Accounts::Erase { account, dry_run } = command;
    if !is_account_id(&account) {
        bail!(
            "\"{account}\" cannot be an account: it is the product's id, without blanks, /, ?, # and %"
        );
    }
    let sources: Vec<String> = config.sources.iter().map(|source| source.name.clone()).collect();
    with_store(&config, async |store| erase(store, &account, &sources, dry_run).await).await
}

async fn erase(store: &Store, account: &str, sources: &[String], dry_run: bool) -> Result<()> {
    let held = store.holdings(account).await?;
    for line in told(&held) {
        say(line);
    }
    if dry_run || held.pseudonym.is_none() {
        return Ok(());
    }
    if sources.is_empty() {
        bail!(
            "no source is configured, so there is no place to note the erasure: give the configuration of the installation"
        );
    }
    let who = config::environment("USER").unwrap_or_else(|| "unknown".to_owned());
    let now = Timestamp::from(SystemTime::now());
    let meta = json!({ "by": who, "command": "accounts erase" });
    if store.erase_account(account, sources, now, &meta).await?.is_some() {
        say("erased: its key is gone, and nobody can read these values any more");
        say("backups made before hold the key until they age out: docs/privacy.md");
    }
    Ok(())
}

/// What is held of an account, line by line.
fn told(held: &Holdings) -> Vec<String> {
    let mut lines = Vec::new();
    match &held.pseudonym {
        Some(pseudonym) => {
            lines.push(format!("pseudonym  {pseudonym}"));
            lines.push(format!("sessions   {}", held.sessions));
            lines.push(format!("events     {} of {} subjects", held.events, held.subjects));
            lines.push(format!("rows       {}", held.rows));
            lines.push(format!("jobs       {}", held.jobs));
        }
        None => lines.push("nothing of this account is held under a key".to_owned()),
    }
    for session in &held.running {
        lines.push(format!("in the way  session {session}: `tallylight session end {session}`"));
    }
    if held.in_the_open > 0 {
        lines.push(format!(
            "{} events of its sessions lie in the open, from before there were keys: they cannot be erased",
            held.in_the_open
        ));
    }
    lines
}
