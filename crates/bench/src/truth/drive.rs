//! Asks for sessions and ends them when their encoders have played their plans.
//!
//! It reads no truth but where the encoders are, as the people would know who hold them.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::http::Server;
use crate::processes::SOURCE;

/// Most rows of a page of our API.
const MOST_ROWS: usize = 500;

/// A session that was asked for.
#[derive(Debug)]
pub(crate) struct Asked {
    /// Its name, key and mark in the ownership tag.
    pub(crate) name: String,
    /// Its id.
    pub(crate) id: String,
    live_stream: Option<i64>,
    /// Its end was commanded then.
    end_sent: Option<Instant>,
    status: String,
}

impl Asked {
    /// Whether nothing more will come of it.
    fn is_over(&self) -> bool {
        self.status == "ended"
    }
}

/// All sessions of the run.
pub(crate) struct Drive {
    api: Server,
    platform: Server,
    wanted: usize,
    at_once: usize,
    /// A session that is not over so long after its end was commanded is stuck.
    patience: Duration,
    pub(crate) asked: Vec<Asked>,
}

impl Drive {
    /// Nothing is asked for yet.
    pub(crate) fn new(
        api: Server,
        platform: Server,
        (wanted, at_once): (usize, usize),
        patience: Duration,
    ) -> Self {
        Self { api, platform, wanted, at_once, patience, asked: Vec::new() }
    }

    /// Sessions that are over.
    pub(crate) fn over(&self) -> usize {
        self.asked.iter().filter(|one| one.is_over()).count()
    }

    /// Does what is to be done now. Returns whether all is done, or stuck.
    pub(crate) async fn step(&mut self) -> Result<bool> {
        self.look().await?;
        self.end_played().await?;
        let stuck = self.stuck();
        let running = self.asked.len() - self.over() - stuck;
        let room = self.at_once.saturating_sub(running);
        for _ in 0..room.min(self.wanted - self.asked.len()) {
            self.ask().await?;
        }
        Ok(self.asked.len() == self.wanted && self.over() + self.stuck() >= self.wanted)
    }

    /// Sessions that have had time enough.
    pub(crate) fn stuck(&self) -> usize {
        let is_late =
            |one: &&Asked| one.end_sent.is_some_and(|sent| sent.elapsed() > self.patience);
        self.asked.iter().filter(|one| !one.is_over()).filter(is_late).count()
    }

    /// Asks for one more session.
    async fn ask(&mut self) -> Result<()> {
        let name = format!("truth-{}", self.asked.len() + 1);
        let body = json!({
            "source": SOURCE, "name": name, "record": true, "auto_go_live": true,
            "data": {"bench": name},
        });
        let (status, made) = self.api.change("POST", "/v1/sessions", &body, Some(&name)).await?;
        if !(200..300).contains(&status) {
            bail!("a session is refused with {status}: {made}");
        }
        let id = made["id"].as_str().context("a session has an id")?.to_owned();
        let status = "requested".to_owned();
        self.asked.push(Asked { name, id, live_stream: None, end_sent: None, status });
        Ok(())
    }

    /// Reads how the sessions stand that are not over: from the latest page, the rest one by one.
    async fn look(&mut self) -> Result<()> {
        if self.asked.is_empty() {
            return Ok(());
        }
        // Those that run are mostly the latest.
        let rows = (self.at_once * 3 / 2).clamp(1, MOST_ROWS);
        let page = self.api.get(&format!("/v1/sessions?limit={rows}")).await?;
        let first_of_page = self.asked.len().saturating_sub(rows);
        for (n, one) in self.asked.iter_mut().enumerate().filter(|(_, one)| !one.is_over()) {
            let row = if n >= first_of_page {
                let mut rows = page["sessions"].as_array().into_iter().flatten();
                rows.find(|row| row["id"] == one.id.as_str()).cloned()
            } else {
                Some(self.api.get(&format!("/v1/sessions/{}", one.id)).await?)
            };
            let Some(row) = row else { continue };
            row["status"].as_str().unwrap_or_default().clone_into(&mut one.status);
            one.live_stream = row["live_stream_id"].as_i64();
        }
        Ok(())
    }

    /// Ends the sessions whose encoders have played their plans.
    async fn end_played(&mut self) -> Result<()> {
        let told = self.platform.get("/_control/encoders").await?;
        let played =
            |stream: Option<i64>| stream.is_some_and(|id| told["states"][id.to_string()] == "done");
        for one in &mut self.asked {
            // A session that failed is ended like any other: its encoder may never come.
            let is_due = played(one.live_stream) || one.status == "failed";
            if one.end_sent.is_none() && !one.is_over() && is_due {
                let path = format!("/v1/sessions/{}/end", one.id);
                let (status, told) = self.api.change("POST", &path, &json!({}), None).await?;
                // It may have ended by itself since.
                if !(200..300).contains(&status) && status != 409 {
                    bail!("the end of {} is refused with {status}: {told}", one.name);
                }
                one.end_sent = Some(Instant::now());
            }
        }
        Ok(())
    }

    /// A session in full.
    pub(crate) async fn whole(&self, one: &Asked) -> Result<Value> {
        self.api.get(&format!("/v1/sessions/{}", one.id)).await
    }

    /// What happened to a session, as lines for people.
    pub(crate) async fn course(&self, one: &Asked) -> Result<Vec<String>> {
        let path = format!("/v1/sessions/{}/timeline?limit=500", one.id);
        let told = self.api.get(&path).await?;
        let text =
            |entry: &Value, field: &str| entry[field].as_str().unwrap_or_default().to_owned();
        let line = |entry: &Value| {
            let at = text(entry, "at");
            let time = at.get(11..23).unwrap_or(&at);
            format!("{time} {:<18} {}", text(entry, "type"), text(entry, "summary"))
        };
        Ok(told["events"].as_array().into_iter().flatten().map(line).collect())
    }
}
