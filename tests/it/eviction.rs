//! Who is silent is evicted, once and not too soon; who says goodbye is gone at once; and a stall
//! of the server's own is not held against its agents.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::feed::agent_ids;
use crate::support::http::heartbeat;
use crate::support::setup::KEY_A;
use crate::support::wait::{Deadline, now, pause};
use crate::support::{Conn, Dashboard, Launch, Request, Server, Setup, eventually};

#[test]
fn a_silent_agent_is_evicted_exactly_once() {
    let server = Launch::config(&Setup::open().toml()).arg("--evict-after").arg("2s").start();
    let addr = server.addr();
    let mut conn = Conn::open(addr);
    let mut dashboards: Vec<_> = (0..3).map(|_| Dashboard::join(addr, "pool-a")).collect();
    for dashboard in &mut dashboards {
        dashboard.expect("initial_metrics");
    }
    let sent = now();
    assert_eq!(conn.ping("silent", &heartbeat(1.0)).status, 200);
    for dashboard in &mut dashboards {
        dashboard.expect("metrics_update");
        let offline = dashboard.expect("agent_offline");
        assert!(sent.elapsed() >= Duration::from_secs(2), "after {:?}", sent.elapsed());
        assert_eq!(offline["metrics"], json!({ "agent_id": "silent", "status": "offline" }));
        assert_eq!(offline["reason"], "timeout");
    }
    // Two ticks later (half a second each at most) there is still only that one word of it.
    pause(Duration::from_secs(1));
    assert_eq!(conn.ping("mark", &heartbeat(1.0)).status, 200);
    for dashboard in &mut dashboards {
        let next = dashboard.expect("metrics_update");
        assert_eq!(next["metrics"]["agent_id"], "mark");
    }
    // And one that returns is there again.
    assert_eq!(conn.ping("silent", &heartbeat(2.0)).status, 200);
    let back = dashboards[0].until(|message| message["type"] == "metrics_update");
    assert_eq!(back["metrics"]["agent_id"], "silent");
    assert!(agent_ids(&read(addr)).contains(&"silent"));
}

#[test]
fn one_that_keeps_beating_stays() {
    let server =
        Launch::config(&Setup::open().toml()).env("AGENT_METRICS_EVICT_AFTER", "2s").start();
    let mut conn = Conn::open(server.addr());
    let mut dashboard = Dashboard::join(server.addr(), "pool-a");
    dashboard.expect("initial_metrics");
    // Until one is evicted, and another that was heard last when the first was gone.
    for silent in ["first", "second"] {
        assert_eq!(conn.ping(silent, &heartbeat(1.0)).status, 200);
        let deadline = Deadline::usual();
        let mut is_evicted = false;
        while !is_evicted {
            assert!(deadline.left().is_some(), "{silent} is not evicted");
            assert_eq!(conn.ping("steady", &heartbeat(1.0)).status, 200);
            loop {
                let message = dashboard.next();
                let agent = message["metrics"]["agent_id"].as_str().unwrap();
                match message["type"].as_str().unwrap() {
                    "agent_offline" => {
                        assert_eq!(agent, silent);
                        is_evicted = true;
                    }
                    _ if agent == "steady" => break,
                    _ => {}
                }
            }
            pause(Duration::from_millis(50));
        }
    }
    assert_eq!(agent_ids(&read(server.addr())), ["steady"]);
}

#[test]
fn time_that_the_server_was_away_does_not_count() {
    let setup = Setup::open().line("evict_after = \"1s\"");
    let server = Server::start(&setup.toml());
    let mut conn = Conn::open(server.addr());
    let mut dashboard = Dashboard::join(server.addr(), "pool-a");
    dashboard.expect("initial_metrics");
    assert_eq!(conn.ping("agent", &heartbeat(1.0)).status, 200);
    dashboard.expect("metrics_update");

    server.signal(Signal::STOP);
    // Longer than `evict_after`: the stall itself is what is tested.
    pause(Duration::from_millis(1_500));
    server.signal(Signal::CONT);
    let resumed = now();
    // The tick after the stall has its chance to evict before this is over.
    let offline = dashboard.expect("agent_offline");
    assert_eq!(offline["reason"], "timeout");
    assert!(
        resumed.elapsed() >= Duration::from_millis(500),
        "evicted {:?} after it woke",
        resumed.elapsed()
    );
}

#[test]
fn a_goodbye_is_told_at_once_and_known_to_all() {
    let server = Server::start(&Setup::open().toml());
    let mut conn = Conn::open(server.addr());
    let mut dashboard = Dashboard::join(server.addr(), "pool-a");
    dashboard.expect("initial_metrics");

    let goodbye = json!({ "status": "offline" });
    let full_goodbye = json!({
        "status": "offline", "cpu_usage": 3, "memory_usage": 4, "running_tasks": null
    });
    for body in [&goodbye, &full_goodbye] {
        assert_eq!(conn.ping("agent", &heartbeat(1.0)).status, 200);
        assert_eq!(conn.ping("agent", body).status, 200);
        dashboard.expect("metrics_update");
        let offline = dashboard.expect("agent_offline");
        assert_eq!(offline["metrics"], json!({ "agent_id": "agent", "status": "offline" }));
        assert_eq!(offline["reason"], "goodbye");
        assert_eq!(agent_ids(&read(server.addr())), Vec::<&str>::new());
    }
    // Of one who is not known: fine, and nobody hears of it.
    assert_eq!(conn.ping("stranger", &goodbye).status, 200);
    assert_eq!(conn.ping("mark", &heartbeat(1.0)).status, 200);
    assert_eq!(dashboard.expect("metrics_update")["metrics"]["agent_id"], "mark");
}

#[test]
fn delete_removes_an_agent_and_says_whether_it_was_there() {
    let server = Server::start(&Setup::open().toml());
    let mut conn = Conn::open(server.addr());
    let mut dashboard = Dashboard::join(server.addr(), "pool-a");
    dashboard.expect("initial_metrics");
    assert_eq!(conn.ping("agent", &heartbeat(1.0)).status, 200);
    dashboard.expect("metrics_update");

    let delete = Request::delete("agent", KEY_A).bytes();
    conn.send(&delete);
    let answer = conn.response();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("Content-Type"), Some("application/json"));
    assert!(answer.json().is_object());
    assert_eq!(dashboard.expect("agent_offline")["reason"], "goodbye");

    conn.send(&delete);
    let answer = conn.response();
    assert_eq!(answer.status, 404);
    assert_eq!(answer.header("Content-Type"), Some("application/problem+json"));

    // A return is an update like any other, and the agent is there.
    assert_eq!(conn.ping("agent", &heartbeat(2.0)).status, 200);
    assert_eq!(dashboard.expect("metrics_update")["metrics"]["cpu_usage"], 2.0);
    eventually("the agent is back", || {
        (agent_ids(&read(server.addr())) == ["agent"]).then_some(())
    });
}

fn read(addr: std::net::SocketAddr) -> Value {
    Request::get("/api/v1/agent-pools/pool-a/metrics").send(addr).json()
}
