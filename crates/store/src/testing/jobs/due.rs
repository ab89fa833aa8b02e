//! Which jobs are due, and when the next one is, on the in-memory tables.

use std::collections::BTreeSet;
use std::time::Duration;

use domain::ids::Timestamp;
use uuid::Uuid;

use super::{JobRow, is_held};
use crate::jobs::PER_FAIR_KEY;
use crate::testing::tables::Tables;
use crate::{DueJob, FAIR_KEYS, Lane};

impl Tables {
    pub(in crate::testing) fn due_jobs(
        &mut self,
        now: Timestamp,
        process: Uuid,
        of: Option<&[i16]>,
        per_slice: i64,
        fair_after: &str,
    ) -> Vec<DueJob> {
        let mut due = Vec::new();
        let is_of = |slice: &i16| of.is_none_or(|of| of.contains(slice));
        for (slice, tables) in
            (0..).zip(&self.slices).filter(|(s, t)| is_of(s) && is_held(t, process))
        {
            let epoch = tables.jobs_lease.epoch;
            let shared = tables.jobs.values().filter(|job| job.lane == Lane::Shared);
            let owners = shared.filter_map(|job| job.fair_key.as_deref());
            let owners: BTreeSet<&str> = owners.filter(|key| *key > fair_after).collect();
            let owners = owners.into_iter().take(usize::try_from(FAIR_KEYS).unwrap_or_default());
            let pages = owners.map(|owner| (Lane::Shared, Some(owner), PER_FAIR_KEY));
            for (lane, owner, most) in pages.chain([(Lane::Open, None, per_slice)]) {
                let most = usize::try_from(most).unwrap_or_default();
                for priority in 1..=4 {
                    let is_due = |job: &JobRow| {
                        job.priority == priority
                            && job.lane == lane
                            && (lane == Lane::Open || job.fair_key.as_deref() == owner)
                            && job.may_start(now, epoch)
                    };
                    let mut of: Vec<_> =
                        tables.jobs.iter().filter(|(_, job)| is_due(job)).collect();
                    of.sort_by_key(|(id, job)| (job.run_at, **id));
                    due.extend(of.into_iter().take(most).map(|(id, job)| (slice, *id, job)));
                }
            }
        }
        due.sort_by_key(|(_, id, job)| (job.priority, job.run_at, *id));
        due.into_iter().map(|(slice, id, job)| job.due(slice, id, now)).collect()
    }

    pub(in crate::testing) fn next_due_in(
        &mut self,
        now: Timestamp,
        process: Uuid,
        read: &[(i16, Duration)],
    ) -> Option<Duration> {
        let next = read.iter().filter_map(|(slice, ago)| {
            let tables = self.slices.get(usize::from(slice.unsigned_abs()))?;
            let jobs = tables.jobs.values().filter(|_| is_held(tables, process));
            let later = jobs.filter(|job| matches!(job.lane, Lane::Open | Lane::Shared));
            later.map(|job| job.run_at).filter(|run_at| *run_at > now - *ago).min()
        });
        Some((next.min()? - now).to_std().unwrap_or_default())
    }
}
