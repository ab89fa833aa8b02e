//! Players: how the platform's player page looks.

use super::macros::{body, object};

object! {
    /// A player as the platform shows it.
    #[derive(Default)]
    Player "player" {
        /// The platform's id.
        id: id,
        /// Free text.
        name: text,
        /// The script that it is made of.
        framework: text,
        /// Whether it plays as soon as the page is there.
        autoplay: flag,
        /// Whether it begins without sound.
        mute: flag,
        /// Whether viewers can choose the speed.
        speed_control: flag,
        /// Whether it shows buttons for sharing.
        show_sharing: flag,
        /// Whether it keeps its settings in cookies.
        save_options_to_cookies: flag,
        /// Whether its skin is off.
        disable_skin: flag,
        /// Where the logo stands.
        logo_position: text,
        /// The logo's address.
        logo: text,
    }
    unobserved {
        /// Parameters of the script.
        design: text,
        /// Further styles.
        custom_css: text,
        /// The script's address.
        js_url: text,
        /// The skin's address.
        skin_is_url: text,
        /// Colour of the background, `#rrggbb`.
        bg_color: text,
        /// Colour of the elements.
        fg_color: text,
        /// Colour of texts.
        text_color: text,
        /// Colour of an element under the mouse.
        hover_color: text,
    }
}

body! {
    /// The body that creates or changes a player. The platform refuses one without a name.
    PlayerFields {
        /// Free text.
        name: String,
        /// Whether it plays as soon as the page is there.
        autoplay: bool,
        /// Whether it begins without sound.
        mute: bool,
        /// Whether viewers can choose the speed.
        speed_control: bool,
        /// Whether it shows buttons for sharing.
        show_sharing: bool,
        /// Whether it keeps its settings in cookies.
        save_options_to_cookies: bool,
        /// Whether its skin is off.
        disable_skin: bool,
        /// Where the logo stands.
        logo_position: String,
        /// The logo's address.
        logo: String,
        /// Parameters of the script.
        design: String,
        /// Further styles.
        custom_css: String,
        /// The script's address.
        js_url: String,
        /// The skin's address.
        skin_is_url: String,
        /// Colour of the background, `#rrggbb`.
        bg_color: String,
        /// Colour of the elements.
        fg_color: String,
        /// Colour of texts.
        text_color: String,
        /// Colour of an element under the mouse.
        hover_color: String,
    }
}
