//! AI tasks: queued, at work, done, by nothing but the time that has passed. No webhook tells it.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};

use super::pages::range_of;
use super::{CLIENT_ID, ErrorShape, Reply, Request, World, error_body, timestamp};

/// Nominal seconds in the queue.
const QUEUED_S: f64 = 2.0;
/// Nominal seconds from the request to the result.
const DONE_S: f64 = 20.0;
/// Most tasks that wait or work at once.
const MOST_TASKS: usize = 100;
/// What content moderation looks for.
const CATEGORIES: [&str; 4] = ["sport", "nsfw", "hard_nudity", "soft_nudity"];

/// One AI task.
#[derive(Clone, Debug)]
pub(super) struct AiTask {
    id: String,
    data: Map<String, Value>,
    started_at: DateTime<Utc>,
    completed_at: DateTime<Utc>,
    revoked: bool,
}

impl AiTask {
    /// The platform's word for where it is.
    fn status(&self, now: DateTime<Utc>) -> &'static str {
        if self.revoked {
            "REVOKED"
        } else if now >= self.completed_at {
            "SUCCESS"
        } else if now >= self.started_at {
            "STARTED"
        } else {
            "PENDING"
        }
    }

    /// Whether nothing comes any more.
    fn is_final(&self, now: DateTime<Utc>) -> bool {
        matches!(self.status(now), "REVOKED" | "SUCCESS")
    }

    /// Returns the task as the list answers it.
    fn view(&self, now: DateTime<Utc>) -> Value {
        let status = self.status(now);
        let progress = match status {
            "PENDING" => 0,
            "SUCCESS" => 100,
            _ => 50,
        };
        let ended = (status == "SUCCESS").then_some(self.completed_at);
        json!({
            "task_id": self.id,
            "status": status,
            "progress": progress,
            "processing_time": {
                "started_at": timestamp(self.started_at),
                "completed_at": ended.map(timestamp),
                "total_time_sec": ended.map(|end| (end - self.started_at).as_seconds_f64()),
            },
            "task_data": self.data,
        })
    }

    /// Returns the task with its result.
    fn view_with_result(&self, now: DateTime<Utc>) -> Value {
        let mut view = self.view(now);
        let done = view["status"] == "SUCCESS";
        view["result"] = if done { result(&self.data) } else { Value::Null };
        view
    }

    /// Whether it passes the filters of a request.
    fn passes(&self, request: &Request, now: DateTime<Utc>) -> bool {
        let all = |key: &str, test: &dyn Fn(&str) -> bool| request.query(key).is_none_or(test);
        all("task_id", &|id| id == self.id)
            && all("status", &|status| status == self.status(now))
            && all("task_name", &|name| self.data.get("task_name").is_some_and(|one| one == name))
            && all("search", &|text| {
                self.id.contains(text) || Value::from(self.data.clone()).to_string().contains(text)
            })
    }
}

impl World {
    /// Operations on AI tasks.
    pub(super) fn route_ai(&mut self, method: &str, rest: &[&str], request: &Request) -> Reply {
        match (method, rest) {
            ("POST", ["tasks"]) => self.create_ai_task(request),
            ("GET", ["tasks"]) => self.list_ai_tasks(request),
            ("GET", ["tasks", id]) => match self.ai_tasks.iter().find(|task| task.id == *id) {
                Some(task) => Reply::ok(task.view_with_result(self.now)),
                None => Reply::not_found(),
            },
            ("POST", ["tasks", id, "cancel"]) => self.cancel_ai_task(id),
            ("GET", ["info"]) => ai_info(request),
            _ => Reply::not_found(),
        }
    }

    /// Queues a task.
    fn create_ai_task(&mut self, request: &Request) -> Reply {
        let Some(mut data) = request.object() else { return refused(400, "Invalid JSON") };
        let text = |field: &str| data.get(field).and_then(Value::as_str).unwrap_or_default();
        let known = match text("task_name") {
            "transcription" => true,
            "content-moderation" => CATEGORIES.contains(&text("category")),
            _ => false,
        };
        if !known || text("url").is_empty() {
            return refused(400, "Invalid task parameters");
        }
        let now = self.now;
        if self.ai_tasks.iter().filter(|task| !task.is_final(now)).count() >= MOST_TASKS {
            return refused(429, "Queue limit reached (100), try later.");
        }
        data.insert("client_id".to_owned(), CLIENT_ID.into());
        let id = uuid(&self.dice.token());
        let task = AiTask {
            id: id.clone(),
            data,
            started_at: self.pace.after(now, QUEUED_S),
            completed_at: self.pace.after(now, DONE_S),
            revoked: false,
        };
        self.ai_tasks.push(task);
        Reply::json(201, json!({"task_id": id}))
    }

    /// A page of tasks, newest first, inside of an object.
    fn list_ai_tasks(&self, request: &Request) -> Reply {
        let tasks: Vec<&AiTask> =
            self.ai_tasks.iter().rev().filter(|task| task.passes(request, self.now)).collect();
        let number = |key| request.query(key).and_then(|text| text.parse::<usize>().ok());
        let page = number("page").unwrap_or(1).max(1);
        let limit = number("limit").unwrap_or(10).clamp(1, 1000);
        let range = range_of(page, limit, tasks.len());
        let has_next = range.end < tasks.len();
        let results: Value = tasks[range].iter().map(|task| task.view(self.now)).collect();
        Reply::ok(json!({
            "count": tasks.len(),
            "next": has_next.then(|| format!("page={}", page + 1)),
            "previous": (page > 1).then(|| format!("page={}", page - 1)),
            "results": results,
        }))
    }

    /// Stops a task that has not ended.
    fn cancel_ai_task(&mut self, id: &str) -> Reply {
        let now = self.now;
        let Some(task) = self.ai_tasks.iter_mut().find(|task| task.id == id) else {
            return refused(404, "Task is not found");
        };
        if task.is_final(now) {
            let status = task.status(now);
            let text = format!("Cannot cancel task because it is already in status {status}.");
            return refused(412, &text);
        }
        task.revoked = true;
        Reply::json(202, json!({"result": "Task has been cancelled"}))
    }
}

/// Writes 32 hexadecimal digits as a UUID.
fn uuid(digits: &str) -> String {
    let parts = [0..8, 8..12, 12..16, 16..20, 20..32].map(|part| &digits[part]);
    parts.join("-")
}

/// Whether a language can be transcribed and translated: three letters are all it takes here.
fn ai_info(request: &Request) -> Reply {
    if request.query("type") != Some("language_support") {
        return refused(400, "type is not valid");
    }
    let is_language = |text: &str| text.len() == 3;
    let supported = request.query("audio_language").is_some_and(is_language)
        && request.query("subtitles_language").is_none_or(is_language);
    Reply::ok(json!({"supported": supported}))
}

/// What came of a task.
fn result(data: &Map<String, Value>) -> Value {
    match data.get("category").and_then(Value::as_str) {
        None => json!({
            "speech_detected": true,
            "concatenated_text": "Good evening.",
            "subtitles": [{
                "start_time": "00:00:00.031", "end_time": "00:00:03.831", "text": "Good evening.",
            }],
            "vttContent": "WEBVTT\n\n1\n00:00:00.031 --> 00:00:03.831\nGood evening.",
            "languages": ["eng"],
        }),
        Some("sport") => json!({
            "sport_detected": true,
            "detection_results": ["archery"],
            "frames": [{"label": "archery", "confidence": 0.82, "frame_number": 12}],
        }),
        Some("nsfw") => json!({"nsfw_detected": false, "detection_results": [], "frames": []}),
        Some(_) => json!({"nudity_detected": false, "detection_results": [], "frames": []}),
    }
}

/// An error in shape C.
fn refused(status: u16, text: &str) -> Reply {
    Reply { status, body: error_body(ErrorShape::C, status, text) }
}
