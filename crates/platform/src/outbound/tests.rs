//! Outbound calls against a scripted server: what each answer comes to, what is kept of it, and
//! what is never connected to.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use secrecy::SecretString;
use serde_json::{Value, json};

use super::{
    Allow, Body, HeaderText, Outbound, OutboundCall, OutboundError, Reply, answer, guard::Names,
};
use crate::{
    Disposition, Sign,
    test_support::{Reply as Scripted, Server, json as answering},
};

const SECRET: &str = "Bearer hunter-2-is-long";
const PATIENCE: Duration = Duration::from_secs(20);

/// Everything at this server, with a secret.
fn outbound(url: &str) -> Outbound {
    Outbound::new(&[allow(url, true)], secrets()).unwrap()
}

fn allow(url: &str, private: bool) -> Allow {
    Allow { url: url.to_owned(), private, secrets: BTreeSet::from(["shop".to_owned()]) }
}

fn secrets() -> BTreeMap<String, SecretString> {
    let secret = |(name, value): (&str, &str)| (name.to_owned(), SecretString::from(value));
    [("shop", SECRET), ("other", "another-secret")].map(secret).into()
}

fn call(method: &str, url: &str) -> OutboundCall {
    OutboundCall {
        method: method.to_owned(),
        url: url.to_owned(),
        headers: Vec::new(),
        body: None,
        expect: Vec::new(),
    }
}

fn with_secret(mut call: OutboundCall, name: &str) -> OutboundCall {
    let text = HeaderText::Secret { name: name.to_owned(), prefix: String::new() };
    call.headers.push(("Authorization".to_owned(), text));
    call
}

async fn send(outbound: &Outbound, call: OutboundCall) -> Result<Reply, OutboundError> {
    outbound.prepare(call)?.send(PATIENCE).await
}

/// The answer to a POST with the secret.
async fn answered(
    reply: impl Fn() -> Scripted + Clone + Send + Sync + 'static,
) -> (Result<Reply, OutboundError>, Server) {
    let server = Server::start(move |_| reply()).await;
    let call = with_secret(call("POST", &server.base_url), "shop");
    (send(&outbound(&server.base_url), call).await, server)
}

#[tokio::test]
async fn a_call_is_one_request_with_its_secret_and_body() {
    let server = Server::start(|_| answering(201, &json!({"id": 7}))).await;
    let mut call = with_secret(call("POST", &format!("{}/hooks?a=1", server.base_url)), "shop");
    call.body = Some(Body::Json(json!({"paid": true})));
    let reply = send(&outbound(&server.base_url), call).await.unwrap();
    assert_eq!(reply, Reply { status: 201, body: json!({"id": 7}), is_cut: false });
    let [request] = server.requests().try_into().unwrap();
    assert_eq!((request.method.as_str(), request.target.as_str()), ("POST", "/hooks?a=1"));
    assert_eq!(request.authorization, SECRET);
    assert_eq!(request.body, json!({"paid": true}));
}

#[tokio::test]
async fn what_passes_is_tried_again_and_what_stays_is_not() {
    let retry = Disposition::Retry { after: None };
    for (status, expected, sign) in [
        (301, Disposition::Refused, Sign::Up),
        (400, Disposition::Refused, Sign::Up),
        (401, Disposition::Refused, Sign::Up),
        (404, Disposition::Refused, Sign::Up),
        (408, retry, Sign::Down),
        (425, retry, Sign::Up),
        (429, retry, Sign::Busy { after: None }),
        (500, retry, Sign::Down),
        (503, retry, Sign::Down),
    ] {
        let (answer, _) = answered(move || answering(status, &json!({}))).await;
        let error = answer.unwrap_err();
        assert_eq!(error.disposition(), expected, "{status}");
        assert_eq!((error.status(), error.sign()), (Some(status), Some(sign)), "{status}");
    }
}

#[tokio::test]
async fn retry_after_is_read_in_both_forms() {
    for headers in [
        "retry-after: 7\r\n",
        "date: Thu, 01 Jan 1970 00:00:00 GMT\r\nretry-after: Thu, 01 Jan 1970 00:00:07 GMT\r\n",
    ] {
        let (answer, _) = answered(move || Scripted::Answer(429, headers, Vec::new())).await;
        let after = Some(Duration::from_secs(7));
        assert_eq!(answer.unwrap_err().disposition(), Disposition::Retry { after });
    }
}

#[test]
fn an_expected_status_is_a_success_and_replaces_the_usual_ones() {
    assert_eq!(answer::judge(404, &[200, 404], None), None);
    assert_eq!(answer::judge(503, &[503], None), None);
    assert_eq!(answer::judge(201, &[200], None), Some(Disposition::Refused));
    assert_eq!(answer::judge(204, &[], None), None);
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = Server::start(|_| answering(200, &json!({}))).await;
    let location = format!("location: {}/\r\n", elsewhere.base_url).leak();
    let (answer, server) = answered(|| Scripted::Answer(302, location, Vec::new())).await;
    let error = answer.unwrap_err();
    assert!(error.to_string().contains("answered 302, and is not followed"), "{error}");
    assert_eq!((server.count("/"), elsewhere.count("/")), (1, 0));
}

#[tokio::test]
async fn a_lost_answer_is_tried_again_and_a_slow_one_too() {
    let (answer, server) = answered(|| Scripted::Close).await;
    let error = answer.unwrap_err();
    assert_eq!(error.disposition(), Disposition::Retry { after: None });
    assert!(error.to_string().contains("outcome is unknown"), "{error}");
    assert_eq!(server.requests().len(), 1, "nothing is repeated here");

    let server = Server::start(|_| Scripted::Silence).await;
    let prepared = outbound(&server.base_url).prepare(call("GET", &server.base_url)).unwrap();
    let error = prepared.send(Duration::from_millis(50)).await.unwrap_err();
    assert_eq!(error.disposition(), Disposition::Retry { after: None });
    assert!(error.to_string().contains("no answer in time"), "{error}");
}

#[tokio::test]
async fn a_success_whose_body_breaks_off_is_a_success() {
    let server = Server::start(|_| Scripted::HeadOnly).await;
    let prepared = outbound(&server.base_url).prepare(call("GET", &server.base_url)).unwrap();
    let reply = prepared.send(Duration::from_millis(200)).await.unwrap();
    assert_eq!(reply, Reply { status: 200, body: Value::Null, is_cut: true });
}

#[tokio::test]
async fn of_a_huge_body_only_the_beginning_is_kept() {
    let (answer, _) = answered(|| Scripted::Answer(200, "", vec![b'x'; 3_000_000])).await;
    let reply = answer.unwrap();
    assert!(reply.is_cut);
    assert_eq!(reply.body.as_str().unwrap().len(), 16 * 1024);
}

#[tokio::test]
async fn an_html_page_is_told_by_its_title() {
    let page = b"<html><head><title>502 Bad Gateway</title></head><p>nginx</p></html>";
    let (answer, _) = answered(|| Scripted::Answer(502, "", page.to_vec())).await;
    let error = answer.unwrap_err().to_string();
    assert!(error.ends_with("answered 502: 502 Bad Gateway"), "{error}");
}

#[tokio::test]
async fn what_an_answer_quotes_of_a_secret_is_masked() {
    let quoted = json!({
        "you_sent": SECRET, "word": "hunter-2-is-long", "list": ["a hunter-2-is-long b"],
        "hunter-2-is-long": 1, "access_token": "theirs", "id": "6460e735eda6b61bd4c99e02abf0c8df",
    });
    let body = quoted.clone();
    let (answer, _) = answered(move || answering(200, &body)).await;
    let body = answer.unwrap().body;
    assert_eq!(body["id"], quoted["id"], "what is no secret stays");
    assert!(!body.to_string().contains("hunter") && !body.to_string().contains("theirs"), "{body}");

    // Across the end of what is kept.
    for at in [30, 22, 10, 3, 0].map(|before| 16 * 1024 - before) {
        let page = format!("{}{SECRET}{}", "x".repeat(at), "y".repeat(40));
        let (answer, _) =
            answered(move || Scripted::Answer(200, "", page.clone().into_bytes())).await;
        let body = answer.unwrap().body.to_string();
        assert!(!body.contains("Bearer") && !body.contains("hunter"), "{at}");
    }

    let (answer, _) = answered(|| Scripted::Answer(400, "", SECRET.as_bytes().to_vec())).await;
    let error = answer.unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hunter"), "{error:?}");
}

#[tokio::test]
async fn a_secret_goes_only_where_its_entry_sends_it_and_shows_nowhere() {
    let outbound = outbound("http://127.0.0.1:9/");
    let prepare =
        |name: &str| outbound.prepare(with_secret(call("GET", "http://127.0.0.1:9/"), name));
    assert!(!format!("{:?} {:?}", outbound, prepare("shop").unwrap()).contains("hunter"));
    for name in ["other", "unknown"] {
        let error = prepare(name).unwrap_err();
        assert_eq!((error.disposition(), error.sign()), (Disposition::Refused, None));
        assert!(error.to_string().contains("may not be sent there"), "{error}");
    }
}

#[tokio::test]
async fn a_call_that_cannot_be_sent_as_it_is_is_refused() {
    let outbound = outbound("http://127.0.0.1:9/");
    let plain = |name: &str, value: &str| {
        let mut call = call("GET", "http://127.0.0.1:9/");
        call.headers.push((name.to_owned(), HeaderText::Plain(value.to_owned())));
        call
    };
    let mut twice = plain("x-a", "1");
    twice.headers.push(("X-A".to_owned(), HeaderText::Plain("2".to_owned())));
    for wrong in [
        call("TRACE", "http://127.0.0.1:9/"),
        call("get", "http://127.0.0.1:9/"),
        call("GET", "http://127.0.0.1:99/"),
        plain("host", "evil.example"),
        plain("Transfer-Encoding", "chunked"),
        plain("a b", "1"),
        plain("x-a", "1\r\nx-b: 2"),
        twice,
    ] {
        assert_eq!(outbound.prepare(wrong).unwrap_err().disposition(), Disposition::Refused);
    }
}

#[tokio::test]
async fn a_name_that_leads_inside_is_refused_where_the_connection_is_made() {
    let server = Server::start(|_| answering(200, &json!({}))).await;
    let port = server.base_url.rsplit_once(':').unwrap().1.to_owned();
    let url = format!("https://hooks.example:{port}/");
    for address in ["127.0.0.1", "169.254.169.254", "10.0.0.1", "::1", "::ffff:127.0.0.1"] {
        let names = Names::Fixed(vec![address.parse().unwrap()]);
        let outbound = Outbound::resolving(&[allow(&url, false)], secrets(), &names).unwrap();
        let error = send(&outbound, call("GET", &url)).await.unwrap_err();
        assert_eq!(error.disposition(), Disposition::Refused, "{address}: {error}");
        assert_eq!(error.sign(), None, "{address}");
        assert!(error.to_string().contains("no address that may be called"), "{error}");
    }
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn a_private_entry_reaches_this_machine_by_name_and_never_the_metadata_of_a_cloud() {
    let server = Server::start(|_| answering(200, &json!({}))).await;
    let url = server.base_url.replace("127.0.0.1", "hooks.example");
    let names = Names::Fixed(vec!["127.0.0.1".parse().unwrap()]);
    let outbound = Outbound::resolving(&[allow(&url, true)], secrets(), &names).unwrap();
    assert_eq!(send(&outbound, call("GET", &url)).await.unwrap().status, 200);

    let names = Names::Fixed(vec!["169.254.169.254".parse().unwrap()]);
    let outbound = Outbound::resolving(&[allow(&url, true)], secrets(), &names).unwrap();
    let error = send(&outbound, call("GET", &url)).await.unwrap_err();
    assert_eq!(error.disposition(), Disposition::Refused, "{error}");
}

#[tokio::test]
async fn anywhere_is_the_public_internet_by_https() {
    let server = Server::start(|_| answering(200, &json!({}))).await;
    let port = server.base_url.rsplit_once(':').unwrap().1.to_owned();
    let inside = Names::Fixed(vec!["127.0.0.1".parse().unwrap()]);
    let outbound = Outbound::anywhere_resolving(false, inside.clone()).unwrap();
    for url in [
        format!("https://hooks.example:{port}/"),
        format!("http://hooks.example:{port}/"),
        server.base_url.clone(),
        "https://127.0.0.1/".to_owned(),
        "https://[::1]/".to_owned(),
        "https://169.254.169.254/latest/meta-data".to_owned(),
        "https://u:p@hooks.example/".to_owned(),
        "file:///etc/passwd".to_owned(),
        "https://0x7f000001/".to_owned(),
    ] {
        let error = send(&outbound, call("POST", &url)).await.unwrap_err();
        assert_eq!(error.disposition(), Disposition::Refused, "{url}: {error}");
        assert_eq!(error.sign(), None, "{url}");
    }
    assert!(server.requests().is_empty());
    // By configuration this machine may be called, and a cloud's metadata may not.
    let outbound = Outbound::anywhere_resolving(true, inside).unwrap();
    for url in [&server.base_url, &server.base_url.replace("127.0.0.1", "hooks.example")] {
        assert_eq!(send(&outbound, call("POST", url)).await.unwrap().status, 200);
    }
    let metadata = send(&outbound, call("GET", "http://169.254.169.254/")).await.unwrap_err();
    assert_eq!(metadata.disposition(), Disposition::Refused);
}

#[test]
fn an_entry_cannot_name_a_secret_that_is_not_there() {
    let allow = allow("https://a.example/", false);
    assert!(Outbound::new(&[allow], BTreeMap::new()).is_err());
}
