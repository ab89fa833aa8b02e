//! The account: whether the platform works for it at all.

use super::Client;
use crate::{Error, Operation, wire::Account};

impl Client {
    /// Reads the account of the credentials. Costs nothing and changes nothing, so it also tells
    /// whether the credentials work.
    pub async fn get_account(&self) -> Result<Account, Error> {
        self.to(Operation::GetAccount).object().await
    }
}
