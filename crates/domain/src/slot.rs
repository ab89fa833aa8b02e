//! What live streams and the quota of their source tell each other about slots.
//!
//! A *slot* is the right to have one live stream active; a *ticket* is one wish of a session for
//! one, counted from 1, so that whatever comes late or twice is known by its number. Not its job:
//! who gets a slot, which is the fold of [`Quota`](crate::quota::Quota).

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::event::{json, storable};
use crate::ids::LiveStreamId;

/// A session asks for a slot, or asks again. Told to its source's quota.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotRequested {
    /// The session.
    pub session: Uuid,
    /// The live stream to activate.
    pub live_stream: LiveStreamId,
    /// The product's account: accounts take turns.
    #[serde(default)]
    pub account: Option<String>,
    /// The session's ticket; its earlier ones are closed.
    pub ticket: u64,
    /// The slot of the ticket before was granted, and the platform had none.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub refused: bool,
    /// The place that it was told last, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<u64>,
}

/// A session needs no slot any more. Told to its source's quota.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotReleased {
    /// The session.
    pub session: Uuid,
    /// Its live stream.
    pub live_stream: LiveStreamId,
    /// This ticket is closed, and all before it.
    pub ticket: u64,
    /// The live stream is not active, as far as is known.
    pub inactive: bool,
}

/// A session may activate its live stream. Told to the live stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotGranted {
    /// The session.
    pub session: Uuid,
    /// For this ticket.
    pub ticket: u64,
}

/// A session has to wait for a slot. Told to its live stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotQueued {
    /// The session.
    pub session: Uuid,
    /// With this ticket.
    pub ticket: u64,
    /// Its place, from 1.
    pub place: u64,
}

/// How many slots the configuration gives a source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotsConfigured {
    /// The number; none: not known, the platform's refusal tells.
    #[serde(default)]
    pub slots: Option<u32>,
}

/// Something about slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SlotEvent {
    /// A session asks.
    Requested(SlotRequested),
    /// A session needs none any more.
    Released(SlotReleased),
    /// A session has one.
    Granted(SlotGranted),
    /// A session waits.
    Queued(SlotQueued),
    /// How many there are.
    Configured(SlotsConfigured),
}

impl SlotEvent {
    /// Its name in the log.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Requested(_) => "SlotRequested",
            Self::Released(_) => "SlotReleased",
            Self::Granted(_) => "SlotGranted",
            Self::Queued(_) => "SlotQueued",
            Self::Configured(_) => "SlotsConfigured",
        }
    }

    /// Its body as stored.
    pub(crate) fn body(&self) -> Vec<u8> {
        match self {
            Self::Requested(b) => json(b),
            Self::Released(b) => json(b),
            Self::Granted(b) => json(b),
            Self::Queued(b) => json(b),
            Self::Configured(b) => json(b),
        }
    }

    /// Reads one; `None` where name or body is unknown.
    pub(crate) fn read(name: &str, bytes: &[u8]) -> Option<Self> {
        let bytes = &*storable(bytes);
        match name {
            "SlotRequested" => serde_json::from_slice(bytes).ok().map(Self::Requested),
            "SlotReleased" => serde_json::from_slice(bytes).ok().map(Self::Released),
            "SlotGranted" => serde_json::from_slice(bytes).ok().map(Self::Granted),
            "SlotQueued" => serde_json::from_slice(bytes).ok().map(Self::Queued),
            "SlotsConfigured" => serde_json::from_slice(bytes).ok().map(Self::Configured),
            _ => None,
        }
    }

    /// The event in words.
    pub(crate) fn words(&self) -> String {
        match self {
            Self::Requested(r) if r.refused => {
                format!(
                    "the platform had no slot for live stream {}: it waits again",
                    r.live_stream
                )
            }
            Self::Requested(r) => format!("a slot for live stream {}", r.live_stream),
            Self::Released(r) => format!("live stream {} needs no slot", r.live_stream),
            Self::Granted(_) => "a slot is granted".to_owned(),
            Self::Queued(q) => format!("number {} of those that wait for a slot", q.place),
            Self::Configured(SlotsConfigured { slots: Some(n) }) => format!("{n} slots"),
            Self::Configured(SlotsConfigured { slots: None }) => {
                "slots until the platform refuses".to_owned()
            }
        }
    }
}
