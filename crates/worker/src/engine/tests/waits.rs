//! Handlers with steps, in virtual time over the store in memory, where nights pass and lines break,
//! and on PostgreSQL.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64};

use futures_util::future::BoxFuture;
use store::{Log as _, OnFailure, PlainJob, Ties};

use super::*;
use crate::jobs::JobError;
use crate::testing::{Run, Script};
use crate::{Steps, WaitFor, Waited};

/// A long wait, of time that passes at no cost but that of the polls in it.
const NIGHT: Duration = Duration::from_secs(20);

/// Handlers with steps, and what they did.
#[derive(Debug, Clone, Default)]
struct Flows(Arc<Mutex<HashMap<String, u32>>>);

impl Flows {
    fn count(&self, what: &str) {
        *self.0.lock().unwrap().entry(what.to_owned()).or_default() += 1;
    }

    fn counted(&self, what: &str) -> u32 {
        self.0.lock().unwrap().get(what).copied().unwrap_or_default()
    }
}

impl Script for Flows {
    fn knows(&self, kind: &str) -> bool {
        kind.starts_with("test_")
    }

    fn is_marked(&self, kind: &str) -> bool {
        kind != "test_light"
    }

    fn run(&self, _: Run) -> BoxFuture<'static, Result<Done, JobError>> {
        unreachable!("it runs with steps")
    }

    fn run_with(&self, run: Run, steps: Steps) -> BoxFuture<'static, Result<Done, JobError>> {
        let flows = self.clone();
        Box::pin(async move {
            match run.kind.as_str() {
                "test_flow" | "test_light" => flow(&flows, &run, &steps).await,
                "test_quiet" => Ok(Done::Quiet),
                "test_family" => family(&run, &steps).await,
                "test_child" => Ok(Done::Value(run.args["n"].clone())),
                "test_approval" => approval(&run, &steps).await,
                "test_twice" => {
                    let one = || async { Ok(1) };
                    steps.step("same", one).await?;
                    steps.step("same", one).await.map(|n: i32| Done::Value(json!(n)))
                }
                "test_big" => {
                    let big = || async { Ok("x".repeat(100_000)) };
                    steps.step("big", big).await.map(|text: String| Done::Value(json!(text)))
                }
                kind => panic!("unknown {kind}"),
            }
        })
    }
}

/// Two steps with a night between them; the first start after the night fails.
async fn flow(flows: &Flows, run: &Run, steps: &Steps) -> Result<Done, JobError> {
    let charge = || async {
        flows.count("charged");
        Ok(41)
    };
    let charged: i32 = steps.step("charge", charge).await?;
    steps.sleep("night", NIGHT).await?;
    flows.count("woke");
    if flows.counted("woke") == 1 {
        return Err(JobError::retry("not yet"));
    }
    let ship = || async {
        flows.count("shipped");
        Ok(charged + 1)
    };
    let shipped: i32 = steps.step("ship", ship).await?;
    Ok(Done::Value(json!({"shipped": shipped, "start": run.attempt})))
}

fn child(n: i64) -> PlainJob {
    let options = EnqueueOptions::default();
    PlainJob { kind: "test_child".to_owned(), args: json!({ "n": n }), options }
}

/// The values of its children, in their order.
async fn family(run: &Run, steps: &Steps) -> Result<Done, JobError> {
    let count = run.args["children"].as_i64().unwrap_or_default();
    let kind = run.args["kind"].as_str().unwrap_or("test_child");
    let all = || (1..=count).map(|n| PlainJob { kind: kind.to_owned(), ..child(n) }).collect();
    let children = steps.children("children", all, Ties::default()).await?;
    Ok(Done::Value(children.into_iter().map(|child| child.value.unwrap_or_default()).collect()))
}

async fn approval(run: &Run, steps: &Steps) -> Result<Done, JobError> {
    let subject = Subject::from_stored(run.args["of"].as_str().unwrap().to_owned());
    let event = WaitFor::new(subject, NIGHT).types(["Approved"]);
    let told = match steps.wait_for("approved", event).await? {
        Waited::Event(event) => json!({ "by": event.payload.len() }),
        Waited::TimedOut => json!("timed out"),
    };
    Ok(Done::Value(told))
}

fn in_virtual_time() -> Memory {
    let (begun, started) = (now(), Instant::now());
    Memory::new(SliceCount::DEFAULT, move || begun + started.elapsed())
}

fn worker(memory: &Memory, flows: &Flows) -> Worker {
    let script = Arc::new(flows.clone());
    Worker::start(Context::scripted(memory.clone(), config(), Uuid::now_v7(), script))
}

async fn add(memory: &Memory, kind: &str, args: Value) -> Uuid {
    memory.enqueue(kind, &args, &EnqueueOptions::default()).await.unwrap()
}

/// The outcome of a job, once it has one, in virtual time.
async fn ended(store: &Memory, id: Uuid) -> Event {
    let begun = Instant::now();
    loop {
        let events = store.read_subject(&Subject::job(id), 0, 10).await.unwrap();
        if let Some(event) = events.last() {
            return Event::decode(event);
        }
        assert!(begun.elapsed() < NIGHT * 10, "it does not end");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn value(event: Event) -> Value {
    let Event::JobCompleted(ended) = event else { panic!("{event:?}") };
    ended.value.unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn a_handler_goes_on_where_its_last_start_came_to() {
    let (memory, flows) = (in_virtual_time(), Flows::default());
    let id = add(&memory, "test_flow", json!({})).await;
    let begun = Instant::now();
    let first = worker(&memory, &flows);
    let is_waiting = |memory: &Memory| memory.look(|t| t.slices.iter().any(|s| s.steps.len() == 2));
    while !is_waiting(&memory) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Another process wakes it in the morning.
    first.shutdown().await;
    let second = worker(&memory, &flows);
    let told = value(ended(&memory, id).await);
    assert!(begun.elapsed() > NIGHT);
    assert_eq!((flows.counted("charged"), flows.counted("shipped")), (1, 1));
    assert_eq!(told["shipped"], json!(42));
    assert!(memory.look(|t| t.slices.iter().all(|s| s.steps.is_empty())), "its steps go with it");
    second.shutdown().await;
}

/// Kinds whose starts cost no write may have steps all the same: a step is a write of its own.
#[tokio::test(start_paused = true)]
async fn a_handler_whose_start_is_not_marked_has_steps_too() {
    let (memory, flows) = (in_virtual_time(), Flows::default());
    let id = add(&memory, "test_light", json!({})).await;
    let worker = worker(&memory, &flows);
    assert_eq!(value(ended(&memory, id).await)["shipped"], json!(42));
    assert_eq!((flows.counted("charged"), flows.counted("shipped")), (1, 1));
    worker.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_child_that_ends_quietly_has_completed_and_has_no_value() {
    let (memory, flows) = (in_virtual_time(), Flows::default());
    let id = add(&memory, "test_family", json!({"children": 1, "kind": "test_quiet"})).await;
    let worker = worker(&memory, &flows);
    assert_eq!(value(ended(&memory, id).await), json!([null]));
    worker.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_name_used_twice_and_a_value_too_big_fail_the_job() {
    let (memory, flows) = (in_virtual_time(), Flows::default());
    let twice = add(&memory, "test_twice", json!({})).await;
    let big = add(&memory, "test_big", json!({})).await;
    let worker = worker(&memory, &flows);
    for (id, reason) in [(twice, "used twice"), (big, "above 65536")] {
        let Event::JobDiscarded(told) = ended(&memory, id).await else { panic!("it is not dead") };
        assert!(told.error.as_ref().unwrap().contains(reason), "{told:?}");
    }
    worker.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_handler_gets_the_event_it_waits_for_or_is_told_that_it_did_not_come() {
    let (memory, flows) = (in_virtual_time(), Flows::default());
    let yes = Subject::from_stored("orders/1".to_owned());
    let approved = |subject: &Subject, n: u128| NewEvent {
        event_id: Uuid::from_u128(n),
        subject: subject.clone(),
        event_type: "Approved".to_owned(),
        schema_version: 1,
        key: None,
        received_at: now(),
        causation_id: None,
        correlation_id: None,
        meta: None,
        payload: b"{}".to_vec(),
    };
    memory.append_one(approved(&yes, 1)).await.unwrap();
    let heard = add(&memory, "test_approval", json!({"of": "orders/1"})).await;
    let late = add(&memory, "test_approval", json!({"of": "orders/2"})).await;
    let worker = worker(&memory, &flows);
    let waits = |memory: &Memory| -> usize {
        memory.look(|t| t.slices.iter().map(|s| s.event_waits.len()).sum())
    };
    while waits(&memory) < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    memory.append_one(approved(&yes, 2)).await.unwrap();
    assert_eq!(value(ended(&memory, heard).await), json!({"by": 2}));
    assert_eq!(value(ended(&memory, late).await), json!("timed out"));
    worker.shutdown().await;
}

/// A line that breaks again and again, by a seed, and at last for good.
#[derive(Debug, Default)]
struct Bad {
    dice: AtomicU64,
    is_cut: AtomicBool,
}

impl Bad {
    fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self { dice: AtomicU64::new(seed), ..Self::default() })
    }
}

impl Line for Bad {
    fn fate(&self, _: &'static str) -> Fate {
        if self.is_cut.load(Ordering::Relaxed) {
            return Fate::Refused;
        }
        let n = self.dice.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        let n = (n ^ (n >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 40;
        let while_it_lasts = Duration::from_millis(n % 7);
        match n % 100 {
            0..8 => Fate::Lost { there: while_it_lasts, heard: while_it_lasts * 2 },
            8..12 => Fate::Refused,
            _ => Fate::Answered { there: while_it_lasts / 3, back: while_it_lasts / 3 },
        }
    }
}

/// Lost answers, and a process that dies while children end: no end is missed or counted twice.
#[tokio::test(start_paused = true)]
async fn families_come_to_their_end_over_bad_lines_and_deaths() {
    for seed in [1, 7, 42] {
        let (memory, flows) = (in_virtual_time(), Flows::default());
        let mut parents = Vec::new();
        for _ in 0..4 {
            parents.push(add(&memory, "test_family", json!({"children": 40})).await);
        }
        let line = Bad::new(seed);
        let dies = worker(&memory.over(Arc::<Bad>::clone(&line)), &flows);
        let lives = worker(&memory.over(Bad::new(seed + 1000)), &flows);
        let some_ended = |memory: &Memory| {
            memory.look(|t| {
                let children = t.slices.iter().flat_map(|s| s.children.values());
                children.filter(|row| row.rank.is_some()).count() > 20
            })
        };
        while !some_ended(&memory) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        line.is_cut.store(true, Ordering::Relaxed);
        let values: Vec<i64> = (1..=40).collect();
        for id in parents {
            assert_eq!(value(ended(&memory, id).await), json!(values), "seed {seed}");
        }
        let left = memory.look(|t| t.slices.iter().map(|s| s.children.len()).sum::<usize>());
        assert_eq!(left, 0, "seed {seed}");
        lives.shutdown().await;
        drop(dies);
    }
}

#[tokio::test]
async fn a_family_of_many_slices_comes_to_its_end_on_postgresql() {
    let store = store::testing::store().await;
    let parent = PlainJob {
        kind: "test_family".to_owned(),
        args: json!({"children": 0}),
        options: EnqueueOptions::default(),
    };
    let children: Vec<PlainJob> = (1..=100).map(child).collect();
    let ties = Ties { on_failure: OnFailure::Wait, ..Ties::default() };
    let (enqueued, ids) = store.enqueue_parent(&parent, &children, ties, None).await.unwrap();
    assert_eq!(ids.len(), 100);
    let script = Arc::new(Flows::default());
    let worker = Worker::start(Context::scripted(store.clone(), config(), Uuid::now_v7(), script));
    let told = outcome(&store, &Subject::job(enqueued.id.unwrap())).await;
    let values: Vec<i64> = (1..=100).collect();
    assert_eq!(value(Event::decode(&told)), json!(values));
    worker.shutdown().await;
}
