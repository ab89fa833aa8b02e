//! Quality sets: which renditions live streams and videos are transcoded to.

use serde::{Deserialize, Serialize};

use super::macros::object;

object! {
    /// The account's quality sets.
    QualitySets "quality sets" {
        /// Those for live streams.
        live: objects(QualitySet),
        /// Those for videos.
        vod: objects(QualitySet),
    }
}

object! {
    /// One quality set.
    QualitySet "quality set" {
        /// The platform's id.
        id: key,
        /// Free text.
        name: text,
        /// Whether it is used where none is named.
        is_default as "default": flag,
        /// The renditions.
        qualities: objects(Quality),
    }
}

object! {
    /// One rendition of a quality set.
    Quality "quality" {
        /// The platform's id.
        id: key,
        /// Its name, e.g. `vod1080n`.
        name: text,
    }
}

/// The body that chooses which quality sets are used where none is named; `None` leaves a choice.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct DefaultQualitySets {
    /// The one for live streams.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub live: Option<DefaultQualitySet>,
    /// The one for videos.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vod: Option<DefaultQualitySet>,
}

/// One such choice.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub struct DefaultQualitySet {
    /// The quality set; `None` is the platform's own.
    pub id: Option<i64>,
}
