//! Runs on a real database against a scripted platform: what is proposed, what is looked at right
//! before a call, and what the log says of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use domain::cleanup::report::Report;
use domain::event::{SessionOptions, SessionRef, SessionRequested};
use domain::ids::intent_id;
use domain::webhook::Tag;
use platform::{Client, Credentials};
use store::{EnqueueOptions, SealingKey, Store};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::engine::tests::{config, until};
use crate::{Config, Worker};

const SOURCE: &str = "gcore-main";
const ORPHAN: i64 = 7;
const OLD: &str = "2026-01-01T10:00:00.000Z";

/// What the platform has, and what was asked of it.
#[derive(Default)]
struct Scene {
    streams: Vec<Value>,
    /// What a GET of one live stream shows, where it is not what the list shows.
    at_look: Option<Value>,
    /// The same as soon as something was deleted.
    after_deletion: Option<Value>,
    videos: Vec<Value>,
    /// The status of the statistics.
    statistics: u16,
    requests: Vec<String>,
}

impl Scene {
    fn answer(&mut self, method: &str, path: &str) -> (u16, Value) {
        self.requests.push(format!("{method} {}", path.split('?').next().unwrap_or_default()));
        let is_first =
            path.ends_with("&page=1") || path.ends_with("?page=1") || !path.contains("page=");
        let list = |rows: &[Value]| (200, Value::from(if is_first { rows } else { &[] }.to_vec()));
        match (method, path) {
            ("POST", "/streaming/streams") => (422, json!({"errors": {"name": ["is odd"]}})),
            ("GET", path) if path.starts_with("/streaming/streams/") => {
                let id: i64 = path.rsplit('/').next().unwrap().parse().unwrap();
                let listed = self.streams.iter().find(|stream| stream["id"] == id).cloned();
                match self.at_look.clone().or(listed) {
                    Some(stream) => (200, stream),
                    None => (404, json!({"error": "not found"})),
                }
            }
            ("GET", path) if path.starts_with("/streaming/streams") => list(&self.streams),
            ("GET", path) if path.starts_with("/streaming/statistics/ffprobe") => {
                let sample = json!({"time": "2026-01-02 10:00:00", "avg_bitrate": 2000.0});
                (self.statistics, json!({"data": [sample]}))
            }
            ("GET", path) if path.starts_with("/streaming/videos/") => {
                let id: i64 = path.rsplit('/').next().unwrap().parse().unwrap();
                match self.videos.iter().find(|video| video["id"] == id) {
                    Some(video) => (200, video.clone()),
                    None => (404, json!({"error": "not found"})),
                }
            }
            ("GET", path) if path.starts_with("/streaming/videos") => list(&self.videos),
            ("DELETE", path) => {
                let id: i64 = path.rsplit('/').next().unwrap().parse().unwrap();
                self.streams.retain(|stream| stream["id"] != id);
                self.at_look = self.after_deletion.clone().or(self.at_look.take());
                (204, Value::Null)
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Serves a scene.
async fn serve(scene: Arc<Mutex<Scene>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut connection, _) = listener.accept().await.unwrap();
            let head = head(&mut connection).await;
            let mut words = head.split(' ');
            let (method, path) = (words.next().unwrap(), words.next().unwrap());
            let (status, body) = scene.lock().unwrap().answer(method, path);
            let body = if status == 204 { String::new() } else { body.to_string() };
            let answer = format!(
                "HTTP/1.1 {status} -\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
                 connection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = connection.write_all(answer.as_bytes()).await;
        }
    });
    url
}

/// The head of one request; its body is read and forgotten.
async fn head(connection: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).to_string();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let lower = head.to_ascii_lowercase();
            let length = lower.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                return head.to_owned();
            }
        }
        assert!(connection.read_buf(&mut bytes).await.unwrap() > 0, "a whole request");
    }
}

/// A database, a platform, a worker, and a session whose create the platform refused although it
/// made the live stream.
struct Place {
    store: Store,
    scene: Arc<Mutex<Scene>>,
    worker: Worker,
    session: Uuid,
}

impl Place {
    async fn new() -> Self {
        let store = store::testing::store().await;
        let scene = Arc::new(Mutex::new(Scene { statistics: 200, ..Scene::default() }));
        let url = serve(Arc::clone(&scene)).await;
        let credentials = Credentials::Token("1_secret".to_owned().into());
        let client = Client::new(platform::Config::new(url, credentials)).unwrap();
        let platforms = HashMap::from([(SOURCE.to_owned(), client)]);
        let key = SealingKey::new([7; 32]);
        let ctx = Context::new(store.clone(), platforms, key, Config { ..config() });
        let session = Uuid::now_v7();
        let place = Self { store, scene, worker: Worker::start(ctx), session };
        place.fail_to_create().await;
        let orphan = place.orphan();
        place.scene.lock().unwrap().streams.push(orphan);
        place
    }

    /// Asks for a session, whose live stream is refused.
    async fn fail_to_create(&self) {
        let request = Event::SessionRequested(SessionRequested {
            session: self.session,
            source: SOURCE.to_owned(),
            account: None,
            name: "n".to_owned(),
            live_stream: None,
            options: SessionOptions::default(),
        });
        self.tell_request(&request).await;
        self.until_request("failed").await;
    }

    /// Ends the session. Its request finds what its refused create made all the same, and proposes
    /// it: that is kept for being active, so that it is there for the runs.
    async fn end_session(&self) {
        let done = async || self.told().await.iter().filter(|told| *told == "CleanupDone").count();
        let before = done().await;
        let mut active = self.orphan();
        active["active"] = json!(true);
        self.change(|scene| scene.at_look = Some(active));
        self.tell_request(&Event::EndRequested(SessionRef { session: self.session })).await;
        self.until_request("ended").await;
        until(async || (done().await > before).then_some(())).await;
        self.change(|scene| scene.at_look = None);
    }

    async fn tell_request(&self, event: &Event) {
        let subject = Subject::request(SOURCE, self.session);
        let now = std::time::SystemTime::now().into();
        let event = NewEvent::new(subject, event, now, Uuid::now_v7());
        self.store.append_one(event).await.unwrap();
    }

    async fn until_request(&self, status: &str) {
        until(async || {
            let session = self.store.session(self.session).await.unwrap()?;
            (session.status == status).then_some(())
        })
        .await;
    }

    /// The live stream that the platform made all the same.
    fn orphan(&self) -> Value {
        let key = intent_id(&Subject::request(SOURCE, self.session), 0);
        let tag = Tag::new(self.store.installation(), key, None).text();
        json!({
            "id": ORPHAN, "active": false, "live": false, "backup_live": false,
            "created_at": "2099-01-01T10:00:00.000Z", "client_entity_data": tag,
        })
    }

    /// A run to its end.
    async fn run(&self, args: Value) -> Report {
        let options = EnqueueOptions::default();
        let job = self.store.enqueue(KIND, &args, &options).await.unwrap();
        self.store.notifier().enqueued(self.store.slice_of(&Subject::job(job)));
        self.report(job).await
    }

    async fn report(&self, job: Uuid) -> Report {
        let subject = Subject::cleanup(SOURCE, run_id(job, SOURCE));
        until(async || {
            let events = self.store.read_subject(&subject, 0, 500).await.unwrap();
            Report::of(&events).filter(|report| report.status == "finished")
        })
        .await
    }

    fn requests(&self) -> Vec<String> {
        self.scene.lock().unwrap().requests.clone()
    }

    fn deletions(&self) -> usize {
        self.requests().iter().filter(|request| request.starts_with("DELETE")).count()
    }

    /// The types of the events of the orphan's subject.
    async fn told(&self) -> Vec<String> {
        let subject = Subject::live_stream(SOURCE, LiveStreamId(ORPHAN));
        let events = self.store.read_subject(&subject, 0, 500).await.unwrap();
        events.into_iter().map(|event| event.event_type).collect()
    }

    fn change(&self, change: impl FnOnce(&mut Scene)) {
        change(&mut self.scene.lock().unwrap());
    }
}

fn orphans(dry_run: bool) -> Value {
    json!({"policy": "orphans", "dry_run": dry_run})
}

#[tokio::test]
async fn an_orphan_is_kept_while_its_session_may_take_it_and_while_it_is_young() {
    let place = Place::new().await;
    let open = place.run(orphans(true)).await;
    assert_eq!((open.looked_at, open.proposed), (1, 0));
    assert!(open.candidates[0].reason.contains("may still take it"), "{open:?}");
    place.end_session().await;
    let young = place.run(orphans(true)).await;
    assert!(young.candidates[0].reason.contains("not said to be made before"), "{young:?}");
    assert_eq!(place.deletions(), 0);
}

#[tokio::test]
async fn a_live_stream_of_a_request_that_came_later_has_no_maker() {
    let place = Place::new().await;
    place.end_session().await;
    place.change(|scene| scene.streams[0]["created_at"] = json!(OLD));
    let report = place.run(orphans(false)).await;
    assert!(report.candidates[0].reason.contains("no request that this log knows"), "{report:?}");
    assert_eq!(place.deletions(), 0);
}

/// Proposes the orphan itself, as if it had been judged when it was old enough.
async fn propose(place: &Place, made_before: &str) -> Option<bool> {
    let done = propose_some(place, CleanupPolicy::Orphans, made_before, &[]).await;
    done["deleted"].as_bool()
}

/// Proposes something, and returns what `CleanupDone` says of it.
async fn propose_some(
    place: &Place,
    policy: CleanupPolicy,
    made_before: &str,
    videos: &[i64],
) -> Value {
    let request = CleanupRequested {
        run: Uuid::now_v7(),
        reason: "r".to_owned(),
        delete_recordings: false,
        policy,
        made_before: Some(made_before.parse().unwrap()),
        videos: videos.iter().copied().map(VideoId).collect(),
    };
    settled(place, request).await
}

/// Proposes, and returns what `CleanupDone` says of it.
async fn settled(place: &Place, request: CleanupRequested) -> Value {
    let run = request.run;
    let event = Event::CleanupRequested(request);
    let subject = Subject::live_stream(SOURCE, LiveStreamId(ORPHAN));
    let now = std::time::SystemTime::now().into();
    let event = NewEvent::new(subject.clone(), &event, now, Uuid::now_v7());
    place.store.append_one(event).await.unwrap();
    place.store.notifier().moved(place.store.slice_of(&subject));
    until(async || {
        let events = place.store.read_subject(&subject, 0, 500).await.unwrap();
        let mut done = events.iter().rev().filter(|event| event.event_type == "CleanupDone");
        let body: Value = serde_json::from_slice(&done.next()?.payload).unwrap();
        (body["run"] == run.to_string()).then_some(body)
    })
    .await
}

#[tokio::test]
async fn of_recordings_only_those_go_that_say_they_may() {
    let place = Place::new().await;
    let video = |id: i64, spoil: Value| {
        let mut video =
            json!({"id": id, "stream_id": ORPHAN, "status": "ready", "created_at": OLD});
        video.as_object_mut().unwrap().extend(spoil.as_object().unwrap().clone());
        video
    };
    place.change(|scene| {
        scene.videos = vec![
            video(1, json!({})),
            video(2, json!({"status": "pending"})),
            video(3, json!({"stream_id": 8})),
            video(4, json!({"stream_id": null})),
            video(5, json!({"created_at": "2026-03-01T00:00:00.000Z"})),
            video(6, json!({"created_at": null})),
        ];
    });
    let all = [1, 2, 3, 4, 5, 6, 7];
    let policy = CleanupPolicy::Recordings;
    let done = propose_some(&place, policy, "2026-02-01T00:00:00Z", &all).await;
    // The last one is gone already.
    assert_eq!((&done["deleted"], &done["videos"]), (&json!(false), &json!([1, 7])));
    let deletions: Vec<String> =
        place.requests().into_iter().filter(|request| request.starts_with("DELETE")).collect();
    assert_eq!(deletions, ["DELETE /streaming/videos/1", "DELETE /streaming/videos/7"]);
    let foreign = json!({"id": ORPHAN, "client_entity_data": "somebody's"});
    place.change(|scene| scene.at_look = Some(foreign));
    let done = propose_some(&place, policy, "2026-02-01T00:00:00Z", &[1]).await;
    assert!(done["reason"].as_str().unwrap().contains("tag"), "{done}");
    assert_eq!(place.deletions(), 2);
}

#[tokio::test]
async fn recordings_that_went_before_a_guard_kept_their_live_stream_are_told() {
    let place = Place::new().await;
    place.end_session().await;
    let mut active = place.orphan();
    active["active"] = json!(true);
    place.change(|scene| {
        let row =
            |id: i64| json!({"id": id, "stream_id": ORPHAN, "status": "ready", "created_at": OLD});
        scene.videos = vec![row(1), row(2)];
        scene.after_deletion = Some(active);
    });
    let request = CleanupRequested {
        run: Uuid::now_v7(),
        reason: "r".to_owned(),
        delete_recordings: true,
        policy: CleanupPolicy::Orphans,
        made_before: Some("2100-01-01T00:00:00Z".parse().unwrap()),
        videos: Vec::new(),
    };
    let done = settled(&place, request).await;
    assert_eq!((&done["deleted"], &done["videos"]), (&json!(false), &json!([1, 2])));
    assert!(done["reason"].as_str().unwrap().contains("it is active"), "{done}");
    assert_eq!(place.deletions(), 2, "and not the live stream");
}

#[tokio::test]
async fn what_is_true_right_before_the_call_decides() {
    let place = Place::new().await;
    let later = "2100-01-01T00:00:00Z";
    assert_eq!(propose(&place, later).await, Some(false), "its session may still take it");
    place.end_session().await;
    for spoil in [
        json!({"active": true}),
        json!({"active": null}),
        json!({"live": true}),
        json!({"recording": true}),
        json!({"client_entity_data": Tag::new(Uuid::now_v7(), Uuid::now_v7(), None).text()}),
        json!({"client_entity_data": null}),
        json!({"created_at": null}),
    ] {
        let mut stream = place.orphan();
        stream.as_object_mut().unwrap().extend(spoil.as_object().unwrap().clone());
        place.change(|scene| scene.at_look = Some(stream));
        assert_eq!(propose(&place, later).await, Some(false), "{spoil}");
    }
    place.change(|scene| scene.at_look = None);
    place.change(|scene| scene.videos = vec![json!({"id": 1, "status": "pending"})]);
    assert_eq!(propose(&place, later).await, Some(false), "a video is in work");
    place.change(|scene| scene.videos.clear());
    place.change(|scene| scene.statistics = 400);
    assert_eq!(propose(&place, later).await, Some(false), "its statistics would be lost");
    assert_eq!(propose(&place, OLD).await, Some(false), "it is too young");
    assert_eq!(place.deletions(), 0);

    place.change(|scene| scene.statistics = 200);
    assert_eq!(propose(&place, later).await, Some(true));
    assert_eq!(place.deletions(), 1);
    let told = place.told().await;
    let at = |name: &str| told.iter().rposition(|told| told == name);
    assert!(at("LiveStreamCaptured") < at("CallSucceeded"), "{told:?}");
    assert_eq!(propose(&place, later).await, Some(false), "it is deleted already");
    assert_eq!(place.deletions(), 1);
}

#[tokio::test]
async fn a_job_that_died_between_a_verdict_and_its_proposal_makes_the_proposal_once() {
    let place = Place::new().await;
    let job = claimed(&orphans(false));
    let run = run_id(job.id, SOURCE);
    let judged = CleanupEvent::Judged(CleanupJudged {
        run,
        live_stream: LiveStreamId(ORPHAN),
        videos: Vec::new(),
        proposed: true,
        reason: "r".to_owned(),
        delete_recordings: false,
        made_before: Some("2100-01-01T00:00:00Z".parse().unwrap()),
    });
    let started = CleanupEvent::Started(CleanupStarted {
        run,
        job: job.id,
        policy: CleanupPolicy::Orphans,
        dry_run: false,
        cap: 1,
        rule: "r".to_owned(),
    });
    let subject = Subject::cleanup(SOURCE, run);
    for event in [started, judged] {
        let event = Event::Cleanup(event);
        let now = std::time::SystemTime::now().into();
        let event = NewEvent::new(subject.clone(), &event, now, Uuid::now_v7());
        place.store.append_one(event).await.unwrap();
    }
    for _ in 0..2 {
        super::run(place.worker.context(), &job).await.unwrap();
    }
    let told = place.told().await;
    assert_eq!(told.iter().filter(|name| *name == "CleanupRequested").count(), 1, "{told:?}");
    let report = place.report(job.id).await;
    assert_eq!((report.looked_at, report.proposed), (1, 1), "{report:?}");
    assert!(report.candidates[0].outcome.is_some());
}

/// A job that this process has claimed, as a handler gets it.
fn claimed(args: &Value) -> ClaimedJob {
    let id = Uuid::now_v7();
    ClaimedJob {
        slice: 0,
        epoch: 1,
        id,
        kind: KIND.to_owned(),
        subject: Subject::job(id),
        args: args.clone(),
        attempt: 2,
        errors: 0,
        max_attempts: 14,
        causation_id: None,
        correlation_id: None,
        waits: None,
    }
}

#[tokio::test]
async fn arguments_that_cannot_be_meant_end_the_job() {
    let place = Place::new().await;
    for (args, why) in [
        (json!({"policy": "all"}), "arguments are wrong"),
        (json!({"days": 1}), "arguments are wrong"),
        (json!({"cap": 0}), "cap must be 1 or more"),
        (json!({"source": "elsewhere"}), "not configured here"),
    ] {
        let options = EnqueueOptions { max_attempts: Some(1), ..EnqueueOptions::default() };
        let job = place.store.enqueue(KIND, &args, &options).await.unwrap();
        let error = until(async || {
            let dead = place.store.dead_jobs(10).await.unwrap();
            dead.into_iter().find(|dead| dead.id == job)?.last_error
        })
        .await;
        assert!(error.contains(why), "{args}: {error}");
    }
    assert_eq!(place.deletions(), 0);
}
