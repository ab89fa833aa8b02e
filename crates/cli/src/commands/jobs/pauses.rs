//! `jobs pause`, `resume` and `paused`.

use anyhow::{Context, Result};
use store::{PauseScope, Store};

use crate::cli::Paused;
use crate::config;
use crate::output::say;

/// The one queue, kind or key that is meant.
fn one(what: &Paused) -> Result<(PauseScope, &str)> {
    let Paused { queue, kind, key } = what;
    let given = [(PauseScope::Queue, queue), (PauseScope::Kind, kind), (PauseScope::Key, key)];
    let mut given = given.into_iter().filter_map(|(scope, name)| Some((scope, name.as_deref()?)));
    given.next().context("name a queue, a kind or a key")
}

/// Begins a pause.
pub(super) async fn pause(store: &Store, what: &Paused, reason: Option<&str>) -> Result<()> {
    let (scope, name) = one(what)?;
    let by = config::environment("USER").unwrap_or_else(|| "unknown".to_owned());
    let is_new = store.pause(scope, name, &by, reason).await?;
    let scope = scope.name();
    say(if is_new {
        format!("{scope} {name} is paused; what runs goes on")
    } else {
        format!("{scope} {name} was paused already")
    });
    Ok(())
}

/// Ends a pause.
pub(super) async fn resume(store: &Store, what: &Paused) -> Result<()> {
    let (scope, name) = one(what)?;
    let was = store.resume(scope, name).await?;
    let scope = scope.name();
    say(if was {
        format!("{scope} {name} goes on")
    } else {
        format!("{scope} {name} was not paused")
    });
    Ok(())
}

/// Lists what is paused.
pub(super) async fn list(store: &Store) -> Result<()> {
    let paused = store.paused().await?;
    if paused.is_empty() {
        say("nothing is paused");
    }
    for pause in paused {
        let at = pause.paused_at.format("%F %T");
        let why = pause.reason.map(|reason| format!(": {reason}")).unwrap_or_default();
        say(format!(
            "{}  {}  since {at} by {}{why}",
            pause.scope.name(),
            pause.name,
            pause.paused_by
        ));
    }
    Ok(())
}
