//! An agent that beats too often: dashboards get few of its updates and always the last, and the
//! updates of others come as without it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::flood::heavy;
use crate::support::http::heartbeat;
use crate::support::status::Status;
use crate::support::wait::{now, pause};
use crate::support::{Conn, Dashboard, Request, Server, Setup};

/// Of one agent, in any second: the default.
const MAX_UPDATES: usize = 4;
/// In which updates are counted: what is deferred waits up to so long.
const WINDOW: Duration = Duration::from_secs(1);

/// Beats as fast as it is answered for so long, and then says so. How often it did.
fn flood(conn: &mut Conn, time: Duration) -> u64 {
    let (start, mut beats) = (now(), 0);
    while start.elapsed() < time {
        assert_eq!(conn.ping("flood", &heartbeat(1.0)).status, 200);
        beats += 1;
    }
    assert_eq!(conn.ping("flood", &heartbeat(99.0)).status, 200);
    beats + 1
}

fn is_last(agent: &Value) -> bool {
    agent["agent_id"] == "flood" && agent["cpu_usage"] == 99.0
}

/// A thousand agents are quiet, and one floods: all that the quiet ones say arrives, and of the flood
/// no more than the limit, and its end.
#[test]
fn a_flooding_agent_drowns_nobody() {
    const AGENTS: usize = 1_000;
    const FLOOD: Duration = Duration::from_secs(4);
    let _heavy = heavy();
    let setup = Setup::open().limit("max_agent_heartbeats_per_second = 1_000_000");
    let server = Server::start(&setup.toml());
    let addr = server.addr();
    let mut plain = Dashboard::join(addr, "pool-a");
    plain.expect("initial_metrics");
    let (beats, quiet, updates) = std::thread::scope(|scope| {
        let flood = scope.spawn(move || flood(&mut Conn::open(addr), FLOOD));
        // When each quiet agent's heartbeat was begun.
        let quiet = scope.spawn(move || {
            let mut conn = Conn::open(addr);
            let beat = |agent: usize| {
                let begun = now();
                assert_eq!(conn.ping(&format!("quiet-{agent}"), &heartbeat(5.0)).status, 200);
                pause(FLOOD / 2 / AGENTS as u32);
                begun
            };
            (0..AGENTS).map(beat).collect::<Vec<_>>()
        });
        let mut updates = Vec::new();
        let is_done = |updates: &[(Instant, Value)]| {
            updates.len() > AGENTS
                && updates.iter().filter(|(_, it)| it["agent_id"] != "flood").count() == AGENTS
                && updates.iter().any(|(_, it)| is_last(it))
        };
        while !is_done(&updates) {
            let update = plain.expect("metrics_update");
            updates.push((now(), update["metrics"].clone()));
        }
        (flood.join().unwrap(), quiet.join().unwrap(), updates)
    });
    let (flooded, others): (Vec<_>, Vec<_>) =
        updates.into_iter().partition(|(_, agent)| agent["agent_id"] == "flood");
    let mut latencies: Vec<_> = others
        .iter()
        .map(|(at, agent)| {
            let number = agent["agent_id"].as_str().unwrap().strip_prefix("quiet-").unwrap();
            at.saturating_duration_since(quiet[number.parse::<usize>().unwrap()])
        })
        .collect();
    latencies.sort_unstable();
    println!(
        "{beats} heartbeats of the flood became {} updates; of the quiet ones, half within {:?}, 99 % within {:?}",
        flooded.len(),
        latencies[AGENTS / 2],
        latencies[AGENTS * 99 / 100]
    );
    // Had each to wait for the end of the flood's window, half would take half of it or more.
    assert!(latencies[AGENTS / 2] < WINDOW / 2, "{:?}", latencies[AGENTS / 2]);
    // By the server's clock, at which it was heard: updates that are deferred are heard later.
    let seconds = flooded.last().unwrap().0 - flooded[0].0;
    let most = MAX_UPDATES * (seconds.as_secs() as usize + 2);
    assert!(flooded.len() <= most, "{} updates in {seconds:?}", flooded.len());
    let status = Status::read(addr);
    let (heard, deferred) = (status.counter("heartbeats"), status.counter("deferred"));
    assert_eq!(heard, beats + AGENTS as u64);
    assert!(deferred >= beats - flooded.len() as u64, "{deferred} of {beats} deferred");
    assert!(beats > 10 * flooded.len() as u64, "{beats} heartbeats are no flood");
}

/// The newest state is there for who reads or joins while it is deferred, and nobody is told of it
/// twice.
#[test]
fn who_comes_while_it_is_deferred_has_the_newest_state() {
    let setup = Setup::open().limit("max_agent_heartbeats_per_second = 1_000_000");
    let server = Server::start(&setup.toml());
    let addr = server.addr();
    let mut conn = Conn::open(addr);
    let mut first = Dashboard::join(addr, "pool-a");
    first.expect("initial_metrics");
    for round in 0..5 {
        let mut newest = 0.0;
        // The last of a burst, however slow the machine: until one was deferred.
        let deferred = Status::read(addr).counter("deferred");
        while Status::read(addr).counter("deferred") == deferred {
            newest += 1.0;
            assert!(newest < 100.0, "nothing is deferred");
            assert_eq!(conn.ping("a", &heartbeat(newest)).status, 200);
        }
        let read = Request::get("/api/v1/agent-pools/pool-a/metrics").send(addr).json();
        assert_eq!(read["metrics"][0]["cpu_usage"], newest, "in round {round}");
        let mut second = Dashboard::join(addr, "pool-a");
        let snapshot = second.expect("initial_metrics");
        assert_eq!(snapshot["metrics"][0]["cpu_usage"], newest, "in round {round}");
        // The next that both hear is another agent.
        assert_eq!(conn.ping(&format!("other-{round}"), &heartbeat(1.0)).status, 200);
        let next = second.expect("metrics_update");
        assert_eq!(next["metrics"]["agent_id"], format!("other-{round}"));
        assert_eq!(next["seq"].as_u64(), snapshot["seq"].as_u64().map(|seq| seq + 1));
        let mut seen = BTreeMap::new();
        first.until(|message| {
            let agent = &message["metrics"];
            let id = agent["agent_id"].as_str().unwrap().to_owned();
            seen.insert(id, agent["cpu_usage"].as_f64().unwrap());
            message["seq"] == next["seq"]
        });
        assert_eq!(seen["a"], newest, "in round {round}");
    }
}

/// The last heartbeat of a burst arrives, at dashboards of single messages and of batches.
#[test]
fn the_last_of_a_burst_arrives() {
    let server = Server::start(&Setup::open().toml());
    let addr = server.addr();
    let mut plain = Dashboard::join(addr, "pool-a");
    let mut batched = Dashboard::join_batches(addr, "pool-a", 250);
    for dashboard in [&mut plain, &mut batched] {
        dashboard.expect("initial_metrics");
    }
    let mut conn = Conn::open(addr);
    for cpu in 1..=20 {
        assert_eq!(conn.ping("a", &heartbeat(f64::from(cpu))).status, 200);
    }
    let mut updates = 1;
    plain.until(|message| {
        updates += 1;
        message["metrics"]["cpu_usage"] == 20.0
    });
    batched.until(|message| message["metrics"][0]["cpu_usage"] == 20.0);
    println!("20 heartbeats became {updates} updates");
}
