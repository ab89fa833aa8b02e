//! `doctor`: checks the set-up and says what to mend.

use std::time::SystemTime;

use anyhow::{Result, bail};
use domain::ids::Timestamp;
use store::{HealthFacts, SliceStatus, Store};

use crate::commands::status;
use crate::config::{Config, Source};
use crate::database::Database;
use crate::output::say;

/// What it finds, in the order it finds it.
#[derive(Default)]
struct Findings {
    wrong: usize,
}

impl Findings {
    fn wrong(&mut self, text: impl std::fmt::Display) {
        self.wrong += 1;
        say(format!("  WRONG  {text}"));
    }
}

fn good(text: impl std::fmt::Display) {
    say(format!("  ok     {text}"));
}

/// Nothing wrong, but worth knowing.
fn note(text: impl std::fmt::Display) {
    say(format!("  note   {text}"));
}

/// Checks everything and exits with an error where something is wrong.
pub(crate) async fn run(config: Config) -> Result<()> {
    let mut findings = Findings::default();
    match Database::open(&config).await {
        Err(error) => findings.wrong(format!("database: {error:#}")),
        Ok(database) => {
            // `up` on its own database makes what is not configured.
            check_config(&config, database.is_managed(), &mut findings);
            match database.connect().await {
                Err(error) => findings.wrong(format!("database: {error:#}")),
                Ok(store) => {
                    check_database(&store, &mut findings).await;
                    store.close().await;
                }
            }
            database.close().await?;
        }
    }
    if findings.wrong > 0 {
        bail!("{} found wrong", findings.wrong);
    }
    Ok(())
}

fn check_config(config: &Config, managed: bool, findings: &mut Findings) {
    let mut missing = |text: &str| {
        if managed {
            note(format!("{text}; `tallylight up` makes its own"));
        } else {
            findings.wrong(text);
        }
    };
    if config.sources.is_empty() {
        missing("no source is configured: add [[sources]] with the platform's credentials");
    }
    if config.api.tokens.is_empty() {
        missing("no API token is configured: `tallylight token new` makes one");
    }
    match config.sealing_key() {
        Ok(Some(_)) => good("a sealing key is configured"),
        Ok(None) => missing("no sealing key is configured: set sealing.key_file"),
        Err(error) => findings.wrong(format!("sealing key: {error:#}")),
    }
    check_calls(config, findings);
    for source in &config.sources {
        let name = &source.name;
        if source.webhook_tokens.is_empty() && !managed {
            findings.wrong(format!("source {name}: no webhook token, so it can receive nothing"));
        } else {
            good(format!("source {name} at {}", source.base_url));
        }
        check_secrets(source, managed, findings);
    }
}

/// Secrets of a webhook's path that have ended: one can go, all of them are too few.
fn check_secrets(source: &Source, managed: bool, findings: &mut Findings) {
    let (name, now) = (&source.name, Timestamp::from(SystemTime::now()));
    let tokens = source.webhook_tokens.iter().enumerate();
    let ended = tokens.filter(|(_, token)| token.not_after.is_some_and(|end| end < now));
    let ended: Vec<String> = ended.map(|(at, token)| token.name(at)).collect();
    if !ended.is_empty() && ended.len() == source.webhook_tokens.len() && !managed {
        findings.wrong(format!("source {name}: every webhook token has ended, add a new one"));
    } else if !ended.is_empty() {
        let ended = ended.join(", ");
        note(format!("source {name}: webhook tokens that have ended and can go: {ended}"));
    }
}

fn check_calls(config: &Config, findings: &mut Findings) {
    match config.outbound().and_then(|_| config.rates()) {
        Err(error) => findings.wrong(format!("calls: {error:#}")),
        Ok(_) if config.http_call.allow.is_empty() => {}
        Ok(_) => good(format!("http_call may call {} places", config.http_call.allow.len())),
    }
}

async fn check_database(store: &Store, findings: &mut Findings) {
    let incarnation = store.incarnation().unwrap_or_default();
    good(format!("database of installation {}, incarnation {incarnation}", store.installation()));
    match store.health_facts().await {
        Err(error) => findings.wrong(format!("database: {error}")),
        Ok(facts) => check_facts(&facts, findings),
    }
    check_history(store, findings).await;
    match store.slice_status().await {
        Err(error) => findings.wrong(format!("slices: {error}")),
        Ok(slices) => check_slices(&slices, findings),
    }
}

/// Segments must be within reach of every process that reads the log.
async fn check_history(store: &Store, findings: &mut Findings) {
    let segments = match store.segments().await {
        Err(error) => return findings.wrong(format!("history: {error}")),
        Ok(segments) => segments,
    };
    if !store.has_history() {
        if segments.is_empty() {
            note("history.url is not set: no month of the log is ever sealed");
        } else {
            let count = segments.len();
            findings.wrong(format!("{count} segments are sealed and history.url is not set"));
        }
        return;
    }
    match store.missing_segments().await {
        Err(error) => findings.wrong(format!("history: {:#}", anyhow::Error::new(error))),
        Ok(missing) if missing.is_empty() => {
            good(format!("history is in reach, {} segments", segments.len()));
        }
        Ok(missing) => findings.wrong(format!(
            "{} of {} segments are missing at history.url, the first is {}",
            missing.len(),
            segments.len(),
            missing[0],
        )),
    }
}

fn check_facts(facts: &HealthFacts, findings: &mut Findings) {
    if facts.fsync {
        good("fsync is on");
    } else {
        findings.wrong("fsync is off: what is acknowledged may be lost");
    }
    if facts.default_partition_rows == 0 {
        good("the default partition is empty");
    } else {
        findings.wrong("events lie in the default partition: run `tallylight migrate`");
    }
    let skew =
        SystemTime::now().duration_since(facts.now.into()).unwrap_or_else(|error| error.duration());
    if skew.as_secs() < 2 {
        good("this clock and the database's agree");
    } else {
        findings.wrong(format!("this clock is {} s off the database's", skew.as_secs()));
    }
}

fn check_slices(slices: &[SliceStatus], findings: &mut Findings) {
    for complaint in slices.iter().filter_map(status::complaint) {
        findings.wrong(complaint);
    }
    let parked: i64 = slices.iter().map(|s| s.parked).sum();
    let lag: i64 = slices.iter().map(|s| s.head - s.position).sum();
    let without = slices.iter().filter(|s| s.owner.is_none()).count();
    if parked > 0 {
        findings.wrong(format!("{parked} events are set aside; see `tallylight parked list`"));
    }
    if without == slices.len() && lag > 0 {
        findings.wrong(format!("no worker runs and {lag} events wait: start `tallylight worker`"));
    } else if without == slices.len() {
        note("no worker runs");
    } else if without > 0 {
        note(format!("{without} slices change hands just now, {lag} events wait"));
    } else {
        good(format!("every slice has a worker, {lag} events wait"));
    }
}
