//! The traits as the store has them: each call is its method of the same name.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use domain::cleanup::{InactiveFacts, Maker, RecordingFacts};
use domain::event::{NewEvent, RecordedEvent};
use domain::ids::{LiveStreamId, Subject, Timestamp, VideoId};
use domain::personal::Pseudonym;
use domain::slice::SliceCount;
use domain::state::State;
use serde_json::Value;
use uuid::Uuid;

use super::{Answer, Follow, Log, Queue, Upkeep};
use crate::{
    AfterSession, Appended, AppendedAll, AwaitedSession, Begin, Bucket, Cancellation, Child,
    Committed, Consumer, Crashes, DueJob, DueSchedule, EndedSession, EnqueueOptions, EventWait,
    Failing, Finish, Finished, Finishes, Fire, Hearing, Holder, JobDays, JobSample, Keyring,
    KeysRemoved, Lease, Notifier, Partitions, Pauses, PendingRequest, Reacting, Receiver, Request,
    Sealed, SealingKey, Started, StartedAll, Starts, Step, Store, TableRows, Tokens, Verified,
    Wakes, Word,
};

impl Log for Store {
    fn slices(&self) -> SliceCount {
        self.slices()
    }

    fn append<'a>(
        &'a self,
        slice: i16,
        batch: Option<Uuid>,
        events: &'a [NewEvent],
    ) -> Answer<'a, Appended> {
        Box::pin(self.append(slice, batch, events))
    }

    fn append_all<'a>(&'a self, batch: Uuid, events: &'a [NewEvent]) -> Answer<'a, AppendedAll> {
        Box::pin(self.append_all(batch, events))
    }
}

impl Follow for Store {
    fn installation(&self) -> Uuid {
        self.installation()
    }

    fn notifier(&self) -> Notifier {
        self.notifier()
    }

    fn listen(&self) -> Answer<'_, Wakes> {
        Box::pin(self.listen())
    }

    fn leases_given_back(&self) -> Answer<'_, ()> {
        Box::pin(self.leases_given_back())
    }

    fn heads<'a>(&'a self, slices: &'a [i16]) -> Answer<'a, Vec<(i16, i64)>> {
        Box::pin(self.heads(slices))
    }

    fn read_after(
        &self,
        slice: i16,
        position: i64,
        since: Timestamp,
        limit: i64,
    ) -> Answer<'_, Vec<RecordedEvent>> {
        Box::pin(self.read_after(slice, position, since, limit))
    }

    fn read_event(&self, slice: i16, position: i64) -> Answer<'_, Option<RecordedEvent>> {
        Box::pin(self.read_event(slice, position))
    }

    fn read_subject<'a>(
        &'a self,
        subject: &'a Subject,
        position: i64,
        limit: i64,
    ) -> Answer<'a, Vec<RecordedEvent>> {
        Box::pin(self.read_subject(subject, position, limit))
    }

    fn heartbeat<'a>(
        &'a self,
        process: Uuid,
        host: &'a str,
        version: &'a str,
        ttl: Duration,
    ) -> Answer<'a, Vec<Uuid>> {
        Box::pin(self.heartbeat(process, host, version, ttl))
    }

    fn leave(&self, process: Uuid) -> Answer<'_, ()> {
        Box::pin(self.leave(process))
    }

    fn claim(
        &self,
        consumer: Consumer,
        slice: i16,
        process: Uuid,
        ttl: Duration,
    ) -> Answer<'_, Option<Lease>> {
        Box::pin(self.claim(consumer, slice, process, ttl))
    }

    fn lease(&self, consumer: Consumer, slice: i16, epoch: i64) -> Answer<'_, Option<Lease>> {
        Box::pin(self.lease(consumer, slice, epoch))
    }

    fn renew<'a>(
        &'a self,
        consumer: Consumer,
        held: &'a [(i16, i64)],
        ttl: Duration,
    ) -> Answer<'a, Vec<i16>> {
        Box::pin(self.renew(consumer, held, ttl))
    }

    fn release(&self, consumer: Consumer, slice: i16, epoch: i64) -> Answer<'_, ()> {
        Box::pin(self.release(consumer, slice, epoch))
    }

    fn load_states<'a>(
        &'a self,
        slice: i16,
        subjects: &'a [Subject],
    ) -> Answer<'a, HashMap<Subject, State>> {
        Box::pin(self.load_states(slice, subjects))
    }

    fn commit_reactions<'a>(
        &'a self,
        all: &'a [Reacting<'a>],
        ttl: Duration,
    ) -> Answer<'a, Vec<Option<Committed>>> {
        Box::pin(self.commit_reactions(all, ttl))
    }

    fn parked_counts(&self, slice: i16) -> Answer<'_, Vec<(Subject, i64)>> {
        Box::pin(self.parked_counts(slice))
    }

    fn awaiting_build(&self, slice: i16) -> Answer<'_, Vec<(Subject, i64)>> {
        Box::pin(self.awaiting_build(slice))
    }

    fn request_parked<'a>(
        &'a self,
        subject: &'a Subject,
        position: i64,
        request: Request,
        by: &'a str,
        reason: Option<&'a str>,
    ) -> Answer<'a, ()> {
        Box::pin(self.request_parked(subject, position, request, by, reason))
    }

    fn parked_requests(&self, slice: i16) -> Answer<'_, Vec<PendingRequest>> {
        Box::pin(self.parked_requests(slice))
    }

    fn parked_positions<'a>(
        &'a self,
        slice: i16,
        subject: &'a Subject,
        limit: i64,
    ) -> Answer<'a, Vec<i64>> {
        Box::pin(self.parked_positions(slice, subject, limit))
    }
}

impl Queue for Store {
    fn enqueue<'a>(
        &'a self,
        kind: &'a str,
        args: &'a Value,
        options: &'a EnqueueOptions,
    ) -> Answer<'a, Uuid> {
        Box::pin(self.enqueue(kind, args, options))
    }

    fn due_jobs<'a>(
        &'a self,
        process: Uuid,
        of: Option<&'a [i16]>,
        per_slice: i64,
        fair_after: &'a str,
    ) -> Answer<'a, Vec<DueJob>> {
        Box::pin(self.due_jobs(process, of, per_slice, fair_after))
    }

    fn pauses(&self) -> Answer<'_, Pauses> {
        Box::pin(self.pauses())
    }

    fn fair_page_end<'a>(&'a self, process: Uuid, after: &'a str) -> Answer<'a, Option<String>> {
        Box::pin(self.fair_page_end(process, after))
    }

    fn parked_keys<'a>(&'a self, slices: &'a [i16]) -> Answer<'a, Vec<(i16, String)>> {
        Box::pin(self.parked_keys(slices))
    }

    fn still_parked<'a>(&'a self, keys: &'a [(i16, String)]) -> Answer<'a, Vec<(i16, String)>> {
        Box::pin(self.still_parked(keys))
    }

    fn holders<'a>(&'a self, keys: &'a [(i16, String)]) -> Answer<'a, Vec<Holder>> {
        Box::pin(self.holders(keys))
    }

    fn parked_jobs<'a>(
        &'a self,
        process: Uuid,
        keys: &'a [(i16, String)],
        per_key: i64,
    ) -> Answer<'a, Vec<DueJob>> {
        Box::pin(self.parked_jobs(process, keys, per_key))
    }

    fn park<'a>(
        &'a self,
        slice: i16,
        epoch: i64,
        keys: &'a [String],
        fair_keys: &'a [String],
    ) -> Answer<'a, u64> {
        Box::pin(self.park(slice, epoch, keys, fair_keys))
    }

    fn set_aside<'a>(
        &'a self,
        slice: i16,
        epoch: i64,
        pauses: &'a Pauses,
        fair_keys: &'a [String],
        ids: &'a [Uuid],
    ) -> Answer<'a, u64> {
        Box::pin(self.set_aside(slice, epoch, pauses, fair_keys, ids))
    }

    fn take_back<'a>(&'a self, slice: i16, epoch: i64, pauses: &'a Pauses) -> Answer<'a, bool> {
        Box::pin(self.take_back(slice, epoch, pauses))
    }

    fn next_due_in<'a>(
        &'a self,
        process: Uuid,
        read: &'a [(i16, Duration)],
    ) -> Answer<'a, Option<Duration>> {
        Box::pin(self.next_due_in(process, read))
    }

    fn mark_started<'a>(
        &'a self,
        slice: i16,
        epoch: i64,
        ids: &'a [Uuid],
    ) -> Answer<'a, Vec<Started>> {
        Box::pin(self.mark_started(slice, epoch, ids))
    }

    fn mark_all<'a>(&'a self, starts: &'a [Starts]) -> Answer<'a, StartedAll> {
        Box::pin(self.mark_all(starts))
    }

    fn finish<'a>(
        &'a self,
        slice: i16,
        epoch: i64,
        finishes: &'a [Finish],
    ) -> Answer<'a, HashSet<Uuid>> {
        Box::pin(self.finish(slice, epoch, finishes))
    }

    fn finish_all<'a>(&'a self, all: &'a [Finishes<'a>]) -> Answer<'a, Finished> {
        Box::pin(self.finish_all(all))
    }

    fn acquit<'a>(&'a self, slice: i16, epoch: i64, runs: &'a [(Uuid, i32)]) -> Answer<'a, u64> {
        Box::pin(self.acquit(slice, epoch, runs))
    }

    fn sample_jobs(&self, slice: i16) -> Answer<'_, JobSample> {
        Box::pin(self.sample_jobs(slice))
    }

    fn job_tables(&self) -> Answer<'_, Vec<TableRows>> {
        Box::pin(self.job_tables())
    }

    fn note_crashes<'a>(&'a self, leases: &'a [(i16, i64)]) -> Answer<'a, Crashes> {
        Box::pin(self.note_crashes(leases))
    }

    fn cancellations(&self, process: Uuid) -> Answer<'_, Vec<Cancellation>> {
        Box::pin(self.cancellations(process))
    }

    fn steps(&self, slice: i16, job: Uuid) -> Answer<'_, Vec<Step>> {
        Box::pin(self.steps(slice, job))
    }

    fn begin_step<'a>(
        &'a self,
        slice: i16,
        epoch: i64,
        run: (Uuid, i32),
        name: &'a str,
        begin: &'a Begin,
    ) -> Answer<'a, Option<Step>> {
        Box::pin(self.begin_step(slice, epoch, run, name, begin))
    }

    fn give_up_step<'a>(
        &'a self,
        slice: i16,
        epoch: i64,
        job: Uuid,
        name: &'a str,
    ) -> Answer<'a, Option<Step>> {
        Box::pin(self.give_up_step(slice, epoch, job, name))
    }

    fn children<'a>(&'a self, slice: i16, job: Uuid, step: &'a str) -> Answer<'a, Vec<Child>> {
        Box::pin(self.children(slice, job, step))
    }

    fn relay<'a>(&'a self, slice: i16, words: &'a [Word]) -> Answer<'a, ()> {
        Box::pin(self.relay(slice, words))
    }

    fn await_event<'a>(&'a self, wait: &'a EventWait) -> Answer<'a, ()> {
        Box::pin(self.await_event(wait))
    }

    fn cancel_unstarted<'a>(&'a self, slice: i16, jobs: &'a [Uuid]) -> Answer<'a, u64> {
        Box::pin(self.cancel_unstarted(slice, jobs))
    }

    fn due_schedules(&self, process: Uuid, limit: i64) -> Answer<'_, Vec<DueSchedule>> {
        Box::pin(self.due_schedules(process, limit))
    }

    fn next_fire_in(&self, process: Uuid) -> Answer<'_, Option<Duration>> {
        Box::pin(self.next_fire_in(process))
    }

    fn fire_schedule<'a>(
        &'a self,
        slice: i16,
        epoch: i64,
        fire: &'a Fire,
    ) -> Answer<'a, Option<Vec<Uuid>>> {
        Box::pin(self.fire_schedule(slice, epoch, fire))
    }

    fn forget_fires(&self, age: Duration, deadline: Instant) -> Answer<'_, u64> {
        Box::pin(self.forget_fires(age, deadline))
    }
}

impl Upkeep for Store {
    fn hearing(&self) -> Answer<'_, Vec<Hearing>> {
        Box::pin(self.hearing())
    }

    fn receiver<'a>(&'a self, key: &'a SealingKey, id: Uuid) -> Answer<'a, Option<Receiver>> {
        Box::pin(self.receiver(key, id))
    }

    fn endpoint_accepted(&self, id: Uuid) -> Answer<'_, ()> {
        Box::pin(self.endpoint_accepted(id))
    }

    fn endpoint_failed<'a>(&'a self, id: Uuid, error: &'a str) -> Answer<'a, Option<Failing>> {
        Box::pin(self.endpoint_failed(id, error))
    }

    fn disable_endpoint<'a>(&'a self, id: Uuid, version: i64, reason: &'a str) -> Answer<'a, bool> {
        Box::pin(self.disable_endpoint(id, version, reason))
    }

    fn take_tokens<'a>(&'a self, bucket: &'a Bucket, wanted: u32) -> Answer<'a, Tokens> {
        Box::pin(self.take_tokens(bucket, wanted))
    }

    fn job_age(&self, slice: i16, id: Uuid) -> Answer<'_, Option<Duration>> {
        Box::pin(self.job_age(slice, id))
    }

    fn seal<'a>(
        &'a self,
        key: &'a SealingKey,
        subject: &'a Subject,
        secret: &'a [u8],
    ) -> Answer<'a, ()> {
        Box::pin(self.seal(key, subject, secret))
    }

    fn keyring<'a>(
        &'a self,
        sealing: Option<&'a SealingKey>,
        wanted: &'a BTreeSet<Pseudonym>,
    ) -> Answer<'a, Keyring> {
        Box::pin(self.keyring(sealing, wanted))
    }

    fn inactive_live_streams<'a>(
        &'a self,
        source: &'a str,
        limit: i64,
    ) -> Answer<'a, Vec<InactiveFacts>> {
        Box::pin(self.inactive_live_streams(source, limit))
    }

    fn ended_recordings<'a>(
        &'a self,
        source: &'a str,
        ended_by: Timestamp,
        after: Option<AfterSession>,
        limit: i64,
    ) -> Answer<'a, Vec<RecordingFacts>> {
        Box::pin(self.ended_recordings(source, ended_by, after, limit))
    }

    fn maker_of<'a>(
        &'a self,
        source: &'a str,
        live_stream: LiveStreamId,
        key: Uuid,
        made_at: Timestamp,
    ) -> Answer<'a, Maker> {
        Box::pin(self.maker_of(source, live_stream, key, made_at))
    }

    fn is_caught_up(&self, within: Duration) -> Answer<'_, bool> {
        Box::pin(self.is_caught_up(within))
    }

    fn names_of<'a>(&'a self, account: &'a str) -> Answer<'a, Vec<String>> {
        Box::pin(self.names_of(account))
    }

    fn awaited_sessions<'a>(&'a self, source: &'a str) -> Answer<'a, Vec<AwaitedSession>> {
        Box::pin(self.awaited_sessions(source))
    }

    fn ended_sessions<'a>(
        &'a self,
        source: &'a str,
        after: AfterSession,
        limit: i64,
    ) -> Answer<'a, Vec<EndedSession>> {
        Box::pin(self.ended_sessions(source, after, limit))
    }

    fn video_statuses<'a>(
        &'a self,
        source: &'a str,
        videos: &'a [VideoId],
    ) -> Answer<'a, BTreeMap<VideoId, String>> {
        Box::pin(self.video_statuses(source, videos))
    }

    fn ensure_partitions(&self, deadline: Instant) -> Answer<'_, Partitions> {
        Box::pin(self.ensure_partitions(deadline))
    }

    fn keep_job_history(&self, keep: Duration) -> Answer<'_, JobDays> {
        Box::pin(self.keep_job_history(keep))
    }

    fn measure_history(&self) -> Answer<'_, i64> {
        Box::pin(self.measure_history())
    }

    fn forget_keys(&self, age: Duration, deadline: Instant) -> Answer<'_, KeysRemoved> {
        Box::pin(self.forget_keys(age, deadline))
    }

    fn forget_job_keys(&self, deadline: Instant) -> Answer<'_, KeysRemoved> {
        Box::pin(self.forget_job_keys(deadline))
    }

    fn seal_due(&self, seal_after: Duration, deadline: Instant) -> Answer<'_, Sealed> {
        Box::pin(self.seal_due(seal_after, deadline))
    }

    fn verify_slice(&self, slice: i16) -> Answer<'_, Verified> {
        Box::pin(self.verify_slice(slice))
    }
}
