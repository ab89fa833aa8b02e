//! Finds the source of a webhook by its secret path.
//!
//! Unknown source, wrong token and ended token cost the same work and give the same answer, so
//! that nobody learns which of them it was. Digests are compared in constant time.

use std::collections::HashMap;

use domain::ids::Timestamp;
use prometheus_client::metrics::counter::Counter;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use crate::config::TOKENS_PER_SOURCE;
use crate::{Cidr, Metrics, PathToken, SourceTokens};

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
    tokens: [Option<Known>; TOKENS_PER_SOURCE],
}

/// A token, and how often it was used.
#[derive(Debug)]
struct Known {
    token: PathToken,
    used: Counter,
}

/// A source that was admitted, by one of its tokens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Admitted<'a> {
    /// The source.
    pub(crate) source: &'a Source,
    /// How often this token was used: an operator sees when an old one is not any more.
    pub(crate) used: &'a Counter,
}

impl Sources {
    /// Prepares checked settings; what each token is used for is counted in `metrics`.
    pub(crate) fn new(sources: &[SourceTokens], metrics: &Metrics) -> Self {
        let of = |source: &SourceTokens| (source.source.clone(), Source::new(source, metrics));
        let nobody = Source::new(&SourceTokens::default(), metrics);
        Self { by_name: sources.iter().map(of).collect(), nobody }
    }

    /// The source named `name`, if `token` is one of its tokens at `now`.
    pub(crate) fn admit(&self, name: &str, token: &str, now: Timestamp) -> Option<Admitted<'_>> {
        let source = self.by_name.get(name).unwrap_or(&self.nobody);
        let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        // Every token is compared, whichever of them it is.
        let (mut admitted, mut which) = (Choice::from(0), 0_u8);
        for (at, known) in (0_u8..).zip(&source.tokens) {
            let is_it = matches(known.as_ref().map(|known| &known.token), &digest, now);
            which.conditional_assign(&at, is_it);
            admitted |= is_it;
        }
        if !bool::from(admitted) {
            return None;
        }
        let known = source.tokens.get(usize::from(which))?.as_ref()?;
        Some(Admitted { source, used: &known.used })
    }
}

impl Source {
    /// Fills up to the same number of tokens.
    fn new(source: &SourceTokens, metrics: &Metrics) -> Self {
        let known = |token: &PathToken| Known {
            token: token.clone(),
            used: metrics.secret(&source.source, &token.name),
        };
        let mut tokens = source.tokens.iter().map(known);
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
        let old = PathToken::of(OLD).unwrap().named("old").until(noon());
        let tokens = vec![old, PathToken::of(NEW).unwrap().named("new")];
        let main = SourceTokens { source: "main".to_owned(), tokens, networks: Vec::new() };
        let other = SourceTokens {
            source: "other".to_owned(),
            tokens: vec![PathToken::of("other-0123456789abcdef").unwrap()],
            networks: Vec::new(),
        };
        Sources::new(&[main, other], &Metrics::new())
    }

    #[test]
    fn both_tokens_are_taken_until_the_old_one_ends() {
        let sources = sources();
        for token in [OLD, NEW] {
            assert_eq!(sources.admit("main", token, noon()).unwrap().source.name, "main");
        }
        let later = noon() + Duration::from_millis(1);
        assert!(sources.admit("main", OLD, later).is_none());
        assert!(sources.admit("main", NEW, later).is_some());
    }

    #[test]
    fn each_use_is_counted_for_the_token_that_was_used() {
        let sources = sources();
        let used = |token| sources.admit("main", token, noon()).unwrap().used.inc();
        assert_eq!([used(OLD), used(NEW), used(NEW)], [0, 0, 1]);
        assert!(sources.admit("main", "neither-0123456789ab", noon()).is_none());
        assert_eq!([used(OLD), used(NEW)], [1, 2]);
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
