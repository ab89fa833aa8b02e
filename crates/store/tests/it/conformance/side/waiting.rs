//! Lanes, pauses, steps and words: how jobs wait, on one side.

use serde_json::json;
use store::{Begin, EventWait, Step, Word};

use super::super::call::{Beginning, Lanes, Waits};
use super::told::{sorted, told};
use super::{Side, awaits, hours};

impl Side {
    /// Makes the calls of lanes.
    pub(super) async fn lanes(&self, call: &Lanes) -> String {
        let work = self.work();
        match call {
            Lanes::ParkedKeys(slices) => told(work.parked_keys(slices).await.map(sorted)),
            Lanes::StillParked(keys) => {
                let mut keys = keys.clone();
                keys.dedup();
                told(work.still_parked(&keys).await.map(sorted))
            }
            Lanes::Holders(keys) => {
                let mut keys = keys.clone();
                keys.dedup();
                told(work.holders(&keys).await.map(sorted))
            }
            Lanes::ParkedJobs { process, keys } => {
                let keys = sorted(keys.clone());
                let keys: std::collections::BTreeSet<_> = keys.into_iter().collect();
                let keys: Vec<_> = keys.into_iter().collect();
                let due = work.parked_jobs(*process, &keys, 2).await;
                told(due.map(|due| due.iter().map(|job| self.told_job(job)).collect::<Vec<_>>()))
            }
            Lanes::FairPageEnd { process, after } => {
                told(work.fair_page_end(*process, after).await)
            }
            Lanes::Park { slice, epoch, keys, fair_keys } => {
                told(work.park(*slice, *epoch, keys, fair_keys).await)
            }
            Lanes::SetAside { slice, epoch, pauses, fair_keys, ids } => {
                told(work.set_aside(*slice, *epoch, pauses, fair_keys, ids).await)
            }
            Lanes::TakeBack { slice, epoch, pauses } => {
                // Where nothing is aside, the lease is not asked for.
                told(work.take_back(*slice, *epoch, pauses).await)
            }
        }
    }

    /// Makes the calls of waits.
    pub(super) async fn waits(&self, call: &Waits) -> String {
        let work = self.work();
        match call {
            Waits::Begin { slice, epoch, run, name, what } => {
                let begin = match what {
                    Beginning::Value(n) => Begin::Value(json!({ "n": n })),
                    Beginning::Sleep { hours: time } => Begin::Sleep(hours(*time)),
                    Beginning::Event { subject, after, hours: time } => {
                        Begin::Event { awaits: awaits(subject, *after), timeout: hours(*time) }
                    }
                };
                let stored = work.begin_step(*slice, *epoch, *run, name, &begin).await;
                told(stored.map(|step| step.map(|step| self.told_step(&step))))
            }
            Waits::GiveUp { slice, epoch, job, name } => {
                let given_up = work.give_up_step(*slice, *epoch, *job, name).await;
                told(given_up.map(|step| step.map(|step| self.told_step(&step))))
            }
            Waits::Steps { slice, job } => {
                let steps = work.steps(*slice, *job).await;
                told(steps.map(|all| all.iter().map(|s| self.told_step(s)).collect::<Vec<_>>()))
            }
            Waits::Await { job, name, subject, after, in_hours } => {
                let until = self.at(*in_hours);
                let (step, awaits) = ((*name).to_owned(), awaits(subject, *after));
                let wait = EventWait { job_slice: 1, job: *job, step, awaits, until };
                told(work.await_event(&wait).await)
            }
            Waits::Tell { slice, job, name, subject, position } => {
                let told_by = Word {
                    job: *job,
                    step: (*name).to_owned(),
                    subject: subject.clone(),
                    n: None,
                    rank: None,
                    state: None,
                    value: Some(json!({ "slice": slice, "position": position })),
                    error: None,
                };
                told(work.relay(*slice, &[told_by]).await)
            }
            Waits::CancelUnstarted { slice, jobs } => {
                told(work.cancel_unstarted(*slice, jobs).await)
            }
        }
    }

    fn told_step(&self, step: &Step) -> String {
        let Step { name, kind, value, awaits, until, is_closed, is_over } = step;
        let until = until.map(|until| self.told_at(until));
        format!("{name} {kind:?} {value:?} {awaits:?} {until:?} {is_closed} {is_over}")
    }
}
