//! Who may do what: each refusal of the contract's section 4, and beside it what is permitted.

use std::net::SocketAddr;

use crate::refusals::assert_problem;
use crate::support::http::heartbeat;
use crate::support::setup::{
    KEY_A, KEY_A_NEW, KEY_B, Key, SECRETS, TOKEN_A, TOKEN_ALL, TOKEN_B, sha256,
};
use crate::support::{Conn, Dashboard, Request, Response, Server, Setup};

/// What a viewer reads, beside the feed.
const METRICS_A: &str = "/api/v1/agent-pools/pool-a/metrics";
const METRICS_B: &str = "/api/v1/agent-pools/pool-b/metrics";

/// The ways to show a token: by header, by cookie, in the query.
fn with_token(request_for: impl Fn(&str) -> Request, path: &str, token: &str) -> [Request; 4] {
    [
        request_for(path).header("Authorization", &format!("Bearer {token}")),
        request_for(path).header("Authorization", &format!("bearer {token}")),
        request_for(path).header("Cookie", &format!("a=b; agent_metrics_viewer={token}; c=d")),
        request_for(&format!("{path}?token={token}")),
    ]
}

fn feed_at(target: &str) -> Request {
    ["Connection", "Upgrade", "Sec-WebSocket-Version", "Sec-WebSocket-Key"]
        .into_iter()
        .zip(["Upgrade", "websocket", "13", "dGhlIHNhbXBsZSBub25jZQ=="])
        .fold(Request::get(target), |request, (name, value)| request.header(name, value))
}

/// The answer's status, on a connection of its own.
fn status(addr: SocketAddr, request: &Request) -> u16 {
    request.send(addr).status
}

#[test]
fn each_key_opens_its_pool_with_its_own_secret() {
    let server = Server::start(&Setup::open().toml());
    let addr = server.addr();
    for key in [KEY_A, KEY_A_NEW, KEY_B] {
        assert_eq!(status(addr, &Request::ping("agent", key, &heartbeat(1.0))), 200);
    }
    for (name, secret) in
        [(KEY_A, KEY_A_NEW.secret), (KEY_A_NEW, KEY_A.secret), (KEY_B, KEY_A.secret), (KEY_B, "")]
    {
        let wrong = Key { key: name.key, secret };
        assert_problem(&Request::ping("agent", wrong, &heartbeat(1.0)).send(addr), 401);
    }
    // The hash in the file is not the secret.
    let hash = sha256(KEY_A.secret);
    let request = Request::ping("agent", KEY_A, &heartbeat(1.0)).with("X-App-Secret", &hash);
    assert_problem(&request.send(addr), 401);
    // A viewer's token is no agent's secret, nor the other way round; open viewing opens no more.
    let request = Request::new("DELETE", "/api/v1/agents/agent");
    assert_problem(&request.send(addr), 401);
}

#[test]
fn viewers_see_what_their_token_shows() {
    let server = Server::start(&Setup::guarded().toml());
    let addr = server.addr();
    assert_eq!(Conn::open(addr).ping("agent", &heartbeat(1.0)).status, 200);
    for (token, a, b, pools) in [
        (TOKEN_ALL, 200, 200, vec!["pool-a", "pool-b"]),
        (TOKEN_A, 200, 404, vec!["pool-a"]),
        (TOKEN_B, 404, 200, vec!["pool-b"]),
    ] {
        for (path, expected) in [(METRICS_A, a), (METRICS_B, b)] {
            for request in with_token(Request::get, path, token) {
                assert_eq!(status(addr, &request), expected, "{request:?}");
            }
            let feed = path.replace("/api/v1", "/ws");
            let expected = if expected == 200 { 101 } else { expected };
            for request in with_token(feed_at, &feed, token) {
                assert_eq!(status(addr, &request), expected, "{request:?}");
            }
        }
        for request in with_token(Request::get, "/api/v1/agent-pools", token) {
            let list = request.send(addr).json();
            let seen: Vec<_> = list["pools"].as_array().unwrap().iter().collect();
            let seen: Vec<_> = seen.iter().map(|pool| pool["pool_id"].as_str().unwrap()).collect();
            assert_eq!(seen, pools);
            // The names of agents' keys are for who sees all, their secrets for nobody.
            let keys = (token == TOKEN_ALL).then(|| serde_json::json!([KEY_A.key, KEY_A_NEW.key]));
            assert_eq!(list["pools"][0].get("app_keys"), keys.as_ref());
            let text = list.to_string();
            assert!(
                SECRETS
                    .iter()
                    .all(|secret| !text.contains(secret) && !text.contains(&sha256(secret)))
            );
        }
    }
    let mut dashboard = Dashboard::join_with(addr, "pool-a", Some(TOKEN_A));
    assert_eq!(dashboard.expect("initial_metrics")["metrics"].as_array().unwrap().len(), 1);
}

#[test]
fn without_the_right_token_there_is_nothing_to_see() {
    // Each from an address of its own: refusals to one are delayed after the first twenty.
    let setup = Setup::guarded().line("trusted_proxies = [\"127.0.0.1\"]");
    let server = Server::start(&setup.toml());
    let addr = server.addr();
    let mut addresses = (1..).map(|number| format!("192.0.2.{number}"));
    for path in [METRICS_A, "/api/v1/agent-pools", "/api/v1/agent-pools/none/metrics"] {
        let mut requests = vec![Request::get(path)];
        for wrong in ["wrong", KEY_A.secret, &sha256(TOKEN_ALL), ""] {
            requests.extend(with_token(Request::get, path, wrong));
        }
        requests.push(Request::get(path).header("Authorization", TOKEN_ALL));
        requests.push(Request::get(path).header("Cookie", &format!("viewer={TOKEN_ALL}")));
        for request in requests {
            let address = addresses.next().unwrap();
            let answer = request.header("X-Forwarded-For", &address).send(addr);
            assert_problem(&answer, 401);
            assert!(answer.header("WWW-Authenticate").unwrap().starts_with("Bearer"), "{answer:?}");
        }
    }
    for request in with_token(feed_at, "/ws/agent-pools/pool-a/metrics", "wrong") {
        assert_problem(&request.send(addr), 401);
    }
    // The page itself shows nothing of the pools, and says where to log in or asks for it.
    let page = Request::get("/").send(addr);
    assert!([200, 302, 303, 401].contains(&page.status), "{page:?}");
    assert!(!page.text().contains("Pool A") && !page.text().contains("pool-a"));
    // Who checks whether the server lives needs no token.
    for path in ["/livez", "/readyz", "/healthz"] {
        assert_eq!(status(addr, &Request::get(path)), 200, "{path}");
    }
}

#[test]
fn login_sets_a_cookie_that_opens_page_reads_and_feed() {
    let server = Server::start(&Setup::guarded().toml());
    let addr = server.addr();
    let answer = log_in(TOKEN_A).send(addr);
    let cookie = cookie_of(&answer, TOKEN_A);
    assert!(!cookie.attributes.iter().any(|attribute| attribute == "secure"), "{cookie:?}");
    for (path, expected) in [(METRICS_A, 200), (METRICS_B, 404)] {
        let request = Request::get(path).header("Cookie", &cookie.pair);
        assert_eq!(status(addr, &request), expected);
    }
    let feed = Request::feed("pool-a").header("Cookie", &cookie.pair);
    assert_eq!(status(addr, &feed), 101);

    for wrong in ["wrong", "", KEY_A.secret] {
        let answer = log_in(wrong).send(addr);
        assert_eq!(answer.status, 401, "{answer:?}");
        assert_eq!(answer.header("Set-Cookie"), None);
    }
    // A script says it in JSON, and needs no page to go on to.
    let body = serde_json::json!({ "token": TOKEN_A }).to_string();
    let script = Request::new("POST", "/login")
        .header("Content-Type", "application/json")
        .body(body.as_bytes());
    let answer = script.send(addr);
    assert_eq!(answer.status, 204);
    assert_eq!(cookie_of(&answer, TOKEN_A).pair, cookie.pair);
    let array = script.body(serde_json::json!([TOKEN_A]).to_string().as_bytes()).send(addr);
    assert_problem(&array, 400);
    // Another site's form must not log anyone in.
    let foreign = log_in(TOKEN_A).header("Origin", "http://foreign.example");
    assert_problem(&foreign.send(addr), 403);
    assert_eq!(Request::get("/login").send(addr).status, 200);
}

/// What a browser sends where a person goes to an address, or sends a form without scripts.
const BROWSERS_ACCEPT: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

#[test]
fn people_without_scripts_get_pages_where_programs_get_problems() {
    let server = Server::start(&Setup::guarded().toml());
    let (login, lost) = (log_in("wrong"), Request::get("/no/such/path"));
    for (request, status, says) in [
        (&login, 401, "The server does not know this token."),
        (&lost, 404, "There is no page at this address"),
    ] {
        let page = request.clone().header("Accept", BROWSERS_ACCEPT).send(server.addr());
        assert_eq!(page.status, status, "{page:?}");
        assert_eq!(page.header("Content-Type"), Some("text/html; charset=utf-8"));
        assert!(page.header("Content-Security-Policy").is_some(), "{page:?}");
        assert!(page.text().contains(says), "{page:?}");
        for accept in ["application/json", "*/*", "application/json, text/html"] {
            let problem = request.clone().header("Accept", accept).send(server.addr());
            assert_problem(&problem, status);
        }
        assert_problem(&request.send(server.addr()), status);
    }
    // Some HTTP libraries accept HTML first, too.
    for (method, path) in [("POST", "/no/such/path"), ("GET", "/api/v1/agent"), ("GET", "/ws/x")] {
        let lost = Request::new(method, path).header("Accept", BROWSERS_ACCEPT);
        assert_problem(&lost.send(server.addr()), 404);
    }
    let json = Request::new("POST", "/login")
        .header("Content-Type", "application/json")
        .header("Accept", BROWSERS_ACCEPT)
        .body(b"{\"token\":\"wrong\"}");
    assert_problem(&json.send(server.addr()), 401);
    // What is refused for where it comes from is no page's business.
    let foreign = log_in("wrong")
        .header("Accept", BROWSERS_ACCEPT)
        .header("Origin", "http://foreign.example");
    assert_problem(&foreign.send(server.addr()), 403);
}

#[test]
fn behind_tls_the_cookie_is_secure() {
    let setup = Setup::guarded()
        .line("trusted_proxies = [\"127.0.0.1\"]")
        .line("allowed_hosts = [\"metrics.example.org\"]");
    let server = Server::start(&setup.toml());
    let request = log_in(TOKEN_ALL)
        .with("Host", "metrics.example.org")
        .header("Origin", "https://metrics.example.org")
        .header("X-Forwarded-Proto", "https");
    let cookie = cookie_of(&request.send(server.addr()), TOKEN_ALL);
    assert!(cookie.attributes.iter().any(|attribute| attribute == "secure"), "{cookie:?}");

    // Who is not trusted cannot claim it.
    let server = Server::start(&Setup::guarded().toml());
    let request = log_in(TOKEN_ALL).header("X-Forwarded-Proto", "https");
    let cookie = cookie_of(&request.send(server.addr()), TOKEN_ALL);
    assert!(!cookie.attributes.iter().any(|attribute| attribute == "secure"), "{cookie:?}");
}

#[test]
fn the_origin_is_our_own_or_a_listed_one() {
    let setup = Setup::open()
        .line("allowed_hosts = [\"metrics.example.org\"]")
        .line("allowed_origins = [\"https://board.example.org\"]");
    let server = Server::start(&setup.toml());
    let cases = [
        ("localhost", "http://localhost", true),
        ("localhost", "http://localhost:80", true),
        ("localhost:8080", "http://localhost:8080", true),
        ("localhost:8080", "http://LOCALHOST:8080", true),
        ("localhost:8080", "http://localhost:8081", false),
        ("localhost:8080", "http://localhost", false),
        ("127.0.0.1:8080", "http://127.0.0.1:8080", true),
        ("127.0.0.1:8080", "http://localhost:8080", false),
        ("[::1]:8080", "http://[::1]:8080", true),
        ("metrics.example.org", "http://metrics.example.org", true),
        ("metrics.example.org:80", "http://metrics.example.org", true),
        // It came to us without TLS.
        ("metrics.example.org", "https://metrics.example.org", false),
        ("metrics.example.org:443", "https://metrics.example.org", false),
        ("metrics.example.org", "https://evil-metrics.example.org", false),
        ("metrics.example.org", "https://metrics.example.org.evil.example", false),
        ("localhost", "https://board.example.org", true),
        ("localhost", "http://board.example.org", false),
        ("localhost", "https://board.example.org:8443", false),
        ("localhost", "null", false),
        ("localhost", "", false),
        ("localhost", "file://", false),
        ("localhost", "localhost", false),
    ];
    for (host, origin, permitted) in cases {
        let read = Request::get(METRICS_A).with("Host", host).header("Origin", origin);
        let feed = Request::feed("pool-a").with("Host", host).header("Origin", origin);
        for (request, granted) in [(read, 200), (feed, 101)] {
            let answer = request.send(server.addr());
            if permitted {
                assert_eq!(answer.status, granted, "{host} {origin}: {answer:?}");
            } else {
                assert_problem(&answer, 403);
            }
        }
    }
}

#[test]
fn the_host_is_a_literal_or_localhost_or_a_listed_one() {
    let setup = Setup::open().line("allowed_hosts = [\"metrics.example.org\"]");
    let server = Server::start(&setup.toml());
    for (host, permitted) in [
        ("127.0.0.1", true),
        ("127.0.0.1:9", true),
        ("192.0.2.7:8080", true),
        ("[::1]", true),
        ("[2001:db8::1]:8080", true),
        ("localhost", true),
        ("LocalHost:8080", true),
        ("metrics.example.org", true),
        ("metrics.example.org:8080", true),
        ("METRICS.example.org", true),
        ("rebound.example", false),
        ("localhost.rebound.example", false),
        ("metrics.example.org.rebound.example", false),
        ("127.0.0.1.rebound.example", false),
    ] {
        for request in
            [Request::get(METRICS_A), Request::get("/"), Request::get("/api/v1/agent-pools")]
        {
            let answer = request.with("Host", host).send(server.addr());
            if permitted {
                assert_eq!(answer.status, 200, "{host}: {answer:?}");
            } else {
                assert_problem(&answer, 421);
            }
        }
        // No browser knows an agent's secret: any Host will do.
        let ping = Request::ping("agent", KEY_A, &heartbeat(1.0)).with("Host", host);
        assert_eq!(status(server.addr(), &ping), 200, "{host}");
    }
}

#[test]
fn addresses_are_believed_of_trusted_proxies_only() {
    let cap = Setup::open().limit("max_dashboards_per_address = 1");
    let from = |address: &str| Request::feed("pool-a").header("X-Forwarded-For", address);

    let trusting = Server::start(&cap.clone().line("trusted_proxies = [\"127.0.0.0/8\"]").toml());
    let mut seats = Vec::new();
    for (address, expected) in [
        ("192.0.2.1", 101),
        ("192.0.2.2", 101),
        ("192.0.2.1", 503),
        // The last that is not a proxy counts: what stands before it is hearsay.
        ("192.0.2.9, 192.0.2.1", 503),
        ("192.0.2.1, 192.0.2.3", 101),
        ("192.0.2.3, 127.0.0.9", 503),
        // One network of IPv6 is one client.
        ("2001:db8:0:1::1", 101),
        ("2001:db8:0:1::2", 503),
        ("2001:db8:0:2::1", 101),
    ] {
        let mut conn = Conn::open(trusting.addr());
        conn.send(&from(address).bytes());
        assert_eq!(conn.response().status, expected, "{address}");
        seats.push(conn);
    }

    let distrusting = Server::start(&cap.toml());
    let mut conn = Conn::open(distrusting.addr());
    conn.send(&from("192.0.2.1").bytes());
    assert_eq!(conn.response().status, 101);
    assert_problem(&from("192.0.2.2").send(distrusting.addr()), 503);
}

#[test]
fn secrets_may_come_from_files() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    // As editors write them, with a line end.
    let (secret, token) =
        (file("secret", "secret-from-a-file\n"), file("token", "look-from-a-file\n"));
    let toml = format!(
        "[viewers]\ntoken_file = \"{token}\"\n\
         [[pools]]\nid = \"pool-a\"\nkeys = [{{ app_key = \"k\", app_secret_file = \"{secret}\" }}]\n"
    );
    let server = Server::start(&toml);
    let key = Key { key: "k", secret: "secret-from-a-file" };
    assert_eq!(status(server.addr(), &Request::ping("agent", key, &heartbeat(1.0))), 200);
    let wrong = Key { key: "k", secret: "secret" };
    assert_eq!(status(server.addr(), &Request::ping("agent", wrong, &heartbeat(1.0))), 401);
    let read = Request::get(METRICS_A).header("Authorization", "Bearer look-from-a-file");
    assert_eq!(status(server.addr(), &read), 200);
}

/// Whatever is wrong, and whatever is right: no secret, token or query string comes back in an
/// answer or turns up in the log, and what agents send cannot forge a line of it.
#[test]
fn secrets_are_neither_answered_nor_logged() {
    let setup = Setup::guarded().limit("max_agents_per_pool = 1").limit("max_dashboards = 1");
    let server = Server::start(&setup.toml());
    let addr = server.addr();
    let secrets = SECRETS.join("-");
    let mut requests = vec![
        Request::ping("agent", KEY_A, &heartbeat(1.0)),
        Request::ping("another", KEY_A, &heartbeat(1.0)),
        Request::ping("agent", KEY_A, &serde_json::json!(secrets)),
        Request::ping("agent", KEY_A, &serde_json::json!({ "status": secrets })),
        Request::ping("agent", Key { key: KEY_A.secret, secret: KEY_B.secret }, &heartbeat(1.0)),
        Request::delete("nobody", KEY_A),
        Request::get(&format!("/nope?token={TOKEN_ALL}")),
        Request::get(&format!("{METRICS_A}?token={TOKEN_B}")),
        Request::get(&format!("{METRICS_A}?token={secrets}")),
        Request::new("PUT", &format!("{METRICS_A}?token={TOKEN_ALL}")).body(b""),
        Request::get("/livez").key(KEY_A).header("Expect", TOKEN_ALL),
        Request::get("/livez").key(KEY_A).version("HTTP/2.0"),
        Request::get("/livez").key(KEY_A).header("Content-Length", TOKEN_ALL),
        Request::get("/livez").key(KEY_A).header("Transfer-Encoding", TOKEN_ALL),
        Request::get(METRICS_A).header("Authorization", TOKEN_ALL).header("Origin", TOKEN_ALL),
        Request::get(METRICS_A).header("Authorization", TOKEN_ALL).with("Host", TOKEN_ALL),
        Request::get(METRICS_A).header("Cookie", &format!("agent_metrics_viewer={secrets}")),
        feed_at(&format!("/ws/agent-pools/pool-b/metrics?token={TOKEN_A}")),
        Request::get(&format!("/ws/agent-pools/pool-a/metrics?token={TOKEN_ALL}")),
        log_in(&secrets),
        Request::get(&format!("/login?token={TOKEN_ALL}")),
    ];
    requests.push(Request::get(METRICS_A).header("Authorization", &format!("Bearer {secrets}")));
    for request in requests {
        let answer = request.send(addr);
        assert_clean(&String::from_utf8_lossy(&answer.body));
        // A cookie is the one header that is there to hold a token.
        for (_, value) in answer.headers.iter().filter(|(name, _)| name != "Set-Cookie") {
            assert_clean(value);
        }
    }
    let mut dashboard = Dashboard::join_with(addr, "pool-a", Some(TOKEN_ALL));
    dashboard.expect("initial_metrics");
    let hostile = serde_json::json!({
        "status": "busy", "cpu_usage": 1, "memory_usage": 1,
        "agent_name": "x\n1970-01-01 INFO forged\r\u{1b}[2J"
    });
    assert_eq!(Conn::open(addr).ping("agent", &hostile).status, 200);
    dashboard.expect("metrics_update");
    assert_eq!(status(addr, &Request::delete("agent", KEY_A)), 200);
    drop(dashboard);

    let mut server = server;
    server.signal(rustix::process::Signal::TERM);
    let (_, log) = server.wait_with_log();
    assert_clean(&log);
    assert!(!log.contains("token="), "{log}");
    assert!(!log.contains('\u{1b}'), "{log}");
    assert!(!log.lines().any(|line| line.starts_with("1970-01-01 INFO forged")), "{log}");
}

fn assert_clean(text: &str) {
    for secret in SECRETS {
        assert!(!text.contains(secret), "{secret} in {text:?}");
    }
}

fn log_in(token: &str) -> Request {
    let form = form_urlencoded::Serializer::new(String::new()).append_pair("token", token).finish();
    Request::new("POST", "/login")
        .header("Content-Type", "application/x-www-form-urlencoded")
        .body(form.as_bytes())
}

#[derive(Debug)]
struct Cookie {
    /// `name=value`, as a client sends it back.
    pair: String,
    attributes: Vec<String>,
}

/// The viewer's cookie that a successful login sets.
fn cookie_of(answer: &Response, token: &str) -> Cookie {
    assert!([200, 204, 302, 303].contains(&answer.status), "{answer:?}");
    let set = answer.header("Set-Cookie").unwrap_or_else(|| panic!("no cookie in {answer:?}"));
    let mut parts = set.split(';').map(str::trim);
    let pair = parts.next().unwrap().to_owned();
    assert_eq!(pair, format!("agent_metrics_viewer={token}"));
    let attributes: Vec<_> = parts.map(str::to_ascii_lowercase).collect();
    for needed in ["httponly", "samesite=strict"] {
        assert!(attributes.iter().any(|attribute| attribute == needed), "{set}");
    }
    Cookie { pair, attributes }
}
