//! Who may do what: agents' keys, viewers' tokens, Host and Origin. Decides; reads no socket
//! and no file.

mod authority;
mod secret;

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ipnet::{IpNet, Ipv4Net};

pub use self::authority::{Authority, Host, Origin};
pub use self::secret::SecretDigest;
use crate::id::PoolIndex;

/// The cookie that holds a viewer's token.
pub const VIEWER_COOKIE: &str = "agent_metrics_viewer";

/// Which pools a viewer may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Viewer {
    /// Every pool.
    All,
    /// This one.
    Pool(PoolIndex),
}

impl Viewer {
    /// Whether this viewer may see `pool`.
    #[must_use]
    pub fn sees(self, pool: PoolIndex) -> bool {
        match self {
            Self::All => true,
            Self::Pool(own) => own == pool,
        }
    }
}

/// The gate: everything the configuration says about who may do what. [`Gate::default`] lets
/// nobody in; each `with_` method opens it a little.
///
/// ```
/// use agent_metrics::auth::{Gate, SecretDigest, Viewer};
/// use agent_metrics::id::PoolIndex;
///
/// let gate = Gate::default()
///     .with_key("k", PoolIndex(0), SecretDigest::of("agent's secret"))
///     .with_viewer(Viewer::All, SecretDigest::of("token"));
/// assert_eq!(gate.agent("k", "agent's secret"), Some(PoolIndex(0)));
/// assert_eq!(gate.agent("k", "a guess"), None);
/// assert_eq!(gate.viewer(Some("token")), Some(Viewer::All));
/// assert_eq!(gate.viewer(None), None);
/// ```
#[derive(Default)]
pub struct Gate {
    keys: HashMap<String, (PoolIndex, SecretDigest)>,
    viewers: Vec<(Viewer, SecretDigest)>,
    open: bool,
    allowed_hosts: Vec<Authority>,
    allowed_origins: Vec<Origin>,
    trusted_proxies: Vec<IpNet>,
}

impl Gate {
    /// Lets agents with this key and secret into `pool`. A key belongs to one pool: said again,
    /// it replaces what was said before.
    #[must_use]
    pub fn with_key(mut self, app_key: &str, pool: PoolIndex, secret: SecretDigest) -> Self {
        self.keys.insert(app_key.to_owned(), (pool, secret));
        self
    }

    /// Lets who presents this token look as `viewer`.
    #[must_use]
    pub fn with_viewer(mut self, viewer: Viewer, token: SecretDigest) -> Self {
        self.viewers.push((viewer, token));
        self
    }

    /// Lets anyone look at everything.
    #[must_use]
    pub fn with_open_viewing(mut self) -> Self {
        self.open = true;
        self
    }

    /// Answers viewer routes under this Host too.
    #[must_use]
    pub fn with_host(mut self, host: Authority) -> Self {
        self.allowed_hosts.push(host);
        self
    }

    /// Lets pages of this origin use viewer routes.
    #[must_use]
    pub fn with_origin(mut self, origin: Origin) -> Self {
        self.allowed_origins.push(origin);
        self
    }

    /// Believes the X-Forwarded-* headers of peers in this network.
    #[must_use]
    pub fn with_proxy(mut self, network: IpNet) -> Self {
        self.trusted_proxies.push(canonical_network(network));
        self
    }

    /// The pool that `app_key` belongs to, if `app_secret` is its secret. Unknown keys take as
    /// long as wrong secrets.
    #[must_use]
    pub fn agent(&self, app_key: &str, app_secret: &str) -> Option<PoolIndex> {
        let presented = SecretDigest::of(app_secret);
        let known = self.keys.get(app_key);
        let expected = known.map_or(&SecretDigest::NOBODY, |(_, secret)| secret);
        let matches = presented.matches(expected);
        known.filter(|_| matches).map(|(pool, _)| *pool)
    }

    /// What a viewer with this token (or none) may see; `None` is a 401.
    #[must_use]
    pub fn viewer(&self, token: Option<&str>) -> Option<Viewer> {
        if self.open {
            return Some(Viewer::All);
        }
        let presented = SecretDigest::of(token?);
        // To the end whatever matches, so that the time says nothing about which token it was.
        self.viewers.iter().fold(None, |found, (viewer, token)| {
            if presented.matches(token) { found.or(Some(*viewer)) } else { found }
        })
    }

    /// Whether anyone may look without a token.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Whether viewer routes answer to this Host (RFC 9110 section 7.2): an IP literal,
    /// `localhost`, or listed; any port. A page whose name was rebound to our address (DNS
    /// rebinding) comes with its own name here, and no literal can be rebound.
    #[must_use]
    pub fn host_allowed(&self, host: &str) -> bool {
        let Some(presented) = Authority::parse(host) else { return false };
        match &presented.host {
            Host::Address(_) => true,
            Host::Name(name) => {
                name == "localhost"
                    || self.allowed_hosts.iter().any(|listed| listed.permits(&presented))
            }
        }
    }

    /// Whether a browser's Origin may use viewer routes: the authority of `host` (default
    /// ports aside) or listed.
    #[must_use]
    pub fn origin_allowed(&self, origin: &str, host: &str) -> bool {
        let Some(origin) = Origin::parse(origin) else { return false };
        self.allowed_origins.contains(&origin)
            || Authority::parse(host).is_some_and(|host| origin.is_of(&host))
    }

    /// Whether `peer` is a trusted proxy, whose X-Forwarded-* headers are believed.
    #[must_use]
    pub fn trusts(&self, peer: IpAddr) -> bool {
        // A dual-stack listener shows IPv4 peers as ::ffff:a.b.c.d.
        let peer = peer.to_canonical();
        self.trusted_proxies.iter().any(|network| network.contains(&peer))
    }

    /// The client's address: `peer`, or, when that is a trusted proxy, the last address in
    /// `forwarded_for` that is not one. Each proxy appends whom it saw, so what stands left of
    /// an address that we don't trust, or cannot read, is hearsay.
    #[must_use]
    pub fn client_address(&self, peer: IpAddr, forwarded_for: Option<&str>) -> IpAddr {
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
        f.debug_struct("Gate")
            .field("keys", &self.keys.len())
            .field("viewer_tokens", &self.viewers.len())
            .field("open", &self.open)
            .field("allowed_hosts", &self.allowed_hosts)
            .field("allowed_origins", &self.allowed_origins)
            .field("trusted_proxies", &self.trusted_proxies)
            .finish()
    }
}

/// A network of IPv4-mapped addresses (RFC 4291 section 2.5.5.2) as the IPv4 network it means.
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

/// The token that a viewer presents: `Authorization: Bearer`, else `?token=`, else the cookie
/// `agent_metrics_viewer`. The first that is there decides.
#[must_use]
pub fn presented_token(
    authorization: Option<&str>,
    query: Option<&str>,
    cookie: Option<&str>,
) -> Option<String> {
    authorization
        .and_then(bearer_token)
        .map(str::to_owned)
        .or_else(|| query.and_then(query_token))
        .or_else(|| cookie.and_then(cookie_token).map(str::to_owned))
}

/// RFC 6750 section 2.1; schemes are case-insensitive (RFC 9110 section 11.1).
fn bearer_token(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn query_token(query: &str) -> Option<String> {
    form_urlencoded::parse(query.as_bytes())
        .find(|(name, _)| name == "token")
        .map(|(_, token)| token.into_owned())
}

/// RFC 6265 section 4.2.1; a value may stand in quotes.
fn cookie_token(cookies: &str) -> Option<&str> {
    cookies.split(';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        let value = value.trim();
        let unquoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
        (name.trim() == VIEWER_COOKIE).then(|| unquoted.unwrap_or(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate() -> Gate {
        Gate::default()
            .with_key("old", PoolIndex(0), SecretDigest::of("s3cret"))
            .with_key("new", PoolIndex(0), SecretDigest::of("s4cret"))
            .with_key("other", PoolIndex(1), SecretDigest::of("s3cret"))
            .with_viewer(Viewer::All, SecretDigest::of("all pools"))
            .with_viewer(Viewer::Pool(PoolIndex(1)), SecretDigest::of("pool one"))
            .with_host(Authority::parse("Metrics.example").unwrap())
            .with_host(Authority::parse("tls.example:8443").unwrap())
            .with_origin(Origin::parse("https://board.example").unwrap())
    }

    #[test]
    fn the_key_decides_the_pool_and_a_pool_may_have_several() {
        let gate = gate();
        assert_eq!(gate.agent("old", "s3cret"), Some(PoolIndex(0)));
        assert_eq!(gate.agent("new", "s4cret"), Some(PoolIndex(0)));
        assert_eq!(gate.agent("other", "s3cret"), Some(PoolIndex(1)));
    }

    #[test]
    fn a_wrong_secret_of_any_length_and_an_unknown_key_are_refused_alike() {
        let gate = gate();
        for secret in ["", "s3cre", "s3cret ", "S3cret", "s4cret", "s3crets", &"s".repeat(8_192)] {
            assert_eq!(gate.agent("old", secret), None, "{secret:?}");
        }
        for key in ["", "OLD", "old ", "nobody"] {
            assert_eq!(gate.agent(key, "s3cret"), None, "{key:?}");
        }
    }

    #[test]
    fn a_token_shows_all_pools_or_its_own() {
        let gate = gate();
        assert_eq!(gate.viewer(Some("all pools")), Some(Viewer::All));
        let pool = gate.viewer(Some("pool one")).unwrap();
        assert!(pool.sees(PoolIndex(1)) && !pool.sees(PoolIndex(0)));
        for token in [
            None,
            Some(""),
            Some("all pool"),
            Some("all poolz"),
            Some("all pools "),
            Some("s3cret"),
        ] {
            assert_eq!(gate.viewer(token), None, "{token:?}");
        }
    }

    #[test]
    fn nobody_looks_unless_it_is_said_and_anyone_when_it_is() {
        assert_eq!(Gate::default().viewer(None), None);
        assert_eq!(Gate::default().viewer(Some("")), None);
        let open = Gate::default().with_open_viewing();
        assert!(open.is_open() && !gate().is_open());
        assert_eq!(open.viewer(None), Some(Viewer::All));
        assert_eq!(open.viewer(Some("an old cookie")), Some(Viewer::All));
    }

    #[test]
    fn literals_localhost_and_listed_hosts_are_ours() {
        let gate = gate();
        for host in [
            "127.0.0.1",
            "10.1.2.3:9",
            "[::1]",
            "[2001:db8::1]:8080",
            "localhost",
            "LocalHost.:8080",
            "metrics.example",
            "METRICS.example.:99",
            "tls.example:8443",
        ] {
            assert!(gate.host_allowed(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "metrics.example.evil.example",
            "x.metrics.example",
            "tls.example",
            "tls.example:1",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "::1",
            "u@localhost",
            "localhost:99999",
            "localhost:x",
            "127.1",
            "2130706433",
            "localhost..",
            "[::1",
        ] {
            assert!(!gate.host_allowed(host), "{host}");
        }
    }

    #[test]
    fn an_origin_is_the_hosts_own_or_listed() {
        let gate = gate();
        assert!(gate.origin_allowed("http://localhost:8080", "localhost:8080"));
        assert!(gate.origin_allowed("https://metrics.example", "metrics.example"));
        assert!(gate.origin_allowed("https://BOARD.example:443", "metrics.example"));
        for origin in [
            "null",
            "",
            "http://board.example",
            "https://board.example:8443",
            "https://x.board.example",
            "http://localhost",
            "http://localhost:8081",
            "localhost:8080",
            "ws://localhost:8080",
            "http://localhost:8080/",
            "https://board.example https://board.example",
        ] {
            assert!(!gate.origin_allowed(origin, "localhost:8080"), "{origin}");
        }
        assert!(!gate.origin_allowed("http://a b", "a b"));
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn proxied(networks: &[&str]) -> Gate {
        networks
            .iter()
            .fold(Gate::default(), |gate, network| gate.with_proxy(network.parse().unwrap()))
    }

    #[test]
    fn a_proxy_is_trusted_by_network_also_in_mapped_form() {
        let gate = proxied(&["10.0.0.0/8", "::ffff:192.0.2.0/120", "2001:db8::/32", "::1/128"]);
        for peer in ["10.255.0.1", "::ffff:10.0.0.1", "192.0.2.77", "2001:db8:1::9", "::1"] {
            assert!(gate.trusts(ip(peer)), "{peer}");
        }
        for peer in ["11.0.0.1", "::ffff:11.0.0.1", "192.0.3.1", "2001:db9::1", "::2"] {
            assert!(!gate.trusts(ip(peer)), "{peer}");
        }
        assert!(!Gate::default().trusts(ip("127.0.0.1")));
    }

    #[test]
    fn the_client_is_the_last_hop_that_no_trusted_proxy_is() {
        let gate = proxied(&["10.0.0.0/8"]);
        for (peer, forwarded_for, client) in [
            ("192.0.2.1", Some("1.1.1.1"), "192.0.2.1"),
            ("10.0.0.1", None, "10.0.0.1"),
            ("10.0.0.1", Some(""), "10.0.0.1"),
            ("10.0.0.1", Some("192.0.2.9"), "192.0.2.9"),
            ("10.0.0.1", Some("6.6.6.6, 192.0.2.9 , 10.2.2.2"), "192.0.2.9"),
            ("10.0.0.1", Some("10.3.3.3,10.2.2.2"), "10.3.3.3"),
            ("10.0.0.1", Some("6.6.6.6, unknown, 10.2.2.2"), "10.2.2.2"),
            ("10.0.0.1", Some("192.0.2.9:1234"), "192.0.2.9"),
            ("10.0.0.1", Some("[2001:db8::7]:1234"), "2001:db8::7"),
            ("10.0.0.1", Some("[2001:db8::7]"), "2001:db8::7"),
            ("::ffff:10.0.0.1", Some("::ffff:192.0.2.9"), "192.0.2.9"),
            ("::ffff:192.0.2.1", None, "192.0.2.1"),
        ] {
            let found = gate.client_address(ip(peer), forwarded_for);
            assert_eq!(found, ip(client), "{peer} {forwarded_for:?}");
        }
    }

    #[test]
    fn the_first_place_that_has_a_token_decides() {
        let cookie = Some("a=b; agent_metrics_viewer=c00kie; x");
        let query = Some("x=1&token=qu%65ry+1&token=2");
        let token = |authorization| presented_token(authorization, query, cookie);
        assert_eq!(token(Some("Bearer b3arer")).as_deref(), Some("b3arer"));
        assert_eq!(token(Some("bEARER   b3arer ")).as_deref(), Some("b3arer"));
        assert_eq!(token(Some("Bearer ")).as_deref(), Some("query 1"));
        for other in [None, Some("Basic eDp5"), Some("Bearerx y"), Some("Bearer")] {
            assert_eq!(token(other).as_deref(), Some("query 1"), "{other:?}");
        }
        assert_eq!(presented_token(None, Some("tokens=1"), cookie).as_deref(), Some("c00kie"));
        assert_eq!(presented_token(None, Some("token="), cookie).as_deref(), Some(""));
        assert_eq!(presented_token(None, None, None), None);
    }

    #[test]
    fn a_cookie_is_found_by_its_exact_name() {
        for (cookies, token) in [
            ("agent_metrics_viewer=t", Some("t")),
            ("a=1;agent_metrics_viewer=\"t\"", Some("t")),
            ("agent_metrics_viewer=t=; b", Some("t=")),
            ("agent_metrics_viewer=1; agent_metrics_viewer=2", Some("1")),
            ("xagent_metrics_viewer=t; Agent_Metrics_Viewer=t", None),
            ("agent_metrics_viewer", None),
            ("", None),
        ] {
            assert_eq!(presented_token(None, None, Some(cookies)).as_deref(), token, "{cookies:?}");
        }
    }

    #[test]
    fn debug_output_counts_keys_and_tokens_and_shows_none() {
        let text = format!("{:?}", gate());
        assert!(text.contains("keys: 3, viewer_tokens: 2"), "{text}");
        for hidden in ["old", "s3cret", &SecretDigest::of("s3cret").to_hex()] {
            assert!(!text.contains(hidden), "{text}");
        }
    }
}
