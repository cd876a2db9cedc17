//! A dashboard that keeps up gets every heartbeat, whenever it joined; and never a repeat, nor an
//! older state after a newer one, also when one agent speaks over several connections at once.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::http::heartbeat;
use crate::support::setup::KEY_A;
use crate::support::status::Status;
use crate::support::wait::{pause, wall};
use crate::support::{Conn, DEADLINE, Dashboard, Request, Server, Setup};

const DASHBOARDS: usize = 50;

/// Updates on their way to the slowest dashboard, at most: fewer than the batches (64) that may
/// wait at a fanout thread, so that the server never has reason to conflate.
const WINDOW: u64 = 40;

#[test]
fn fifty_dashboards_that_join_at_random_get_every_heartbeat() {
    const AGENTS: u64 = 6;
    const EACH: u64 = 120;
    let server = Server::start(&Setup::open().busy_agents().toml());
    let addr = server.addr();
    let seed = getrandom::u64().unwrap();
    let pace = Pace::default();

    let seen: Vec<Vec<Value>> = std::thread::scope(|scope| {
        let dashboards: Vec<_> = (0..DASHBOARDS)
            .map(|index| {
                let pace = &pace;
                let start = pick(seed, index, AGENTS * EACH);
                scope.spawn(move || {
                    pace.wait_until_sent(start);
                    watch(addr, index, pace, seq, |messages| {
                        let last = latest(messages);
                        last.len() as u64 == AGENTS && last.values().all(|&count| count == EACH)
                    })
                })
            })
            .collect();
        for agent in 0..AGENTS {
            let pace = &pace;
            scope.spawn(move || {
                let mut conn = Conn::open(addr);
                for count in 1..=EACH {
                    pace.wait_for_room();
                    let body = numbered(count);
                    assert_eq!(conn.ping(&format!("agent-{agent}"), &body).status, 200);
                    pace.sent();
                }
            });
        }
        dashboards.into_iter().map(|dashboard| dashboard.join().unwrap()).collect()
    });

    let status = Status::read(addr);
    assert_eq!(status.counter("heartbeats"), AGENTS * EACH);
    assert_eq!(status.counter("stale"), 0);
    assert_eq!(status.counter("conflations"), 0, "the pace of this test allows for none");
    assert_eq!(status.counter("lags"), 0, "the pace of this test allows for none");
    for messages in seen {
        assert_complete(&messages, seed);
    }
}

#[test]
fn one_agent_on_four_connections_never_goes_back_in_time() {
    const CONNECTIONS: u64 = 4;
    const EACH: u64 = 1_000;
    const LAST: u64 = 1_000_000;
    let server = Server::start(&Setup::open().busy_agents().toml());
    let addr = server.addr();
    let pace = Pace::default();
    let (numbers, clock) = (AtomicU64::new(1), AtomicU64::new(1));
    // When each heartbeat was begun and when its answer was there, by its number.
    let spans = Mutex::new(BTreeMap::new());
    // What a heartbeat overtook is no news to a dashboard, so progress is the number, not `seq`.
    let reached = |message: &Value| match &message["metrics"] {
        Value::Array(agents) => agents.first().map_or(0, number),
        agent => number(agent),
    };

    let seen: Vec<Vec<Value>> = std::thread::scope(|scope| {
        let dashboards: Vec<_> = (0..8)
            .map(|index| {
                let pace = &pace;
                let is_done = |messages: &[Value]| reached(messages.last().unwrap()) == LAST;
                scope.spawn(move || watch(addr, index, pace, reached, is_done))
            })
            .collect();
        let senders: Vec<_> = (0..CONNECTIONS)
            .map(|_| {
                let (pace, numbers, clock, spans) = (&pace, &numbers, &clock, &spans);
                scope.spawn(move || {
                    let mut conn = Conn::open(addr);
                    for _ in 0..EACH {
                        pace.wait_for_room();
                        let number = numbers.fetch_add(1, Ordering::SeqCst);
                        let begun = clock.fetch_add(1, Ordering::SeqCst);
                        assert_eq!(conn.ping("agent", &numbered(number)).status, 200);
                        let done = clock.fetch_add(1, Ordering::SeqCst);
                        spans.lock().unwrap().insert(number, (begun, done));
                        pace.sent();
                    }
                })
            })
            .collect();
        for sender in senders {
            sender.join().unwrap();
        }
        assert_eq!(Conn::open(addr).ping("agent", &numbered(LAST)).status, 200);
        dashboards.into_iter().map(|dashboard| dashboard.join().unwrap()).collect()
    });

    let spans = spans.into_inner().unwrap();
    for messages in &seen {
        assert_in_order_of_arrival(messages, &spans, LAST);
    }
    let status = Status::read(addr);
    let (kept, stale) = (status.counter("heartbeats"), status.counter("stale"));
    assert_eq!(kept + stale, CONNECTIONS * EACH + 1);
    assert_eq!(status.counter("conflations"), 0, "the pace of this test allows for none");
    assert_eq!(status.counter("lags"), 0, "the pace of this test allows for none");
    for messages in &seen {
        assert_eq!(messages.last().unwrap()["seq"], kept);
        assert_gap_free(messages);
    }
    let read = Request::get("/api/v1/agent-pools/pool-a/metrics").send(addr).json();
    for messages in &seen {
        let mut last = messages.last().unwrap()["metrics"].clone();
        let mut now = read["metrics"][0].clone();
        for agent in [&mut last, &mut now] {
            agent["interval_ms"].take();
        }
        assert_eq!(last, now);
    }
}

#[test]
fn a_heartbeat_from_before_a_goodbye_does_not_bring_the_agent_back() {
    let server = Server::start(&Setup::open().busy_agents().toml());
    let addr = server.addr();
    let mut dashboard = Dashboard::join(addr, "pool-a");
    dashboard.expect("initial_metrics");
    let mut pingers: Vec<_> = (0..3).map(|_| Conn::open(addr)).collect();
    let mut leaver = Conn::open(addr);
    // A worker has much to read in it, and another is through with the goodbye sooner.
    let ping = Request::ping("agent", KEY_A, &large_heartbeat()).bytes();
    let mut present = false;

    for round in 0..100 {
        for conn in &mut pingers {
            conn.send(&ping);
        }
        // Times are told in milliseconds: from here on a goodbye is later by one at least.
        pause(Duration::from_millis(1));
        let leaving_at = wall();
        leaver.send(&Request::delete("agent", KEY_A).bytes());
        let mut has_left = false;
        for conn in &mut pingers {
            assert_eq!(conn.response().status, 200);
        }
        let answer = leaver.response();
        assert!([200, 404].contains(&answer.status), "{answer:?}");
        // A mark behind all of it, so that everything before it has been seen.
        let mark = format!("mark-{round}");
        assert_eq!(leaver.ping(&mark, &heartbeat(1.0)).status, 200);
        loop {
            let message = dashboard.next();
            let agent = &message["metrics"];
            if agent["agent_id"] == mark.as_str() {
                break;
            }
            present = message["type"] == "metrics_update";
            has_left |= !present;
            let heard = agent["last_update_time"].as_str().unwrap_or_default();
            assert!(
                !(present && has_left) || heard >= leaving_at.as_str(),
                "round {round}: heard {heard}, came back after a goodbye of {leaving_at} or later"
            );
        }
        let read = Request::get("/api/v1/agent-pools/pool-a/metrics").send(addr).json();
        let agents = read["metrics"].as_array().unwrap();
        let there = agents.iter().any(|agent| agent["agent_id"] == "agent");
        assert_eq!(there, present, "feed and reading disagree after round {round}");
    }
}

/// A heartbeat that is as long as it may be, nearly.
fn large_heartbeat() -> Value {
    let text = "x".repeat(60);
    let mut body = heartbeat(1.0);
    body["running_tasks"] = json!(vec![
        json!({
            "task_id": 1, "task_type": text, "workspace_id": text, "started_at": text
        });
        250
    ]);
    body
}

/// A heartbeat that carries its number where every dashboard sees it.
fn numbered(number: u64) -> Value {
    let mut body = heartbeat(1.0);
    body["running_tasks"] = json!([{
        "task_id": number, "task_type": "plan", "workspace_id": "ws", "started_at": "now"
    }]);
    body
}

fn seq(message: &Value) -> u64 {
    message["seq"].as_u64().unwrap()
}

fn number(agent: &Value) -> u64 {
    agent["running_tasks"][0]["task_id"].as_u64().unwrap()
}

/// Reads everything from joining until `is_done`, and lets `pace` know how far it is: at which of
/// the heartbeats sent, as `reached` reads it off a message.
fn watch(
    addr: SocketAddr,
    index: usize,
    pace: &Pace,
    reached: impl Fn(&Value) -> u64,
    is_done: impl Fn(&[Value]) -> bool,
) -> Vec<Value> {
    let mut dashboard = Dashboard::join(addr, "pool-a");
    let mut messages = vec![dashboard.expect("initial_metrics")];
    loop {
        pace.seen(index, reached(messages.last().unwrap()));
        if is_done(&messages) {
            pace.left(index);
            return messages;
        }
        messages.push(dashboard.next());
    }
}

/// The number that each agent was last seen with.
fn latest(messages: &[Value]) -> BTreeMap<&str, u64> {
    let snapshot = messages[0]["metrics"].as_array().unwrap().iter();
    let updates = messages[1..].iter().map(|message| &message["metrics"]);
    snapshot
        .chain(updates)
        .map(|agent| (agent["agent_id"].as_str().unwrap(), number(agent)))
        .collect()
}

/// Snapshot and updates together are exactly the heartbeats that were sent, each agent's in order.
fn assert_complete(messages: &[Value], seed: u64) {
    assert_gap_free(messages);
    let mut counts = latest(&messages[..1]);
    for message in &messages[1..] {
        assert_eq!(message["type"], "metrics_update");
        let agent = &message["metrics"];
        let count = counts.entry(agent["agent_id"].as_str().unwrap()).or_default();
        assert_eq!(number(agent), *count + 1, "seed {seed}: {message}");
        *count += 1;
    }
}

fn assert_gap_free(messages: &[Value]) {
    for pair in messages.windows(2) {
        assert_eq!(seq(&pair[1]), seq(&pair[0]) + 1, "{} after {}", pair[1], pair[0]);
        assert_eq!(pair[1]["epoch"], pair[0]["epoch"]);
    }
}

/// No number twice; and none whose answer was there before one already shown was even begun.
fn assert_in_order_of_arrival(messages: &[Value], spans: &BTreeMap<u64, (u64, u64)>, last: u64) {
    let snapshot = messages[0]["metrics"].as_array().unwrap().iter();
    let updates = messages[1..].iter().map(|message| &message["metrics"]);
    let mut shown = HashSet::new();
    let mut newest_begun = 0;
    let mut newest_heard = "";
    for agent in snapshot.chain(updates) {
        let number = number(agent);
        assert!(shown.insert(number), "{number} twice");
        let heard = agent["last_update_time"].as_str().unwrap();
        assert!(heard >= newest_heard, "{heard} after {newest_heard}");
        newest_heard = heard;
        if number != last {
            let (begun, done) = spans[&number];
            assert!(done > newest_begun, "{number} is older than what was shown before");
            newest_begun = newest_begun.max(begun);
        }
    }
    assert!(shown.contains(&last));
}

/// The `index`th of a row of numbers below `bound` that `seed` decides.
fn pick(seed: u64, index: usize, bound: u64) -> u64 {
    // SplitMix64's steps: good enough to spread 50 moments.
    let mut x = seed.wrapping_add((index as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    (x ^ (x >> 27)) % bound
}

/// Holds the senders back while the slowest dashboard has more than [`WINDOW`] updates to come.
#[derive(Debug, Default)]
struct Pace {
    state: Mutex<Progress>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Progress {
    sent: u64,
    under_way: u64,
    seen: BTreeMap<usize, u64>,
}

impl Pace {
    fn wait_until_sent(&self, count: u64) {
        drop(self.wait_while(|progress| progress.sent < count));
    }

    /// Takes a place in the window.
    fn wait_for_room(&self) {
        let mut progress = self.wait_while(|progress| {
            let slowest = progress.seen.values().min().copied().unwrap_or(progress.sent);
            progress.sent.saturating_sub(slowest) + progress.under_way >= WINDOW
        });
        progress.under_way += 1;
    }

    fn sent(&self) {
        self.change(|progress| {
            progress.under_way -= 1;
            progress.sent += 1;
        });
    }

    fn seen(&self, dashboard: usize, reached: u64) {
        self.change(|progress| {
            progress.seen.insert(dashboard, reached);
        });
    }

    fn left(&self, dashboard: usize) {
        self.change(|progress| {
            progress.seen.remove(&dashboard);
        });
    }

    fn change(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut self.state.lock().unwrap());
        self.changed.notify_all();
    }

    fn wait_while(&self, condition: impl FnMut(&mut Progress) -> bool) -> MutexGuard<'_, Progress> {
        let guard = self.state.lock().unwrap();
        // The last to join waits for nearly the whole test.
        let (guard, timeout) =
            self.changed.wait_timeout_while(guard, 3 * DEADLINE, condition).unwrap();
        assert!(!timeout.timed_out(), "no room for {:?}", 3 * DEADLINE);
        guard
    }
}
