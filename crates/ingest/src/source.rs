//! Finds the source of a webhook by its secret path.
//!
//! Unknown source, wrong token and ended token cost the same work and give the same answer, so
//! that nobody learns which of them it was. Digests are compared in constant time.

use std::collections::HashMap;

use domain::ids::Timestamp;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use crate::config::TOKENS_PER_SOURCE;
use crate::{Cidr, PathToken, SourceTokens};

/// Who may send.
#[derive(Debug)]
pub(crate) struct Sources {
    by_name: HashMap<String, Source>,
    /// Compared with where there is no such source; admits nobody.
    nobody: Source,
}

/// One source with as many tokens as any other, unused ones included.
#[derive(Debug)]
pub(crate) struct Source {
    /// Its name.
    pub(crate) name: String,
    /// Networks it may send from; empty: any.
    pub(crate) networks: Vec<Cidr>,
    tokens: [Option<PathToken>; TOKENS_PER_SOURCE],
}

impl Sources {
    /// Prepares checked settings.
    pub(crate) fn new(sources: &[SourceTokens]) -> Self {
        let by_name = sources.iter().map(|s| (s.source.clone(), Source::new(s))).collect();
        Self { by_name, nobody: Source::new(&SourceTokens::default()) }
    }

    /// The source named `name`, if `token` is one of its tokens at `now`.
    pub(crate) fn admit(&self, name: &str, token: &str, now: Timestamp) -> Option<&Source> {
        let source = self.by_name.get(name).unwrap_or(&self.nobody);
        let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let admitted = source.tokens.iter().map(|t| matches(t.as_ref(), &digest, now));
        let admitted = admitted.fold(Choice::from(0), |any, one| any | one);
        bool::from(admitted).then_some(source)
    }
}

impl Source {
    /// Fills up to the same number of tokens.
    fn new(source: &SourceTokens) -> Self {
        let mut tokens = source.tokens.iter().cloned();
        Self {
            name: source.source.clone(),
            networks: source.networks.clone(),
            tokens: std::array::from_fn(|_| tokens.next()),
        }
    }
}

/// Whether `digest` is that of `token`, and the token has not ended. An absent token is compared
/// all the same and never matches.
fn matches(token: Option<&PathToken>, digest: &[u8; 32], now: Timestamp) -> Choice {
    let valid = token.is_some_and(|t| t.not_after.is_none_or(|end| now <= end));
    let sha256 = token.map_or([0; 32], |t| t.sha256);
    sha256.ct_eq(digest) & Choice::from(u8::from(valid))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const OLD: &str = "old-0123456789abcdef";
    const NEW: &str = "new-0123456789abcdef";

    fn noon() -> Timestamp {
        "2026-01-01T12:00:00Z".parse().unwrap()
    }

    fn sources() -> Sources {
        let tokens = vec![PathToken::of(OLD).unwrap().until(noon()), PathToken::of(NEW).unwrap()];
        let main = SourceTokens { source: "main".to_owned(), tokens, networks: Vec::new() };
        let other = SourceTokens {
            source: "other".to_owned(),
            tokens: vec![PathToken::of("other-0123456789abcdef").unwrap()],
            networks: Vec::new(),
        };
        Sources::new(&[main, other])
    }

    #[test]
    fn both_tokens_are_taken_until_the_old_one_ends() {
        let sources = sources();
        for token in [OLD, NEW] {
            assert_eq!(sources.admit("main", token, noon()).unwrap().name, "main");
        }
        let later = noon() + Duration::from_millis(1);
        assert!(sources.admit("main", OLD, later).is_none());
        assert!(sources.admit("main", NEW, later).is_some());
    }

    #[test]
    fn a_token_opens_its_own_source_only() {
        let sources = sources();
        for (name, token) in
            [("other", NEW), ("nobody", NEW), ("", ""), ("main", ""), ("main", "x")]
        {
            assert!(sources.admit(name, token, noon()).is_none(), "{name} {token}");
        }
    }
}
