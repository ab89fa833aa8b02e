//! The broadcast object and the bodies that create and change it.

use serde::{Deserialize, Serialize};

use super::macros::object;

object! {
    /// A broadcast as the platform shows it: a label on the player that only the customer sets.
    ///
    /// The published schema has no `id`, and creating may answer without a body: then `id` is `None`.
    #[derive(Default)]
    Broadcast "broadcast" {
        /// The platform's id.
        id: id,
        /// Free text, not unique.
        name: text,
        /// `pending`, `live`, `paused`, `finished`, or whatever the platform says.
        status: text,
        /// The live streams that it shows.
        stream_ids: ids,
        /// The caller's user id.
        client_user_id: integer,
        /// The player that it uses.
        player_id: id,
        /// What viewers read before it begins.
        pending_message: text,
        /// Whether viewers can rewind after the end.
        show_dvr_after_finish: flag,
        /// Address for sharing.
        share_url: text,
        /// Player page of the platform.
        iframe_url: text,
        /// Player page of the customer.
        custom_iframe_url: text,
    }
    unobserved {
        /// The poster's address.
        poster: text,
        /// The advertisement that it plays.
        ad_id: id,
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
