//! Signals: the first asks to stop, the second ends at once. And room for connections.

use anyhow::{Context, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that is cancelled by SIGTERM or Ctrl-C. A second signal ends the process with 130.
pub(crate) fn stop_on_signal() -> Result<CancellationToken> {
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for Ctrl-C")?;
    let token = stop.clone();
    tokio::spawn(async move {
        for second in [false, true] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if second {
                std::process::exit(130);
            }
            tracing::info!("stopping; a second signal ends at once");
            token.cancel();
        }
    });
    Ok(stop)
}

/// Descriptors that a process needs besides those of its callers: the database's connections,
/// files, listeners.
const OWN_DESCRIPTORS: u64 = 128;

/// Lets this process open as many files as its administrator allows: what it is started with is a
/// default from times of `select`.
pub(crate) fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    // Where that is refused the limit stays, and `check_file_limit` tells if it matters.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// Warns where `connections` at a time are more than this process may open.
pub(crate) fn check_file_limit(connections: usize) {
    let Some(limit) = getrlimit(Resource::Nofile).current else { return };
    if limit < connections as u64 + OWN_DESCRIPTORS {
        tracing::warn!(
            limit,
            connections,
            "fewer files may be open than connections are allowed: raise the limit (ulimit -n, \
             LimitNOFILE) or lower ingest.max_connections"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_limit_is_raised_as_far_as_it_may_be() {
        let limit = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(512), ..limit }).unwrap();
        raise_file_limit();
        assert_eq!(
            getrlimit(Resource::Nofile),
            limit.maximum.map_or(limit, |max| Rlimit { current: Some(max), ..limit })
        );
    }
}
