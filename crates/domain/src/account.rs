//! State of a product's account: whether it was deleted, whether it was forgotten. Live streams of a
//! deleted account become candidates for cleanup, of a forgotten one no less.

use serde::{Deserialize, Serialize};

use crate::event::Event;
use crate::ids::Timestamp;

/// An account of the product.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Its pseudonym.
    pub id: String,
    /// When the product said that it was deleted.
    pub deleted_at: Option<Timestamp>,
    /// When its personal values were forgotten.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub erased_at: Option<Timestamp>,
}

impl Account {
    /// An account of which nothing is known.
    pub(crate) fn new(id: &str) -> Self {
        Self { id: id.to_owned(), deleted_at: None, erased_at: None }
    }

    /// Applies one event; of each sort the first counts.
    pub(crate) fn evolve(&mut self, event: &Event, at: Timestamp) {
        if matches!(event, Event::AccountDeleted(_)) {
            self.deleted_at = self.deleted_at.or(Some(at));
        }
        if matches!(event, Event::AccountErased(_)) {
            self.erased_at = self.erased_at.or(Some(at));
        }
    }
}
