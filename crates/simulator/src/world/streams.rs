//! The operations on stream objects: list, create, get, change, delete, reset the push token.

use serde_json::{Map, Value, json};

use super::agenda::Step;
use super::encoder::Line;
use super::live_stream::LiveStream;
use super::options::Options;
use super::quota::Admission;
use super::routes::unwrapped;
use super::{Reply, Request, World};
use crate::{BodyForm, DeleteGuard, RecordingAtDeactivation};

/// Nominal seconds for which a stream that was switched off still says `live:true`.
const SWITCH_OFF_LAG_S: (f64, f64) = (1.0, 3.0);

impl World {
    /// A page of streams, newest first.
    pub(super) fn list_streams(&mut self, request: &Request) -> Reply {
        let range = self.page_range(request, false, self.streams.len());
        let with_broadcasts = request.query("with_broadcasts") == Some("1");
        let page = self.streams.values().rev().skip(range.start).take(range.len()).map(|stream| {
            let mut view = self.stream_view(stream);
            if with_broadcasts {
                view["broadcasts"] = self.broadcast_views_of(stream.id);
            }
            view
        });
        Reply::ok(page.collect())
    }

    /// Makes a stream; neither its name nor anything else has to be unique.
    pub(super) fn create_stream(&mut self, request: &Request) -> Reply {
        let Some(body) = request.object() else { return Reply::unreadable() };
        let fields = match create_fields(body, self.behaviour.create_body) {
            Ok(fields) => fields,
            Err(refusal) => return refusal,
        };
        if !fields.contains_key("name") {
            return Reply::invalid("name", "can't be blank");
        }
        let mut options = match Options::default().with(&fields) {
            Ok(options) => options,
            Err(refusal) => return refusal,
        };
        match self.admit(false, &options) {
            Admission::Admitted => {}
            Admission::StaysInactive => options.set_flag("active", false),
            Admission::Refused(reply) => return reply,
        }
        let id = self.add_stream(options);
        self.bind_broadcasts(id, fields.get("broadcast_ids"));
        self.get_stream(id)
    }

    /// Adds a stream and returns its id.
    pub(super) fn add_stream(&mut self, options: Options) -> i64 {
        let id = self.next_stream;
        self.next_stream += 1;
        let token = self.dice.token();
        let (name, tag) = (options.text("name").to_owned(), options.value("client_entity_data"));
        let is_active = options.flag("active");
        self.ledger.stream_created(self.now, id, &name, &tag);
        self.streams.insert(id, LiveStream::new(id, options, token, self.now));
        if is_active {
            self.ledger.switched(self.now, id, true);
            self.encoder_is_called(id);
        }
        self.pull_waits(id);
        id
    }

    /// One stream.
    pub(super) fn get_stream(&self, id: i64) -> Reply {
        match self.streams.get(&id) {
            Some(stream) => Reply::ok(self.stream_view(stream)),
            None => Reply::not_found(),
        }
    }

    /// Changes what the body names and nothing else. The answer to `active:false` may still say
    /// `live:true`: the ingest is cut a little later.
    pub(super) fn patch_stream(&mut self, id: i64, request: &Request) -> Reply {
        let Some(body) = request.object() else { return Reply::unreadable() };
        let Some(fields) = unwrapped(body, "stream") else {
            return Reply::invalid("stream", "can't be blank");
        };
        if self.behaviour.patch_needs_name && !fields.contains_key("name") {
            return Reply::invalid("name", "can't be blank");
        }
        let Some(stream) = self.streams.get(&id) else { return Reply::not_found() };
        let was_active = stream.is_active();
        let mut options = match stream.options.with(&fields) {
            Ok(options) => options,
            Err(refusal) => return refusal,
        };
        match self.admit(was_active, &options) {
            Admission::Admitted => {}
            Admission::StaysInactive => options.set_flag("active", false),
            Admission::Refused(reply) => return reply,
        }
        let is_active = options.flag("active");
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.options = options;
        }
        self.bind_broadcasts(id, fields.get("broadcast_ids"));
        if was_active != is_active {
            self.switched(id, is_active);
        }
        self.get_stream(id)
    }

    /// Follows a change of `active`.
    pub(super) fn switched(&mut self, id: i64, is_active: bool) {
        self.ledger.switched(self.now, id, is_active);
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.switches += 1;
        let switches = stream.switches;
        if is_active {
            self.pull_waits(id);
            self.source_is_seen(id, Line::Primary);
            self.encoder_is_called(id);
            return;
        }
        let (low, high) = SWITCH_OFF_LAG_S;
        self.plan_between(low, high, Step::SwitchedOff { stream: id, switches });
        if self.behaviour.deactivation == RecordingAtDeactivation::AtOnce {
            self.close_recording(id);
            self.tell_stream_soon(id);
        }
    }

    /// Deletes a stream. Its videos stay, and keep pointing at it.
    pub(super) fn delete_stream(&mut self, id: i64) -> Reply {
        let Some(stream) = self.streams.get(&id) else { return Reply::not_found() };
        let guarded = self.behaviour.delete_guard == DeleteGuard::Refuse;
        if guarded && (stream.is_active() || stream.is_live()) {
            return Reply::invalid("stream", "is active, deactivate it first");
        }
        self.close_recording(id);
        self.streams.remove(&id);
        self.ledger.stream_deleted(self.now, id);
        self.overlays.retain(|row| row["stream_id"] != id);
        self.clips.retain(|clip| clip.stream != id);
        Reply::empty(204)
    }

    /// Gives a stream a new push token: the old one dies at once, and so does, by default, whoever
    /// uses it. Every call makes another one.
    pub(super) fn reset_push_token(&mut self, id: i64) -> Reply {
        let token = self.dice.token();
        let Some(stream) = self.streams.get_mut(&id) else { return Reply::not_found() };
        stream.token = token;
        if stream.flows() && !self.behaviour.token_reset_cuts_ingest {
            let message = "Token reset successful (it's already new). However, automated stream \
                           termination timed out, you should now manually restart the stream with \
                           the new token.";
            return Reply::json(202, json!({"message": message}));
        }
        if !stream.is_pull() {
            self.cut_ingest(id);
        }
        self.get_stream(id)
    }
}

/// Takes the fields of a create body in the form that this platform accepts.
fn create_fields(body: Map<String, Value>, form: BodyForm) -> Result<Map<String, Value>, Reply> {
    let is_wrapped = body.get("stream").is_some_and(Value::is_object);
    match (form, is_wrapped) {
        (BodyForm::Flat | BodyForm::Either, false) => Ok(body),
        (BodyForm::Wrapped | BodyForm::Either, true) => {
            unwrapped(body, "stream").ok_or_else(|| Reply::invalid("stream", "can't be blank"))
        }
        (BodyForm::Flat, true) => Err(Reply::invalid("name", "can't be blank")),
        (BodyForm::Wrapped, false) => Err(Reply::invalid("stream", "can't be blank")),
    }
}
