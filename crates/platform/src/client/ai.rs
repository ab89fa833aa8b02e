//! AI tasks: ask for, poll, cancel.

use serde_json::Value;

use super::{Client, Pages, decode};
use crate::{
    Error, Operation,
    wire::{AiTask, NewAiTask},
};

/// Which AI tasks are listed; `None` lists them whatever they are.
#[derive(Clone, Debug, Default)]
pub struct AiTaskFilter {
    /// One of the words of a task's status.
    pub status: Option<String>,
    /// `transcription` or `content-moderation`.
    pub task_name: Option<String>,
    /// Of this text in what it was asked for, so also in its tag.
    pub search: Option<String>,
    /// Rows on a page; 10 unless it is set.
    pub limit: Option<u32>,
}

impl Client {
    /// Asks for an AI task and returns its id. Twice called, it makes two: after
    /// [`crate::Disposition::Ambiguous`] look for the tag in `client_entity_data` first, by
    /// [`Pages::matching`].
    pub async fn create_ai_task(&self, new: &NewAiTask) -> Result<String, Error> {
        let operation = Operation::CreateAiTask;
        let answer = self.to(operation).fields(new).hiding(&new.url).send().await?;
        let task: AiTask = decode::object(operation, &answer)?;
        task.task_id.ok_or_else(|| decode::unreadable(operation, &answer, "no task_id"))
    }

    /// Reads an AI task with its result.
    pub async fn get_ai_task(&self, id: &str) -> Result<AiTask, Error> {
        self.on(Operation::GetAiTask, [id]).object().await
    }

    /// The AI tasks of the account that pass a filter.
    pub fn ai_tasks(&self, filter: &AiTaskFilter) -> Pages<'_, AiTask> {
        self.to(Operation::ListAiTasks)
            .query_if("status", filter.status.as_ref())
            .query_if("task_name", filter.task_name.as_ref())
            .query_if("search", filter.search.as_ref())
            .query_if("limit", filter.limit)
            .pages()
    }

    /// Cancels an AI task. If it has ended already, the error's disposition is
    /// [`crate::Disposition::Done`].
    pub async fn cancel_ai_task(&self, id: &str) -> Result<(), Error> {
        self.on(Operation::CancelAiTask, [id]).done().await
    }

    /// Whether a spoken language can be written down, and translated where a second is named; three
    /// letters each. `None` when the platform does not say.
    pub async fn get_ai_language_support(
        &self,
        audio: &str,
        subtitles: Option<&str>,
    ) -> Result<Option<bool>, Error> {
        let operation = Operation::GetAiLanguageSupport;
        let call = self.to(operation).query("type", "language_support");
        let call = call.query("audio_language", audio).query_if("subtitles_language", subtitles);
        let body = decode::value(operation, &call.send().await?)?;
        Ok(body.get("supported").and_then(Value::as_bool))
    }
}
