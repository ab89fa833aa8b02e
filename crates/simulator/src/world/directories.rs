//! Directories: folders of videos, one in another. Deleting one deletes all that is in it.

use serde_json::{Map, Value, json};

use super::accepts::Accepts;
use super::shelf::{Kind, Shelf, Start};
use super::{Reply, Request, World, timestamp};

/// A directory's fields.
const KIND: Kind = Kind {
    wrapper: None,
    fields: &[("name", Accepts::Name, Start::Null), ("parent_id", Accepts::Number, Start::Null)],
    required: &["name"],
};

/// An empty shelf of directories.
pub(super) fn shelf() -> Shelf {
    Shelf::new(&KIND, 301)
}

impl World {
    /// Operations on directories.
    pub(super) fn route_directories(
        &mut self,
        method: &str,
        rest: &[&str],
        request: &Request,
    ) -> Reply {
        let now = timestamp(self.now);
        match (method, rest) {
            ("GET", ["tree"]) => Reply::ok(json!({"tree": self.directories_in(&Value::Null)})),
            ("POST", []) => {
                let own = json!({"created_at": now, "updated_at": now});
                let made = self.directories.create(request, own);
                self.directory_outcome(made)
            }
            ("GET", [id]) => self.directory(id),
            ("PATCH", [id]) => {
                let changed = self.directories.change(id, request);
                if let Ok(id) = changed {
                    self.directories.set(id, "updated_at", now.into());
                }
                self.directory_outcome(changed)
            }
            ("DELETE", [id]) => self.delete_directory(id),
            _ => Reply::not_found(),
        }
    }

    /// One directory with what is in it.
    fn directory(&self, id: &str) -> Reply {
        let Some(row) = self.directories.get(id) else { return Reply::not_found() };
        let id = &row["id"];
        let videos = self.videos.values().filter(|video| video.field("directory_id") == id);
        let videos = videos.map(|video| tagged(video.view(), "Video"));
        let inside = self.directories.all().filter(|row| row["parent_id"] == *id);
        let inside = inside.map(|row| tagged(self.directory_view(row), "Directory"));
        let mut view = self.directory_view(row);
        view["items"] = inside.chain(videos).collect();
        Reply::ok(json!({"directory": view}))
    }

    /// The directories in another, each with those in it.
    fn directories_in(&self, parent: &Value) -> Value {
        let inside = self.directories.all().filter(|row| row["parent_id"] == *parent);
        let view = |row: &Map<String, Value>| {
            let mut view = self.directory_view(row);
            view["descendants"] = self.directories_in(&row["id"]);
            view
        };
        inside.map(view).collect()
    }

    /// Deletes a directory with its directories and videos.
    fn delete_directory(&mut self, id: &str) -> Reply {
        let Some(row) = self.directories.remove(id) else { return Reply::not_found() };
        let id = &row["id"];
        let inside = self.directories.all().filter(|row| row["parent_id"] == *id);
        let inside: Vec<String> = inside.map(|row| row["id"].to_string()).collect();
        let videos = self.videos.values().filter(|video| video.field("directory_id") == id);
        let videos: Vec<String> = videos.map(|video| video.id.to_string()).collect();
        for id in inside {
            self.delete_directory(&id);
        }
        for id in videos {
            self.delete_video(&id);
        }
        Reply::empty(204)
    }

    fn directory_outcome(&self, outcome: Result<i64, Reply>) -> Reply {
        match outcome.map(|id| self.directories.get(&id.to_string())) {
            Ok(Some(row)) => Reply::ok(self.directory_view(row)),
            Ok(None) => Reply::not_found(),
            Err(refusal) => refusal,
        }
    }

    fn directory_view(&self, row: &Map<String, Value>) -> Value {
        let id = &row["id"];
        let directories = self.directories.all().filter(|row| row["parent_id"] == *id).count();
        let videos = self.videos.values().filter(|video| video.field("directory_id") == id).count();
        let mut view = row.clone();
        view.insert("items_count".to_owned(), json!(directories + videos));
        Value::Object(view)
    }
}

/// A view with what it is.
fn tagged(mut view: Value, item_type: &str) -> Value {
    view["item_type"] = item_type.into();
    view
}
