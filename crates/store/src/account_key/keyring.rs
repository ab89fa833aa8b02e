//! Opening what is sealed, for an answer, a screen or a platform call.
//!
//! A *keyring* holds the keys that one answer needs, read in one statement and never kept: a key
//! that is dropped is gone with the next answer. What cannot be opened is shown as a marker that
//! says why.

use std::collections::{BTreeSet, HashMap};

use domain::event::RecordedEvent;
use domain::personal::{ClientValues, ERASED, Pseudonym, Sealed, SealedField};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::unwrap;
use crate::{Error, LiveStreamView, SealingKey, SessionView, Store};

/// Shown where this process has no sealing key.
const SEALED: &str = "[sealed]";

/// Shown where a seal is damaged, or stands in another session than its own.
const UNREADABLE: &str = "[unreadable]";

/// The field with the product's own data: nothing in it is sealed by itself, whatever it looks like.
const PRODUCTS: &str = "data";

/// The keys of some accounts, to open with.
#[derive(Debug, Clone, Default)]
pub struct Keyring {
    keys: HashMap<Pseudonym, (SealingKey, String)>,
    /// There was no sealing key: what is missing is not known to be erased.
    is_locked: bool,
}

impl Store {
    /// The keys of `wanted`. Without a sealing key it opens nothing.
    ///
    /// # Errors
    /// [`Error::AccountKey`] where they were sealed with another sealing key.
    pub async fn keyring(
        &self,
        sealing: Option<&SealingKey>,
        wanted: &BTreeSet<Pseudonym>,
    ) -> Result<Keyring, Error> {
        let Some(sealing) = sealing else {
            return Ok(Keyring { is_locked: true, ..Keyring::default() });
        };
        if wanted.is_empty() {
            return Ok(Keyring::default());
        }
        let ids: Vec<Uuid> = wanted.iter().map(|pseudonym| pseudonym.0).collect();
        let rows = sqlx::query!(
            "SELECT pseudonym, sealed FROM tallylight.account_key WHERE pseudonym = ANY ($1)",
            &ids,
        )
        .fetch_all(&self.pool)
        .await?;
        let open = |pseudonym, sealed: &[u8]| Ok((pseudonym, unwrap(sealing, pseudonym, sealed)?));
        let keys: Result<_, Error> =
            rows.iter().map(|row| open(Pseudonym(row.pseudonym), &row.sealed)).collect();
        Ok(Keyring { keys: keys?, is_locked: false })
    }

    /// Opens what is sealed anywhere in `value`.
    ///
    /// # Errors
    /// As [`Store::keyring`]; [`Error::Inconsistent`] where an opened value does not fit.
    pub async fn open<T: Serialize + DeserializeOwned>(
        &self,
        sealing: Option<&SealingKey>,
        value: T,
    ) -> Result<T, Error> {
        let inconsistent = |source| Error::Inconsistent {
            table: "account_key",
            row: "an opened value".to_owned(),
            source,
        };
        let mut json = serde_json::to_value(&value).map_err(inconsistent)?;
        let wanted = Keyring::wanted_by(&json);
        if wanted.is_empty() {
            return Ok(value);
        }
        self.keyring(sealing, &wanted).await?.open(&mut json);
        serde_json::from_value(json).map_err(inconsistent)
    }

    /// Opens what is sealed in sessions.
    ///
    /// # Errors
    /// As [`Store::keyring`].
    pub async fn open_sessions(
        &self,
        sealing: Option<&SealingKey>,
        sessions: &mut [SessionView],
    ) -> Result<(), Error> {
        let texts = |view: &SessionView| {
            view.account
                .as_deref()
                .into_iter()
                .chain([view.name.as_str()])
                .filter_map(account_of)
                .collect::<Vec<_>>()
        };
        let wanted = sessions.iter().flat_map(texts).collect();
        let keyring = self.keyring(sealing, &wanted).await?;
        for view in sessions {
            let id = Some(view.id);
            view.name = keyring.text(&view.name, id);
            view.account = view.account.take().map(|account| keyring.text(&account, id));
            if let Some(detail) = &mut view.detail {
                detail.name = keyring.text(&detail.name, id);
            }
        }
        Ok(())
    }

    /// Opens the accounts of live streams.
    ///
    /// # Errors
    /// As [`Store::keyring`].
    pub async fn open_live_streams(
        &self,
        sealing: Option<&SealingKey>,
        live_streams: &mut [LiveStreamView],
    ) -> Result<(), Error> {
        let account = |view: &LiveStreamView| view.account.as_deref().and_then(account_of);
        let wanted = live_streams.iter().filter_map(account).collect();
        let keyring = self.keyring(sealing, &wanted).await?;
        for view in live_streams {
            view.account = view.account.take().map(|account| keyring.text(&account, None));
        }
        Ok(())
    }

    /// Opens what is sealed in the bodies of events.
    ///
    /// # Errors
    /// As [`Store::keyring`].
    pub async fn open_events(
        &self,
        sealing: Option<&SealingKey>,
        events: &mut [RecordedEvent],
    ) -> Result<(), Error> {
        let mut bodies = Vec::new();
        let mut wanted = BTreeSet::new();
        for (n, event) in events.iter().enumerate() {
            // Webhooks are the platform's: nothing of ours is sealed in them.
            if event.event_type == "WebhookReceived" {
                continue;
            }
            let Ok(body) = serde_json::from_slice::<Value>(&event.payload) else { continue };
            let of_body = Keyring::wanted_by(&body);
            if !of_body.is_empty() {
                wanted.extend(of_body);
                bodies.push((n, body));
            }
        }
        if wanted.is_empty() {
            return Ok(());
        }
        let keyring = self.keyring(sealing, &wanted).await?;
        for (n, mut body) in bodies {
            keyring.open(&mut body);
            events[n].payload = serde_json::to_vec(&body).unwrap_or_default();
        }
        Ok(())
    }
}

impl Keyring {
    /// The accounts whose keys a value needs.
    pub fn wanted_by(value: &Value) -> BTreeSet<Pseudonym> {
        fn walk(value: &Value, wanted: &mut BTreeSet<Pseudonym>) {
            match value {
                Value::String(text) => wanted.extend(account_of(text)),
                Value::Array(items) => items.iter().for_each(|item| walk(item, wanted)),
                Value::Object(fields) => {
                    let ours = fields.iter().filter(|(name, _)| *name != PRODUCTS);
                    ours.for_each(|(_, value)| walk(value, wanted));
                }
                Value::Null | Value::Bool(_) | Value::Number(_) => {}
            }
        }
        let mut wanted = BTreeSet::new();
        walk(value, &mut wanted);
        wanted
    }

    /// Whether the keys of all of `wanted` are there.
    pub fn has_all(&self, wanted: &BTreeSet<Pseudonym>) -> bool {
        wanted.iter().all(|pseudonym| self.keys.contains_key(pseudonym))
    }

    /// Opens what is sealed anywhere in a value.
    pub fn open(&self, value: &mut Value) {
        self.walk(value, None);
    }

    /// The text in the open: of a sealed value, an account's pseudonym, or as it is. `session` is
    /// whose text it is, where that is known.
    pub fn text(&self, text: &str, session: Option<Uuid>) -> String {
        if let Some(pseudonym) = Pseudonym::read(text) {
            let account = self.keys.get(&pseudonym).map(|(_, account)| account.clone());
            return account.unwrap_or_else(|| self.missing().to_owned());
        }
        let Some(sealed) = Sealed::read(text) else { return text.to_owned() };
        self.value(&sealed, session).unwrap_or_else(ToOwned::to_owned)
    }

    fn walk(&self, value: &mut Value, session: Option<Uuid>) {
        match value {
            Value::String(text) if account_of(text).is_some() => *text = self.text(text, session),
            Value::Array(items) => items.iter_mut().for_each(|item| self.walk(item, session)),
            Value::Object(fields) => {
                let own = fields.get("session").and_then(Value::as_str);
                let session = own.and_then(|id| Uuid::try_parse(id).ok()).or(session);
                self.put_client_values(fields, session);
                let ours = fields.iter_mut().filter(|(name, _)| *name != PRODUCTS);
                ours.for_each(|(_, value)| self.walk(value, session));
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    /// Puts what the product gave for itself back where it stood; as data the marker, where it
    /// cannot be opened.
    fn put_client_values(&self, fields: &mut Map<String, Value>, session: Option<Uuid>) {
        let sealed = fields.get("sealed").and_then(Value::as_str).and_then(Sealed::read);
        let Some(sealed) = sealed.filter(|sealed| sealed.field == SealedField::Client) else {
            return;
        };
        fields.remove("sealed");
        let client = self
            .value(&sealed, session)
            .and_then(|text| serde_json::from_str::<ClientValues>(&text).map_err(|_| UNREADABLE));
        let client = client.unwrap_or_else(|marker| ClientValues {
            client_user_id: None,
            data: Some(Value::String(marker.to_owned())),
        });
        fields.insert("client_user_id".to_owned(), client.client_user_id.into());
        fields.insert("data".to_owned(), client.data.unwrap_or_default());
    }

    /// A sealed value, or the marker that says why it is not to be had.
    fn value(&self, sealed: &Sealed, session: Option<Uuid>) -> Result<String, &'static str> {
        let Some((key, _)) = self.keys.get(&sealed.key) else { return Err(self.missing()) };
        if session.is_some_and(|session| session != sealed.session) {
            return Err(UNREADABLE);
        }
        let place = Sealed::place(sealed.key, sealed.session, sealed.field);
        let value = key.decrypt(place.as_bytes(), &sealed.bytes).ok_or(UNREADABLE)?;
        String::from_utf8(value).map_err(|_| UNREADABLE)
    }

    /// What is shown where a key is missing.
    fn missing(&self) -> &'static str {
        if self.is_locked { SEALED } else { ERASED }
    }
}

/// The account that a text belongs to, where it is a pseudonym or sealed.
fn account_of(text: &str) -> Option<Pseudonym> {
    Pseudonym::read(text).or_else(|| Sealed::read(text).map(|sealed| sealed.key))
}
