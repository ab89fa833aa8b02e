//! The platform's objects as JSON has them: live streams, broadcasts, videos, and request bodies.
//!
//! Reading is lenient. Ids are numbers or numeric strings, times come in three notations, unknown
//! fields are ignored, and a field of an unexpected type is `None` rather than an error: one odd
//! value must not hide that a stream is live. The shapes follow the platform's public OpenAPI file
//! (`G-Core/product-documentation`, `streaming_api.yaml`, 2026-08).
//!
//! Secrets are [`secrecy::SecretString`]: they do not show in `Debug`, the answers cannot be
//! serialized, and `observed()` is the view without secrets that may enter the event log.
//!
//! Not the job of this module: deciding what a status means.

mod broadcast;
mod fields;
mod secret;
mod stream;
mod video;

#[cfg(test)]
mod tests;

pub use self::{
    broadcast::{Broadcast, BroadcastPatch, BroadcastStatus, NewBroadcast},
    stream::{IngestCredentials, NewStream, Stream, StreamPatch},
    video::{Rendition, Video},
};
