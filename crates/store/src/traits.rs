//! What ingest and the worker need of a database, as traits, so that their tests can put the
//! in-memory store (`testing::Memory`) and its faults in its place: docs/adr/0014-store-as-traits.md.
//!
//! A call answers by a boxed future: an allocation is nothing beside a round trip. What each call
//! ensures is said at the method of the same name of [`Store`](crate::Store), which is what production uses.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::time::{Duration, Instant};

use domain::cleanup::{InactiveFacts, Maker, RecordingFacts};
use domain::event::{NewEvent, RecordedEvent};
use domain::ids::{LiveStreamId, Subject, Timestamp, VideoId};
use domain::personal::Pseudonym;
use domain::slice::SliceCount;
use domain::state::State;
use futures_util::future::BoxFuture;
use serde_json::Value;
use uuid::Uuid;

use crate::{
    AfterSession, Appended, AppendedAll, AwaitedSession, Begin, Bucket, Cancellation, Child,
    Committed, Consumer, Crashes, DueJob, DueSchedule, EndedSession, EnqueueOptions, Error,
    EventWait, Failing, Finish, Finished, Finishes, Fire, Hearing, Holder, JobDays, JobSample,
    Keyring, KeysRemoved, Lease, Notifier, Partitions, Pauses, PendingRequest, Reacting, Receiver,
    Request, Sealed, SealingKey, Started, StartedAll, Starts, Step, Stored, TableRows, Tokens,
    Verified, Wakes, Word, verify,
};

mod of_store;

/// What a call comes to.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, Error>>;

/// A log that can be appended to: all that ingest's lanes need.
pub trait Log: fmt::Debug + Send + Sync {
    /// The number of slices.
    fn slices(&self) -> SliceCount;

    /// As [`Store::append`](crate::Store::append).
    fn append<'a>(
        &'a self,
        slice: i16,
        batch: Option<Uuid>,
        events: &'a [NewEvent],
    ) -> Answer<'a, Appended>;

    /// As [`Store::append_all`](crate::Store::append_all).
    fn append_all<'a>(&'a self, batch: Uuid, events: &'a [NewEvent]) -> Answer<'a, AppendedAll>;

    /// As [`Store::slice_of`](crate::Store::slice_of).
    fn slice_of(&self, subject: &Subject) -> i16 {
        self.slices().slice_of(subject)
    }

    /// As [`Store::append_one`](crate::Store::append_one).
    fn append_one(&self, event: NewEvent) -> Answer<'_, Option<Stored>> {
        Box::pin(async move {
            let slice = self.slice_of(&event.subject);
            let appended = self.append(slice, None, std::slice::from_ref(&event)).await?;
            Ok(appended.stored(&[event]).next())
        })
    }
}

/// What a consumer of the log needs: hints, events, leases, the commit of reactions.
pub trait Follow: Log {
    /// As [`Store::installation`](crate::Store::installation).
    fn installation(&self) -> Uuid;

    // Hints.

    /// As [`Store::notifier`](crate::Store::notifier).
    fn notifier(&self) -> Notifier;
    /// As [`Store::listen`](crate::Store::listen).
    fn listen(&self) -> Answer<'_, Wakes>;
    /// As [`Store::leases_given_back`](crate::Store::leases_given_back).
    fn leases_given_back(&self) -> Answer<'_, ()>;

    // The log.

    /// As [`Store::heads`](crate::Store::heads).
    fn heads<'a>(&'a self, slices: &'a [i16]) -> Answer<'a, Vec<(i16, i64)>>;
    /// As [`Store::read_after`](crate::Store::read_after).
    fn read_after(
        &self,
        slice: i16,
        position: i64,
        since: Timestamp,
        limit: i64,
    ) -> Answer<'_, Vec<RecordedEvent>>;
    /// As [`Store::read_event`](crate::Store::read_event).
    fn read_event(&self, slice: i16, position: i64) -> Answer<'_, Option<RecordedEvent>>;
    /// As [`Store::read_subject`](crate::Store::read_subject).
    fn read_subject<'a>(
        &'a self,
        subject: &'a Subject,
        position: i64,
        limit: i64,
    ) -> Answer<'a, Vec<RecordedEvent>>;

    // Leases.

    /// As [`Store::heartbeat`](crate::Store::heartbeat).
    fn heartbeat<'a>(
        &'a self,
        process: Uuid,
        host: &'a str,
        version: &'a str,
        ttl: Duration,
    ) -> Answer<'a, Vec<Uuid>>;
    /// As [`Store::leave`](crate::Store::leave).
    fn leave(&self, process: Uuid) -> Answer<'_, ()>;
    /// As [`Store::claim`](crate::Store::claim).
    fn claim(
        &self,
        consumer: Consumer,
        slice: i16,
        process: Uuid,
        ttl: Duration,
    ) -> Answer<'_, Option<Lease>>;
    /// As [`Store::lease`](crate::Store::lease).
    fn lease(&self, consumer: Consumer, slice: i16, epoch: i64) -> Answer<'_, Option<Lease>>;
    /// As [`Store::renew`](crate::Store::renew).
    fn renew<'a>(
        &'a self,
        consumer: Consumer,
        held: &'a [(i16, i64)],
        ttl: Duration,
    ) -> Answer<'a, Vec<i16>>;
    /// As [`Store::release`](crate::Store::release).
    fn release(&self, consumer: Consumer, slice: i16, epoch: i64) -> Answer<'_, ()>;

    // Reactions.

    /// As [`Store::load_states`](crate::Store::load_states).
    fn load_states<'a>(
        &'a self,
        slice: i16,
        subjects: &'a [Subject],
    ) -> Answer<'a, HashMap<Subject, State>>;
    /// As [`Store::commit_reactions`](crate::Store::commit_reactions).
    fn commit_reactions<'a>(
        &'a self,
        all: &'a [Reacting<'a>],
        ttl: Duration,
    ) -> Answer<'a, Vec<Option<Committed>>>;
    /// As [`Store::parked_counts`](crate::Store::parked_counts).
    fn parked_counts(&self, slice: i16) -> Answer<'_, Vec<(Subject, i64)>>;
    /// As [`Store::awaiting_build`](crate::Store::awaiting_build).
    fn awaiting_build(&self, slice: i16) -> Answer<'_, Vec<(Subject, i64)>>;
    /// As [`Store::request_parked`](crate::Store::request_parked).
    fn request_parked<'a>(
        &'a self,
        subject: &'a Subject,
        position: i64,
        request: Request,
        by: &'a str,
        reason: Option<&'a str>,
    ) -> Answer<'a, ()>;
    /// As [`Store::parked_requests`](crate::Store::parked_requests).
    fn parked_requests(&self, slice: i16) -> Answer<'_, Vec<PendingRequest>>;
    /// As [`Store::parked_positions`](crate::Store::parked_positions).
    fn parked_positions<'a>(
        &'a self,
        slice: i16,
        subject: &'a Subject,
        limit: i64,
    ) -> Answer<'a, Vec<i64>>;
}

/// What the job engine needs: jobs, durable waits, schedules.
pub trait Queue: Log {
    // Jobs.

    /// As [`Store::enqueue`](crate::Store::enqueue).
    fn enqueue<'a>(
        &'a self,
        kind: &'a str,
        args: &'a Value,
        options: &'a EnqueueOptions,
    ) -> Answer<'a, Uuid>;
    /// As [`Store::due_jobs`](crate::Store::due_jobs).
    fn due_jobs<'a>(
        &'a self,
        process: Uuid,
        of: Option<&'a [i16]>,
        per_slice: i64,
        fair_after: &'a str,
    ) -> Answer<'a, Vec<DueJob>>;
    /// As [`Store::pauses`](crate::Store::pauses).
    fn pauses(&self) -> Answer<'_, Pauses>;
    /// As [`Store::fair_page_end`](crate::Store::fair_page_end).
    fn fair_page_end<'a>(&'a self, process: Uuid, after: &'a str) -> Answer<'a, Option<String>>;
    /// As [`Store::parked_keys`](crate::Store::parked_keys).
    fn parked_keys<'a>(&'a self, slices: &'a [i16]) -> Answer<'a, Vec<(i16, String)>>;
    /// As [`Store::still_parked`](crate::Store::still_parked).
    fn still_parked<'a>(&'a self, keys: &'a [(i16, String)]) -> Answer<'a, Vec<(i16, String)>>;
    /// As [`Store::holders`](crate::Store::holders).
    fn holders<'a>(&'a self, keys: &'a [(i16, String)]) -> Answer<'a, Vec<Holder>>;
    /// As [`Store::parked_jobs`](crate::Store::parked_jobs).
    fn parked_jobs<'a>(
        &'a self,
        process: Uuid,
        keys: &'a [(i16, String)],
        per_key: i64,
    ) -> Answer<'a, Vec<DueJob>>;
    /// As [`Store::park`](crate::Store::park).
    fn park<'a>(
        &'a self,
        slice: i16,
        epoch: i64,
        keys: &'a [String],
        fair_keys: &'a [String],
    ) -> Answer<'a, u64>;
    /// As [`Store::set_aside`](crate::Store::set_aside).
    fn set_aside<'a>(
        &'a self,
        slice: i16,
        epoch: i64,
        pauses: &'a Pauses,
        fair_keys: &'a [String],
        ids: &'a [Uuid],
    ) -> Answer<'a, u64>;
    /// As [`Store::take_back`](crate::Store::take_back).
    fn take_back<'a>(&'a self, slice: i16, epoch: i64, pauses: &'a Pauses) -> Answer<'a, bool>;
    /// As [`Store::next_due_in`](crate::Store::next_due_in).
    fn next_due_in<'a>(
        &'a self,
        process: Uuid,
        read: &'a [(i16, Duration)],
    ) -> Answer<'a, Option<Duration>>;
    /// As [`Store::mark_started`](crate::Store::mark_started).
    fn mark_started<'a>(
        &'a self,
        slice: i16,
        epoch: i64,
        ids: &'a [Uuid],
    ) -> Answer<'a, Vec<Started>>;
    /// As [`Store::mark_all`](crate::Store::mark_all).
    fn mark_all<'a>(&'a self, starts: &'a [Starts]) -> Answer<'a, StartedAll>;
    /// As [`Store::finish`](crate::Store::finish).
    fn finish<'a>(
        &'a self,
        slice: i16,
        epoch: i64,
        finishes: &'a [Finish],
    ) -> Answer<'a, HashSet<Uuid>>;
    /// As [`Store::finish_all`](crate::Store::finish_all).
    fn finish_all<'a>(&'a self, all: &'a [Finishes<'a>]) -> Answer<'a, Finished>;
    /// As [`Store::acquit`](crate::Store::acquit).
    fn acquit<'a>(&'a self, slice: i16, epoch: i64, runs: &'a [(Uuid, i32)]) -> Answer<'a, u64>;

    /// As [`Store::sample_jobs`](crate::Store::sample_jobs).
    fn sample_jobs(&self, slice: i16) -> Answer<'_, JobSample>;
    /// As [`Store::job_tables`](crate::Store::job_tables).
    fn job_tables(&self) -> Answer<'_, Vec<TableRows>>;
    /// As [`Store::note_crashes`](crate::Store::note_crashes).
    fn note_crashes<'a>(&'a self, leases: &'a [(i16, i64)]) -> Answer<'a, Crashes>;
    /// As [`Store::cancellations`](crate::Store::cancellations).
    fn cancellations(&self, process: Uuid) -> Answer<'_, Vec<Cancellation>>;

    // Durable waits.

    /// As [`Store::steps`](crate::Store::steps).
    fn steps(&self, slice: i16, job: Uuid) -> Answer<'_, Vec<Step>>;
    /// As [`Store::begin_step`](crate::Store::begin_step).
    fn begin_step<'a>(
        &'a self,
        slice: i16,
        epoch: i64,
        run: (Uuid, i32),
        name: &'a str,
        begin: &'a Begin,
    ) -> Answer<'a, Option<Step>>;
    /// As [`Store::give_up_step`](crate::Store::give_up_step).
    fn give_up_step<'a>(
        &'a self,
        slice: i16,
        epoch: i64,
        job: Uuid,
        name: &'a str,
    ) -> Answer<'a, Option<Step>>;
    /// As [`Store::children`](crate::Store::children).
    fn children<'a>(&'a self, slice: i16, job: Uuid, step: &'a str) -> Answer<'a, Vec<Child>>;
    /// As [`Store::relay`](crate::Store::relay).
    fn relay<'a>(&'a self, slice: i16, words: &'a [Word]) -> Answer<'a, ()>;
    /// As [`Store::await_event`](crate::Store::await_event).
    fn await_event<'a>(&'a self, wait: &'a EventWait) -> Answer<'a, ()>;
    /// As [`Store::cancel_unstarted`](crate::Store::cancel_unstarted).
    fn cancel_unstarted<'a>(&'a self, slice: i16, jobs: &'a [Uuid]) -> Answer<'a, u64>;

    // Schedules.

    /// As [`Store::due_schedules`](crate::Store::due_schedules).
    fn due_schedules(&self, process: Uuid, limit: i64) -> Answer<'_, Vec<DueSchedule>>;
    /// As [`Store::next_fire_in`](crate::Store::next_fire_in).
    fn next_fire_in(&self, process: Uuid) -> Answer<'_, Option<Duration>>;
    /// As [`Store::fire_schedule`](crate::Store::fire_schedule).
    fn fire_schedule<'a>(
        &'a self,
        slice: i16,
        epoch: i64,
        fire: &'a Fire,
    ) -> Answer<'a, Option<Vec<Uuid>>>;
    /// As [`Store::forget_fires`](crate::Store::forget_fires).
    fn forget_fires(&self, age: Duration, deadline: Instant) -> Answer<'_, u64>;
}

/// What handlers need: endpoints, secrets, the upkeep of the database.
pub trait Upkeep: Log {
    // Endpoints.

    /// As [`Store::hearing`](crate::Store::hearing).
    fn hearing(&self) -> Answer<'_, Vec<Hearing>>;
    /// As [`Store::receiver`](crate::Store::receiver).
    fn receiver<'a>(&'a self, key: &'a SealingKey, id: Uuid) -> Answer<'a, Option<Receiver>>;
    /// As [`Store::endpoint_accepted`](crate::Store::endpoint_accepted).
    fn endpoint_accepted(&self, id: Uuid) -> Answer<'_, ()>;
    /// As [`Store::endpoint_failed`](crate::Store::endpoint_failed).
    fn endpoint_failed<'a>(&'a self, id: Uuid, error: &'a str) -> Answer<'a, Option<Failing>>;
    /// As [`Store::disable_endpoint`](crate::Store::disable_endpoint).
    fn disable_endpoint<'a>(&'a self, id: Uuid, version: i64, reason: &'a str) -> Answer<'a, bool>;

    // What handlers ask for.

    /// As [`Store::take_tokens`](crate::Store::take_tokens).
    fn take_tokens<'a>(&'a self, bucket: &'a Bucket, wanted: u32) -> Answer<'a, Tokens>;
    /// As [`Store::job_age`](crate::Store::job_age).
    fn job_age(&self, slice: i16, id: Uuid) -> Answer<'_, Option<Duration>>;

    /// As [`Store::seal`](crate::Store::seal).
    fn seal<'a>(
        &'a self,
        key: &'a SealingKey,
        subject: &'a Subject,
        secret: &'a [u8],
    ) -> Answer<'a, ()>;
    /// As [`Store::keyring`](crate::Store::keyring).
    fn keyring<'a>(
        &'a self,
        sealing: Option<&'a SealingKey>,
        wanted: &'a BTreeSet<Pseudonym>,
    ) -> Answer<'a, Keyring>;
    /// As [`Store::inactive_live_streams`](crate::Store::inactive_live_streams).
    fn inactive_live_streams<'a>(
        &'a self,
        source: &'a str,
        limit: i64,
    ) -> Answer<'a, Vec<InactiveFacts>>;
    /// As [`Store::ended_recordings`](crate::Store::ended_recordings).
    fn ended_recordings<'a>(
        &'a self,
        source: &'a str,
        ended_by: Timestamp,
        after: Option<AfterSession>,
        limit: i64,
    ) -> Answer<'a, Vec<RecordingFacts>>;
    /// As [`Store::maker_of`](crate::Store::maker_of).
    fn maker_of<'a>(
        &'a self,
        source: &'a str,
        live_stream: LiveStreamId,
        key: Uuid,
        made_at: Timestamp,
    ) -> Answer<'a, Maker>;
    /// As [`Store::is_caught_up`](crate::Store::is_caught_up).
    fn is_caught_up(&self, within: Duration) -> Answer<'_, bool>;
    /// As [`Store::names_of`](crate::Store::names_of).
    fn names_of<'a>(&'a self, account: &'a str) -> Answer<'a, Vec<String>>;
    /// As [`Store::awaited_sessions`](crate::Store::awaited_sessions).
    fn awaited_sessions<'a>(&'a self, source: &'a str) -> Answer<'a, Vec<AwaitedSession>>;
    /// As [`Store::ended_sessions`](crate::Store::ended_sessions).
    fn ended_sessions<'a>(
        &'a self,
        source: &'a str,
        after: AfterSession,
        limit: i64,
    ) -> Answer<'a, Vec<EndedSession>>;
    /// As [`Store::video_statuses`](crate::Store::video_statuses).
    fn video_statuses<'a>(
        &'a self,
        source: &'a str,
        videos: &'a [VideoId],
    ) -> Answer<'a, BTreeMap<VideoId, String>>;
    /// As [`Store::ensure_partitions`](crate::Store::ensure_partitions).
    fn ensure_partitions(&self, deadline: Instant) -> Answer<'_, Partitions>;
    /// As [`Store::keep_job_history`](crate::Store::keep_job_history).
    fn keep_job_history(&self, keep: Duration) -> Answer<'_, JobDays>;
    /// As [`Store::measure_history`](crate::Store::measure_history).
    fn measure_history(&self) -> Answer<'_, i64>;
    /// As [`Store::forget_keys`](crate::Store::forget_keys).
    fn forget_keys(&self, age: Duration, deadline: Instant) -> Answer<'_, KeysRemoved>;
    /// As [`Store::forget_job_keys`](crate::Store::forget_job_keys).
    fn forget_job_keys(&self, deadline: Instant) -> Answer<'_, KeysRemoved>;
    /// As [`Store::seal_due`](crate::Store::seal_due).
    fn seal_due(&self, seal_after: Duration, deadline: Instant) -> Answer<'_, Sealed>;
    /// As [`Store::verify_slice`](crate::Store::verify_slice).
    fn verify_slice(&self, slice: i16) -> Answer<'_, Verified>;

    /// As [`Store::sample`](crate::Store::sample).
    fn sample(&self, of: u16, day: Timestamp) -> Vec<i16> {
        verify::sample(self.slices(), of, day)
    }
}

/// All that a worker needs: it reads the log, holds leases, commits reactions, runs jobs.
pub trait Work: Follow + Queue + Upkeep {}

impl<T: Follow + Queue + Upkeep> Work for T {}
