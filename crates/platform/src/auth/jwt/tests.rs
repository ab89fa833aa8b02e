//! Renewal of tokens against a scripted server that knows which access token is current.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use super::*;
use crate::{
    Client as PlatformClient, Config, Credentials, Disposition, Error,
    test_support::{Reply, Request, Server, json as reply_json},
};

const LOGIN: &str = "/iam/auth/jwt/login";
const REFRESH: &str = "/iam/auth/jwt/refresh";
const STREAM: &str = "/streaming/streams/7";
const RETRY: Disposition = Disposition::Retry { after: None };

/// The platform's side of the tokens: pair number n is `access-n`, `refresh-n`.
#[derive(Default)]
struct Issuer {
    issued: AtomicUsize,
    /// Access tokens up to this number are refused.
    revoked: AtomicUsize,
}

impl Issuer {
    /// A new pair.
    fn issue(&self) -> Reply {
        let number = self.issued.fetch_add(1, Ordering::SeqCst) + 1;
        let (access, refresh) = (format!("access-{number}"), format!("refresh-{number}"));
        reply_json(200, &json!({"access": access, "refresh": refresh}))
    }

    /// Refuses what was issued until now.
    fn revoke(&self) {
        self.revoked.store(self.issued.load(Ordering::SeqCst), Ordering::SeqCst);
    }

    /// A platform that behaves: only the last refresh token works, only unrevoked access tokens.
    fn respond(&self, request: &Request) -> Reply {
        let issued = self.issued.load(Ordering::SeqCst);
        match request.target.as_str() {
            LOGIN => self.issue(),
            REFRESH if request.body["refresh"] == format!("refresh-{issued}") => self.issue(),
            REFRESH => reply_json(401, &json!({"message": "Token is blacklisted"})),
            _ => {
                let number = request.authorization.strip_prefix("Bearer access-");
                let number: usize = number.and_then(|number| number.parse().ok()).unwrap_or(0);
                if number > self.revoked.load(Ordering::SeqCst) {
                    reply_json(200, &json!({"id": 7}))
                } else {
                    reply_json(401, &json!({"message": "Token is invalid or expired"}))
                }
            }
        }
    }
}

/// A server that behaves, and its issuer.
async fn behaving() -> (Server, Arc<Issuer>) {
    let issuer = Arc::new(Issuer::default());
    let serving = Arc::clone(&issuer);
    (Server::start(move |request| serving.respond(request)).await, issuer)
}

fn config(server: &Server) -> Config {
    let password = SecretString::from("hunter-2");
    let credentials = Credentials::Password { username: "user@example.com".to_owned(), password };
    Config::new(&server.base_url, credentials)
}

fn client(server: &Server) -> PlatformClient {
    PlatformClient::new(config(server)).unwrap()
}

/// Only the tokens, with lives of our choice.
fn jwt(server: &Server, life: Life) -> Arc<Jwt> {
    let base = http::base_url(&server.base_url).unwrap();
    let http = http::client(&config(server), &base).unwrap();
    let mut jwt = Jwt::new(http, &base, "user@example.com".to_owned(), "hunter-2".into());
    jwt.life = life;
    Arc::new(jwt)
}

/// Twenty calls at once, all in their own tasks.
async fn twenty_calls(client: &PlatformClient) -> Vec<Result<(), Error>> {
    let spawn = |_| {
        let client = client.clone();
        tokio::spawn(async move { client.get_stream(7).await.map(drop) })
    };
    let calls: Vec<_> = (0..20).map(spawn).collect();
    let mut results = Vec::new();
    for call in calls {
        results.push(call.await.unwrap());
    }
    results
}

#[tokio::test]
async fn twenty_callers_log_in_once() {
    let (server, _issuer) = behaving().await;
    let client = client(&server);
    assert!(twenty_calls(&client).await.iter().all(Result::is_ok));
    assert_eq!((server.count(LOGIN), server.count(REFRESH), server.count(STREAM)), (1, 0, 20));
    let login = &server.requests()[0];
    assert_eq!(login.body, json!({"username": "user@example.com", "password": "hunter-2"}));
    assert_eq!(login.authorization, "");
}

#[tokio::test]
async fn twenty_callers_with_a_revoked_token_refresh_once() {
    let (server, issuer) = behaving().await;
    let client = client(&server);
    client.get_stream(7).await.unwrap();
    issuer.revoke();
    assert!(twenty_calls(&client).await.iter().all(Result::is_ok));
    assert_eq!((server.count(LOGIN), server.count(REFRESH)), (1, 1));
    assert!(server.count(STREAM) <= 41, "each call goes out twice at most");
}

#[tokio::test]
async fn a_token_that_stays_refused_is_tried_twice_and_then_remembered() {
    let (server, issuer) = behaving().await;
    issuer.revoked.store(usize::MAX, Ordering::SeqCst);
    let client = client(&server);
    let error = client.get_stream(7).await.unwrap_err();
    assert_eq!((error.status(), error.disposition()), (Some(401), Disposition::Unauthorized));
    assert_eq!((server.count(LOGIN), server.count(REFRESH), server.count(STREAM)), (1, 1, 2));
    let error = client.get_stream(7).await.unwrap_err();
    assert_eq!(error.disposition(), Disposition::Unauthorized);
    assert_eq!((server.count(LOGIN), server.count(REFRESH)), (1, 1), "no further login");
}

#[tokio::test]
async fn a_refused_login_is_not_repeated_by_the_next_call() {
    let server = Server::start(|_| {
        let text = "No active account found with the given credentials.";
        reply_json(400, &json!({"errors": {"errors": [text]}}))
    })
    .await;
    let client = client(&server);
    for _ in 0..3 {
        let error = client.delete_stream(7).await.unwrap_err();
        assert_eq!(error.disposition(), Disposition::Unauthorized);
        assert_eq!(
            error.to_string(),
            "delete_stream: login answered 400: No active account found with the given credentials."
        );
    }
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn a_login_that_is_not_found_does_not_mean_that_the_object_is_gone() {
    let server = Server::start(|_| Reply::Answer(404, "", Vec::new())).await;
    let error = client(&server).delete_stream(7).await.unwrap_err();
    assert_eq!((error.status(), error.disposition()), (None, Disposition::Unauthorized));
    assert!(!error.is_not_found());
}

#[tokio::test]
async fn trouble_at_the_login_leaves_even_a_create_repeatable() {
    let cases: [(u16, &'static str, Disposition); 4] = [
        (500, "", RETRY),
        (503, "", RETRY),
        (503, "retry-after: 5\r\n", Disposition::Wait { after: Some(Duration::from_secs(5)) }),
        (429, "", Disposition::Wait { after: None }),
    ];
    for (status, headers, disposition) in cases {
        let server = Server::start(move |_| Reply::Answer(status, headers, Vec::new())).await;
        let new = crate::wire::NewStream::default();
        let error = client(&server).create_stream(&new).await.unwrap_err();
        assert_eq!(error.disposition(), disposition, "{status}");
        assert_eq!(server.count(LOGIN), 1);
    }
    let server = Server::start(|_| Reply::Close).await;
    let error = client(&server).create_stream(&crate::wire::NewStream::default()).await;
    assert_eq!(error.unwrap_err().disposition(), RETRY);
}

#[tokio::test]
async fn a_blacklisted_refresh_token_leads_to_a_login() {
    let (server, issuer) = behaving().await;
    let client = client(&server);
    client.get_stream(7).await.unwrap();
    // Somebody else used the pair: our refresh token is one behind.
    issuer.issued.fetch_add(1, Ordering::SeqCst);
    issuer.revoke();
    client.get_stream(7).await.unwrap();
    assert_eq!((server.count(REFRESH), server.count(LOGIN)), (1, 2));
}

#[tokio::test]
async fn a_refresh_token_whose_use_was_not_answered_is_never_sent_again() {
    let issuer = Arc::new(Issuer::default());
    let serving = Arc::clone(&issuer);
    let server = Server::start(move |request| match request.target.as_str() {
        REFRESH => Reply::Close,
        _ => serving.respond(request),
    })
    .await;
    let client = client(&server);
    client.get_stream(7).await.unwrap();
    issuer.revoke();
    assert_eq!(client.get_stream(7).await.unwrap_err().disposition(), RETRY);
    client.get_stream(7).await.unwrap();
    assert_eq!((server.count(REFRESH), server.count(LOGIN)), (1, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_caller_does_not_lose_the_new_pair() {
    let issuer = Arc::new(Issuer::default());
    let (asked, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let (answer, gate) = std::sync::mpsc::channel::<()>();
    let gate = Arc::new(Mutex::new(gate));
    let serving = Arc::clone(&issuer);
    let server = Server::start(move |request| {
        if request.target == LOGIN {
            asked.send(()).unwrap();
            let gate = gate.lock().unwrap();
            tokio::task::block_in_place(|| gate.recv()).unwrap();
        }
        serving.respond(request)
    })
    .await;
    let client = client(&server);
    let caller = tokio::spawn({
        let client = client.clone();
        async move { client.get_stream(7).await.map(drop) }
    });
    seen.recv().await.unwrap();
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    answer.send(()).unwrap();
    client.get_stream(7).await.unwrap();
    assert_eq!(server.count(LOGIN), 1, "the pair of the cancelled caller is used");
}

#[tokio::test]
async fn a_token_is_renewed_before_it_dies() {
    let (server, issuer) = behaving().await;
    let life = Life { access: Duration::ZERO, ..Life::PUBLISHED };
    let jwt = jwt(&server, life);
    jwt.ticket(None).await.unwrap();
    let ticket = jwt.ticket(None).await.unwrap();
    assert_eq!(ticket.header, "Bearer access-2");
    assert_eq!((server.count(LOGIN), server.count(REFRESH)), (1, 1));
    assert_eq!(issuer.issued.load(Ordering::SeqCst), 2);
    assert_eq!(Life::PUBLISHED.access * 4 / 5, Duration::from_mins(48));
}

#[tokio::test]
async fn an_old_refresh_token_is_not_tried() {
    let (server, _issuer) = behaving().await;
    let jwt = jwt(&server, Life { access: Duration::ZERO, refresh: Duration::ZERO });
    jwt.ticket(None).await.unwrap();
    jwt.ticket(None).await.unwrap();
    assert_eq!((server.count(LOGIN), server.count(REFRESH)), (2, 0));
}

#[tokio::test]
async fn a_renewal_ahead_of_time_may_fail_while_the_old_token_works() {
    let issuer = Arc::new(Issuer::default());
    let serving = Arc::clone(&issuer);
    let server = Server::start(move |request| match request.target.as_str() {
        REFRESH => Reply::Answer(500, "", Vec::new()),
        _ => serving.respond(request),
    })
    .await;
    let jwt = jwt(&server, Life::PUBLISHED);
    jwt.ticket(None).await.unwrap();
    jwt.pair().as_mut().unwrap().renew_at = Instant::now();
    for _ in 0..3 {
        assert_eq!(jwt.ticket(None).await.unwrap().header, "Bearer access-1");
    }
    assert_eq!(server.count(REFRESH), 1, "and it is not asked again at once");
    assert!(jwt.ticket(Some(1)).await.is_ok(), "a rejected token is renewed by login");
    assert_eq!(server.count(LOGIN), 2);
}

#[tokio::test]
async fn an_answer_without_an_access_token_is_no_login() {
    for body in ["", "[]", r#"{"access":""}"#, r#"{"access":"a\nb"}"#, "<html>"] {
        let server = Server::start(move |_| Reply::Answer(200, "", body.as_bytes().to_vec())).await;
        let error = client(&server).get_stream(7).await.unwrap_err();
        assert_eq!(error.disposition(), RETRY, "{body}");
    }
}
