//! Cleanup runs: how they are asked for, and how they are explained.

use domain::cleanup::{
    CleanupEvent, CleanupJudged, CleanupListed, CleanupPolicy, CleanupSettled, CleanupStarted,
};
use domain::event::Event;
use domain::ids::{LiveStreamId, Subject, VideoId};
use serde_json::json;
use uuid::Uuid;

use super::support::{App, SOURCE};

const PATH: &str = "/v1/cleanup/runs";

#[tokio::test]
async fn a_run_is_a_dry_run_unless_told_otherwise() {
    let app = App::start().await;
    let started = app.post(PATH, &json!({"policy": "orphans"})).await.ok(202).clone();
    assert_eq!(started["runs"][0]["source"], SOURCE);
    let job = app.get(&format!("/v1/jobs/{}", started["job"].as_str().unwrap())).await;
    let args = &job.ok(200)["args"];
    assert_eq!((&args["policy"], &args["dry_run"]), (&json!("orphans"), &json!(true)));
    let path = format!("{PATH}/{}", started["runs"][0]["run"].as_str().unwrap());
    app.get(&path).await.problem(404, "not-found");
    app.get(&format!("{PATH}/else")).await.problem(404, "not-found");
}

#[tokio::test]
async fn odd_runs_are_refused_field_by_field() {
    let app = App::start().await;
    for (body, field) in [
        (json!({}), "policy"),
        (json!({"policy": "all"}), "policy"),
        (json!({"policy": "orphans", "cap": 0}), "cap"),
        (json!({"policy": "orphans", "after_days": -1}), "after_days"),
        (json!({"policy": "orphans", "dry_run": "no"}), "dry_run"),
        (json!({"policy": "orphans", "source": "elsewhere"}), "source"),
        (json!({"policy": "orphans", "force": true}), "force"),
    ] {
        assert_eq!(app.post(PATH, &body).await.wrong_fields(), [field], "{body}");
    }
    assert_eq!(app.store.job_counts().await.unwrap().available, 0);
}

#[tokio::test]
async fn a_run_is_explained_candidate_by_candidate() {
    let app = App::start().await;
    let run = Uuid::from_u128(1);
    let subject = Subject::cleanup(SOURCE, run);
    let judged = |id: i64, proposed: bool| {
        CleanupEvent::Judged(CleanupJudged {
            run,
            live_stream: LiveStreamId(id),
            videos: Vec::new(),
            proposed,
            reason: "why".to_owned(),
            delete_recordings: false,
            made_before: None,
        })
    };
    let events = [
        CleanupEvent::Started(CleanupStarted {
            run,
            job: Uuid::nil(),
            policy: CleanupPolicy::Inactive,
            dry_run: false,
            cap: 2,
            rule: "r".to_owned(),
        }),
        judged(1, true),
        judged(2, false),
        CleanupEvent::Listed(CleanupListed { run, looked_at: 3, proposed: 1, kept: 1, left: 1 }),
    ];
    for event in events {
        app.append(&subject, &Event::Cleanup(event)).await;
    }
    let path = format!("{PATH}/{run}");
    let report = app.get(&path).await.ok(200).clone();
    assert_eq!((&report["status"], &report["left"]), (&json!("deleting"), &json!(1)));
    assert!(report["candidates"][0]["outcome"].is_null() && report["finished_at"].is_null());

    let settled = CleanupSettled {
        run,
        live_stream: LiveStreamId(1),
        deleted: true,
        videos: vec![VideoId(9)],
        reason: "done".to_owned(),
    };
    app.append(&subject, &Event::Cleanup(CleanupEvent::Settled(settled))).await;
    let report = app.get(&path).await.ok(200).clone();
    assert_eq!((&report["status"], &report["deleted"]), (&json!("finished"), &json!(1)));
    let outcome = &report["candidates"][0]["outcome"];
    assert_eq!((&outcome["deleted"], &outcome["video_ids"]), (&json!(true), &json!([9])));
    assert_eq!(report["candidates"][1]["proposed"], false);
}
