//! Durable waits, on PostgreSQL and in memory alike: steps, children, events, and the words that
//! travel between jobs.

use std::time::{Duration, Instant, SystemTime};

use domain::ids::{Subject, Timestamp};
use serde_json::json;
use store::Consumer::{Jobs, React};
use store::testing::Memory;
use store::{
    Awaits, Begin, Child, DueJob, Ending, EnqueueOptions, Error, EventWait, Finish, OnCancel,
    OnFailure, PlainJob, Reacting, Reaction, Relay, Step, Ties, WaitFor, Word, Work,
};
use uuid::Uuid;

use crate::support::{LONG, READ_NOW, db, event, login};

mod enqueued;
mod rounds;

/// A store whose jobs all belong to one process.
struct World {
    name: &'static str,
    store: Box<dyn Work>,
    process: Uuid,
    epochs: Vec<i64>,
}

/// Both stores.
async fn both() -> [World; 2] {
    let db = db().await;
    let memory = Memory::new(db.store.slices(), || SystemTime::now().into());
    [
        World::new("PostgreSQL", Box::new(db.store)).await,
        World::new("memory", Box::new(memory)).await,
    ]
}

impl World {
    async fn new(name: &'static str, store: Box<dyn Work>) -> Self {
        let process = Uuid::now_v7();
        let mut epochs = Vec::new();
        for slice in store.slices().slices() {
            epochs.push(store.claim(Jobs, slice, process, LONG).await.unwrap().unwrap().epoch);
        }
        Self { name, store, process, epochs }
    }

    fn epoch(&self, slice: i16) -> i64 {
        self.epochs[usize::try_from(slice).unwrap()]
    }

    /// A job of its own subject.
    async fn enqueue(&self) -> Uuid {
        let subject = Some(format!("own/{}", Uuid::now_v7()));
        let options = EnqueueOptions { subject, ..EnqueueOptions::default() };
        self.store.enqueue("plain", &json!({}), &options).await.unwrap()
    }

    async fn due(&self) -> Vec<DueJob> {
        self.store.due_jobs(self.process, None, 20_000, "").await.unwrap()
    }

    async fn is_due(&self, id: Uuid) -> bool {
        self.due().await.iter().any(|job| job.id == id)
    }

    /// Starts a job that is due.
    async fn start(&self, id: Uuid) -> Run {
        let due = self.due().await.into_iter().find(|job| job.id == id);
        let due = due.unwrap_or_else(|| panic!("{}: it is not due", self.name));
        let epoch = self.epoch(due.slice);
        let started = self.store.mark_started(due.slice, epoch, &[id]).await.unwrap();
        Run { id, slice: due.slice, epoch, attempt: started[0].attempt }
    }

    async fn begin(&self, run: &Run, name: &str, begin: Begin) -> Step {
        self.try_begin(run, name, begin).await.unwrap().expect("it is the present run")
    }

    async fn try_begin(&self, run: &Run, name: &str, begin: Begin) -> Result<Option<Step>, Error> {
        self.store.begin_step(run.slice, run.epoch, (run.id, run.attempt), name, &begin).await
    }

    async fn end(&self, run: &Run, ending: Ending) {
        self.end_with(run, ending, Vec::new()).await;
    }

    async fn end_with(&self, run: &Run, ending: Ending, events: Vec<domain::event::NewEvent>) {
        let finish = Finish { id: run.id, attempt: run.attempt, ending, events };
        let ended = self.store.finish(run.slice, run.epoch, &[finish]).await.unwrap();
        assert!(ended.contains(&run.id), "{}", self.name);
    }

    async fn wait(&self, run: &Run, step: &str) {
        self.end(run, Ending::Wait { step: step.to_owned() }).await;
    }

    /// Performs all relays, twice each, as if every answer had been lost once. Returns how many.
    async fn relay(&self) -> usize {
        let mut performed = 0;
        for job in self.due().await.into_iter().filter(|job| job.kind == "relay") {
            let relay: Relay = serde_json::from_value(job.args.clone()).unwrap();
            for _ in 0..2 {
                match &relay {
                    Relay::Tell { to, word } => {
                        self.store.relay(*to, std::slice::from_ref(word)).await.unwrap();
                    }
                    Relay::Cancel { to, jobs } => {
                        self.store.cancel_unstarted(*to, jobs).await.unwrap();
                    }
                    Relay::Await(wait) => self.store.await_event(wait).await.unwrap(),
                }
            }
            let epoch = self.epoch(job.slice);
            let run = Run { id: job.id, slice: job.slice, epoch, attempt: job.attempt };
            self.end(&run, Ending::Completed).await;
            performed += 1;
        }
        performed
    }

    /// A started job whose step `parts` has that many children, and their ids.
    async fn family(&self, count: usize, ties: Ties) -> (Run, Vec<Uuid>) {
        let parent = self.start(self.enqueue().await).await;
        let children = children(count);
        self.begin(&parent, "parts", Begin::Children { children, ties }).await;
        let children = self.children(&parent).await;
        (parent, children.into_iter().map(|child| child.id).collect())
    }

    async fn children(&self, parent: &Run) -> Vec<Child> {
        self.store.children(parent.slice, parent.id, "parts").await.unwrap()
    }

    /// Starts a job and ends it.
    async fn run(&self, id: Uuid, ending: Ending) {
        let run = self.start(id).await;
        let told = json!({"job": id, "kind": "plain", "attempt": run.attempt, "value": "done"});
        let mut outcome = event(&Subject::job(id), told.to_string());
        "JobCompleted".clone_into(&mut outcome.event_type);
        let is_done = ending == Ending::Completed;
        self.end_with(&run, ending, if is_done { vec![outcome] } else { Vec::new() }).await;
    }

    async fn is_cancelled(&self, id: Uuid) -> bool {
        let cancelled = self.store.cancellations(self.process).await.unwrap();
        cancelled.iter().any(|one| one.job.id == id)
    }
}

/// A start of a job.
#[derive(Debug, Clone, Copy)]
struct Run {
    id: Uuid,
    slice: i16,
    epoch: i64,
    attempt: i32,
}

/// Plain jobs, each with a subject of its own.
fn children(count: usize) -> Vec<PlainJob> {
    let child = |n: usize| PlainJob {
        kind: "plain".to_owned(),
        args: json!({ "n": n }),
        options: EnqueueOptions::default(),
    };
    (1..=count).map(child).collect()
}

fn discarded() -> Ending {
    Ending::Discarded { error: "broken\0pipe".to_owned() }
}

fn ties(on_failure: OnFailure) -> Ties {
    Ties { on_failure, ..Ties::default() }
}

fn awaits(subject: &Subject, after: i64) -> Awaits {
    Awaits { subject: subject.clone(), types: vec!["Tested".to_owned()], after }
}

#[tokio::test]
async fn a_step_is_kept_once_and_by_the_present_run_alone() {
    for w in both().await {
        let run = w.start(w.enqueue().await).await;
        let first = w.begin(&run, "charge", Begin::Value(json!(1))).await;
        assert!(first.is_closed && first.value == Some(json!(1)), "{}", w.name);
        let again = w.begin(&run, "charge", Begin::Value(json!(2))).await;
        assert_eq!(again, first, "{}", w.name);
        let former = Run { attempt: 0, ..run };
        let by_former = w.try_begin(&former, "late", Begin::Value(json!(3))).await.unwrap();
        assert_eq!(by_former, None, "{}", w.name);
        let zombie = Run { epoch: run.epoch - 1, ..run };
        let by_zombie = w.try_begin(&zombie, "late", Begin::Value(json!(3))).await;
        assert!(matches!(by_zombie, Err(Error::Fenced { .. })), "{}: {by_zombie:?}", w.name);

        let retry = Ending::Retry { error: "no".to_owned(), after: Duration::ZERO };
        w.end(&run, retry).await;
        let due = w.due().await.into_iter().find(|job| job.id == run.id).unwrap();
        assert!(due.waits.unwrap()["steps"].get("charge").is_some(), "{}", w.name);
        assert_eq!(w.store.steps(run.slice, run.id).await.unwrap(), [first], "{}", w.name);
        let next = w.start(run.id).await;
        w.end(&next, Ending::Completed).await;
        assert_eq!(w.store.steps(run.slice, run.id).await.unwrap(), [], "{}", w.name);
    }
}

#[tokio::test]
async fn a_job_sleeps_until_its_time_and_counts_nothing() {
    for w in both().await {
        let run = w.start(w.enqueue().await).await;
        let step = w.begin(&run, "night", Begin::Sleep(Duration::from_hours(8))).await;
        assert!(!step.is_over && !step.is_closed, "{}", w.name);
        w.wait(&run, "night").await;
        assert!(!w.is_due(run.id).await, "{}", w.name);
        let wait = w.store.next_due_in(w.process, &READ_NOW).await.unwrap().unwrap();
        assert!(wait > Duration::from_hours(7) && wait <= Duration::from_hours(8), "{}", w.name);

        let run = w.start(w.enqueue().await).await;
        let step = w.begin(&run, "no time", Begin::Sleep(Duration::ZERO)).await;
        assert!(step.is_over, "{}", w.name);
        w.wait(&run, "no time").await;
        let due = w.due().await.into_iter().find(|job| job.id == run.id).unwrap();
        assert_eq!((due.attempt, due.errors), (1, 0), "{}", w.name);
    }
}

#[tokio::test]
async fn a_parent_is_due_when_the_last_child_has_ended_and_finds_how_each_did() {
    for w in both().await {
        let (parent, ids) = w.family(3, Ties::default()).await;
        w.wait(&parent, "parts").await;
        w.run(ids[2], Ending::Completed).await;
        w.run(ids[0], discarded()).await;
        assert_eq!(w.relay().await, 2, "{}", w.name);
        assert!(!w.is_due(parent.id).await, "{}: one has not ended", w.name);
        w.run(ids[1], Ending::Completed).await;
        assert!(!w.is_due(parent.id).await, "{}: its word is under way", w.name);
        assert_eq!(w.relay().await, 1, "{}", w.name);
        assert!(w.is_due(parent.id).await, "{}", w.name);

        let state = |child: Child| (child.state.unwrap(), child.value, child.error);
        let ended: Vec<_> = w.children(&parent).await.into_iter().map(state).collect();
        let done = ("completed".to_owned(), Some(json!("done")), None);
        let failed = ("discarded".to_owned(), None, Some("broken\u{fffd}pipe".to_owned()));
        assert_eq!(ended, [failed, done.clone(), done], "{}", w.name);
        let next = w.start(parent.id).await;
        w.end(&next, Ending::Completed).await;
        assert!(w.children(&parent).await.is_empty(), "{}", w.name);
    }
}

#[tokio::test]
async fn what_ends_while_its_parent_still_runs_is_not_missed() {
    for w in both().await {
        let (parent, ids) = w.family(1, Ties::default()).await;
        w.run(ids[0], Ending::Completed).await;
        w.relay().await;
        w.wait(&parent, "parts").await;
        assert!(w.is_due(parent.id).await, "{}", w.name);
    }
}

#[tokio::test]
async fn children_are_enqueued_once_however_often_their_parent_starts() {
    for w in both().await {
        let (parent, ids) = w.family(2, Ties::default()).await;
        w.end(&parent, Ending::Released).await;
        let again = w.start(parent.id).await;
        let begin = Begin::Children { children: children(5), ties: Ties::default() };
        w.begin(&again, "parts", begin).await;
        let now: Vec<Uuid> = w.children(&parent).await.iter().map(|child| child.id).collect();
        assert_eq!(now, ids, "{}", w.name);
        assert_eq!(w.due().await.len(), 2, "{}", w.name);
    }
}

#[tokio::test]
async fn a_child_that_is_refused_leaves_nothing() {
    for w in both().await {
        let run = w.start(w.enqueue().await).await;
        let mut children = children(2);
        children[1].options.key = Some("taken".to_owned());
        let begin = Begin::Children { children, ties: Ties::default() };
        let refused = w.try_begin(&run, "parts", begin).await;
        assert!(matches!(refused, Err(Error::Invalid { .. })), "{}: {refused:?}", w.name);
        assert!(w.due().await.is_empty() && w.children(&run).await.is_empty(), "{}", w.name);
        assert_eq!(w.store.steps(run.slice, run.id).await.unwrap(), [], "{}", w.name);
    }
}

fn child_word(parent: &Run, n: i32, rank: i32, state: &str) -> Word {
    Word {
        job: parent.id,
        step: "parts".to_owned(),
        subject: None,
        n: Some(n),
        rank: Some(rank),
        state: Some(state.to_owned()),
        value: None,
        error: Some(format!("error {rank}")),
    }
}

#[tokio::test]
async fn a_dead_child_is_waited_for_where_asked_until_a_retry_of_it_succeeds() {
    for w in both().await {
        let (parent, _) = w.family(2, ties(OnFailure::Wait)).await;
        w.wait(&parent, "parts").await;
        let tell = async |n, rank, state: &str| {
            let word = child_word(&parent, n, rank, state);
            w.store.relay(parent.slice, &[word]).await.unwrap();
        };
        tell(1, 3, "completed").await;
        tell(2, 4, "discarded").await;
        assert!(!w.is_due(parent.id).await, "{}", w.name);
        tell(2, 7, "completed").await;
        assert!(w.is_due(parent.id).await, "{}", w.name);
        // The word of its death, which was on its way for long.
        tell(2, 4, "discarded").await;
        let states = w.children(&parent).await.into_iter().map(|child| child.state.unwrap());
        assert_eq!(states.collect::<Vec<_>>(), ["completed", "completed"], "{}", w.name);
    }
}

#[tokio::test]
async fn a_dead_child_that_is_cancelled_or_thrown_away_is_waited_for_no_more() {
    for w in both().await {
        let (parent, _) = w.family(1, ties(OnFailure::Wait)).await;
        w.wait(&parent, "parts").await;
        let words =
            [child_word(&parent, 1, 4, "discarded"), child_word(&parent, 1, 5, "cancelled")];
        w.store.relay(parent.slice, &words).await.unwrap();
        assert!(w.is_due(parent.id).await, "{}", w.name);
    }
}

#[tokio::test]
async fn a_child_that_fails_cancels_its_parent_and_the_others_where_asked() {
    for w in both().await {
        let (parent, ids) = w.family(3, ties(OnFailure::Cancel)).await;
        w.wait(&parent, "parts").await;
        let running = w.start(ids[1]).await;
        w.run(ids[0], discarded()).await;
        w.relay().await;
        assert!(w.is_cancelled(parent.id).await, "{}", w.name);
        let run = Run { attempt: parent.attempt, ..parent };
        w.end(&run, Ending::Cancelled { reason: "cancelled".to_owned() }).await;
        w.relay().await;
        assert!(w.is_cancelled(ids[2]).await, "{}: it waited", w.name);
        assert!(!w.is_cancelled(ids[1]).await, "{}: it runs", w.name);
        w.end(&running, Ending::Completed).await;
        assert_eq!(w.relay().await, 1, "{}: nobody is there to hear it", w.name);
    }
}

#[tokio::test]
async fn children_of_a_cancelled_parent_run_on_where_asked() {
    for w in both().await {
        let keep = Ties { on_cancel: OnCancel::Keep, ..Ties::default() };
        let (parent, ids) = w.family(1, keep).await;
        w.end(&parent, Ending::Cancelled { reason: "no more".to_owned() }).await;
        assert_eq!(w.relay().await, 0, "{}", w.name);
        assert!(w.is_due(ids[0]).await && !w.is_cancelled(ids[0]).await, "{}", w.name);
    }
}

/// Appends an event and lets the slice's follower apply all that is there.
async fn react(w: &World, subject: &Subject) -> i64 {
    w.store.append_one(event(subject, "{}")).await.unwrap();
    let slice = w.store.slice_of(subject);
    let lease = w.store.claim(React, slice, w.process, LONG).await.unwrap().unwrap();
    let to = w.store.heads(&[slice]).await.unwrap()[0].1;
    let reaction = Reaction { to, ..Reaction::default() };
    let one = [Reacting { lease: &lease, reaction: &reaction }];
    let committed = w.store.commit_reactions(&one, LONG).await.unwrap().remove(0).unwrap();
    w.store.release(React, slice, committed.lease.epoch).await.unwrap();
    to
}

/// A job that waits for an event of a subject.
async fn waiting(w: &World, subject: &Subject, timeout: Duration) -> (Run, EventWait) {
    let run = w.start(w.enqueue().await).await;
    let awaits = awaits(subject, 0);
    let begin = Begin::Event { awaits: awaits.clone(), timeout };
    let step = w.begin(&run, "approved", begin).await;
    let (step, until) = (step.name.clone(), step.until.unwrap());
    let wait = EventWait { job_slice: run.slice, job: run.id, step, awaits, until };
    w.store.await_event(&wait).await.unwrap();
    w.wait(&run, "approved").await;
    (run, wait)
}

#[tokio::test]
async fn the_reaction_to_an_event_wakes_who_waits_for_it_in_whatever_slice() {
    for w in both().await {
        let subject = Subject::from_stored("orders/7".to_owned());
        let other = Subject::from_stored("orders/8".to_owned());
        let (run, _) = waiting(&w, &subject, Duration::from_hours(1)).await;
        react(&w, &other).await;
        assert_eq!(w.relay().await, 0, "{}", w.name);
        let position = react(&w, &subject).await;
        assert!(!w.is_due(run.id).await, "{}", w.name);
        assert_eq!(w.relay().await, 1, "{}", w.name);
        assert!(w.is_due(run.id).await, "{}", w.name);
        let steps = w.store.steps(run.slice, run.id).await.unwrap();
        let place = json!({"slice": w.store.slice_of(&subject), "position": position});
        assert_eq!((steps[0].is_closed, &steps[0].value), (true, &Some(place)), "{}", w.name);
        react(&w, &subject).await;
        assert_eq!(w.relay().await, 0, "{}: it does not wait any more", w.name);
    }
}

#[tokio::test]
async fn of_an_event_and_the_end_of_its_time_one_is_the_outcome() {
    for w in both().await {
        let subject = Subject::from_stored("orders/9".to_owned());
        let (run, wait) = waiting(&w, &subject, Duration::ZERO).await;
        assert!(w.is_due(run.id).await, "{}: its time is over", w.name);
        let met = [wait.met(w.store.slice_of(&subject), 1)];
        let given_up = w.store.give_up_step(run.slice, run.epoch, run.id, "approved").await;
        let given_up = given_up.unwrap().unwrap();
        assert!(given_up.is_closed && given_up.value.is_none(), "{}", w.name);
        w.store.relay(run.slice, &met).await.unwrap();
        let steps = w.store.steps(run.slice, run.id).await.unwrap();
        assert_eq!(steps, [given_up], "{}: the event came too late", w.name);

        let (run, wait) = waiting(&w, &subject, Duration::ZERO).await;
        let met = [wait.met(w.store.slice_of(&subject), 1)];
        w.store.relay(run.slice, &met).await.unwrap();
        let kept = w.store.give_up_step(run.slice, run.epoch, run.id, "approved").await;
        assert!(kept.unwrap().unwrap().value.is_some(), "{}: the event came first", w.name);
    }
}

#[tokio::test]
async fn a_word_does_not_cut_the_wait_of_a_retry_short() {
    for w in both().await {
        let (parent, ids) = w.family(1, Ties::default()).await;
        w.begin(&parent, "night", Begin::Sleep(Duration::from_hours(1))).await;
        let after = Duration::from_hours(1);
        w.end(&parent, Ending::Retry { error: "no".to_owned(), after }).await;
        w.run(ids[0], Ending::Completed).await;
        w.relay().await;
        assert!(!w.is_due(parent.id).await, "{}", w.name);
    }
}

#[tokio::test]
async fn a_job_that_recurs_begins_with_no_steps_again() {
    for w in both().await {
        let run = w.start(w.enqueue().await).await;
        w.begin(&run, "once a round", Begin::Value(json!(1))).await;
        w.end(&run, Ending::Again { after: Duration::ZERO }).await;
        assert_eq!(w.store.steps(run.slice, run.id).await.unwrap(), [], "{}", w.name);
        let due = w.due().await.into_iter().find(|job| job.id == run.id).unwrap();
        assert_eq!(due.waits, None, "{}", w.name);
    }
}
