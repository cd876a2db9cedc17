//! The live feed refuses before the upgrade, with a problem body, in the contract's order; and
//! what it does not refuse it upgrades as RFC 6455 says.

use crate::refusals::assert_problem;
use crate::support::setup::{TOKEN_A, TOKEN_ALL};
use crate::support::status::Status;
use crate::support::{Conn, Dashboard, Request, Server, Setup, eventually};

/// Everything is wrong with the first request; each step puts one thing right.
#[test]
fn the_order_of_the_refusals() {
    let setup = Setup::guarded().limit("max_dashboards = 1");
    let server = Server::start(&setup.toml());
    let mut seated = Dashboard::join_with(server.addr(), "pool-a", Some(TOKEN_A));
    seated.expect("initial_metrics");

    let request = Request::feed("pool-b")
        .with("Host", "rebound.example")
        .header("Origin", "http://foreign.example")
        .header("Authorization", "Bearer wrong")
        .with("Sec-WebSocket-Version", "8");
    assert_problem(&request.send(server.addr()), 421);

    let request = request.with("Host", "localhost");
    assert_problem(&request.send(server.addr()), 403);

    let request = request.with("Origin", "http://localhost");
    let answer = request.send(server.addr());
    assert_problem(&answer, 401);
    assert!(answer.header("WWW-Authenticate").is_some());
    assert_problem(&request.clone().without("Authorization").send(server.addr()), 401);

    // A pool that is not this viewer's, and one that is nobody's, look the same.
    let request = request.with("Authorization", &format!("Bearer {TOKEN_A}"));
    let foreign = assert_problem(&request.send(server.addr()), 404);
    let everyone = format!("Bearer {TOKEN_ALL}");
    let unknown = Request::feed("no-such-pool").header("Authorization", &everyone);
    let unknown = assert_problem(&unknown.send(server.addr()), 404);
    assert_eq!(foreign.replace("pool-b", "POOL"), unknown.replace("no-such-pool", "POOL"));

    let request = request.with("Authorization", &everyone);
    assert_problem(&request.send(server.addr()), 426);

    let request = request.with("Sec-WebSocket-Version", "13");
    let answer = request.send(server.addr());
    assert_problem(&answer, 503);
    assert!(answer.header("Retry-After").unwrap().parse::<u32>().is_ok_and(|seconds| seconds > 0));

    // Once there is a seat, it is this request's.
    drop(seated);
    eventually("a seat is free", || {
        let mut conn = Conn::open(server.addr());
        conn.send(&request.bytes());
        (conn.response().status == 101).then_some(())
    });
}

#[test]
fn a_426_says_what_to_upgrade_to() {
    let server = Server::start(&Setup::open().toml());
    let feed = Request::feed("pool-a");
    for request in [
        Request::get("/ws/agent-pools/pool-a/metrics"),
        feed.clone().without("Upgrade"),
        feed.clone().with("Upgrade", "h2c"),
        feed.clone().without("Connection"),
        feed.clone().with("Connection", "keep-alive"),
        feed.clone().with("Sec-WebSocket-Version", "8"),
        feed.clone().without("Sec-WebSocket-Version"),
    ] {
        let answer = request.send(server.addr());
        assert_problem(&answer, 426);
        // RFC 9110 section 15.5.22; RFC 6455 section 4.4.
        let upgrade = answer.header("Upgrade").unwrap();
        assert!(upgrade.eq_ignore_ascii_case("websocket"), "{upgrade}");
        let connection = answer.header("Connection").unwrap().to_ascii_lowercase();
        assert!(connection.contains("upgrade"), "{connection}");
        assert_eq!(answer.header("Sec-WebSocket-Version"), Some("13"));
    }
    // No key, or one that is not 16 bytes in base64, is no handshake at all.
    for request in [
        feed.clone().without("Sec-WebSocket-Key"),
        feed.clone().with("Sec-WebSocket-Key", "c2hvcnQ="),
    ] {
        let answer = request.send(server.addr());
        assert!([400, 426].contains(&answer.status), "{answer:?}");
        assert_problem(&answer, answer.status);
    }
    let post = Request::new("POST", "/ws/agent-pools/pool-a/metrics").body(b"");
    let answer = post.send(server.addr());
    assert_problem(&answer, 405);
    assert!(answer.header("Allow").unwrap().contains("GET"));
}

#[test]
fn a_refusal_leaves_the_connection_usable() {
    let server = Server::start(&Setup::open().toml());
    let mut conn = Conn::open(server.addr());
    conn.send(&Request::feed("nowhere").bytes());
    assert_problem(&conn.response(), 404);
    conn.send(&Request::feed("pool-a").bytes());
    assert_eq!(conn.response().status, 101);
}

#[test]
fn the_handshake_is_that_of_rfc_6455() {
    let server = Server::start(&Setup::open().toml());
    // Tokens are compared without regard to case, and come in lists (section 4.2.1).
    let plain = Request::feed("pool-a");
    let loose = Request::feed("pool-a")
        .with("Connection", "keep-alive, upgrade")
        .with("Upgrade", "WebSocket")
        .header("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits")
        .header("Sec-WebSocket-Protocol", "chat");
    for request in [plain, loose] {
        let mut conn = Conn::open(server.addr());
        conn.send(&request.bytes());
        let answer = conn.response();
        assert_eq!(answer.status, 101, "{answer:?}");
        // The example of section 1.3.
        assert_eq!(answer.header("Sec-WebSocket-Accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert!(answer.header("Upgrade").unwrap().eq_ignore_ascii_case("websocket"));
        assert!(answer.header("Connection").unwrap().eq_ignore_ascii_case("upgrade"));
        // What was not agreed on must not be claimed.
        assert_eq!(answer.header("Sec-WebSocket-Extensions"), None);
        assert_eq!(answer.header("Sec-WebSocket-Protocol"), None);
    }
}

#[test]
fn seats_are_counted_and_given_back() {
    let setup = Setup::open().limit("max_dashboards_per_address = 2");
    let server = Server::start(&setup.toml());
    let mut first = Dashboard::join(server.addr(), "pool-a");
    let mut second = Dashboard::join(server.addr(), "pool-b");
    first.expect("initial_metrics");
    second.expect("initial_metrics");
    assert_eq!(Status::read(server.addr()).counter("dashboards"), 2);
    assert_problem(&Request::feed("pool-a").send(server.addr()), 503);
    drop((first, second));
    eventually("both seats are free", || {
        (Status::read(server.addr()).counter("dashboards") == 0).then_some(())
    });
    Dashboard::join(server.addr(), "pool-a").expect("initial_metrics");
}
