//! State of a product's account: whether it was deleted, whether it was forgotten. In both cases its
//! live streams become candidates for cleanup.

use serde::{Deserialize, Serialize};

use crate::event::Event;
use crate::ids::Timestamp;

/// An account of the product.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Its pseudonym.
    pub id: String,
    /// When it was gone: deleted in the product, or forgotten here.
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

    /// Applies one event; of each sort the first counts. A forgotten account is gone as well: nobody
    /// can come back to its live streams, and the platform's copies of what is forgotten lie there.
    pub(crate) fn evolve(&mut self, event: &Event, at: Timestamp) {
        let is_erased = matches!(event, Event::AccountErased(_));
        if is_erased || matches!(event, Event::AccountDeleted(_)) {
            self.deleted_at = self.deleted_at.or(Some(at));
        }
        if is_erased {
            self.erased_at = self.erased_at.or(Some(at));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{AccountDeleted, AccountErased};

    #[test]
    fn a_forgotten_account_is_gone_and_a_deleted_one_is_not_forgotten() {
        let (first, later) = (Timestamp::default(), Timestamp::MAX_UTC);
        let id = "~6f0c2a90b1d94a5e8f3e5a4c7d2b1e09";
        let deleted = Event::AccountDeleted(AccountDeleted { account: id.to_owned() });
        let erased = Event::AccountErased(AccountErased { account: id.to_owned() });
        let after = |events: &[(&Event, Timestamp)]| {
            let mut account = Account::new(id);
            for (event, at) in events {
                account.evolve(event, *at);
            }
            (account.deleted_at, account.erased_at)
        };
        assert_eq!(after(&[(&deleted, first)]), (Some(first), None));
        assert_eq!(after(&[(&erased, first)]), (Some(first), Some(first)));
        let both = [(&deleted, first), (&erased, later), (&erased, first)];
        assert_eq!(after(&both), (Some(first), Some(later)));
    }
}
