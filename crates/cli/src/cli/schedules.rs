//! What can be asked for of schedules.

use clap::{Args, Subcommand};

/// Commands on schedules.
#[derive(Debug, Subcommand)]
pub(crate) enum Schedules {
    /// Add a schedule, or change the one of that name
    Add(SchedulesAdd),
    /// List schedules with their next fires
    List,
    /// Show one schedule with its last fires
    Show {
        /// Its name
        name: String,
    },
    /// Let it fire no more
    Pause {
        /// Its name
        name: String,
    },
    /// Let it fire again, from now on
    Resume {
        /// Its name
        name: String,
    },
    /// Enqueue its job now; its next fire stays as it is
    Run {
        /// Its name
        name: String,
    },
    /// Remove it
    Remove {
        /// Its name
        name: String,
    },
}

/// A schedule to add.
#[derive(Debug, Clone, Args)]
pub(crate) struct SchedulesAdd {
    /// Its name: a-z, 0-9, -, _ and .
    pub(crate) name: String,
    /// When it fires, such as "30 2 * * *" or @daily
    pub(crate) cron: String,
    /// The kind of its jobs
    pub(crate) kind: String,
    /// Their arguments, JSON
    #[arg(default_value = "{}")]
    pub(crate) args: String,
    /// The time zone that the expression is read in
    #[arg(long, default_value = "UTC", value_name = "NAME")]
    pub(crate) time_zone: String,
    /// Options of the jobs, JSON, such as '{"priority": 3}'
    #[arg(long, default_value = "{}", value_name = "JSON")]
    pub(crate) options: String,
    /// What becomes of fires that no worker was there for: skip, coalesce or catch_up
    #[arg(long, default_value = "coalesce", value_name = "HOW")]
    pub(crate) missed: String,
    /// With catch_up: the most jobs at once
    #[arg(long, value_name = "N")]
    pub(crate) catch_up: Option<u16>,
    /// It fires once it is resumed
    #[arg(long)]
    pub(crate) paused: bool,
}
