//! Broadcasts: player-side labels that only the customer sets; they do not follow the stream.

use serde_json::{Map, Value, json};

use super::routes::unwrapped;
use super::{CLIENT_ID, Reply, Request, World};

/// The words of `status`. The texts of the documents capitalise them, so letter case is free.
const STATUSES: [&str; 4] = ["pending", "live", "paused", "finished"];

/// One broadcast: its fields as JSON, checked when they came in.
#[derive(Clone, Debug)]
pub(super) struct Broadcast {
    id: i64,
    fields: Map<String, Value>,
}

impl Broadcast {
    /// Makes a broadcast with the default of every field.
    fn new(id: i64) -> Self {
        let fields = json!({
            "name": null,
            "status": null,
            "client_user_id": null,
            "custom_messages": null,
            "iframe_embed_code": null,
            "iframe_url": null,
            "poster_thumb": null,
            "share_url": "",
            "custom_iframe_url": "",
            "show_dvr_after_finish": false,
            "pending_message": null,
            "ad_id": null,
            "player_id": null,
            "poster": null,
            "stream_ids": [],
        });
        let fields = if let Value::Object(fields) = fields { fields } else { Map::new() };
        Self { id, fields }
    }

    /// Returns the broadcast as the API answers it.
    pub(super) fn view(&self) -> Value {
        let mut view = self.fields.clone();
        view.insert("id".to_owned(), self.id.into());
        view.insert("client_id".to_owned(), CLIENT_ID.into());
        Value::Object(view)
    }

    /// Takes over the known fields of a body, or names the first bad one.
    fn apply(&mut self, body: Map<String, Value>) -> Result<(), Reply> {
        for (field, value) in body {
            let value = checked(&field, value)?;
            if let Some(known) = self.fields.get_mut(&field) {
                *known = value;
            }
        }
        Ok(())
    }

    /// The streams that it shows.
    fn streams(&self) -> impl Iterator<Item = i64> {
        let ids = self.fields.get("stream_ids").and_then(Value::as_array);
        ids.into_iter().flatten().filter_map(Value::as_i64)
    }

    /// True if the broadcast shows a stream.
    fn shows(&self, stream: i64) -> bool {
        self.streams().any(|id| id == stream)
    }
}

/// Returns a field's value as it is kept, or the 422 that says what is wrong with it.
fn checked(field: &str, value: Value) -> Result<Value, Reply> {
    let text = value.as_str().map(str::trim).filter(|text| !text.is_empty());
    match (field, text) {
        ("name" | "status", None) => Err(Reply::invalid(field, "can't be blank")),
        ("status", Some(text)) => {
            let word = text.to_ascii_lowercase();
            if STATUSES.contains(&word.as_str()) {
                Ok(word.into())
            } else {
                Err(Reply::invalid(field, "is not included in the list"))
            }
        }
        ("stream_ids", _) => match value.as_array() {
            Some(ids) if ids.iter().all(Value::is_i64) => Ok(value),
            _ => Err(Reply::invalid(field, "is not a list of numbers")),
        },
        _ => Ok(value),
    }
}

impl World {
    /// A page of broadcasts, newest first.
    pub(super) fn list_broadcasts(&mut self, request: &Request) -> Reply {
        let range = self.page_range(request, false, self.broadcasts.len());
        let page = self.broadcasts.values().rev().skip(range.start).take(range.len());
        Reply::ok(page.map(Broadcast::view).collect())
    }

    /// Makes a broadcast; `name` and `status` are required.
    pub(super) fn create_broadcast(&mut self, request: &Request) -> Reply {
        let Some(body) = request.object() else { return Reply::unreadable() };
        let body = unwrapped(body, "broadcast").unwrap_or_default();
        for field in ["name", "status"] {
            if !body.contains_key(field) {
                return Reply::invalid(field, "can't be blank");
            }
        }
        let id = self.next_broadcast;
        let mut broadcast = Broadcast::new(id);
        if let Err(refusal) = broadcast.apply(body) {
            return refusal;
        }
        self.next_broadcast += 1;
        let view = broadcast.view();
        self.ledger.broadcast(self.now, id, &view);
        self.keep_broadcast(broadcast);
        if self.behaviour.create_broadcast_answers_body {
            Reply::ok(view)
        } else {
            Reply::empty(200)
        }
    }

    /// One broadcast.
    pub(super) fn get_broadcast(&self, id: &str) -> Reply {
        match self.broadcast(id) {
            Some(broadcast) => Reply::ok(broadcast.view()),
            None => Reply::not_found(),
        }
    }

    /// Changes what the body names. A new status is told by webhook if the legacy switch is on.
    pub(super) fn patch_broadcast(&mut self, id: &str, request: &Request) -> Reply {
        let Some(body) = request.object() else { return Reply::unreadable() };
        let Some(body) = unwrapped(body, "broadcast") else {
            return Reply::invalid("broadcast", "can't be blank");
        };
        let Some(mut broadcast) = self.broadcast(id).cloned() else { return Reply::not_found() };
        let status_before = broadcast.fields.get("status").cloned();
        if let Err(refusal) = broadcast.apply(body) {
            return refusal;
        }
        let (id, view) = (broadcast.id, broadcast.view());
        let status = broadcast.fields.get("status").cloned();
        self.ledger.broadcast(self.now, id, &view);
        self.keep_broadcast(broadcast);
        if status != status_before && self.legacy_broadcast_webhooks {
            self.tell_broadcast(id, &status.unwrap_or_default());
        }
        Reply::ok(view)
    }

    /// Deletes a broadcast; streams and videos do not mind.
    pub(super) fn delete_broadcast(&mut self, id: &str) -> Reply {
        match id.parse().ok().and_then(|id: i64| self.drop_broadcast(id)) {
            Some(gone) => {
                self.ledger.broadcast_deleted(self.now, gone.id);
                Reply::empty(204)
            }
            None => Reply::not_found(),
        }
    }

    /// Somebody pauses a broadcast in the portal.
    pub(super) fn pause_broadcast(&mut self, id: i64) {
        let Some(broadcast) = self.broadcasts.get_mut(&id) else { return };
        broadcast.fields.insert("status".to_owned(), "paused".into());
        let view = broadcast.view();
        self.ledger.broadcast(self.now, id, &view);
        if self.legacy_broadcast_webhooks {
            self.tell_broadcast(id, &"paused".into());
        }
    }

    /// How many people watch: nobody unless a bound stream is live.
    pub(super) fn spectators(&mut self, id: &str) -> Reply {
        let Some(broadcast) = self.broadcast(id) else { return Reply::not_found() };
        let watched =
            self.streams.values().any(|stream| stream.is_live() && broadcast.shows(stream.id));
        let count = if watched { self.dice.below(1000) } else { 0 };
        Reply::ok(json!({"spectators_count": count}))
    }

    /// Returns the ids of the broadcasts that show a stream.
    pub(super) fn broadcasts_of(&self, stream: i64) -> Vec<i64> {
        self.shown_by.get(&stream).into_iter().flatten().copied().collect()
    }

    /// Returns the broadcasts that show a stream.
    pub(super) fn broadcast_views_of(&self, stream: i64) -> Value {
        let ids = self.shown_by.get(&stream).into_iter().flatten();
        ids.filter_map(|id| self.broadcasts.get(id)).map(Broadcast::view).collect()
    }

    /// Adds a stream to the broadcasts that its body names; unknown ones are ignored.
    pub(super) fn bind_broadcasts(&mut self, stream: i64, ids: Option<&Value>) {
        let ids = ids.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_i64);
        for id in ids {
            let Some(mut broadcast) = self.broadcasts.get(&id).cloned() else { continue };
            if broadcast.shows(stream) {
                continue;
            }
            if let Some(Value::Array(shown)) = broadcast.fields.get_mut("stream_ids") {
                shown.push(stream.into());
            }
            self.ledger.broadcast(self.now, id, &broadcast.view());
            self.keep_broadcast(broadcast);
        }
    }

    /// Keeps a broadcast, new or changed, and which streams it shows.
    fn keep_broadcast(&mut self, broadcast: Broadcast) {
        self.drop_broadcast(broadcast.id);
        for stream in broadcast.streams() {
            self.shown_by.entry(stream).or_default().insert(broadcast.id);
        }
        self.broadcasts.insert(broadcast.id, broadcast);
    }

    /// Takes a broadcast out.
    fn drop_broadcast(&mut self, id: i64) -> Option<Broadcast> {
        let gone = self.broadcasts.remove(&id)?;
        for stream in gone.streams() {
            if let Some(shown) = self.shown_by.get_mut(&stream) {
                shown.remove(&id);
            }
        }
        Some(gone)
    }

    /// Finds a broadcast by the text of its id.
    fn broadcast(&self, id: &str) -> Option<&Broadcast> {
        id.parse().ok().and_then(|id: i64| self.broadcasts.get(&id))
    }
}
