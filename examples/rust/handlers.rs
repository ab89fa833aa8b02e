//! `tallylight` with two kinds of jobs of one's own: all its commands and roles, and their handlers.
//!
//! ```sh
//! cargo run -p cli --example handlers -- up --simulator
//! cargo run -p cli --example handlers -- jobs enqueue send_mail '{"to": "ann@example.com"}'
//! ```

use std::process::ExitCode;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use tallylight::{Done, Handlers, JobError, Run, Steps};

fn main() -> ExitCode {
    tallylight::run(handlers())
}

fn handlers() -> Handlers {
    Handlers::new()
        .on("send_mail", send_mail)
        .on_steps("remind", remind)
        .time_limit("remind", Duration::from_secs(30))
}

/// Arguments of `send_mail`.
#[derive(Debug, Deserialize)]
struct Mail {
    to: String,
}

/// Sends a mail. A second start sends the same `Message-ID`, by which a provider knows it again.
async fn send_mail(run: Run) -> Result<Done, JobError> {
    let mail: Mail = run.parse()?;
    if !mail.to.contains('@') {
        return Err(JobError::Fail { reason: format!("\"{}\" is no address", mail.to) });
    }
    let message_id = deliver(&mail.to, run.id).await?;
    Ok(Done::Value(json!({ "message_id": message_id })))
}

/// Arguments of `remind`.
#[derive(Debug, Deserialize)]
struct Reminder {
    to: String,
    /// Milliseconds until the reminder goes out.
    after_ms: u64,
}

/// Sends a mail now and another after a time, and holds no place meanwhile. What is done stays done,
/// whichever process goes on.
async fn remind(run: Run, steps: Steps) -> Result<Done, JobError> {
    let reminder: Reminder = run.parse()?;
    let first = steps.step("first", || deliver(&reminder.to, run.id)).await?;
    steps.sleep("wait", Duration::from_millis(reminder.after_ms)).await?;
    let second = deliver(&reminder.to, run.id).await?;
    Ok(Done::Value(json!({ "first": first, "second": second, "starts": run.attempt })))
}

/// In the place of a mail provider.
async fn deliver(to: &str, job: impl std::fmt::Display) -> Result<String, JobError> {
    tokio::task::yield_now().await;
    let host = to.rsplit('@').next().unwrap_or(to);
    Ok(format!("<{job}@{host}>"))
}
