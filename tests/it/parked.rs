//! Events that cannot be applied: seen, retried and skipped from the command line.

use domain::event::{Event, NewEvent, SessionOptions, SessionRequested};
use domain::ids::{Subject, Timestamp};
use uuid::Uuid;

use crate::system::{SOURCE, Setup, TestSystem, until};

/// A request that a newer build wrote.
fn newer(session: Uuid) -> NewEvent {
    let event = Event::SessionRequested(SessionRequested {
        session,
        source: SOURCE.to_owned(),
        account: None,
        name: "from the future".to_owned(),
        live_stream: None,
        options: SessionOptions::default(),
    });
    let at = Timestamp::from(std::time::SystemTime::now());
    let subject = Subject::request(SOURCE, session);
    NewEvent { schema_version: 99, ..NewEvent::new(subject, &event, at, Uuid::now_v7()) }
}

#[tokio::test]
async fn what_a_newer_build_wrote_is_set_aside_until_it_is_skipped() {
    let system = TestSystem::start(Setup::default()).await;
    let event = newer(Uuid::now_v7());
    let subject = event.subject.clone();
    system.store.append_one(event).await.unwrap();
    let parked =
        until("it is set aside", async || system.store.parked().await.unwrap().into_iter().next())
            .await;
    let at = format!("{}:{}", parked.slice, parked.position);

    let list = system.command(&["parked", "list"]).await;
    assert!(list.contains(&at) && list.contains(subject.as_str()), "{list}");
    assert!(list.contains("written by a newer build"), "{list}");
    let shown = system.command(&["parked", "show", subject.as_str()]).await;
    assert!(shown.contains("SessionRequested v99"), "{shown}");

    let retried = system.failing_command(&["parked", "retry", &at]).await;
    assert!(retried.contains("tried 2 times"), "{retried}");
    let unknown = system.failing_command(&["parked", "retry", "15:999"]).await;
    assert!(unknown.contains("no event is set aside at 15:999"), "{unknown}");
    let skipped = system.command(&["parked", "skip", &at, "--reason", "a test"]).await;
    assert!(skipped.contains("nothing waits"), "{skipped}");
    let list = system.command(&["parked", "list", "--skipped"]).await;
    assert!(list.contains(&at) && list.contains("because \"a test\""), "{list}");
    let all = system.command(&["parked", "retry", "--all"]).await;
    assert!(all.contains("nothing is set aside"), "{all}");

    let status = system.command(&["status"]).await;
    assert_eq!(status.lines().count(), 17, "{status}");
    system.end_after_errors().await;
}
