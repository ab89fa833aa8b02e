//! The store in memory: the same answers as PostgreSQL gives, on a clock and over a line that a test
//! rules.
//!
//! A *line* stands between one process and the tables, as the network and the driver do between a
//! process and PostgreSQL: a call may be refused, be slow on the way there or back, or break with
//! its outcome unknown. What was sent is executed even if the caller has stopped waiting, and even
//! after the caller has sent it a second time. A call is one transaction and happens in one moment,
//! since that is what the locks of the SQL come to; how the statements of concurrent transactions
//! meet is shown on PostgreSQL itself, by `tests/it/interleavings.rs`.
//!
//! Not its job: history in segments, rebuilds, verification, the keys of accounts, what the API
//! reads.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use domain::cleanup::{InactiveFacts, Maker, RecordingFacts};
use domain::event::{NewEvent, RecordedEvent};
use domain::ids::{LiveStreamId, Subject, Timestamp};
use domain::personal::Pseudonym;
use domain::slice::SliceCount;
use domain::state::State;
use futures_util::stream;
use serde_json::Value;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use uuid::Uuid;

use super::tables::{Flaws, Tables, sorted};
use crate::{
    AfterSession, Answer, Appended, AppendedAll, AwaitedSession, Begin, Bucket, Cancellation,
    Cancelled, Child, Committed, Consumer, DueJob, DueSchedule, EnqueueOptions, Error, EventWait,
    Failing, Finish, Finished, Finishes, Fire, Hearing, Hint, JobDays, JobSample, Keyring,
    KeysRemoved, Lease, Log, NewSchedule, Notifier, Partitions, Pauses, PendingRequest, Reacting,
    Receiver, Request, Sealed, SealingKey, Started, StartedAll, Starts, Step, TableRows, Tokens,
    Verified, Wakes, Word, Work,
};

mod line;

use line::Perfect;
pub use line::{Fate, Line};

/// Hints that a slow listener may have before it; then it hears that it missed some.
const HINTS: usize = 256;

/// An installation in memory. Clones share its tables.
#[derive(Clone)]
pub struct Memory {
    shared: Arc<Shared>,
    line: Arc<dyn Line>,
}

struct Shared {
    tables: Mutex<Tables>,
    slices: SliceCount,
    clock: Box<dyn Fn() -> Timestamp + Send + Sync>,
    hints: broadcast::Sender<Hint>,
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("line", &self.line).finish_non_exhaustive()
    }
}

impl Memory {
    /// An empty installation, whose database has this clock.
    pub fn new(slices: SliceCount, clock: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self::flawed(slices, clock, Flaws::default())
    }

    /// An installation without some of its protections.
    pub fn flawed(
        slices: SliceCount,
        clock: impl Fn() -> Timestamp + Send + Sync + 'static,
        flaws: Flaws,
    ) -> Self {
        let tables = Mutex::new(Tables::new(slices, flaws));
        let (hints, _) = broadcast::channel(HINTS);
        let shared = Shared { tables, slices, clock: Box::new(clock), hints };
        Self { shared: Arc::new(shared), line: Arc::new(Perfect) }
    }

    /// The same tables, as a process sees them over a line of its own.
    #[must_use]
    pub fn over(&self, line: Arc<dyn Line>) -> Self {
        Self { shared: Arc::clone(&self.shared), line }
    }

    /// Looks at the tables.
    pub fn look<T>(&self, at: impl FnOnce(&Tables) -> T) -> T {
        at(&self.tables())
    }

    /// Changes the tables in ways that no call does.
    pub fn meddle<T>(&self, with: impl FnOnce(&mut Tables) -> T) -> T {
        with(&mut self.tables())
    }

    /// As `Store::retry_dead`.
    ///
    /// # Errors
    /// [`Error::NoSuchJob`].
    pub fn retry_dead(&self, id: Uuid) -> Result<(), Error> {
        self.tables().retry_dead((self.shared.clock)(), id)
    }

    /// As `Store::cancel_job`.
    ///
    /// # Errors
    /// [`Error::Invalid`].
    pub fn cancel_job(&self, id: Uuid, force: bool) -> Result<Option<Cancelled>, Error> {
        self.tables().cancel_job(id, force)
    }

    /// As `Store::put_schedule`, for a schedule that nothing is wrong with.
    pub fn put_schedule(&self, new: &NewSchedule) {
        self.tables().put_schedule((self.shared.clock)(), new);
        self.tell(Hint::Schedules);
    }

    fn tables(&self) -> std::sync::MutexGuard<'_, Tables> {
        self.shared.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells all who listen; nobody may.
    fn tell(&self, hint: Hint) {
        let _ = self.shared.hints.send(hint);
    }
}

impl Log for Memory {
    fn slices(&self) -> SliceCount {
        self.shared.slices
    }

    fn append<'a>(
        &'a self,
        slice: i16,
        batch: Option<Uuid>,
        events: &'a [NewEvent],
    ) -> Answer<'a, Appended> {
        let events = events.to_vec();
        self.call("append", move |tables, now| tables.append(now, slice, batch, &events))
    }

    fn append_all<'a>(&'a self, batch: Uuid, events: &'a [NewEvent]) -> Answer<'a, AppendedAll> {
        let events = events.to_vec();
        self.call("append_all", move |tables, now| tables.append_all(now, batch, &events))
    }
}

impl Work for Memory {
    fn installation(&self) -> Uuid {
        Uuid::from_u128(1)
    }

    fn notifier(&self) -> Notifier {
        let memory = self.clone();
        Notifier::start(move |news| {
            memory.tell(news.into());
            std::future::ready(())
        })
    }

    fn listen(&self) -> Answer<'_, Wakes> {
        let heard = (self.shared.hints.subscribe(), Arc::clone(&self.line));
        let hints = stream::unfold(heard, |(mut hints, line)| async {
            loop {
                let hint = match hints.recv().await {
                    Ok(hint) => hint,
                    Err(RecvError::Lagged(_)) => Hint::Everything,
                    Err(RecvError::Closed) => return None,
                };
                if line.hears() {
                    return Some((Ok(hint), (hints, line)));
                }
            }
        });
        let wakes = Wakes::of(hints);
        self.call("listen", move |_, _| Ok(wakes))
    }

    fn leases_given_back(&self) -> Answer<'_, ()> {
        let memory = self.clone();
        self.call("leases_given_back", move |_, _| {
            memory.tell(Hint::Leases);
            Ok(())
        })
    }

    fn heads<'a>(&'a self, slices: &'a [i16]) -> Answer<'a, Vec<(i16, i64)>> {
        let slices = slices.to_vec();
        self.call("heads", move |tables, _| Ok(tables.heads(&slices)))
    }

    fn read_after(
        &self,
        slice: i16,
        position: i64,
        since: Timestamp,
        limit: i64,
    ) -> Answer<'_, Vec<RecordedEvent>> {
        self.call("read_after", move |tables, _| tables.read_after(slice, position, since, limit))
    }

    fn read_event(&self, slice: i16, position: i64) -> Answer<'_, Option<RecordedEvent>> {
        self.call("read_event", move |tables, _| Ok(tables.read_event(slice, position)))
    }

    fn read_subject<'a>(
        &'a self,
        subject: &'a Subject,
        position: i64,
        limit: i64,
    ) -> Answer<'a, Vec<RecordedEvent>> {
        let subject = subject.clone();
        self.call("read_subject", move |t, _| Ok(t.read_subject(&subject, position, limit)))
    }

    fn heartbeat<'a>(
        &'a self,
        process: Uuid,
        _host: &'a str,
        _version: &'a str,
        ttl: Duration,
    ) -> Answer<'a, Vec<Uuid>> {
        self.call("heartbeat", move |tables, now| Ok(tables.heartbeat(now, process, ttl)))
    }

    fn leave(&self, process: Uuid) -> Answer<'_, ()> {
        self.call("leave", move |tables, now| {
            tables.leave(now, process);
            Ok(())
        })
    }

    fn claim(
        &self,
        consumer: Consumer,
        slice: i16,
        process: Uuid,
        ttl: Duration,
    ) -> Answer<'_, Option<Lease>> {
        self.call("claim", move |t, now| Ok(t.claim(now, (consumer, slice), process, ttl)))
    }

    fn lease(&self, consumer: Consumer, slice: i16, epoch: i64) -> Answer<'_, Option<Lease>> {
        self.call("lease", move |tables, _| Ok(tables.lease(consumer, slice, epoch)))
    }

    fn renew<'a>(
        &'a self,
        consumer: Consumer,
        held: &'a [(i16, i64)],
        ttl: Duration,
    ) -> Answer<'a, Vec<i16>> {
        let held = sorted(held.iter().copied());
        self.call("renew", move |tables, now| Ok(tables.renew(now, consumer, &held, ttl)))
    }

    fn release(&self, consumer: Consumer, slice: i16, epoch: i64) -> Answer<'_, ()> {
        self.call("release", move |tables, _| {
            tables.release(consumer, slice, epoch);
            Ok(())
        })
    }

    fn load_states<'a>(
        &'a self,
        slice: i16,
        subjects: &'a [Subject],
    ) -> Answer<'a, HashMap<Subject, State>> {
        let subjects = subjects.to_vec();
        self.call("load_states", move |tables, _| tables.load_states(slice, &subjects))
    }

    fn commit_reactions<'a>(
        &'a self,
        all: &'a [Reacting<'a>],
        ttl: Duration,
    ) -> Answer<'a, Vec<Option<Committed>>> {
        let all: Vec<_> = all.iter().map(|one| (*one.lease, one.reaction.clone())).collect();
        self.call("commit_reactions", move |tables, now| tables.commit_reactions(now, &all, ttl))
    }

    fn parked_counts(&self, slice: i16) -> Answer<'_, Vec<(Subject, i64)>> {
        self.call("parked_counts", move |tables, _| Ok(tables.parked_counts(slice)))
    }

    fn awaiting_build(&self, slice: i16) -> Answer<'_, Vec<(Subject, i64)>> {
        self.call("awaiting_build", move |tables, _| Ok(tables.awaiting_build(slice)))
    }

    fn request_parked<'a>(
        &'a self,
        subject: &'a Subject,
        position: i64,
        request: Request,
        by: &'a str,
        _reason: Option<&'a str>,
    ) -> Answer<'a, ()> {
        let (memory, subject, by) = (self.clone(), subject.clone(), by.to_owned());
        self.call("request_parked", move |tables, now| {
            tables.request_parked(now, &subject, position, request, &by)?;
            let events = BTreeSet::from([memory.slice_of(&subject)]);
            memory.tell(Hint::Slices { events, jobs: BTreeSet::new() });
            Ok(())
        })
    }

    fn parked_requests(&self, slice: i16) -> Answer<'_, Vec<PendingRequest>> {
        self.call("parked_requests", move |tables, _| Ok(tables.parked_requests(slice)))
    }

    fn parked_positions<'a>(
        &'a self,
        slice: i16,
        subject: &'a Subject,
        limit: i64,
    ) -> Answer<'a, Vec<i64>> {
        let subject = subject.clone();
        self.call("parked_positions", move |t, _| Ok(t.parked_positions(slice, &subject, limit)))
    }

    fn enqueue<'a>(
        &'a self,
        kind: &'a str,
        args: &'a Value,
        options: &'a EnqueueOptions,
    ) -> Answer<'a, Uuid> {
        let (kind, args, options) = (kind.to_owned(), args.clone(), options.clone());
        self.call("enqueue", move |tables, now| tables.enqueue(now, &kind, &args, &options))
    }

    fn due_jobs<'a>(
        &'a self,
        process: Uuid,
        per_slice: i64,
        fair_after: &'a str,
    ) -> Answer<'a, Vec<DueJob>> {
        let after = fair_after.to_owned();
        self.call("due_jobs", move |t, now| Ok(t.due_jobs(now, process, per_slice, &after)))
    }

    fn pauses(&self) -> Answer<'_, Pauses> {
        self.call("pauses", move |tables, _| Ok(tables.pauses.clone()))
    }

    fn fair_page_end<'a>(&'a self, process: Uuid, after: &'a str) -> Answer<'a, Option<String>> {
        let after = after.to_owned();
        self.call("fair_page_end", move |tables, _| Ok(tables.fair_page_end(process, &after)))
    }

    fn parked_keys<'a>(&'a self, slices: &'a [i16]) -> Answer<'a, Vec<(i16, String)>> {
        let slices = slices.to_vec();
        self.call("parked_keys", move |tables, _| Ok(tables.parked_keys(&slices)))
    }

    fn still_parked<'a>(&'a self, keys: &'a [(i16, String)]) -> Answer<'a, Vec<(i16, String)>> {
        let keys = keys.to_vec();
        self.call("still_parked", move |tables, _| Ok(tables.still_parked(&keys)))
    }

    fn parked_jobs<'a>(
        &'a self,
        process: Uuid,
        keys: &'a [(i16, String)],
        per_key: i64,
    ) -> Answer<'a, Vec<DueJob>> {
        let keys = keys.to_vec();
        self.call("parked_jobs", move |t, now| Ok(t.parked_jobs(now, process, &keys, per_key)))
    }

    fn park<'a>(
        &'a self,
        slice: i16,
        epoch: i64,
        keys: &'a [String],
        fair_keys: &'a [String],
    ) -> Answer<'a, u64> {
        let (keys, fair_keys) = (keys.to_vec(), fair_keys.to_vec());
        self.call("park", move |tables, now| tables.park(now, (slice, epoch), &keys, &fair_keys))
    }

    fn set_aside<'a>(
        &'a self,
        slice: i16,
        epoch: i64,
        pauses: &'a Pauses,
        fair_keys: &'a [String],
        ids: &'a [Uuid],
    ) -> Answer<'a, u64> {
        let (pauses, fair_keys, ids) = (pauses.clone(), fair_keys.to_vec(), ids.to_vec());
        self.call("set_aside", move |tables, now| {
            tables.set_aside(now, (slice, epoch), &pauses, &fair_keys, &ids)
        })
    }

    fn take_back<'a>(&'a self, slice: i16, epoch: i64, pauses: &'a Pauses) -> Answer<'a, bool> {
        let pauses = pauses.clone();
        self.call("take_back", move |tables, _| tables.take_back(slice, epoch, &pauses))
    }

    fn next_due_in(&self, process: Uuid) -> Answer<'_, Option<Duration>> {
        self.call("next_due_in", move |tables, now| Ok(tables.next_due_in(now, process)))
    }

    fn mark_started<'a>(
        &'a self,
        slice: i16,
        epoch: i64,
        ids: &'a [Uuid],
    ) -> Answer<'a, Vec<Started>> {
        let ids = ids.to_vec();
        self.call("mark_started", move |t, now| t.mark_started(now, slice, epoch, &ids))
    }

    fn mark_all<'a>(&'a self, starts: &'a [Starts]) -> Answer<'a, StartedAll> {
        let starts = starts.to_vec();
        self.call("mark_all", move |t, now| t.mark_all(now, &starts))
    }

    fn finish<'a>(
        &'a self,
        slice: i16,
        epoch: i64,
        finishes: &'a [Finish],
    ) -> Answer<'a, HashSet<Uuid>> {
        let finishes = finishes.to_vec();
        self.call("finish", move |tables, now| tables.finish(now, slice, epoch, &finishes))
    }

    fn finish_all<'a>(&'a self, all: &'a [Finishes<'a>]) -> Answer<'a, Finished> {
        let all: Vec<(i16, i64, Vec<Finish>)> =
            all.iter().map(|of| (of.slice, of.epoch, of.runs.to_vec())).collect();
        self.call("finish_all", move |t, now| t.finish_all(now, &all))
    }

    fn acquit<'a>(&'a self, slice: i16, epoch: i64, runs: &'a [(Uuid, i32)]) -> Answer<'a, u64> {
        let runs = runs.to_vec();
        self.call("acquit", move |tables, _| Ok(tables.acquit(slice, epoch, &runs)))
    }

    fn sample_jobs(&self, slice: i16) -> Answer<'_, JobSample> {
        self.call("sample_jobs", move |tables, now| Ok(tables.sample_jobs(now, slice)))
    }

    fn job_tables(&self) -> Answer<'_, Vec<TableRows>> {
        // Nothing to remove: a row that is gone is gone.
        self.call("job_tables", |_, _| Ok(Vec::new()))
    }

    fn note_crashes(&self, slice: i16, epoch: i64) -> Answer<'_, u64> {
        self.call("note_crashes", move |tables, _| tables.note_crashes(slice, epoch))
    }

    fn cancellations(&self, process: Uuid) -> Answer<'_, Vec<Cancellation>> {
        self.call("cancellations", move |tables, now| Ok(tables.cancellations(now, process)))
    }

    fn hearing(&self) -> Answer<'_, Vec<Hearing>> {
        self.call("hearing", |tables, _| Ok(tables.hearing()))
    }

    fn receiver<'a>(&'a self, _: &'a SealingKey, id: Uuid) -> Answer<'a, Option<Receiver>> {
        self.call("receiver", move |tables, _| Ok(tables.receiver(id)))
    }

    fn endpoint_accepted(&self, id: Uuid) -> Answer<'_, ()> {
        self.call("endpoint_accepted", move |tables, _| {
            tables.endpoint_accepted(id);
            Ok(())
        })
    }

    fn endpoint_failed<'a>(&'a self, id: Uuid, error: &'a str) -> Answer<'a, Option<Failing>> {
        let error = error.to_owned();
        self.call("endpoint_failed", move |tables, now| Ok(tables.endpoint_failed(now, id, error)))
    }

    fn disable_endpoint<'a>(&'a self, id: Uuid, version: i64, reason: &'a str) -> Answer<'a, bool> {
        let reason = reason.to_owned();
        self.call("disable_endpoint", move |tables, now| {
            Ok(tables.disable_endpoint(now, id, version, reason))
        })
    }

    fn take_tokens<'a>(&'a self, bucket: &'a Bucket, wanted: u32) -> Answer<'a, Tokens> {
        let bucket = bucket.clone();
        self.call("take_tokens", move |tables, now| tables.take_tokens(now, &bucket, wanted))
    }

    fn job_age(&self, slice: i16, id: Uuid) -> Answer<'_, Option<Duration>> {
        self.call("job_age", move |tables, now| Ok(tables.job_age(now, slice, id)))
    }

    fn due_schedules(&self, process: Uuid, limit: i64) -> Answer<'_, Vec<DueSchedule>> {
        self.call("due_schedules", move |tables, now| Ok(tables.due_schedules(now, process, limit)))
    }

    fn next_fire_in(&self, process: Uuid) -> Answer<'_, Option<Duration>> {
        self.call("next_fire_in", move |tables, now| Ok(tables.next_fire_in(now, process)))
    }

    fn fire_schedule<'a>(
        &'a self,
        slice: i16,
        epoch: i64,
        fire: &'a Fire,
    ) -> Answer<'a, Option<Vec<Uuid>>> {
        let fire = fire.clone();
        self.call("fire_schedule", move |t, now| t.fire_schedule(now, slice, epoch, &fire))
    }

    /// Fires are kept.
    fn forget_fires(&self, _age: Duration, _deadline: Instant) -> Answer<'_, u64> {
        self.call("forget_fires", |_, _| Ok(0))
    }

    fn steps(&self, slice: i16, job: Uuid) -> Answer<'_, Vec<Step>> {
        self.call("steps", move |tables, now| Ok(tables.steps(now, slice, job)))
    }

    fn begin_step<'a>(
        &'a self,
        slice: i16,
        epoch: i64,
        run: (Uuid, i32),
        name: &'a str,
        begin: &'a Begin,
    ) -> Answer<'a, Option<Step>> {
        let (name, begin) = (name.to_owned(), begin.clone());
        self.call("begin_step", move |tables, now| {
            tables.begin_step(now, (slice, epoch), run, &name, &begin)
        })
    }

    fn give_up_step<'a>(
        &'a self,
        slice: i16,
        epoch: i64,
        job: Uuid,
        name: &'a str,
    ) -> Answer<'a, Option<Step>> {
        let name = name.to_owned();
        self.call("give_up_step", move |t, now| t.give_up_step(now, (slice, epoch), job, &name))
    }

    fn children<'a>(&'a self, slice: i16, job: Uuid, step: &'a str) -> Answer<'a, Vec<Child>> {
        let step = step.to_owned();
        self.call("children", move |tables, _| Ok(tables.children(slice, job, &step)))
    }

    fn relay<'a>(&'a self, slice: i16, words: &'a [Word]) -> Answer<'a, ()> {
        let words = words.to_vec();
        self.call("relay", move |tables, now| {
            tables.relay(now, slice, &words);
            Ok(())
        })
    }

    fn await_event<'a>(&'a self, wait: &'a EventWait) -> Answer<'a, ()> {
        let wait = wait.clone();
        self.call("await_event", move |tables, _| {
            tables.await_event(&wait);
            Ok(())
        })
    }

    fn cancel_unstarted<'a>(&'a self, slice: i16, jobs: &'a [Uuid]) -> Answer<'a, u64> {
        let jobs = jobs.to_vec();
        self.call("cancel_unstarted", move |tables, _| Ok(tables.cancel_unstarted(slice, &jobs)))
    }

    fn seal<'a>(
        &'a self,
        _key: &'a SealingKey,
        subject: &'a Subject,
        secret: &'a [u8],
    ) -> Answer<'a, ()> {
        let (slice, subject, secret) = (self.slice_of(subject), subject.clone(), secret.to_vec());
        self.call("seal", move |tables, _| {
            tables.existing(slice)?.sealed.insert(subject, secret);
            Ok(())
        })
    }

    /// Empty: accounts have no keys here, as if all had been erased.
    fn keyring<'a>(
        &'a self,
        _sealing: Option<&'a SealingKey>,
        _wanted: &'a BTreeSet<Pseudonym>,
    ) -> Answer<'a, Keyring> {
        self.call("keyring", |_, _| Ok(Keyring::default()))
    }

    /// None: no row of an account is joined here.
    fn inactive_live_streams<'a>(
        &'a self,
        _source: &'a str,
        _limit: i64,
    ) -> Answer<'a, Vec<InactiveFacts>> {
        self.call("inactive_live_streams", |_, _| Ok(Vec::new()))
    }

    /// None: rows of sessions are not searched here.
    fn ended_recordings<'a>(
        &'a self,
        _source: &'a str,
        _ended_by: Timestamp,
        _after: Option<AfterSession>,
        _limit: i64,
    ) -> Answer<'a, Vec<RecordingFacts>> {
        self.call("ended_recordings", |_, _| Ok(Vec::new()))
    }

    /// Nobody that is known, which keeps whatever it is.
    fn maker_of<'a>(
        &'a self,
        _source: &'a str,
        _live_stream: LiveStreamId,
        _key: Uuid,
        _made_at: Timestamp,
    ) -> Answer<'a, Maker> {
        self.call("maker_of", |_, _| Ok(Maker::Unknown))
    }

    /// Never, which keeps everything.
    fn is_caught_up(&self, _within: Duration) -> Answer<'_, bool> {
        self.call("is_caught_up", |_, _| Ok(false))
    }

    /// Accounts have no pseudonyms here.
    fn names_of<'a>(&'a self, account: &'a str) -> Answer<'a, Vec<String>> {
        let names = vec![account.to_owned()];
        self.call("names_of", move |_, _| Ok(names))
    }

    fn awaited_sessions<'a>(&'a self, source: &'a str) -> Answer<'a, Vec<AwaitedSession>> {
        let source = source.to_owned();
        self.call("awaited_sessions", move |tables, _| Ok(tables.awaited_sessions(&source)))
    }

    /// Memory has no partitions.
    fn ensure_partitions(&self, _deadline: Instant) -> Answer<'_, Partitions> {
        let done = Partitions { is_complete: true, ..Partitions::default() };
        self.call("ensure_partitions", move |_, _| Ok(done))
    }

    /// Memory has no partitions.
    fn keep_job_history(&self, _keep: Duration) -> Answer<'_, JobDays> {
        self.call("keep_job_history", |_, _| Ok(JobDays::default()))
    }

    fn measure_history(&self) -> Answer<'_, i64> {
        self.call("measure_history", |_, _| Ok(0))
    }

    /// Keys are kept.
    fn forget_keys(&self, _age: Duration, _deadline: Instant) -> Answer<'_, KeysRemoved> {
        self.call("forget_keys", |_, _| Ok(KeysRemoved { keys: 0, complete: true }))
    }

    /// Keys of jobs are kept too: one whose period is over holds nothing.
    fn forget_job_keys(&self, _deadline: Instant) -> Answer<'_, KeysRemoved> {
        self.call("forget_job_keys", |_, _| Ok(KeysRemoved { keys: 0, complete: true }))
    }

    /// Nothing is sealed.
    fn seal_due(&self, _seal_after: Duration, _deadline: Instant) -> Answer<'_, Sealed> {
        self.call("seal_due", |_, _| Ok(Sealed::default()))
    }

    /// Alike without a look: whoever simulates folds the log himself.
    fn verify_slice(&self, slice: i16) -> Answer<'_, Verified> {
        self.call("verify_slice", move |tables, _| {
            let position = tables.existing(slice)?.react.position;
            let (differences, parked, folded_in) = (Vec::new(), Vec::new(), Duration::ZERO);
            Ok(Verified { slice, position, rows: 0, differing: 0, differences, parked, folded_in })
        })
    }
}
