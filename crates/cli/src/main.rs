//! The binary `tallylight`: reads the command line and the configuration, wires the crates.

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

use anyhow::Result;
use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(cli: cli::Cli) -> Result<()> {
    lifecycle::raise_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(commands::run(cli))
}
