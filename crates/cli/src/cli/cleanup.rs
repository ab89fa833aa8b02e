//! What can be asked for of cleanup.

use std::time::Duration;

use clap::{Args, Subcommand};
use domain::cleanup::CleanupPolicy;
use uuid::Uuid;

/// Commands on cleanup.
#[derive(Debug, Subcommand)]
pub(crate) enum Cleanup {
    /// Judge what may be deleted, and say why and why not; delete it only with --delete
    Run(CleanupRun),
    /// Show a run: its rule, every verdict, what became of it
    Show {
        /// The run
        run: Uuid,
    },
}

/// A run to make. A worker has to run.
#[derive(Debug, Clone, Args)]
pub(crate) struct CleanupRun {
    /// Only by this policy: inactive, orphans or recordings [default: all]
    #[arg(long, value_name = "POLICY", value_parser = policy)]
    pub(crate) policy: Option<CleanupPolicy>,
    /// Only in this source [default: all]
    #[arg(long, value_name = "NAME")]
    pub(crate) source: Option<String>,
    /// Only judge; this is the default
    #[arg(long, conflicts_with = "delete")]
    pub(crate) dry_run: bool,
    /// Delete what is proposed
    #[arg(long)]
    pub(crate) delete: bool,
    /// Most live streams of a run [default: the source's cleanup.cap]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) cap: Option<u32>,
    /// From this age in days on [default: the source's rules]
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(0..=36500))]
    pub(crate) after_days: Option<u32>,
    /// How long to wait for the worker
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
    pub(crate) wait: Duration,
}

fn policy(text: &str) -> Result<CleanupPolicy, String> {
    let known = CleanupPolicy::ALL.map(CleanupPolicy::name).join(", ");
    CleanupPolicy::named(text).ok_or_else(|| format!("one of {known} is needed"))
}
