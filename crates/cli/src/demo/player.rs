//! Plays a story on the demonstration's stage, and writes its transcript.
//!
//! The *transcript* is what is the same whenever a story is played: its steps, and at the end how each
//! session went and what became of its recording. Its lines begin with `|`; the log's lines, with
//! their times, stand between them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use simulator::{Effect, ErrorShape, Faults, Line, Refusal, Rule, WebhookFaults};

use super::show::Show;
use super::stage::{SOURCE, Stage};
use super::story::{Act, Death, Expected, Step, Story, What};

/// How often the API is asked whether it goes on.
const EVERY: Duration = Duration::from_millis(50);

/// Longest wait for what is expected, in real time: longer than any pause between tries of a call.
const PATIENCE: Duration = Duration::from_mins(1);

/// Who plays.
pub(crate) struct Player<'a> {
    stage: &'a Stage,
    show: &'a Show,
    speed: f64,
    /// Ids of the sessions by their names in the story.
    sessions: BTreeMap<String, String>,
    faults: Faults,
    /// Requests at which the worker dies, each with how many there were before.
    deaths: Vec<(String, usize)>,
}

impl<'a> Player<'a> {
    /// Somebody who has not begun.
    pub(crate) fn new(stage: &'a Stage, show: &'a Show, speed: f64) -> Self {
        let (sessions, faults) = (BTreeMap::new(), Faults::default());
        Self { stage, show, speed, sessions, faults, deaths: Vec::new() }
    }

    /// Plays a story to its end.
    ///
    /// # Errors
    /// A step that cannot be done, or something expected that does not come.
    pub(crate) async fn play(mut self, story: &Story) -> Result<()> {
        for step in &story.steps {
            self.show.told(&format!("| {}", step.text));
            if step.after > 0.0 {
                let span = Duration::from_secs_f64(step.after / self.speed);
                self.show.progress(span, step.after, "time passes").await;
            }
            self.step(step).await.with_context(|| step.text.clone())?;
        }
        self.show.told("|");
        for (name, id) in &self.sessions {
            let told = self.told(id).await?;
            for line in summary(name, &told) {
                self.show.told(&format!("| {line}"));
            }
        }
        Ok(())
    }

    async fn step(&mut self, step: &Step) -> Result<()> {
        match &step.what {
            What::Ask { session, on } => self.ask(session, on.as_deref()).await,
            What::Command { session, command } => {
                let path = format!("/v1/sessions/{}/{command}", self.id(session)?);
                self.stage.api.post(&path, &json!({}), &step.text).await.map(drop)
            }
            What::Encoder { session, line, act } => self.encoder(session, *line, *act).await,
            What::LoseWebhooks { only } => {
                self.faults.webhooks =
                    WebhookFaults { lose: 1.0, only: only.clone(), ..WebhookFaults::default() };
                self.set_faults();
                Ok(())
            }
            What::RepeatWebhooks => {
                self.faults.webhooks = WebhookFaults { duplicate: 1.0, ..WebhookFaults::default() };
                self.set_faults();
                Ok(())
            }
            What::DelayWebhooks => {
                self.faults.webhooks = late(self.speed);
                self.set_faults();
                Ok(())
            }
            What::LoseReply { request } => {
                self.rule(Rule::once(request, Effect::ApplyThenReset));
                Ok(())
            }
            What::Refuse { request, status } => {
                let refusal = Refusal::new(*status, ErrorShape::E, "A fault of the story");
                self.rule(Rule::once(request, Effect::Status(refusal)));
                Ok(())
            }
            What::Heal => {
                self.faults = Faults::default();
                self.set_faults();
                Ok(())
            }
            What::Mishap { mishap, session } => {
                let stream = match session {
                    Some(session) => Some(self.stream(session).await?),
                    None => None,
                };
                ensure!(self.stage.simulator.strike(*mishap, stream), "there is nothing to strike");
                Ok(())
            }
            What::WorkerDies(death) => self.worker_dies(death).await,
            What::Expect(expected) => self.until(expected).await,
        }
    }

    async fn ask(&mut self, session: &str, on: Option<&str>) -> Result<()> {
        let mut body = json!({
            "source": SOURCE, "name": session, "auto_go_live": true, "data": {"story": session},
        });
        if let Some(other) = on {
            body["live_stream_id"] = self.stream(other).await?.into();
        }
        let made = self.stage.api.post("/v1/sessions", &body, &format!("story-{session}")).await?;
        let id = made["id"].as_str().context("a session has an id")?;
        self.sessions.insert(session.to_owned(), id.to_owned());
        Ok(())
    }

    async fn encoder(&self, session: &str, line: Line, act: Act) -> Result<()> {
        let (stream, simulator) = (self.stream(session).await?, &self.stage.simulator);
        match (act, line) {
            (Act::Connect, Line::Primary) => simulator.push(stream)?,
            (Act::Connect, Line::Backup) => simulator.push_backup(stream)?,
            (Act::Drop, Line::Primary) => simulator.drop_connection(stream)?,
            (Act::Stop, Line::Primary) => simulator.stop(stream)?,
            (Act::Drop | Act::Stop, Line::Backup) => simulator.stop_backup(stream)?,
        }
        Ok(())
    }

    /// Kills the worker, now or when a request has come, and starts another.
    async fn worker_dies(&mut self, death: &Death) -> Result<()> {
        // A connection that closes tells the worker nothing, until we see the request and kill it.
        let (request, effect) = match death {
            Death::Now => return self.stage.replace_worker().await,
            Death::Before { request } => (request, Effect::Reset),
            Death::After { request } => (request, Effect::ApplyThenReset),
        };
        self.deaths.push((request.clone(), self.stage.simulator.requests().len()));
        self.rule(Rule::once(request, effect));
        Ok(())
    }

    /// Kills the worker if a request has come at which it dies.
    async fn die(&mut self) -> Result<()> {
        let Some((request, seen)) = self.deaths.first() else { return Ok(()) };
        let requests = self.stage.simulator.requests();
        let mut new = requests.iter().skip(*seen);
        if new.any(|one| Rule::is_met(request, &one.method, &one.path)) {
            self.deaths.remove(0);
            self.stage.replace_worker().await?;
        }
        Ok(())
    }

    fn rule(&mut self, rule: Rule) {
        self.faults.rules.push(rule);
        self.set_faults();
    }

    fn set_faults(&self) {
        self.stage.simulator.faults(self.faults.clone());
    }

    /// Waits until something expected is so.
    async fn until(&mut self, expected: &Expected) -> Result<()> {
        let begun = Instant::now();
        loop {
            self.die().await?;
            match self.holds(expected).await? {
                None => return Ok(()),
                Some(instead) if begun.elapsed() > PATIENCE => bail!("it does not come: {instead}"),
                Some(_) => tokio::time::sleep(EVERY).await,
            }
        }
    }

    /// What is so instead of what is expected; `None`: it is so.
    async fn holds(&self, expected: &Expected) -> Result<Option<String>> {
        let told = match session_of(expected) {
            Some(session) => self.told(self.id(session)?).await?,
            None => Value::Null,
        };
        let found = match expected {
            Expected::Is { status, .. } => {
                (told["status"] == status.as_str(), told["status"].clone())
            }
            Expected::NeverWas { status, .. } => {
                let came = |moment: &Value| moment["status"] == status.as_str();
                let moments = &told["moments"];
                (!list(moments).any(came), moments.clone())
            }
            Expected::WaitsForSlot { .. } => {
                (!told["waits_for_slot"].is_null(), told["status"].clone())
            }
            Expected::Parts { count, .. } => {
                (list(&told["parts"]).count() == *count, told["parts"].clone())
            }
            Expected::Recording { word, .. } => {
                (told["recording"] == word.as_str(), told["recording"].clone())
            }
            Expected::IsRecorded { .. } => {
                let stream = told["live_stream_id"].clone();
                let state = self.stage.simulator.state();
                let is_it = |one: &&Value| one["id"] == stream && one["recording"] == true;
                (list(&state["streams"]).any(|one| is_it(&one)), "not recorded".into())
            }
            Expected::Agrees { .. } => self.compare(&told),
            Expected::LiveStreams { session, count } => {
                let truth = self.stage.simulator.truth();
                let made =
                    truth.iter().filter(|one| one["tag"]["data"]["story"] == session.as_str());
                let made = made.count();
                (made == *count, made.into())
            }
            Expected::Active { count } => {
                let active = self.stage.simulator.state()["active_streams"].clone();
                (active == *count, active)
            }
        };
        Ok((!found.0).then(|| found.1.to_string()))
    }

    /// Whether the parts that we tell are the videos that there really are, in their real states.
    fn compare(&self, told: &Value) -> (bool, Value) {
        let truth = self.stage.simulator.truth();
        let of_it = truth.iter().find(|one| one["id"] == told["live_stream_id"]);
        let videos = of_it.map(|one| one["videos"].clone()).unwrap_or_default();
        let real: Vec<Value> = list(&videos)
            .map(|video| {
                let deleted = !video["deleted"].is_null();
                let status = if deleted { json!("deleted") } else { video["status"].clone() };
                json!([video["id"], status, video["duration_ms"]])
            })
            .collect();
        let ours: Vec<Value> = list(&told["parts"])
            .map(|part| json!([part["video_id"], part["status"], part["duration_ms"]]))
            .collect();
        (real == ours, json!({"really": real, "told": ours}))
    }

    fn id(&self, session: &str) -> Result<&str> {
        let id = self.sessions.get(session);
        id.map(String::as_str).with_context(|| format!("nobody has asked for {session}"))
    }

    async fn told(&self, id: &str) -> Result<Value> {
        self.stage.api.get(&format!("/v1/sessions/{id}")).await
    }

    async fn stream(&self, session: &str) -> Result<i64> {
        let told = self.told(self.id(session)?).await?;
        told["live_stream_id"].as_i64().with_context(|| format!("{session} has no live stream yet"))
    }
}

/// Webhooks that come up to 20 s of the platform's time late.
fn late(speed: f64) -> WebhookFaults {
    let late = Duration::from_secs(20).div_f64(speed.max(1.0));
    let delay_ms = u64::try_from(late.as_millis()).unwrap_or(u64::MAX);
    WebhookFaults { delay_ms, ..WebhookFaults::default() }
}

/// The session that something is expected of.
fn session_of(expected: &Expected) -> Option<&str> {
    match expected {
        Expected::Is { session, .. }
        | Expected::NeverWas { session, .. }
        | Expected::IsRecorded { session }
        | Expected::WaitsForSlot { session }
        | Expected::Parts { session, .. }
        | Expected::Recording { session, .. }
        | Expected::Agrees { session }
        | Expected::LiveStreams { session, .. } => Some(session),
        Expected::Active { .. } => None,
    }
}

/// How a session went, without times.
fn summary(name: &str, told: &Value) -> Vec<String> {
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let went: Vec<String> = list(&told["moments"]).map(|moment| word(&moment["status"])).collect();
    let mut lines = vec![format!("{name} went {}", went.join(" > "))];
    lines.push(format!("{name} recording {}", word(&told["recording"])));
    for (n, part) in list(&told["parts"]).enumerate() {
        lines.push(format!("{name} part {} {}", n + 1, word(&part["status"])));
    }
    if let Some(reason) = told["failure"]["reason"].as_str() {
        lines.push(format!("{name} failed: {reason}"));
    }
    lines
}

/// The items of a list.
fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}
