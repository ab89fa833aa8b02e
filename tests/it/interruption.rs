//! Interruptions: what the audience sees and how many parts a recording has are two questions. The
//! session's grace period answers the first, the platform alone the second.

use std::time::Duration;

use domain::timer::Policy;
use simulator::Behaviour;

use crate::system::{Setup, TIME_SCALE, TestSystem, behaviour, until};

/// A grace period that no test outlasts.
const LONG: Duration = Duration::from_secs(45);

/// A system with this grace period, whose platform holds a recording for so many nominal seconds.
async fn system(grace: Duration, recording_hold_s: Option<u32>) -> TestSystem {
    let policy = Policy { grace, ..Policy::default().scaled(TIME_SCALE) };
    let behaviour = Behaviour { recording_hold_s, ..behaviour() };
    let simulator = simulator::Config { behaviour, ..Setup::default().simulator };
    TestSystem::start(Setup { simulator, policy, ..Setup::default() }).await
}

#[tokio::test]
async fn an_interruption_longer_than_the_grace_period_is_shown_and_ends_a_part() {
    let system = system(Duration::from_millis(500), Some(10)).await;
    let on_air = system.on_air("long").await;
    system.drop_encoder(on_air).await;
    system.until_status(on_air.session, "interrupted").await;
    until("the players are paused", async || {
        let paused = system.changes().iter().any(|r| {
            r.status == 200 && r.body.as_ref().is_some_and(|b| b["broadcast"]["status"] == "paused")
        });
        paused.then_some(())
    })
    .await;
    system.return_encoder(on_air).await;
    let end = system.finish(on_air.session).await;
    assert_eq!(
        end.moments,
        [
            "preparing",
            "ready",
            "testing",
            "live",
            "interrupted",
            "live",
            "ending",
            "processing",
            "ended"
        ],
    );
    assert_eq!(shown(&system), ["pending", "live", "paused", "live", "finished"]);
    assert_eq!(end.videos.len(), 2);
    assert!(end.is_all_ready());
    let [gap] = end.gaps()[..] else { panic!("one gap between two parts") };
    assert!(gap > 0, "{gap} ms");
    system.end().await;
}

#[tokio::test]
async fn an_interruption_shorter_than_the_grace_period_is_not_shown() {
    let system = system(LONG, Some(10)).await;
    let on_air = system.on_air("short").await;
    system.drop_encoder(on_air).await;
    until("the platform gives up its hold and closes the file", async || {
        (system.stream(on_air.stream)["recording_open"] == false).then_some(())
    })
    .await;
    system.return_encoder(on_air).await;
    let end = system.finish(on_air.session).await;
    assert!(!end.moments.contains(&"interrupted".to_owned()), "{:?}", end.moments);
    assert_eq!(shown(&system), ["pending", "live", "finished"]);
    // The platform made two files of it all the same.
    assert_eq!(end.videos.len(), 2);
    assert_eq!(end.gaps().len(), 1);
    assert_eq!(end.told["interruptions"], 1);
    system.end().await;
}

#[tokio::test]
async fn an_interruption_within_the_platforms_hold_leaves_one_part() {
    let system = system(LONG, Some(3600)).await;
    let on_air = system.on_air("held").await;
    system.drop_encoder(on_air).await;
    system.return_encoder(on_air).await;
    let end = system.finish(on_air.session).await;
    assert_eq!(shown(&system), ["pending", "live", "finished"]);
    assert_eq!(end.videos.len(), 1);
    assert!(end.gaps().is_empty());
    system.end().await;
}

/// The statuses that the broadcast was given, in order.
fn shown(system: &TestSystem) -> Vec<String> {
    let changes = system.changes();
    let status = |body: &serde_json::Value| body["broadcast"]["status"].as_str().map(str::to_owned);
    changes.iter().filter_map(|request| status(request.body.as_ref()?)).collect()
}
