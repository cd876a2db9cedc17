//! What becomes of refusals: counted by reason, and shown in the log once a minute and cause.

use crate::refusals::assert_problem;
use crate::support::http::heartbeat;
use crate::support::setup::{KEY_A, KEY_B, Key};
use crate::support::status::Status;
use crate::support::{Request, Server, Setup};

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
        ("unknown app key", "from 192.0.2.7, app key \"nobody\", agent \"a-1\""),
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
    assert!(line.contains("app key \"k\\\"\\\\n1970-01-01 INFO forged\""), "{line}");
}
