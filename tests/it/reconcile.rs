//! Sweeps: what no webhook told is found by a list, and what a lost answer left behind is found too.

use serde_json::json;
use simulator::{Effect, Mishap, Rule};

use crate::system::{Setup, TestSystem, until};

async fn system() -> TestSystem {
    let simulator = simulator::Config { active_quota: 20, ..Setup::default().simulator };
    TestSystem::start(Setup { simulator, ..Setup::default() }).await
}

#[tokio::test]
async fn an_interruption_of_which_nobody_told_is_noticed_and_dated_by_the_platform() {
    let system = system().await;
    system.simulator.set_webhook_url(None);
    let session = system.request("unheard", json!({"auto_go_live": true})).await;
    let stream = system.until_ready(session).await;
    system.simulator.push(stream).unwrap();
    system.until_status(session, "live").await;
    until("it is recorded", async || (system.stream(stream)["recording"] == true).then_some(()))
        .await;
    system.simulator.stop(stream).unwrap();
    system.until_status(session, "interrupted").await;
    system.simulator.push(stream).unwrap();
    system.until_status(session, "live").await;
    let end = system.finish(session).await;
    assert_eq!(end.videos.len(), 2);
    assert!(end.is_all_ready());
    let sent = end.told["sent"].as_array().unwrap();
    assert_eq!(sent.len(), 2, "{sent:?}");
    assert_eq!(sent[0]["from"]["source"], "platform", "{sent:?}");
    let events = system.events().await;
    assert!(events.iter().any(|event| event.event_type == "SeenOtherwise"));
    assert!(!events.iter().any(|event| event.event_type == "WebhookReceived"));
    system.end().await;
}

#[tokio::test]
async fn one_walk_over_the_list_serves_many_live_streams() {
    let system = system().await;
    let mut sessions = Vec::new();
    for n in 0..8 {
        let session = system.request(&format!("many-{n}"), json!({"auto_go_live": true})).await;
        let stream = system.until_ready(session).await;
        system.simulator.push(stream).unwrap();
        sessions.push((session, stream));
    }
    for (session, stream) in &sessions {
        system.until_status(*session, "live").await;
        until("it is recorded", async || {
            (system.stream(*stream)["recording"] == true).then_some(())
        })
        .await;
    }
    let looks = |is_list: bool| {
        let requests = system.simulator.requests().into_iter();
        let gets = requests.filter(|r| r.method == "GET");
        gets.filter(|r| match r.path.strip_prefix("/streaming/streams") {
            Some(rest) => is_list != rest.starts_with('/'),
            None => false,
        })
        .count()
    };
    let lists = looks(true);
    until("it was swept", async || (looks(true) >= lists + 2).then_some(())).await;
    let (lists, gets) = (looks(true), looks(false));
    until("it was swept again and again", async || (looks(true) >= lists + 6).then_some(())).await;
    assert!(looks(false) - gets <= 8, "nothing differs, so at most their own hour has come");
    for (session, _) in &sessions {
        system.finish(*session).await;
    }
    system.end().await;
}

#[tokio::test]
async fn a_broadcast_that_a_given_up_call_made_is_gone_with_its_session() {
    let mut setup = Setup::default();
    setup.policy.limits.call = std::time::Duration::from_secs(1);
    setup.policy.limits.end_call = std::time::Duration::from_secs(10);
    let system = TestSystem::start(setup).await;
    system.faults([
        Rule::once("POST /streaming/broadcasts", Effect::ApplyThenReset),
        Rule::times(30, "GET /streaming/broadcasts", Effect::Reset),
    ]);
    let session = system.request("left-behind", json!({})).await;
    until("its call was given up", async || {
        (system.session(session).await["status"] == "failed").then_some(())
    })
    .await;
    assert_eq!(system.simulator.state()["broadcasts"].as_array().unwrap().len(), 1);
    system.faults([]);
    // It says `failed` until the end is applied.
    system.tell(session, "end").await;
    until("it is over", async || {
        (system.session(session).await["status"] == "ended").then_some(())
    })
    .await;
    assert_eq!(system.simulator.state()["broadcasts"], json!([]));
    system.command(&["jobs", "discard", "--kind", "create_broadcast"]).await;
    system.end_after_errors().await;
}

#[tokio::test]
async fn a_video_that_is_deleted_after_its_session_and_of_which_nobody_told_is_known_to_be_gone() {
    let mut setup = Setup::default();
    setup.policy.recordings = std::time::Duration::from_millis(300);
    let system = TestSystem::start(setup).await;
    let first = system.on_air("first").await;
    let first_end = system.finish(first.session).await;
    let again = json!({"live_stream_id": first.stream});
    let second = system.request("second", again).await;
    system.until_ready(second).await;
    let second = system.show(second, first.stream).await;
    let second_end = system.finish(second.session).await;
    assert_eq!((first_end.videos.len(), second_end.videos.len()), (1, 1));
    system.simulator.set_webhook_url(None);
    // Of either session: the one that left its live stream's state, and the last.
    for _ in 0..2 {
        assert!(system.simulator.strike(Mishap::DeletesVideo, Some(first.stream)));
    }
    for session in [first.session, second.session] {
        until("it is known to be gone", async || {
            let told = system.session(session).await;
            let is_gone = told["parts"][0]["status"] == "deleted";
            (is_gone && told["recording"] == "incomplete" && told["status"] == "ended")
                .then_some(())
        })
        .await;
    }
    let events = system.events().await;
    let told = events.iter().filter(|event| event.event_type == "RecordingPartDeleted");
    assert_eq!(told.count(), 1, "of the last session, once");
    system.end().await;
}
