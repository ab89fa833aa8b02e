//! What handlers ask of the store in memory. Not its job: what only PostgreSQL has to be kept, of
//! which there is nothing here.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use domain::cleanup::{InactiveFacts, Maker, RecordingFacts};
use domain::ids::{LiveStreamId, Subject, Timestamp, VideoId};
use domain::personal::Pseudonym;
use uuid::Uuid;

use super::Memory;
use crate::{
    AfterSession, Answer, AwaitedSession, Bucket, EndedSession, Failing, Hearing, JobDays, Keyring,
    KeysRemoved, Log, Partitions, Receiver, Sealed, SealingKey, Tokens, Upkeep, Verified,
};

impl Upkeep for Memory {
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

    fn ended_sessions<'a>(
        &'a self,
        source: &'a str,
        after: AfterSession,
        limit: i64,
    ) -> Answer<'a, Vec<EndedSession>> {
        let source = source.to_owned();
        self.call("ended_sessions", move |tables, _| {
            Ok(tables.ended_sessions(&source, after, limit))
        })
    }

    fn video_statuses<'a>(
        &'a self,
        source: &'a str,
        videos: &'a [VideoId],
    ) -> Answer<'a, BTreeMap<VideoId, String>> {
        let (source, videos) = (source.to_owned(), videos.to_vec());
        self.call("video_statuses", move |tables, _| Ok(tables.video_statuses(&source, &videos)))
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
