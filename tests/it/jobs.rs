//! Jobs of other services: enqueued by SQL, inside the caller's own transaction. And what a person
//! sees of jobs on the command line.

use domain::call::Call;
use domain::event::{Event, RecordedEvent};
use domain::ids::Subject;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::system::{Database, SOURCE, Setup, TestSystem, until};

#[tokio::test]
async fn a_job_enqueued_in_a_callers_transaction_runs_after_its_commit_and_only_then() {
    let system = TestSystem::start(Setup::default()).await;
    let args = json!({"inactive_days": 30});
    let mut open = system.database.begin().await;
    let committed_late = Database::enqueue(&mut open, "clean_up_inactive", &args).await;

    let mut given_up = system.database.begin().await;
    let rolled_back = Database::enqueue(&mut given_up, "clean_up_inactive", &args).await;
    given_up.rollback().await.unwrap();

    let mut quick = system.database.begin().await;
    let committed = Database::enqueue(&mut quick, "clean_up_inactive", &args).await;
    quick.commit().await.unwrap();

    // A later job has run, and the one of the open transaction has not.
    let done = system.until_done(committed).await;
    assert_eq!((&done["dry_run"], &done["policy"]), (&json!(true), &json!("inactive")));
    assert_eq!(done["runs"][0]["candidates"], json!([]));
    assert!(!system.is_done(committed_late).await);
    open.commit().await.unwrap();
    system.until_done(committed_late).await;
    assert!(!system.is_done(rolled_back).await && !system.database.has_job(rolled_back).await);
    system.end().await;
}

/// The intent to create a live stream that a request led to.
fn creation(events: &[RecordedEvent]) -> Option<Uuid> {
    events.iter().find_map(|event| {
        let Event::CallIntended(intended) = Event::decode(event) else { return None };
        matches!(intended.call, Call::CreateLiveStream { .. }).then_some(intended.intent)
    })
}

/// The one object that a command printed, behind its process's name.
fn object(output: &str) -> Value {
    serde_json::from_str(&output[output.find('{').unwrap()..]).unwrap()
}

#[tokio::test]
async fn the_chain_of_a_call_is_told_from_its_command_to_what_followed() {
    let system = TestSystem::start(Setup::default()).await;
    let session = system.request("why", json!({})).await;
    system.until_ready(session).await;
    let subject = Subject::request(SOURCE, session);
    let events = system.store.read_subject(&subject, 0, 100).await.unwrap();
    let job = creation(&events).unwrap().to_string();
    let why = ["jobs", "why", &job, "--subject", subject.as_str()];
    let told = system.command(&why).await;
    let at = |text: &str| told.find(text).unwrap_or_else(|| panic!("no {text} in {told}"));
    let order = ["because of", "SessionRequested", "job ", "it appended", "CallSucceeded"].map(at);
    assert!(order.is_sorted(), "{told}");
    let chain = object(&system.command(&[why.as_slice(), &["--json"]].concat()).await);
    assert_eq!(chain["causes"][0]["event_type"], "SessionRequested");
    assert_eq!(chain["outcomes"][0]["event_type"], "CallSucceeded");
    system.finish(session).await;
    system.end().await;
}

#[tokio::test]
async fn a_job_that_waits_is_explained_cancelled_and_shown_on_the_command_line() {
    let system = TestSystem::start(Setup::default()).await;
    let enqueue =
        ["jobs", "enqueue", "clean_up_inactive", "{}", "--run-at", "2099-01-01T00:00:00Z"];
    let told = system.command(&[enqueue.as_slice(), &["--priority", "3"]].concat()).await;
    let id: Uuid = told.split_whitespace().find_map(|word| word.parse().ok()).unwrap();
    assert_eq!(system.store.find_job(id).await.unwrap().unwrap().priority, 3);
    let job = id.to_string();
    let unknown = system.failing_command(&["jobs", "enqueue", "clean_up_inactve"]).await;
    assert!(unknown.contains("--force"), "{unknown}");
    let why = system.command(&["jobs", "why", &job]).await;
    assert!(why.contains("waits for  its time, 2099"), "{why}");
    let listed = system.command(&["jobs", "list", "--kind", "clean_up_inactive"]).await;
    assert!(listed.contains(&job) && listed.contains("scheduled"), "{listed}");
    let cancelled = system.command(&["jobs", "cancel", &job]).await;
    assert!(cancelled.contains("is cancelled"), "{cancelled}");
    until("its worker has ended it", async || {
        let found = system.store.find_job(id).await.unwrap().unwrap();
        found.ended_at.map(|_| assert_eq!(found.state, "cancelled"))
    })
    .await;
    let shown = object(&system.command(&["jobs", "show", &job, "--json"]).await);
    assert_eq!(shown["job"]["last_error"], "cancelled");
    let why = system.command(&["jobs", "why", &job]).await;
    assert!(why.contains("JobCancelled"), "{why}");
    let again = system.failing_command(&["jobs", "cancel", &job]).await;
    assert!(again.contains("no live job"), "{again}");
    system.end().await;
}
