//! The typed client of the streaming platform, Gcore Video Streaming.
//!
//! One call is one HTTP request, and every failure says what may be done next: its
//! [`Disposition`]. Repeating is the business of the durable job queue, because only a job
//! remembers over a crash what it has already tried. The single exception is a 401 where another
//! token is to be had, by login or from its file: the request goes out once again.
//!
//! *Wire types* ([`wire`]) are the platform's objects as it sends them: nearly every field is
//! optional, unknown fields are ignored, and a field of an unexpected type counts as absent.
//! They are available without the feature `client`, which brings in HTTP.
//!
//! Calls to services that are not the platform are in [`outbound`]. A [`Gate`] is asked before each
//! request.
//!
//! Not the job of this crate: what a call means for a session, when to try again, and how many
//! requests a source may send.

pub mod wire;

#[cfg(feature = "client")]
mod auth;
#[cfg(feature = "client")]
mod client;
#[cfg(feature = "client")]
mod config;
#[cfg(test)]
#[cfg(feature = "client")]
mod contract;
#[cfg(feature = "client")]
mod disposition;
#[cfg(feature = "client")]
mod error;
#[cfg(feature = "client")]
mod gate;
#[cfg(feature = "client")]
mod http;
#[cfg(feature = "client")]
mod operation;
#[cfg(feature = "client")]
pub mod outbound;
#[cfg(feature = "client")]
mod redact;
#[cfg(feature = "client")]
mod refusal;
#[cfg(feature = "client")]
mod retry_after;
#[cfg(test)]
#[cfg(feature = "client")]
mod test_support;
#[cfg(feature = "testing")]
pub mod testing;

#[cfg(feature = "client")]
pub use self::{
    client::{
        AiTaskFilter, Chart, ChartFilter, Client, CountBy, CountFilter, MOST_VIDEOS, Pages, Span,
        StartRecording, TokenReset, VideoFilter, Watching,
    },
    config::{Config, CreateBody, Credentials},
    disposition::Disposition,
    error::{ConfigError, Error},
    gate::{Gate, Sign},
    operation::{Class, Operation},
};
