//! Settings of the API, and what makes them unusable. Reads no environment: the caller fills it in.

use std::collections::{BTreeSet, HashMap};

use domain::effect::{FORWARD, RELAY, TIMER};
use domain::endpoint::DELIVER;
use domain::ids::is_source_name;
use domain::region::RegionRules;
use store::SealingKey;

use crate::error::ConfigError;
use crate::token::Token;

/// Settings of the API.
#[derive(Debug, Clone)]
pub struct Config {
    /// Who may call. Without any, nobody could: an error.
    pub tokens: Vec<Token>,
    /// The platform accounts, by name. The only one is the default of every request.
    pub sources: Vec<String>,
    /// Which transcoding region a user's country has, by source.
    pub regions: HashMap<String, RegionRules>,
    /// The kinds of plain jobs that the workers of this installation run.
    pub known_kinds: Vec<String>,
    /// Opens the sealed push addresses; none: they are not handed out.
    pub sealing_key: Option<SealingKey>,
    /// Longest body, bytes. 256 KiB: job arguments name things, they do not carry them.
    pub body_limit: usize,
    /// Callers that listen to the feed at once; others are told to come again.
    pub listeners: usize,
    /// Endpoints may have plain http addresses.
    pub plain_endpoints: bool,
}

impl Default for Config {
    /// Without tokens and sources, which have no default.
    fn default() -> Self {
        Self {
            tokens: Vec::new(),
            sources: Vec::new(),
            regions: HashMap::new(),
            known_kinds: Vec::new(),
            sealing_key: None,
            body_limit: 256 * 1024,
            listeners: 1_000,
            plain_endpoints: false,
        }
    }
}

impl Config {
    /// Finds the first setting that cannot be used.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if self.tokens.is_empty() {
            return Err(ConfigError::NoTokens);
        }
        if self.sources.is_empty() {
            return Err(ConfigError::NoSources);
        }
        if self.body_limit == 0 {
            return Err(ConfigError::NoBody);
        }
        self.check_names()
    }

    fn check_names(&self) -> Result<(), ConfigError> {
        let mut tokens = BTreeSet::new();
        for token in &self.tokens {
            if token.name.is_empty() || !tokens.insert(&token.name) {
                return Err(ConfigError::TokenName { name: token.name.clone() });
            }
        }
        let mut sources = BTreeSet::new();
        for source in &self.sources {
            if !is_source_name(source) || !sources.insert(source) {
                return Err(ConfigError::Source { name: source.clone() });
            }
        }
        match self.known_kinds.iter().find(|kind| !is_plain_kind(kind)) {
            Some(kind) => Err(ConfigError::Kind { kind: kind.clone() }),
            None => Ok(()),
        }
    }
}

/// Whether `kind` may be the kind of a plain job: 1 to 63 of `a-z`, `0-9`, `_`, the first a
/// letter, and none that Tallylight keeps for itself.
fn is_plain_kind(kind: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    (1..=63).contains(&kind.len())
        && kind.starts_with(|c: char| c.is_ascii_lowercase())
        && kind.bytes().all(plain)
        && ![TIMER, FORWARD, RELAY, DELIVER].contains(&kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::Scope;

    fn usable() -> Config {
        Config {
            tokens: vec![Token::of("backend", "secret", [Scope::Admin])],
            sources: vec!["gcore-main".to_owned()],
            known_kinds: vec!["http_call".to_owned()],
            ..Config::default()
        }
    }

    fn fault(change: impl FnOnce(&mut Config)) -> String {
        let mut config = usable();
        change(&mut config);
        config.check().unwrap_err().to_string()
    }

    #[test]
    fn usable_settings_are_accepted() {
        assert!(usable().check().is_ok());
    }

    #[test]
    fn an_api_that_nobody_may_call_is_refused() {
        assert!(matches!(
            Config { tokens: Vec::new(), ..usable() }.check(),
            Err(ConfigError::NoTokens)
        ));
    }

    #[test]
    fn every_unusable_setting_is_named() {
        assert!(fault(|c| c.sources.clear()).contains("source"));
        assert!(fault(|c| c.sources.push("gcore-main".to_owned())).contains("gcore-main"));
        assert!(fault(|c| c.sources.push("A/B".to_owned())).contains("A/B"));
        assert!(fault(|c| c.known_kinds.push("timer".to_owned())).contains("timer"));
        assert!(fault(|c| c.known_kinds.push("9".to_owned())).contains('9'));
        assert!(fault(|c| c.tokens.push(c.tokens[0].clone())).contains("backend"));
        assert!(fault(|c| c.body_limit = 0).contains("body"));
    }
}
