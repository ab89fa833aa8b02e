//! What producers ask for: parents with children, and jobs that start with an event; what people do
//! about them; and what thousands of children cost.

use store::{DeadFilter, JobFilter};

use super::*;

fn plain(options: EnqueueOptions) -> PlainJob {
    PlainJob { kind: "plain".to_owned(), args: json!({}), options }
}

#[tokio::test]
async fn a_producer_enqueues_a_parent_that_is_due_after_its_children() {
    let db = db().await;
    let producer = sqlx::PgPool::connect(&login(&db, "producer").await).await.unwrap();
    let enqueued: Vec<(i32, Uuid, bool)> = sqlx::query_as(
        "SELECT n, id, is_new FROM tallylight.enqueue_parent(
           '{\"kind\": \"plain\", \"opts\": {\"key\": \"nightly\"}}',
           '[{\"kind\": \"plain\"}, {\"kind\": \"plain\", \"args\": {\"n\": 2}}]')",
    )
    .fetch_all(&producer)
    .await
    .unwrap();
    let ids: Vec<Uuid> = enqueued.iter().map(|(_, id, _)| *id).collect();
    assert_eq!(enqueued.iter().map(|(n, ..)| *n).collect::<Vec<_>>(), [0, 1, 2]);

    let parent = plain(EnqueueOptions { key: Some("nightly".to_owned()), ..Default::default() });
    let again =
        db.store.enqueue_parent(&parent, &children(2), Ties::default(), None).await.unwrap();
    assert_eq!((again.0.id, again.0.is_new, again.1.len()), (Some(ids[0]), false, 0));

    let w = World::new("PostgreSQL", Box::new(db.store)).await;
    assert_eq!(w.due().await.len(), 2);
    for id in &ids[1..] {
        w.run(*id, Ending::Completed).await;
    }
    w.relay().await;
    let run = w.start(ids[0]).await;
    assert_eq!(w.store.children(run.slice, run.id, "children").await.unwrap().len(), 2);
}

#[tokio::test]
async fn what_cannot_be_a_parent_or_a_child_is_refused_in_words() {
    let db = db().await;
    let refused = async |parent: EnqueueOptions, children: &[PlainJob]| {
        let answer = db.store.enqueue_parent(&plain(parent), children, Ties::default(), None).await;
        answer.unwrap_err().to_string()
    };
    let none = EnqueueOptions::default;
    assert!(refused(none(), &[]).await.contains("1 to 10000"));
    let timed = EnqueueOptions { run_at: Some(Timestamp::default()), ..none() };
    assert!(refused(timed, &children(1)).await.contains("leave out \"run_at\""));
    let keyed = plain(EnqueueOptions { key: Some("k".to_owned()), ..none() });
    assert!(refused(none(), &[keyed]).await.contains("child 1: a child is a new job"));
    let unknown = PlainJob { kind: "relay".to_owned(), ..plain(none()) };
    assert!(refused(none(), &[unknown]).await.contains("child 1: kind \"relay\" is reserved"));
    assert_eq!(db.number("SELECT count(*) FROM tallylight.job").await, 0);
}

#[tokio::test]
async fn a_job_starts_with_an_event_that_comes_after_it_was_enqueued() {
    for w in both().await {
        let subject = Subject::from_stored("orders/5".to_owned());
        w.store.append_one(event(&subject, "{}")).await.unwrap();
        let wait_for = WaitFor {
            subject: subject.to_string(),
            types: vec!["Tested".to_owned()],
            timeout: 3600,
        };
        let options = EnqueueOptions {
            subject: Some("own/5".to_owned()),
            wait_for: Some(wait_for),
            ..EnqueueOptions::default()
        };
        let id = w.store.enqueue("plain", &json!({}), &options).await.unwrap();
        assert_eq!(w.relay().await, 1, "{}: it waits from now on", w.name);
        react(&w, &Subject::from_stored("orders/6".to_owned())).await;
        assert!(!w.is_due(id).await, "{}", w.name);
        let position = react(&w, &subject).await;
        assert_eq!(w.relay().await, 1, "{}", w.name);
        let run = w.start(id).await;
        let steps = w.store.steps(run.slice, run.id).await.unwrap();
        let place = json!({"slice": w.store.slice_of(&subject), "position": position});
        assert_eq!((steps[0].name.as_str(), &steps[0].value), ("start", &Some(place)));
    }
}

#[tokio::test]
async fn steps_go_to_the_dead_letters_with_their_job_and_come_back() {
    let db = db().await;
    let store = db.store.clone();
    let w = World::new("PostgreSQL", Box::new(store.clone())).await;
    let (parent, ids) = w.family(1, ties(OnFailure::Wait)).await;
    w.begin(&parent, "charge", Begin::Value(json!(1))).await;
    w.end(&parent, discarded()).await;
    w.run(ids[0], discarded()).await;
    w.relay().await;
    assert_eq!(store.dead_jobs(10).await.unwrap().len(), 2);

    store.retry_dead(ids[0]).await.unwrap();
    w.run(ids[0], Ending::Completed).await;
    w.relay().await;
    store.retry_dead(parent.id).await.unwrap();
    let run = w.start(parent.id).await;
    let steps = store.steps(run.slice, run.id).await.unwrap();
    assert!(steps.iter().all(|step| step.is_closed) && steps.len() == 2, "{steps:?}");
    w.end(&run, Ending::Cancelled { reason: "enough".to_owned() }).await;
    assert_eq!(db.number("SELECT count(*) FROM tallylight.job_step").await, 0);
    let kept = "SELECT count(*) FROM tallylight.job_history
                 WHERE state = 'cancelled' AND waits -> 'steps' ?& '{charge,parts}'";
    assert_eq!(db.number(kept).await, 1, "history keeps their names");
}

#[tokio::test]
async fn a_dead_child_that_is_thrown_away_is_waited_for_no_more() {
    let db = db().await;
    let store = db.store.clone();
    let w = World::new("PostgreSQL", Box::new(store.clone())).await;
    let (parent, ids) = w.family(1, ties(OnFailure::Wait)).await;
    w.wait(&parent, "parts").await;
    w.run(ids[0], discarded()).await;
    w.relay().await;
    assert!(!w.is_due(parent.id).await);
    store.discard_dead(&DeadFilter::all(), false).await.unwrap();
    w.relay().await;
    assert!(w.is_due(parent.id).await);
    assert_eq!(w.children(&parent).await[0].state.as_deref(), Some("cancelled"));
}

#[tokio::test]
async fn a_waiting_job_is_scheduled_and_can_be_cancelled() {
    let db = db().await;
    let store = db.store.clone();
    let w = World::new("PostgreSQL", Box::new(store.clone())).await;
    let (parent, ids) = w.family(2, Ties::default()).await;
    w.wait(&parent, "parts").await;
    let job = store.find_job(parent.id).await.unwrap().unwrap();
    assert_eq!(job.state, "scheduled");
    let of_state = JobFilter { state: Some("scheduled".to_owned()), ..JobFilter::default() };
    assert_eq!(store.live_jobs(&of_state, None, 10).await.unwrap().len(), 1);
    store.cancel_job(parent.id, false).await.unwrap().unwrap();
    w.end(&parent, Ending::Cancelled { reason: "cancelled".to_owned() }).await;
    w.relay().await;
    for id in ids {
        assert!(w.is_cancelled(id).await);
    }
}

/// The last of many is as cheap as the first: rows that have ended are not read again.
#[tokio::test]
async fn a_fan_in_of_thousands_costs_what_its_words_cost() {
    const CHILDREN: i32 = 10_000;
    const BATCH: usize = 250;
    let db = db().await;
    let w = World::new("PostgreSQL", Box::new(db.store.clone())).await;
    let (parent, _) = w.family(10_000, Ties::default()).await;
    w.wait(&parent, "parts").await;
    let words: Vec<Word> = (1..=CHILDREN).map(|n| child_word(&parent, n, 3, "completed")).collect();
    let mut took = Vec::new();
    for batch in words.chunks(BATCH) {
        assert!(!w.is_due(parent.id).await);
        let begun = Instant::now();
        w.store.relay(parent.slice, batch).await.unwrap();
        took.push(begun.elapsed());
    }
    assert!(w.is_due(parent.id).await);
    let quarter = took.len() / 4;
    let median = |mut of: Vec<Duration>| {
        of.sort_unstable();
        of[of.len() / 2]
    };
    let first = median(took[..quarter].to_vec());
    let last = median(took[took.len() - quarter..].to_vec());
    // Were all rows read for each word, the last quarter would take many times as long.
    assert!(last < first * 5 + Duration::from_millis(20), "{first:?}, then {last:?}");
}
