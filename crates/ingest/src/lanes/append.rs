//! One append, repeated until its outcome is known or the time is over.
//!
//! Only a refused value (SQLSTATE classes 22, 23 and 54) ends the tries early: any other failure
//! may pass.

use std::time::Duration;

use domain::event::NewEvent;
use domain::ids::derived_id;
use store::AppendedAll;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use super::Shared;
use crate::event;

/// Waits between tries: 50, 100, 200, 400, 800 ms, then every second. No jitter: lanes are few,
/// and each waits for its own commit.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// While a failure lasts, it is told this often for each lane.
const TELL_EVERY: Duration = Duration::from_mins(1);

/// Why a batch was not stored.
pub(super) enum Failed {
    /// The database refuses one of its values.
    Refused { sqlstate: String },
    /// No try succeeded in time; the last may still.
    Late,
}

impl Shared {
    /// Calls the database until the outcome is known, or `until` has come; without it, for ever.
    pub(super) async fn append(
        &self,
        batch: Uuid,
        events: &[NewEvent],
        until: Option<Instant>,
    ) -> Result<AppendedAll, Failed> {
        let (mut pause, mut told) = (FIRST_PAUSE, None);
        loop {
            let started = Instant::now();
            let left = until.map(|until| until.saturating_duration_since(started));
            if left == Some(Duration::ZERO) {
                return Err(Failed::Late);
            }
            let patience = left.unwrap_or(self.config.attempt).min(self.config.attempt);
            let call = self.store.append_all(batch, events);
            let failure = match timeout(patience, call).await {
                Ok(Ok(appended)) => {
                    self.committed(events.len(), &appended, started.elapsed());
                    return Ok(appended);
                }
                Ok(Err(error)) => match refusal(&error) {
                    Some(sqlstate) => return Err(Failed::Refused { sqlstate }),
                    None => chain(&error),
                },
                Err(_) => "no answer".to_owned(),
            };
            self.metrics.append_retries.inc();
            if told.is_none_or(|told: Instant| told.elapsed() > TELL_EVERY) {
                let slice = events.first().map(|event| self.store.slice_of(&event.subject));
                let events = events.len();
                tracing::warn!(slice, events, failure, "append not known, is repeated");
                told = Some(Instant::now());
            }
            let pause_now = until.map_or(pause, |end| pause.min(end - Instant::now()));
            sleep(pause_now).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Counts a committed batch and tells who waits for its slices.
    fn committed(&self, events: usize, appended: &AppendedAll, took: Duration) {
        appended.slices.iter().for_each(|slice| self.notifier.moved(*slice));
        self.metrics.events_appended.inc_by(appended.stored as u64);
        // No batch comes near 2^32 events, below which every number is exact.
        self.metrics.append_batch_events.observe(f64::from(u32::try_from(events).unwrap_or(0)));
        self.metrics.append_seconds.observe(took.as_secs_f64());
    }

    /// Stores a refused event as unrecognized, where nothing of it can be refused again. Its key
    /// makes a repeat harmless.
    pub(super) async fn keep_refused(
        &self,
        refused: NewEvent,
        sqlstate: &str,
        until: Option<Instant>,
    ) -> Result<(), Failed> {
        let id = refused.event_id.to_string();
        let (batch, key) = (derived_id("refused batch", &[&id]), derived_id("refused", &[&id]));
        let mut event = event::unrecognized(refused, sqlstate);
        event.key = Some(key);
        let (source, event_id) = (event.subject.source().to_owned(), event.event_id);
        self.append(batch, &[event], until).await?;
        self.metrics.events_refused.inc();
        tracing::warn!(source, %event_id, sqlstate, "refused event stored as unrecognized");
        Ok(())
    }
}

/// PostgreSQL's code, where it refuses a value; `none` where the value could not even be sent.
fn refusal(error: &store::Error) -> Option<String> {
    let store::Error::Data { source } = error else { return None };
    let Some(error) = source.as_database_error() else { return Some("none".to_owned()) };
    Some(error.code().unwrap_or_default().into_owned())
}

/// An error and its causes in one line. Not for refused values, which PostgreSQL may quote.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
