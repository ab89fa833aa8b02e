//! Which installation this process works with, asked of every new connection: an address may come
//! to lead elsewhere, to a standby of something else or to a copy that was restored.
//!
//! A connection is *refused* if it leads to another installation than the one that is known, to
//! another incarnation of its log, or to no installation at all. Nothing is written through it, and
//! whoever wants a connection fails until the address leads back.
//!
//! Not its job: to notice that a server was exchanged behind a connection that stays open.

use std::sync::{OnceLock, PoisonError, RwLock};

use domain::slice::SliceCount;
use sqlx::pool::PoolConnection;
use sqlx::postgres::PgConnection;
use sqlx::{PgPool, Postgres};
use tokio::sync::watch;
use uuid::Uuid;

use crate::Error;
use crate::install::{self, Installation};

/// What is known of the installation, and whether the last new connection led elsewhere.
#[derive(Debug, Default)]
pub(crate) struct Identity {
    /// Empty until the database was asked for the first time.
    known: OnceLock<(Uuid, SliceCount)>,
    /// Which history the positions belong to; empty for as long.
    incarnation: OnceLock<Uuid>,
    refused: RwLock<Option<Refusal>>,
    /// Told of every refusal.
    news: watch::Sender<()>,
}

/// Why a connection is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    Other { known: Uuid, found: Uuid },
    OtherHistory { known: Uuid, found: Uuid },
    NotMigrated,
    Restored,
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Other { known, found } => Self::OtherInstallation { known, found },
            Refusal::OtherHistory { known, found } => Self::OtherIncarnation { known, found },
            Refusal::NotMigrated => Self::NotMigrated,
            Refusal::Restored => Self::Restored,
        }
    }
}

impl Identity {
    /// An installation that was met before, whose present history is yet to be told.
    pub(crate) fn known(id: Uuid, slices: SliceCount) -> Self {
        Self { known: OnceLock::from((id, slices)), ..Self::default() }
    }

    /// Takes what the first connection has found for what is right from now on.
    pub(crate) fn settle(&self, found: Installation) {
        self.known.get_or_init(|| (found.id, found.slices));
        self.incarnation.get_or_init(|| found.incarnation);
    }

    /// Which history the positions belong to, once the database has told.
    pub(crate) fn incarnation(&self) -> Option<Uuid> {
        self.incarnation.get().copied()
    }

    /// Asks a new connection. Does not return where it is refused: the pool would only try again
    /// at once, and log each try. Who waits for the pool gives up in time, or by [`Self::admit`].
    pub(crate) async fn check(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        if self.known.get().is_none() {
            return Ok(());
        }
        let refusal = match install::installation(connection).await {
            Ok(found) => self.compare(&found),
            Err(Error::NotMigrated) => Some(Refusal::NotMigrated),
            Err(Error::Restored) => Some(Refusal::Restored),
            Err(error) => return Err(sqlx::Error::Io(std::io::Error::other(error))),
        };
        self.note(refusal);
        if refusal.is_some() {
            std::future::pending::<()>().await;
        }
        Ok(())
    }

    /// Finds out whether the database is this installation's: from memory where the last new
    /// connection was, else by another one.
    ///
    /// # Errors
    /// As [`Self::connection`].
    pub(crate) async fn admit(&self, pool: &PgPool) -> Result<(), Error> {
        if self.incarnation.get().is_some() && self.refused().is_none() {
            return Ok(());
        }
        self.connection(pool).await.map(drop)
    }

    /// Waits until the pool has a connection of this installation, but no longer than until one is
    /// refused.
    ///
    /// # Errors
    /// Why it was refused, or that nothing answers.
    pub(crate) async fn connection(
        &self,
        pool: &PgPool,
    ) -> Result<PoolConnection<Postgres>, Error> {
        let mut news = self.news.subscribe();
        loop {
            tokio::select! {
                connection = pool.acquire() => return connection.map_err(|error| {
                    // It may have been refused just before we listened.
                    self.refused().map_or_else(|| error.into(), Error::from)
                }),
                _ = news.changed() => if let Some(refusal) = self.refused() {
                    return Err(refusal.into());
                },
            }
        }
    }

    /// What is wrong with `found`, if anything is.
    fn compare(&self, found: &Installation) -> Option<Refusal> {
        let (id, slices) = *self.known.get()?;
        if (found.id, found.slices) != (id, slices) {
            return Some(Refusal::Other { known: id, found: found.id });
        }
        let known = *self.incarnation.get_or_init(|| found.incarnation);
        let found = found.incarnation;
        (found != known).then_some(Refusal::OtherHistory { known, found })
    }

    /// Remembers how the last new connection was judged, and logs a change.
    fn note(&self, refusal: Option<Refusal>) {
        let before = {
            let mut refused = self.refused.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *refused, refusal)
        };
        match refusal {
            Some(refusal) if before != Some(refusal) => {
                let error = Error::from(refusal);
                tracing::error!(%error, "database refused: nothing is written to it");
            }
            None if before.is_some() => {
                tracing::info!("the database is this installation's again");
            }
            Some(_) | None => {}
        }
        if refusal.is_some() {
            self.news.send_replace(());
        }
    }

    fn refused(&self) -> Option<Refusal> {
        *self.refused.read().unwrap_or_else(PoisonError::into_inner)
    }
}
