//! `?batch_ms`: a dashboard of batches gets few messages, and ends where one of single messages ends;
//! batches are made once for all who asked for about the same.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;

use crate::refusals::assert_problem;
use crate::support::http::heartbeat;
use crate::support::setup::{KEY_A, TOKEN_ALL};
use crate::support::status::Status;
use crate::support::wait::{now, pause};
use crate::support::{Conn, Dashboard, Request, Server, Setup};

/// What a page that applies a feed's messages shows: CPU by agent.
#[derive(Debug, Default)]
struct View {
    agents: BTreeMap<String, f64>,
    seq: u64,
    batches: usize,
}

impl View {
    fn apply(&mut self, message: &Value) {
        let seq = message["seq"].as_u64().unwrap();
        assert!(seq > self.seq || message["type"] == "initial_metrics", "{message}");
        self.seq = seq;
        match message["type"].as_str().unwrap() {
            "initial_metrics" => {
                self.agents.clear();
                self.hear_all(&message["metrics"]);
            }
            "metrics_update" => self.hear(&message["metrics"]),
            "agent_offline" => self.lose(&message["metrics"]),
            "metrics_batch" => {
                self.batches += 1;
                for gone in message["offline"].as_array().unwrap() {
                    assert!(gone["reason"].is_string() && gone["running_tasks"].is_array());
                    self.lose(gone);
                }
                self.hear_all(&message["metrics"]);
            }
            other => panic!("{other}"),
        }
    }

    fn hear_all(&mut self, agents: &Value) {
        agents.as_array().unwrap().iter().for_each(|agent| self.hear(agent));
    }

    fn hear(&mut self, agent: &Value) {
        let id = agent["agent_id"].as_str().unwrap().to_owned();
        self.agents.insert(id, agent["cpu_usage"].as_f64().unwrap());
    }

    fn lose(&mut self, agent: &Value) {
        self.agents.remove(agent["agent_id"].as_str().unwrap());
    }

    /// Applies messages until one has this number, or a later one.
    fn read_to(dashboard: &mut Dashboard, seq: u64) -> Self {
        let mut view = Self::default();
        while view.seq < seq {
            view.apply(&dashboard.next());
        }
        view
    }
}

fn ping(conn: &mut Conn, agent: &str, cpu: f64) {
    assert_eq!(conn.ping(agent, &heartbeat(cpu)).status, 200);
}

fn seq(addr: SocketAddr) -> u64 {
    let snapshot = Request::get("/api/v1/agent-pools/pool-a/metrics").send(addr).json();
    snapshot["seq"].as_u64().unwrap()
}

/// Agents come, change and go; dashboards of each kind join before, in between and after.
#[test]
fn batches_lead_where_single_messages_lead() {
    const ROUNDS: u32 = 60;
    let server = Server::start(&Setup::open().busy_agents().toml());
    let addr = server.addr();
    let mut conn = Conn::open(addr);
    let join = |dashboards: &mut Vec<Dashboard>| {
        dashboards.push(Dashboard::join(addr, "pool-a"));
        for period_ms in [50, 200, 5_000] {
            dashboards.push(Dashboard::join_batches(addr, "pool-a", period_ms));
        }
    };
    let mut dashboards = Vec::new();
    for round in 0..ROUNDS {
        if round % 20 == 0 {
            join(&mut dashboards);
        }
        for agent in 0..20 {
            ping(&mut conn, &format!("agent-{agent}"), f64::from(round));
        }
        let gone = format!("agent-{}", round % 20);
        assert_eq!(Request::delete(&gone, KEY_A).send(addr).status, 200);
    }
    join(&mut dashboards);
    ping(&mut conn, "last", 1.0);
    let last = seq(addr);
    let views: Vec<_> =
        dashboards.iter_mut().map(|dashboard| View::read_to(dashboard, last)).collect();
    for view in &views {
        assert_eq!((view.seq, &view.agents), (last, &views[0].agents));
        assert_eq!(view.agents.len(), 20, "19 agents and the last: {view:?}");
    }
    assert_eq!(Status::read(addr).counter("lags"), 0);
}

/// After a pause the first batch comes at once, and from one to the next it takes the period: of the
/// single messages of several seconds there are as many batches as periods, or fewer.
#[test]
fn at_most_one_batch_comes_in_a_period() {
    const PERIOD: Duration = Duration::from_millis(500);
    const BEATS: u64 = 120;
    let server = Server::start(&Setup::open().busy_agents().toml());
    let addr = server.addr();
    let mut conn = Conn::open(addr);
    // Rounded up to 500.
    let mut batched = Dashboard::join_batches(addr, "pool-a", 251);
    let mut plain = Dashboard::join(addr, "pool-a");
    for dashboard in [&mut batched, &mut plain] {
        dashboard.expect("initial_metrics");
    }
    let start = now();
    ping(&mut conn, "first", 1.0);
    batched.expect("metrics_batch");
    let first = start.elapsed();
    for beat in 1..BEATS {
        ping(&mut conn, "agent", (beat % 100) as f64);
        pause(Duration::from_millis(20));
    }
    let (mut batches, mut changes) = (1, 1);
    while changes < BEATS {
        let batch = batched.expect("metrics_batch");
        batches += 1;
        assert_eq!(batch["metrics"].as_array().unwrap().len(), 1, "{batch}");
        changes = batch["seq"].as_u64().unwrap();
    }
    // The server's own time from the first to the last cannot be longer than what passed here.
    let periods = start.elapsed().as_millis() / PERIOD.as_millis() + 1;
    assert!(batches <= periods, "{batches} batches in {periods} periods");
    assert!(batches >= 3, "{batches} batches");
    for _ in 0..BEATS {
        plain.expect("metrics_update");
    }
    println!("first batch after {first:?}; {batches} batches for {BEATS} heartbeats");
}

/// However many dashboards there are, and whatever they asked for within a class, a batch is made
/// once.
#[test]
fn dashboards_share_batches() {
    const DASHBOARDS: u16 = 60;
    let server = Server::start(&Setup::open().toml());
    let addr = server.addr();
    let mut dashboards: Vec<_> = (0..DASHBOARDS)
        .map(|number| Dashboard::join_batches(addr, "pool-a", 2_501 + number))
        .collect();
    for dashboard in &mut dashboards {
        dashboard.expect("initial_metrics");
    }
    let mut conn = Conn::open(addr);
    for agent in ["a", "b"] {
        ping(&mut conn, agent, 1.0);
    }
    let mut views = Vec::new();
    for dashboard in &mut dashboards {
        let mut view = View::default();
        while view.seq < 2 {
            view.apply(&dashboard.expect("metrics_batch"));
        }
        views.push((view.batches, view.agents));
    }
    assert!(views.iter().all(|view| *view == views[0]), "{views:?}");
    let status = Status::read(addr);
    assert_eq!(status.counter("batches"), views[0].0 as u64, "not one for each dashboard");
    assert!(status.counter("deliveries") >= u64::from(DASHBOARDS) * 2);
}

/// Who joins between two batches gets with the next one only what its snapshot has not.
#[test]
fn nothing_comes_twice_after_the_snapshot() {
    let server = Server::start(&Setup::open().toml());
    let addr = server.addr();
    let mut conn = Conn::open(addr);
    let mut first = Dashboard::join_batches(addr, "pool-a", 2_500);
    first.expect("initial_metrics");
    ping(&mut conn, "a", 1.0);
    first.expect("metrics_batch");
    for agent in ["b", "c"] {
        ping(&mut conn, agent, 1.0);
    }
    let mut second = Dashboard::join_batches(addr, "pool-a", 2_500);
    let snapshot = second.expect("initial_metrics");
    let since = snapshot["seq"].as_u64().unwrap();
    for agent in ["c", "d"] {
        ping(&mut conn, agent, 2.0);
    }
    let ids = |message: &Value| -> Vec<String> {
        let agents = message["metrics"].as_array().unwrap().iter();
        agents.map(|agent| agent["agent_id"].as_str().unwrap().to_owned()).collect()
    };
    let (mut heard, mut seq) = (Vec::new(), since);
    while seq < 5 {
        let batch = second.expect("metrics_batch");
        seq = batch["seq"].as_u64().unwrap();
        heard.extend(ids(&batch));
    }
    let mut all = Vec::new();
    while !all.contains(&"d".to_owned()) {
        all.extend(ids(&first.expect("metrics_batch")));
    }
    // A stall may have had the first batch come before the second one joined.
    assert!(all.ends_with(&["c".to_owned(), "d".to_owned()]), "{all:?}");
    assert_eq!((since, heard), (3, vec!["c".to_owned(), "d".to_owned()]));
}

/// Many agents come in one message, which goes out in fragments.
#[test]
fn many_agents_come_in_one_batch() {
    const AGENTS: usize = 1_500;
    let server = Server::start(&Setup::open().toml());
    let addr = server.addr();
    let mut dashboard = Dashboard::join_batches(addr, "pool-a", 5_000);
    let mut view = View::default();
    view.apply(&dashboard.expect("initial_metrics"));
    let mut conn = Conn::open(addr);
    for agent in 0..AGENTS {
        ping(&mut conn, &format!("agent-{agent}"), 7.0);
    }
    let mut largest = 0;
    while view.seq < AGENTS as u64 {
        let batch = dashboard.expect("metrics_batch");
        largest = largest.max(batch["metrics"].as_array().unwrap().len());
        view.apply(&batch);
    }
    assert_eq!(view.agents.len(), AGENTS);
    // However slow the machine: a period has 5 s.
    assert!(largest >= 500, "at most {largest} agents in a batch");
    assert_eq!(Status::read(addr).counter("batches_split"), 0);
}

/// Bad values are refused in the contract's order: after everything that comes before the upgrade.
#[test]
fn bad_values_are_refused() {
    let server = Server::start(&Setup::guarded().toml());
    let addr = server.addr();
    let request = |pool: &str, query: &str| {
        let plain = Request::feed("x");
        let with = Request::get(&format!("/ws/agent-pools/{pool}/metrics?{query}"))
            .header("Authorization", &format!("Bearer {TOKEN_ALL}"));
        ["Connection", "Upgrade", "Sec-WebSocket-Version", "Sec-WebSocket-Key"]
            .iter()
            .zip(["Upgrade", "websocket", "13", "dGhlIHNhbXBsZSBub25jZQ=="])
            .fold((plain, with), |(plain, with), (name, value)| (plain, with.header(name, value)))
            .1
    };
    for bad in
        ["", "0", "49", "5001", "-250", "+250", "2e2", "x", "250&batch_ms=250", "99999999999"]
    {
        let query = format!("batch_ms={bad}");
        let problem = assert_problem(&request("pool-a", &query).send(addr), 400);
        assert!(problem.contains("batch_ms") && problem.contains("50 to 5000"), "{problem}");
        assert_problem(&request("nowhere", &query).send(addr), 404);
        let wrong = request("pool-a", &query).with("Authorization", "Bearer wrong");
        assert_problem(&wrong.send(addr), 401);
        let old = request("pool-a", &query).with("Sec-WebSocket-Version", "8");
        assert_problem(&old.send(addr), 426);
    }
    for good in ["50", "5000", "250&token=x"] {
        let mut conn = Conn::open(addr);
        conn.send(&request("pool-a", &format!("batch_ms={good}")).bytes());
        assert_eq!(conn.response().status, 101, "{good}");
    }
}
