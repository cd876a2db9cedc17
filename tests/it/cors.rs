//! What browsers are told about pages of other origins: who is listed reads what viewers read and
//! loads the page's files, with a token of its own; nobody else is told anything.

use std::net::SocketAddr;

use crate::refusals::assert_problem;
use crate::support::http::heartbeat;
use crate::support::setup::{KEY_A, TOKEN_A, TOKEN_ALL};
use crate::support::{Conn, Request, Response, Server, Setup};

const BOARD: &str = "https://board.example.org";
const METRICS_A: &str = "/api/v1/agent-pools/pool-a/metrics";
const READS: [&str; 3] = ["/api/v1/agent-pools", METRICS_A, "/api/v1/status"];
const FILES: [&str; 3] = ["/metrics-client.js", "/metrics-client.d.ts", "/"];
/// What is for no other site's script, with the methods that it takes.
const OTHERS: [(&str, &str); 6] = [
    ("/login", "GET, HEAD, POST"),
    ("/ws/agent-pools/pool-a/metrics", "GET"),
    ("/api/v1/agents/agent/ping", "POST"),
    ("/api/v1/agents/agent", "DELETE"),
    ("/livez", "GET, HEAD"),
    ("/readyz", "GET, HEAD"),
];

/// With [`BOARD`] listed.
fn server(setup: Setup) -> Server {
    let origins = format!("allowed_origins = [\"http://second.example:3000\", \"{BOARD}\"]");
    Server::start(&setup.line(&origins).toml())
}

fn preflight(path: &str) -> Request {
    Request::new("OPTIONS", path)
        .header("Origin", BOARD)
        .header("Access-Control-Request-Method", "GET")
        .header("Access-Control-Request-Headers", "authorization")
}

/// On a connection that goes on afterwards.
fn send(addr: SocketAddr, request: &Request) -> Response {
    let mut conn = Conn::open(addr);
    conn.send(&request.bytes());
    let answer = conn.response();
    conn.send(&Request::get("/livez").bytes());
    assert_eq!(conn.response().status, 200, "after {request:?}");
    answer
}

/// May be read by scripts of `origin`, and by no others', and not with our cookie.
fn assert_shared(answer: &Response, origin: &str) {
    assert_eq!(answer.header("Access-Control-Allow-Origin"), Some(origin), "{answer:?}");
    assert_eq!(answer.header("Vary"), Some("Origin"), "{answer:?}");
    assert_eq!(answer.header("Access-Control-Allow-Credentials"), None, "{answer:?}");
}

fn assert_not_shared(answer: &Response) {
    let cors = |(name, _): &(String, String)| name.to_lowercase().starts_with("access-control-");
    assert!(!answer.headers.iter().any(cors), "{answer:?}");
}

#[test]
fn a_listed_origin_reads_what_viewers_read_and_loads_the_files() {
    let server = server(Setup::open());
    for path in READS.into_iter().chain(FILES) {
        for origin in [BOARD, "http://second.example:3000"] {
            let answer = send(server.addr(), &Request::get(path).header("Origin", origin));
            assert_eq!(answer.status, 200, "{path}");
            assert_shared(&answer, origin);
            let head = Request::new("HEAD", path).header("Origin", origin).send(server.addr());
            assert_eq!(head.status, 200, "{path}");
            assert_shared(&head, origin);
        }
    }
    // What a cache has, it may go on using, for that origin.
    let script = Request::get("/metrics-client.js").send(server.addr());
    let tag = script.header("ETag").unwrap();
    let again = Request::get("/metrics-client.js").header("If-None-Match", tag);
    let answer = send(server.addr(), &again.header("Origin", BOARD));
    assert_eq!(answer.status, 304);
    assert_shared(&answer, BOARD);
}

#[test]
fn refusals_can_be_read_too() {
    let server = server(Setup::guarded());
    let read = |path: &str| Request::get(path).header("Origin", BOARD);
    let bearer = |request: Request, token: &str| {
        send(server.addr(), &request.header("Authorization", &format!("Bearer {token}")))
    };
    let refused = send(server.addr(), &read(METRICS_A));
    assert_problem(&refused, 401);
    assert_shared(&refused, BOARD);
    let exposed = refused.header("Access-Control-Expose-Headers").unwrap();
    assert!(exposed.contains("WWW-Authenticate"), "{exposed}");
    assert!(refused.header("WWW-Authenticate").is_some());

    let granted = bearer(read(METRICS_A), TOKEN_A);
    assert_eq!(granted.status, 200);
    assert_shared(&granted, BOARD);
    for (path, token, status) in [
        (METRICS_A, "wrong", 401),
        ("/api/v1/agent-pools/pool-b/metrics", TOKEN_A, 404),
        ("/api/v1/agent-pools/none/metrics", TOKEN_ALL, 404),
        ("/api/v1/status", TOKEN_A, 404),
    ] {
        let refused = bearer(read(path), token);
        assert_problem(&refused, status);
        assert_shared(&refused, BOARD);
    }
    let put = Request::new("PUT", METRICS_A).header("Origin", BOARD).body(b"");
    let refused = send(server.addr(), &put);
    assert_problem(&refused, 405);
    assert_shared(&refused, BOARD);
}

#[test]
fn a_preflight_of_a_listed_origin_is_granted_without_a_token() {
    let server = server(Setup::guarded());
    for path in READS.into_iter().chain(["/api/v1/agent-pools/none/metrics"]) {
        let answer = send(server.addr(), &preflight(path));
        assert_eq!(answer.status, 204, "{path}: {answer:?}");
        assert_shared(&answer, BOARD);
        assert_eq!(answer.header("Access-Control-Allow-Methods"), Some("GET, HEAD"));
        assert_eq!(answer.header("Access-Control-Allow-Headers"), Some("Authorization"));
        let max_age = answer.header("Access-Control-Max-Age").unwrap();
        assert!(max_age.parse::<u32>().unwrap() > 0, "{max_age}");
        assert_eq!(answer.header("Content-Length"), None, "RFC 9110 section 8.6");
    }
}

#[test]
fn foreign_origins_are_refused_and_told_nothing() {
    let server = server(Setup::open());
    for origin in [
        "http://board.example.org",
        "https://board.example.org:8443",
        "https://evil.example",
        "null",
    ] {
        for path in READS.into_iter().chain(FILES) {
            for method in ["GET", "HEAD"] {
                let answer =
                    Request::new(method, path).header("Origin", origin).send(server.addr());
                assert_eq!(answer.status, 403, "{method} {path} {origin}");
                assert_not_shared(&answer);
                assert_eq!(answer.header("Vary"), Some("Origin"));
            }
        }
        for path in READS {
            let answer = send(server.addr(), &preflight(path).with("Origin", origin));
            assert_problem(&answer, 403);
            assert_not_shared(&answer);
        }
    }
    let rebound = preflight(METRICS_A).with("Host", "rebound.example");
    assert_problem(&send(server.addr(), &rebound), 421);
}

#[test]
fn our_own_pages_and_programs_get_no_cors_header_but_caches_are_warned() {
    let server = server(Setup::open());
    for path in READS.into_iter().chain(FILES) {
        let own = Request::get(path).with("Host", "localhost:81");
        for request in [Request::get(path), own.header("Origin", "http://localhost:81")] {
            let answer = send(server.addr(), &request);
            assert_eq!(answer.status, 200, "{path}");
            assert_not_shared(&answer);
            assert_eq!(answer.header("Vary"), Some("Origin"), "{path}");
        }
    }
}

#[test]
fn heartbeats_login_and_feed_are_not_for_other_sites() {
    let server = server(Setup::open());
    let ping = Request::ping("agent", KEY_A, &heartbeat(1.0)).header("Origin", BOARD);
    let answer = send(server.addr(), &ping);
    assert_eq!(answer.status, 200);
    assert_not_shared(&answer);
    assert_eq!(answer.header("Vary"), None);
    for (path, _) in OTHERS {
        assert_not_shared(&send(server.addr(), &Request::get(path).header("Origin", BOARD)));
    }
    assert_eq!(Request::feed("pool-a").header("Origin", BOARD).send(server.addr()).status, 101);
}

#[test]
fn options_is_for_preflights_of_reads_and_nothing_else() {
    let server = server(Setup::open());
    let allowed = |request: Request| {
        let answer = send(server.addr(), &request);
        assert_problem(&answer, 405);
        answer.header("Allow").unwrap().to_owned()
    };
    for (path, allow) in OTHERS.into_iter().chain(FILES.map(|path| (path, "GET, HEAD"))) {
        assert_eq!(allowed(preflight(path)), allow, "{path}");
    }
    for path in READS {
        assert_eq!(allowed(Request::new("OPTIONS", path)), "GET, HEAD");
        assert_eq!(allowed(preflight(path).without("Origin")), "GET, HEAD");
        assert_eq!(allowed(preflight(path).without("Access-Control-Request-Method")), "GET, HEAD");
        // Our own page has no need to ask.
        assert_eq!(allowed(preflight(path).with("Origin", "http://localhost")), "GET, HEAD");
    }
    assert_problem(&send(server.addr(), &preflight("/nope")), 404);
}
