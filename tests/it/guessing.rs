//! What becomes of wrong credentials: slower from the twenty-first in a minute on, at no cost to
//! others, counted by reason, and shown in the log once a minute and cause.

use std::time::Duration;

use crate::refusals::assert_problem;
use crate::support::http::heartbeat;
use crate::support::setup::{KEY_A, KEY_B, Key, TOKEN_ALL, TOKEN_B};
use crate::support::status::Status;
use crate::support::wait::now;
use crate::support::{Conn, Launch, Request, Server, Setup};

/// Refusals in a minute that one address gets at once.
const AT_ONCE: usize = 20;

/// Less than the second that a delayed refusal takes by as much as the start of the server's turn
/// may be before our own reading of the clock.
const NEARLY_THE_DELAY: Duration = Duration::from_millis(900);

fn log_in(token: &str) -> Request {
    Request::new("POST", "/login").body(format!("token={token}").as_bytes())
}

fn bearer(request: Request, token: &str) -> Request {
    request.header("Authorization", &format!("Bearer {token}"))
}

#[test]
fn guesses_wait_from_the_twenty_first_on_and_right_credentials_never() {
    let setup = Setup::guarded().line("trusted_proxies = [\"127.0.0.1\"]");
    let server = Server::start(&setup.toml());
    let wrong_key = Key { key: KEY_A.key, secret: "wrong" };
    // Wrong and right, each kind from an address of its own, as the proxy tells it.
    let kinds = [
        (
            Request::ping("a", wrong_key, &heartbeat(1.0)),
            Request::ping("a", KEY_A, &heartbeat(1.0)),
            200,
        ),
        (Request::get("/api/v1/status"), bearer(Request::get("/api/v1/status"), TOKEN_ALL), 200),
        (Request::feed("pool-a"), bearer(Request::feed("pool-a"), TOKEN_ALL), 101),
        (log_in("wrong"), log_in(TOKEN_B), 303),
    ];
    let mut waiting = Vec::new();
    for (number, (wrong, right, granted)) in kinds.into_iter().enumerate() {
        let from = |request: Request, host: usize| {
            request.header("X-Forwarded-For", &format!("2001:db8:0:{number}::{host:x}"))
        };
        for host in 0..AT_ONCE {
            assert_problem(&from(wrong.clone(), host).send(server.addr()), 401);
        }
        let mut conn = Conn::open(server.addr());
        let sent = now();
        conn.send(&from(wrong, 99).bytes());
        waiting.push((conn, sent));
        assert_eq!(from(right, 99).send(server.addr()).status, granted);
    }
    for (conn, sent) in &mut waiting {
        assert_problem(&conn.response(), 401);
        let took = now() - *sent;
        assert!(took >= NEARLY_THE_DELAY, "the twenty-first guess was answered after {took:?}");
    }
    let status = bearer(Request::get("/api/v1/status"), TOKEN_ALL).send(server.addr()).json();
    assert_eq!(status["counters"]["refusals_delayed"], 4, "{status}");
}

#[test]
fn refusals_are_counted_by_reason_and_the_log_says_who_and_why() {
    let setup = Setup::open().line("trusted_proxies = [\"127.0.0.1\"]");
    let mut server = Server::start(&setup.toml());
    let good = heartbeat(1.0);
    let ping = |agent: &str, key: &'static str, secret: &'static str| {
        Request::ping(agent, Key { key, secret }, &good).header("X-Forwarded-For", "192.0.2.7")
    };
    let bad_body = serde_json::json!({ "status": "idle", "cpu_usage": 101, "memory_usage": 1 });
    let hostile = "k\"\u{7f}".replace('\u{7f}', "\\n1970-01-01 INFO forged");
    let agents = [
        (ping("a-1", "nobody", "wrong"), 401, "unknown_key"),
        (ping("a-2", KEY_A.key, "wrong"), 401, "wrong_secret"),
        (ping("a-3", KEY_A.key, "wrong").without("X-App-Secret"), 401, "missing_header"),
        (
            Request::ping("a-4", KEY_B, &bad_body).header("X-Forwarded-For", "192.0.2.7"),
            400,
            "bad_heartbeat",
        ),
        (Request::get("/").with("Host", "evil.example"), 421, "foreign_host"),
        (Request::get("/login").header("Origin", "http://evil.example"), 403, "foreign_origin"),
        (ping("a-5", "x", "wrong").with("X-App-Key", &hostile), 401, "unknown_key"),
    ];
    for (request, status, _) in &agents {
        assert_problem(&request.send(server.addr()), *status);
    }
    let status = Status::read(server.addr());
    for (_, _, reason) in &agents {
        let expected = if *reason == "unknown_key" { 2 } else { 1 };
        assert_eq!(status.counter(&format!("refused_{reason}")), expected, "{reason}: {status:?}");
    }
    server.log().wait_for("refused 1 request: foreign Origin");
    for (cause, who) in [
        ("unknown app key", "from 192.0.2.7, app key \"nobo...\" (6 characters), agent \"a-1\""),
        ("wrong secret", "from 192.0.2.7, app key \"key-a\", agent \"a-2\""),
        (
            "credentials missing (X-App-Secret is missing)",
            "from 192.0.2.7, app key \"key-a\", agent \"a-3\"",
        ),
        (
            "bad heartbeat (cpu_usage must be a number from 0 to 100)",
            "from 192.0.2.7, app key \"key-b\", agent \"a-4\"",
        ),
        ("foreign Host (evil.example)", "from 127.0.0.1"),
    ] {
        let line = server.log().wait_for(&format!("refused 1 request: {cause}; "));
        assert!(line.contains(who), "{line}");
    }
    // The second of one cause within the minute has no line of its own; the end tells what is left.
    assert!(!server.log().text().contains("a-5"));
    server.signal(rustix::process::Signal::TERM);
    let (_, log) = server.wait_with_log();
    let left: Vec<_> = log.lines().filter(|line| line.contains("\"a-5\"")).collect();
    let [line] = left[..] else { panic!("{log}") };
    assert!(line.contains("app key \"k\\\"\\\\n...\" (") && !line.contains("forged"), "{line}");
}

/// At debug each refusal has a line, also the second of one cause within the minute.
#[test]
fn at_debug_the_log_names_every_refusal() {
    let server = Launch::config(&Setup::open().toml()).env("AGENT_METRICS_LOG", "debug").start();
    for agent in ["a-1", "a-2"] {
        let wrong = Key { key: KEY_A.key, secret: "wrong" };
        assert_problem(&Request::ping(agent, wrong, &heartbeat(1.0)).send(server.addr()), 401);
        let line = server.log().wait_for(&format!("agent \"{agent}\""));
        assert!(line.contains("wrong secret; from 127.0.0.1, app key \"key-a\""), "{line}");
    }
}
