//! Who may do what, by agents' keys, viewers' tokens, Host and Origin. Decides; reads no socket and no
//! file.

mod authority;
mod secret;

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

pub(crate) use self::authority::{Authority, Host, Origin};
pub(crate) use self::secret::SecretDigest;
use crate::wire::id::PoolIndex;

/// The cookie that holds a viewer's token.
pub(crate) const VIEWER_COOKIE: &str = "agent_metrics_viewer";

/// Which pools a viewer may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Viewer {
    All,
    Pool(PoolIndex),
}

impl Viewer {
    pub(crate) fn sees(self, pool: PoolIndex) -> bool {
        match self {
            Self::All => true,
            Self::Pool(own) => own == pool,
        }
    }
}

/// All that the configuration says about who may do what. [`Gate::default`] allows nothing.
#[derive(Default)]
pub(crate) struct Gate {
    /// App key to its pool and secret.
    pub keys: HashMap<String, (PoolIndex, SecretDigest)>,
    /// Whoever presents a token is this viewer.
    pub viewers: Vec<(Viewer, SecretDigest)>,
    /// Anyone may see every pool, without a token.
    pub is_open: bool,
    /// Everyone knows the agents' secrets: a page in a browser could send them.
    pub has_public_secrets: bool,
    /// Of viewer routes, beside IP literals and `localhost`.
    pub allowed_hosts: Vec<Authority>,
    /// Of viewer routes, beside the Host's own.
    pub allowed_origins: Vec<Origin>,
    /// Networks whose X-Forwarded-* headers are trusted, as [`parse_network`] returns them.
    pub trusted_proxies: Vec<IpNet>,
}

impl Gate {
    /// The pool that `app_key` belongs to, if `app_secret` is its secret. Unknown keys take as
    /// long as wrong secrets.
    pub(crate) fn agent(&self, app_key: &str, app_secret: &str) -> Option<PoolIndex> {
        let presented = SecretDigest::of(app_secret);
        let known = self.keys.get(app_key);
        let expected = known.map_or(&SecretDigest::NOBODY, |(_, secret)| secret);
        let matches = presented.matches(expected);
        known.filter(|_| matches).map(|(pool, _)| *pool)
    }

    pub(crate) fn has_key(&self, app_key: &str) -> bool {
        self.keys.contains_key(app_key)
    }

    /// Whether `text`, found where no secret belongs, is an agent's secret or a viewer's token. A text
    /// that is also a key, as with `--dev`, is no secret.
    pub(crate) fn is_secret(&self, text: &str) -> bool {
        let given = SecretDigest::of(text);
        let secrets = self.keys.values().map(|(_, secret)| secret);
        let tokens = self.viewers.iter().map(|(_, token)| token);
        !self.has_key(text) && secrets.chain(tokens).any(|own| given.matches(own))
    }

    /// What a viewer with this token (or none) may see; `None` is a 401.
    pub(crate) fn viewer(&self, token: Option<&str>) -> Option<Viewer> {
        if self.is_open {
            return Some(Viewer::All);
        }
        let presented = SecretDigest::of(token?);
        // Compares all, whichever matches, so that the time does not tell which token it was.
        self.viewers.iter().fold(None, |found, (viewer, token)| {
            if presented.matches(token) { found.or(Some(*viewer)) } else { found }
        })
    }

    /// Whether viewer routes accept this Host (RFC 9110 section 7.2): an IP literal, `localhost`, or
    /// listed; any port. After DNS rebinding a page sends its own name here, and a literal cannot be
    /// rebound.
    pub(crate) fn host_allowed(&self, host: &str) -> bool {
        let Some(presented) = Authority::parse(host) else { return false };
        match &presented.host {
            Host::Address(_) => true,
            Host::Name(name) => {
                name == "localhost"
                    || self.allowed_hosts.iter().any(|listed| listed.permits(&presented))
            }
        }
    }

    /// Whether viewer routes accept a browser's Origin: listed, or equal to `host` (default ports
    /// aside) with `scheme`, where that is known.
    pub(crate) fn origin_allowed(&self, origin: &str, host: &str, scheme: Option<&str>) -> bool {
        let Some(origin) = Origin::parse(origin) else { return false };
        self.allowed_origins.contains(&origin)
            || Authority::parse(host).is_some_and(|host| origin.is_of(&host, scheme))
    }

    /// Whether `peer` is a trusted proxy.
    pub(crate) fn trusts(&self, peer: IpAddr) -> bool {
        // A dual-stack listener shows IPv4 peers as ::ffff:a.b.c.d.
        let peer = peer.to_canonical();
        self.trusted_proxies.iter().any(|network| network.contains(&peer))
    }

    /// The scheme of the client's request: `http` from `peer` itself, what a trusted proxy says in
    /// X-Forwarded-Proto (where several appended one each, the last), or unknown.
    pub(crate) fn client_scheme(
        &self,
        peer: IpAddr,
        forwarded_proto: Option<&str>,
    ) -> Option<&'static str> {
        if !self.trusts(peer) {
            return Some("http");
        }
        let nearest = forwarded_proto?.rsplit(',').next()?.trim();
        match nearest.to_ascii_lowercase().as_str() {
            // Some proxies send a WebSocket's own scheme.
            "https" | "wss" => Some("https"),
            "http" | "ws" => Some("http"),
            _ => None,
        }
    }

    /// The client's address: `peer`, or, when that is a trusted proxy, the last address in
    /// `forwarded_for` that is not one. Each proxy appends its peer, so whatever is left of an address
    /// that is not trusted, or not valid, may be forged.
    pub(crate) fn client_address(&self, peer: IpAddr, forwarded_for: Option<&str>) -> IpAddr {
        let mut nearest = peer.to_canonical();
        for hop in forwarded_for.unwrap_or_default().rsplit(',') {
            if !self.trusts(nearest) {
                break;
            }
            let Some(address) = hop_address(hop.trim()) else { break };
            nearest = address.to_canonical();
        }
        nearest
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").finish_non_exhaustive()
    }
}

/// An address or a network. IPv4-mapped ones (RFC 4291 section 2.5.5.2) become IPv4.
pub(crate) fn parse_network(text: &str) -> Option<IpNet> {
    let network = text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    network.map(canonical_network)
}

fn canonical_network(network: IpNet) -> IpNet {
    const MAPPED_BITS: u8 = 96;
    let IpNet::V6(mapped) = network else { return network };
    let prefix = mapped.prefix_len().checked_sub(MAPPED_BITS);
    match (mapped.addr().to_ipv4_mapped(), prefix) {
        (Some(address), Some(prefix)) => {
            Ipv4Net::new(address, prefix).map_or(network, |network| IpNet::V4(network.trunc()))
        }
        _ => network,
    }
}

/// One hop of X-Forwarded-For: an address, and with some proxies a port.
fn hop_address(hop: &str) -> Option<IpAddr> {
    let bracketed = || hop.strip_prefix('[')?.strip_suffix(']')?.parse().ok().map(IpAddr::V6);
    hop.parse()
        .ok()
        .or_else(|| hop.parse::<SocketAddr>().ok().map(|socket| socket.ip()))
        .or_else(bracketed)
}

/// The token that a viewer presents: `Authorization: Bearer`, else `?token=`, else the cookie.
pub(crate) fn presented_token(
    authorization: Option<&str>,
    query: Option<&str>,
    cookie: Option<&str>,
) -> Option<String> {
    // RFC 6750 section 2.1; schemes are case-insensitive (RFC 9110 section 11.1).
    let bearer = || {
        let (scheme, token) = authorization?.trim().split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
    };
    let in_query = || {
        let mut pairs = form_urlencoded::parse(query?.as_bytes());
        pairs.find(|(name, _)| name == "token").map(|(_, token)| token.into_owned())
    };
    // RFC 6265 section 4.2.1; a value may be quoted.
    let in_cookie = || {
        cookie?.split(';').find_map(|pair| {
            let (name, value) = pair.split_once('=')?;
            let value = value.trim();
            let unquoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
            (name.trim() == VIEWER_COOKIE).then(|| unquoted.unwrap_or(value).to_owned())
        })
    };
    bearer().or_else(in_query).or_else(in_cookie)
}

#[cfg(test)]
mod tests;
