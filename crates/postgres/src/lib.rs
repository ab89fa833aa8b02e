//! The managed PostgreSQL for development, demo and tests: find, initialise, run, recover, stop.
//!
//! A *cluster* is PostgreSQL's word for one data directory and the server on it. The first process to
//! lock the directory is its *owner*: it runs `postgres` as its own child and stops it. Later processes
//! are *attached*: they learn the port and leave the server alone.
//!
//! What this crate ensures: committed data survives whatever dies (fsync is on, the server is never
//! killed with SIGKILL), the server never outlives its owner, nothing runs as root, and no data
//! directory is deleted unless it carries the throwaway marker that this crate wrote.
//!
//! Not its job: SQL, roles, databases, migrations, backups. It knows no SQL client.

mod account;
mod client;
mod cluster;
mod error;
mod find;
mod handshake;
mod init;
#[cfg(feature = "install")]
mod install;
mod layout;
mod lock;
mod packages;
mod recover;
mod run;
mod settings;
mod throwaway;

pub use client::client_program;
pub use cluster::Cluster;
pub use error::Error;
#[cfg(feature = "install")]
pub use install::{ArchiveSource, Installed, PINNED_VERSION, install_archive};
pub use packages::SystemPackages;
pub use settings::{Settings, install_dir};
pub use throwaway::{shared_throwaway, throwaway};

/// The oldest PostgreSQL major version the project supports.
pub const OLDEST_MAJOR: u32 = 14;
