//! What the job engine asks of the store in memory.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use serde_json::Value;
use uuid::Uuid;

use super::Memory;
use crate::{
    Answer, Begin, Cancellation, Child, Crashes, DueJob, DueSchedule, EnqueueOptions, EventWait,
    Finish, Finished, Finishes, Fire, Holder, JobSample, Pauses, Queue, Started, StartedAll,
    Starts, Step, TableRows, Word,
};

impl Queue for Memory {
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
        of: Option<&'a [i16]>,
        per_slice: i64,
        fair_after: &'a str,
    ) -> Answer<'a, Vec<DueJob>> {
        let (of, after) = (of.map(<[i16]>::to_vec), fair_after.to_owned());
        self.call("due_jobs", move |t, now| {
            Ok(t.due_jobs(now, process, of.as_deref(), per_slice, &after))
        })
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

    fn holders<'a>(&'a self, keys: &'a [(i16, String)]) -> Answer<'a, Vec<Holder>> {
        let keys = keys.to_vec();
        self.call("holders", move |tables, _| Ok(tables.holders(&keys)))
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

    fn next_due_in<'a>(
        &'a self,
        process: Uuid,
        read: &'a [(i16, Duration)],
    ) -> Answer<'a, Option<Duration>> {
        let read = read.to_vec();
        self.call("next_due_in", move |tables, now| Ok(tables.next_due_in(now, process, &read)))
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

    fn note_crashes<'a>(&'a self, leases: &'a [(i16, i64)]) -> Answer<'a, Crashes> {
        let leases = leases.to_vec();
        self.call("note_crashes", move |tables, _| tables.note_crashes(&leases))
    }

    fn cancellations(&self, process: Uuid) -> Answer<'_, Vec<Cancellation>> {
        self.call("cancellations", move |tables, now| Ok(tables.cancellations(now, process)))
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
}
