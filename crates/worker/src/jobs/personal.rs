//! Personal values of a call: opened for the platform alone, and cut from what comes back.
//!
//! A call whose account was erased since it was decided is given up: there is nothing left to send.

use domain::call::Call;
use domain::effect::CallArgs;
use domain::personal::without_quotes;
use serde_json::Value;
use store::Keyring;

use super::JobError;
use crate::claimed::ClaimedJob;
use crate::context::Context;

/// A call's arguments, in the open.
pub(super) struct Opened {
    /// The arguments.
    pub(super) args: Value,
    /// What in them is personal.
    pub(super) values: Values,
}

/// Personal values that are being sent.
pub(super) struct Values(Vec<String>);

/// Opens the arguments of a job.
pub(super) async fn open(ctx: &Context, job: &ClaimedJob) -> Result<Opened, JobError> {
    let mut args = job.args.clone();
    let wanted = Keyring::wanted_by(&args);
    if !wanted.is_empty() {
        let keyring = ctx.store().keyring(Some(ctx.sealing_key()), &wanted).await?;
        if !keyring.has_all(&wanted) {
            return Err(JobError::fail("the data of its account was erased"));
        }
        keyring.open(&mut args);
    }
    let values = Values::of(&args);
    Ok(Opened { args, values })
}

impl Values {
    /// The personal values of a call: its name, and what the product gave for itself.
    fn of(args: &Value) -> Self {
        let call = serde_json::from_value::<CallArgs>(args.clone()).map(|args| args.call);
        let (name, options) = match call {
            Ok(
                Call::CreateLiveStream { name, options, .. }
                | Call::UpdateLiveStream { name, options, .. },
            ) => (name, Some(options)),
            Ok(Call::CreateBroadcast { name, .. }) => (name, None),
            Ok(_) | Err(_) => return Self(Vec::new()),
        };
        let mut values = vec![name];
        if let Some(options) = options {
            values.extend(options.client_user_id.map(|id| id.to_string()));
            texts(&options.data.unwrap_or_default(), &mut values);
        }
        Self(values)
    }

    /// The error without what it quotes of them: its reason is stored.
    pub(super) fn cut_from(&self, error: JobError) -> JobError {
        let cut = |reason| without_quotes(reason, &self.0);
        match error {
            JobError::Retry { after, reason } => JobError::Retry { after, reason: cut(reason) },
            JobError::Snooze { after, reason } => JobError::Snooze { after, reason: cut(reason) },
            // Its name is a handler's own.
            JobError::Wait { step } => JobError::Wait { step },
            JobError::Fail { reason } => JobError::Fail { reason: cut(reason) },
            JobError::Cancel { reason } => JobError::Cancel { reason: cut(reason) },
        }
    }
}

/// All texts in a value.
fn texts(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) => found.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|item| texts(item, found)),
        Value::Object(fields) => fields.values().for_each(|value| texts(value, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn args() -> Value {
        json!({"intent": uuid::Uuid::nil(), "call": {"kind": "create_live_stream", "name": "Ann at home",
            "options": {"client_user_id": 987_654, "data": {"room": ["Ann's room"]}}}})
    }

    #[test]
    fn no_error_quotes_what_was_sent() {
        let values = Values::of(&args());
        let reason = "422: name Ann at home is taken by user 987654 in Ann's room".to_owned();
        for error in [
            JobError::Fail { reason: reason.clone() },
            JobError::Retry { after: None, reason: reason.clone() },
            JobError::Snooze { after: std::time::Duration::ZERO, reason },
        ] {
            let cut = values.cut_from(error).to_string();
            assert_eq!(cut, "422: name [redacted] is taken by user [redacted] in [redacted]");
        }
    }

    #[test]
    fn calls_without_personal_values_have_none() {
        let args =
            json!({"intent": uuid::Uuid::nil(), "call": {"kind": "clear_dvr", "live_stream": 1}});
        assert!(Values::of(&args).0.is_empty());
    }
}
