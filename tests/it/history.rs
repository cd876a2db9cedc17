//! The last 15 minutes of a pool's agents, as the page's charts read them.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::http::{Response, heartbeat};
use crate::support::setup::{KEY_A, KEY_B, TOKEN_A, TOKEN_ALL, TOKEN_B};
use crate::support::{Conn, Dashboard, Launch, Request, Server, Setup};

const PATH: &str = "/api/v1/agent-pools/pool-a/history";

fn get(addr: SocketAddr, query: &str) -> Response {
    Request::get(&format!("{PATH}{query}")).send(addr)
}

fn ids(history: &Value) -> Vec<&str> {
    history["agents"].as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn a_history_has_what_agents_reported() {
    let server = Server::start(&Setup::open().toml());
    let mut conn = Conn::open(server.addr());
    let empty = get(server.addr(), "").json();
    assert_eq!(empty["agents"], json!({}));
    for (agent, key, cpu) in
        [("b", KEY_A, 1.0), ("b", KEY_A, 2.25), ("a", KEY_A, 100.0), ("c", KEY_B, 3.0)]
    {
        assert_eq!(conn.ping_as(agent, key, &heartbeat(cpu)).status, 200);
    }
    conn.send(&Request::delete("a", KEY_A).bytes());
    assert_eq!(conn.response().status, 200);
    let response = get(server.addr(), "");
    assert_eq!(response.status, 200);
    assert_eq!(response.header("Content-Type"), Some("application/json"));
    assert_eq!(response.header("Cache-Control"), Some("no-store"));
    let history = response.json();
    let initial = Dashboard::join(server.addr(), "pool-a").expect("initial_metrics");
    assert_eq!((&history["pool_id"], &history["epoch"]), (&json!("pool-a"), &initial["epoch"]));
    assert_eq!(history["step_ms"], 10_000);
    let time = |member: &str| humantime::parse_rfc3339(history[member].as_str().unwrap()).unwrap();
    let left = time("end").duration_since(time("server_time")).unwrap();
    assert!(left > Duration::ZERO && left <= Duration::from_secs(10), "{left:?}");
    assert_eq!(ids(&history), ["a", "b"], "who departed too, and nobody of another pool");
    for (agent, cpu) in [("a", 100.0), ("b", 2.3)] {
        let figures = &history["agents"][agent];
        // A step may have ended meanwhile.
        let seen = |member: &str| -> Vec<Value> {
            let figures = figures[member].as_array().unwrap();
            assert_eq!(figures.len(), 90);
            figures.iter().filter(|figure| !figure.is_null()).cloned().collect()
        };
        assert_eq!(seen("cpu").first(), Some(&json!(cpu)), "{agent}");
        assert_eq!(seen("memory").first(), Some(&heartbeat(cpu)["memory_usage"]), "{agent}");
    }
    let some = get(server.addr(), "?agent=b&agent=nobody&agent=c&agent=b").json();
    assert_eq!(ids(&some), ["b"], "the others are not in this pool");
    assert_eq!(some["agents"]["b"].as_object().unwrap().len(), 2);
}

#[test]
fn a_history_is_refused_as_metrics_are() {
    let server = Server::start(&Setup::guarded().toml());
    let status = |method: &str, query: &str, token: &str| {
        let request = Request::new(method, &format!("{PATH}{query}"));
        let request = request.header("Authorization", &format!("Bearer {token}"));
        let response = request.send(server.addr());
        (response.status, response.json()["detail"].as_str().map(str::to_owned))
    };
    for token in [TOKEN_A, TOKEN_ALL] {
        assert_eq!(status("GET", "", token), (200, None));
    }
    assert_eq!(status("GET", "", TOKEN_B), (404, Some("no such pool".to_owned())));
    assert_eq!(status("GET", "?agent=", TOKEN_B).0, 404, "nothing is said of the query");
    assert_eq!(status("GET", "", "wrong").0, 401);
    assert_eq!(get(server.addr(), &format!("?token={TOKEN_A}&agent=a")).status, 200);
    assert_eq!(status("POST", "", TOKEN_A).0, 405);
    let most = format!("?{}", vec!["agent=a"; 100].join("&"));
    assert_eq!(status("GET", &most, TOKEN_A).0, 200);
    let too_many = Some("agent may come at most 100 times".to_owned());
    assert_eq!(status("GET", &format!("{most}&agent=a"), TOKEN_A), (400, too_many));
    let rule = "agent must be 1 to 128 characters of A-Z a-z 0-9 . _ - (and not . or ..)";
    assert_eq!(status("GET", "?agent=a%2Fb", TOKEN_A), (400, Some(rule.to_owned())));
}

#[test]
fn head_says_what_get_would_say() {
    let server = Server::start(&Setup::open().toml());
    let mut conn = Conn::open(server.addr());
    for (query, status) in [("", 200), ("?agent=a", 200), ("?agent=.", 400)] {
        conn.send(&Request::new("HEAD", &format!("{PATH}{query}")).bytes());
        let response = conn.head_response();
        assert_eq!((response.status, response.body.len()), (status, 0), "{query}");
    }
}

#[test]
fn an_evicted_agents_history_can_still_be_read() {
    let server = Launch::config(&Setup::open().toml()).arg("--evict-after").arg("1s").start();
    let mut dashboard = Dashboard::join(server.addr(), "pool-a");
    dashboard.expect("initial_metrics");
    assert_eq!(Conn::open(server.addr()).ping("a", &heartbeat(7.0)).status, 200);
    dashboard.expect("metrics_update");
    dashboard.expect("agent_offline");
    let history = get(server.addr(), "?agent=a").json();
    assert!(history["agents"]["a"]["cpu"].as_array().unwrap().contains(&json!(7.0)));
}

/// Of thousands of agents, all of it comes, in order.
#[test]
fn a_large_pools_history_comes_whole() {
    const AGENTS: usize = 3_000;
    const PIPELINED: usize = 100;
    let server = Server::start(&Setup::open().toml());
    let mut conn = Conn::open(server.addr());
    let body = heartbeat(50.0);
    for first in (0..AGENTS).step_by(PIPELINED) {
        let ping = |n| Request::ping(&format!("agent-{n:04}"), KEY_A, &body).bytes();
        conn.send(&(first..first + PIPELINED).flat_map(ping).collect::<Vec<_>>());
        for _ in 0..PIPELINED {
            assert_eq!(conn.response().status, 200);
        }
    }
    let text = get(server.addr(), "").text();
    let members: Vec<_> =
        text.match_indices("\"agent-").map(|(at, _)| &text[at + 1..at + 11]).collect();
    let expected: Vec<_> = (0..AGENTS).map(|n| format!("agent-{n:04}")).collect();
    assert_eq!(members, expected);
    let history: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(history["agents"].as_object().unwrap().len(), AGENTS);
}
