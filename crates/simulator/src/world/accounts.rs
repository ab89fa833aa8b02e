//! Who may call: permanent tokens, JWT pairs, the account's own page.
//!
//! An access token opens `/streaming` and `/iam/clients/me` until it expires. A refresh token is good
//! for one use and is *blacklisted* by it: two refreshes with one token cannot both succeed.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use super::{CLIENT_ID, ErrorShape, Reply, ReplyBody, Request, World, error_body};
use crate::Config;

/// Credentials that are accepted and tokens that were issued.
pub(super) struct Account {
    token: Option<String>,
    username: String,
    password: String,
    access_life: TimeDelta,
    refresh_life: TimeDelta,
    /// Issued access tokens and when each expires.
    access: BTreeMap<String, DateTime<Utc>>,
    /// Issued refresh tokens that were not used yet, and when each expires.
    refresh: BTreeMap<String, DateTime<Utc>>,
}

impl Account {
    /// Takes the credentials from the configuration.
    pub(super) fn new(config: &Config) -> Self {
        let life = |life| TimeDelta::from_std(life).unwrap_or(TimeDelta::days(36_525));
        Self {
            token: config.token.clone(),
            username: config.username.clone(),
            password: config.password.clone(),
            access_life: life(config.access_token_life),
            refresh_life: life(config.refresh_token_life),
            access: BTreeMap::new(),
            refresh: BTreeMap::new(),
        }
    }

    /// Lets every access token expire.
    pub(super) fn expire_all(&mut self) {
        self.access.clear();
    }

    /// True if the permanent token is the configured one, or well-formed where none is configured.
    fn accepts_key(&self, key: &str) -> bool {
        match &self.token {
            Some(token) => token == key,
            None => is_permanent_token(key),
        }
    }
}

/// True for `<id>_<secret>` and its older form `<id>$<secret>`.
fn is_permanent_token(key: &str) -> bool {
    key.split_once(['_', '$']).is_some_and(|(id, secret)| {
        !id.is_empty()
            && id.chars().all(|letter| letter.is_ascii_alphanumeric())
            && !secret.is_empty()
            && secret.chars().all(|letter| letter.is_ascii_graphic())
    })
}

/// 401 in shape E with one of the documented messages.
fn unauthorized(message: &str) -> Reply {
    Reply { status: 401, body: error_body(ErrorShape::E, 401, message) }
}

/// 401 for a token that is wrong as a token, which has a class of its own.
fn bad_token(message: &str) -> Reply {
    let mut reply = unauthorized(message);
    if let ReplyBody::Json(Value::Object(fields)) = &mut reply.body {
        fields.insert("exception_class".to_owned(), "token_not_valid".into());
    }
    reply
}

impl World {
    /// Lets a caller pass, or says what is wrong with the credentials.
    pub(super) fn authenticate(&self, request: &Request) -> Result<(), Reply> {
        let missing = || unauthorized("Authentication credentials were not provided.");
        let header = request.authorization.as_deref().ok_or_else(missing)?;
        let (scheme, credentials) = header.trim().split_once(' ').ok_or_else(missing)?;
        let credentials = credentials.trim();
        if scheme.eq_ignore_ascii_case("apikey") {
            if self.account.accepts_key(credentials) {
                return Ok(());
            }
            let partial = credentials.split(['_', '$']).next().unwrap_or_default();
            return Err(unauthorized(&format!("Bad permanent token: {partial}")));
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(missing());
        }
        match self.account.access.get(credentials) {
            Some(expires) if *expires > self.now => Ok(()),
            None if is_permanent_token(credentials) => {
                Err(bad_token("Given token not valid for any token type"))
            }
            Some(_) | None => Err(bad_token("Token is invalid or expired")),
        }
    }

    /// Issues a pair for the right name and password.
    pub(super) fn login(&mut self, request: &Request) -> Reply {
        let Some(body) = request.object() else { return json_parse_error() };
        let mut given = [""; 2];
        for (field, value) in ["username", "password"].into_iter().zip(&mut given) {
            match body.get(field).and_then(Value::as_str) {
                Some(text) if !text.is_empty() => *value = text,
                _ => {
                    let problem = json!({"errors": {field: ["This field is required"]}});
                    return Reply::json(400, problem);
                }
            }
        }
        if given == [self.account.username.as_str(), self.account.password.as_str()] {
            return self.issue_pair();
        }
        let text = "No active account found with the given credentials.";
        Reply::json(400, json!({"errors": {"errors": [text]}}))
    }

    /// Exchanges an unused refresh token for a new pair.
    pub(super) fn refresh(&mut self, request: &Request) -> Reply {
        let Some(body) = request.object() else { return json_parse_error() };
        let Some(token) = body.get("refresh").and_then(Value::as_str) else {
            let problem = json!({"errors": {"refresh": ["This field is required."]}});
            return Reply::json(400, problem);
        };
        match self.account.refresh.remove(token) {
            Some(expires) if expires > self.now => self.issue_pair(),
            Some(_) | None => bad_token("Token is invalid or expired"),
        }
    }

    /// Makes a new pair of tokens.
    fn issue_pair(&mut self) -> Reply {
        let (access, refresh) = (self.dice.token(), self.dice.token());
        self.account.access.insert(access.clone(), self.now + self.account.access_life);
        self.account.refresh.insert(refresh.clone(), self.now + self.account.refresh_life);
        Reply::ok(json!({"refresh": refresh, "access": access}))
    }

    /// The caller's account and the state of its streaming service.
    pub(super) fn account_details(&self) -> Reply {
        let status = self.behaviour.service_status.as_str();
        let enabled = !matches!(status, "paused" | "deleted");
        Reply::ok(json!({
            "id": CLIENT_ID,
            "users": [],
            "email": self.account.username,
            "phone": null,
            "name": null,
            "status": status,
            "companyName": "Example",
            "website": "",
            "currentUser": 1,
            "capabilities": ["STREAMING"],
            "serviceStatuses": {"STREAMING": {"status": status, "enabled": enabled}},
            "paidFeatures": {},
            "freeFeatures": {},
            "entryBaseDomain": null,
            "signup_process": null,
            "deleted": false,
            "bill_type": "",
            "custom_id": null,
            "country_code": "LU",
            "is_test": true,
            "has_active_admin": true,
        }))
    }
}

/// 400 of the account service for a body that is no JSON object.
fn json_parse_error() -> Reply {
    let message = "JSON parse error - Expecting value: line 1 column 1 (char 0)";
    Reply::json(400, json!({"message": message}))
}
