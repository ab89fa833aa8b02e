//! The command line: what can be asked for. What is done stands in `commands/`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use store::AsOf;
use uuid::Uuid;

mod cleanup;
mod endpoints;
mod jobs;
mod schedules;
mod simulator;

pub(crate) use cleanup::{Cleanup, CleanupRun};
pub(crate) use endpoints::{Endpoints, EndpointsAdd, EndpointsRedeliver};
pub(crate) use jobs::{Dead, Enqueue, Jobs, Paused};
pub(crate) use schedules::{Schedules, SchedulesAdd};
pub(crate) use simulator::Simulator;

/// Runs live-stream sessions on Gcore Video Streaming.
#[derive(Debug, Parser)]
#[command(name = "tallylight", version, propagate_version = true, after_help = AFTER_HELP)]
pub(crate) struct Cli {
    /// Configuration file [default: tallylight.toml, if it exists]
    #[arg(long, global = true, value_name = "FILE", env = "TALLYLIGHT_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// What to do
    #[command(subcommand)]
    pub(crate) command: Command,
}

const AFTER_HELP: &str = "\
Begin with `tallylight demo`: it brings its own database and a simulated platform, and shows one session
with an interruption from its request to its last video.

Every key of the configuration can be set as TALLYLIGHT__SECTION__KEY; the README has the table.";

/// What can be asked for.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show one session from request to last video, on a simulated platform
    Demo(Demo),
    /// Run everything in one process: database, ingest, API, worker
    Up(Up),
    /// Run the webhook endpoint
    Ingest,
    /// Run a worker; start as many as you like, on as many machines
    Worker,
    /// Run the API for backend services; wants a token, see `token new`
    Api,
    /// Run the simulated platform
    Simulator(Simulator),
    /// Bring the database to this version
    Migrate(Migrate),
    /// Look at sessions and command them
    #[command(subcommand)]
    Session(Session),
    /// Look into the event log
    #[command(subcommand)]
    Events(Events),
    /// Erase what is held of an account of the product
    #[command(subcommand)]
    Accounts(Accounts),
    /// Delete what nobody needs on the platform, or only say what would be deleted
    #[command(subcommand)]
    Cleanup(Cleanup),
    /// Look at events that could not be applied, try them again, skip them
    #[command(subcommand)]
    Parked(Parked),
    /// Show how far each slice is applied and who works on it
    Status,
    /// Look at jobs, say why one does not run, cancel, redrive, enqueue
    #[command(subcommand)]
    Jobs(Jobs),
    /// Enqueue jobs again and again, by cron expression and time zone
    #[command(subcommand)]
    Schedules(Schedules),
    /// Tell services of the product what happens, by signed webhooks
    #[command(subcommand)]
    Endpoints(Endpoints),
    /// Rebuild current state from the log
    #[command(subcommand)]
    Projections(Projections),
    /// Seal closed months of the log into files, look at them, verify them
    #[command(subcommand)]
    History(History),
    /// The database: back up and restore; the managed one's address and programs
    #[command(subcommand)]
    Db(Db),
    /// Tokens for the API and the webhook's path
    #[command(subcommand)]
    Token(Token),
    /// Check the set-up and say what to mend
    Doctor,
    /// Ask a running role for its health; for containers
    Health(Health),
}

/// Options of the demonstration.
#[derive(Debug, Clone, Args)]
pub(crate) struct Demo {
    /// Exit after the session; the last line is one JSON object
    #[arg(long)]
    pub(crate) once: bool,
    /// Seed of the simulated platform's chance
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// How many times faster than real time
    #[arg(long, default_value_t = 10.0, value_parser = positive)]
    pub(crate) speed: f64,
    /// Play a script instead, such as tests/scenarios/quota-full.txt, and exit after it
    #[arg(long, value_name = "FILE")]
    pub(crate) script: Option<PathBuf>,
    /// Use this database, empty and migrated, for tests
    #[arg(long, value_name = "URL", hide = true)]
    pub(crate) database: Option<String>,
}

/// Options of `up`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Up {
    /// Add the simulated platform as source "simulator", to try things out
    #[arg(long)]
    pub(crate) simulator: bool,
}

/// Options of `migrate`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Migrate {
    /// Number of slices of a new installation; fixed then [default: 16]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i16).range(1..=4096))]
    pub(crate) slices: Option<i16>,
    /// On a Citus cluster: distribute the tables over its nodes by slice, see docs/citus.md
    #[arg(long)]
    pub(crate) distribute: bool,
    /// Only print the statements that would distribute
    #[arg(long, requires = "distribute")]
    pub(crate) dry_run: bool,
}

/// Commands on sessions.
#[derive(Debug, Subcommand)]
pub(crate) enum Session {
    /// List sessions, the latest first
    List {
        /// Only with this status, such as live or failed
        #[arg(long)]
        status: Option<String>,
        /// Most rows
        #[arg(long, default_value_t = 20)]
        limit: i64,
    },
    /// Show one session with its timeline
    Show {
        /// The session
        id: Uuid,
        /// As it was known then: a time such as 2026-11-22T14:03:00Z, or SLICE:POSITION
        #[arg(long, value_name = "TIME", value_parser = as_of)]
        as_of: Option<AsOf>,
    },
    /// Show it to the audience
    GoLive {
        /// The session
        id: Uuid,
    },
    /// End it
    End {
        /// The session
        id: Uuid,
    },
    /// Go on where it failed
    Retry {
        /// The session
        id: Uuid,
    },
}

/// Commands on the log.
#[derive(Debug, Subcommand)]
pub(crate) enum Events {
    /// Print new events as they come
    Tail {
        /// Begin with the first event
        #[arg(long)]
        from_start: bool,
    },
    /// List the events of a subject, such as gcore-main/stream/320423
    List {
        /// The subject
        subject: String,
    },
    /// Print the folded state of a subject as JSON
    State {
        /// The subject
        subject: String,
        /// As it was known then: a time such as 2026-11-22T14:03:00Z, or SLICE:POSITION
        #[arg(long, value_name = "TIME", value_parser = as_of)]
        as_of: Option<AsOf>,
    },
    /// Show one event with its body
    Show {
        /// Where it stands, SLICE:POSITION
        #[arg(value_parser = position)]
        at: (i16, i64),
    },
}

/// Commands on accounts of the product.
#[derive(Debug, Subcommand)]
pub(crate) enum Accounts {
    /// Forget an account's personal values, everywhere and for good
    Erase {
        /// The account's id in the product
        account: String,
        /// Only say what is held of it
        #[arg(long)]
        dry_run: bool,
    },
}

/// Commands on events that are set aside.
#[derive(Debug, Subcommand)]
pub(crate) enum Parked {
    /// List the subjects that wait, with what went wrong
    List {
        /// List what was skipped instead
        #[arg(long)]
        skipped: bool,
    },
    /// Show one subject with the events that wait
    Show {
        /// A subject, or SLICE:POSITION of its failed event
        #[arg(value_parser = which)]
        which: Which,
    },
    /// Apply what waits, in order, with the worker's present code
    Retry {
        /// A subject, or SLICE:POSITION of its failed event
        #[arg(value_parser = which, required_unless_present = "all")]
        which: Option<Which>,
        /// All subjects
        #[arg(long, conflicts_with = "which")]
        all: bool,
        /// How long to wait for the worker
        #[arg(long, default_value = "30s", value_parser = humantime::parse_duration)]
        wait: Duration,
    },
    /// Pass the failed event over for good, then apply the rest; who, when and why are kept
    Skip {
        /// A subject, or SLICE:POSITION of its failed event
        #[arg(value_parser = which)]
        which: Which,
        /// Why, for those who wonder later
        #[arg(long)]
        reason: String,
        /// How long to wait for the worker
        #[arg(long, default_value = "30s", value_parser = humantime::parse_duration)]
        wait: Duration,
    },
}

/// Which subject is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Which {
    /// By its first event that waits.
    At(i16, i64),
    /// By its name.
    Subject(String),
}

/// Commands on projections.
#[derive(Debug, Subcommand)]
pub(crate) enum Projections {
    /// Rebuild all projections from the log and swap them in; everything goes on meanwhile
    Rebuild(Rebuild),
    /// Give up the rebuild that is in work, or was interrupted
    Abort,
    /// Swap the generation before the last rebuild back in, brought up to date
    Rollback,
    /// Compare the live projections with a fold of the log; exit code 1 where they differ
    Verify(Verify),
    /// Show the last rebuild, and how far each slice is applied
    Status,
}

/// Commands on sealed history.
#[derive(Debug, Subcommand)]
pub(crate) enum History {
    /// List past months: which would be sealed now, and why the others are kept
    Plan {
        /// How long after its end a month is sealed, such as "13 months" [default: history.seal_after]
        #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
        seal_after: Option<Duration>,
    },
    /// Seal all months that are due: write, read back, compare, detach, drop
    Seal {
        /// How long after its end a month is sealed, such as "13 months" [default: history.seal_after]
        #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
        seal_after: Option<Duration>,
    },
    /// List segments
    List,
    /// Read every segment, and check the border to the table
    Verify,
}

/// Options of a rebuild.
#[derive(Debug, Clone, Args)]
pub(crate) struct Rebuild {
    /// Slices to fold at a time [default: the number of cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) parallel: Option<u16>,
    /// Stop before the swap; the next `rebuild` goes on from there
    #[arg(long)]
    pub(crate) no_swap: bool,
}

/// What to verify.
#[derive(Debug, Clone, Args)]
pub(crate) struct Verify {
    /// Only this share of the slices, another one each day, such as 1/16
    #[arg(long, value_name = "1/N", value_parser = share)]
    pub(crate) sample: Option<u16>,
    /// Only this slice
    #[arg(long, value_name = "N", conflicts_with = "sample")]
    pub(crate) slice: Option<i16>,
}

/// Commands on the database.
#[derive(Debug, Subcommand)]
pub(crate) enum Db {
    /// Print the managed database's address, with its password
    Url,
    /// Install PostgreSQL's programs into Tallylight's own directory
    Install {
        /// An archive instead of the pinned one: a file or an https address
        #[arg(long, value_name = "FILE|URL", requires = "sha256")]
        archive: Option<String>,
        /// Its SHA-256, hexadecimal
        #[arg(long, value_name = "HEX")]
        sha256: Option<String>,
    },
    /// Write a backup: all of Tallylight's tables at one moment; roles may go on
    Backup {
        /// The file to write; must not exist
        file: PathBuf,
    },
    /// Restore a backup into the configured database; stop all roles first
    Restore {
        /// The file to read
        file: PathBuf,
        /// Replace the installation that the database holds
        #[arg(long)]
        replace: bool,
        /// Do not ask before replacing
        #[arg(long, requires = "replace")]
        yes: bool,
    },
}

/// Commands on tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Make a token and print it with its digest for the configuration
    New,
}

/// Options of the health check.
#[derive(Debug, Clone, Args)]
pub(crate) struct Health {
    /// The address of ingest or API, such as 127.0.0.1:8080
    pub(crate) address: SocketAddr,
    /// What to ask
    #[arg(long, default_value = "/readyz")]
    pub(crate) path: String,
}

/// A factor above zero.
fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(factor) if factor.is_finite() && factor > 0.0 => Ok(factor),
        _ => Err("a number above 0 is needed".to_owned()),
    }
}

/// A moment in the log: a time with its offset, or SLICE:POSITION.
fn as_of(text: &str) -> Result<AsOf, String> {
    if let Ok((slice, position)) = position(text) {
        return Ok(AsOf::Position { slice, position });
    }
    text.parse().map(AsOf::Time).map_err(|_| {
        "a time such as 2026-11-22T14:03:00Z or SLICE:POSITION is needed, such as 3:41".to_owned()
    })
}

/// 1/N.
fn share(text: &str) -> Result<u16, String> {
    let of = text.strip_prefix("1/").and_then(|n| n.parse().ok()).filter(|n| *n > 0);
    of.ok_or_else(|| "1/N is needed, such as 1/16".to_owned())
}

/// SLICE:POSITION.
fn position(text: &str) -> Result<(i16, i64), String> {
    text.split_once(':')
        .and_then(|(slice, position)| Some((slice.parse().ok()?, position.parse().ok()?)))
        .ok_or_else(|| "SLICE:POSITION is needed, such as 3:41".to_owned())
}

/// SLICE:POSITION or a subject.
#[expect(clippy::unnecessary_wraps, reason = "the form of a value parser")]
fn which(text: &str) -> Result<Which, String> {
    let at = position(text).map(|(slice, position)| Which::At(slice, position));
    Ok(at.unwrap_or_else(|_| Which::Subject(text.to_owned())))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_parked_subject_is_named_by_itself_or_by_its_event() {
        assert_eq!(which("3:41"), Ok(Which::At(3, 41)));
        let subject = "gcore-main/stream/320423";
        assert_eq!(which(subject), Ok(Which::Subject(subject.to_owned())));
    }
}
