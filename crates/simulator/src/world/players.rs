//! Players, and the quality sets: how things look, and in which renditions.

use serde_json::{Value, json};

use super::accepts::Accepts;
use super::shelf::{Kind, Shelf, Start};
use super::{CLIENT_ID, ErrorShape, Reply, ReplyBody, Request, World, error_body};

/// What texts of a player may be.
const TEXT: Accepts = Accepts::Text { max: 65_536 };

/// A player's fields.
const KIND: Kind = Kind {
    wrapper: Some("player"),
    fields: &[
        ("name", Accepts::Name, Start::Null),
        ("framework", TEXT, Start::Word("")),
        ("design", TEXT, Start::Word("")),
        ("custom_css", TEXT, Start::Word("")),
        ("js_url", TEXT, Start::Word("")),
        ("skin_is_url", TEXT, Start::Word("")),
        ("bg_color", TEXT, Start::Word("")),
        ("fg_color", TEXT, Start::Word("")),
        ("text_color", TEXT, Start::Word("")),
        ("hover_color", TEXT, Start::Word("")),
        ("autoplay", Accepts::Flag, Start::Flag(false)),
        ("mute", Accepts::Flag, Start::Flag(false)),
        ("disable_skin", Accepts::Flag, Start::Flag(false)),
        ("save_options_to_cookies", Accepts::Flag, Start::Flag(true)),
        ("show_sharing", Accepts::Flag, Start::Flag(true)),
        ("logo_position", TEXT, Start::Word("top-left")),
        ("speed_control", Accepts::Flag, Start::Flag(true)),
        ("logo", TEXT, Start::Word("")),
    ],
    required: &["name"],
};

/// Id and name of the quality sets of the account, for live streams and for videos.
const QUALITY_SETS: [(&str, [(i64, &str); 2]); 2] = [
    ("live", [(77, "Live default"), (78, "Live 4K")]),
    ("vod", [(82, "VOD default"), (83, "VOD 4K")]),
];

/// An empty shelf of players.
pub(super) fn shelf() -> Shelf {
    Shelf::new(&KIND, 601)
}

/// The quality sets that are used where none is named, at the beginning: the platform's own.
pub(super) fn default_quality_sets() -> [i64; 2] {
    QUALITY_SETS.map(|(_, sets)| sets[0].0)
}

impl World {
    /// Operations on players.
    pub(super) fn route_players(
        &mut self,
        method: &str,
        rest: &[&str],
        request: &Request,
    ) -> Reply {
        match (method, rest) {
            ("GET", []) => self.players.page(request, &self.behaviour),
            ("POST", []) => {
                let made = self.players.create(request, json!({"client_id": CLIENT_ID}));
                self.players.outcome(made)
            }
            ("GET", [id]) => self.players.reply(id),
            ("GET", [id, "preview"]) if self.players.get(id).is_some() => {
                let page = "<!doctype html><title>Player</title><p>Nothing to play</p>";
                Reply { status: 200, body: ReplyBody::Text(page.to_owned()) }
            }
            ("PATCH", [id]) => {
                let changed = self.players.change(id, request);
                self.players.outcome(changed)
            }
            ("DELETE", [id]) => self.players.deletion(id),
            _ => Reply::not_found(),
        }
    }

    /// The quality sets, those that are the default marked.
    pub(super) fn quality_sets(&self) -> Reply {
        let qualities = json!([{"id": 1, "name": "vod1080n"}, {"id": 2, "name": "vod720n"}]);
        let mut view = json!({});
        for ((group, sets), default) in QUALITY_SETS.into_iter().zip(self.default_quality_sets) {
            view[group] = sets
                .into_iter()
                .map(|(id, name)| {
                    json!({"id": id, "name": name, "default": id == default, "qualities": qualities})
                })
                .collect();
        }
        Reply::ok(view)
    }

    /// Chooses the default quality sets; null is the platform's own.
    pub(super) fn set_default_quality_sets(&mut self, request: &Request) -> Reply {
        let Some(body) = request.object() else { return Reply::unreadable() };
        let mut chosen = self.default_quality_sets;
        for ((group, sets), chosen) in QUALITY_SETS.into_iter().zip(&mut chosen) {
            let Some(choice) = body.get(group).and_then(|choice| choice.get("id")) else {
                continue;
            };
            let known = |id: &i64| sets.iter().any(|(known, _)| known == id);
            *chosen = match (choice, choice.as_i64().filter(known)) {
                (Value::Null, _) => sets[0].0,
                (_, Some(id)) => id,
                (_, None) => {
                    let text = "Bad Request. Quality set is not found";
                    return Reply { status: 400, body: error_body(ErrorShape::B, 400, text) };
                }
            };
        }
        self.default_quality_sets = chosen;
        self.quality_sets()
    }
}
