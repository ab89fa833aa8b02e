//! Appends to several slices in one transaction: what a call costs beside its events, a commit
//! above all, is paid once.
//!
//! The events of each slice are a batch of their own: order and positions are per slice as ever,
//! and under the call's *batch id* each slice stores its events once, whichever try runs first.
//! Where the database cannot do it in one transaction (on Citus, whose functions run on the node of
//! one slice), each slice has its own call.

use std::sync::atomic::{AtomicBool, Ordering};

use domain::event::NewEvent;
use futures_util::future::try_join_all;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::log::{self, Columns};
use crate::{Error, Store};

/// What an append to several slices did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AppendedAll {
    /// The slices of its events, in ascending order.
    pub slices: Vec<i16>,
    /// How many of its events were stored now.
    pub stored: usize,
    /// Which of them, counted from 0 and in order, were not stored because their key was known.
    pub skipped: Vec<usize>,
}

/// The events of one slice, by their numbers in the call.
struct Part {
    slice: i16,
    events: Vec<usize>,
}

/// What became of a part.
struct Done {
    /// The slice's head before it; `None`: it was stored before.
    after: Option<i64>,
    /// Its events whose key was known, by their numbers in the call.
    skipped: Vec<usize>,
}

/// Whether this database takes one slice at a time, once that is known.
#[derive(Debug, Default)]
pub(crate) struct OneByOne(AtomicBool);

impl Store {
    /// A transaction over so many slices.
    ///
    /// # Errors
    /// [`Error::OneByOne`] where the database takes one slice at a time.
    pub(crate) async fn together<T>(
        &self,
        slices: usize,
        transaction: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        if slices > 1 && self.one_by_one.0.load(Ordering::Relaxed) {
            return Err(Error::OneByOne);
        }
        match transaction.await {
            Err(error) if slices > 1 && error.is_unsupported() => {
                self.one_by_one.0.store(true, Ordering::Relaxed);
                tracing::info!("the database changes one slice at a time");
                Err(Error::OneByOne)
            }
            done => done,
        }
    }

    /// Appends events of any slices under one batch id, in order, and returns after commit.
    ///
    /// Give each batch one id and never change it once sent: the call is then safe to repeat.
    ///
    /// # Errors
    /// As [`Store::append`]. Nothing is stored then; on Citus some slices may have stored their
    /// events, which a repeat leaves alone.
    pub async fn append_all(&self, batch: Uuid, events: &[NewEvent]) -> Result<AppendedAll, Error> {
        let parts = self.parts(events);
        let done = match parts.as_slice() {
            [_, _, ..] => {
                let all = async {
                    let mut connection = self.identity.connection(&self.pool).await?;
                    let events: Vec<&NewEvent> = events.iter().collect();
                    together(&mut connection, Some(batch), &parts, &events).await
                };
                match self.together(parts.len(), all).await {
                    Err(Error::OneByOne) => self.one_by_one(batch, &parts, events).await?,
                    ended => ended?,
                }
            }
            parts => self.one_by_one(batch, parts, events).await?,
        };
        let mut all = AppendedAll::default();
        for (part, done) in parts.iter().zip(done) {
            all.slices.push(part.slice);
            if done.after.is_some() {
                all.stored += part.events.len() - done.skipped.len();
            }
            all.skipped.extend(done.skipped);
        }
        all.skipped.sort_unstable();
        Ok(all)
    }

    /// The events by slice, in ascending order; of each slice in the order of the call.
    fn parts(&self, events: &[NewEvent]) -> Vec<Part> {
        let mut parts: Vec<Part> = Vec::new();
        for (n, event) in events.iter().enumerate() {
            let slice = self.slice_of(&event.subject);
            match parts.binary_search_by_key(&slice, |part| part.slice) {
                Ok(at) => parts[at].events.push(n),
                Err(at) => parts.insert(at, Part { slice, events: vec![n] }),
            }
        }
        parts
    }

    /// A call for each slice.
    async fn one_by_one(
        &self,
        batch: Uuid,
        parts: &[Part],
        events: &[NewEvent],
    ) -> Result<Vec<Done>, Error> {
        try_join_all(parts.iter().map(async |part| {
            let own: Vec<&NewEvent> = part.events.iter().map(|n| &events[*n]).collect();
            let mut connection = self.pool.acquire().await?;
            let appended = log::append(&mut connection, part.slice, Some(batch), &own).await?;
            let skipped = appended.skipped.iter().map(|n| part.events[*n]).collect();
            Ok(Done { after: appended.after, skipped })
        }))
        .await
    }
}

/// Appends events to their slices within a transaction, given in ascending order. Comes late in it:
/// it locks the heads. Returns the slices that have any, each with how many were stored.
pub(crate) async fn append_within(
    connection: &mut PgConnection,
    slices: &[(i16, Vec<&NewEvent>)],
) -> Result<Vec<(i16, usize)>, Error> {
    let told: Vec<&(i16, Vec<&NewEvent>)> =
        slices.iter().filter(|(_, events)| !events.is_empty()).collect();
    if let [(slice, events)] = told.as_slice() {
        let appended = log::append(connection, *slice, None, events).await?;
        return Ok(vec![(*slice, events.len() - appended.skipped.len())]);
    }
    if told.is_empty() {
        return Ok(Vec::new());
    }
    let mut parts = Vec::with_capacity(told.len());
    let mut events = Vec::new();
    for (slice, own) in &told {
        let numbers = events.len()..events.len() + own.len();
        parts.push(Part { slice: *slice, events: numbers.collect() });
        events.extend_from_slice(own);
    }
    // Unnamed: a transaction whose answer is lost is repeated as a whole.
    let done = together(connection, None, &parts, &events).await?;
    let stored = parts
        .iter()
        .zip(done)
        .map(|(part, done)| (part.slice, part.events.len() - done.skipped.len()));
    Ok(stored.collect())
}

/// One call for all of them.
async fn together(
    connection: &mut PgConnection,
    batch: Option<Uuid>,
    parts: &[Part],
    events: &[&NewEvent],
) -> Result<Vec<Done>, Error> {
    let slices: Vec<i16> = parts.iter().map(|part| part.slice).collect();
    let batches = batch.map(|batch| vec![batch; parts.len()]);
    let counts: Vec<i32> =
        parts.iter().map(|part| i32::try_from(part.events.len()).unwrap_or(i32::MAX)).collect();
    // By slice, as the function takes them.
    let numbers: Vec<usize> = parts.iter().flat_map(|part| &part.events).copied().collect();
    let of = Columns::of(&numbers.iter().map(|n| events[*n]).collect::<Vec<_>>());
    let row = sqlx::query!(
        r#"SELECT after_position AS "after!: Vec<Option<i64>>", skipped
             FROM tallylight.append_batches($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)"#,
        &slices,
        batches.as_deref() as Option<&[Uuid]>,
        &counts,
        &of.ids,
        &of.subjects as &[&str],
        &of.types as &[&str],
        &of.versions,
        of.keys.as_deref() as Option<&[Option<Uuid>]>,
        &of.received,
        of.causations.as_deref() as Option<&[Option<Uuid>]>,
        of.correlations.as_deref() as Option<&[Option<Uuid>]>,
        of.metas.as_deref() as Option<&[Option<&str>]>,
        &of.payloads as &[&[u8]],
    )
    .fetch_one(connection)
    .await?;
    let mut first = 0;
    // They count from one, over all slices.
    let skipped = row.skipped.unwrap_or_default();
    let skipped: Vec<usize> = skipped.iter().filter_map(|n| usize::try_from(n - 1).ok()).collect();
    let done = parts.iter().zip(row.after).map(|(part, after)| {
        let own = first..first + part.events.len();
        first = own.end;
        let skipped = skipped.iter().filter(|n| own.contains(n)).map(|n| numbers[*n]).collect();
        Done { after, skipped }
    });
    Ok(done.collect())
}
