//! Whose pages may do what: the Origin's scheme.

use crate::support::{Request, Server, Setup};

#[test]
fn the_own_origin_has_the_scheme_that_the_browser_used() {
    let host = "metrics.example.org";
    let setup = Setup::open().line("allowed_hosts = [\"metrics.example.org\"]");
    let direct = Server::start(&setup.clone().toml());
    let proxied = Server::start(&setup.line("trusted_proxies = [\"127.0.0.1\"]").toml());
    for (server, forwarded, http, https) in [
        (&direct, None, true, false),
        // Who is not trusted cannot say otherwise.
        (&direct, Some("https"), true, false),
        (&proxied, Some("https"), false, true),
        (&proxied, Some("HTTPS"), false, true),
        (&proxied, Some("wss"), false, true),
        (&proxied, Some("http"), true, false),
        (&proxied, Some("ws"), true, false),
        // The last proxy's word counts.
        (&proxied, Some("http, https"), false, true),
        // A proxy that does not say leaves it open.
        (&proxied, None, true, true),
        (&proxied, Some("gopher"), true, true),
    ] {
        for (origin, permitted) in [("http", http), ("https", https)] {
            let request = Request::feed("pool-a").with("Host", host);
            let request = request.header("Origin", &format!("{origin}://{host}"));
            let request = match forwarded {
                Some(scheme) => request.header("X-Forwarded-Proto", scheme),
                None => request,
            };
            let status = request.send(server.addr()).status;
            assert_eq!(status, if permitted { 101 } else { 403 }, "{origin} by {forwarded:?}");
        }
    }
}
