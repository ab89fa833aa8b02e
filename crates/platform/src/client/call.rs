//! One request to be, and how its answer is read.
//!
//! Method, path and the form of the body come from the operation's row; a method of [`Client`] adds
//! ids, parameters, fields, and says which type the answer is.

use std::fmt::Write;

use secrecy::SecretString;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{Client, decode, pages::Pages};
use crate::{CreateBody, Error, Operation, http::Answer, operation::Form, wire::Listed};

/// One request to be.
#[derive(Clone, Debug)]
pub(super) struct Call<'a> {
    client: &'a Client,
    pub(super) operation: Operation,
    pub(super) path: String,
    pub(super) query: Vec<(&'static str, String)>,
    pub(super) body: Option<Value>,
    /// Secrets in the body, which an answer may quote.
    pub(super) secrets: Vec<SecretString>,
}

impl Client {
    /// A request whose path holds no id.
    pub(super) fn to(&self, operation: Operation) -> Call<'_> {
        self.on(operation, [""; 0])
    }

    /// A request whose path holds these ids, in order.
    pub(super) fn on(
        &self,
        operation: Operation,
        ids: impl IntoIterator<Item = impl ToString>,
    ) -> Call<'_> {
        let path = fill(operation.row().path, ids);
        Call { client: self, operation, path, query: Vec::new(), body: None, secrets: Vec::new() }
    }
}

impl<'a> Call<'a> {
    /// The same with a parameter.
    #[expect(clippy::needless_pass_by_value, reason = "numbers and texts are given alike")]
    pub(super) fn query(mut self, name: &'static str, value: impl ToString) -> Self {
        self.query.push((name, value.to_string()));
        self
    }

    /// The same with a parameter if there is a value for it.
    pub(super) fn query_if(self, name: &'static str, value: Option<impl ToString>) -> Self {
        match value {
            Some(value) => self.query(name, value),
            None => self,
        }
    }

    /// The same with these fields in its body.
    pub(super) fn fields(mut self, fields: &impl Serialize) -> Self {
        let wrapped = self.operation == Operation::CreateStream
            && self.client.inner.create_body == CreateBody::Wrapped;
        self.body = match self.operation.row().form {
            Form::Nothing => None,
            Form::Flat if wrapped => Some(json!({"stream": fields})),
            Form::Flat => Some(json!(fields)),
            Form::In(name) => Some(json!({name: fields})),
        };
        self
    }

    /// The same, whose answer must not show these in an error.
    pub(super) fn hiding<'s>(
        mut self,
        secrets: impl IntoIterator<Item = &'s SecretString>,
    ) -> Self {
        self.secrets.extend(secrets.into_iter().cloned());
        self
    }

    /// Sends, and expects nothing but a success.
    pub(super) async fn done(self) -> Result<(), Error> {
        self.send().await.map(drop)
    }

    /// Sends, and reads an object that names itself.
    pub(super) async fn object<T: DeserializeOwned>(self) -> Result<T, Error> {
        decode::object(self.operation, &self.send().await?)
    }

    /// Sends, and reads the object in a field of the body.
    pub(super) async fn object_in<T: DeserializeOwned>(self, name: &str) -> Result<T, Error> {
        decode::object_in(self.operation, &self.send().await?, name)
    }

    /// Sends, and reads the object with this id.
    pub(super) async fn object_with_id<T: DeserializeOwned>(self, id: i64) -> Result<T, Error> {
        decode::object_with_id(self.operation, &self.send().await?, id)
    }

    /// Sends, and reads the object with this id, of which nothing but the id may be told.
    pub(super) async fn changed<T: DeserializeOwned>(self, id: i64) -> Result<T, Error> {
        decode::changed(self.operation, &self.send().await?, id)
    }

    /// Sends, and reads an object, or `None` where the body says nothing.
    pub(super) async fn optional<T: DeserializeOwned>(self) -> Result<Option<T>, Error> {
        decode::optional(self.operation, &self.send().await?)
    }

    /// Sends, and reads a list.
    pub(super) async fn list<T: DeserializeOwned>(self) -> Result<Vec<T>, Error> {
        decode::list(self.operation, &self.send().await?, None)
    }

    /// Sends, and reads the list in a field of the body.
    pub(super) async fn list_in<T: DeserializeOwned>(self, name: &str) -> Result<Vec<T>, Error> {
        decode::list(self.operation, &self.send().await?, Some(name))
    }

    /// The pages of a list; nothing is sent yet.
    pub(super) fn pages<T: Listed>(self) -> Pages<'a, T> {
        Pages::new(self)
    }

    /// Sends, and returns the answer if it is a success.
    pub(super) async fn send(&self) -> Result<Answer, Error> {
        self.client.call(self).await
    }
}

/// Puts the ids in the places of a path that stand in braces.
fn fill(path: &str, ids: impl IntoIterator<Item = impl ToString>) -> String {
    let mut ids = ids.into_iter();
    let fill = |part: &str| match part.strip_prefix('{').and_then(|_| ids.next()) {
        Some(id) => segment(&id.to_string()),
        None => part.to_owned(),
    };
    path.split('/').map(fill).collect::<Vec<_>>().join("/")
}

/// A text as one segment of a path: whatever it holds, it names no other path.
fn segment(text: &str) -> String {
    let mut segment = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') {
            segment.push(char::from(byte));
        } else {
            // Writing to a String does not fail.
            let _ = write!(segment, "%{byte:02X}");
        }
    }
    segment
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_take_the_places_in_braces_and_name_no_other_path() {
        assert_eq!(fill("/a/{x}/b/{y}", [7, 8]), "/a/7/b/8");
        assert_eq!(fill("/a/{x}", ["../b?c#d%"]), "/a/%2E%2E%2Fb%3Fc%23d%25");
        assert_eq!(fill("/a/b", [0; 0]), "/a/b");
    }
}
