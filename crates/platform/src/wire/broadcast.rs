//! The broadcast object and the bodies that create and change it.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::fields::{self, Fields, known};

/// A broadcast as the platform shows it: a label on the player that only the customer sets.
///
/// The published schema has no `id`, and creating may answer without a body: then `id` is `None`.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Broadcast {
    /// The platform's id.
    pub id: Option<i64>,
    /// Free text, not unique.
    pub name: Option<String>,
    /// `pending`, `live`, `paused`, `finished`, or whatever the platform says.
    pub status: Option<String>,
    /// The live streams that it shows.
    pub stream_ids: Option<Vec<i64>>,
    /// The caller's user id.
    pub client_user_id: Option<i64>,
    /// The player that it uses.
    pub player_id: Option<i64>,
    /// What viewers read before it begins.
    pub pending_message: Option<String>,
    /// Whether viewers can rewind after the end.
    pub show_dvr_after_finish: Option<bool>,
    /// Address for sharing.
    pub share_url: Option<String>,
    /// Player page of the platform.
    pub iframe_url: Option<String>,
    /// Player page of the customer.
    pub custom_iframe_url: Option<String>,
}

impl Broadcast {
    /// Reads a broadcast; every field may be missing.
    fn read(fields: &Fields<'_>) -> Self {
        Self {
            id: fields.id("id"),
            name: fields.text("name"),
            status: fields.text("status"),
            stream_ids: fields.ids("stream_ids"),
            client_user_id: fields.integer("client_user_id"),
            player_id: fields.id("player_id"),
            pending_message: fields.text("pending_message"),
            show_dvr_after_finish: fields.flag("show_dvr_after_finish"),
            share_url: fields.text("share_url"),
            iframe_url: fields.text("iframe_url"),
            custom_iframe_url: fields.text("custom_iframe_url"),
        }
    }

    /// The view for the event log: known fields under the platform's names, no secrets.
    pub fn observed(&self) -> Value {
        known([
            ("id", self.id.into()),
            ("name", self.name.clone().into()),
            ("status", self.status.clone().into()),
            ("stream_ids", self.stream_ids.clone().into()),
            ("client_user_id", self.client_user_id.into()),
            ("player_id", self.player_id.into()),
            ("pending_message", self.pending_message.clone().into()),
            ("show_dvr_after_finish", self.show_dvr_after_finish.into()),
            ("share_url", self.share_url.clone().into()),
            ("iframe_url", self.iframe_url.clone().into()),
            ("custom_iframe_url", self.custom_iframe_url.clone().into()),
        ])
    }
}

impl<'de> Deserialize<'de> for Broadcast {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        fields::deserialize(deserializer, "broadcast", |fields| Some(Self::read(fields)))
    }
}

/// A status that can be set.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BroadcastStatus {
    /// Not begun.
    #[default]
    Pending,
    /// On air.
    Live,
    /// Interrupted.
    Paused,
    /// Over.
    Finished,
}

/// The body that creates a broadcast.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct NewBroadcast {
    /// Free text; the platform refuses a blank one. There is no opaque field for a tag, so what
    /// finds the broadcast after a lost answer has to be part of the name.
    pub name: String,
    /// Always sent: the platform refuses a body without it.
    pub status: BroadcastStatus,
    /// The live streams that it shows.
    pub stream_ids: Vec<i64>,
    /// What viewers read before it begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pending_message: Option<String>,
    /// Whether viewers can rewind after the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub show_dvr_after_finish: Option<bool>,
    /// The player that it uses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub player_id: Option<i64>,
}

/// The body that changes a broadcast: only the fields that are `Some` are sent.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct BroadcastPatch {
    /// Free text, not blank.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What the player shows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<BroadcastStatus>,
    /// The live streams that it shows; `Some` replaces the list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_ids: Option<Vec<i64>>,
    /// What viewers read before it begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pending_message: Option<String>,
    /// Whether viewers can rewind after the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub show_dvr_after_finish: Option<bool>,
}
