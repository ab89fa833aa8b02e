//! What callers see of jobs and do to them.

use std::time::Duration;

use domain::ids::Subject;
use serde_json::{Value, json};
use store::{Consumer, Ending, Finish};
use uuid::Uuid;

use super::support::App;
use crate::Scope;

impl App {
    /// A job that was enqueued over HTTP.
    async fn job(&self, subject: &str, args: Value) -> Uuid {
        let body = json!({ "kind": "http_call", "subject": subject, "args": args });
        let id = self.post("/v1/jobs", &body).await.ok(201)["id"].clone();
        id.as_str().unwrap().parse().unwrap()
    }

    /// A job that was given up.
    async fn dead_job(&self, subject: &str, args: Value) -> Uuid {
        let id = self.job(subject, args).await;
        let slice = self.store.slice_of(&Subject::from_stored(subject.to_owned()));
        let (process, ttl) = (Uuid::now_v7(), Duration::from_mins(1));
        let lease = self.store.claim(Consumer::Jobs, slice, process, ttl).await.unwrap().unwrap();
        self.store.mark_started(slice, lease.epoch, &[id]).await.unwrap();
        let ending = Ending::Discarded { error: "connection refused".to_owned() };
        let finish = Finish { id, attempt: 1, ending, events: Vec::new() };
        self.store.finish(slice, lease.epoch, &[finish]).await.unwrap();
        self.store.release(Consumer::Jobs, slice, lease.epoch).await.unwrap();
        id
    }
}

fn ids(page: &Value) -> Vec<String> {
    let jobs = page["jobs"].as_array().unwrap();
    jobs.iter().map(|job| job["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn live_jobs_are_listed_page_by_page_and_shown_one_by_one() {
    let app = App::start().await;
    let jobs = [app.job("a/1", json!({})).await, app.job("a/2", json!({"n": 2})).await];
    let first = app.get("/v1/jobs?limit=1").await;
    assert_eq!(ids(first.ok(200)), [jobs[0].to_string()]);
    let next = first.json["next"].as_str().unwrap();
    let rest = app.get(&format!("/v1/jobs?limit=1&after={next}")).await;
    assert_eq!(ids(rest.ok(200)), [jobs[1].to_string()]);
    assert!(rest.json["next"].is_null());
    assert_eq!(ids(app.get("/v1/jobs?subject=a/2").await.ok(200)), [jobs[1].to_string()]);
    assert!(ids(app.get("/v1/jobs?state=running").await.ok(200)).is_empty());
    assert_eq!(app.get("/v1/jobs?state=gone&after=x").await.wrong_fields(), ["state", "after"]);
    let shown = app.get(&format!("/v1/jobs/{}", jobs[1])).await;
    assert_eq!(shown.ok(200)["state"], "available");
    assert_eq!((&shown.json["args"], &shown.json["attempts"]), (&json!({"n": 2}), &json!([])));
    app.get("/v1/jobs/unheard-of").await.problem(404, "not-found");
}

#[tokio::test]
async fn a_job_is_cancelled_once_and_again_and_one_that_has_ended_is_not() {
    let app = App::start().await;
    let id = app.job("a/1", json!({})).await;
    for _ in 0..2 {
        let answer = app.command(&format!("/v1/jobs/{id}/cancel"), None).await;
        assert_eq!(answer.ok(202)["state"], "cancelled");
    }
    let shown = app.get(&format!("/v1/jobs/{id}")).await;
    assert_eq!(shown.ok(200)["state"], "cancelled");
    let dead = app.dead_job("a/2", json!({})).await;
    let told = app.command(&format!("/v1/jobs/{dead}/cancel"), None).await;
    assert!(told.problem(409, "not-now").contains("discarded"));
    let unknown = format!("/v1/jobs/{}/cancel", Uuid::now_v7());
    app.command(&unknown, None).await.problem(404, "not-found");
}

#[tokio::test]
async fn dead_letters_are_counted_edited_redriven_and_discarded() {
    let app = App::start().await;
    let first = app.dead_job("a/1", json!({"n": 1})).await;
    let second = app.dead_job("a/2", json!({"n": 2})).await;
    let page = app.get("/v1/dead-jobs?error=REFUSED").await;
    assert_eq!(ids(page.ok(200)), [second.to_string(), first.to_string()], "the latest first");
    let dry = json!({"kind": "http_call", "dry_run": true});
    assert_eq!(app.post("/v1/dead-jobs:redrive", &dry).await.ok(200)["jobs"], 2);
    let retry = format!("/v1/jobs/{first}/retry");
    app.post(&retry, &json!({"edit": {"n": 9}})).await.ok(202);
    let told = app.post(&retry, &json!({})).await;
    assert!(told.problem(409, "not-now").contains("the job is available"), "{}", told.text);
    let unknown = format!("/v1/jobs/{}/retry", Uuid::now_v7());
    app.post(&unknown, &json!({})).await.problem(404, "not-found");
    let shown = app.get(&format!("/v1/jobs/{first}")).await;
    assert_eq!(
        (&shown.ok(200)["state"], &shown.json["args"]),
        (&json!("available"), &json!({"n": 9}))
    );
    let none = app.post("/v1/dead-jobs:discard", &json!({})).await;
    assert_eq!(none.wrong_fields(), ["all"], "all of them only where that is said");
    let odd = json!({"all": true, "edit": [1]});
    assert_eq!(app.post("/v1/dead-jobs:redrive", &odd).await.wrong_fields(), ["edit"]);
    let all = json!({"all": true});
    assert_eq!(app.post("/v1/dead-jobs:discard", &all).await.ok(200)["jobs"], 1);
    assert!(ids(app.get("/v1/dead-jobs").await.ok(200)).is_empty());
}

#[tokio::test]
async fn who_may_look_may_not_change() {
    let app = App::start().await;
    app.get_as(Scope::JobsRead, "/v1/jobs").await.ok(200);
    app.get_as(Scope::JobsRead, "/v1/dead-jobs").await.ok(200);
    app.get_as(Scope::JobsWrite, "/v1/jobs").await.problem(403, "forbidden");
    app.get_as(Scope::SessionsRead, "/v1/dead-jobs").await.problem(403, "forbidden");
}
