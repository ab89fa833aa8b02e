//! Requests and answers as plain values, and the shapes in which the platform tells an error.

use axum::body::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// One request of the platform's API.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    /// Upper-case method.
    pub(crate) method: String,
    /// Path without the query.
    pub(crate) path: String,
    /// Decoded query, in order.
    pub(crate) query: Vec<(String, String)>,
    /// Value of the `Authorization` header.
    pub(crate) authorization: Option<String>,
    /// Body as received.
    pub(crate) body: Bytes,
}

impl Request {
    /// Returns the last value given for a query key.
    pub(crate) fn query(&self, key: &str) -> Option<&str> {
        self.query.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// Reads the body as a JSON object; an empty body is an empty object, `None` is anything else.
    pub(crate) fn object(&self) -> Option<Map<String, Value>> {
        if self.body.is_empty() {
            return Some(Map::new());
        }
        match serde_json::from_slice(&self.body) {
            Ok(Value::Object(fields)) => Some(fields),
            Ok(_) | Err(_) => None,
        }
    }

    /// Returns the path between its slashes.
    pub(crate) fn segments(&self) -> Vec<&str> {
        self.path.split('/').filter(|segment| !segment.is_empty()).collect()
    }
}

/// The platform's answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Reply {
    /// HTTP status.
    pub(crate) status: u16,
    /// What the body says.
    pub(crate) body: ReplyBody,
}

/// The body of an answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ReplyBody {
    /// Zero bytes.
    Empty,
    /// A JSON document.
    Json(Value),
    /// Text that is no JSON, for instance a page of an edge proxy.
    Text(String),
}

impl Reply {
    /// 200 with a document.
    pub(super) fn ok(body: Value) -> Self {
        Self::json(200, body)
    }

    /// Any status with a document.
    pub(crate) fn json(status: u16, body: Value) -> Self {
        Self { status, body: ReplyBody::Json(body) }
    }

    /// Any status without a body.
    pub(crate) fn empty(status: u16) -> Self {
        Self { status, body: ReplyBody::Empty }
    }

    /// 404 in shape B, the text of the API reference's example.
    pub(super) fn not_found() -> Self {
        let text = "Not Found. Entity you are looking for was not found, please check the initial \
                    parameters";
        Self { status: 404, body: error_body(ErrorShape::B, 404, text) }
    }

    /// 422 in shape A: one field and what is wrong with it.
    pub(super) fn invalid(field: &str, problem: &str) -> Self {
        Self::json(422, json!({"errors": {field: [problem]}}))
    }

    /// 400 in shape B: the body is no JSON object.
    pub(super) fn unreadable() -> Self {
        let text = "Bad Request. The body is not a JSON object";
        Self { status: 400, body: error_body(ErrorShape::B, 400, text) }
    }

    /// Returns the document of the answer, or `Null` if there is none.
    #[cfg(test)]
    pub(crate) fn document(&self) -> &Value {
        match &self.body {
            ReplyBody::Json(document) => document,
            ReplyBody::Empty | ReplyBody::Text(_) => &Value::Null,
        }
    }
}

/// The shapes in which the platform's documents print errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorShape {
    /// `{"errors":{"base":["text"]}}`: streams, broadcasts, videos.
    A,
    /// `{"status":422,"error":"text"}`: clips, subtitles, 404 of the recording operations.
    B,
    /// `{"error":"text"}`: AI tasks.
    C,
    /// `{"data":[],"errors":["text"]}`: statistics.
    D,
    /// `{"exception_class","message","request_id"}`: said to be common to all products.
    E,
    /// `{"data":null,"warnings":[],"errors":[{"key","message"}]}`: `start_recording`, with status 200.
    F,
    /// No body.
    Empty,
    /// The text itself, without JSON around it: an edge proxy's page.
    Raw,
}

/// Writes an error text in a shape.
pub(crate) fn error_body(shape: ErrorShape, status: u16, text: &str) -> ReplyBody {
    match shape {
        ErrorShape::A => ReplyBody::Json(json!({"errors": {"base": [text]}})),
        ErrorShape::B => ReplyBody::Json(json!({"status": status, "error": text})),
        ErrorShape::C => ReplyBody::Json(json!({"error": text})),
        ErrorShape::D => ReplyBody::Json(json!({"data": [], "errors": [text]})),
        ErrorShape::E => ReplyBody::Json(json!({
            "exception_class": exception_class(status),
            "message": text,
            "request_id": "00000000000000000000000000000000",
        })),
        ErrorShape::F => ReplyBody::Json(json!({
            "data": null,
            "warnings": [],
            "errors": [{"key": "error", "message": text}],
        })),
        ErrorShape::Empty => ReplyBody::Empty,
        ErrorShape::Raw => ReplyBody::Text(text.to_owned()),
    }
}

/// Names the class that goes with a status in shape E.
fn exception_class(status: u16) -> &'static str {
    match status {
        401 => "not_authenticated",
        403 => "ForbiddenError",
        404 => "NotFoundError",
        400..500 => "ValidationError",
        _ => "InternalServerError",
    }
}
