//! What can be asked for of endpoints.

use clap::{Args, Subcommand};
use domain::ids::Timestamp;
use uuid::Uuid;

/// Commands on endpoints.
#[derive(Debug, Subcommand)]
pub(crate) enum Endpoints {
    /// Register an address; its secret is told this once
    Add(EndpointsAdd),
    /// List endpoints and how they stand
    List,
    /// Show one endpoint
    Show {
        /// Its id
        id: Uuid,
    },
    /// Send messages to it again, from now on
    Enable {
        /// Its id
        id: Uuid,
    },
    /// Send nothing to it
    Disable {
        /// Its id
        id: Uuid,
    },
    /// Give it a new secret; the old one signs too for 24 hours
    Rotate {
        /// Its id
        id: Uuid,
    },
    /// Send it a message that only tries it
    Test {
        /// Its id
        id: Uuid,
    },
    /// List what waits for it, what was given up, and what is kept of what has ended
    Deliveries {
        /// Its id
        id: Uuid,
        /// Only what failed: it waits for its next try, or was given up
        #[arg(long)]
        undelivered: bool,
        /// Most rows
        #[arg(long, default_value_t = 50)]
        limit: i64,
    },
    /// Send it messages once more
    Redeliver(EndpointsRedeliver),
    /// Remove it; what waits for it is sent no more
    Remove {
        /// Its id
        id: Uuid,
    },
}

/// An endpoint to register.
#[derive(Debug, Clone, Args)]
pub(crate) struct EndpointsAdd {
    /// Where messages are sent: an address that begins with `https`
    pub(crate) url: String,
    /// What it hears, such as session.live or recording.*; several may be given [default: all]
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) types: Vec<String>,
    /// Only what is about these accounts of the product
    #[arg(long = "account", value_name = "ACCOUNT")]
    pub(crate) accounts: Vec<String>,
    /// Only what is about these sources
    #[arg(long = "source", value_name = "SOURCE")]
    pub(crate) sources: Vec<String>,
    /// What it is
    #[arg(long, value_name = "TEXT")]
    pub(crate) description: Option<String>,
}

/// Messages to send once more.
#[derive(Debug, Clone, Args)]
pub(crate) struct EndpointsRedeliver {
    /// The endpoint
    pub(crate) id: Uuid,
    /// One message, by its id
    #[arg(long, value_name = "ID", conflicts_with = "since", required_unless_present = "since")]
    pub(crate) message: Option<String>,
    /// All that it hears, recorded at this time or later, such as 2026-11-22T14:00:00Z
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<Timestamp>,
    /// And before this time
    #[arg(long, value_name = "TIME", requires = "since")]
    pub(crate) until: Option<Timestamp>,
    /// Only count them
    #[arg(long)]
    pub(crate) dry_run: bool,
}
