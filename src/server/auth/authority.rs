//! The values of Host and Origin: a host with or without a port, and a scheme before it. Parses and
//! compares; decides nothing.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Longest host name (RFC 1035 section 2.3.4), in bytes.
const MAX_NAME_BYTES: usize = 253;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Host {
    /// An IPv4 literal, or an IPv6 literal in brackets.
    Address(IpAddr),
    /// A name: lower case, without a trailing dot.
    Name(String),
}

impl Host {
    /// Parses a literal or a name. Stricter than RFC 3986 section 3.2.2: names in use have only
    /// letters, digits, `.`, `-` and `_`, and what is not parsed cannot be compared wrongly.
    fn parse(text: &str) -> Option<Self> {
        if let Some(literal) = text.strip_prefix('[') {
            let address: Ipv6Addr = literal.strip_suffix(']')?.parse().ok()?;
            return Some(Self::Address(address.into()));
        }
        if let Ok(address) = text.parse::<Ipv4Addr>() {
            return Some(Self::Address(address.into()));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let is_name = name.len() <= MAX_NAME_BYTES
            && name.split('.').all(|label| !label.is_empty() && label.bytes().all(allowed));
        is_name.then(|| Self::Name(name.to_ascii_lowercase()))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(IpAddr::V4(address)) => address.fmt(f),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// A host and perhaps a port: the value of Host (RFC 9110 section 7.2), the latter part of an
/// Origin, an entry of `allowed_hosts`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Authority {
    pub host: Host,
    /// None where it is empty or missing.
    pub port: Option<u16>,
}

impl Authority {
    /// Parses `host`, `host:port` or `host:`, without user information and zone.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        // The port follows the last colon, unless that colon is inside the brackets.
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port),
            _ => (text, ""),
        };
        let port = match port {
            "" => None,
            digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(digits.parse().ok()?)
            }
            _ => return None,
        };
        Some(Self { host: Host::parse(host)?, port })
    }

    /// Whether this entry of `allowed_hosts` includes the Host `presented`: the same host, and the
    /// same port where the entry has one. A Host without a port means the default port of its scheme,
    /// which a proxy knows and we do not.
    pub(crate) fn permits(&self, presented: &Self) -> bool {
        let port_fits = match (self.port, presented.port) {
            (None, _) => true,
            (Some(listed), Some(port)) => listed == port,
            (Some(listed), None) => matches!(listed, 80 | 443),
        };
        self.host == presented.host && port_fits
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.host.fmt(f)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// Of the schemes that are served (RFC 9110 sections 4.2.1, 4.2.2).
fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

/// An Origin (RFC 6454 section 6.2) other than `null`, normalized: case, default port, trailing dot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    scheme: String,
    authority: Authority,
}

impl Origin {
    /// Parses `scheme://host` or `scheme://host:port`, with nothing after it.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        // RFC 3986 section 3.1.
        let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
        let scheme = is_scheme.then(|| scheme.to_ascii_lowercase())?;
        let mut authority = Authority::parse(authority)?;
        authority.port = authority.port.filter(|port| Some(*port) != default_port(&scheme));
        Some(Self { scheme, authority })
    }

    /// Whether a page of this origin came from the server at `host`: http or https, equal to `scheme`
    /// where that is known, the same host, the same port (default ports included).
    pub(crate) fn is_of(&self, host: &Authority, scheme: Option<&str>) -> bool {
        let default = default_port(&self.scheme);
        default.is_some()
            && scheme.is_none_or(|scheme| scheme == self.scheme)
            && self.authority.host == host.host
            && self.authority.port.or(default) == host.port.or(default)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.authority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(authority: &str) -> Option<String> {
        Authority::parse(authority).map(|authority| authority.to_string())
    }

    #[test]
    fn a_host_is_a_literal_or_a_name_with_or_without_a_port() {
        for (given, read) in [
            ("127.0.0.1:8080", "127.0.0.1:8080"),
            ("[::1]:8080", "[::1]:8080"),
            ("[0:0::1]", "[::1]"),
            ("Example.ORG.:443", "example.org:443"),
            ("a_b-c.example", "a_b-c.example"),
            ("localhost:", "localhost"),
            ("1.2.3.4.", "1.2.3.4"),
            ("example.org:65535", "example.org:65535"),
        ] {
            assert_eq!(text(given).as_deref(), Some(read), "{given:?}");
        }
        // A name that looks like an address but is not one is no literal.
        for name in ["1.2.3.4.", "127.1", "0x7f.1", "1.2.3.4.5", "256.0.0.1"] {
            assert!(matches!(Authority::parse(name).unwrap().host, Host::Name(_)), "{name:?}");
        }
    }

    #[test]
    fn malformed_authorities_are_refused() {
        let long = "a".repeat(MAX_NAME_BYTES + 1);
        for bad in [
            "",
            ":",
            ":80",
            ".",
            "..",
            "a..b",
            ".a",
            "a:b",
            "a:-1",
            "a:+1",
            "a:65536",
            "a:80:80",
            "::1",
            "::1:80",
            "[::1",
            "::1]",
            "[]",
            "[::1]x",
            "[::1%25eth0]",
            "[127.0.0.1]",
            "u@a",
            "a/b",
            "a b",
            " a",
            "a?x",
            "a#x",
            "a%20b",
            "é",
            "a,b",
            "a\0",
            &long,
        ] {
            assert_eq!(text(bad), None, "{bad:?}");
        }
        assert!(text(&long[1..]).is_some());
    }

    #[test]
    fn a_listed_port_counts_and_a_missing_one_does_not() {
        let permits = |listed: &str, presented: &str| {
            Authority::parse(listed).unwrap().permits(&Authority::parse(presented).unwrap())
        };
        assert!(permits("m.example", "M.example.:9"));
        assert!(permits("m.example:8443", "m.example:8443"));
        assert!(!permits("m.example:8443", "m.example"));
        assert!(!permits("m.example:8443", "m.example:8444"));
        assert!(permits("m.example:443", "m.example"));
        assert!(!permits("m.example", "x.m.example"));
    }

    #[test]
    fn an_origin_is_of_the_host_when_scheme_defaults_make_them_equal() {
        let is_of = |origin: &str, host: &str| {
            let (origin, host) = (Origin::parse(origin).unwrap(), Authority::parse(host).unwrap());
            let by = |scheme| origin.is_of(&host, Some(scheme));
            let known = by("http") || by("https");
            assert!(!(by("http") && by("https")), "{origin} {host}: one scheme only");
            assert_eq!(origin.is_of(&host, None), known, "{origin} {host}");
            known
        };
        for (origin, host) in [
            ("http://a.example", "a.example"),
            ("HTTP://A.Example", "a.example:80"),
            ("https://a.example", "a.example:443"),
            ("https://a.example:443", "a.example"),
            ("https://a.example.", "a.example"),
            ("http://[::1]:8080", "[0::1]:8080"),
        ] {
            assert!(is_of(origin, host), "{origin} {host}");
        }
        for (origin, host) in [
            ("http://a.example", "b.example"),
            ("http://a.example", "a.example:443"),
            ("https://a.example", "a.example:80"),
            ("http://a.example:8080", "a.example"),
            ("http://a.example:8080", "a.example:8081"),
            ("http://127.0.0.1:8080", "localhost:8080"),
            ("ftp://a.example", "a.example"),
            ("ws://a.example", "a.example"),
        ] {
            assert!(!is_of(origin, host), "{origin} {host}");
        }
    }

    #[test]
    fn an_origin_is_scheme_and_authority_and_no_more() {
        for bad in
            ["null", "", "a.example", "//a", "://a", "1x://a", "http:/a", "http://", "http://a/"]
        {
            assert_eq!(Origin::parse(bad), None, "{bad:?}");
        }
        for bad in ["http://a?x", "http://u@a", "http://a b", "http://a http://b", "file://"] {
            assert_eq!(Origin::parse(bad), None, "{bad:?}");
        }
        assert_eq!(
            Origin::parse("HTTPS://A.example:443").unwrap().to_string(),
            "https://a.example"
        );
    }
}
