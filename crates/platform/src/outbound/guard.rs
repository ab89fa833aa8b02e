//! The guard of the network inside: which addresses an outbound call may connect to.
//!
//! It looks at the addresses that a name was resolved to, where the connection is made, and hands
//! on only those it allows: a name that points elsewhere the second time it is asked gains nothing.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Which addresses may be connected to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Reach {
    /// Those of the public internet.
    Public,
    /// Those and private networks and this machine, but never link-local ones, where clouds keep
    /// their credentials.
    Private,
}

impl Reach {
    /// Whether an address may be connected to.
    pub(super) fn allows(self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        is_public(address) || (self == Self::Private && is_private(address))
    }
}

/// Whether the address is one of the public internet.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

/// The special ranges of IANA's registry are refused, and what is reserved.
fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_special = a == 0
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (b == 18 || b == 19))
        || a >= 224;
    !is_special
}

/// Only what is given out to networks, without those parts that stand for other addresses: Teredo
/// and its neighbours, 6to4, documentation.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let [first, second, ..] = address.segments();
    let is_special = (first == 0x2001 && (second < 0x200 || second == 0xdb8))
        || first == 0x2002
        || (first == 0x3fff && second < 0x1000);
    (0x2000..0x4000).contains(&first) && !is_special
}

/// Where clouds answer with credentials, inside a private range.
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

/// Whether the address is this machine or in a network of one's own.
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            v4.is_private() || v4.is_loopback() || (a == 100 && (64..128).contains(&b))
        }
        IpAddr::V6(v6) => v6.is_loopback() || (v6.is_unique_local() && v6 != METADATA_V6),
    }
}

/// A name leads to addresses of which none may be connected to.
#[derive(Debug, thiserror::Error)]
#[error(
    "{host} leads to no address that may be called: private ones need `private = true` at the \
     entry of http_call.allow, or `webhooks.private = true` for endpoints"
)]
pub(super) struct ForbiddenAddress {
    pub(super) host: String,
}

/// Where names are looked up.
#[derive(Clone)]
pub(super) enum Names {
    /// By the machine.
    System,
    /// In a list, whatever the name.
    #[cfg(test)]
    Fixed(Vec<IpAddr>),
}

/// Resolves names to addresses within reach.
#[derive(Clone)]
pub(super) struct Guard {
    pub(super) reach: Reach,
    pub(super) names: Names,
}

impl fmt::Debug for Guard {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Guard").field("reach", &self.reach).finish_non_exhaustive()
    }
}

impl Guard {
    async fn look_up(&self, host: &str) -> std::io::Result<Vec<SocketAddr>> {
        match &self.names {
            Names::System => Ok(tokio::net::lookup_host((host, 0)).await?.collect()),
            #[cfg(test)]
            Names::Fixed(addresses) => {
                Ok(addresses.iter().map(|address| SocketAddr::new(*address, 0)).collect())
            }
        }
    }
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.clone();
        Box::pin(async move {
            let mut addresses = guard.look_up(name.as_str()).await?;
            addresses.retain(|address| guard.reach.allows(address.ip()));
            if addresses.is_empty() {
                return Err(ForbiddenAddress { host: name.as_str().to_owned() }.into());
            }
            let addresses: Addrs = Box::new(addresses.into_iter());
            Ok(addresses)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_public_internet_is_public() {
        for (text, public, private) in [
            ("93.184.216.34", true, true),
            ("1.1.1.1", true, true),
            ("0.0.0.0", false, false),
            ("10.1.2.3", false, true),
            ("100.64.0.1", false, true),
            ("100.128.0.1", true, true),
            ("127.0.0.1", false, true),
            ("127.8.8.8", false, true),
            ("169.254.169.254", false, false),
            ("172.16.0.1", false, true),
            ("172.32.0.1", true, true),
            ("192.0.0.8", false, false),
            ("192.0.2.1", false, false),
            ("192.168.1.1", false, true),
            ("198.18.0.1", false, false),
            ("224.0.0.1", false, false),
            ("240.0.0.1", false, false),
            ("255.255.255.255", false, false),
            ("2606:4700::1111", true, true),
            ("::", false, false),
            ("::1", false, true),
            ("::ffff:127.0.0.1", false, true),
            ("::ffff:169.254.169.254", false, false),
            ("::ffff:1.1.1.1", true, true),
            ("::127.0.0.1", false, false),
            ("64:ff9b::7f00:1", false, false),
            ("2001::1", false, false),
            ("2001:db8::1", false, false),
            ("2002:7f00:1::", false, false),
            ("fc00::1", false, true),
            ("fd00:ec2::254", false, false),
            ("fe80::1", false, false),
            ("ff02::1", false, false),
        ] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(Reach::Public.allows(address), public, "{text} public");
            assert_eq!(Reach::Private.allows(address), private, "{text} private");
        }
    }
}
