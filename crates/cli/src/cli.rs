//! The command line: what can be asked for. What is done stands in `commands/`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use uuid::Uuid;

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
    /// Look at jobs, retry dead ones, enqueue
    #[command(subcommand)]
    Jobs(Jobs),
    /// Rebuild current state from the log
    #[command(subcommand)]
    Projections(Projections),
    /// Seal closed months of the log into files, look at them, verify them
    #[command(subcommand)]
    History(History),
    /// The managed database
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
}

/// Options of `up`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Up {
    /// Add the simulated platform as source "simulator", to try things out
    #[arg(long)]
    pub(crate) simulator: bool,
}

/// Options of the simulator.
#[derive(Debug, Clone, Args)]
pub(crate) struct Simulator {
    /// Where it listens
    #[arg(long, default_value = "127.0.0.1:8090", value_name = "ADDR")]
    pub(crate) listen: SocketAddr,
    /// Listen on an address that other machines can reach
    #[arg(long)]
    pub(crate) allow_remote: bool,
    /// Where webhooks are sent, such as http://127.0.0.1:8080/webhooks/NAME/TOKEN
    #[arg(
        long,
        value_name = "URL",
        env = "TALLYLIGHT_SIMULATOR_WEBHOOK_URL",
        hide_env_values = true
    )]
    pub(crate) webhook_url: Option<String>,
    /// Seed of its chance
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) seed: u64,
    /// How many times faster than real time
    #[arg(long, default_value_t = 1.0, value_parser = positive, value_name = "FACTOR")]
    pub(crate) time_scale: f64,
    /// Send the broadcast webhooks that the platform sent before September 2025
    #[arg(long)]
    pub(crate) legacy_broadcast_webhooks: bool,
    /// The one API token that is accepted [default: any well-formed one]
    #[arg(long, value_name = "TOKEN", env = "TALLYLIGHT_SIMULATOR_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
}

/// Options of `migrate`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Migrate {
    /// Number of slices of a new installation; fixed then [default: 16]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i16).range(1..=4096))]
    pub(crate) slices: Option<i16>,
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
    /// Show one event with its body
    Show {
        /// Where it stands, SLICE:POSITION
        #[arg(value_parser = position)]
        at: (i16, i64),
    },
}

/// Commands on jobs.
#[derive(Debug, Subcommand)]
pub(crate) enum Jobs {
    /// Count jobs by state
    Status,
    /// List dead letters
    Dead {
        /// Most rows
        #[arg(long, default_value_t = 50)]
        limit: i64,
    },
    /// Let a dead job run again
    Retry {
        /// The job
        id: Uuid,
    },
    /// Enqueue a plain job
    Enqueue {
        /// Its kind: clean_up_inactive or maintain
        kind: String,
        /// Its arguments, JSON
        #[arg(default_value = "{}")]
        args: String,
        /// At most one live job has this key
        #[arg(long)]
        key: Option<String>,
    },
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

/// Commands on the managed database.
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

/// SLICE:POSITION.
fn position(text: &str) -> Result<(i16, i64), String> {
    text.split_once(':')
        .and_then(|(slice, position)| Some((slice.parse().ok()?, position.parse().ok()?)))
        .ok_or_else(|| "SLICE:POSITION is needed, such as 3:41".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
