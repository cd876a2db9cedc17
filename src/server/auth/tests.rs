//! Whom the gate lets in, and whom not, at the edges.

use super::*;

/// For tests everywhere.
impl Gate {
    pub(crate) fn with_key(mut self, app_key: &str, pool: PoolIndex, secret: SecretDigest) -> Self {
        self.keys.insert(app_key.to_owned(), (pool, secret));
        self
    }

    pub(crate) fn with_viewer(mut self, viewer: Viewer, token: SecretDigest) -> Self {
        self.viewers.push((viewer, token));
        self
    }

    pub(crate) fn with_origin(mut self, origin: Origin) -> Self {
        self.allowed_origins.push(origin);
        self
    }

    pub(crate) fn with_proxy(mut self, network: IpNet) -> Self {
        self.trusted_proxies.push(canonical_network(network));
        self
    }
}

fn gate() -> Gate {
    let allowed_hosts = ["Metrics.example", "tls.example:8443"];
    let allowed_hosts = allowed_hosts.map(|host| Authority::parse(host).unwrap()).to_vec();
    Gate { allowed_hosts, ..Gate::default() }
        .with_key("old", PoolIndex(0), SecretDigest::of("s3cret"))
        .with_key("new", PoolIndex(0), SecretDigest::of("s4cret"))
        .with_key("other", PoolIndex(1), SecretDigest::of("s3cret"))
        .with_viewer(Viewer::All, SecretDigest::of("all pools"))
        .with_viewer(Viewer::Pool(PoolIndex(1)), SecretDigest::of("pool one"))
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
fn secrets_and_tokens_are_recognized_and_keys_are_no_secrets() {
    let gate = gate().with_key("dev", PoolIndex(0), SecretDigest::of("dev"));
    for (text, secret) in
        [("s3cret", true), ("s4cret", true), ("all pools", true), ("old", false), ("dev", false)]
    {
        assert_eq!(gate.is_secret(text), secret, "{text}");
    }
    assert!(gate.has_key("old") && !gate.has_key("s3cret"));
}

#[test]
fn a_token_shows_all_pools_or_its_own() {
    let gate = gate();
    assert_eq!(gate.viewer(Some("all pools")), Some(Viewer::All));
    let pool = gate.viewer(Some("pool one")).unwrap();
    assert!(pool.sees(PoolIndex(1)) && !pool.sees(PoolIndex(0)));
    for token in
        [None, Some(""), Some("all pool"), Some("all poolz"), Some("all pools "), Some("s3cret")]
    {
        assert_eq!(gate.viewer(token), None, "{token:?}");
    }
}

#[test]
fn without_a_token_viewing_is_refused_unless_it_is_open() {
    assert_eq!(Gate::default().viewer(None), None);
    assert_eq!(Gate::default().viewer(Some("")), None);
    let open = Gate { is_open: true, ..Gate::default() };
    assert_eq!(open.viewer(None), Some(Viewer::All));
    assert_eq!(open.viewer(Some("an old cookie")), Some(Viewer::All));
}

#[test]
fn literals_localhost_and_listed_hosts_are_allowed() {
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
    let by = |scheme, origin| gate.origin_allowed(origin, "metrics.example", scheme);
    assert!(gate.origin_allowed("http://localhost:8080", "localhost:8080", Some("http")));
    for (scheme, http, https) in
        [(Some("http"), true, false), (Some("https"), false, true), (None, true, true)]
    {
        assert_eq!(by(scheme, "http://metrics.example"), http, "{scheme:?}");
        assert_eq!(by(scheme, "https://metrics.example"), https, "{scheme:?}");
        // What is listed names its scheme itself.
        assert!(by(scheme, "https://BOARD.example:443"), "{scheme:?}");
    }
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
        assert!(!gate.origin_allowed(origin, "localhost:8080", None), "{origin}");
    }
    assert!(!gate.origin_allowed("http://a b", "a b", None));
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn proxied(networks: &[&str]) -> Gate {
    let trusted_proxies = networks.iter().map(|network| parse_network(network).unwrap()).collect();
    Gate { trusted_proxies, ..Gate::default() }
}

#[test]
fn a_proxy_is_trusted_by_network_also_in_mapped_form() {
    let gate = proxied(&[
        "10.0.0.0/8",
        "::ffff:192.0.2.0/120",
        "2001:db8::/32",
        "::1",
        "::ffff:198.51.100.1",
    ]);
    for peer in
        ["10.255.0.1", "::ffff:10.0.0.1", "192.0.2.77", "2001:db8:1::9", "::1", "198.51.100.1"]
    {
        assert!(gate.trusts(ip(peer)), "{peer}");
    }
    for peer in ["11.0.0.1", "::ffff:11.0.0.1", "192.0.3.1", "2001:db9::1", "::2"] {
        assert!(!gate.trusts(ip(peer)), "{peer}");
    }
    assert!(!Gate::default().trusts(ip("127.0.0.1")));
}

#[test]
fn the_scheme_is_http_unless_the_nearest_trusted_proxy_says_otherwise() {
    let gate = proxied(&["10.0.0.0/8"]);
    let (http, https) = (Some("http"), Some("https"));
    for (peer, forwarded_proto, scheme) in [
        ("192.0.2.1", None, http),
        ("192.0.2.1", Some("https"), http),
        ("10.0.0.1", None, None),
        ("10.0.0.1", Some(""), None),
        ("10.0.0.1", Some("https"), https),
        ("10.0.0.1", Some("HTTP"), http),
        ("10.0.0.1", Some("wss"), https),
        ("10.0.0.1", Some("ws"), http),
        ("10.0.0.1", Some("http, https"), https),
        ("10.0.0.1", Some("https,http "), http),
        ("10.0.0.1", Some("https, spdy"), None),
    ] {
        assert_eq!(gate.client_scheme(ip(peer), forwarded_proto), scheme, "{forwarded_proto:?}");
    }
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
fn the_first_token_found_decides() {
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
fn debug_output_shows_no_key_and_no_token() {
    let text = format!("{:?}", gate());
    for hidden in ["old", "s3cret", &SecretDigest::of("s3cret").to_hex()] {
        assert!(!text.contains(hidden), "{text}");
    }
}
