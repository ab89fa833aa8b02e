//! Erasing an account's data: what is held of it, and forgetting it.
//!
//! To erase is to drop the account's key. Everything sealed with it, in events, states, rows, jobs
//! and segments of history, can be read by nobody from then on; nothing of it is rewritten. The log
//! says that it was done, by `AccountErased` under the pseudonym. Not its job: the platform's own
//! copies, which the cleanup of a deleted account removes.

use std::collections::BTreeSet;

use domain::event::{AccountErased, Event, NewEvent, RecordedEvent};
use domain::ids::{LiveStreamId, Subject, Timestamp, derived_id};
use domain::personal::{Pseudonym, in_the_open};
use serde_json::Value;
use uuid::Uuid;

use crate::account_key::digest;
use crate::{Error, Store};

/// Statuses of sessions that hold up an erasure: their name may still have to be sent to the
/// platform, or their person is on air.
const RUNNING: [&str; 7] =
    ["requested", "preparing", "ready", "testing", "live", "interrupted", "ending"];

/// Events read at once.
const PAGE: i64 = 1_000;

/// What is held of an account.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holdings {
    /// What stands for it; `None`: it has no key, so there is nothing to erase.
    pub pseudonym: Option<Pseudonym>,
    /// Its sessions that are not off air: they have to be ended first.
    pub running: Vec<Uuid>,
    /// Its sessions.
    pub sessions: u64,
    /// Subjects with events that name it.
    pub subjects: u64,
    /// Events that can be read of it with its key, and without it not.
    pub events: u64,
    /// Rows of projections, states included, of which the same is true.
    pub rows: u64,
    /// Waiting, dead and kept ended jobs of which the same is true.
    pub jobs: u64,
    /// Events of its sessions that no key protects, stored before there were keys: they stay.
    pub in_the_open: u64,
}

/// What erasing an account did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Erased {
    /// What stands for it, and leads to nobody any more.
    pub pseudonym: Pseudonym,
    /// Events that tell of it, stored now.
    pub events: usize,
}

/// A session's place in the log.
struct Place {
    session: Uuid,
    source: String,
    live_stream: Option<i64>,
    is_running: bool,
}

impl Store {
    /// What is held of an account. Reads all events of its sessions, sealed history included.
    ///
    /// # Errors
    /// As [`Store::read_subject`].
    pub async fn holdings(&self, account: &str) -> Result<Holdings, Error> {
        let pseudonym = self.pseudonym_of(account).await?;
        let names = self.names_of(account).await?;
        let places = self.places(&names).await?;
        let mut holdings = Holdings {
            pseudonym,
            running: places.iter().filter(|p| p.is_running).map(|p| p.session).collect(),
            sessions: u64::try_from(places.len()).unwrap_or(u64::MAX),
            ..Holdings::default()
        };
        let mark = pseudonym.map(|pseudonym| pseudonym.0.simple().to_string());
        for place in &places {
            let subject = Subject::request(&place.source, place.session);
            self.count(&subject, mark.as_deref(), true, &mut holdings).await?;
        }
        let live_streams: BTreeSet<Subject> = places.iter().filter_map(Place::of_stream).collect();
        for subject in &live_streams {
            self.count(subject, mark.as_deref(), false, &mut holdings).await?;
        }
        let subjects: Vec<String> = places
            .iter()
            .map(|place| Subject::request(&place.source, place.session))
            .chain(live_streams)
            .map(|subject| subject.to_string())
            .collect();
        if let Some(mark) = mark {
            (holdings.rows, holdings.jobs) = self.count_rows(&names[0], &mark, &subjects).await?;
        }
        Ok(holdings)
    }

    /// Erases an account's data: says so in the log of each of `sources`, and drops its key. `None`:
    /// nothing is held under a key, so it was erased before or never known. `meta` says who asked.
    ///
    /// # Errors
    /// [`Error::SessionsRun`] where sessions have to be ended first: nothing happened.
    pub async fn erase_account(
        &self,
        account: &str,
        sources: &[String],
        at: Timestamp,
        meta: &Value,
    ) -> Result<Option<Erased>, Error> {
        let Some(pseudonym) = self.pseudonym_of(account).await? else { return Ok(None) };
        let places = self.places(&[pseudonym.to_string()]).await?;
        let sessions: Vec<Uuid> =
            places.into_iter().filter(|p| p.is_running).map(|p| p.session).collect();
        if !sessions.is_empty() {
            return Err(Error::SessionsRun { sessions });
        }
        // First said, then done: a process that dies between leaves what the next try completes.
        let mut events = 0;
        for source in sources {
            let event = erased(source, pseudonym, at, meta);
            events += usize::from(self.append_one(event).await?.is_some());
        }
        sqlx::query!(
            "DELETE FROM tallylight.account_key WHERE account_digest = $1 AND pseudonym = $2",
            digest(account),
            pseudonym.0,
        )
        .execute(&self.pool)
        .await?;
        Ok(Some(Erased { pseudonym, events }))
    }

    /// The sessions of an account, by what it is called in rows.
    async fn places(&self, names: &[String]) -> Result<Vec<Place>, Error> {
        let running = RUNNING.map(str::to_owned);
        let rows = sqlx::query_as!(
            Place,
            r#"SELECT r.session_id AS session, r.source,
                      coalesce(s.live_stream_id, r.live_stream_id) AS live_stream,
                      coalesce(s.status, r.status) = ANY ($2) AS "is_running!"
                 FROM tallylight.session_request r
                 LEFT JOIN tallylight.session s ON s.session_id = r.session_id
                WHERE r.account = ANY ($1)
                ORDER BY r.requested_at, r.session_id"#,
            names,
            &running,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows)
    }

    /// Counts the events of a subject that hold something of an account.
    async fn count(
        &self,
        subject: &Subject,
        mark: Option<&str>,
        is_its_own: bool,
        holdings: &mut Holdings,
    ) -> Result<(), Error> {
        let names_it = |event: &&RecordedEvent| {
            mark.is_some_and(|mark| {
                event.payload.windows(mark.len()).any(|part| part == mark.as_bytes())
            })
        };
        let is_open = |event: &&RecordedEvent| {
            is_its_own && !in_the_open(&event.event_type, &event.payload).is_empty()
        };
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let (mut after, before) = (0, holdings.events + holdings.in_the_open);
        loop {
            let page = self.read_subject(subject, after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = last.position;
            holdings.events += count(page.iter().filter(names_it).count());
            holdings.in_the_open += count(page.iter().filter(is_open).count());
        }
        holdings.subjects += u64::from(holdings.events + holdings.in_the_open > before);
        Ok(())
    }

    /// Rows of projections and jobs that hold something of an account.
    async fn count_rows(
        &self,
        name: &str,
        mark: &str,
        subjects: &[String],
    ) -> Result<(u64, u64), Error> {
        let row = sqlx::query!(
            r#"SELECT (SELECT count(*) FROM tallylight.session_request WHERE account = $1)
                    + (SELECT count(*) FROM tallylight.session WHERE account = $1)
                    + (SELECT count(*) FROM tallylight.live_stream WHERE account = $1)
                    + (SELECT count(*) FROM tallylight.account WHERE account = $1)
                    + (SELECT count(*) FROM tallylight.subject_state
                        WHERE subject = ANY ($3) AND position($2 IN state::text) > 0) AS "rows!",
                      (SELECT count(*) FROM tallylight.job
                        WHERE subject = ANY ($3) AND position($2 IN args::text) > 0)
                    + (SELECT count(*) FROM tallylight.job_dead
                        WHERE subject = ANY ($3) AND position($2 IN args::text) > 0)
                    + (SELECT count(*) FROM tallylight.job_history
                        WHERE subject = ANY ($3) AND position($2 IN args::text) > 0) AS "jobs!""#,
            name,
            mark,
            subjects,
        )
        .fetch_one(&self.pool)
        .await?;
        let count = |n: i64| u64::try_from(n).unwrap_or_default();
        Ok((count(row.rows), count(row.jobs)))
    }
}

impl Place {
    /// The subject of its live stream.
    fn of_stream(&self) -> Option<Subject> {
        self.live_stream.map(|id| Subject::live_stream(&self.source, LiveStreamId(id)))
    }
}

/// The event that tells of an erasure, once per source and pseudonym.
fn erased(source: &str, pseudonym: Pseudonym, at: Timestamp, meta: &Value) -> NewEvent {
    let account = pseudonym.to_string();
    let key = derived_id("account-erased", &[source, &account]);
    let subject = Subject::account(source, &account);
    let event = Event::AccountErased(AccountErased { account });
    let event = NewEvent::new(subject, &event, at, key).with_key(key);
    NewEvent { meta: Some(meta.clone().into()), ..event }
}
