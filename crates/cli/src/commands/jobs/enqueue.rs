//! `jobs enqueue`: a plain job with the options of docs/jobs.md.

use anyhow::{Context, Result, bail, ensure};
use domain::event::is_traceparent;
use domain::ids::Subject;
use serde::de::DeserializeOwned;
use serde_json::Value;
use store::{EnqueueOptions, Store};

use crate::cli::Enqueue;
use crate::output::say;

/// Enqueues it, wakes the workers and says its id.
pub(super) async fn run(store: &Store, job: Enqueue, kinds: &[String]) -> Result<()> {
    check_kind(&job, kinds)?;
    let args: Value = serde_json::from_str(&job.args).context("read the arguments as JSON")?;
    let options = options(&job)?;
    let trace = job.traceparent.as_deref();
    ensure!(
        trace.is_none_or(is_traceparent),
        "--traceparent must be as W3C Trace Context has it: 00-TRACE-PARENT-FLAGS"
    );
    let enqueued = store.enqueue_job(&job.kind, &args, &options, trace).await?;
    let Some(id) = enqueued.id else {
        say("ignored: its key is taken");
        return Ok(());
    };
    if let Some(live) = store.find_job(id).await? {
        let key = options.limit_key.map_or(live.subject, Subject::from_stored);
        store.notifier().enqueued(store.slice_of(&key));
    }
    say(id);
    Ok(())
}

/// A kind that nobody knows would wait for ever: a typing error is more likely than a newer build.
fn check_kind(job: &Enqueue, kinds: &[String]) -> Result<()> {
    if !job.force && !kinds.contains(&job.kind) {
        bail!(
            "this build knows no kind \"{}\" that can be enqueued; it knows {}. --force enqueues it for \
             a build that does",
            job.kind,
            kinds.join(", ")
        );
    }
    Ok(())
}

fn options(job: &Enqueue) -> Result<EnqueueOptions> {
    let job = job.clone();
    let period = job.key_period.map(|period| i32::try_from(period.as_secs()));
    Ok(EnqueueOptions {
        wait_for: None,
        subject: job.subject,
        run_at: job.run_at,
        key: job.key,
        on_conflict: job.on_conflict.map(word).transpose()?,
        key_states: job.key_states.map(word).transpose()?,
        key_period: period.transpose().context("read --key-period: it is too long")?,
        priority: job.priority,
        max_attempts: job.max_attempts,
        queue: job.queue,
        limit_key: job.limit_key,
        limit: job.limit,
        limit_waiting: job.limit_waiting,
        ordered: job.ordered.then_some(true),
        fair_key: job.fair_key,
    })
}

/// One of the words that the command line lets through.
fn word<T: DeserializeOwned>(word: String) -> Result<T> {
    Ok(serde_json::from_value(Value::String(word))?)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        job: Enqueue,
    }

    fn parse(line: &str) -> Result<Enqueue, clap::Error> {
        let words = ["enqueue"].into_iter().chain(line.split_whitespace());
        Line::try_parse_from(words).map(|line| line.job)
    }

    #[test]
    fn every_flag_becomes_its_option() {
        let job = parse(
            "verify {} --subject a/b --run-at 2099-01-01T00:00:00Z --priority 1 --max-attempts 3 \
             --queue q --limit-key k --limit 2 --limit-waiting 9 --ordered --fair-key f --key u \
             --on-conflict replace --key-states until_started --key-period 1h",
        );
        let told = serde_json::to_value(options(&job.unwrap()).unwrap()).unwrap();
        let expected = serde_json::json!({
            "subject": "a/b", "run_at": "2099-01-01T00:00:00Z", "priority": 1, "max_attempts": 3,
            "queue": "q", "limit_key": "k", "limit": 2, "limit_waiting": 9,
            "ordered": true, "fair_key": "f", "key": "u",
            "on_conflict": "replace", "key_states": "until_started", "key_period": 3600,
        });
        assert_eq!(told, expected);
    }

    #[test]
    fn a_flag_without_the_one_it_belongs_to_is_refused() {
        for line in ["--limit 2", "--limit-waiting 2", "--on-conflict ignore", "--key-period 1h"] {
            let error = parse(&format!("verify {{}} {line}")).unwrap_err();
            assert_eq!(error.kind(), clap::error::ErrorKind::MissingRequiredArgument, "{line}");
        }
        assert!(parse("verify {} --key k --on-conflict whatever").is_err());
    }

    #[test]
    fn an_unknown_kind_is_refused_unless_it_is_forced() {
        let check = |line| check_kind(&parse(line).unwrap(), &["verify".to_owned()]);
        let error = check("verfy {}").unwrap_err().to_string();
        assert!(error.contains("verify") && error.contains("--force"), "{error}");
        check("verfy {} --force").unwrap();
        check("verify {}").unwrap();
    }
}
