//! Overlays: web pages over the picture of a stream that has `html_overlay`.

use serde_json::{Map, Value, json};

use super::accepts::Accepts;
use super::shelf::{Kind, Shelf, Start, parse};
use super::{ErrorShape, Reply, Request, World, error_body, timestamp};

/// An overlay's fields.
const KIND: Kind = Kind {
    wrapper: None,
    fields: &[
        ("url", Accepts::Name, Start::Null),
        ("width", Accepts::Number, Start::Null),
        ("height", Accepts::Number, Start::Null),
        ("x", Accepts::Number, Start::Null),
        ("y", Accepts::Number, Start::Null),
        ("stretch", Accepts::Flag, Start::Flag(false)),
    ],
    required: &["url"],
};

/// An empty shelf of overlays.
pub(super) fn shelf() -> Shelf {
    Shelf::new(&KIND, 1)
}

impl World {
    /// Operations on the overlays of an existing stream.
    pub(super) fn route_overlays(
        &mut self,
        method: &str,
        stream: i64,
        rest: &[&str],
        request: &Request,
    ) -> Reply {
        if !self.streams.get(&stream).is_some_and(|one| one.options.flag("html_overlay")) {
            let text = "Feature is disabled. Contact support to enable.";
            return Reply { status: 422, body: error_body(ErrorShape::C, 422, text) };
        }
        match (method, rest) {
            ("GET", []) => Reply::ok(self.overlays_of(stream)),
            ("POST", []) => {
                self.each_overlay(request, |world, body| world.add_overlay(stream, body))
            }
            ("PATCH", []) => self.each_overlay(request, |world, body| {
                let id = body.get("id").and_then(Value::as_i64);
                world.change_overlay(stream, id, body)
            }),
            (_, [id]) if !self.has_overlay(stream, id) => Reply::not_found(),
            ("GET", [id]) => self.overlays.reply(id),
            ("PATCH", [id]) => {
                let Some(body) = request.object() else { return Reply::unreadable() };
                let changed = self.change_overlay(stream, parse(id), body);
                in_shape_b(self.overlays.outcome(changed))
            }
            ("DELETE", [id]) => self.overlays.deletion(id),
            _ => Reply::not_found(),
        }
    }

    /// Returns the overlays of a stream.
    pub(super) fn overlays_of(&self, stream: i64) -> Value {
        let of_stream = self.overlays.all().filter(|row| row["stream_id"] == stream);
        of_stream.cloned().map(Value::Object).collect()
    }

    /// Does something for each object of a list, and answers with what came of them.
    fn each_overlay(
        &mut self,
        request: &Request,
        mut act: impl FnMut(&mut Self, Map<String, Value>) -> Result<i64, Reply>,
    ) -> Reply {
        let Ok(bodies) = serde_json::from_slice::<Vec<Map<String, Value>>>(&request.body) else {
            return Reply::unreadable();
        };
        let mut views = Vec::new();
        for body in bodies {
            match act(self, body) {
                Ok(id) => views.extend(self.overlays.get(&id.to_string()).cloned()),
                Err(refusal) => return in_shape_b(refusal),
            }
        }
        Reply::ok(views.into_iter().map(Value::Object).collect())
    }

    fn add_overlay(&mut self, stream: i64, body: Map<String, Value>) -> Result<i64, Reply> {
        let now = timestamp(self.now);
        let own = json!({"stream_id": stream, "created_at": now, "updated_at": now});
        self.overlays.create_from(body, own)
    }

    fn change_overlay(
        &mut self,
        stream: i64,
        id: Option<i64>,
        body: Map<String, Value>,
    ) -> Result<i64, Reply> {
        let ours = id.filter(|id| self.has_overlay(stream, &id.to_string()));
        let id = self.overlays.change_from(ours, body)?;
        self.overlays.set(id, "updated_at", timestamp(self.now).into());
        Ok(id)
    }

    fn has_overlay(&self, stream: i64, id: &str) -> bool {
        self.overlays.get(id).is_some_and(|row| row["stream_id"] == stream)
    }
}

/// The refusal of a field as these operations tell it: 400 in shape B.
fn in_shape_b(reply: Reply) -> Reply {
    if reply.status == 422 {
        let text = "Bad Request. Check the parameters";
        return Reply { status: 400, body: error_body(ErrorShape::B, 400, text) };
    }
    reply
}
