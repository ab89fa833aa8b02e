//! Overlays: web pages that are drawn over the picture of a live stream.

use super::macros::{body, object};

object! {
    /// An overlay as the platform shows it.
    Overlay "overlay" {
        /// The platform's id.
        id: key,
        /// The live stream that it lies on.
        stream_id: id,
        /// When the object was made.
        created_at: time,
        /// When the object last changed.
        updated_at: time,
        /// Width, pixels.
        width: whole,
        /// Height, pixels.
        height: whole,
        /// Left edge, pixels.
        x: whole,
        /// Upper edge, pixels.
        y: whole,
        /// Whether it is scaled to the picture, in place of size and position.
        stretch: flag,
    }
    unobserved {
        /// The page. It may be signed.
        url: text,
    }
}

body! {
    /// The body that creates or changes an overlay.
    OverlayFields {
        /// Which one, where many are changed at once.
        id: i64,
        /// The page.
        url: String,
        /// Width, pixels.
        width: u32,
        /// Height, pixels.
        height: u32,
        /// Left edge, pixels.
        x: u32,
        /// Upper edge, pixels.
        y: u32,
        /// Whether it is scaled to the picture; not together with size and position.
        stretch: bool,
    }
}
