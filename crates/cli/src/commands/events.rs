//! `events`: looks into the log.

use std::time::Duration;

use anyhow::{Result, bail};
use domain::event::RecordedEvent;
use domain::ids::{Subject, Timestamp};
use serde_json::json;
use store::{AsOf, SealingKey, Store};

use crate::cli::Events;
use crate::config::Config;
use crate::database::with_store;
use crate::home;
use crate::lifecycle;
use crate::narrate::{self, Tail};
use crate::output::say;

/// How often the log is asked for more.
const EVERY: Duration = Duration::from_millis(200);

/// Does what was asked for.
pub(crate) async fn run(config: Config, command: Events) -> Result<()> {
    with_store(&config, async |store| {
        let key = home::sealing_key(&config)?;
        match command {
            Events::Tail { from_start } => tail(store, key, from_start).await?,
            Events::List { subject } => list(store, key.as_ref(), subject).await?,
            Events::State { subject, as_of } => state(store, key.as_ref(), subject, as_of).await?,
            Events::Show { at: (slice, position) } => {
                show(store, key.as_ref(), slice, position).await?;
            }
        }
        Ok(())
    })
    .await
}

async fn tail(store: &Store, key: Option<SealingKey>, from_start: bool) -> Result<()> {
    let stop = lifecycle::stop_on_signal()?;
    let mut tail =
        if from_start { Tail::from_start(key) } else { Tail::from_now(store, key).await? };
    while !stop.is_cancelled() {
        for event in tail.next(store).await? {
            say(line(&event));
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(EVERY) => {}
        }
    }
    Ok(())
}

async fn list(store: &Store, key: Option<&SealingKey>, subject: String) -> Result<()> {
    let subject = Subject::from_stored(subject);
    let mut position = 0;
    loop {
        let mut events = store.read_subject(&subject, position, 500).await?;
        store.open_events(key, &mut events).await?;
        let Some(last) = events.last() else { break };
        position = last.position;
        for event in &events {
            say(line(event));
        }
    }
    if position == 0 {
        bail!("no event has the subject \"{subject}\"");
    }
    Ok(())
}

async fn state(
    store: &Store,
    key: Option<&SealingKey>,
    subject: String,
    at: Option<AsOf>,
) -> Result<()> {
    let subject = Subject::from_stored(subject);
    let Some((state, position)) = store.state_as_of(&subject, at).await? else {
        bail!("no event up to then tells of \"{subject}\"");
    };
    let slice = store.slice_of(&subject);
    let state = store.open(key, json!(state)).await?;
    let told = json!({ "subject": subject, "slice": slice, "position": position, "state": state });
    say(format!("{told:#}"));
    Ok(())
}

async fn show(store: &Store, key: Option<&SealingKey>, slice: i16, position: i64) -> Result<()> {
    let Some(event) = store.read_event(slice, position).await? else {
        bail!("slice {slice} has no event {position}");
    };
    let mut events = [event];
    store.open_events(key, &mut events).await?;
    let [event] = events;
    say(line(&event));
    say(format!("event_id     {}", event.event_id));
    say(format!("received_at  {}", event.received_at.to_rfc3339()));
    if let Some(cause) = event.causation_id {
        say(format!("caused by    {cause}"));
    }
    if let Some(meta) = &event.meta {
        say(format!("meta         {meta}"));
    }
    say(String::from_utf8_lossy(&event.payload));
    Ok(())
}

fn line(event: &RecordedEvent) -> String {
    let at: Timestamp = event.recorded_at;
    let told = narrate::tell(event).unwrap_or_else(|| event.event_type.clone());
    format!(
        "{} {:>3}:{:<6} {:<40} {told}",
        at.format("%T%.3f"),
        event.slice,
        event.position,
        event.subject.as_str()
    )
}
