//! Subtitles of a video.

use serde_json::{Value, json};

use super::accepts::Accepts;
use super::shelf::{Kind, Shelf, Start};
use super::{ErrorShape, Reply, Request, World, error_body};

/// A subtitle's fields.
const KIND: Kind = Kind {
    wrapper: None,
    fields: &[
        ("name", Accepts::Text { max: 255 }, Start::Word("")),
        ("language", Accepts::Name, Start::Null),
        ("vtt", Accepts::Text { max: 1_000_000 }, Start::Word("")),
    ],
    required: &["language"],
};

/// An empty shelf of subtitles.
pub(super) fn shelf() -> Shelf {
    Shelf::new(&KIND, 5001)
}

impl World {
    /// Operations on the subtitles of a video.
    pub(super) fn route_subtitles(
        &mut self,
        method: &str,
        video: &str,
        rest: &[&str],
        request: &Request,
    ) -> Reply {
        let known = video.parse().ok().filter(|id| self.videos.contains_key(id));
        let Some(video) = known else { return Reply::not_found() };
        match (method, rest) {
            ("GET", []) => {
                let of_video = self.subtitles.all().filter(|row| row["video_id"] == video);
                Reply::ok(of_video.map(|row| shown(row.clone().into())).collect())
            }
            ("POST", []) => {
                let made = self.subtitles.create(request, json!({"video_id": video}));
                self.subtitle_outcome(made)
            }
            (_, [id]) if self.subtitles.get(id).is_none_or(|row| row["video_id"] != video) => {
                Reply::not_found()
            }
            ("GET", [id]) => self.subtitle_outcome(id.parse().map_err(|_| Reply::not_found())),
            ("PATCH", [id]) => {
                let changed = self.subtitles.change(id, request);
                self.subtitle_outcome(changed)
            }
            ("DELETE", [id]) => self.subtitles.deletion(id),
            _ => Reply::not_found(),
        }
    }

    /// Answers with a subtitle, or with what is wrong: the language, in shape B.
    fn subtitle_outcome(&self, outcome: Result<i64, Reply>) -> Reply {
        let outcome = outcome.map(|id| self.subtitles.get(&id.to_string()).cloned());
        match outcome {
            Ok(Some(row)) => Reply::ok(shown(row.into())),
            Ok(None) => Reply::not_found(),
            Err(refusal) if refusal.status == 422 => {
                let text = "Unprocessable Entity. Language code is not recognized.";
                Reply { status: 422, body: error_body(ErrorShape::B, 422, text) }
            }
            Err(refusal) => refusal,
        }
    }
}

/// The view without the video that it belongs to.
fn shown(mut view: Value) -> Value {
    if let Value::Object(fields) = &mut view {
        fields.remove("video_id");
    }
    view
}
