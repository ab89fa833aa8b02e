//! Logs: pretty on a terminal, JSON otherwise, on standard error. Payloads and secrets are never
//! logged, so nothing is filtered here.

use std::io::IsTerminal;

use anyhow::{Context, Result};
use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};

/// Starts logging. `default` is the filter where the configuration names none.
pub(crate) fn start(log: &Log, default: &str) -> Result<()> {
    let filter = log.level.as_deref().unwrap_or(default);
    let filter =
        EnvFilter::try_new(filter).with_context(|| format!("read log.level \"{filter}\""))?;
    let is_terminal = std::io::stderr().is_terminal();
    let pretty = match log.format {
        LogFormat::Auto => is_terminal,
        LogFormat::Pretty => true,
        LogFormat::Json => false,
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = if pretty {
        builder.with_ansi(is_terminal).with_target(false).try_init()
    } else {
        builder.json().flatten_event(true).try_init()
    };
    // A second start in one process keeps the first.
    let _ = started;
    Ok(())
}
