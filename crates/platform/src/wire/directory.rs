//! Directories: folders of videos.

use serde::{Deserialize, Serialize};

use super::macros::{body, object};

object! {
    /// A directory as the platform shows it.
    Directory "directory" {
        /// The platform's id.
        id: key,
        /// Free text.
        name: text,
        /// The directory that it is in; `None` at the top.
        parent_id: id,
        /// How many videos and directories are in it.
        items_count: whole,
        /// When the object was made.
        created_at: time,
        /// When the object last changed.
        updated_at: time,
    }
    unobserved {
        /// What is in it, where one directory was asked for.
        items: objects(DirectoryItem),
        /// The directories in it, where the tree was asked for.
        descendants: objects(Directory),
    }
}

object! {
    /// Something in a directory.
    DirectoryItem "item of a directory" {
        /// The id of the directory or the video.
        id: key,
        /// `Directory` or `Video`.
        item_type: text,
        /// Free text.
        name: text,
        /// A video's status.
        status: text,
    }
}

/// The body that creates a directory.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct NewDirectory {
    /// Free text.
    pub name: String,
    /// The directory that it is in; at the top unless it is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_id: Option<i64>,
}

body! {
    /// The body that renames or moves a directory.
    DirectoryPatch {
        /// Free text.
        name: String,
        /// The directory that it is in.
        parent_id: i64,
    }
}
