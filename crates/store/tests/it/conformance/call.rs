//! The calls that both stores get: what they are made of. Times are hours from the store's present;
//! ids of jobs are those that the in-memory store gives.

use domain::ids::Subject;
use rand::rngs::StdRng;
use serde_json::Value;
use store::testing::Tables;
use store::{Consumer, KeyStates, OnConflict, Pauses, Request, Starts};
use uuid::Uuid;

use super::dice::Dice;

/// An event to append.
#[derive(Debug, Clone)]
pub(super) struct Event {
    pub(super) id: Uuid,
    pub(super) subject: Subject,
    pub(super) name: &'static str,
    pub(super) key: Option<Uuid>,
}

/// A job to insert.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub(super) id: Uuid,
    pub(super) subject: Subject,
    pub(super) kind: &'static str,
    pub(super) in_hours: i64,
    pub(super) priority: i16,
    pub(super) once_for: Option<Uuid>,
}

/// A run that ends.
#[derive(Debug, Clone)]
pub(super) struct Run {
    pub(super) id: Uuid,
    pub(super) attempt: i32,
    pub(super) how: How,
    pub(super) events: Vec<Event>,
}

/// How a run ends.
#[derive(Debug, Clone, Copy)]
pub(super) enum How {
    Completed,
    Retry { hours: u64 },
    Snooze { hours: u64 },
    Again { hours: u64 },
    Discarded,
    Quarantined,
    Cancelled,
    Released,
    Wait { step: &'static str },
}

/// An event to set aside.
#[derive(Debug, Clone)]
pub(super) struct Parked {
    pub(super) position: i64,
    pub(super) subject: Subject,
    pub(super) error: Option<&'static str>,
    pub(super) awaits_build: bool,
}

/// Whether a request is the one that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct IsPresent(pub(super) bool);

/// A reaction.
#[derive(Debug, Clone, Default)]
pub(super) struct React {
    pub(super) slice: i16,
    pub(super) epoch: i64,
    pub(super) from: i64,
    pub(super) to: i64,
    pub(super) states: Vec<(Subject, Value)>,
    pub(super) accounts: Vec<(&'static str, Option<u32>)>,
    pub(super) videos: Vec<(i64, &'static str)>,
    pub(super) sessions: Vec<(i64, &'static str)>,
    pub(super) jobs: Vec<Job>,
    pub(super) cancels: Vec<Uuid>,
    pub(super) events: Vec<Event>,
    pub(super) parked: Vec<Parked>,
    /// It is about the request that waits, or about one that was replaced.
    pub(super) mended: Option<(store::Mended, IsPresent)>,
}

/// A job from outside.
#[derive(Debug, Clone)]
pub(super) struct Enqueue {
    pub(super) kind: &'static str,
    pub(super) args: Value,
    pub(super) subject: Option<String>,
    pub(super) key: Option<String>,
    pub(super) in_hours: Option<i64>,
    pub(super) priority: Option<i16>,
    pub(super) max_attempts: Option<i32>,
    pub(super) queue: Option<&'static str>,
    pub(super) limit_key: Option<String>,
    pub(super) limit: Option<i16>,
    pub(super) limit_waiting: Option<i16>,
    pub(super) ordered: Option<bool>,
    pub(super) fair_key: Option<&'static str>,
    pub(super) on_conflict: Option<OnConflict>,
    pub(super) key_states: Option<KeyStates>,
    pub(super) period_hours: Option<i32>,
}

/// A call about lanes.
#[derive(Debug, Clone)]
pub(super) enum Lanes {
    ParkedKeys(Vec<i16>),
    StillParked(Vec<(i16, String)>),
    Holders(Vec<(i16, String)>),
    ParkedJobs { process: Uuid, keys: Vec<(i16, String)> },
    FairPageEnd { process: Uuid, after: &'static str },
    Park { slice: i16, epoch: i64, keys: Vec<String>, fair_keys: Vec<String> },
    SetAside { slice: i16, epoch: i64, pauses: Pauses, fair_keys: Vec<String>, ids: Vec<Uuid> },
    TakeBack { slice: i16, epoch: i64, pauses: Pauses },
}

/// A call about schedules.
#[derive(Debug, Clone)]
pub(super) enum Schedules {
    /// Puts one, and sets its next fire.
    Put {
        name: String,
        n: i64,
        in_hours: i64,
        paused: Option<bool>,
    },
    Due {
        process: Uuid,
        limit: i64,
    },
    Next(Uuid),
    Fire(Fire),
}

/// A fire.
#[derive(Debug, Clone)]
pub(super) struct Fire {
    pub(super) slice: i16,
    pub(super) epoch: i64,
    pub(super) name: String,
    pub(super) version: i64,
    /// Whether it is the one that is due.
    pub(super) is_as_read: bool,
    /// The moments, in hours from the one that is due.
    pub(super) after_hours: Vec<i64>,
    /// The next fire, in hours from it.
    pub(super) next_hours: Option<i64>,
    pub(super) error: Option<&'static str>,
}

/// How a step begins.
#[derive(Debug, Clone)]
pub(super) enum Beginning {
    Value(i64),
    Sleep { hours: u64 },
    Event { subject: Subject, after: i64, hours: u64 },
}

/// A call about waits.
#[derive(Debug, Clone)]
pub(super) enum Waits {
    Begin { slice: i16, epoch: i64, run: (Uuid, i32), name: &'static str, what: Beginning },
    GiveUp { slice: i16, epoch: i64, job: Uuid, name: &'static str },
    Steps { slice: i16, job: Uuid },
    Await { job: Uuid, name: &'static str, subject: Subject, after: i64, in_hours: i64 },
    Tell { slice: i16, job: Uuid, name: &'static str, subject: Option<Subject>, position: i64 },
    CancelUnstarted { slice: i16, jobs: Vec<Uuid> },
}

/// A call.
#[derive(Debug, Clone)]
pub(super) enum Call {
    Append {
        slice: i16,
        batch: Option<Uuid>,
        events: Vec<Event>,
    },
    AppendAll {
        batch: Uuid,
        events: Vec<Event>,
    },
    Read {
        slice: i16,
        position: i64,
        limit: i64,
    },
    ReadOne {
        slice: i16,
        position: i64,
    },
    ReadSubject {
        subject: Subject,
        position: i64,
        limit: i64,
    },
    Heads(Vec<i16>),
    Sample(i16),
    Heartbeat {
        process: Uuid,
        hours: u64,
    },
    Leave(Uuid),
    Claim {
        consumer: Consumer,
        slice: i16,
        process: Uuid,
        hours: u64,
    },
    Lease {
        consumer: Consumer,
        slice: i16,
        epoch: i64,
    },
    Renew {
        consumer: Consumer,
        held: Vec<(i16, i64)>,
        hours: u64,
    },
    Release {
        consumer: Consumer,
        slice: i16,
        epoch: i64,
    },
    LoadStates {
        slice: i16,
        subjects: Vec<Subject>,
    },
    /// Of one slice, or of several in one transaction.
    React(Vec<React>),
    Parked {
        slice: i16,
        subject: Subject,
        limit: i64,
    },
    RequestParked {
        subject: Subject,
        position: i64,
        request: Request,
    },
    Enqueue(Enqueue),
    Due {
        process: Uuid,
        of: Option<Vec<i16>>,
        per_slice: i64,
    },
    NextDue(Uuid),
    Lanes(Lanes),
    Schedules(Schedules),
    Waits(Waits),
    Mark {
        slice: i16,
        epoch: i64,
        ids: Vec<Uuid>,
    },
    MarkAll(Vec<Starts>),
    /// Runs of slices, each with its epoch.
    FinishAll(Vec<(i16, i64, Vec<Run>)>),
    Finish {
        slice: i16,
        epoch: i64,
        runs: Vec<Run>,
    },
    Acquit {
        slice: i16,
        epoch: i64,
        runs: Vec<(Uuid, i32)>,
    },
    RetryDead(Uuid),
    Cancel {
        id: Uuid,
        force: bool,
    },
    Cancellations(Uuid),
    NoteCrashes(Vec<(i16, i64)>),
    /// Tokens of a bucket that refills by the hour.
    TakeTokens {
        name: &'static str,
        capacity: i32,
        per_hour: i32,
        wanted: u32,
    },
    JobAge {
        slice: i16,
        id: Uuid,
    },
    AwaitedSessions,
    EndedSessions,
    /// Time passes.
    Pass {
        hours: i64,
    },
    /// A lease ends now.
    Expire {
        consumer: Consumer,
        slice: i16,
    },
}

impl Call {
    /// Any call, mostly one that makes sense as the tables stand.
    pub(super) fn any(rng: &mut StdRng, tables: &Tables) -> Self {
        let mut dice = Dice { rng, tables };
        let slice = dice.slice();
        match dice.below(126) {
            0..8 => dice.append(slice),
            8..14 => dice.append_all(),
            14..17 => Self::Read {
                slice,
                position: dice.near(tables.slices[usize::try_from(slice).unwrap()].head()),
                limit: dice.number(0..5),
            },
            17 => Self::ReadOne {
                slice,
                position: dice.near(tables.slices[usize::try_from(slice).unwrap()].head()),
            },
            18..20 => Self::ReadSubject {
                subject: dice.subject(slice),
                position: dice.number(0..5),
                limit: dice.number(0..5),
            },
            20 => Self::Heads(vec![slice, 5, slice, 99]),
            21..23 => Self::Heartbeat { process: dice.process(), hours: dice.hours() },
            23 => Self::Leave(dice.process()),
            24..32 => Self::Claim {
                consumer: dice.consumer(),
                slice,
                process: dice.process(),
                hours: dice.hours(),
            },
            32 => dice.lease(slice),
            33..36 => dice.renew(),
            36..38 => dice.release(slice),
            38 => Self::LoadStates { slice, subjects: dice.subjects(slice) },
            39..52 => Self::React(vec![dice.react(slice)]),
            52..60 => Self::React(dice.react_all()),
            60..62 => dice.parked(slice),
            62..65 => dice.request_parked(slice),
            65..72 => Self::Enqueue(dice.enqueue()),
            72..76 if dice.below(2) == 0 => Self::Lanes(dice.lanes(slice)),
            72..76 => dice.due(slice),
            76..78 => Self::NextDue(dice.process()),
            78..82 => dice.mark(slice),
            82..85 => dice.mark_all(),
            85..88 => dice.finish(slice),
            88..91 => dice.finish_all(),
            91 => dice.acquit(slice),
            92 if dice.below(4) == 0 => Self::AwaitedSessions,
            92 if dice.below(3) == 0 => Self::EndedSessions,
            92 => dice.take_tokens(),
            93 => dice.job_age(slice),
            94..96 => Self::RetryDead(dice.dead()),
            96..98 => Self::Pass { hours: dice.number(1..3) },
            98..101 => dice.cancel(slice),
            101..103 => Self::Cancellations(dice.process()),
            103 => dice.note_crashes(slice),
            104 => Self::Sample(slice),
            105..115 => Self::Waits(dice.waits(slice)),
            115..123 => Self::Schedules(dice.schedules(slice)),
            _ => Self::Expire { consumer: dice.consumer(), slice },
        }
    }
}
