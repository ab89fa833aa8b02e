//! What the client and the simulator do otherwise than the platform's file, each with its reason.

/// What is found, word for word, and why it is so.
#[rustfmt::skip]
pub(super) const DEVIATIONS: &[(&str, &str)] = &[
];
