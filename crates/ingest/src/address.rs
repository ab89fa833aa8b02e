//! Networks, and the address of who really called.
//!
//! The *remote* is the right-most hop that is not a trusted proxy: everything to the left of it is
//! what a stranger claims. IPv4 addresses mapped into IPv6 count as IPv4.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use axum::http::HeaderMap;

use crate::Error;

/// A network in CIDR notation; a plain address is a network of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// Whether `address` lies in the network.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
                (ours.to_bits() ^ theirs.to_bits()) & mask == 0
            }
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0);
                (ours.to_bits() ^ theirs.to_bits()) & mask == 0
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl FromStr for Cidr {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || Error::Network { text: text.to_owned() };
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            // A sign is refused: `parse` would take `+8`.
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits.parse().ok().filter(|p| *p <= longest).ok_or_else(wrong)?
            }
            Some(_) => return Err(wrong()),
            None => longest,
        };
        Ok(Self { address, prefix })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// The address of the caller behind the trusted proxies; `peer` is the other end of the connection.
pub(crate) fn remote(peer: IpAddr, headers: &HeaderMap, trusted: &[Cidr]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut remote = peer.to_canonical();
    let lists = headers.get_all("x-forwarded-for");
    let lists: Vec<&str> = lists.iter().map(|list| list.to_str().unwrap_or_default()).collect();
    let hops = lists.iter().flat_map(|list| list.split(',')).map(hop);
    for hop in hops.collect::<Vec<_>>().into_iter().rev() {
        if !is_trusted(remote) {
            break;
        }
        // What a trusted proxy wrote and we cannot read: the proxy itself is the last known hop.
        let Some(hop) = hop else { break };
        remote = hop;
    }
    remote
}

/// One hop of `X-Forwarded-For`; some proxies add a port or brackets.
fn hop(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let plain = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    let address = plain.parse().ok().or_else(|| text.parse().ok().map(|a: SocketAddr| a.ip()));
    address.map(|a: IpAddr| a.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn networks_end_where_their_prefix_says() {
        let cases = [
            ("92.223.112.0/24", "92.223.112.255", true),
            ("92.223.112.0/24", "92.223.113.0", false),
            ("92.223.112.9/24", "92.223.112.1", true),
            ("92.223.112.0/24", "::ffff:92.223.112.1", true),
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.8", false),
            ("0.0.0.0/0", "255.255.255.255", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("2001:db8::/33", "2001:db8:7fff::1", true),
            ("2001:db8::/33", "2001:db8:8000::1", false),
            ("::/0", "2001:db8::1", true),
        ];
        for (network, address, inside) in cases {
            assert_eq!(cidr(network).contains(ip(address)), inside, "{address} in {network}");
        }
    }

    #[test]
    fn unreadable_networks_are_refused() {
        for bad in ["", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/+8", "10.0.0/8", "::/129", "host"] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_remote_is_the_right_most_hop_that_is_not_ours() {
        let trusted = [cidr("10.0.0.0/8"), cidr("::1")];
        let cases: [(&str, &[&str], &str); 10] = [
            // Not from a proxy: the header is a claim.
            ("198.51.100.1", &["203.0.113.9"], "198.51.100.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["203.0.113.9"], "203.0.113.9"),
            ("10.0.0.1", &["6.6.6.6, 203.0.113.9"], "203.0.113.9"),
            ("10.0.0.1", &["6.6.6.6, 203.0.113.9,10.0.0.2"], "203.0.113.9"),
            ("10.0.0.1", &["6.6.6.6", "203.0.113.9"], "203.0.113.9"),
            ("10.0.0.1", &["203.0.113.9:4711"], "203.0.113.9"),
            ("::1", &["[2001:db8::9]:4711"], "2001:db8::9"),
            ("10.0.0.1", &["203.0.113.9, unknown"], "10.0.0.1"),
            ("::ffff:10.0.0.1", &["::ffff:203.0.113.9"], "203.0.113.9"),
        ];
        for (peer, lists, expected) in cases {
            let mut headers = HeaderMap::new();
            for list in lists {
                headers.append("x-forwarded-for", list.parse().unwrap());
            }
            assert_eq!(remote(ip(peer), &headers, &trusted), ip(expected), "{peer} {lists:?}");
        }
    }
}
