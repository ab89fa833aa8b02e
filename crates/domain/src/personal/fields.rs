//! The list: which fields of which event type may tell of a person, and in which form they are kept.
//!
//! Every event type is listed, be it with nothing. Viewers appear nowhere: the platform's webhooks
//! and objects say nothing of them.

use serde_json::Value;

use super::{Pseudonym, Sealed};
use crate::redact::redact_platform;

/// In which form a personal field is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// Under the account's key.
    Sealed,
    /// As the account's pseudonym.
    Pseudonym,
    /// Not at all: it stands sealed in the request, or it is nobody's of ours. Of a recording's name
    /// the frame stays, which tells when it ended; of our ownership tag everything but the data.
    Removed,
}

/// A field of an event's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PersonalField {
    /// Names from the root, joined by dots; `*` is any name or item.
    pub path: &'static str,
    /// How it is kept.
    pub kept: Kept,
}

const fn sealed(path: &'static str) -> PersonalField {
    PersonalField { path, kept: Kept::Sealed }
}

const fn pseudonym(path: &'static str) -> PersonalField {
    PersonalField { path, kept: Kept::Pseudonym }
}

const fn removed(path: &'static str) -> PersonalField {
    PersonalField { path, kept: Kept::Removed }
}

/// An announcement about a session.
const NEWS: &[PersonalField] = &[pseudonym("account")];

/// Nothing of a person.
const NONE: &[PersonalField] = &[];

/// The personal fields of every event type.
pub const FIELDS: &[(&str, &[PersonalField])] = &[
    (
        "WebhookReceived",
        &[
            removed("message.*.name"),
            removed("message.*.description"),
            removed("message.*.client_user_id"),
            removed("message.*.client_entity_data"),
        ],
    ),
    (
        "SessionRequested",
        &[
            pseudonym("account"),
            sealed("name"),
            sealed("options.client_user_id"),
            sealed("options.data"),
        ],
    ),
    ("GoLiveRequested", NONE),
    ("EndRequested", NONE),
    ("RetryRequested", NONE),
    ("AccountDeleted", &[pseudonym("account")]),
    ("AccountErased", &[pseudonym("account")]),
    ("CleanupRequested", NONE),
    ("ReconcileRequested", NONE),
    ("SeenOtherwise", NONE),
    (
        "SessionBound",
        &[
            pseudonym("request.account"),
            sealed("request.name"),
            sealed("request.options.client_user_id"),
            sealed("request.options.data"),
            removed("observed.name"),
            removed("observed.client_user_id"),
            removed("observed.client_entity_data"),
        ],
    ),
    ("Bound", NONE),
    ("VideoChanged", &[removed("video.name")]),
    ("BroadcastChanged", NONE),
    (
        "CallIntended",
        &[sealed("call.name"), sealed("call.options.client_user_id"), sealed("call.options.data")],
    ),
    (
        "CallSucceeded",
        &[
            removed("result.observed.name"),
            removed("result.observed.client_user_id"),
            removed("result.observed.client_entity_data"),
            removed("result.observed.*.name"),
            removed("result.observed.*.client_user_id"),
            removed("result.video.name"),
            removed("result.video.client_user_id"),
        ],
    ),
    // Its reason is the platform's own text; what it quotes of ours is replaced.
    ("CallFailed", NONE),
    ("TimerElapsed", NONE),
    ("LimitExceeded", NONE),
    ("SlotRequested", NEWS),
    ("SlotReleased", NONE),
    ("SlotGranted", NONE),
    ("SlotQueued", NONE),
    ("SlotsConfigured", NONE),
    // Of our own kinds of plain jobs, which are about live streams.
    ("JobCompleted", NONE),
    ("JobDiscarded", NONE),
    ("JobCancelled", NONE),
    ("SessionReady", NEWS),
    ("SessionTestStarted", NEWS),
    ("SessionWentLive", NEWS),
    ("SessionInterrupted", NEWS),
    ("SessionResumed", NEWS),
    ("SessionStopped", NEWS),
    ("SessionEnded", NEWS),
    ("SessionFailed", NEWS),
    ("SessionUnstable", NEWS),
    ("RecordingPartReady", NEWS),
    ("RecordingPartOverdue", NEWS),
    ("RecordingPartDeleted", NEWS),
    ("RecordingReady", NEWS),
    ("CleanupDone", NEWS),
    ("QuotaWaiting", NEWS),
    ("EndpointDisabled", NONE),
    // Its rule names no account.
    ("CleanupStarted", NONE),
    // Its reason names an account by its pseudonym.
    ("CleanupJudged", NONE),
    ("CleanupListed", NONE),
    ("CleanupSettled", NONE),
    ("CleanupFinished", NONE),
    ("LiveStreamCaptured", NONE),
    ("VideoDeleted", NONE),
];

/// The personal fields of a type; `None`: it is none of ours, and its body the sender's affair.
pub(super) fn of(event_type: &str) -> Option<&'static [PersonalField]> {
    FIELDS.iter().find(|(name, _)| *name == event_type).map(|(_, fields)| *fields)
}

impl PersonalField {
    /// The values at its path.
    pub(super) fn values<'a>(&self, body: &'a Value) -> Vec<&'a Value> {
        self.path.split('.').fold(vec![body], |found, name| {
            found.into_iter().flat_map(|value| below(value, name)).collect()
        })
    }

    /// Its name, the last of its path.
    fn name(&self) -> &'static str {
        self.path.rsplit('.').next().unwrap_or_default()
    }

    /// Whether a value at its path tells something in the open.
    pub(super) fn is_open(&self, value: &Value) -> bool {
        let text = value.as_str();
        match self.kept {
            _ if value.is_null() => false,
            Kept::Sealed => text.and_then(Sealed::read).is_none(),
            Kept::Pseudonym => text.and_then(Pseudonym::read).is_none(),
            // What redaction would still replace.
            Kept::Removed => {
                let object = serde_json::json!({ self.name(): value }).to_string();
                redact_platform(object.as_bytes()).0 != object.as_bytes()
            }
        }
    }
}

/// What lies below a value under `name`.
fn below<'a>(value: &'a Value, name: &str) -> Vec<&'a Value> {
    match (value, name) {
        (Value::Object(fields), "*") => fields.values().collect(),
        (Value::Array(items), "*") => items.iter().collect(),
        (Value::Object(fields), name) => fields.get(name).into_iter().collect(),
        (
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_),
            _,
        ) => Vec::new(),
    }
}
