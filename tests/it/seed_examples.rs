//! The seed's two examples work with nothing changed but host, port, ids and keys; and what they
//! print has the seed's members, types and order.

use std::net::{SocketAddr, TcpListener};

use serde_json::{Value, json};

use crate::support::members::Members;
use crate::support::own_network::{self, Place};
use crate::support::seed::{self, Subscriber};
use crate::support::setup::{KEY_A, Key};
use crate::support::tools::{left_out, needs};
use crate::support::{Dashboard, Launch, Request, Server, Setup};

/// The members of a metrics object, as the seed orders them.
const METRICS: [&str; 7] = [
    "agent_id",
    "agent_name",
    "cpu_usage",
    "memory_usage",
    "running_tasks",
    "last_update_time",
    "status",
];

#[test]
fn a_curl_heartbeat_reaches_the_seeds_front_end() {
    needs!(Program("node"), Package("ws"), Program("curl"));
    let server = Server::start(&Setup::open().toml());
    let host = server.addr().to_string();

    let early = Subscriber::start(&host, "pool-a");
    let (agents, raw) = early.wait_for_call("setAgentMetrics", "initial_metrics");
    assert_eq!(agents, json!([]));
    assert_eq!(Members::of(&raw).names()[..3], ["type", "pool_id", "metrics"]);

    let answer = seed::heartbeat(&host, "agent-xxx", KEY_A);
    assert_eq!(answer["message"], "ping received");
    assert_is_time(&answer["last_ping_at"]);

    let (agent, raw) = early.wait_for_call("updateAgentMetrics", "metrics_update");
    assert_is_the_seeds_agent(&agent, &answer);
    let message = Members::of(&raw);
    assert_eq!(message.names()[..3], ["type", "pool_id", "metrics"]);
    assert_has_the_seeds_order(message.text("metrics"));

    let late = Subscriber::start(&host, "pool-a");
    let (agents, raw) = late.wait_for_call("setAgentMetrics", "initial_metrics");
    assert_eq!(agents.as_array().unwrap().len(), 1);
    assert_is_the_seeds_agent(&agents[0], &answer);
    let list = Members::of(&raw).text("metrics").to_owned();
    assert_has_the_seeds_order(list.strip_prefix('[').unwrap().strip_suffix(']').unwrap());

    assert_eq!(Request::delete("agent-xxx", KEY_A).send(server.addr()).status, 200);
    for subscriber in [&early, &late] {
        let (agent, raw) = subscriber.wait_for_call("markAgentOffline", "agent_offline");
        assert_eq!(agent, "agent-xxx");
        let message = Members::of(&raw);
        assert_eq!(message.names()[..3], ["type", "pool_id", "metrics"]);
        assert_eq!(Members::of(message.text("metrics")).names(), ["agent_id", "status"]);
        let offline: Value = serde_json::from_str(message.text("metrics")).unwrap();
        assert_eq!(offline, json!({ "agent_id": "agent-xxx", "status": "offline" }));
    }
}

/// `serve --dev` without anything else: the seed's addresses as they stand. The one test that
/// needs a fixed port, which `make run` may have.
#[test]
fn the_default_port_on_both_loopbacks() {
    needs!(Program("node"), Package("ws"), Program("curl"));
    let name = "seed_examples::the_default_port_on_both_loopbacks";
    if own_network::run(name) == Place::Elsewhere {
        return;
    }
    if let Err(error) = TcpListener::bind("127.0.0.1:8080") {
        left_out(&format!("port 8080 is taken: {error}"));
        return;
    }
    let server = Launch::dev().listen(None).start();
    server.log().wait_for("listening on http://127.0.0.1:8080");
    let mut addresses: Vec<SocketAddr> = vec!["127.0.0.1:8080".parse().unwrap()];
    if TcpListener::bind("[::1]:0").is_ok() {
        server.log().wait_for("listening on http://[::1]:8080");
        addresses.push("[::1]:8080".parse().unwrap());
    } else {
        left_out("this machine has no ::1: only 127.0.0.1 is tested");
    }
    for &addr in &addresses {
        assert_eq!(Request::get("/").send(addr).status, 200, "{addr}");
        Dashboard::join(addr, "local").expect("initial_metrics");
    }

    let subscriber = Subscriber::start("localhost:8080", "local");
    subscriber.wait_for_call("setAgentMetrics", "initial_metrics");
    let key = Key { key: "dev", secret: "dev" };
    let answer = seed::heartbeat("localhost:8080", "agent-of-the-seed", key);
    assert_eq!(answer["message"], "ping received");
    subscriber
        .process
        .stdout
        .wait_for("call updateAgentMetrics {\"agent_id\":\"agent-of-the-seed\"");
}

#[test]
fn dev_shows_this_machine_by_itself() {
    let server = Server::dev();
    let mut dashboard = Dashboard::join(server.addr(), "local");
    dashboard.expect("initial_metrics");
    for _ in 0..2 {
        let agent = dashboard.expect("metrics_update")["metrics"].take();
        for member in ["cpu_usage", "memory_usage"] {
            let percent = agent[member].as_f64().unwrap();
            assert!((0.0..=100.0).contains(&percent), "{agent}");
        }
        // Of a machine that runs this test some memory is in use.
        assert!(agent["memory_usage"].as_f64().unwrap() > 0.0, "{agent}");
    }
}

#[test]
fn dev_stays_on_loopback() {
    for listen in ["0.0.0.0:0", "[::]:0"] {
        let mut server = Launch::dev().listen(Some(listen)).spawn();
        let (status, log) = server.wait_with_log();
        assert!(!status.success());
        assert!(log.contains("--dev") && log.contains("loopback"), "{log}");
    }
}

fn assert_is_the_seeds_agent(agent: &Value, answer: &Value) {
    assert_eq!(agent["agent_id"], "agent-xxx");
    assert_eq!(agent["agent_name"], "agent-xxx");
    assert_eq!(agent["cpu_usage"], 45.5);
    assert_eq!(agent["memory_usage"], 62.3);
    assert_eq!(agent["status"], "busy");
    assert_eq!(agent["last_update_time"], answer["last_ping_at"]);
    assert_eq!(
        agent["running_tasks"],
        json!([{
            "task_id": 123,
            "task_type": "plan",
            "workspace_id": "ws-xxx",
            "started_at": "2025-01-07T10:30:00Z"
        }])
    );
}

fn assert_has_the_seeds_order(metrics: &str) {
    let metrics = Members::of(metrics);
    assert_eq!(metrics.names()[..METRICS.len()], METRICS);
    let tasks = metrics.text("running_tasks");
    let task = Members::of(tasks.strip_prefix('[').unwrap().strip_suffix(']').unwrap());
    assert_eq!(task.names(), ["task_id", "task_type", "workspace_id", "started_at"]);
}

/// RFC 3339, UTC, three digits of milliseconds.
fn assert_is_time(value: &Value) {
    let text = value.as_str().unwrap();
    assert_eq!(text.len(), "2025-01-07T10:35:00.123Z".len(), "{text}");
    assert!(text.ends_with('Z') && humantime::parse_rfc3339(text).is_ok(), "{text}");
}
