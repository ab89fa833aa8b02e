//! Plain objects: made, shown, changed and deleted by their fields, and nothing else happens.
//!
//! A *shelf* holds all objects of one kind. Kinds differ in their fields alone, so each is a table.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::accepts::{Accepts, check};
use super::pages::page_range;
use super::routes::unwrapped;
use super::{Reply, Request};
use crate::Behaviour;

/// What objects of a kind are made of.
#[derive(Debug)]
pub(super) struct Kind {
    /// The word around the fields of a body; `None` for a body that is the fields.
    pub(super) wrapper: Option<&'static str>,
    /// The fields that a body may set, with what they are while nobody has set them.
    pub(super) fields: &'static [(&'static str, Accepts, Start)],
    /// Fields that a new object needs.
    pub(super) required: &'static [&'static str],
}

/// What a field is while nobody has set it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Start {
    /// Null.
    Null,
    /// A flag.
    Flag(bool),
    /// A word.
    Word(&'static str),
    /// A number.
    Number(i64),
    /// An empty list.
    Empty,
}

impl Kind {
    /// The fields of a new object, or what is wrong with the body.
    pub(super) fn filled(&self, body: Map<String, Value>) -> Result<Map<String, Value>, Reply> {
        if let Some(field) = self.required.iter().find(|field| !body.contains_key(**field)) {
            return Err(Reply::invalid(field, "can't be blank"));
        }
        let start = |(name, _, start): &(&str, Accepts, Start)| ((*name).to_owned(), start.value());
        let mut row = self.fields.iter().map(start).collect();
        self.apply(&mut row, body)?;
        Ok(row)
    }

    /// Takes over the known fields of a body, or names the first bad one and takes none.
    pub(super) fn apply(
        &self,
        row: &mut Map<String, Value>,
        mut body: Map<String, Value>,
    ) -> Result<(), Reply> {
        for (field, accepts, _) in self.fields {
            if let Some(value) = body.get(*field) {
                check(*accepts, value).map_err(|problem| Reply::invalid(field, problem))?;
            }
        }
        for (field, ..) in self.fields {
            if let Some(value) = body.remove(*field) {
                row.insert((*field).to_owned(), value);
            }
        }
        Ok(())
    }
}

/// All objects of one kind.
#[derive(Debug)]
pub(super) struct Shelf {
    kind: &'static Kind,
    next: i64,
    rows: BTreeMap<i64, Map<String, Value>>,
}

impl Shelf {
    /// Makes an empty shelf whose first object has this id.
    pub(super) fn new(kind: &'static Kind, first: i64) -> Self {
        Self { kind, next: first, rows: BTreeMap::new() }
    }

    /// Makes an object from a request and the fields that the platform sets; returns its id.
    pub(super) fn create(&mut self, request: &Request, own: Value) -> Result<i64, Reply> {
        let body = self.body(request)?;
        self.create_from(body, own)
    }

    /// The same from fields that are at hand.
    pub(super) fn create_from(
        &mut self,
        body: Map<String, Value>,
        own: Value,
    ) -> Result<i64, Reply> {
        let mut row = self.kind.filled(body)?;
        let id = self.next;
        self.next += 1;
        if let Value::Object(own) = own {
            row.extend(own);
        }
        row.insert("id".to_owned(), id.into());
        self.rows.insert(id, row);
        Ok(id)
    }

    /// Changes what a request names.
    pub(super) fn change(&mut self, id: &str, request: &Request) -> Result<i64, Reply> {
        let body = self.body(request)?;
        self.change_from(parse(id), body)
    }

    /// The same from fields that are at hand.
    pub(super) fn change_from(
        &mut self,
        id: Option<i64>,
        body: Map<String, Value>,
    ) -> Result<i64, Reply> {
        let id = id.ok_or_else(Reply::not_found)?;
        let row = self.rows.get_mut(&id).ok_or_else(Reply::not_found)?;
        self.kind.apply(row, body)?;
        Ok(id)
    }

    /// Sets a field that no body sets.
    pub(super) fn set(&mut self, id: i64, field: &str, value: Value) {
        if let Some(row) = self.rows.get_mut(&id) {
            row.insert(field.to_owned(), value);
        }
    }

    /// Deletes an object.
    pub(super) fn remove(&mut self, id: &str) -> Option<Map<String, Value>> {
        self.rows.remove(&parse(id)?)
    }

    /// Keeps only the objects that pass.
    pub(super) fn retain(&mut self, passes: impl Fn(&Map<String, Value>) -> bool) {
        self.rows.retain(|_, row| passes(row));
    }

    /// Returns an object by the text of its id.
    pub(super) fn get(&self, id: &str) -> Option<&Map<String, Value>> {
        self.rows.get(&parse(id)?)
    }

    /// Returns all objects, oldest first.
    pub(super) fn all(&self) -> impl Iterator<Item = &Map<String, Value>> {
        self.rows.values()
    }

    /// Answers with an object.
    pub(super) fn reply(&self, id: &str) -> Reply {
        self.get(id).map_or_else(Reply::not_found, |row| Reply::ok(row.clone().into()))
    }

    /// Answers with a page of all objects, newest first.
    pub(super) fn page(&self, request: &Request, behaviour: &Behaviour) -> Reply {
        let range = page_range(request, behaviour, false, self.rows.len());
        let page = self.rows.values().rev().skip(range.start).take(range.len());
        Reply::ok(page.cloned().map(Value::Object).collect())
    }

    /// Answers with the object that was made or changed, or with what is wrong.
    pub(super) fn outcome(&self, outcome: Result<i64, Reply>) -> Reply {
        outcome.map_or_else(|refusal| refusal, |id| self.reply(&id.to_string()))
    }

    /// Answers a deletion.
    pub(super) fn deletion(&mut self, id: &str) -> Reply {
        self.remove(id).map_or_else(Reply::not_found, |_| Reply::empty(204))
    }

    /// Takes the fields out of a request.
    fn body(&self, request: &Request) -> Result<Map<String, Value>, Reply> {
        let body = request.object().ok_or_else(Reply::unreadable)?;
        match self.kind.wrapper {
            None => Ok(body),
            Some(word) => {
                unwrapped(body, word).ok_or_else(|| Reply::invalid(word, "can't be blank"))
            }
        }
    }
}

impl Start {
    /// The value.
    fn value(self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Flag(flag) => flag.into(),
            Self::Word(word) => word.into(),
            Self::Number(number) => number.into(),
            Self::Empty => Value::Array(Vec::new()),
        }
    }
}

/// Reads an id.
pub(super) fn parse(id: &str) -> Option<i64> {
    id.parse().ok()
}
