//! The platform's file, and what a logged exchange does otherwise.

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::Value;
use simulator::RequestLogEntry;

use super::schema::{Checker, Side};
use crate::Operation;

/// The file.
pub(super) struct File(Value);

impl File {
    /// Reads it.
    pub(super) fn read() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/openapi.json");
        Self(serde_json::from_slice(&fs::read(path).unwrap()).unwrap())
    }

    /// Method, in lower case, and path of every operation.
    pub(super) fn operations(&self) -> BTreeSet<(String, String)> {
        let paths = self.0["paths"].as_object().unwrap();
        let of_path = |(path, methods): (&String, &Value)| {
            let methods = methods.as_object().unwrap().keys().filter(|name| *name != "parameters");
            methods.map(|method| (method.clone(), path.clone())).collect::<Vec<_>>()
        };
        paths.iter().flat_map(of_path).collect()
    }

    /// What it says of an operation.
    pub(super) fn operation(&self, method: &str, path: &str) -> &Value {
        &self.0["paths"][path][method.to_lowercase()]
    }

    /// What an exchange does otherwise.
    pub(super) fn findings(&self, operation: Operation, entry: &RequestLogEntry) -> Vec<String> {
        let row = operation.row();
        let described = self.operation(row.method.as_str(), row.path);
        let mut findings = self.of_query(operation, described, &entry.query);
        // What the walk gets refused is wrong on purpose.
        if let Some(body) = entry.body.as_ref().filter(|_| entry.status < 400) {
            let content = self.resolved(&described["requestBody"]);
            let schema = &content["content"]["application/json"]["schema"];
            let checker = Checker { root: &self.0, side: Side::Request };
            findings.extend(checker.check(schema, body, operation.as_str()));
        }
        findings.extend(self.of_answer(operation, described, entry));
        findings
    }

    /// What the parameters are otherwise.
    fn of_query(&self, operation: Operation, described: &Value, query: &str) -> Vec<String> {
        let given: Vec<(String, String)> = reqwest::Url::parse(&format!("http://x/?{query}"))
            .unwrap()
            .query_pairs()
            .into_owned()
            .collect();
        let empty = Vec::new();
        let parameters = described["parameters"].as_array().unwrap_or(&empty);
        let parameters: Vec<_> = parameters.iter().filter(|one| one["in"] == "query").collect();
        let mut findings = Vec::new();
        for (name, text) in &given {
            let Some(parameter) = parameters.iter().find(|one| one["name"] == name.as_str()) else {
                findings.push(format!("{operation} request ?{name}: not in the file"));
                continue;
            };
            let value = match parameter["schema"]["type"].as_str() {
                Some("integer" | "boolean") => serde_json::from_str(text).unwrap_or_default(),
                Some("array") => text.split(',').map(item).collect::<Vec<Value>>().into(),
                _ => Value::String(text.clone()),
            };
            let checker = Checker { root: &self.0, side: Side::Request };
            let place = format!("{operation} request ?{name}");
            findings.extend(checker.check_at(&parameter["schema"], &value, &place));
        }
        for parameter in parameters.iter().filter(|one| one["required"] == true) {
            let name = parameter["name"].as_str().unwrap();
            if given.iter().all(|(given, _)| given != name) {
                findings.push(format!("{operation} request ?{name}: required and not sent"));
            }
        }
        findings
    }

    /// What the answer is otherwise.
    fn of_answer(
        &self,
        operation: Operation,
        described: &Value,
        entry: &RequestLogEntry,
    ) -> Vec<String> {
        let status = entry.status;
        let Some(answer) = described["responses"].get(status.to_string()) else {
            return vec![format!("answer {status} of {}: not in the file", family(operation))];
        };
        let schema = &self.resolved(answer)["content"]["application/json"]["schema"];
        match (&entry.response, schema) {
            (None, Value::Null) => Vec::new(),
            (None, _) => vec![format!("answer of {operation} {status}: no body")],
            // The file describes no body, so any is its own invention.
            (Some(_), Value::Null) if status >= 400 => Vec::new(),
            (Some(_), Value::Null) => {
                vec![format!("answer of {operation} {status}: the file has no body")]
            }
            (Some(body), schema) => {
                let checker = Checker { root: &self.0, side: Side::Answer };
                checker.check(schema, body, &format!("{operation} {status}")).into_iter().collect()
            }
        }
    }

    /// What stands where a reference points.
    fn resolved<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value.get("$ref").and_then(Value::as_str) {
            Some(target) => self.0.pointer(target.trim_start_matches('#')).unwrap(),
            None => value,
        }
    }
}

/// An item of a list in a parameter.
fn item(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| text.into())
}

/// The first word of an operation's path.
fn family(operation: Operation) -> &'static str {
    operation.row().path.split('/').nth(2).unwrap_or_default()
}
