//! Pools: equal agent ids in two pools never meet, an empty pool says so at once, and what
//! departed is remembered rightly.

use serde_json::{Value, json};

use crate::support::feed::agent_ids;
use crate::support::http::heartbeat;
use crate::support::setup::{KEY_A, KEY_A_NEW, KEY_B};
use crate::support::{Conn, Dashboard, Request, Server, Setup};

#[test]
fn equal_agent_ids_in_two_pools_never_see_one_another() {
    let server = Server::start(&Setup::open().toml());
    let mut conn = Conn::open(server.addr());
    let mut of_a = Dashboard::join(server.addr(), "pool-a");
    let mut of_b = Dashboard::join(server.addr(), "pool-b");
    assert_eq!(of_a.expect("initial_metrics")["pool_id"], "pool-a");
    assert_eq!(of_b.expect("initial_metrics")["pool_id"], "pool-b");

    for (key, cpu) in [(KEY_A, 1.0), (KEY_B, 2.0), (KEY_A_NEW, 3.0), (KEY_B, 4.0)] {
        assert_eq!(conn.ping_as("twin", key, &heartbeat(cpu)).status, 200);
    }
    conn.send(&Request::delete("twin", KEY_A).bytes());
    assert_eq!(conn.response().status, 200);
    assert_eq!(conn.ping_as("twin", KEY_B, &heartbeat(5.0)).status, 200);

    for (dashboard, pool, loads) in
        [(&mut of_a, "pool-a", vec![1.0, 3.0]), (&mut of_b, "pool-b", vec![2.0, 4.0, 5.0])]
    {
        for cpu in loads {
            let update = dashboard.expect("metrics_update");
            assert_eq!(update["pool_id"], pool);
            assert_eq!(update["metrics"]["agent_id"], "twin");
            assert_eq!(update["metrics"]["cpu_usage"], cpu);
        }
    }
    assert_eq!(of_a.expect("agent_offline")["pool_id"], "pool-a");

    let snapshot = |pool| metrics(server.addr(), pool);
    assert_eq!(agent_ids(&snapshot("pool-a")), Vec::<&str>::new());
    assert_eq!(agent_ids(&snapshot("pool-b")), ["twin"]);
    assert_eq!(snapshot("pool-b")["departed"], json!([]));
    // Nothing of b's was waiting for a: the next word is this.
    assert_eq!(conn.ping("mark", &heartbeat(9.0)).status, 200);
    assert_eq!(of_a.expect("metrics_update")["metrics"]["agent_id"], "mark");
}

#[test]
fn an_empty_pool_says_so_at_once() {
    let server = Server::start(&Setup::open().toml());
    let initial = Dashboard::join(server.addr(), "pool-a").expect("initial_metrics");
    assert_eq!(initial["metrics"], json!([]));
    assert_eq!(initial["departed"], json!([]));
    assert_eq!(initial["departures"], json!({ "lost": 0, "goodbyes": 0 }));
    assert_eq!(initial["seq"], 0);
    assert!(initial["epoch"].as_str().is_some_and(|epoch| !epoch.is_empty()));
    assert!(humantime::parse_rfc3339(initial["server_time"].as_str().unwrap()).is_ok());
}

#[test]
fn a_snapshot_is_ordered_by_name_then_id_and_the_same_without_a_websocket() {
    let server = Server::start(&Setup::open().toml());
    let mut conn = Conn::open(server.addr());
    for (id, name) in [("c", "beta"), ("b", "alpha"), ("a", "beta"), ("d", "")] {
        let mut body = heartbeat(1.0);
        if !name.is_empty() {
            body["agent_name"] = json!(name);
        }
        assert_eq!(conn.ping(id, &body).status, 200);
    }
    let mut initial = Dashboard::join(server.addr(), "pool-a").expect("initial_metrics");
    assert_eq!(agent_ids(&initial), ["b", "a", "c", "d"]);
    assert_eq!(initial["metrics"][3]["agent_name"], "d");
    assert_eq!(initial["metrics"][0]["interval_ms"], Value::Null);
    let mut read = metrics(server.addr(), "pool-a");
    for message in [&mut initial, &mut read] {
        assert!(message["server_time"].take().is_string());
    }
    assert_eq!(initial, read);
}

#[test]
fn the_rhythm_of_an_agent_is_known_after_a_while() {
    let server = Server::start(&Setup::open().toml());
    let mut conn = Conn::open(server.addr());
    let mut dashboard = Dashboard::join(server.addr(), "pool-a");
    dashboard.expect("initial_metrics");
    let interval = crate::support::eventually("interval_ms is a number", || {
        assert_eq!(conn.ping("a", &heartbeat(1.0)).status, 200);
        dashboard.expect("metrics_update")["metrics"]["interval_ms"].as_u64()
    });
    assert!(interval < 20_000, "{interval}");
}

#[test]
fn what_departed_is_remembered_until_it_returns() {
    let setup = Setup::open().line("evict_after = \"3s\"");
    let server = Server::start(&setup.toml());
    let mut conn = Conn::open(server.addr());
    let mut dashboard = Dashboard::join(server.addr(), "pool-a");
    dashboard.expect("initial_metrics");
    let tasks = json!([{
        "task_id": u64::MAX, "task_type": "apply", "workspace_id": "ws-1", "started_at": "yesterday"
    }]);
    let working = json!({
        "status": "busy", "cpu_usage": 99.5, "memory_usage": 1, "running_tasks": tasks,
        "agent_name": "Runner \"one\""
    });

    // A goodbye.
    assert_eq!(conn.ping("a", &working).status, 200);
    assert_eq!(conn.ping("a", &json!({ "status": "offline" })).status, 200);
    dashboard.expect("metrics_update");
    assert_eq!(dashboard.expect("agent_offline")["reason"], "goodbye");
    let departed = departed(&metrics(server.addr(), "pool-a"));
    assert_eq!(departed.len(), 1, "{departed:?}");
    assert_departed(&departed[0], "a", "goodbye", &tasks);
    assert_eq!(departed[0]["agent_name"], "Runner \"one\"");

    // A return: dashboards see it as any heartbeat, and it is not among the departed.
    assert_eq!(conn.ping("a", &working).status, 200);
    assert_eq!(dashboard.expect("metrics_update")["metrics"]["agent_id"], "a");
    let snapshot = metrics(server.addr(), "pool-a");
    assert_eq!(agent_ids(&snapshot), ["a"]);
    assert_eq!(self::departed(&snapshot), Vec::<Value>::new());

    // An eviction.
    let offline = dashboard.expect("agent_offline");
    assert_eq!(offline["reason"], "timeout");
    let snapshot = Dashboard::join(server.addr(), "pool-a").expect("initial_metrics");
    assert_eq!(agent_ids(&snapshot), Vec::<&str>::new());
    let departed = self::departed(&snapshot);
    assert_eq!(departed.len(), 1, "{departed:?}");
    assert_departed(&departed[0], "a", "timeout", &tasks);
}

#[test]
fn the_last_fifty_departures_are_kept() {
    let server = Server::start(&Setup::open().toml());
    let mut conn = Conn::open(server.addr());
    for agent in 0..52 {
        let agent = format!("agent-{agent}");
        assert_eq!(conn.ping(&agent, &heartbeat(1.0)).status, 200);
        conn.send(&Request::delete(&agent, KEY_A).bytes());
        assert_eq!(conn.response().status, 200);
    }
    let departed = departed(&metrics(server.addr(), "pool-a"));
    let mut ids: Vec<_> = departed.iter().map(|one| one["agent_id"].as_str().unwrap()).collect();
    ids.sort_unstable();
    let mut last: Vec<_> = (2..52).map(|agent| format!("agent-{agent}")).collect();
    last.sort_unstable();
    assert_eq!(ids, last);
}

#[test]
fn the_list_of_pools_counts_what_is_there() {
    let server = Server::start(&Setup::open().toml());
    let mut conn = Conn::open(server.addr());
    for (agent, status, cpu) in [("a", "busy", 10.0), ("b", "idle", 40.0), ("c", "idle", 70.0)] {
        let body = json!({ "status": status, "cpu_usage": cpu, "memory_usage": cpu / 2.0 });
        assert_eq!(conn.ping(agent, &body).status, 200);
    }
    assert_eq!(conn.ping("d", &heartbeat(1.0)).status, 200);
    assert_eq!(conn.ping("d", &json!({ "status": "offline" })).status, 200);
    conn.send(&Request::get("/api/v1/agent-pools").bytes());
    let list = conn.response().json();
    let pools = list["pools"].as_array().unwrap_or_else(|| panic!("{list}"));
    assert_eq!(pools.len(), 2);
    assert_eq!(pools[0]["pool_id"], "pool-a");
    assert_eq!(pools[0]["name"], "Pool A");
    assert_eq!(pools[1]["name"], "pool-b");
    assert_eq!(pools[0]["agents"]["total"], 3);
    assert_eq!(pools[0]["agents"]["by_status"], json!({ "busy": 1, "idle": 2 }));
    assert_eq!(pools[0]["departed"], 1);
    assert_eq!(pools[0]["cpu"], json!({ "mean": 40.0, "max": 70.0 }));
    assert_eq!(pools[0]["memory"], json!({ "mean": 20.0, "max": 35.0 }));
    assert_eq!(pools[1]["agents"]["total"], 0);
    let states = json!({ "busy": 1, "idle": 2, "late": 0, "error": 0, "paused": 0, "other": 0 });
    assert_eq!(pools[0]["states"], states);
    for (member, count) in
        [("late", 0), ("attention", 0), ("lost", 0), ("tasks_lost", 0), ("free", 2)]
    {
        assert_eq!(pools[0][member], count, "{member}");
    }
    assert_eq!(pools[0]["last_loss_at"], Value::Null);
    assert_eq!(pools[0].get("cells"), None, "the overview's alone");
    assert_eq!(pools[0]["app_keys"], json!([KEY_A.key, KEY_A_NEW.key]));
    assert_eq!(pools[1]["app_keys"], json!([KEY_B.key]));
}

fn metrics(addr: std::net::SocketAddr, pool: &str) -> Value {
    let response = Request::get(&format!("/api/v1/agent-pools/{pool}/metrics")).send(addr);
    assert_eq!(response.status, 200, "{}", response.text());
    let snapshot = response.json();
    assert_eq!(snapshot["type"], "initial_metrics");
    snapshot
}

fn departed(snapshot: &Value) -> Vec<Value> {
    snapshot["departed"].as_array().unwrap().clone()
}

fn assert_departed(departure: &Value, agent: &str, reason: &str, tasks: &Value) {
    assert_eq!(departure["agent_id"], agent);
    assert_eq!(departure["reason"], reason);
    assert_eq!(&departure["running_tasks"], tasks);
    assert!(humantime::parse_rfc3339(departure["at"].as_str().unwrap()).is_ok(), "{departure}");
}
