//! The log of an installation under measurement: fill it with histories, see how far it is applied.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use domain::event::NewEvent;
use sqlx::PgConnection;
use store::Store;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::generator::sessions::{Emitted, History, Left, PER_SESSION};
use crate::processes::{Installation, Role};
use crate::report::{note, rate, whole};

/// Events of one append: as many as ingest gathers under load.
const BATCH: usize = 500;

/// Connections that fill; a slice is filled by one of them, in order.
const WRITERS: usize = 4;

/// Batches that wait for a writer.
const WAITING: usize = 2;

/// A worker that applies nothing for this long is stuck.
const PATIENCE: Duration = Duration::from_mins(1);

/// How often progress is looked at: a drain takes seconds.
const LOOK: Duration = Duration::from_millis(5);

/// Statements of the measurement's own, on one connection.
pub(crate) struct Log {
    /// The log as our own code reaches it.
    pub(crate) store: Store,
    connection: PgConnection,
    left: Left,
}

/// How fast a backlog was applied.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Drained {
    /// Events applied while it was looked.
    pub(crate) events: u64,
    /// In this time.
    pub(crate) seconds: f64,
}

impl Log {
    /// Connects to an installation's database.
    pub(crate) async fn connect(installation: &Installation<'_>) -> Result<Self> {
        let config = store::Config {
            max_connections: u32::try_from(WRITERS)? + 2,
            ..store::Config::new(installation.cluster.url())
        };
        let store = Store::connect(&config).await.context("connect to the installation")?;
        let connection = installation.cluster.connect().await?;
        Ok(Self { store, connection, left: Left::default() })
    }

    /// Appends a history of about `events` events, no worker running. Returns how many there are.
    ///
    /// # Errors
    /// Where the log's positions are not those that the history was made for: somebody else
    /// appended, or a key was stored before.
    pub(crate) async fn fill(&mut self, events: u64) -> Result<u64> {
        let begun = Instant::now();
        let before = self.heads().await?;
        let sessions = (events / PER_SESSION).max(1);
        let (slices, installation) = (self.store.slices(), self.store.installation());
        let left = std::mem::take(&mut self.left);
        let history = History::plan(slices, before.clone(), installation, left, sessions);
        let mut tasks = JoinSet::new();
        let mut queues = Vec::new();
        for _ in 0..WRITERS {
            let (queue, batches) = mpsc::channel(WAITING);
            queues.push(queue);
            tasks.spawn(write(self.store.clone(), batches));
        }
        let made = tokio::task::spawn_blocking(move || make(history, &queues))
            .await
            .context("make a history")?;
        while let Some(done) = tasks.join_next().await {
            done.context("append a history")??;
        }
        let (heads, left) = made?;
        self.left = left;
        if self.heads().await? != heads {
            bail!("the log does not end where the history ends: was something else appended?");
        }
        let count = u64::try_from(heads.iter().sum::<i64>() - before.iter().sum::<i64>())?;
        let seconds = begun.elapsed().as_secs_f64();
        note(format!(
            "{} events of {sessions} sessions appended in {seconds:.1} s, {}/s",
            whole(rate(count, 1.0)),
            whole(rate(count, seconds)),
        ));
        Ok(count)
    }

    /// Where the slices end, in order.
    async fn heads(&mut self) -> Result<Vec<i64>> {
        sqlx::query_scalar("SELECT position FROM tallylight.slice_head ORDER BY slice")
            .fetch_all(&mut self.connection)
            .await
            .context("look where the slices end")
    }

    /// Events in the log.
    pub(crate) async fn total(&mut self) -> Result<i64> {
        Ok(self.heads().await?.iter().sum())
    }

    /// Events applied by `react`, and events set aside by it.
    async fn applied(&mut self) -> Result<(i64, i64)> {
        sqlx::query_as(
            "SELECT (SELECT sum(position)::bigint FROM tallylight.checkpoint WHERE consumer = 'react'),
                    (SELECT count(*) FROM tallylight.parked)",
        )
        .fetch_one(&mut self.connection)
        .await
        .context("look how far the log is applied")
    }

    /// Waits until `worker` has applied everything, measured from its first commit: what it takes
    /// to claim slices is not a rate.
    ///
    /// # Errors
    /// Where it stands still, sets something aside, or appends: a history leaves nothing to add.
    pub(crate) async fn drain(&mut self, worker: &mut Role) -> Result<Drained> {
        let total = self.total().await?;
        let (first, _) = self.applied().await?;
        let mut began: Option<(Instant, i64)> = None;
        let (mut last, mut moved) = (first, Instant::now());
        loop {
            let (applied, parked) = self.applied().await?;
            if parked > 0 {
                bail!("{parked} events were set aside");
            }
            if applied > last {
                (last, moved) = (applied, Instant::now());
                began.get_or_insert((moved, applied));
            } else if moved.elapsed() > PATIENCE {
                bail!("the worker stands still at {applied} of {total} events");
            }
            if applied >= total {
                break;
            }
            worker.check_runs()?;
            tokio::time::sleep(LOOK).await;
        }
        let now = self.total().await?;
        if now != total {
            bail!("the worker appended {} events to a history that has all of them", now - total);
        }
        let (start, from) = began.context("nothing was left to apply")?;
        let seconds = (moved - start).as_secs_f64();
        Ok(Drained { events: u64::try_from(total - from)?, seconds })
    }

    /// Deletes the jobs of a history, no worker running. A history has what they would append, so
    /// they would only be in the way of what is measured next.
    pub(crate) async fn forget_jobs(&mut self) -> Result<()> {
        for statement in ["DELETE FROM tallylight.job", "VACUUM tallylight.job"] {
            sqlx::raw_sql(statement)
                .execute(&mut self.connection)
                .await
                .context("delete the jobs of a history")?;
        }
        Ok(())
    }

    /// Waits until `worker` holds every slice.
    pub(crate) async fn claimed(&mut self, worker: &mut Role) -> Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            let free: i64 = sqlx::query_scalar(
                "SELECT count(*) FROM tallylight.checkpoint
                  WHERE consumer = 'react' AND (owner IS NULL OR lease_until < now())",
            )
            .fetch_one(&mut self.connection)
            .await
            .context("look who holds the slices")?;
            if free == 0 {
                return Ok(());
            }
            worker.check_runs()?;
            tokio::time::sleep(LOOK).await;
        }
        bail!("the worker does not claim the slices")
    }

    /// Lets dead rows and hints of the fill be dealt with before something is measured, as
    /// autovacuum does in time.
    pub(crate) async fn vacuum(&mut self) -> Result<()> {
        sqlx::raw_sql("VACUUM (ANALYZE)")
            .execute(&mut self.connection)
            .await
            .context("vacuum the database")?;
        Ok(())
    }
}

impl Drained {
    /// Events per second.
    pub(crate) fn rate(&self) -> f64 {
        rate(self.events, self.seconds)
    }
}

/// A batch of one slice.
type Batch = (i16, Vec<NewEvent>);

/// Appends batches in the order they come.
async fn write(store: Store, mut batches: mpsc::Receiver<Batch>) -> Result<()> {
    while let Some((slice, events)) = batches.recv().await {
        let appended = store.append(slice, None, &events).await.context("append a history")?;
        if !appended.skipped.is_empty() {
            bail!("{} of {} events were stored before", appended.skipped.len(), events.len());
        }
    }
    Ok(())
}

/// Makes a history and hands it out in batches; returns where the slices end then, and what it
/// leaves to the next.
fn make(mut history: History, queues: &[mpsc::Sender<Batch>]) -> Result<(Vec<i64>, Left)> {
    let mut gathered: BTreeMap<i16, Vec<NewEvent>> = BTreeMap::new();
    let send = |slice: i16, events: Vec<NewEvent>| {
        let queue = &queues[usize::from(slice.unsigned_abs()) % queues.len()];
        // The writer tells why it has ended.
        queue.blocking_send((slice, events)).context("a writer ended")
    };
    while let Some(emitted) = history.next() {
        for Emitted { slice, event } in emitted {
            let events = gathered.entry(slice).or_default();
            events.push(event);
            if events.len() == BATCH {
                send(slice, std::mem::take(events))?;
            }
        }
    }
    for (slice, events) in gathered {
        send(slice, events)?;
    }
    Ok((history.heads().to_vec(), history.left()))
}
