//! What has happened in a kit since it was asked last.

use std::collections::HashSet;

use domain::event::RecordedEvent;
use store::testing::Tables;
use uuid::Uuid;

use super::Run;
use super::faults::Faults;
use super::kit::distinct;

/// What has happened in a kit: all of it in order, slice by slice where there are several.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// Calls of handlers, in the order in which they began.
    pub runs: Vec<Run>,
    /// Runs that ended: the job, the number of its start, and how, which is one of `completed`,
    /// `failed` (to be tried again), `snoozed`, `again` (a recurring job), `released` (given back),
    /// `cancelled`, `discarded` and `quarantined`. A run whose process died ends by none.
    pub ended: Vec<(Uuid, i32, &'static str)>,
    /// Events that were appended.
    pub events: Vec<RecordedEvent>,
}

impl Report {
    /// The jobs with a run that ended so, each once.
    pub fn jobs(&self, outcome: &str) -> Vec<Uuid> {
        distinct(self.ended.iter().filter(|(.., how)| *how == outcome).map(|(id, ..)| *id))
    }

    /// The numbers of the starts of a job.
    pub fn starts_of(&self, job: Uuid) -> Vec<i32> {
        self.runs.iter().filter(|run| run.id == job).map(|run| run.attempt).collect()
    }

    /// Whether nothing has happened.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.ended.is_empty() && self.events.is_empty()
    }
}

/// How much of the history was reported.
#[derive(Debug, Default)]
pub(super) struct Seen {
    runs: usize,
    /// Of each slice, runs that ended and events.
    slices: Vec<(usize, usize)>,
    /// Jobs that no handler of the test's ran: the worker's upkeep.
    upkeep: HashSet<Uuid>,
}

impl Seen {
    /// What is new.
    pub(super) fn report(&mut self, tables: &Tables, faults: &Faults) -> Report {
        let runs = faults.begun(self.runs);
        self.runs += runs.len();
        self.slices.resize(tables.slices.len(), (0, 0));
        let mut report = Report { runs, ..Report::default() };
        for (slice, (ended, events)) in tables.slices.iter().zip(&mut self.slices) {
            let recurring = slice.jobs.iter().filter(|(_, job)| job.args["recurs"] == true);
            self.upkeep.extend(recurring.map(|(id, _)| *id));
            let new = slice.ended.get(*ended..).unwrap_or_default();
            let own = new.iter().filter(|(id, ..)| !self.upkeep.contains(id));
            report.ended.extend(own.copied());
            report.events.extend(slice.events.get(*events..).unwrap_or_default().iter().cloned());
            (*ended, *events) = (slice.ended.len(), slice.events.len());
        }
        report
    }
}
