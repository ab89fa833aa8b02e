//! What a consumer of the log asks of the store in memory.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use domain::event::RecordedEvent;
use domain::ids::{Subject, Timestamp};
use domain::state::State;
use futures_util::stream;
use tokio::sync::broadcast::error::RecvError;
use uuid::Uuid;

use super::Memory;
use crate::testing::tables::sorted;
use crate::{
    Answer, Committed, Consumer, Follow, Hint, Lease, Log, Notifier, PendingRequest, Reacting,
    Request, Wakes,
};

impl Follow for Memory {
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
}
