//! Who gets an answer: tokens, scopes, and what needs neither.

use axum::body::{Body, Bytes};
use axum::http::{Method, Request, header};
use futures_util::stream;

use super::support::{Answer, App, SOURCE, named, request, secret};
use crate::Scope;

const ID: &str = "00000000-0000-8000-8000-000000000000";

/// Every endpoint, with the scope it needs.
fn endpoints() -> Vec<(Method, String, Scope)> {
    let (get, post) = (|| Method::GET, || Method::POST);
    vec![
        (post(), "/v1/sessions".to_owned(), Scope::SessionsWrite),
        (get(), "/v1/sessions".to_owned(), Scope::SessionsRead),
        (get(), format!("/v1/sessions/{ID}"), Scope::SessionsRead),
        (get(), format!("/v1/sessions/{ID}/timeline"), Scope::SessionsRead),
        (get(), format!("/v1/sessions/{ID}/ingest"), Scope::IngestRead),
        (post(), format!("/v1/sessions/{ID}/go-live"), Scope::SessionsWrite),
        (post(), format!("/v1/sessions/{ID}/end"), Scope::SessionsWrite),
        (post(), format!("/v1/sessions/{ID}/retry"), Scope::SessionsWrite),
        (post(), "/v1/accounts/a/deleted".to_owned(), Scope::AccountsWrite),
        (Method::DELETE, "/v1/accounts/a/data".to_owned(), Scope::AccountsErase),
        (get(), "/v1/live-streams".to_owned(), Scope::LiveStreamsRead),
        (get(), "/v1/live-streams/1".to_owned(), Scope::LiveStreamsRead),
        (post(), "/v1/jobs".to_owned(), Scope::JobsWrite),
        (post(), "/v1/jobs:pause".to_owned(), Scope::Admin),
        (post(), "/v1/jobs:resume".to_owned(), Scope::Admin),
        (get(), "/v1/jobs:paused".to_owned(), Scope::Admin),
        (get(), "/v1/jobs".to_owned(), Scope::JobsRead),
        (get(), format!("/v1/jobs/{ID}"), Scope::JobsRead),
        (post(), format!("/v1/jobs/{ID}/cancel"), Scope::JobsWrite),
        (post(), format!("/v1/jobs/{ID}/retry"), Scope::JobsWrite),
        (get(), "/v1/dead-jobs".to_owned(), Scope::JobsRead),
        (post(), "/v1/dead-jobs:redrive".to_owned(), Scope::JobsWrite),
        (post(), "/v1/dead-jobs:discard".to_owned(), Scope::JobsWrite),
        (post(), "/v1/jobs:batch".to_owned(), Scope::JobsWrite),
        (post(), "/v1/jobs:parent".to_owned(), Scope::JobsWrite),
        (get(), "/v1/schedules".to_owned(), Scope::JobsRead),
        (get(), "/v1/schedules/a".to_owned(), Scope::JobsRead),
        (Method::PUT, "/v1/schedules/a".to_owned(), Scope::JobsWrite),
        (Method::DELETE, "/v1/schedules/a".to_owned(), Scope::JobsWrite),
        (post(), "/v1/schedules/a/pause".to_owned(), Scope::JobsWrite),
        (post(), "/v1/schedules/a/resume".to_owned(), Scope::JobsWrite),
        (post(), "/v1/schedules/a/run".to_owned(), Scope::JobsWrite),
        (get(), "/v1/events".to_owned(), Scope::EventsRead),
        // A cursor that is refused ends it at once.
        (get(), "/v1/events/stream?after=none".to_owned(), Scope::EventsRead),
        (get(), "/v1/endpoints".to_owned(), Scope::EndpointsRead),
        (post(), "/v1/endpoints".to_owned(), Scope::EndpointsWrite),
        (get(), format!("/v1/endpoints/{ID}"), Scope::EndpointsRead),
        (Method::PATCH, format!("/v1/endpoints/{ID}"), Scope::EndpointsWrite),
        (Method::DELETE, format!("/v1/endpoints/{ID}"), Scope::EndpointsWrite),
        (post(), format!("/v1/endpoints/{ID}/rotate"), Scope::EndpointsWrite),
        (post(), format!("/v1/endpoints/{ID}/test"), Scope::EndpointsWrite),
        (post(), format!("/v1/endpoints/{ID}/redeliver"), Scope::EndpointsWrite),
        (get(), format!("/v1/endpoints/{ID}/deliveries"), Scope::EndpointsRead),
        (post(), "/v1/cleanup/runs".to_owned(), Scope::JobsWrite),
        (get(), format!("/v1/cleanup/runs/{ID}"), Scope::JobsRead),
    ]
}

/// A body that must not be read.
fn untouchable() -> Body {
    Body::from_stream(stream::poll_fn(
        |_| -> std::task::Poll<Option<Result<Bytes, std::io::Error>>> {
            panic!("the body was read before the caller was known")
        },
    ))
}

async fn with_authorization(app: &App, values: &[&str]) -> Answer {
    let mut request = Request::get("/v1/sessions");
    for value in values {
        request = request.header(header::AUTHORIZATION, *value);
    }
    app.send(request.body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn nothing_answers_without_a_token_and_no_body_is_read() {
    let app = App::start().await;
    let unknown = (Method::POST, "/nowhere".to_owned(), Scope::Admin);
    let wrong_method = (Method::DELETE, "/v1/sessions".to_owned(), Scope::Admin);
    for (method, path, _) in endpoints().into_iter().chain([unknown, wrong_method]) {
        let request = Request::builder().method(method).uri(&path).body(untouchable()).unwrap();
        let answer = app.send(request).await;
        answer.problem(401, "unauthorized");
        assert!(answer.header(header::WWW_AUTHENTICATE).starts_with("Bearer"), "{path}");
    }
}

#[tokio::test]
async fn each_endpoint_needs_its_scope_and_reads_no_body_without() {
    let app = App::start().await;
    for (method, path, needed) in endpoints() {
        for scope in Scope::ALL.into_iter().filter(|s| ![needed, Scope::Admin].contains(s)) {
            let answer =
                app.send(request(method.clone(), &path, scope).body(untouchable()).unwrap()).await;
            let detail = answer.problem(403, "forbidden");
            assert!(detail.contains(needed.name()), "{detail}");
            assert!(answer.header(header::WWW_AUTHENTICATE).contains("insufficient_scope"));
        }
        for scope in [needed, Scope::Admin] {
            let answer =
                app.send(request(method.clone(), &path, scope).body(Body::empty()).unwrap()).await;
            assert!(![401, 403].contains(&answer.status.as_u16()), "{path} {scope}");
        }
    }
}

#[tokio::test]
async fn only_one_known_bearer_token_that_has_not_expired_is_accepted() {
    let app = App::start().await;
    let good = format!("Bearer {}", secret(Scope::SessionsRead));
    with_authorization(&app, &[&good]).await.ok(200);
    with_authorization(&app, &[&good.replace("Bearer", "bEARER")]).await.ok(200);
    with_authorization(&app, &["Bearer lasting"]).await.ok(200);
    let basic = good.replace("Bearer", "Basic");
    let refused: [&[&str]; 6] =
        [&["Bearer unknown"], &["Bearer "], &["Bearer"], &[&basic], &[&good, &good], &["\u{e9}"]];
    for values in refused {
        with_authorization(&app, values).await.problem(401, "unauthorized");
    }
    let detail = with_authorization(&app, &["Bearer expired"]).await.problem(401, "unauthorized");
    assert!(detail.contains("expired"));
}

#[tokio::test]
async fn probes_need_no_token_and_tell_whether_the_database_answers() {
    let app = App::start().await;
    let probe = async |path: &str| app.send(Request::get(path).body(Body::empty()).unwrap()).await;
    probe("/livez").await.ok(200);
    probe("/readyz").await.ok(200);
    let posted = Request::post("/livez").body(Body::empty()).unwrap();
    app.send(posted).await.problem(405, "method-not-allowed");
}

#[tokio::test]
async fn an_absent_database_is_a_503_that_says_when_to_come_back() {
    let app = App::start().await;
    app.store.close().await;
    let probe = async |path: &str| app.send(Request::get(path).body(Body::empty()).unwrap()).await;
    probe("/livez").await.ok(200);
    let answers = [
        probe("/readyz").await,
        app.get("/v1/sessions").await,
        app.start_session("key", &named("show")).await,
    ];
    for answer in answers {
        answer.problem(503, "unavailable");
        assert_eq!(answer.header(header::RETRY_AFTER), "5");
        assert!(!answer.text.contains("pool"), "no inner text: {}", answer.text);
    }
}

#[tokio::test]
async fn pings_within_a_second_are_shared() {
    let app = App::start().await;
    let probe = async || app.send(Request::get("/readyz").body(Body::empty()).unwrap()).await;
    probe().await.ok(200);
    app.store.close().await;
    let asked = std::time::Instant::now();
    let answer = probe().await;
    // On a machine so slow that the second has passed, the ping is made anew, and fails.
    assert!(answer.status.as_u16() == 200 || asked.elapsed().as_secs() >= 1, "{}", answer.text);
}

#[tokio::test]
async fn every_answer_is_private_and_is_what_its_type_says() {
    let app = App::start().await;
    let id = app.session("key", &named("<script>alert(1)</script>")).await;
    for path in [format!("/v1/sessions/{id}"), "/v1/nowhere".to_owned(), "/livez".to_owned()] {
        let answer = app.get(&path).await;
        assert_eq!(answer.header(header::CACHE_CONTROL), "no-store", "{path}");
        assert_eq!(answer.header(header::X_CONTENT_TYPE_OPTIONS), "nosniff", "{path}");
        assert!(answer.header(header::CONTENT_TYPE).starts_with("application/"), "{path}");
    }
}

#[tokio::test]
async fn the_log_tells_whose_token_commanded() {
    let app = App::start().await;
    let id = app.session("key", &named("show")).await;
    let subject = domain::ids::Subject::request(SOURCE, id);
    let events = app.store.read_subject(&subject, 0, 10).await.unwrap();
    assert_eq!(events[0].meta, Some(serde_json::json!({ "token": "admin" })));
}

#[tokio::test]
async fn every_answer_is_counted_by_route_and_status() {
    let app = App::start().await;
    with_authorization(&app, &[]).await.problem(401, "unauthorized");
    app.get("/v1/sessions").await.ok(200);
    app.get("/nowhere").await;
    app.get("/nowhere").await;
    let answered = |route, status| app.api.metrics().answered("GET", route, status);
    assert_eq!(answered("/v1/sessions", 200), 1);
    assert_eq!(answered("none", 401) + answered("/v1/sessions", 401), 1);
    assert_eq!(answered("none", 404), 2, "the path itself is no label");
}
