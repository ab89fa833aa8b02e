//! The ways of a session that most tests go: ask for it, bring it on air, end it.

use domain::ids::{LiveStreamId, Subject, VideoId};
use serde_json::{Value, json};
use simulator::WebhookOutcome;
use uuid::Uuid;

use super::{SOURCE, TestSystem, until};

/// A session that is on air and recorded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OnAir {
    pub(crate) session: Uuid,
    pub(crate) stream: i64,
}

/// What became of a session.
#[derive(Debug)]
pub(crate) struct End {
    /// As the API shows it.
    pub(crate) told: Value,
    /// Its parts' videos, in order.
    pub(crate) videos: Vec<i64>,
    /// The statuses it came to, in order.
    pub(crate) moments: Vec<String>,
}

impl OnAir {
    /// Its live stream's subject.
    pub(crate) fn subject(&self) -> Subject {
        Subject::live_stream(SOURCE, LiveStreamId(self.stream))
    }
}

impl TestSystem {
    /// Asks for a session. `fields` are added to the request's body.
    pub(crate) async fn request(&self, key: &str, fields: Value) -> Uuid {
        let mut body = json!({"source": SOURCE, "name": key});
        let Value::Object(fields) = fields else { panic!("fields are an object") };
        body.as_object_mut().unwrap().extend(fields);
        let made = self.api.post("/v1/sessions", &body, Some(key)).await.ok();
        made["id"].as_str().unwrap().parse().unwrap()
    }

    /// A session, as the API shows it.
    pub(crate) async fn session(&self, session: Uuid) -> Value {
        self.api.get(&format!("/v1/sessions/{session}")).await.ok()
    }

    /// Commands a session.
    pub(crate) async fn tell(&self, session: Uuid, command: &str) {
        let path = format!("/v1/sessions/{session}/{command}");
        self.api.post(&path, &json!({}), None).await.ok();
    }

    /// Waits until a session has a status. One that fails on the way has failed the test.
    pub(crate) async fn until_status(&self, session: Uuid, status: &str) -> Value {
        until(&format!("session {session} is {status}"), async || {
            let told = self.session(session).await;
            let is_there = told["status"] == status;
            assert!(is_there || told["status"] != "failed", "it failed: {}", told["failure"]);
            is_there.then_some(told)
        })
        .await
    }

    /// Waits until a session's objects are made and returns its live stream.
    pub(crate) async fn until_ready(&self, session: Uuid) -> i64 {
        self.until_status(session, "ready").await["live_stream_id"].as_i64().unwrap()
    }

    /// Waits until the platform records, and has told so.
    pub(crate) async fn until_recorded(&self, stream: i64) {
        let subject = Subject::live_stream(SOURCE, LiveStreamId(stream));
        let slice = [self.store.slice_of(&subject)];
        until("the platform records, and it is known", async || {
            let is_told = self.stream(stream)["recording"] == true && self.is_heard();
            let status = self.store.slice_status().await.unwrap();
            let is_applied = status
                .iter()
                .filter(|one| slice.contains(&one.slice))
                .all(|one| one.head == one.position);
            (is_told && is_applied).then_some(())
        })
        .await;
    }

    /// Whether every webhook of the platform has had its turn, and the last was answered.
    fn is_heard(&self) -> bool {
        let last = self.simulator.webhooks().pop();
        self.simulator.state()["webhooks_waiting"] == 0
            && last.is_none_or(|last| last.outcome == WebhookOutcome::Answered)
    }

    /// Brings a session on air: encoder, go-live, recording.
    pub(crate) async fn on_air(&self, key: &str) -> OnAir {
        let session = self.request(key, json!({})).await;
        let stream = self.until_ready(session).await;
        self.show(session, stream).await
    }

    /// Connects the encoder of a session that is ready, and shows and records it.
    pub(crate) async fn show(&self, session: Uuid, stream: i64) -> OnAir {
        self.simulator.push(stream).unwrap();
        self.until_status(session, "testing").await;
        self.tell(session, "go-live").await;
        self.until_status(session, "live").await;
        self.until_recorded(stream).await;
        OnAir { session, stream }
    }

    /// Lets the encoder's connection break, until it is known to be lost.
    pub(crate) async fn drop_encoder(&self, on_air: OnAir) {
        self.simulator.drop_connection(on_air.stream).unwrap();
        until("the loss of the encoder is known", async || {
            (!self.session(on_air.session).await["interruption"].is_null()).then_some(())
        })
        .await;
    }

    /// Lets the encoder come back, until the session is live again and recorded.
    pub(crate) async fn return_encoder(&self, on_air: OnAir) {
        self.simulator.return_connection(on_air.stream).unwrap();
        until("the interruption is over", async || {
            let told = self.session(on_air.session).await;
            (told["status"] == "live" && told["interruption"].is_null()).then_some(())
        })
        .await;
        self.until_recorded(on_air.stream).await;
    }

    /// Ends a session and waits until its last video is ready.
    pub(crate) async fn finish(&self, session: Uuid) -> End {
        self.tell(session, "end").await;
        self.until_ended(session).await
    }

    /// Waits until a session is over.
    pub(crate) async fn until_ended(&self, session: Uuid) -> End {
        let told = self.until_status(session, "ended").await;
        let list = |key: &str| told[key].as_array().unwrap().clone();
        let videos = list("parts").iter().map(|part| part["video_id"].as_i64().unwrap()).collect();
        let moments =
            list("moments").iter().map(|m| m["status"].as_str().unwrap().to_owned()).collect();
        End { told, videos, moments }
    }

    /// Waits until every event is applied and every job has run, but recurring ones and timers of
    /// grace periods.
    pub(crate) async fn until_nothing_is_due(&self) {
        until("every event is applied and no job is left but recurring ones", async || {
            // Jobs first: what the last one appends is an event that is not applied yet.
            let has_jobs = !self.database.jobs_left().await.is_empty();
            let status = self.store.slice_status().await.unwrap();
            let is_applied = status.iter().all(|slice| slice.position == slice.head);
            (!has_jobs && is_applied).then_some(())
        })
        .await;
    }

    /// Whether a plain job has done its work.
    pub(crate) async fn is_done(&self, job: Uuid) -> bool {
        let told = self.store.read_subject(&Subject::job(job), 0, 100).await.unwrap();
        told.iter().any(|event| event.event_type == "JobCompleted")
    }

    /// Waits until a plain job has done its work and returns what it told.
    pub(crate) async fn until_done(&self, job: Uuid) -> Value {
        until(&format!("job {job} is done"), async || {
            let told = self.store.read_subject(&Subject::job(job), 0, 100).await.unwrap();
            let done = told.iter().find(|event| event.event_type == "JobCompleted")?;
            let done: Value = serde_json::from_slice(&done.payload).unwrap();
            Some(done["value"].clone())
        })
        .await
    }

    /// Waits until the projections know a video to be ready.
    pub(crate) async fn until_video_ready(&self, stream: i64, video: VideoId) {
        until("the video is ready", async || {
            let videos = self.store.videos(SOURCE, LiveStreamId(stream)).await.unwrap();
            videos.iter().any(|v| v.id == video.0 && v.status == "ready").then_some(())
        })
        .await;
    }
}

impl End {
    /// Lengths of the gaps between the parts, in milliseconds.
    pub(crate) fn gaps(&self) -> Vec<i64> {
        self.told["gaps"]
            .as_array()
            .unwrap()
            .iter()
            .map(|gap| gap["ms"].as_i64().unwrap())
            .collect()
    }

    /// Whether all parts' videos are ready.
    pub(crate) fn is_all_ready(&self) -> bool {
        self.told["parts"].as_array().unwrap().iter().all(|part| part["status"] == "ready")
    }
}
