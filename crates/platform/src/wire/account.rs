//! The account, as far as it says whether the platform works for it.

use super::macros::object;

object! {
    /// The account of the credentials.
    Account "account" {
        /// The platform's id.
        id: id,
        /// `new`, `trial`, `trialend`, `active`, `paused`, `activating`, `deleted`, or whatever the
        /// platform says.
        status: text,
        /// Its products.
        services as "serviceStatuses": object(AccountServices),
    }
}

impl Account {
    /// Whether streaming is enabled; `None` when the platform does not say.
    pub fn is_streaming_enabled(&self) -> Option<bool> {
        self.services.as_ref()?.streaming.as_ref()?.enabled
    }
}

object! {
    /// The products of an account.
    AccountServices "products of an account" {
        /// Video Streaming.
        streaming as "STREAMING": object(ServiceStatus),
    }
}

object! {
    /// Whether a product works for an account.
    ServiceStatus "status of a product" {
        /// Whether it is enabled.
        enabled: flag,
        /// One of the words of an account's status.
        status: text,
    }
}
