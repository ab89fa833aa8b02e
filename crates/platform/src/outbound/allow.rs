//! The allow-list: which addresses outbound calls may have. An *entry* is an origin and the first
//! segments of a path; what it covers is decided on the parsed address, never on its text.

use std::{collections::BTreeSet, net::IpAddr};

use reqwest::Url;
use thiserror::Error as ThisError;

use super::guard::{ForbiddenAddress, Reach};

/// An entry of the allow-list, as the configuration has it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Allow {
    /// Origin and beginning of the path, such as `https://api.shop.example/hooks/`.
    pub url: String,
    /// It may lie in a private network or on this machine, and may be plain http.
    pub private: bool,
    /// Names of the secrets that may be sent there.
    pub secrets: BTreeSet<String>,
}

/// An allow-list that cannot be used.
#[derive(Debug, ThisError)]
#[non_exhaustive]
pub enum AllowError {
    /// Not an address, or one with parts that an entry may not have.
    #[error("{url:?} is not usable: write it like https://api.shop.example/hooks/")]
    Url {
        /// As given, without user name and query.
        url: String,
    },
    /// What is sent would cross the network in the clear.
    #[error("{url} must begin with https://, since http is for entries with `private = true` only")]
    Insecure {
        /// As given.
        url: String,
    },
    /// An entry names a secret that is not configured.
    #[error("{url} may be sent the secret \"{secret}\", which http_call.secrets does not have")]
    Secret {
        /// The entry.
        url: String,
        /// The name.
        secret: String,
    },
    /// The HTTP client cannot be made, e.g. without root certificates on the machine.
    #[error("the http client cannot be set up: are root certificates (ca-certificates) installed?")]
    Http(#[source] reqwest::Error),
}

/// Why an address may not be called.
#[derive(Debug, ThisError)]
pub(super) enum Unlisted {
    /// It is no address.
    #[error("the url is not an absolute http or https address")]
    NoUrl,
    /// It carries credentials or a fragment.
    #[error("the url has a user name, a password or a fragment: leave them out")]
    Extra,
    /// A server might read the path as another one.
    #[error("the path of the url has an encoded slash or backslash")]
    Disguised,
    /// Plain http, where only https may be used.
    #[error("the url must begin with https://: http needs `webhooks.private = true`")]
    Insecure,
    /// No entry covers it.
    #[error(
        "{host} with this path is not on the list http_call.allow of the worker's configuration"
    )]
    Unknown { host: String },
    /// The host is a forbidden address.
    #[error(transparent)]
    Forbidden(#[from] ForbiddenAddress),
}

/// A parsed entry.
#[derive(Debug)]
pub(super) struct Entry {
    /// As the configuration has it.
    pub(super) name: String,
    pub(super) url: Url,
    pub(super) reach: Reach,
    pub(super) secrets: BTreeSet<String>,
    segments: Vec<String>,
    /// It covers every address.
    pub(super) is_open: bool,
}

impl Entry {
    /// The entry of every address: of https ones in public, or of all within reach.
    pub(super) fn open(reach: Reach) -> Option<Self> {
        let url = Url::parse("https://anywhere.invalid").ok()?;
        let (name, secrets) = (String::new(), BTreeSet::new());
        Some(Self { name, url, reach, secrets, segments: Vec::new(), is_open: true })
    }

    pub(super) fn parse(allow: &Allow) -> Result<Self, AllowError> {
        let unusable = |shown: &str| AllowError::Url { url: shown.to_owned() };
        let url = Url::parse(allow.url.trim()).map_err(|_| unusable("(not an address)"))?;
        let host = url.host_str().unwrap_or_default();
        let shown = format!("{}://{host}{}", url.scheme(), url.path());
        let is_plain = !has_extras(&url) && url.query().is_none() && !host.is_empty();
        if !is_plain || !matches!(url.scheme(), "http" | "https") || is_disguised(&url) {
            return Err(unusable(&shown));
        }
        if url.scheme() == "http" && !allow.private {
            return Err(AllowError::Insecure { url: shown });
        }
        let mut segments = segments(&url);
        // `/hooks/` and `/hooks` cover the same.
        segments.pop_if(|last| last.is_empty());
        let reach = if allow.private { Reach::Private } else { Reach::Public };
        let (name, secrets) = (allow.url.clone(), allow.secrets.clone());
        Ok(Self { name, url, reach, secrets, segments, is_open: false })
    }

    fn covers(&self, url: &Url) -> bool {
        if self.is_open {
            return true;
        }
        self.url.scheme() == url.scheme()
            && self.url.host() == url.host()
            && self.url.port_or_known_default() == url.port_or_known_default()
            && segments(url).starts_with(&self.segments)
    }
}

/// Parses an address, and finds the entry that covers it most closely.
pub(super) fn find<'a>(
    entries: impl Iterator<Item = &'a Entry>,
    text: &str,
) -> Result<(Url, usize), Unlisted> {
    let url = Url::parse(text).map_err(|_| Unlisted::NoUrl)?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(Unlisted::NoUrl);
    }
    if has_extras(&url) {
        return Err(Unlisted::Extra);
    }
    if is_disguised(&url) {
        return Err(Unlisted::Disguised);
    }
    let host = url.host_str().unwrap_or_default().to_owned();
    let covering = entries.enumerate().filter(|(_, entry)| entry.covers(&url));
    let Some((number, entry)) = covering.max_by_key(|(_, entry)| entry.segments.len()) else {
        return Err(Unlisted::Unknown { host });
    };
    if entry.is_open && entry.reach == Reach::Public && url.scheme() != "https" {
        return Err(Unlisted::Insecure);
    }
    // No name is looked up for an address, so the guard would not see it.
    let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    if literal.is_ok_and(|address| !entry.reach.allows(address)) {
        return Err(ForbiddenAddress { host }.into());
    }
    Ok((url, number))
}

fn has_extras(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some() || url.fragment().is_some()
}

/// Whether a server that decodes before it splits would see other segments than we do.
fn is_disguised(url: &Url) -> bool {
    let path = url.path().to_ascii_lowercase();
    path.contains("%2f") || path.contains("%5c")
}

fn segments(url: &Url) -> Vec<String> {
    url.path_segments().map(|all| all.map(str::to_owned).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(url: &str, private: bool) -> Entry {
        Entry::parse(&Allow { url: url.to_owned(), private, ..Allow::default() }).unwrap()
    }

    #[test]
    fn an_entry_covers_its_origin_and_whole_segments() {
        let entries = [entry("https://api.shop.example/hooks/", false)];
        for url in [
            "https://api.shop.example/hooks",
            "https://api.shop.example/hooks/paid?id=1",
            "https://API.shop.example:443/hooks/a/b",
            "https://api.shop.example/x/../hooks/a",
        ] {
            assert!(find(entries.iter(), url).is_ok(), "{url}");
        }
        for url in [
            "http://api.shop.example/hooks/",
            "https://api.shop.example:8443/hooks/",
            "https://api.shop.example.evil.example/hooks/",
            "https://evil.example/hooks/",
            "https://api.shop.example/hooksy",
            "https://api.shop.example/",
            "https://api.shop.example/hooks/../admin",
            "https://api.shop.example/hooks/%2e%2e/admin",
            "https://api.shop.example/hooks\\..\\admin",
            "https://api.shop.example/hooks/..%2Fadmin",
            "https://api.shop.example/hooks/..%5cadmin",
            "https://user@api.shop.example/hooks/",
            "https://api.shop.example@evil.example/hooks/",
            "https://:secret@api.shop.example/hooks/",
            "https://api.shop.example/hooks/#a",
            "https://api.shop.example./hooks/",
            "file:///etc/passwd",
            "/hooks/",
            "",
        ] {
            assert!(find(entries.iter(), url).is_err(), "{url}");
        }
    }

    #[test]
    fn the_closest_entry_counts() {
        let entries = [entry("https://a.example/", false), entry("https://a.example/hooks", true)];
        assert_eq!(find(entries.iter(), "https://a.example/hooks/1").unwrap().1, 1);
        assert_eq!(find(entries.iter(), "https://a.example/other").unwrap().1, 0);
    }

    #[test]
    fn a_forbidden_address_is_refused_in_every_spelling() {
        let public = [entry("https://127.0.0.1/", false), entry("https://[::1]/", false)];
        for url in
            ["https://127.0.0.1/", "https://2130706433/", "https://0x7f.1/", "https://[::1]/"]
        {
            let error = find(public.iter(), url).unwrap_err();
            assert!(matches!(error, Unlisted::Forbidden(_)), "{url}: {error}");
        }
        let private = [entry("http://127.0.0.1:81/", true)];
        assert!(find(private.iter(), "http://127.1:81/a").is_ok());
        let metadata = [entry("http://169.254.169.254/", true)];
        assert!(find(metadata.iter(), "http://169.254.169.254/latest").is_err());
    }

    #[test]
    fn an_entry_that_cannot_be_meant_is_refused() {
        for url in [
            "",
            "api.shop.example",
            "ftp://a.example/",
            "https://u:p@a.example/",
            "https://a.example/?q=1",
            "https://a.example/#f",
            "http://a.example/",
        ] {
            let error =
                Entry::parse(&Allow { url: url.to_owned(), ..Allow::default() }).unwrap_err();
            assert!(!error.to_string().contains("u:p"), "{error}");
        }
    }
}
