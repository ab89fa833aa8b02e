//! Batches of jobs, and schedules.

use axum::body::Body;
use axum::http::{Method, header};
use serde_json::{Value, json};

use super::support::{Answer, App, config, request};
use crate::{Config, Scope};

impl App {
    async fn with_key(&self, path: &str, key: &str, body: &Value) -> Answer {
        let request = request(Method::POST, path, Scope::JobsWrite)
            .header("idempotency-key", key)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body.to_string()));
        self.send(request.unwrap()).await
    }

    async fn put(&self, path: &str, body: &Value) -> Answer {
        let request = request(Method::PUT, path, Scope::JobsWrite)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body.to_string()));
        self.send(request.unwrap()).await
    }

    async fn available(&self) -> i64 {
        self.store.job_counts().await.unwrap().available
    }
}

#[tokio::test]
async fn a_batch_is_enqueued_in_order() {
    let app = App::start().await;
    let body = json!({"jobs": [
        { "kind": "send_mail", "key": "a" },
        { "kind": "send_mail", "args": { "to": "x" }, "priority": 1 },
        { "kind": "send_mail", "key": "a" },
    ]});
    let told = app.post("/v1/jobs:batch", &body).await.ok(201).clone();
    let jobs = told["jobs"].as_array().unwrap();
    let new: Vec<&Value> = jobs.iter().map(|job| &job["is_new"]).collect();
    assert_eq!(new, [true, true, false]);
    assert_eq!(jobs[0]["id"], jobs[2]["id"]);
    assert_eq!(app.available().await, 2);
}

#[tokio::test]
async fn a_batch_with_a_bad_job_is_refused_and_names_each_field() {
    let app = App::start().await;
    let body = json!({"jobs": [
        { "kind": "send_mail" }, { "kind": "unheard_of" }, { "kind": "send_mail", "priority": 9 }, 7,
    ]});
    let wrong = app.post("/v1/jobs:batch", &body).await.wrong_fields();
    assert_eq!(wrong, ["jobs[1].kind", "jobs[2].priority", "jobs[3]"]);
    let many = json!({"jobs": vec![json!({"kind": "send_mail"}); 1_001]});
    for body in [json!({}), json!({"jobs": []}), json!({"jobs": 1}), many] {
        assert_eq!(app.post("/v1/jobs:batch", &body).await.wrong_fields(), ["jobs"]);
    }
    let all_wrong = json!({"jobs": vec![json!(0); 900]});
    assert_eq!(app.post("/v1/jobs:batch", &all_wrong).await.wrong_fields().len(), 20);
    let one = json!({"jobs": [{ "kind": "send_mail" }]});
    let keyed = app.with_key("/v1/jobs:batch", "k", &one).await;
    assert_eq!(keyed.wrong_fields(), ["Idempotency-Key"]);
    assert_eq!(app.available().await, 0);
}

#[tokio::test]
async fn a_parent_is_enqueued_with_its_children_or_not_at_all() {
    let app = App::start().await;
    let child = |priority: i64| json!({ "kind": "send_mail", "priority": priority });
    let body = |children: Value| json!({ "kind": "send_mail", "on_child_failure": "wait", "children": children });
    let good = body(json!([child(1), child(2)]));
    let told = app.with_key("/v1/jobs:parent", "k", &good).await.ok(201).clone();
    assert_eq!((&told["is_new"], told["children"].as_array().unwrap().len()), (&json!(true), 2));
    let again = app.with_key("/v1/jobs:parent", "k", &good).await.ok(201).clone();
    assert_eq!((&again["is_new"], &again["id"]), (&json!(false), &told["id"]));
    assert_eq!(app.available().await, 2, "the parent waits");
    let shown =
        app.get(&format!("/v1/jobs/{}", told["id"].as_str().unwrap())).await.ok(200).clone();
    assert_eq!(shown["waits"]["open"]["open_children"], json!(2));

    let bad = body(json!([child(1), child(9)]));
    assert_eq!(app.post("/v1/jobs:parent", &bad).await.wrong_fields(), ["children[1].priority"]);
    let keyed = body(json!([{ "kind": "send_mail", "key": "x" }]));
    assert_eq!(app.post("/v1/jobs:parent", &keyed).await.wrong_fields(), ["children"]);
    let mut odd = good;
    odd["on_cancel"] = json!("perhaps");
    assert_eq!(app.post("/v1/jobs:parent", &odd).await.wrong_fields(), ["on_cancel"]);
    assert_eq!(app.available().await, 2);
}

#[tokio::test]
async fn a_job_may_wait_for_an_event_of_which_all_has_to_be_told() {
    let app = App::start().await;
    let job = |wait_for: Value| json!({ "kind": "send_mail", "wait_for": wait_for });
    let wait = json!({ "subject": "orders/1", "types": ["Paid"], "timeout": 60 });
    app.post("/v1/jobs", &job(wait)).await.ok(201);
    for wrong in [json!(1), json!({ "subject": "orders/1" }), json!({ "timeout": "soon" })] {
        assert_eq!(app.post("/v1/jobs", &job(wrong)).await.wrong_fields(), ["wait_for"]);
    }
    let never = json!({ "subject": "orders/1", "timeout": 0 });
    assert_eq!(app.post("/v1/jobs", &job(never)).await.wrong_fields(), ["job"]);
}

#[tokio::test]
async fn a_batch_may_be_longer_than_other_bodies_and_has_a_limit_too() {
    let app = App::start().await;
    let batch = |bytes: usize| {
        let job = json!({ "kind": "send_mail", "args": { "text": "x".repeat(1000) } });
        json!({ "jobs": vec![job; bytes / 1000] })
    };
    // The limit of other bodies is 8 KiB in tests, that of single jobs 64 KiB.
    app.post("/v1/jobs:batch", &batch(100_000)).await.ok(201);
    app.post("/v1/jobs:batch", &batch(200_000)).await.problem(413, "too-large");
    app.post("/v1/jobs", &batch(70_000)).await.problem(413, "too-large");
    assert_eq!(app.available().await, 100);
}

/// What a way takes around a job.
type Around = fn(Value) -> Value;

#[tokio::test]
async fn arguments_of_a_mebibyte_come_in_by_every_way_and_larger_ones_are_told_what_to_do() {
    let app = App::with(Config { body_limit: 256 * 1024, ..config() }).await;
    let job = |bytes: usize| json!({ "kind": "send_mail", "args": { "text": "x".repeat(bytes) } });
    let ways: [(&str, Around); 3] = [
        ("/v1/jobs", |job| job),
        ("/v1/jobs:batch", |job| json!({ "jobs": [job] })),
        ("/v1/jobs:parent", |job| {
            let mut parent = job.clone();
            parent["children"] = json!([job]);
            parent
        }),
    ];
    for (path, body) in ways {
        app.post(path, &body(job((1 << 20) - 100))).await.ok(201);
        let above = app.post(path, &body(job((1 << 20) + 1))).await;
        let told = above.problem(422, "invalid");
        assert!(told.contains("at most 1 MiB: keep what is larger elsewhere"), "{path}: {told}");
        let told = app.post(path, &body(job(10 << 20))).await.problem(413, "too-large");
        assert!(told.contains("keep what is large elsewhere"), "{path}: {told}");
    }
}

#[tokio::test]
async fn an_idempotency_key_is_the_key_of_a_single_job() {
    let app = App::start().await;
    let job = json!({ "kind": "send_mail" });
    let first = app.with_key("/v1/jobs", "k", &job).await.ok(201)["id"].clone();
    assert_eq!(app.with_key("/v1/jobs", "k", &job).await.ok(201)["id"], first);
    let same = json!({ "kind": "send_mail", "key": "k" });
    assert_eq!(app.with_key("/v1/jobs", "k", &same).await.ok(201)["id"], first);
    let other = json!({ "kind": "send_mail", "key": "other" });
    assert_eq!(app.with_key("/v1/jobs", "k", &other).await.wrong_fields(), ["key"]);
    assert_eq!(app.available().await, 1);
}

#[tokio::test]
async fn a_schedule_lives_from_put_to_delete() {
    let app = App::start().await;
    let path = "/v1/schedules/nightly";
    let body = json!({
        "cron": "30 2 * * *", "time_zone": "Europe/Berlin", "kind": "send_mail",
        "args": { "to": "x" }, "options": { "priority": 3 }, "missed": "catch_up", "catch_up": 5,
    });
    let put = app.put(path, &body).await;
    let next = put.ok(201)["next"].as_array().unwrap();
    assert_eq!(next.len(), 3);
    app.put(path, &body).await.ok(200);
    let shown = app.get(path).await.ok(200).clone();
    for field in ["cron", "time_zone", "kind", "args", "options", "missed", "catch_up"] {
        assert_eq!(shown[field], body[field], "{field}");
    }
    assert_eq!(app.command(&format!("{path}/pause"), None).await.ok(200)["next"], json!([]));
    let job = app.command(&format!("{path}/run"), None).await.ok(201)["job"].clone();
    assert_eq!(app.get(path).await.ok(200)["fires"][0]["job"], job);
    assert_eq!(app.available().await, 1);
    let resumed = app.command(&format!("{path}/resume"), None).await;
    assert_eq!(resumed.ok(200)["next"].as_array().unwrap().len(), 3);
    let listed = app.get("/v1/schedules").await.ok(200)["schedules"].clone();
    assert_eq!(listed.as_array().unwrap().len(), 1);

    let delete = request(Method::DELETE, path, Scope::JobsWrite).body(Body::empty()).unwrap();
    app.send(delete).await.ok(204);
    app.get(path).await.problem(404, "not-found");
    for verb in ["pause", "resume", "run"] {
        app.command(&format!("{path}/{verb}"), None).await.problem(404, "not-found");
    }
}

#[tokio::test]
async fn a_bad_schedule_names_what_is_wrong() {
    let app = App::start().await;
    let good = json!({ "cron": "@daily", "kind": "send_mail" });
    let with = |field: &str, value: Value| {
        let mut body = good.clone();
        body[field] = value;
        body
    };
    for (body, field) in [
        (json!({ "kind": "send_mail" }), "cron"),
        (with("kind", json!("unheard_of")), "kind"),
        (with("args", json!(1)), "args"),
        (with("options", json!([])), "options"),
        (with("missed", json!("never")), "missed"),
        (with("missed", json!("catch_up")), "catch_up"),
        (with("catch_up", json!(3)), "catch_up"),
        (with("paused", json!("no")), "paused"),
        (with("colour", json!("red")), "colour"),
        (with("cron", json!("daily")), "schedule"),
        (with("time_zone", json!("Mars")), "schedule"),
        (with("options", json!({ "colour": "red" })), "schedule"),
    ] {
        assert_eq!(app.put("/v1/schedules/nightly", &body).await.wrong_fields(), [field], "{body}");
    }
    assert_eq!(app.put("/v1/schedules/A", &good).await.wrong_fields(), ["schedule"]);
    app.get("/v1/schedules/nightly").await.problem(404, "not-found");
}
