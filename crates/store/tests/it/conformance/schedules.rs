//! Calls about schedules, on one of the two stores. What an expression means is `domain`'s affair, so
//! next fires are set, in whole hours.

use domain::ids::Timestamp;
use domain::schedule::Missed;
use serde_json::json;
use sqlx::PgPool;
use store::{DueSchedule, NewSchedule};
use uuid::Uuid;

use super::call::{Fire, Schedules};
use super::side::{Of, Side, told};

impl Side {
    pub(super) async fn schedules(&mut self, call: &Schedules) -> String {
        match call {
            Schedules::Put { name, n, in_hours, paused } => {
                // One that would never fire again is refused as it is.
                self.set_next(name, self.at(*in_hours)).await;
                self.put(name, *n, *paused).await;
                self.set_next(name, self.at(*in_hours)).await;
                String::new()
            }
            Schedules::Due { process, limit } => {
                let due = self.work().due_schedules(*process, *limit).await;
                told(due.map(|due| due.iter().map(|one| self.told_due(one)).collect::<Vec<_>>()))
            }
            Schedules::Next(process) => {
                let next = self.work().next_fire_in(*process).await;
                told(next.map(|next| next.map(|time| (time.as_secs() + 1_800) / 3_600)))
            }
            Schedules::Fire(fire) => self.fire(fire).await,
        }
    }

    fn told_due(&self, due: &DueSchedule) -> String {
        let DueSchedule { slice, name, version, cron, time_zone, missed, due, .. } = due;
        let due = self.told_at(*due);
        format!("{slice} {name} {version} {cron} {time_zone} {missed:?} {due}")
    }

    async fn put(&self, name: &str, n: i64, paused: Option<bool>) {
        let new = NewSchedule {
            name: name.to_owned(),
            cron: "0 * * * *".to_owned(),
            time_zone: "UTC".to_owned(),
            kind: "a_job".to_owned(),
            args: json!({ "n": n }),
            options: json!({ "priority": 1 }),
            missed: Missed::CatchUp(3),
            paused,
        };
        match &self.of {
            Of::Postgres(db) => drop(db.store.put_schedule(&new).await.unwrap()),
            Of::Memory(memory, _) => memory.put_schedule(&new),
        }
    }

    async fn set_next(&self, name: &str, at: Timestamp) {
        match &self.of {
            Of::Postgres(db) => store::testing::rewind_schedule(&db.store, name, at).await,
            Of::Memory(memory, _) => memory.meddle(|tables| {
                let rows = tables.slices.iter_mut();
                rows.filter_map(|slice| slice.schedules.get_mut(name))
                    .for_each(|row| row.next_fire_at = Some(at));
            }),
        }
    }

    async fn next_fire(&self, name: &str) -> Option<Timestamp> {
        match &self.of {
            Of::Postgres(db) => db.store.schedule(name).await.unwrap()?.next_fire_at,
            Of::Memory(memory, _) => memory.look(|tables| {
                let mut rows = tables.slices.iter().filter_map(|slice| slice.schedules.get(name));
                rows.next()?.next_fire_at
            }),
        }
    }

    async fn fire(&mut self, fire: &Fire) -> String {
        let read = self.next_fire(&fire.name).await.unwrap_or_else(|| self.at(0));
        let after = |hours: &i64| super::side::hours_after(read, *hours);
        let made = store::Fire {
            name: fire.name.clone(),
            version: fire.version,
            due: if fire.is_as_read { read } else { after(&1) },
            fires: fire.after_hours.iter().map(after).collect(),
            next: fire.next_hours.as_ref().map(after),
            error: fire.error.map(str::to_owned),
        };
        let fired = self.work().fire_schedule(fire.slice, fire.epoch, &made).await;
        if let Ok(Some(jobs)) = &fired {
            for job in jobs {
                self.met(*job).await;
            }
        }
        told(fired.map(|jobs| jobs.map(|jobs| jobs.len())))
    }

    /// Schedules and fires of the in-memory store.
    pub(super) fn dump_schedules(
        &self,
        slice: i16,
        tables: &store::testing::SliceTables,
    ) -> Vec<String> {
        let rows = tables.schedules.iter().map(|(name, row)| {
            let (next, last) = (row.next_fire_at, row.last_fire_at);
            self.line(
                slice,
                name,
                (row.version, row.paused),
                (next, last),
                row.last_error.as_deref(),
            )
        });
        let fires = tables.fires.iter().map(|((name, at), job)| self.fired(name, *at, *job));
        rows.chain(fires).collect()
    }

    /// The same of PostgreSQL.
    pub(super) async fn read_schedules(&self, pool: &PgPool) -> Vec<String> {
        let rows: Vec<Row> = super::dump::all(
            pool,
            "SELECT slice, name, version, paused, next_fire_at, last_fire_at, last_error
               FROM tallylight.schedule",
        )
        .await;
        let fires: Vec<(String, Timestamp, Uuid)> =
            super::dump::all(pool, "SELECT name, fire_at, job FROM tallylight.schedule_fire").await;
        let rows = rows.into_iter().map(|(slice, name, version, paused, next, last, error)| {
            self.line(slice, &name, (version, paused), (next, last), error.as_deref())
        });
        let fires = fires.into_iter().map(|(name, at, job)| self.fired(&name, at, job));
        rows.chain(fires).collect()
    }

    fn line(
        &self,
        slice: i16,
        name: &str,
        (version, paused): (i64, bool),
        (next, last): (Option<Timestamp>, Option<Timestamp>),
        error: Option<&str>,
    ) -> String {
        let told = |at: Option<Timestamp>| at.map(|at| self.told_at(at));
        let (next, last) = (told(next), told(last));
        format!("schedule {slice} {name} {version} {paused} {next:?} {last:?} {error:?}")
    }

    fn fired(&self, name: &str, at: Timestamp, job: Uuid) -> String {
        format!("fire {name} {} {}", self.told_at(at), job)
    }
}

type Row = (i16, String, i64, bool, Option<Timestamp>, Option<Timestamp>, Option<String>);
