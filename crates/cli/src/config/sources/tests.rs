//! What is said of entries of `sources` that cannot be used.

use figment::Figment;
use figment::providers::{Format as _, Toml};

use super::*;

fn parse(toml: &str) -> Result<Config> {
    let config: Config = Figment::new().merge(Toml::string(toml)).extract().context("read")?;
    config.check_sources()?;
    Ok(config)
}

/// What is said of a source with these lines.
fn fault(lines: &str) -> String {
    let error = parse(&format!("[[sources]]\nname = \"a\"\n{lines}\n")).unwrap_err();
    format!("{error:#}")
}

#[test]
fn an_entry_with_everything_is_read() {
    let config = parse(
        r#"
        [[sources]]
        name = "gcore-main"
        token_file = "/run/secrets/token"
        rate_per_second = 4
        [[sources.webhook_tokens]]
        name = "spring"
        sha256 = "aa"
        not_after = "2026-12-01T00:00:00Z"
        [[sources.webhook_tokens]]
        name = "autumn"
        sha256 = "bb"
        [sources.cleanup]
        inactive_after = "60 days"
        keep_recordings = "365 days"
        cap = 5
        [sources.cleanup.keep_recordings_of]
        acme = "forever"
        beta = "30 days"
        [sources.regions]
        default = "ed1"
        countries = { us = "ny1" }
        [[sources]]
        name = "gcore-trial"
        username = "u"
        password = "p"
        "#,
    )
    .unwrap();
    let day = Duration::from_hours(24);
    let rules = &config.cleanup_rules()["gcore-main"];
    assert_eq!((rules.inactive_after, rules.orphans_after, rules.cap), (60 * day, 7 * day, 5));
    assert_eq!(rules.keeps(None), Keep::For(365 * day));
    assert_eq!(rules.keeps(Some("acme")), Keep::Forever);
    assert_eq!(rules.keeps(Some("beta")), Keep::For(30 * day));
    assert_eq!(config.cleanup_rules()["gcore-trial"], Rules::default());
    let regions = &config.region_rules()["gcore-main"];
    assert_eq!((regions.region(Some("US")), regions.region(None)), (Some("ny1"), Some("ed1")));
}

#[test]
fn every_wrong_entry_is_told_with_what_to_write() {
    for (lines, told) in [
        ("colour = \"red\"", "colour"),
        ("base_url = \"api.gcore.com\"", "must begin with https://"),
        ("token = \"t\"\ntoken_file = \"/t\"", "keep one"),
        ("token = \"t\"\nusername = \"u\"\npassword = \"p\"", "keep one way"),
        ("username = \"u\"", "go together: give both"),
        ("password = \"p\"", "go together: give both"),
        ("[sources.cleanup]\ncap = 0", "cleanup.cap must be 1 or more"),
        ("[sources.cleanup]\norphans_after = \"5m\"", "must be 1h or more"),
        ("[sources.cleanup]\nkeep_recordings = \"long\"", "neither \"forever\" nor a time"),
        ("[sources.cleanup.keep_recordings_of]\n\"a b\" = \"1h\"", "no account's id"),
        ("[sources.regions.countries]\nGermany = \"ed1\"", "two letters by ISO 3166-1"),
        ("[sources.regions]\ndefault = \"\"", "a region is a word"),
        ("[[sources.webhook_tokens]]\nname = \"A B\"\ntoken = \"t\"", "must be 1 to 63"),
        (
            "[[sources.webhook_tokens]]\nname = \"x\"\n[[sources.webhook_tokens]]\nname = \"x\"",
            "two webhook tokens named \"x\"",
        ),
        ("[[sources]]\nname = \"a\"", "two sources have the name \"a\""),
        ("[[sources]]\nname = \"B\"", "must be 1 to 63 of a-z"),
    ] {
        let error = fault(lines);
        assert!(error.contains(told), "{lines}: {error}");
        assert!(!error.contains("panicked"), "{error}");
    }
}

#[test]
fn two_sources_share_no_secret() {
    let secret = "0123456789abcdef-x";
    let token = format!("[[sources.webhook_tokens]]\ntoken = \"{secret}\"\n");
    let error = fault(&format!("{token}[[sources]]\nname = \"b\"\n{token}"));
    assert!(error.contains("is a secret of source \"a\" already"), "{error}");
    assert!(!error.contains(secret), "{error}");
}
