//! Whose pages may do what: the Origin's scheme, the Host of `--dev`'s heartbeats, the way out.

use crate::refusals::assert_problem;
use crate::support::http::heartbeat;
use crate::support::setup::{KEY_A, Key, TOKEN_A};
use crate::support::{Request, Server, Setup};

/// What `--dev` tells everyone.
const DEV: Key = Key { key: "dev", secret: "dev" };

#[test]
fn in_dev_a_heartbeat_of_a_foreign_page_is_refused() {
    let server = Server::dev();
    let addr = server.addr();
    let dev = |request: Request| [request, Request::delete("this-host", DEV)];
    for request in dev(Request::ping("this-host", DEV, &heartbeat(1.0))) {
        // A page whose name was rebound to this address, and one that asks across sites.
        assert_problem(&request.clone().with("Host", "rebound.example").send(addr), 421);
        assert_problem(&request.clone().header("Origin", "http://evil.example").send(addr), 403);
        assert_problem(&request.clone().header("Origin", "null").send(addr), 403);
        // Its own page, and all that is no page.
        assert_eq!(request.clone().header("Origin", "http://localhost").send(addr).status, 200);
        let ping = Request::ping("this-host", DEV, &heartbeat(1.0));
        assert_eq!(ping.with("Host", "127.0.0.1:8080").send(addr).status, 200);
    }
    // Elsewhere the secret is a secret.
    let server = Server::start(&Setup::open().toml());
    let ping = Request::ping("agent", KEY_A, &heartbeat(1.0));
    let foreign = ping.with("Host", "any.example").header("Origin", "http://any.example");
    assert_eq!(foreign.send(server.addr()).status, 200);
}

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

#[test]
fn logout_clears_the_cookie_for_forms_and_scripts() {
    let setup = Setup::guarded().line("trusted_proxies = [\"127.0.0.1\"]");
    let server = Server::start(&setup.toml());
    let addr = server.addr();
    let logout = || {
        let cookie = format!("agent_metrics_viewer={TOKEN_A}");
        Request::new("POST", "/logout").header("Cookie", &cookie).body(b"")
    };
    let form = logout().send(addr);
    assert_eq!((form.status, form.header("Location")), (303, Some("/")), "{form:?}");
    let script = logout().header("Content-Type", "application/json").send(addr);
    assert_eq!(script.status, 204, "{script:?}");
    let cleared = "agent_metrics_viewer=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict";
    for answer in [form, script] {
        assert_eq!(answer.header("Set-Cookie"), Some(cleared));
        assert_eq!(answer.header("Cache-Control"), Some("no-store"));
    }
    // A browser lets only a secure answer replace a secure cookie.
    let over_tls = logout().header("X-Forwarded-Proto", "https").send(addr);
    assert_eq!(over_tls.header("Set-Cookie"), Some(format!("{cleared}; Secure").as_str()));
    // Who has no token is out already; pages of others throw nobody out.
    let without = logout().without("Cookie").without("Content-Length");
    assert_eq!(without.send(addr).status, 303);
    assert_problem(&logout().header("Origin", "http://evil.example").send(addr), 403);
    assert_problem(&logout().with("Host", "rebound.example").send(addr), 421);
    let get = Request::get("/logout").send(addr);
    assert_problem(&get, 405);
    assert_eq!(get.header("Allow"), Some("POST"));
}
