//! Possible platforms: whatever the documents leave open may be so or otherwise, and a session comes
//! to the same end. Each plays one session with an interruption on a platform that answers several
//! open questions in another way than the other tests have it.

use std::time::Duration;

use domain::timer::Policy;
use serde_json::json;
use simulator::{
    Behaviour, BodyForm, ClipVideo, DeleteGuard, Encoding, FlagInGet, NothingRecorded, QuotaBreach,
    RecordingAtDeactivation, StartRecording, UserIdForm, ViewableWebhooks,
};

use crate::system::{End, Setup, TIME_SCALE, TestSystem, behaviour, until};

/// A system on such a platform, with a short grace period.
async fn system(behaviour: Behaviour) -> TestSystem {
    let grace = Duration::from_millis(500);
    let policy = Policy { grace, ..Policy::default().scaled(TIME_SCALE) };
    let simulator = simulator::Config { behaviour, ..Setup::default().simulator };
    TestSystem::start(Setup { simulator, policy, ..Setup::default() }).await
}

/// Plays on such a platform, to an end with two parts that can be played in full.
async fn plays_to_its_end(behaviour: Behaviour) {
    let system = system(behaviour).await;
    let end = play(&system).await;
    assert_eq!(end.videos.len(), 2);
    assert!(end.is_all_ready());
    system.end().await;
}

/// Plays a session whose encoder is away for a while, and a second one on the same live stream.
async fn play(system: &TestSystem) -> End {
    let on_air = system.on_air("first").await;
    system.drop_encoder(on_air).await;
    system.until_status(on_air.session, "interrupted").await;
    system.return_encoder(on_air).await;
    let end = system.finish(on_air.session).await;
    let again = system.request("again", json!({"live_stream_id": on_air.stream})).await;
    let stream = system.until_ready(again).await;
    let again = system.show(again, stream).await;
    assert_eq!(system.finish(again.session).await.videos.len(), 1, "nothing of the first");
    let state = system.simulator.state();
    assert_eq!(state["streams"].as_array().unwrap().len(), 1);
    assert_eq!(state["streams"][0]["active"], false);
    assert!(state["broadcasts"].as_array().unwrap().is_empty());
    end
}

#[tokio::test]
async fn a_platform_by_the_letter_of_its_schemas() {
    plays_to_its_end(Behaviour {
        create_body: BodyForm::Flat,
        patch_needs_name: true,
        create_broadcast_answers_body: false,
        recording_in_get: FlagInGet::Absent,
        nothing_recorded: NothingRecorded::Null,
        deactivation: RecordingAtDeactivation::NeverUntilStop,
        delete_guard: DeleteGuard::Refuse,
        viewable: ViewableWebhooks::PerRendition,
        user_id_form: UserIdForm::Null,
        start_recording: StartRecording::Warning,
        ..behaviour()
    })
    .await;
}

#[tokio::test]
async fn a_platform_as_older_pages_have_it() {
    plays_to_its_end(Behaviour {
        recording_in_get: FlagInGet::Null,
        nothing_recorded: NothingRecorded::EmptyObject,
        deactivation: RecordingAtDeactivation::AtOnce,
        clip_video: ClipVideo::OfStream,
        viewable: ViewableWebhooks::Skipped,
        user_id_form: UserIdForm::Text,
        legacy_stream_webhooks: true,
        legacy_video_webhooks: true,
        ..behaviour()
    })
    .await;
}

#[tokio::test]
async fn a_platform_whose_lists_shift_and_whose_flags_lag() {
    plays_to_its_end(Behaviour {
        page_size: 1,
        short_pages: true,
        pages_shift_by: 1,
        flags_lag_s: 8,
        nothing_recorded: NothingRecorded::NoContent,
        ..behaviour()
    })
    .await;
}

#[tokio::test]
async fn a_platform_that_records_once_and_cuts_long_files() {
    // Cut every 40 s of its time: a second here.
    let system = system(Behaviour {
        recording_resumes: false,
        recording_hold_s: Some(60),
        cut_after_s: 40,
        ..behaviour()
    })
    .await;
    let on_air = system.on_air("cut").await;
    until("two files are cut off", async || {
        (system.simulator.state()["videos"].as_array().unwrap().len() >= 2).then_some(())
    })
    .await;
    let end = system.finish(on_air.session).await;
    assert!(end.videos.len() >= 3, "{:?}", end.videos);
    assert!(end.is_all_ready());
    // What is cut goes on in the next file.
    assert!(end.gaps().iter().all(|gap| *gap < 1000), "{:?}", end.gaps());
    system.end().await;
}

#[tokio::test]
async fn a_platform_whose_renditions_fail_for_want_of_storage() {
    let system = system(Behaviour { encoding: Encoding::RenditionFails, ..behaviour() }).await;
    let end = play(&system).await;
    let statuses = end.told["parts"].as_array().unwrap().iter().map(|part| &part["status"]);
    assert!(statuses.eq(["viewable", "viewable"]), "viewable may be final: {}", end.told);
    system.end().await;
}

#[tokio::test]
async fn a_platform_that_refuses_a_slot_in_another_way_each_time() {
    let behaviour = Behaviour { quota_breach: QuotaBreach::Varied, ..behaviour() };
    let mut setup = Setup::default();
    setup.simulator = simulator::Config { behaviour, active_quota: 1, ..setup.simulator };
    let system = TestSystem::start(setup).await;
    let first = system.on_air("first").await;
    let mut waiting = Vec::new();
    for key in ["second", "third"] {
        waiting.push(system.request(key, json!({})).await);
    }
    until("both have been told that they wait", async || {
        for session in &waiting {
            if !system.session(*session).await["slot_place"].is_u64() {
                return None;
            }
        }
        Some(())
    })
    .await;
    assert!(system.finish(first.session).await.is_all_ready());
    // Whose refusal was heard first: nobody knew of a quota when both were let in.
    while !waiting.is_empty() {
        let next = until("one of them has the slot", async || {
            for (place, session) in waiting.iter().enumerate() {
                if system.session(*session).await["status"] == "ready" {
                    return Some(place);
                }
            }
            None
        })
        .await;
        let session = waiting.swap_remove(next);
        let stream = system.until_ready(session).await;
        let on_air = system.show(session, stream).await;
        assert!(system.finish(on_air.session).await.is_all_ready());
    }
    system.end().await;
}
