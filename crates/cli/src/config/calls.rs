//! Where jobs may call, with which secrets, and how fast: sections `http_call` and the rates of
//! sources, as they are written, and as the worker takes them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use platform::outbound::{Allow, Outbound};
use secrecy::SecretString;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::{Config, secret};

/// Calls to other services.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct HttpCall {
    /// Where they may go.
    pub(crate) allow: Vec<Allowed>,
    /// What their headers may name.
    pub(crate) secrets: Vec<NamedSecret>,
}

/// An entry of the allow-list: an address, or a table with more.
#[derive(Debug, Clone)]
pub(crate) struct Allowed(pub(crate) Entry);

/// An entry of the allow-list.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    /// Origin and beginning of the path.
    pub(crate) url: String,
    /// It may lie in a private network, and be plain http.
    #[serde(default)]
    pub(crate) private: bool,
    /// Names of the secrets that may be sent there.
    #[serde(default)]
    pub(crate) secrets: BTreeSet<String>,
    /// Calls in a second, of all processes together; none: no limit.
    pub(crate) rate_per_second: Option<f64>,
    /// Calls at once after a rest.
    pub(crate) burst: Option<f64>,
}

/// A secret that headers may name. One of `value`, `value_file`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NamedSecret {
    /// Its name.
    pub(crate) name: String,
    /// The secret itself.
    pub(crate) value: Option<SecretString>,
    /// A file that holds it.
    pub(crate) value_file: Option<PathBuf>,
}

impl<'de> Deserialize<'de> for Allowed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AllowedVisitor)
    }
}

struct AllowedVisitor;

impl<'de> Visitor<'de> for AllowedVisitor {
    type Value = Allowed;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an address, or a table with url, private, secrets, rate_per_second and burst")
    }

    fn visit_str<E: de::Error>(self, url: &str) -> Result<Allowed, E> {
        Ok(Allowed(Entry { url: url.to_owned(), ..Entry::default() }))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Allowed, A::Error> {
        Entry::deserialize(MapAccessDeserializer::new(map)).map(Allowed)
    }
}

impl Config {
    /// Where jobs may call; reads the secrets' files.
    ///
    /// # Errors
    /// For an entry or a secret that cannot be used.
    pub(crate) fn outbound(&self) -> Result<Outbound> {
        let mut secrets = BTreeMap::new();
        for NamedSecret { name, value, value_file } in &self.http_call.secrets {
            let Some(value) = secret(value.as_ref(), value_file.as_ref())? else {
                bail!("the secret \"{name}\" of http_call needs one of value, value_file")
            };
            if secrets.insert(name.clone(), value).is_some() {
                bail!("http_call has two secrets of the name \"{name}\"");
            }
        }
        let allow = |Allowed(entry): &Allowed| Allow {
            url: entry.url.clone(),
            private: entry.private,
            secrets: entry.secrets.clone(),
        };
        let allow: Vec<Allow> = self.http_call.allow.iter().map(allow).collect();
        Outbound::new(&allow, secrets).context("read http_call.allow")
    }

    /// How fast sources and places may be called.
    ///
    /// # Errors
    /// For a rate that cannot be kept.
    pub(crate) fn rates(&self) -> Result<worker::Rates> {
        let sources = self.sources.iter().map(|s| (&s.name, s.rate_per_second, s.burst));
        let places = self.http_call.allow.iter();
        let places = places.map(|Allowed(e)| (&e.url, e.rate_per_second, e.burst));
        Ok(worker::Rates { sources: rates(sources)?, places: rates(places)? })
    }
}

fn rates<'a>(
    of: impl Iterator<Item = (&'a String, Option<f64>, Option<f64>)>,
) -> Result<HashMap<String, worker::Rate>> {
    let mut rates = HashMap::new();
    for (name, per_second, burst) in of {
        match (per_second, burst) {
            (None, None) => {}
            (Some(per_second), burst) => {
                let rate = worker::Rate::new(per_second, burst).with_context(|| {
                    format!("the rate of {name} needs rate_per_second above 0 and burst from 1")
                })?;
                rates.insert(name.clone(), rate);
            }
            (None, Some(_)) => bail!("the burst of {name} needs a rate_per_second beside it"),
        }
    }
    Ok(rates)
}

#[cfg(test)]
mod tests {
    use figment::Figment;
    use figment::providers::{Format as _, Toml};

    use super::*;

    fn parse(toml: &str) -> Result<Config> {
        Figment::new().merge(Toml::string(toml)).extract().context("read")
    }

    #[test]
    fn an_entry_is_an_address_or_a_table() {
        let config = parse(
            r#"
            [http_call]
            allow = [
                "https://api.shop.example/hooks/",
                { url = "http://10.0.0.7:8080/", private = true, secrets = ["crm"], rate_per_second = 5 },
            ]
            secrets = [{ name = "crm", value = "hunter-2" }]
            "#,
        )
        .unwrap();
        assert!(!format!("{config:?}").contains("hunter-2"));
        config.outbound().unwrap();
        let rates = config.rates().unwrap();
        assert_eq!(rates.places["http://10.0.0.7:8080/"], worker::Rate::new(5.0, None).unwrap());
        assert_eq!(rates.places.len(), 1);
    }

    #[test]
    fn what_cannot_be_meant_is_told_by_name() {
        for (toml, why) in [
            ("allow = [7]", "an address, or a table"),
            ("allow = [{ url = \"https://a.example/\", rate = 5 }]", "rate"),
            ("allow = [\"http://a.example/\"]", "private = true"),
            ("allow = [\"a.example\"]", "not usable"),
            ("allow = [{ url = \"https://a.example/\", secrets = [\"b\"] }]", "does not have"),
            ("secrets = [{ name = \"b\" }]", "one of value, value_file"),
            ("allow = [{ url = \"https://a.example/\", rate_per_second = 0 }]", "above 0"),
            ("allow = [{ url = \"https://a.example/\", burst = 5 }]", "rate_per_second beside"),
        ] {
            let read = parse(&format!("[http_call]\n{toml}\n"));
            let error = read.and_then(|config| config.outbound().and(config.rates())).unwrap_err();
            let error = format!("{error:#}");
            assert!(error.contains(why), "{toml}: {error}");
        }
    }
}
