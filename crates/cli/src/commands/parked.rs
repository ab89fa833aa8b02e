//! `parked`: events that could not be applied. Lists them, and asks the worker that holds the slice
//! to try again or to pass one over, then waits for what came of it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use domain::ids::{Subject, Timestamp};
use store::{ParkedSubject, Request, Store};

use crate::cli::{Parked, Which};
use crate::config::{self, Config};
use crate::database::with_store;
use crate::output::say;

/// How often the worker's answer is looked for.
const EVERY: Duration = Duration::from_millis(100);

/// Most events that `show` lists.
const SHOWN: i64 = 20;

/// Does what was asked for.
pub(crate) async fn run(config: Config, command: Parked) -> Result<()> {
    with_store(&config, async |store| perform(store, command).await).await
}

async fn perform(store: &Store, command: Parked) -> Result<()> {
    match command {
        Parked::List { skipped: false } => list(store).await,
        Parked::List { skipped: true } => list_skipped(store).await,
        Parked::Show { which } => show(store, &find(store, which).await?).await,
        Parked::Retry { which: Some(which), wait, .. } => {
            let parked = find(store, which).await?;
            ask(store, &[parked], Request::Retry, None, wait).await
        }
        Parked::Retry { which: None, wait, .. } => {
            let parked = store.parked().await?;
            if parked.is_empty() {
                say("nothing is set aside");
            }
            ask(store, &parked, Request::Retry, None, wait).await
        }
        Parked::Skip { which, reason, wait } => {
            let parked = find(store, which).await?;
            ask(store, &[parked], Request::Skip, Some(&reason), wait).await
        }
    }
}

async fn list(store: &Store) -> Result<()> {
    let parked = store.parked().await?;
    if parked.is_empty() {
        say("nothing is set aside");
    }
    for p in parked {
        let requested = if p.is_requested { ", a request waits for its worker" } else { "" };
        say(format!(
            "{}:{}  {}  {} wait since {}, tried {} times{requested}: {}",
            p.slice,
            p.position,
            p.subject,
            events(p.events),
            time(p.since),
            p.attempts,
            p.error.unwrap_or_default()
        ));
    }
    Ok(())
}

async fn list_skipped(store: &Store) -> Result<()> {
    let skipped = store.skipped().await?;
    if skipped.is_empty() {
        say("nothing was skipped");
    }
    for s in skipped {
        say(format!(
            "{}:{}  {}  skipped {} by {} because \"{}\"; it failed with: {}",
            s.slice,
            s.position,
            s.subject,
            time(s.at),
            s.by.unwrap_or_else(|| "nobody known".to_owned()),
            s.reason.unwrap_or_default(),
            s.error.unwrap_or_default()
        ));
    }
    Ok(())
}

async fn show(store: &Store, parked: &ParkedSubject) -> Result<()> {
    let ParkedSubject { slice, position, .. } = parked;
    say(format!("subject   {}", parked.subject));
    say(format!("failed    {slice}:{position}, {} times", parked.attempts));
    say(format!("error     {}", parked.error.as_deref().unwrap_or_default()));
    say(format!("waiting   {} since {}", events(parked.events), time(parked.since)));
    let waiting = store.parked_positions(*slice, &parked.subject, SHOWN).await?;
    for position in waiting {
        let event = store.read_event(*slice, position).await?.context("read a parked event")?;
        let (name, version) = (&event.event_type, event.schema_version);
        say(format!("  {slice}:{position}  {}  {name} v{version}", time(event.recorded_at)));
    }
    say(format!("`tallylight events show {slice}:{position}` shows the failed one with its body"));
    Ok(())
}

/// The subject that is meant, by itself or by its first event that waits.
async fn find(store: &Store, which: Which) -> Result<ParkedSubject> {
    let (subject, at) = match which {
        Which::Subject(subject) => (Subject::from_stored(subject), None),
        Which::At(slice, position) => {
            let subject = store.parked_at(slice, position).await?;
            let subject = subject.with_context(|| {
                format!("no event is set aside at {slice}:{position}; see `tallylight parked list`")
            })?;
            (subject, Some(position))
        }
    };
    let found = store.parked().await?.into_iter().find(|p| p.subject == subject);
    let found = found.with_context(|| format!("nothing of {subject} is set aside"))?;
    match at {
        Some(position) if position != found.position => bail!(
            "{0}:{position} waits behind {0}:{1}, which failed: name that one",
            found.slice,
            found.position
        ),
        _ => Ok(found),
    }
}

/// Asks for it and tells what came of it.
async fn ask(
    store: &Store,
    parked: &[ParkedSubject],
    request: Request,
    reason: Option<&str>,
    wait: Duration,
) -> Result<()> {
    let by = config::environment("USER").unwrap_or_else(|| "unknown".to_owned());
    for p in parked {
        store.request_parked(&p.subject, p.position, request, &by, reason).await?;
    }
    let until = Instant::now() + wait;
    let mut still = 0;
    for p in parked {
        still += usize::from(!answer(store, p, until).await?);
    }
    if still > 0 {
        bail!("{still} of {} subjects wait still", parked.len());
    }
    Ok(())
}

/// Waits until a request is done. Returns whether nothing of the subject waits any more.
async fn answer(store: &Store, asked: &ParkedSubject, until: Instant) -> Result<bool> {
    let subject = &asked.subject;
    loop {
        let Some(now) = store.parked().await?.into_iter().find(|p| p.subject == *subject) else {
            say(format!("{subject}: applied, nothing waits"));
            return Ok(true);
        };
        if !now.is_requested {
            say(format!(
                "{subject}: {} wait; {}:{} failed, tried {} times: {}",
                events(now.events),
                now.slice,
                now.position,
                now.attempts,
                now.error.unwrap_or_default()
            ));
            return Ok(false);
        }
        if Instant::now() > until {
            say(format!(
                "{subject}: not done yet. The request stays, and the worker that holds slice {} \
                 performs it; see `tallylight status` for who that is",
                now.slice
            ));
            return Ok(false);
        }
        tokio::time::sleep(EVERY).await;
    }
}

fn events(n: i64) -> String {
    if n == 1 { "1 event".to_owned() } else { format!("{n} events") }
}

fn time(at: Timestamp) -> String {
    at.format("%F %T").to_string()
}
