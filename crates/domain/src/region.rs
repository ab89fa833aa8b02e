//! Which transcoding region a session gets by the country of its user: a rule of each source.
//!
//! A rule is used once, where a session is asked for, and what it says is stored with the request: a
//! rule that changes later changes no session. The country itself is not stored.

use std::collections::BTreeMap;

/// Regions by country.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RegionRules {
    /// For every country that has none, and where no country is told; `None`: the platform chooses.
    pub default: Option<String>,
    /// By ISO 3166-1 alpha-2 code, in capitals.
    pub countries: BTreeMap<String, String>,
}

impl RegionRules {
    /// The region for a user in `country`; `None`: the platform chooses.
    pub fn region(&self, country: Option<&str>) -> Option<&str> {
        let own = country.and_then(|code| self.countries.get(&code.to_ascii_uppercase()));
        own.or(self.default.as_ref()).map(String::as_str)
    }
}

/// Whether `code` has the form of a country's code: two letters.
pub fn is_country(code: &str) -> bool {
    code.len() == 2 && code.bytes().all(|b| b.is_ascii_alphabetic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_country_has_its_region_and_every_other_the_default() {
        let rules = RegionRules {
            default: Some("ed1".to_owned()),
            countries: [("US".to_owned(), "ny1".to_owned())].into(),
        };
        assert_eq!(rules.region(Some("US")), Some("ny1"));
        assert_eq!(rules.region(Some("us")), Some("ny1"));
        assert_eq!(rules.region(Some("LU")), Some("ed1"));
        assert_eq!(rules.region(None), Some("ed1"));
        assert_eq!(RegionRules::default().region(Some("US")), None, "the platform chooses");
    }

    #[test]
    fn a_country_is_two_letters() {
        assert!(is_country("de") && is_country("DE"));
        assert!(!is_country("DEU") && !is_country("D1") && !is_country(""));
    }
}
