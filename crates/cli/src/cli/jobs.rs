//! What can be asked for of jobs.

use std::time::Duration;

use clap::{Args, Subcommand};
use domain::ids::Timestamp;
use uuid::Uuid;

/// Commands on jobs.
#[derive(Debug, Subcommand)]
pub(crate) enum Jobs {
    /// Count jobs by state
    Status,
    /// List live jobs in the order in which they are due
    List {
        /// Only in this state: available, scheduled, retryable, running or cancelled
        #[arg(long)]
        state: Option<String>,
        /// Only of this kind
        #[arg(long)]
        kind: Option<String>,
        /// Only about this subject
        #[arg(long)]
        subject: Option<String>,
        /// Most rows
        #[arg(long, default_value_t = 50)]
        limit: i64,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Show one job with its runs, wherever it is: live, dead or of the kept history
    Show {
        /// The job
        id: Uuid,
        /// As one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Tell the chain of a job, from the webhook or command to what came of it, and why it does not run
    Why {
        /// The job
        id: Uuid,
        /// What it is about, where the job has ended and no history of it is kept
        #[arg(long)]
        subject: Option<String>,
        /// As one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Cancel a job: one that waits never starts, one that runs is aborted
    Cancel {
        /// The job
        id: Uuid,
        /// Also a call, a timer or a forward, which a session waits for
        #[arg(long)]
        force: bool,
    },
    /// List dead letters, the latest first
    Dead {
        #[command(flatten)]
        filter: Dead,
        /// Most rows
        #[arg(long, default_value_t = 50)]
        limit: i64,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Let all dead jobs that meet the conditions run again
    Redrive {
        #[command(flatten)]
        filter: Dead,
        /// Change their arguments by this JSON merge patch
        #[arg(long, value_name = "JSON")]
        edit: Option<String>,
        /// Also calls, timers and forwards, whose sessions have taken them for failed
        #[arg(long)]
        force: bool,
        /// Only say how many
        #[arg(long)]
        dry_run: bool,
    },
    /// Throw all dead jobs that meet the conditions away for good
    Discard {
        #[command(flatten)]
        filter: Dead,
        /// Only say how many
        #[arg(long)]
        dry_run: bool,
    },
    /// Let a dead job run again
    Retry {
        /// The job
        id: Uuid,
    },
    /// Start nothing more of a queue, a kind or a key; what runs goes on
    Pause {
        #[command(flatten)]
        what: Paused,
        /// Why, for those who wonder later
        #[arg(long)]
        reason: Option<String>,
    },
    /// End a pause
    Resume {
        #[command(flatten)]
        what: Paused,
    },
    /// List what is paused
    Paused,
    /// Enqueue a plain job
    Enqueue(Box<Enqueue>),
}

/// A plain job and its options: docs/jobs.md.
#[derive(Debug, Clone, Args)]
pub(crate) struct Enqueue {
    /// Its kind: clean_up_inactive, http_call, maintain, reconcile, sweep_recordings or verify
    pub(crate) kind: String,
    /// Its arguments, JSON
    #[arg(default_value = "{}")]
    pub(crate) args: String,
    /// What it is about; jobs of one subject run one at a time
    #[arg(long)]
    pub(crate) subject: Option<String>,
    /// When it is due, such as 2026-11-22T14:00:00Z [default: now]
    #[arg(long, value_name = "TIME")]
    pub(crate) run_at: Option<Timestamp>,
    /// 1 (first) to 4 [default: 2]
    #[arg(long, value_name = "N")]
    pub(crate) priority: Option<i16>,
    /// Failures after which it is given up [default: 14]
    #[arg(long, value_name = "N")]
    pub(crate) max_attempts: Option<i32>,
    /// What it can be paused with [default: default]
    #[arg(long)]
    pub(crate) queue: Option<String>,
    /// Takes the place of the subject in limits
    #[arg(long, value_name = "KEY")]
    pub(crate) limit_key: Option<String>,
    /// Jobs of the limit key that run at once [default: 1]
    #[arg(long, value_name = "N", requires = "limit_key")]
    pub(crate) limit: Option<i16>,
    /// Refuse it where the limit key has as many live jobs
    #[arg(long, value_name = "N", requires = "limit_key")]
    pub(crate) limit_waiting: Option<i16>,
    /// Jobs of its limit key or subject wait until it has ended, however often it fails
    #[arg(long)]
    pub(crate) ordered: bool,
    /// Whose it is: jobs of different ones take turns
    #[arg(long, value_name = "KEY")]
    pub(crate) fair_key: Option<String>,
    /// At most one live job of its kind and subject has this key
    #[arg(long)]
    pub(crate) key: Option<String>,
    /// What it comes to where the key is taken [default: existing]
    #[arg(long, value_name = "HOW", requires = "key",
          value_parser = ["existing", "ignore", "replace", "debounce"])]
    pub(crate) on_conflict: Option<String>,
    /// How long it has the key [default: live]
    #[arg(long, value_name = "UNTIL", requires = "key", value_parser = ["live", "until_started"])]
    pub(crate) key_states: Option<String>,
    /// How long the key is taken, also when the job has ended, such as 1h
    #[arg(long, value_name = "DURATION", requires = "key", value_parser = humantime::parse_duration)]
    pub(crate) key_period: Option<Duration>,
    /// The trace that it is part of (W3C Trace Context)
    #[arg(long, value_name = "TRACE")]
    pub(crate) traceparent: Option<String>,
    /// Also a kind that this build does not know
    #[arg(long)]
    pub(crate) force: bool,
}

/// Which dead letters: those that meet every condition.
#[derive(Debug, Clone, Args)]
#[group(id = "letters")]
pub(crate) struct Dead {
    /// This one
    #[arg(long)]
    pub(crate) id: Option<Uuid>,
    /// Of this kind
    #[arg(long)]
    pub(crate) kind: Option<String>,
    /// Of this queue
    #[arg(long)]
    pub(crate) queue: Option<String>,
    /// About this subject
    #[arg(long)]
    pub(crate) subject: Option<String>,
    /// discarded or quarantined
    #[arg(long)]
    pub(crate) state: Option<String>,
    /// With this in the text of the last error
    #[arg(long)]
    pub(crate) error: Option<String>,
    /// Died then or later, such as 2026-11-22T14:00:00Z
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<Timestamp>,
    /// Died before
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<Timestamp>,
    /// All of them
    #[arg(long)]
    pub(crate) all: bool,
}

/// What is paused.
#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Paused {
    /// Jobs of a queue; those that the plan decides are of the queue "platform"
    #[arg(long)]
    pub(crate) queue: Option<String>,
    /// Jobs of a kind
    #[arg(long)]
    pub(crate) kind: Option<String>,
    /// Jobs of a limit key, or of a subject without one
    #[arg(long)]
    pub(crate) key: Option<String>,
}
