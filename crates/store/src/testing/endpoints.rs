//! Endpoints on the in-memory tables: `endpoints/deliver.rs` without SQL and without a cipher.

use domain::endpoint::{Filter, Secret};
use domain::ids::Timestamp;
use uuid::Uuid;

use super::tables::Tables;
use crate::{Failing, Hearing, Receiver};

/// A row of `endpoint`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointRow {
    /// Where messages are sent.
    pub url: String,
    /// What it hears.
    pub filter: Filter,
    /// What its messages are signed with.
    pub secret: Secret,
    /// Since when nothing is sent there, and why.
    pub disabled: Option<(Timestamp, String)>,
    /// The first failure since the last message that was accepted.
    pub failing_since: Option<Timestamp>,
    /// What failed last.
    pub last_error: Option<String>,
    /// Raised by every change.
    pub version: i64,
}

impl EndpointRow {
    /// A new endpoint.
    pub fn new(url: &str, filter: Filter) -> Self {
        Self {
            url: url.to_owned(),
            filter,
            secret: Secret::new([9; 32]),
            disabled: None,
            failing_since: None,
            last_error: None,
            version: 1,
        }
    }
}

impl Tables {
    pub(super) fn hearing(&self) -> Vec<Hearing> {
        let hearing = self.endpoints.iter().filter(|(_, row)| row.disabled.is_none());
        hearing.map(|(id, row)| Hearing { id: *id, filter: row.filter.clone() }).collect()
    }

    pub(super) fn receiver(&self, id: Uuid) -> Option<Receiver> {
        let row = self.endpoints.get(&id)?;
        Some(Receiver {
            url: row.url.clone(),
            secrets: vec![row.secret.clone()],
            is_disabled: row.disabled.is_some(),
            is_failing: row.failing_since.is_some(),
            version: row.version,
        })
    }

    pub(super) fn endpoint_accepted(&mut self, id: Uuid) {
        if let Some(row) = self.endpoints.get_mut(&id).filter(|row| row.failing_since.is_some()) {
            (row.failing_since, row.last_error) = (None, None);
        }
    }

    pub(super) fn endpoint_failed(
        &mut self,
        now: Timestamp,
        id: Uuid,
        error: String,
    ) -> Option<Failing> {
        let row = self.endpoints.get_mut(&id)?;
        let since = *row.failing_since.get_or_insert(now);
        row.last_error = Some(error);
        let since = (now - since).to_std().unwrap_or_default();
        Some(Failing { since, version: row.version })
    }

    pub(super) fn disable_endpoint(
        &mut self,
        now: Timestamp,
        id: Uuid,
        version: i64,
        reason: String,
    ) -> bool {
        let is_as_read = |row: &&mut EndpointRow| row.version == version && row.disabled.is_none();
        let Some(row) = self.endpoints.get_mut(&id).filter(is_as_read) else { return false };
        row.disabled = Some((now, reason));
        row.version += 1;
        true
    }
}
