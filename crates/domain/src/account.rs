//! State of a product's account: whether it was deleted. Its live streams become candidates for
//! cleanup then.

use serde::{Deserialize, Serialize};

use crate::event::Event;
use crate::ids::Timestamp;

/// An account of the product.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Its id in the product.
    pub id: String,
    /// When the product said that it was deleted.
    pub deleted_at: Option<Timestamp>,
}

impl Account {
    /// An account of which nothing is known.
    pub(crate) fn new(id: &str) -> Self {
        Self { id: id.to_owned(), deleted_at: None }
    }

    /// Applies one event; the first deletion counts.
    pub(crate) fn evolve(&mut self, event: &Event, at: Timestamp) {
        if matches!(event, Event::AccountDeleted(_)) {
            self.deleted_at = self.deleted_at.or(Some(at));
        }
    }
}
