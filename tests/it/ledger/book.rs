//! The ledger itself: a table that handlers write, and what it must show in the end.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use sqlx::{PgConnection, PgPool};
use uuid::Uuid;
use worker::testing::Run;

/// What a run holds, and who it is.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub(super) struct Entry {
    pub(super) job: Uuid,
    pub(super) key: String,
    pub(super) slice: i16,
    pub(super) epoch: i64,
    pub(super) attempt: i32,
    pub(super) process: Uuid,
}

impl Entry {
    pub(super) fn of(run: &Run, process: Uuid) -> Self {
        let key = run.args["key"].as_str().unwrap_or_default().to_owned();
        let Run { id, slice, epoch, attempt, .. } = *run;
        Self { job: id, key, slice, epoch, attempt, process }
    }

    fn token(&self) -> Token {
        (self.job, self.epoch, self.attempt)
    }
}

type Token = (Uuid, i64, i32);

/// A line of the ledger.
#[derive(Debug, sqlx::FromRow)]
struct Line {
    #[sqlx(flatten)]
    entry: Entry,
    what: String,
}

/// Creates it.
pub(super) async fn create(connection: &mut PgConnection) {
    let create = "
        CREATE TABLE public.ledger (
          n bigserial PRIMARY KEY, job uuid, key text, slice smallint, epoch bigint, attempt int,
          process uuid, what text);
        CREATE INDEX ON public.ledger (key, epoch);
        CREATE FUNCTION public.note(p_job uuid, p_key text, p_slice smallint, p_epoch bigint,
                                    p_attempt int, p_process uuid, p_what text)
        RETURNS boolean LANGUAGE plpgsql AS $$
        BEGIN
          -- Lines of one key are numbered in the order of their commits.
          PERFORM pg_advisory_xact_lock(hashtextextended(p_key, 0));
          IF p_what <> 'gone' AND EXISTS (
            SELECT FROM public.ledger
             WHERE key = p_key
               AND (epoch > p_epoch OR job = p_job AND attempt > p_attempt)) THEN
            RETURN false;
          END IF;
          -- What was sent by a run that was stopped may come when the next one has begun.
          IF p_what = 'end' AND (p_job, p_attempt) IS DISTINCT FROM (
            SELECT (job, attempt) FROM public.ledger
             WHERE key = p_key AND what = 'begin' ORDER BY n DESC LIMIT 1) THEN
            RETURN false;
          END IF;
          INSERT INTO public.ledger (job, key, slice, epoch, attempt, process, what)
          VALUES (p_job, p_key, p_slice, p_epoch, p_attempt, p_process, p_what);
          RETURN true;
        END $$";
    sqlx::raw_sql(create).execute(connection).await.unwrap();
}

/// Notes something. Returns whether it was taken: a token older than one that was seen of its key is
/// refused.
pub(super) async fn note(pool: &PgPool, entry: &Entry, what: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT public.note($1, $2, $3, $4, $5, $6, $7)")
        .bind(entry.job)
        .bind(&entry.key)
        .bind(entry.slice)
        .bind(entry.epoch)
        .bind(entry.attempt)
        .bind(entry.process)
        .bind(what)
        .fetch_one(pool)
        .await
}

/// The processes that have begun runs.
pub(super) async fn at_work(connection: &mut PgConnection) -> Vec<Uuid> {
    sqlx::query_scalar("SELECT DISTINCT process FROM public.ledger")
        .fetch_all(connection)
        .await
        .unwrap()
}

/// All of it.
pub(super) struct Ledger {
    lines: Vec<Line>,
    /// Runs of which the engine noted that they failed or ended with their process.
    noted: HashSet<(Uuid, i32)>,
}

/// What the ledger shows.
#[derive(Debug, Default)]
pub(super) struct Shown {
    pub(super) runs: usize,
    pub(super) repeated_for_a_lost_lease: usize,
    pub(super) repeated_for_a_failure: usize,
    pub(super) given_up: usize,
}

/// Reads it.
pub(super) async fn read(connection: &mut PgConnection) -> Ledger {
    let lines = sqlx::query_as("SELECT * FROM public.ledger ORDER BY n");
    let lines = lines.fetch_all(&mut *connection).await.unwrap();
    let noted: Vec<(Uuid, i32)> = sqlx::query_as("SELECT job, attempt FROM tallylight.job_attempt")
        .fetch_all(connection)
        .await
        .unwrap();
    Ledger { lines, noted: noted.into_iter().collect() }
}

impl Ledger {
    fn with(&self, what: &str) -> impl Iterator<Item = &Entry> {
        self.lines.iter().filter(move |line| line.what == what).map(|line| &line.entry)
    }

    /// Checks all rules.
    pub(super) fn check(&self, jobs: &[Uuid]) -> Shown {
        self.none_is_lost(jobs);
        self.one_holder_of_a_token();
        let over: HashSet<Token> = self.with("gone").map(Entry::token).collect();
        self.one_run_of_a_key_at_a_time(&over);
        self.repeated_with_cause(&over)
    }

    fn none_is_lost(&self, jobs: &[Uuid]) {
        let ended: HashSet<Uuid> = self.with("end").map(|entry| entry.job).collect();
        let lost: Vec<&Uuid> = jobs.iter().filter(|job| !ended.contains(job)).collect();
        assert!(lost.is_empty(), "{} jobs never ended: {lost:?}", lost.len());
    }

    fn one_holder_of_a_token(&self) {
        let mut holders: HashMap<Token, BTreeSet<Uuid>> = HashMap::new();
        let mut begun = HashSet::new();
        for entry in self.with("begin") {
            assert!(begun.insert(entry.token()), "begun twice: {entry:?}");
        }
        for line in &self.lines {
            holders.entry(line.entry.token()).or_default().insert(line.entry.process);
        }
        let shared = holders.iter().find(|(_, holders)| holders.len() > 1);
        assert!(shared.is_none(), "two processes held one token: {shared:?}");
    }

    /// While a run of a key goes on no other begins, unless its lease was lost, or it is over.
    fn one_run_of_a_key_at_a_time(&self, over: &HashSet<Token>) {
        let mut going: HashMap<&str, &Entry> = HashMap::new();
        for Line { entry, what } in &self.lines {
            match what.as_str() {
                "begin" => {
                    if let Some(other) = going.insert(&entry.key, entry) {
                        let is_lost = other.epoch < entry.epoch;
                        assert!(
                            is_lost || over.contains(&other.token()),
                            "{entry:?} began while {other:?} went on"
                        );
                    }
                }
                "end" => {
                    let ended = going.remove(entry.key.as_str());
                    assert_eq!(ended, Some(entry), "another run had begun");
                }
                // Noted when it was over already.
                _ => {}
            }
        }
    }

    /// A job runs again only where its lease was lost, or its run failed or was given up.
    fn repeated_with_cause(&self, over: &HashSet<Token>) -> Shown {
        let mut shown = Shown { given_up: over.len(), ..Shown::default() };
        let mut runs: BTreeMap<Uuid, Vec<&Entry>> = BTreeMap::new();
        for entry in self.with("begin") {
            runs.entry(entry.job).or_default().push(entry);
            shown.runs += 1;
        }
        for pair in runs.values().flat_map(|runs| runs.windows(2)) {
            let (first, second) = (pair[0], pair[1]);
            assert!(first.attempt < second.attempt, "{first:?} before {second:?}");
            if first.epoch < second.epoch {
                shown.repeated_for_a_lost_lease += 1;
                continue;
            }
            let is_noted = self.noted.contains(&(first.job, first.attempt));
            assert!(is_noted || over.contains(&first.token()), "{second:?} follows {first:?}");
            shown.repeated_for_a_failure += 1;
        }
        shown
    }
}

/// Each job has one outcome in the log.
pub(super) async fn check_outcomes(connection: &mut PgConnection, jobs: &[Uuid]) {
    let wrong: Vec<(Uuid, i64)> = sqlx::query_as(
        "SELECT asked.id, count(e.event_id) FROM unnest($1) AS asked (id)
           LEFT JOIN tallylight.event e
                  ON e.event_type = 'JobCompleted'
                 AND convert_from(e.payload, 'UTF8')::jsonb ->> 'job' = asked.id::text
          GROUP BY 1 HAVING count(e.event_id) <> 1",
    )
    .bind(jobs)
    .fetch_all(connection)
    .await
    .unwrap();
    assert!(wrong.is_empty(), "outcomes: {wrong:?}");
}
