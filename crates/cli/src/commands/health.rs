//! `health`: asks a running role, for containers without a shell.

use anyhow::{Context, Result, bail};

use crate::cli::Health;
use crate::http;
use crate::output::say;

/// Exits with 0 where the role answers that it is well.
pub(crate) async fn run(options: Health) -> Result<()> {
    let asked = http::status(options.address, &options.path);
    let status = tokio::time::timeout(std::time::Duration::from_secs(5), asked)
        .await
        .with_context(|| format!("no answer from {} in 5 s", options.address))??;
    if !status.is_success() {
        bail!("{} answered {status}", options.address);
    }
    say(status);
    Ok(())
}
