//! The commands, one file each.

use std::path::Path;

use anyhow::Result;
use worker::Handlers;

use crate::cli::{Cli, Command};
use crate::config::Config;
use crate::telemetry;

mod accounts;
mod backup;
mod cleanup;
pub(crate) mod db;
mod doctor;
mod endpoints;
mod events;
mod health;
mod history;
mod jobs;
mod migrate;
mod parked;
pub(crate) mod projections;
mod roles;
mod schedules;
mod session;
mod simulator;
mod status;
mod token;
mod up;

/// Does what was asked for.
pub(crate) async fn run(cli: Cli, handlers: Handlers) -> Result<()> {
    let config = |default_level: &str| {
        let config = load(cli.config.as_deref(), default_level)?;
        anyhow::Ok(Config { handlers, ..config })
    };
    match cli.command {
        Command::Demo(options) => crate::demo::run(options).await,
        Command::Up(options) => up::run(config("info")?, options).await,
        Command::Ingest => roles::ingest(config("info")?).await,
        Command::Worker => roles::worker(config("info")?).await,
        Command::Api => roles::api(config("info")?).await,
        Command::Simulator(options) => {
            config("info")?;
            simulator::run(options).await
        }
        Command::Migrate(options) => migrate::run(config("info")?, options).await,
        Command::Session(command) => session::run(config("warn")?, command).await,
        Command::Events(command) => events::run(config("warn")?, command).await,
        Command::Accounts(command) => accounts::run(config("warn")?, command).await,
        Command::Cleanup(command) => cleanup::run(config("warn")?, command).await,
        Command::Parked(command) => parked::run(config("warn")?, command).await,
        Command::Status => status::run(config("warn")?).await,
        Command::Jobs(command) => jobs::run(config("warn")?, command).await,
        Command::Schedules(command) => schedules::run(config("warn")?, command).await,
        Command::Endpoints(command) => endpoints::run(config("warn")?, command).await,
        Command::Projections(command) => projections::run(config("warn")?, command).await,
        Command::History(command) => history::run(config("warn")?, command).await,
        Command::Db(command) => db::run(config("warn")?, command).await,
        Command::Token(command) => {
            token::run(&command);
            Ok(())
        }
        Command::Doctor => doctor::run(config("warn")?).await,
        Command::Health(options) => health::run(options).await,
    }
}

/// Reads the configuration and starts logging.
fn load(file: Option<&Path>, default_level: &str) -> Result<Config> {
    let config = Config::load(file)?;
    telemetry::start(&config.log, default_level)?;
    Ok(config)
}
