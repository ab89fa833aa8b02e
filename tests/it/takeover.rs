//! Workers die and leave: what they did is done once, and others go on.

use std::time::{Duration, Instant};

use domain::ids::Subject;
use domain::timer::Policy;
use serde_json::json;
use simulator::{Effect, Rule};
use store::Consumer;

use crate::system::{SOURCE, Setup, TIME_SCALE, TestSystem, until};

#[tokio::test]
async fn three_workers_of_which_two_are_killed_do_everything_once() {
    let policy = Policy { grace: Duration::from_secs(2), ..Policy::default().scaled(TIME_SCALE) };
    let mut system = TestSystem::start(Setup { workers: 3, policy, ..Setup::default() }).await;
    // The platform makes the live stream, and the worker dies before it hears of it.
    let unheard = Effect::ApplyThenLatencyMs(60_000);
    system.faults([Rule::once("POST /streaming/streams", unheard)]);
    let session = system.request("takeover", json!({})).await;
    until("the live stream is made", async || {
        (system.changes_like("POST /streaming/streams").len() == 1).then_some(())
    })
    .await;
    system.kill_holder(Consumer::Jobs, &Subject::request(SOURCE, session)).await;

    let stream = system.until_ready(session).await;
    let on_air = system.show(session, stream).await;
    system.drop_encoder(on_air).await;
    system.kill_holder(Consumer::React, &on_air.subject()).await;
    assert_eq!(system.worker_ids().len(), 1);
    // The grace period was set by the dead worker and ends all the same.
    system.until_status(session, "interrupted").await;
    system.return_encoder(on_air).await;
    let end = system.finish(session).await;

    assert_eq!(end.videos.len(), 2);
    assert_eq!(end.gaps().len(), 1);
    assert!(end.is_all_ready());
    assert_eq!(system.simulator.state()["streams"].as_array().unwrap().len(), 1);
    assert_eq!(system.changes_like("POST /streaming/streams").len(), 1);
    assert_eq!(system.changes_like("POST /streaming/broadcasts").len(), 1);
    system.end().await;
}

#[tokio::test]
async fn a_worker_that_is_asked_to_stop_ends_its_calls_and_gives_its_slices_back_at_once() {
    // Leases are told from takeovers after a death by their length.
    let lease = Duration::from_secs(16);
    let mut system = TestSystem::start(Setup { workers: 1, lease, ..Setup::default() }).await;
    // A sweep lists live streams too.
    system.command(&["jobs", "pause", "--kind", "reconcile"]).await;
    let slow = Effect::ApplyThenLatencyMs(1_000);
    system.faults([Rule::once("POST /streaming/streams", slow)]);
    let session = system.request("drained", json!({})).await;
    until("the call is in flight", async || {
        let calls = system.changes_like("POST /streaming/streams");
        (calls.len() == 1 && calls[0].status == 0).then_some(())
    })
    .await;
    let subject = Subject::request(SOURCE, session);
    let mut first = system.take_holder(Consumer::Jobs, &subject).await;
    system.start_worker().await;
    let [second] = system.worker_ids()[..] else { panic!("one worker is left") };

    first.terminate();
    let status = first.exited().await;
    let (left, seen) = (Instant::now(), system.simulator.requests().len());
    assert!(status.success(), "{status}: {}", first.output());
    system.keep_output(&first);
    until("the other worker holds every slice", async || {
        system.database.holders().await.iter().all(|holder| *holder == Some(second)).then_some(())
    })
    .await;
    // A worker looks for free slices four times in the time of a lease.
    assert!(left.elapsed() < lease / 2, "{:?}", left.elapsed());
    // The call that was in flight was waited for, and its answer kept.
    system.until_ready(session).await;
    assert_eq!(system.changes_like("POST /streaming/streams").len(), 1);
    let lists = system.simulator.requests().split_off(seen);
    assert!(!lists.iter().any(|r| r.method == "GET" && r.path == "/streaming/streams"));
    system.command(&["jobs", "resume", "--kind", "reconcile"]).await;
    system.finish(session).await;
    system.end().await;
}

#[tokio::test]
async fn a_worker_that_is_frozen_beyond_its_lease_does_nothing_when_it_wakes() {
    let policy = Policy { grace: Duration::from_secs(2), ..Policy::default().scaled(TIME_SCALE) };
    let mut system = TestSystem::start(Setup { workers: 2, policy, ..Setup::default() }).await;
    let on_air = system.on_air("frozen").await;
    let subject = on_air.subject();
    let slice = system.store.slice_of(&subject);
    let old = system.database.holder(Consumer::React, slice).await.unwrap();
    let frozen = system.take_holder(Consumer::React, &subject).await;
    frozen.freeze();
    system.drop_encoder(on_air).await;
    until("the other worker takes the slice over", async || {
        (system.database.holder(Consumer::React, slice).await != Some(old)).then_some(())
    })
    .await;
    system.until_status(on_air.session, "interrupted").await;
    let seen = system.database.last_seen(old).await;
    frozen.thaw();
    until("the worker goes on as if no time had passed", async || {
        (system.database.last_seen(old).await > seen).then_some(())
    })
    .await;
    system.return_encoder(on_air).await;
    let end = system.finish(on_air.session).await;
    assert_eq!((end.videos.len(), end.gaps().len()), (2, 1));
    let told = |name: &str, events: &[domain::event::RecordedEvent]| {
        events.iter().filter(|event| event.event_type == name).count()
    };
    let events = system.events().await;
    for name in ["SessionWentLive", "SessionInterrupted", "SessionResumed", "SessionEnded"] {
        assert_eq!(told(name, &events), 1, "{name}");
    }
    assert_eq!(system.changes_like("POST /streaming/broadcasts").len(), 1);
    // Live rows are what a fold of the log gives: nobody wrote without holding the slice.
    system.until_nothing_is_due().await;
    let digest = system.store.digest().await.unwrap();
    system.command(&["projections", "rebuild"]).await;
    assert_eq!(system.store.digest().await.unwrap(), digest);
    system.keep_output(&frozen);
    drop(frozen);
    system.end().await;
}
