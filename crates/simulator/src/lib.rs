//! A pretend Gcore Video Streaming: the same HTTP surface, its own state, webhooks sent once and
//! unsigned, seeded, and misbehaving on request.
//!
//! It is an *independent reading* of the platform's published contract: it shares no types with the
//! client it tests, so a field that the client misreads is caught here and not in production.
//!
//! | module | does |
//! |---|---|
//! | [`config`](Config) | where to listen, which switches are on |
//! | [`behaviour`](Behaviour) | one switch for every question that no public document answers |
//! | `world` | the pure, seeded state machine: no clock, no I/O |
//! | `http` | takes requests from the network to the world and back |
//! | `webhooks` | the one delivery queue: due time, one attempt, never retried |
//! | [`faults`](Faults) | refuse, delay, cut, apply-then-fail; lose, duplicate, delay webhooks; by rule or by chance |
//! | `control` | `/_control/...`: encoder, logs, state, faults; loopback only |
//! | `truth` | `/_truth`: what really happened, when, and by whom |
//! | `testing` | the same world without a network, in its caller's time |
//! | `log` | what was asked and what was sent, without secrets |
//!
//! Not its job: video. An encoder is a switch, a recording is a duration, transcoding is a delay.

mod behaviour;
mod config;
mod control;
mod error;
mod faults;
mod http;
mod log;
mod redact;
mod shared;
mod simulator;
#[cfg(feature = "testing")]
pub mod testing;
mod webhooks;
mod world;

pub use behaviour::{
    Behaviour, BodyForm, ClipVideo, DeleteGuard, Encoding, FlagInGet, NothingRecorded, QuotaBreach,
    RecordingAtDeactivation, SourceType, StartRecording, UserIdForm, ViewableWebhooks,
};
pub use config::Config;
pub use error::{ControlError, Error};
pub use faults::{CallFaults, Effect, FaultKind, Faults, Refusal, Rule, WebhookFaults};
pub use log::{RequestLogEntry, WebhookLogEntry, WebhookOutcome};
pub use simulator::Simulator;
pub use world::{Encoders, ErrorShape, Line, Mishap};
