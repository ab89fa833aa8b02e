//! The session that the demonstration plays, and what is read of it at the end.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use uuid::Uuid;

use super::show::Show;
use super::stage::{SOURCE, Stage};

/// How often the API is asked whether it goes on.
const EVERY: Duration = Duration::from_millis(50);

/// Who plays.
pub(crate) struct Script<'a> {
    pub(crate) stage: &'a Stage,
    pub(crate) speed: f64,
}

/// What became of the session, from the API.
#[derive(Debug)]
pub(crate) struct Summary {
    pub(crate) status: String,
    pub(crate) parts: Vec<(i64, String, i64)>,
    pub(crate) gap_ms: Option<i64>,
    pub(crate) moments: Vec<String>,
}

impl Summary {
    /// Parts whose videos are ready.
    pub(crate) fn videos_ready(&self) -> usize {
        self.parts.iter().filter(|(_, status, _)| status == "ready").count()
    }
}

impl Script<'_> {
    /// Plays it from the request to the last video.
    pub(crate) async fn play(&self, show: &Show) -> Result<Uuid> {
        let session = self.request().await?;
        let ready = self.until(&session, "ready", "the session's objects are made", show).await?;
        let stream =
            ready["live_stream_id"].as_i64().context("a ready session has a live stream")?;
        show.say("the encoder connects");
        self.stage.simulator.push(stream)?;
        self.until(&session, "testing", "the platform notices the encoder", show).await?;
        self.command(&session, "go-live").await?;
        self.until_recording(stream, show).await?;
        self.wait(30.0, "the audience watches", show).await;
        show.say("the encoder's connection drops");
        self.stage.simulator.drop_connection(stream)?;
        self.wait(40.0, "the encoder is away for 40 s", show).await;
        show.say("the encoder returns");
        self.stage.simulator.return_connection(stream)?;
        self.until(&session, "live", "back on air", show).await?;
        self.until_recording(stream, show).await?;
        self.wait(30.0, "the audience watches", show).await;
        self.command(&session, "end").await?;
        self.until(&session, "ended", "the videos are processed", show).await?;
        Ok(session)
    }

    /// What became of it.
    pub(crate) async fn summary(&self, session: &Uuid) -> Result<Summary> {
        let told = self.stage.api.get(&format!("/v1/sessions/{session}")).await?;
        let list = |key: &str| told[key].as_array().cloned().unwrap_or_default();
        let part = |part: &Value| {
            let status = part["status"].as_str().unwrap_or_default().to_owned();
            (
                part["video_id"].as_i64().unwrap_or_default(),
                status,
                part["duration_ms"].as_i64().unwrap_or_default(),
            )
        };
        Ok(Summary {
            status: told["status"].as_str().unwrap_or_default().to_owned(),
            parts: list("parts").iter().map(part).collect(),
            gap_ms: list("gaps").first().and_then(|gap| gap["ms"].as_i64()),
            moments: list("moments")
                .iter()
                .filter_map(|moment| moment["status"].as_str().map(str::to_owned))
                .collect(),
        })
    }

    async fn request(&self) -> Result<Uuid> {
        let body = json!({"source": SOURCE, "name": "Demonstration", "account": "acme"});
        let made = self.stage.api.post("/v1/sessions", &body, "demonstration").await?;
        let id = made["id"].as_str().or_else(|| made["session"].as_str());
        id.context("the API names the session")?.parse().context("the session's id is a UUID")
    }

    async fn command(&self, session: &Uuid, command: &str) -> Result<()> {
        let path = format!("/v1/sessions/{session}/{command}");
        self.stage.api.post(&path, &json!({}), &format!("demonstration-{command}")).await?;
        Ok(())
    }

    /// Waits until the session has a status.
    async fn until(&self, session: &Uuid, status: &str, why: &str, show: &Show) -> Result<Value> {
        show.wait_for(why);
        loop {
            let told = self.stage.api.get(&format!("/v1/sessions/{session}")).await?;
            if told["status"] == status {
                return Ok(told);
            }
            if told["status"] == "failed" {
                bail!("the session failed: {}", told["failure"]);
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    /// Waits until the platform has told that it records.
    async fn until_recording(&self, stream: i64, show: &Show) -> Result<()> {
        show.wait_for("the recording starts");
        let recording = |webhook: &simulator::WebhookLogEntry| {
            let told = &webhook.body["message"]["stream"];
            (webhook.kind == "stream" && told["id"] == stream).then(|| told["recording"] == true)
        };
        loop {
            let told = self.stage.simulator.webhooks();
            if told.iter().rev().find_map(recording) == Some(true) {
                return Ok(());
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    /// Lets some of the session's time pass, with a progress bar.
    async fn wait(&self, seconds: f64, why: &str, show: &Show) {
        show.progress(Duration::from_secs_f64(seconds / self.speed), seconds, why).await;
    }
}
