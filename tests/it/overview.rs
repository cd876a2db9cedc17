//! The overview of all pools over one connection: first all that the viewer sees, then, at most once a
//! second, those whose figures changed.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::refusals::assert_problem;
use crate::support::http::heartbeat;
use crate::support::setup::{KEY_A, KEY_B, TOKEN_A, TOKEN_ALL, sha256};
use crate::support::{Conn, Dashboard, Request, Server, Setup, eventually};

/// The message's pools, which must be of this type and of no single pool.
fn pools(message: &Value) -> &Vec<Value> {
    assert_eq!(message["type"], "pool_summaries", "{message}");
    assert_eq!(message.get("pool_id"), None);
    assert!(humantime::parse_rfc3339(message["server_time"].as_str().unwrap()).is_ok());
    message["pools"].as_array().unwrap()
}

fn ids(message: &Value) -> Vec<&str> {
    pools(message).iter().map(|pool| pool["pool_id"].as_str().unwrap()).collect()
}

#[test]
fn all_pools_come_first_and_then_those_that_changed() {
    let server = Server::start(&Setup::open().toml());
    let addr = server.addr();
    let mut conn = Conn::open(addr);
    let lossy = json!({
        "status": "failed", "cpu_usage": 12, "memory_usage": 95,
        "running_tasks": [{ "task_id": 1, "task_type": "t", "workspace_id": "w", "started_at": "s" }],
    });
    assert_eq!(conn.ping("lossy", &lossy).status, 200);
    assert_eq!(conn.ping("idle", &heartbeat(99.0)).status, 200);
    let mut dashboard = Dashboard::overview(addr, None);
    let first = dashboard.next();
    assert_eq!(ids(&first), ["pool-a", "pool-b"]);
    assert_eq!(first["seq"], 0);
    let [pool_a, pool_b] = &pools(&first)[..] else { panic!("{first}") };
    assert_eq!((&pool_a["name"], &pool_b["name"]), (&json!("Pool A"), &json!("pool-b")));
    assert_eq!(pool_a["agents"]["total"], 2);
    assert_eq!((&pool_a["attention"], &pool_a["free"]), (&json!(1), &json!(1)));
    assert_eq!((&pool_a["cells"], &pool_b["cells"]), (&json!("i9e9"), &json!("")));

    // The rest is what the list of pools says.
    let list = Request::get("/api/v1/agent-pools").send(addr).json();
    for (pool, listed) in pools(&first).iter().zip(list["pools"].as_array().unwrap()) {
        let (mut pool, mut listed) = (pool.clone(), listed.clone());
        pool.as_object_mut().unwrap().remove("cells");
        listed.as_object_mut().unwrap().remove("app_keys");
        assert_eq!(pool, listed);
    }

    conn.send(&Request::delete("lossy", KEY_A).bytes());
    assert_eq!(conn.response().status, 200);
    let second = dashboard.next();
    assert_eq!((ids(&second), &second["seq"]), (vec!["pool-a"], &json!(1)));
    assert_eq!(second["epoch"], first["epoch"]);
    let pool_a = &pools(&second)[0];
    assert_eq!((&pool_a["lost"], &pool_a["tasks_lost"]), (&json!(1), &json!(1)));
    assert!(pool_a["last_loss_at"].is_string());
    assert_eq!(pool_a["cells"], "i9");

    assert_eq!(conn.ping_as("idle", KEY_B, &heartbeat(1.0)).status, 200);
    let third = dashboard.next();
    assert_eq!((ids(&third), &third["seq"]), (vec!["pool-b"], &json!(2)));
}

#[test]
fn one_pools_token_shows_one_pool() {
    let server = Server::start(&Setup::guarded().toml());
    let addr = server.addr();
    let mut of_a = Dashboard::overview(addr, Some(TOKEN_A));
    assert_eq!(ids(&of_a.next()), ["pool-a"]);
    let mut of_all = Dashboard::overview(addr, Some(TOKEN_ALL));
    assert_eq!(ids(&of_all.next()), ["pool-a", "pool-b"]);
    let mut conn = Conn::open(addr);
    assert_eq!(conn.ping_as("agent", KEY_B, &heartbeat(1.0)).status, 200);
    assert_eq!(ids(&of_all.next()), ["pool-b"]);
    assert_eq!(conn.ping("agent", &heartbeat(1.0)).status, 200);
    // Its first news, after all that there was of the other pool.
    let told = of_a.next();
    assert_eq!((ids(&told), &told["seq"]), (vec!["pool-a"], &json!(1)));
    assert_eq!(ids(&of_all.next()), ["pool-a"]);
}

/// Seven seconds after its last heartbeat an agent whose rhythm is a second or less is late.
#[test]
fn an_agent_becomes_late_by_time_alone() {
    let server = Server::start(&Setup::open().toml());
    let mut conn = Conn::open(server.addr());
    for _ in 0..2 {
        assert_eq!(conn.ping("agent", &heartbeat(1.0)).status, 200);
    }
    let mut dashboard = Dashboard::overview(server.addr(), None);
    assert_eq!(pools(&dashboard.next())[0]["free"], 1);
    let told = dashboard.next();
    assert_eq!(ids(&told), ["pool-a"]);
    let pool = &pools(&told)[0];
    let figures = ["late", "attention", "free"].map(|member| pool[member].as_u64().unwrap());
    assert_eq!((figures, &pool["cells"]), ([1, 1, 0], &json!("l5")));
    assert_eq!(pool["states"]["late"], 1);
}

#[test]
fn only_pools_of_up_to_400_agents_have_cells() {
    let server = Server::start(&Setup::open().toml());
    let mut conn = Conn::open(server.addr());
    for agent in 0..400 {
        assert_eq!(conn.ping(&format!("a-{agent}"), &heartbeat(1.0)).status, 200);
    }
    let mut dashboard = Dashboard::overview(server.addr(), None);
    assert_eq!(pools(&dashboard.next())[0]["cells"], "i5".repeat(400));
    assert_eq!(conn.ping("one-more", &heartbeat(1.0)).status, 200);
    let told = dashboard.next();
    assert_eq!(pools(&told)[0]["agents"]["total"], 401);
    assert_eq!(pools(&told)[0].get("cells"), None);
}

#[test]
fn two_hundred_pools_come_over_one_connection() {
    const POOLS: usize = 200;
    let mut toml = "[viewers]\nopen = true\n".to_owned();
    let secret = sha256(KEY_A.secret);
    for pool in 0..POOLS {
        let keys = format!("[{{ app_key = \"key-{pool}\", app_secret_sha256 = \"{secret}\" }}]");
        write!(toml, "[[pools]]\nid = \"pool-{pool}\"\nkeys = {keys}\n").unwrap();
    }
    let server = Server::start(&toml);
    let mut dashboard = Dashboard::overview(server.addr(), None);
    let first = dashboard.next();
    let all: Vec<_> = (0..POOLS).map(|pool| format!("pool-{pool}")).collect();
    assert_eq!(ids(&first), all);
    let mut conn = Conn::open(server.addr());
    for (pool, cpu) in [(7, 1.0), (199, 2.0), (7, 3.0)] {
        let ping = Request::ping("agent", KEY_A, &heartbeat(cpu));
        conn.send(&ping.with("X-App-Key", &format!("key-{pool}")).bytes());
        assert_eq!(conn.response().status, 200);
    }
    // In one message or two, as the seconds fall.
    let mut told = Vec::new();
    eventually("the last states of both came", || {
        for pool in pools(&dashboard.next()) {
            told.push(format!("{} {}", pool["pool_id"].as_str().unwrap(), pool["cpu"]["max"]));
        }
        let has = |what: &str| told.iter().any(|it| it == what);
        (has("pool-7 3.0") && has("pool-199 2.0")).then_some(())
    });
    assert!(told.len() <= 3, "{told:?}");
}

/// Everything is wrong with the first request; each step puts one thing right.
#[test]
fn the_order_of_the_refusals() {
    let server = Server::start(&Setup::guarded().limit("max_dashboards = 1").toml());
    let mut seated = Dashboard::overview(server.addr(), Some(TOKEN_A));
    seated.next();
    let request = Request::overview()
        .with("Host", "rebound.example")
        .header("Origin", "http://foreign.example")
        .header("Authorization", "Bearer wrong")
        .with("Sec-WebSocket-Version", "8");
    assert_problem(&request.send(server.addr()), 421);
    let request = request.with("Host", "localhost");
    assert_problem(&request.send(server.addr()), 403);
    let request = request.with("Origin", "http://localhost");
    assert_problem(&request.send(server.addr()), 401);
    let request = request.with("Authorization", &format!("Bearer {TOKEN_A}"));
    assert_problem(&request.send(server.addr()), 426);
    let request = request.with("Sec-WebSocket-Version", "13");
    assert_problem(&request.send(server.addr()), 503);
    drop(seated);
    eventually("a seat is free", || {
        let mut conn = Conn::open(server.addr());
        conn.send(&request.bytes());
        (conn.response().status == 101).then_some(())
    });
    let post = Request::new("POST", "/ws/agent-pools").send(server.addr());
    assert_problem(&post, 405);
    assert_eq!(post.header("Allow"), Some("GET"));
}
