//! How requests were answered, as numbers that only grow. Who shows them is another matter.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use axum::extract::State;
use axum::response::Response;

use crate::Api;

/// Answers by status code, since the start of the process.
#[derive(Debug, Default)]
pub(crate) struct Answers(Mutex<BTreeMap<u16, u64>>);

impl Api {
    /// How many requests were answered with each status code since the start of the process.
    pub fn answers(&self) -> BTreeMap<u16, u64> {
        self.0.answers.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Counts an answer.
pub(crate) async fn count(State(api): State<Api>, response: Response) -> Response {
    let mut answers = api.0.answers.0.lock().unwrap_or_else(PoisonError::into_inner);
    *answers.entry(response.status().as_u16()).or_default() += 1;
    drop(answers);
    response
}
