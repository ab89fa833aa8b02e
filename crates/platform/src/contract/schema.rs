//! A JSON value against a schema, with the keywords that the platform's file uses and no others.
//!
//! A finding is a line: place, field, what is wrong. The place is the schema's name where it has one,
//! so that what is wrong with an object is one line for all operations that answer with it; items of
//! lists are `[]`.

use std::collections::BTreeSet;

use serde_json::Value;

/// What stands in the simulator's log in the place of a secret.
const SECRET: &str = "[secret]";

/// Who wrote the value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Side {
    /// The client: fields that the platform alone may set are wrong.
    Request,
    /// The platform.
    Answer,
}

/// Checks values against the schemas of one file.
#[derive(Clone, Copy)]
pub(super) struct Checker<'a> {
    /// The file, for references.
    pub(super) root: &'a Value,
    pub(super) side: Side,
}

impl Checker<'_> {
    /// What is wrong with a body.
    pub(super) fn check(&self, schema: &Value, value: &Value, place: &str) -> BTreeSet<String> {
        self.check_at(schema, value, &format!("{} of {place}: $", self.word()))
    }

    /// The side in a word.
    fn word(&self) -> &'static str {
        match self.side {
            Side::Request => "request",
            Side::Answer => "answer",
        }
    }

    /// The place of a value: the name of its schema, or where it stands.
    fn place(&self, schema: &Value, place: &str) -> String {
        match schema
            .get("$ref")
            .and_then(Value::as_str)
            .and_then(|target| target.rsplit('/').next())
        {
            Some(name) => format!("{}: {name}", self.word()),
            None => place.to_owned(),
        }
    }

    /// What is wrong with a value at a place.
    pub(super) fn check_at(&self, schema: &Value, value: &Value, place: &str) -> BTreeSet<String> {
        let mut findings = BTreeSet::new();
        self.one(schema, value, place, &mut findings);
        self.undeclared(schema, value, place, &mut findings);
        findings
    }

    /// Checks one value, and what is in it, but for fields that no schema names.
    fn one(&self, schema: &Value, value: &Value, place: &str, findings: &mut BTreeSet<String>) {
        let place = self.place(schema, place);
        let schema = self.resolved(schema);
        let Some(keywords) = schema.as_object() else { return };
        let nullable = schema["nullable"] == true || schema.get("default") == Some(&Value::Null);
        if value.is_null() && (nullable || keywords.is_empty()) {
            return;
        }
        for (keyword, rule) in keywords {
            match keyword.as_str() {
                "required" | "properties" | "items" | "allOf" => {
                    self.inside(keyword, rule, value, &place, findings);
                }
                _ => {
                    let problem = self.itself(keyword, rule, value);
                    findings.extend(problem.map(|problem| format!("{place}: {problem}")));
                }
            }
        }
    }

    /// Checks what is in a value by one keyword.
    fn inside(
        &self,
        keyword: &str,
        rule: &Value,
        value: &Value,
        place: &str,
        findings: &mut BTreeSet<String>,
    ) {
        match (keyword, rule, value) {
            ("required", Value::Array(names), Value::Object(fields)) => {
                let absent = names.iter().filter_map(Value::as_str);
                let absent = absent.filter(|name| !fields.contains_key(*name));
                findings.extend(absent.map(|name| format!("{place}.{name}: required and absent")));
            }
            ("properties", Value::Object(schemas), Value::Object(fields)) => {
                for (name, schema) in schemas {
                    if let Some(value) = fields.get(name) {
                        self.one(schema, value, &format!("{place}.{name}"), findings);
                    }
                }
            }
            ("items", schema, Value::Array(items)) => {
                for item in items {
                    self.one(schema, item, &format!("{place}[]"), findings);
                }
            }
            ("allOf", Value::Array(schemas), value) => {
                for schema in schemas {
                    self.one(schema, value, place, findings);
                }
            }
            // Of another type than the keyword is about: `type` tells it.
            _ => {}
        }
    }

    /// Checks a value itself by one keyword; returns what is wrong with it.
    fn itself(&self, keyword: &str, rule: &Value, value: &Value) -> Option<String> {
        let text = value.as_str().filter(|text| *text != SECRET);
        let length = text.map(|text| text.chars().count());
        let bound = rule.as_u64().and_then(|bound| usize::try_from(bound).ok());
        let name = rule.as_str().unwrap_or_default();
        let (is_good, problem) = match keyword {
            "type" => (is_of(name, value), format!("is not {name}")),
            "enum" => {
                let is_one = rule.as_array().unwrap().contains(value);
                (is_one || text == Some(""), "is none of the words".to_owned())
            }
            "minLength" => (length.is_none() || length >= bound, "is too short".to_owned()),
            "maxLength" => (length <= bound, "is too long".to_owned()),
            "pattern" => {
                assert_eq!(name, "^[!-~]+$", "the one pattern");
                let is_good = text.is_none_or(|text| text.chars().all(|c| c.is_ascii_graphic()));
                (is_good, "has other characters".to_owned())
            }
            "format" => (text.is_none_or(|text| is_format(name, text)), format!("is no {name}")),
            "readOnly" => (self.side == Side::Answer, "only the platform sets it".to_owned()),
            "oneOf" | "anyOf" => {
                let fits = |schema: &&Value| self.check_at(schema, value, "").is_empty();
                let fitting = rule.as_array().unwrap().iter().filter(fits).count();
                let is_good = if keyword == "oneOf" { fitting == 1 } else { fitting > 0 };
                (is_good, format!("fits {fitting} of the forms"))
            }
            "default" | "nullable" | "additionalProperties" => (true, String::new()),
            other => panic!("the keyword {other} is not known here"),
        };
        (!is_good).then_some(problem)
    }

    /// Finds fields that no schema names.
    fn undeclared(
        &self,
        schema: &Value,
        value: &Value,
        place: &str,
        findings: &mut BTreeSet<String>,
    ) {
        let place = self.place(schema, place);
        match value {
            Value::Object(fields) => {
                let mut declared = Vec::new();
                self.declared(schema, &mut declared);
                let is_open = declared.is_empty();
                for (name, value) in fields {
                    let of_name: Vec<_> =
                        declared.iter().filter(|(known, _)| known == name).collect();
                    if of_name.is_empty() && !is_open {
                        findings.insert(format!("{place}.{name}: not in the file"));
                    }
                    for (_, schema) in of_name.iter().take(1) {
                        self.undeclared(schema, value, &format!("{place}.{name}"), findings);
                    }
                }
            }
            Value::Array(items) => {
                let mut inner = self.resolved(schema);
                if let Some(first) = inner.get("allOf").and_then(|all| all.get(0)) {
                    inner = self.resolved(first);
                }
                let Some(inner) = inner.get("items") else { return };
                for item in items {
                    self.undeclared(inner, item, &format!("{place}[]"), findings);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    /// Every field that a schema names, whatever it is composed of.
    fn declared<'a>(&'a self, schema: &'a Value, found: &mut Vec<(&'a str, &'a Value)>) {
        let schema = self.resolved(schema);
        for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
            found.push((name, schema));
        }
        for keyword in ["allOf", "oneOf", "anyOf"] {
            for one in schema[keyword].as_array().into_iter().flatten() {
                self.declared(one, found);
            }
        }
    }

    /// The schema itself in place of a reference to it.
    fn resolved<'a>(&'a self, schema: &'a Value) -> &'a Value {
        match schema.get("$ref").and_then(Value::as_str) {
            Some(target) => self.root.pointer(target.trim_start_matches('#')).unwrap(),
            None => schema,
        }
    }
}

/// Whether a value is of a type.
fn is_of(name: &str, value: &Value) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        other => panic!("the type {other} is not known here"),
    }
}

/// Whether a text has a format.
fn is_format(name: &str, text: &str) -> bool {
    match name {
        "date-time" => chrono::DateTime::parse_from_rfc3339(text).is_ok(),
        "uuid" => text.len() == 36 && text.chars().all(|c| c.is_ascii_hexdigit() || c == '-'),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn findings(schema: &Value, value: &Value) -> Vec<String> {
        let root = json!({"a": {"type": "object", "required": ["id"], "properties": {
            "id": {"type": "integer"}, "word": {"type": "string", "enum": ["x"], "default": null},
        }}});
        let checker = Checker { root: &root, side: Side::Request };
        checker.check_at(schema, value, "$").into_iter().collect()
    }

    #[test]
    fn each_keyword_finds_its_fault() {
        let object = json!({"$ref": "#/a"});
        for (schema, value, expected) in [
            (&object, json!({"id": 1, "word": "x"}), vec![]),
            (&object, json!({"id": 1, "word": null}), vec![]),
            (&object, json!({"id": null}), vec!["request: a.id: is not integer"]),
            (
                &object,
                json!({"word": "y"}),
                vec!["request: a.id: required and absent", "request: a.word: is none of the words"],
            ),
            (&object, json!({"id": 1, "more": 1}), vec!["request: a.more: not in the file"]),
            (&object, json!([]), vec!["request: a: is not object"]),
            (
                &json!({"type": "array", "items": {"$ref": "#/a"}}),
                json!([{"id": 1}, {"id": "1"}]),
                vec!["request: a.id: is not integer"],
            ),
            (
                &json!({"allOf": [{"$ref": "#/a"}, {"required": ["word"]}]}),
                json!({"id": 1}),
                vec!["$.word: required and absent"],
            ),
            (
                &json!({"oneOf": [{"$ref": "#/a"}, {"type": "string"}]}),
                json!(1),
                vec!["$: fits 0 of the forms"],
            ),
            (
                &json!({"type": "string", "minLength": 2, "maxLength": 3}),
                json!("a"),
                vec!["$: is too short"],
            ),
            (
                &json!({"type": "string", "minLength": 2, "maxLength": 3}),
                json!("abcd"),
                vec!["$: is too long"],
            ),
            (
                &json!({"type": "string", "pattern": "^[!-~]+$"}),
                json!("a b"),
                vec!["$: has other characters"],
            ),
            (&json!({"type": "string", "format": "uuid"}), json!("x"), vec!["$: is no uuid"]),
            (&json!({"readOnly": true}), json!("x"), vec!["$: only the platform sets it"]),
        ] {
            assert_eq!(findings(schema, &value), expected, "{value}");
        }
    }
}
