//! Steps sessions through all orders of their statements, on a real PostgreSQL.
//!
//! The search is stateless: it runs the script once for each order, from the beginning, on a slice
//! of its own. After each step it waits until every session has come to its next statement, has
//! ended, or waits for a lock; then it looks at the log in one snapshot, and chooses. Where a
//! session is *unreliable*, one fault per run is chosen too, at every statement.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use domain::ids::Subject;
use domain::slice::SliceCount;
use futures_util::FutureExt as _;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, Row as _};
use store::{Config, Store};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::gate::{Gate, Verdict};
use crate::support::Db;

/// Slices of a bench, and so the most orders that it can try.
const SLICES: i16 = 1024;

/// The password `bench`, as the server keeps it, hashed once: a broken connection is replaced often,
/// and 4096 rounds take a tenth of a second in a build for tests.
const VERIFIER: &str = "SCRAM-SHA-256$1:dGFsbHlsaWdodGJlbmNoIQ==$J1J+mlsBZFyob4tHHinZozbqQUvbGu1FNuJ5QI221ic=:ZRWPOZY901QkEsASHPrS/fSHEcM/1VrN+/KSEhVF150=";

/// Longest wait for a session to come to its next statement.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long a statement may take before the database is asked whether it is blocked.
const SOON: Duration = Duration::from_millis(1);

/// A database with many slices, and gates to it.
pub(super) struct Bench {
    pub(super) db: Db,
    pub(super) gates: Vec<Gate>,
    stores: Vec<Store>,
    /// One subject of each slice.
    subjects: Vec<Subject>,
    observer: PgConnection,
    changes: watch::Sender<u64>,
    steps: Arc<AtomicUsize>,
    next_slice: i16,
}

/// What the sessions of one run share.
pub(super) struct Case<W> {
    /// The slice of the run.
    pub(super) slice: i16,
    /// Its subject.
    pub(super) subject: Subject,
    /// What was prepared, and what the sessions tell.
    pub(super) world: W,
    steps: Arc<AtomicUsize>,
}

impl<W> Case<W> {
    /// How many steps were done.
    pub(super) fn now(&self) -> usize {
        self.steps.load(Ordering::SeqCst)
    }
}

type Run = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What one session does.
pub(super) struct Session<W> {
    run: Box<dyn Fn(Store, Arc<Case<W>>) -> Run>,
    is_unreliable: bool,
}

/// A session whose connection holds.
pub(super) fn session<W, F: Future<Output = ()> + Send + 'static>(
    run: impl Fn(Store, Arc<Case<W>>) -> F + 'static,
) -> Session<W> {
    Session { run: Box::new(move |store, case| Box::pin(run(store, case))), is_unreliable: false }
}

/// A session that one fault of its connection may befall, at any of its statements.
pub(super) fn unreliable<W, F: Future<Output = ()> + Send + 'static>(
    run: impl Fn(Store, Arc<Case<W>>) -> F + 'static,
) -> Session<W> {
    Session { is_unreliable: true, ..session(run) }
}

/// What was tried.
#[derive(Debug)]
pub(super) struct Explored {
    /// Orders.
    pub(super) orders: usize,
    /// Of those, with a session that waited for another.
    pub(super) blocked: usize,
}

/// An order that breaks a rule.
pub(super) struct Counterexample {
    pub(super) reason: String,
    trail: Vec<Choice>,
}

impl fmt::Debug for Counterexample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.reason)?;
        for Choice { options, taken, .. } in &self.trail {
            let step = &options[*taken];
            let statement: String = step.statement.chars().take(90).collect();
            writeln!(f, "  session {} {:?} {statement}", step.session, step.verdict)?;
        }
        Ok(())
    }
}

/// Something that can be done next.
struct Step {
    session: usize,
    line: usize,
    verdict: Verdict,
    statement: String,
}

/// A step that was chosen among others.
struct Choice {
    options: Vec<Step>,
    taken: usize,
    /// Whether somebody waited for a lock.
    is_blocked: bool,
}

/// A session that runs.
struct Running {
    task: JoinHandle<()>,
    has_ended: Arc<AtomicBool>,
    has_failed: Arc<AtomicBool>,
    is_unreliable: bool,
}

impl Bench {
    /// A bench for up to `sessions` sessions.
    pub(super) async fn new(sessions: usize) -> Self {
        let url = store::testing::database_of(SliceCount::new(SLICES).unwrap()).await;
        let store = Store::connect(&Config::new(url.as_str())).await.unwrap();
        let pool = sqlx::PgPool::connect(&url).await.unwrap();
        let url = with_cheap_role(&pool, &url).await;
        let changes = watch::Sender::new(0);
        let (mut gates, mut stores) = (Vec::new(), Vec::new());
        for _ in 0..sessions {
            let gate = Gate::before(&url, changes.clone()).await;
            let config = Config { max_connections: 1, ..Config::new(gate.url.as_str()) };
            stores.push(Store::connect(&config).await.unwrap());
            gates.push(gate);
        }
        Self {
            subjects: subjects(&store),
            observer: PgConnection::connect(&url).await.unwrap(),
            db: Db { store, pool, url },
            gates,
            stores,
            changes,
            steps: Arc::default(),
            next_slice: 0,
        }
    }

    /// Tries all orders: prepares a slice, runs the sessions, checks what came of it.
    pub(super) async fn explore<W: Send + Sync + 'static>(
        &mut self,
        prepare: impl AsyncFn(&Db, i16, &Subject) -> W,
        sessions: &[Session<W>],
        check: impl AsyncFn(&Db, &Case<W>) -> Result<(), String>,
    ) -> Result<Explored, Counterexample> {
        let (mut plan, mut orders, mut blocked) = (Vec::new(), 0, 0);
        loop {
            let trail = self.run(&plan, &prepare, sessions, &check).await?;
            orders += 1;
            blocked += usize::from(trail.iter().any(|choice| choice.is_blocked));
            // The last choice that has another side.
            let Some(last) = trail.iter().rposition(|c| c.taken + 1 < c.options.len()) else {
                return Ok(Explored { orders, blocked });
            };
            plan = trail[..=last].iter().map(|choice| choice.taken).collect();
            plan[last] += 1;
        }
    }

    /// Runs the sessions once: the choices of `plan`, then the first of each.
    async fn run<W: Send + Sync + 'static>(
        &mut self,
        plan: &[usize],
        prepare: &impl AsyncFn(&Db, i16, &Subject) -> W,
        sessions: &[Session<W>],
        check: &impl AsyncFn(&Db, &Case<W>) -> Result<(), String>,
    ) -> Result<Vec<Choice>, Counterexample> {
        let slice = self.next_slice;
        assert!(slice < SLICES, "more orders than slices: make the script smaller");
        self.next_slice += 1;
        let subject = self.subjects[usize::try_from(slice).unwrap()].clone();
        let world = prepare(&self.db, slice, &subject).await;
        self.steps.store(0, Ordering::SeqCst);
        let case = Arc::new(Case { slice, subject, world, steps: self.steps.clone() });
        let running = self.start(sessions, &case);
        let mut trail = Vec::new();
        let stepped = self.step_all(plan, slice, &running, &mut trail).await;
        for gate in &self.gates {
            gate.set_open(true);
        }
        let ended = match stepped {
            Ok(()) => check(&self.db, &case).await,
            Err(reason) => Err(reason),
        };
        let Err(reason) = ended else { return Ok(trail) };
        for running in &running {
            running.task.abort();
        }
        Err(Counterexample { reason, trail })
    }

    fn start<W: Send + Sync + 'static>(
        &self,
        sessions: &[Session<W>],
        case: &Arc<Case<W>>,
    ) -> Vec<Running> {
        let start = |(n, session): (usize, &Session<W>)| {
            self.gates[n].set_open(false);
            let has_ended = Arc::new(AtomicBool::new(false));
            let (run, changes) =
                ((session.run)(self.stores[n].clone(), case.clone()), self.changes.clone());
            let ended = has_ended.clone();
            let has_failed = Arc::new(AtomicBool::new(false));
            let failed = has_failed.clone();
            let task = tokio::spawn(async move {
                let ending = AssertUnwindSafe(run).catch_unwind().await;
                failed.store(ending.is_err(), Ordering::SeqCst);
                ended.store(true, Ordering::SeqCst);
                changes.send_modify(|n| *n += 1);
            });
            Running { task, has_ended, has_failed, is_unreliable: session.is_unreliable }
        };
        sessions.iter().enumerate().map(start).collect()
    }

    /// Steps the sessions to their ends.
    async fn step_all(
        &mut self,
        plan: &[usize],
        slice: i16,
        running: &[Running],
        trail: &mut Vec<Choice>,
    ) -> Result<(), String> {
        loop {
            let is_blocked = self.settle(running).await?;
            self.look(slice).await?;
            let may_fail = trail.iter().all(|c| c.options[c.taken].verdict == Verdict::Pass);
            let options = self.options(running, may_fail);
            if options.is_empty() {
                return if is_blocked { Err("nobody can go on".to_owned()) } else { Ok(()) };
            }
            let taken = plan.get(trail.len()).copied().unwrap_or_default();
            let step = options.get(taken).ok_or("the same order led elsewhere")?;
            self.gates[step.session].decide(step.line, step.verdict);
            self.steps.fetch_add(1, Ordering::SeqCst);
            trail.push(Choice { options, taken, is_blocked });
        }
    }

    /// Waits until no session can go on by itself; returns whether one waits for a lock.
    async fn settle(&mut self, running: &[Running]) -> Result<bool, String> {
        let mut changes = self.changes.subscribe();
        loop {
            changes.borrow_and_update();
            let mut working = Vec::new();
            let mut going = Vec::new();
            let mut is_thinking = false;
            for (gate, running) in self.gates.iter().zip(running) {
                let has_ended = running.has_ended.load(Ordering::SeqCst);
                if running.has_failed.load(Ordering::SeqCst) {
                    return Err("a session panicked".to_owned());
                }
                let (mut is_busy, mut is_between) = (false, !has_ended);
                for line in gate.lines().iter() {
                    if line.is_closed {
                        // A pid of 0 is one that was seen to be gone.
                        going.extend((line.pid != 0).then_some(line.pid));
                        continue;
                    }
                    working.extend((line.in_flight > 0).then_some(line.pid));
                    let is_idle = line.in_flight == 0 && line.held.is_none();
                    is_busy |= !is_idle && !line.is_late;
                    // On the way to its end, or to its rollback.
                    is_between |= is_idle && line.in_transaction;
                    is_thinking |= is_idle && line.is_late;
                }
                is_thinking |= is_between && !is_busy;
            }
            if is_thinking {
                let came = timeout(PATIENCE, changes.changed()).await;
                came.map_err(|_| "a session does not come to its next statement")?.unwrap();
                continue;
            }
            if working.is_empty() && going.is_empty() {
                return Ok(false);
            }
            if !working.is_empty() && timeout(SOON, changes.changed()).await.is_ok() {
                continue;
            }
            // In this order: who has gone held locks.
            let is_settled = self.are_gone(&going).await && self.are_blocked(&working).await;
            if is_settled && !changes.has_changed().unwrap() {
                self.forget_gone();
                return Ok(!working.is_empty());
            }
        }
    }

    fn forget_gone(&self) {
        for gate in &self.gates {
            gate.lines().iter_mut().filter(|line| line.is_closed).for_each(|line| line.pid = 0);
        }
    }

    /// Whether all these processes wait for locks that others hold.
    async fn are_blocked(&mut self, pids: &[i32]) -> bool {
        sqlx::query_scalar(
            "SELECT coalesce(bool_and(cardinality(pg_blocking_pids(pid)) > 0), true)
               FROM unnest($1) AS pid",
        )
        .bind(pids)
        .fetch_one(&mut self.observer)
        .await
        .unwrap()
    }

    /// Whether all these processes have ended, and so rolled back.
    async fn are_gone(&mut self, pids: &[i32]) -> bool {
        sqlx::query_scalar("SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = ANY ($1))")
            .bind(pids)
            .fetch_one(&mut self.observer)
            .await
            .unwrap()
    }

    fn options(&self, running: &[Running], may_fail: bool) -> Vec<Step> {
        let mut options = Vec::new();
        for (session, (gate, running)) in self.gates.iter().zip(running).enumerate() {
            for (line, state) in gate.lines().iter().enumerate() {
                let Some(statement) = state.held.clone().filter(|_| !state.is_closed) else {
                    continue;
                };
                let mut add = |verdict| {
                    options.push(Step { session, line, verdict, statement: statement.clone() });
                };
                add(Verdict::Pass);
                if may_fail && running.is_unreliable && !state.is_late {
                    [Verdict::Lose, Verdict::Delay].into_iter().for_each(add);
                }
            }
        }
        options
    }

    /// Looks at a slice in one snapshot: dense, as long as its head says, its clock not running
    /// back, no checkpoint beyond it.
    async fn look(&mut self, slice: i16) -> Result<(), String> {
        let row = sqlx::query(
            "SELECT h.position = count(e.position) AND h.position = coalesce(max(e.position), 0) AS dense,
                    coalesce(bool_and(e.recorded_at >= e.before), true) AS ordered,
                    (SELECT max(c.position) FROM tallylight.checkpoint c WHERE c.slice = $1)
                        <= h.position AS within
               FROM tallylight.slice_head h
               LEFT JOIN (SELECT position, recorded_at,
                                 lag(recorded_at) OVER (ORDER BY position) AS before
                            FROM tallylight.event WHERE slice = $1) AS e ON true
              WHERE h.slice = $1 GROUP BY h.position",
        )
        .bind(slice)
        .fetch_one(&mut self.observer)
        .await
        .unwrap();
        for (rule, reason) in [
            ("dense", "positions are not those from 1 to the head"),
            ("ordered", "recorded_at falls"),
            ("within", "a checkpoint is beyond the head"),
        ] {
            if !row.get::<bool, _>(rule) {
                return Err(reason.to_owned());
            }
        }
        Ok(())
    }
}

/// A role for the gates, for which a connection and a commit are cheap.
async fn with_cheap_role(pool: &sqlx::PgPool, url: &str) -> String {
    let (_, place) = url.split_once('@').unwrap();
    let (_, name) = place.split_once('/').unwrap();
    // A role of its own for each bench: they are made at the same time.
    let create = format!(
        "CREATE ROLE {name} SUPERUSER LOGIN PASSWORD '{VERIFIER}';
         ALTER ROLE {name} SET synchronous_commit = off"
    );
    pool.execute(AssertSqlSafe(create)).await.unwrap();
    format!("postgres://{name}:bench@{place}")
}

/// One subject of each slice, in the order of the slices.
fn subjects(store: &Store) -> Vec<Subject> {
    let mut found = vec![None; usize::try_from(SLICES).unwrap()];
    let mut missing = found.len();
    for n in 0.. {
        let subject = Subject::object("bench", "stream", n);
        let place = &mut found[usize::try_from(store.slice_of(&subject)).unwrap()];
        if place.replace(subject).is_none() {
            missing -= 1;
        }
        if missing == 0 {
            break;
        }
    }
    found.into_iter().flatten().collect()
}
