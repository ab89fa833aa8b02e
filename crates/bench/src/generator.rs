//! What is measured with: webhooks as the platform sends them, and histories of whole sessions.
//!
//! Everything is made from numbers: two runs get the same.

pub(crate) mod dice;
pub(crate) mod platform;
pub(crate) mod sessions;
pub(crate) mod webhooks;
