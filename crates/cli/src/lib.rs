//! The program `tallylight`: reads the command line and the configuration, wires the crates.
//!
//! As a library it is for those whose jobs have kinds of their own: a program of three lines that
//! is `tallylight` with their handlers in it, every command and role included.
//!
//! ```no_run
//! use std::process::ExitCode;
//!
//! use tallylight::{Done, Handlers, JobError, Run};
//!
//! async fn send_mail(run: Run) -> Result<Done, JobError> {
//!     let to: String = run.parse()?;
//!     println!("mail to {to}, for the {}. time", run.attempt);
//!     Ok(Done::Quiet)
//! }
//!
//! fn main() -> ExitCode {
//!     tallylight::run(Handlers::new().on("send_mail", send_mail))
//! }
//! ```
//!
//! What such a handler may count on, and how it is deployed: `docs/handlers.md`.

mod admin;
mod cli;
mod commands;
mod config;
mod database;
mod demo;
mod home;
mod http;
mod lifecycle;
mod narrate;
mod output;
mod roles;
mod serve;
mod telemetry;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;

pub use domain::ids::Subject;
pub use store::{Child, PlainJob, Ties};
pub use worker::jobs::{Done, JobError};
/// Runs handlers in a test, without a database.
#[cfg(feature = "testing")]
pub use worker::testing;
pub use worker::{Handlers, Run, Steps, WaitFor, Waited};

/// Does what the command line asks for, and says what went wrong. `handlers` run jobs of kinds that
/// Tallylight does not have; one of its own kinds among them is refused.
pub fn run(handlers: Handlers) -> ExitCode {
    let cli = cli::Cli::parse();
    match perform(cli, handlers) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn perform(cli: cli::Cli, handlers: Handlers) -> Result<()> {
    handlers.check().context("take the handlers of this program")?;
    lifecycle::raise_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(commands::run(cli, handlers))
}
