//! Random calls. Few slices, subjects, keys, processes, so that calls meet; epochs, positions and
//! starts are mostly those that the tables hold, and sometimes just beside them.

use std::ops::Range;

use domain::ids::{Subject, Timestamp};
use domain::slice::SliceCount;
use rand::RngExt as _;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use store::testing::{SliceTables, Tables};
use store::{Consumer, KeyStates, Mended, Next, OnConflict, Pauses, Request, Starts};
use uuid::Uuid;

use super::call::{
    Beginning, Call, Enqueue, Event, Fire, How, IsPresent, Job, Lanes, Parked, React, Run,
    Schedules, Waits,
};

/// Names of steps.
const STEPS: [&str; 2] = ["one", "two"];

/// Slices with load.
const SLICES: i16 = 2;

pub(super) struct Dice<'a> {
    pub(super) rng: &'a mut StdRng,
    pub(super) tables: &'a Tables,
}

impl Dice<'_> {
    pub(super) fn below(&mut self, most: u32) -> u32 {
        self.rng.random_range(0..most)
    }

    pub(super) fn number(&mut self, range: Range<i64>) -> i64 {
        self.rng.random_range(range)
    }

    /// Once in `n` times.
    fn once_in(&mut self, n: u32) -> bool {
        self.rng.random_ratio(1, n)
    }

    fn some<T>(&mut self, most: u32, mut one: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.below(most + 1)).map(|_| one(self)).collect()
    }

    fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.rng.random_range(0..of.len())]
    }

    pub(super) fn slice(&mut self) -> i16 {
        self.rng.random_range(0..SLICES)
    }

    fn of(&self, slice: i16) -> &SliceTables {
        &self.tables.slices[usize::try_from(slice).unwrap()]
    }

    /// A number, or one beside it.
    pub(super) fn near(&mut self, number: i64) -> i64 {
        match self.below(8) {
            0 => number - 1,
            1 => number + 1,
            2 => number - self.number(0..8),
            _ => number,
        }
        .max(0)
    }

    /// Hours that a lease lasts: none at all, or long enough.
    pub(super) fn hours(&mut self) -> u64 {
        if self.once_in(6) { 0 } else { self.rng.random_range(2..6) }
    }

    pub(super) fn consumer(&mut self) -> Consumer {
        self.one_of(&Consumer::ALL)
    }

    pub(super) fn process(&mut self) -> Uuid {
        Uuid::from_u128(self.rng.random_range(1..4))
    }

    fn key(&mut self) -> Uuid {
        Uuid::from_u128(self.rng.random_range(100..140))
    }

    /// A subject of a slice; now and then one that holds what no text may hold.
    pub(super) fn subject(&mut self, slice: i16) -> Subject {
        let nth = self.rng.random_range(0..3);
        let names = (0..).map(|n| format!("a/stream/{n}"));
        let subjects = names.map(Subject::from_stored);
        let count = domain::slice::SliceCount::DEFAULT;
        let mut own = subjects.filter(|subject| count.slice_of(subject) == slice);
        own.nth(nth).unwrap()
    }

    pub(super) fn subjects(&mut self, slice: i16) -> Vec<Subject> {
        self.some(4, |dice| dice.subject(slice))
    }

    /// An event; one in many cannot be stored, one in many belongs elsewhere.
    fn event(&mut self, slice: i16) -> Event {
        let of = if self.once_in(60) { (slice + 1) % SLICES } else { slice };
        Event {
            id: Uuid::from_u128(self.rng.random()),
            subject: self.subject(of),
            name: if self.once_in(60) { "not\0storable" } else { "Tested" },
            key: self.once_in(3).then(|| self.key()),
        }
    }

    pub(super) fn append(&mut self, slice: i16) -> Call {
        let batch = self.once_in(2).then(|| Uuid::from_u128(self.rng.random_range(200..220)));
        Call::Append { slice, batch, events: self.some(4, |dice| dice.event(slice)) }
    }

    pub(super) fn append_all(&mut self) -> Call {
        let batch = Uuid::from_u128(self.rng.random_range(200..220));
        let one = |dice: &mut Self| {
            let slice = dice.slice();
            dice.event(slice)
        };
        Call::AppendAll { batch, events: self.some(6, one) }
    }

    fn epoch(&mut self, consumer: Consumer, slice: i16) -> i64 {
        let tables = self.of(slice);
        let held = match consumer {
            Consumer::React => tables.react.epoch,
            Consumer::Jobs => tables.jobs_lease.epoch,
        };
        if self.once_in(5) { self.near(held) } else { held }
    }

    pub(super) fn lease(&mut self, slice: i16) -> Call {
        let consumer = self.consumer();
        Call::Lease { consumer, slice, epoch: self.epoch(consumer, slice) }
    }

    pub(super) fn renew(&mut self) -> Call {
        let consumer = self.consumer();
        let held = (0..SLICES).map(|slice| (slice, self.epoch(consumer, slice))).collect();
        Call::Renew { consumer, held, hours: self.hours() }
    }

    pub(super) fn release(&mut self, slice: i16) -> Call {
        let consumer = self.consumer();
        Call::Release { consumer, slice, epoch: self.epoch(consumer, slice) }
    }

    fn job(&mut self, slice: i16) -> Job {
        Job {
            // Two slices never have a job of the same id.
            id: Uuid::from_u64_pair(
                1 + u64::from(slice.unsigned_abs()),
                self.rng.random_range(1..60),
            ),
            subject: self.subject(slice),
            kind: match self.below(40) {
                0 => "",
                1..8 => "timer",
                _ => "a_job",
            },
            in_hours: self.number(-3..4),
            priority: if self.once_in(40) { 9 } else { self.rng.random_range(1..5) },
            once_for: self.once_in(3).then(|| self.key()),
        }
    }

    fn state(&mut self, slice: i16) -> (Subject, Value) {
        let name = if self.once_in(40) { "a\0b" } else { "an account" };
        let at = "2026-01-02T03:04:05.000006Z";
        let deleted = self.once_in(2).then_some(at);
        let body = json!({"is": "account", "id": name, "deleted_at": deleted});
        (self.subject(slice), json!({"at": at, "body": body}))
    }

    pub(super) fn react(&mut self, slice: i16) -> React {
        let (applied, head) = (self.of(slice).react.position, self.of(slice).head());
        let epoch = self.epoch(Consumer::React, slice);
        let from = if self.once_in(8) { self.near(applied) } else { applied };
        // Nobody's event is applied before it is there.
        let to = (from + self.number(0..4)).min(head.max(from));
        let mut react = React { slice, epoch, from, to, ..React::default() };
        if self.once_in(4) {
            react.to = from;
            react.mended = self.mended(slice);
        }
        let mut states = self.some(2, |dice| dice.state(slice));
        states.dedup_by(|a, b| a.0 == b.0);
        react.states = states;
        if self.once_in(2) {
            react.accounts = vec![("eve", self.once_in(2).then_some(3)), ("adam", None)];
            react.videos = vec![(self.number(1..4), self.one_of(&["ready", "pending"]))];
            react.sessions = vec![(self.number(1..4), self.one_of(&["live", "ended", "ready"]))];
        }
        react.jobs = self.some(3, |dice| dice.job(slice));
        let live = self.live_jobs(slice);
        if self.once_in(6) && !live.is_empty() {
            react.cancels = vec![self.one_of(&live).0, Uuid::from_u128(1)];
        }
        react.events = self.some(2, |dice| dice.event(slice));
        if self.once_in(3) && to > from {
            let error = self.once_in(2).then_some("it fails");
            let (subject, awaits_build) = (self.subject(slice), self.once_in(2));
            react.parked = vec![Parked { position: to, subject, error, awaits_build }];
        }
        react
    }

    /// A reaction of each slice with load.
    pub(super) fn react_all(&mut self) -> Vec<React> {
        (0..SLICES).map(|slice| self.react(slice)).collect()
    }

    /// What became of a request about what is set aside.
    fn mended(&mut self, slice: i16) -> Option<(Mended, IsPresent)> {
        let rows = &self.of(slice).parked;
        let waiting: Vec<i64> = rows.keys().copied().collect();
        let asked = rows.iter().find(|(_, row)| row.requested_at.is_some());
        let (first, last) = (*waiting.first()?, *waiting.last()?);
        let first = asked.map_or(first, |(position, _)| *position);
        let requested = if self.once_in(6) { self.one_of(&waiting) } else { first };
        let next = match self.below(3) {
            0 => Some(Next::Failed {
                position: last,
                error: "again\0".to_owned(),
                awaits_build: self.once_in(2),
            }),
            1 => Some(Next::GoesOn { position: last }),
            _ => None,
        };
        let skipped = self.once_in(2).then_some(requested);
        let applied = if self.once_in(2) { vec![self.one_of(&waiting)] } else { Vec::new() };
        // Each store knows when it was asked.
        let requested_at = Timestamp::default();
        let mended = Mended { requested, requested_at, skipped, applied, next };
        Some((mended, IsPresent(!self.once_in(8))))
    }

    pub(super) fn request_parked(&mut self, slice: i16) -> Call {
        let waiting: Vec<_> =
            self.of(slice).parked.iter().map(|(n, r)| (*n, r.subject.clone())).collect();
        let request = self.one_of(&[Request::Retry, Request::Skip]);
        if waiting.is_empty() {
            return Call::RequestParked { subject: self.subject(slice), position: 1, request };
        }
        let (position, subject) = waiting[self.rng.random_range(0..waiting.len())].clone();
        Call::RequestParked { subject, position: self.near(position), request }
    }

    /// A key of jobs of a slice.
    fn limit_key(&mut self, slice: i16) -> String {
        self.subject(slice).to_string()
    }

    fn pauses(&mut self, slice: i16) -> Pauses {
        let (queue, kind, key) = (self.once_in(2), self.once_in(4), self.once_in(2));
        Pauses {
            queues: queue
                .then(|| self.one_of(&["default", "mails", "platform"]).to_owned())
                .into_iter()
                .collect(),
            kinds: kind.then(|| "plain".to_owned()).into_iter().collect(),
            keys: key.then(|| self.limit_key(slice)).into_iter().collect(),
        }
    }

    /// Moves jobs between lanes, or looks at them.
    pub(super) fn lanes(&mut self, slice: i16) -> Lanes {
        let epoch = self.epoch(Consumer::Jobs, slice);
        let keys: Vec<String> = self.some(3, |dice| dice.limit_key(slice));
        let named = keys.iter().map(|key| (slice, key.clone())).collect();
        let process = self.process();
        let fair_keys = self.some(2, |dice| dice.one_of(&["ann", "bob"]).to_owned());
        match self.below(10) {
            0 => Lanes::ParkedKeys(vec![slice, (slice + 1) % SLICES]),
            1 => Lanes::StillParked(named),
            2 => Lanes::ParkedJobs { process, keys: named },
            3 => Lanes::FairPageEnd { process, after: "ann" },
            4 => Lanes::TakeBack { slice, epoch, pauses: self.pauses(slice) },
            5 => {
                let mut ids: Vec<Uuid> =
                    self.live_jobs(slice).into_iter().map(|(id, _)| id).collect();
                ids.retain(|_| self.once_in(3));
                Lanes::SetAside { slice, epoch, pauses: self.pauses(slice), fair_keys, ids }
            }
            6 => Lanes::Holders(named),
            _ => Lanes::Park { slice, epoch, keys, fair_keys },
        }
    }

    pub(super) fn enqueue(&mut self) -> Enqueue {
        let slice = self.slice();
        // One of them is given: else the slice would follow from a random id.
        let key = self.once_in(2).then(|| format!("key {}", self.below(3)));
        let is_bare = key.is_some() && self.once_in(3);
        let limit_key = self.once_in(3).then(|| self.limit_key(slice));
        let is_bare = is_bare || limit_key.is_some() && self.once_in(2);
        let subject = (!is_bare).then(|| self.subject(slice).to_string());
        Enqueue {
            kind: if self.once_in(15) { self.one_of(&["timer", "Nope", ""]) } else { "plain" },
            args: match self.below(20) {
                0 => json!([1]),
                1 => json!({"a": "\0"}),
                n => json!({"n": n, "text": "ä"}),
            },
            subject,
            key,
            in_hours: self.once_in(2).then(|| self.number(-2..4)),
            priority: self.once_in(3).then(|| self.rng.random_range(0..6)),
            max_attempts: self.once_in(3).then(|| self.rng.random_range(0..4)),
            queue: self.once_in(3).then(|| self.one_of(&["mails", "platform", "No"])),
            limit: (self.once_in(4) || limit_key.is_some()).then(|| self.rng.random_range(1..3)),
            limit_waiting: (limit_key.is_some() && self.once_in(3))
                .then(|| self.rng.random_range(1..4)),
            limit_key,
            ordered: self.once_in(2).then(|| !self.once_in(4)),
            fair_key: self.once_in(3).then(|| self.one_of(&["ann", "bob"])),
            on_conflict: self.once_in(2).then(|| {
                self.one_of(&[
                    OnConflict::Existing,
                    OnConflict::Ignore,
                    OnConflict::Replace,
                    OnConflict::Debounce,
                ])
            }),
            key_states: self
                .once_in(5)
                .then(|| self.one_of(&[KeyStates::Live, KeyStates::UntilStarted])),
            period_hours: self.once_in(5).then(|| self.rng.random_range(1..4)),
        }
    }

    fn live_jobs(&self, slice: i16) -> Vec<(Uuid, i32)> {
        self.of(slice).jobs.iter().map(|(id, job)| (*id, job.attempt)).collect()
    }

    pub(super) fn parked(&mut self, slice: i16) -> Call {
        Call::Parked { slice, subject: self.subject(slice), limit: self.number(0..4) }
    }

    pub(super) fn due(&mut self, slice: i16) -> Call {
        let of = self.once_in(3).then(|| vec![slice]);
        Call::Due { process: self.process(), of, per_slice: self.number(0..4) }
    }

    pub(super) fn mark(&mut self, slice: i16) -> Call {
        let live = self.live_jobs(slice);
        let mut ids: Vec<Uuid> = live.into_iter().map(|(id, _)| id).collect();
        ids.retain(|_| self.once_in(2));
        ids.push(Uuid::from_u128(1));
        Call::Mark { slice, epoch: self.epoch(Consumer::Jobs, slice), ids }
    }

    /// Starts in each slice with load, some of jobs that were started since they were read.
    pub(super) fn mark_all(&mut self) -> Call {
        let starts = |slice| {
            let mut live = self.live_jobs(slice);
            live.retain(|_| self.once_in(2));
            live.push((Uuid::from_u128(1), 0));
            let (ids, attempts): (Vec<Uuid>, Vec<i32>) = live.into_iter().unzip();
            let attempts = attempts.into_iter().map(|attempt| match self.below(8) {
                0 => Some(attempt - 1),
                1 => None,
                _ => Some(attempt),
            });
            let attempts = attempts.collect();
            Starts { slice, epoch: self.epoch(Consumer::Jobs, slice), ids, attempts }
        };
        Call::MarkAll((0..SLICES).map(starts).collect())
    }

    pub(super) fn finish(&mut self, slice: i16) -> Call {
        let runs = self.runs(slice);
        Call::Finish { slice, epoch: self.epoch(Consumer::Jobs, slice), runs }
    }

    /// Ends of runs in each slice with load.
    pub(super) fn finish_all(&mut self) -> Call {
        let all = |slice| {
            let runs = self.runs(slice);
            (slice, self.epoch(Consumer::Jobs, slice), runs)
        };
        Call::FinishAll((0..SLICES).map(all).collect())
    }

    /// Runs of a slice that end.
    fn runs(&mut self, slice: i16) -> Vec<Run> {
        let mut live = self.live_jobs(slice);
        live.retain(|_| self.once_in(3));
        let mut runs: Vec<Run> = Vec::new();
        for (id, attempt) in live {
            runs.push(self.run(slice, id, attempt));
        }
        // A run that is told twice.
        if let Some(twice) = runs.first().cloned()
            && self.once_in(4)
        {
            runs.push(twice);
        }
        runs
    }

    /// Runs as they stand, or as they stood before the last start.
    pub(super) fn acquit(&mut self, slice: i16) -> Call {
        let mut runs = self.live_jobs(slice);
        runs.retain(|_| self.once_in(2));
        for (_, attempt) in &mut runs {
            *attempt -= i32::from(self.once_in(2));
        }
        Call::Acquit { slice, epoch: self.epoch(Consumer::Jobs, slice), runs }
    }

    /// Steps of jobs that run or do not, and waits of jobs that nobody has.
    pub(super) fn waits(&mut self, slice: i16) -> Waits {
        let live = self.live_jobs(slice);
        let nobody = (Uuid::from_u128(1), 0);
        let (job, attempt) = if live.is_empty() { nobody } else { self.one_of(&live) };
        let name = self.one_of(&STEPS);
        let epoch = self.epoch(Consumer::Jobs, slice);
        match self.below(10) {
            0..4 => {
                let attempt = if self.once_in(6) { attempt - 1 } else { attempt };
                let what = match self.below(3) {
                    0 => Beginning::Value(self.number(0..9)),
                    1 => Beginning::Sleep { hours: self.hours() },
                    _ => {
                        let (subject, after) = (self.subject(slice), self.number(0..5));
                        Beginning::Event { subject, after, hours: self.hours() }
                    }
                };
                Waits::Begin { slice, epoch, run: (job, attempt), name, what }
            }
            4 => Waits::GiveUp { slice, epoch, job, name },
            5 => Waits::Steps { slice, job },
            6..8 => Waits::Await {
                job: Uuid::from_u128(self.below(3).into()),
                name,
                subject: self.subject(slice),
                after: self.number(0..20),
                in_hours: self.number(-1..3),
            },
            8 => {
                let subject = self.once_in(2).then(|| self.subject(slice));
                Waits::Tell { slice, job, name, subject, position: self.number(1..9) }
            }
            _ => Waits::CancelUnstarted { slice, jobs: vec![job] },
        }
    }

    fn run(&mut self, slice: i16, id: Uuid, attempt: i32) -> Run {
        let how = match self.below(11) {
            9.. => How::Wait { step: self.one_of(&STEPS) },
            8 => How::Cancelled,
            0 => How::Retry { hours: self.rng.random_range(1..4) },
            1 => How::Snooze { hours: self.rng.random_range(1..4) },
            2 => How::Discarded,
            3 => How::Quarantined,
            4 => How::Released,
            5 => How::Again { hours: self.rng.random_range(0..4) },
            _ => How::Completed,
        };
        let attempt = if self.once_in(6) { attempt - 1 } else { attempt };
        Run { id, attempt, how, events: self.some(1, |dice| dice.event(slice)) }
    }

    pub(super) fn cancel(&mut self, slice: i16) -> Call {
        let live = self.live_jobs(slice);
        let id = if live.is_empty() { Uuid::from_u128(1) } else { self.one_of(&live).0 };
        Call::Cancel { id, force: self.once_in(2) }
    }

    pub(super) fn note_crashes(&mut self, slice: i16) -> Call {
        let slices = [slice, (slice + 1) % SLICES];
        let slices = &slices[..if self.once_in(2) { 1 } else { 2 }];
        Call::NoteCrashes(slices.iter().map(|s| (*s, self.epoch(Consumer::Jobs, *s))).collect())
    }

    /// Rates whose waits are whole hours or far from half of one.
    pub(super) fn take_tokens(&mut self) -> Call {
        Call::TakeTokens {
            name: self.one_of(&["", "one", "one", "another"]),
            capacity: self.one_of(&[0, 2, 3, 3]),
            per_hour: self.one_of(&[1, 1, 4]),
            wanted: self.below(3),
        }
    }

    pub(super) fn job_age(&mut self, slice: i16) -> Call {
        let ids: Vec<Uuid> = self.of(slice).jobs.keys().copied().collect();
        let id = if ids.is_empty() { Uuid::nil() } else { self.one_of(&ids) };
        Call::JobAge { slice, id }
    }

    /// Two schedules in each slice with load.
    pub(super) fn schedules(&mut self, slice: i16) -> Schedules {
        let names = (0..).map(|n| format!("schedule-{n}"));
        let is_own =
            |name: &String| SliceCount::DEFAULT.slice_of(&Subject::schedule(name)) == slice;
        let names: Vec<String> = names.filter(is_own).take(2).collect();
        let name = names[self.rng.random_range(0..names.len())].clone();
        match self.below(8) {
            0..3 => Schedules::Put {
                name,
                n: self.number(0..2),
                in_hours: self.number(-3..3),
                paused: self.one_of(&[None, None, None, Some(true), Some(false)]),
            },
            3 => Schedules::Due { process: self.process(), limit: self.number(0..4) },
            4 => Schedules::Next(self.process()),
            _ => {
                let version = self.of(slice).schedules.get(&name).map_or(1, |row| row.version);
                Schedules::Fire(Fire {
                    slice,
                    epoch: self.epoch(Consumer::Jobs, slice),
                    name,
                    version: if self.once_in(6) { self.near(version) } else { version },
                    is_as_read: !self.once_in(6),
                    after_hours: self.some(3, |dice| dice.number(0..2)),
                    next_hours: (!self.once_in(6)).then(|| self.number(1..3)),
                    error: self.once_in(6).then_some("refused"),
                })
            }
        }
    }

    pub(super) fn dead(&mut self) -> Uuid {
        let dead: Vec<Uuid> =
            self.tables.slices.iter().flat_map(|tables| tables.dead.keys().copied()).collect();
        if dead.is_empty() || self.once_in(5) { Uuid::from_u128(1) } else { self.one_of(&dead) }
    }
}
