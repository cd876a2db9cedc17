//! Dashboards that do not read: what they cost the others, the server's memory, and themselves.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crossbeam_channel::{Sender, bounded};
use serde_json::Value;

use super::support::flood::{bulky_heartbeat, connect_with, heavy};
use super::support::frames::{FIN, Heard, PONG, RawFeed};
use super::support::process::resident_kib;
use super::support::setup::KEY_A;
use super::support::status::Status;
use super::support::{Conn, DEADLINE, Request, Server, Setup, eventually};

const READERS: usize = 20;
const UPDATES: usize = 10_000;
const UPDATE_BYTES: usize = 4 * 1024;
/// The first reading of memory: by now every buffer has grown to what it needs.
const SETTLED_AFTER: usize = 2_000;
/// Updates on their way at once: 80 KiB, less than any reader's receive buffer, so that no
/// reader falls behind however long it waits for a core.
const WINDOW: usize = 20;
const READER_BUFFER: usize = 256 * 1024;
/// The least that Linux grants is a little more.
const STALLED_BUFFER: usize = 4 * 1024;

/// A few agents, each on a keep-alive connection of its own, and what they say.
struct Agents {
    lines: Vec<(String, Conn)>,
    tasks: String,
    said: usize,
}

impl Agents {
    const COUNT: usize = 4;

    fn new(addr: SocketAddr) -> Self {
        let lines =
            (0..Self::COUNT).map(|agent| (format!("agent-{agent}"), Conn::open(addr))).collect();
        let tasks = bulky_heartbeat(0.0, UPDATE_BYTES)["running_tasks"].to_string();
        Self { lines, tasks, said: 0 }
    }

    /// One heartbeat of each, all at once, all answered.
    fn round(&mut self) {
        for (agent, conn) in &mut self.lines {
            self.said += 1;
            let cpu = f64::from(u32::try_from(self.said % 10_000).unwrap()) / 100.0;
            let body = format!(
                r#"{{"status":"busy","cpu_usage":{cpu},"memory_usage":50.0,"running_tasks":{}}}"#,
                self.tasks
            );
            let request = Request::new("POST", &format!("/api/v1/agents/{agent}/ping"));
            conn.send(&request.key(KEY_A).body(body.as_bytes()).bytes());
        }
        for (_, conn) in &mut self.lines {
            let response = conn.response();
            assert_eq!(response.status, 200, "{}", response.text());
        }
    }
}

/// The sequence number of a message, without the price of parsing 4 KiB of JSON 200,000 times.
fn seq_of(text: &str) -> u64 {
    let (_, rest) = text.split_once(r#""seq":"#).unwrap();
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap();
    rest[..end].parse().unwrap()
}

/// Reads all updates behind the snapshot, none missing and none twice; says so after each window.
fn read_all(mut feed: RawFeed, window_read: &Sender<()>) {
    let mut seq = 0;
    let mut updates = 0;
    while updates < UPDATES {
        let text = feed.text();
        assert!(text.starts_with(r#"{"type":"metrics_update""#), "{text}");
        assert_eq!(seq_of(&text), seq + 1, "an update was lost or came twice");
        seq += 1;
        updates += 1;
        if updates % WINDOW == 0 {
            window_read.send(()).unwrap();
        }
    }
}

/// What a dashboard knows of its pool.
#[derive(Default)]
struct View {
    agents: BTreeMap<String, Value>,
    messages: usize,
    seq: u64,
}

impl View {
    fn take(&mut self, message: &Value) {
        self.messages += 1;
        match message["type"].as_str().unwrap() {
            "initial_metrics" => {
                self.agents.clear();
                message["metrics"].as_array().unwrap().iter().for_each(|agent| self.put(agent));
            }
            "metrics_update" => self.put(&message["metrics"]),
            other => panic!("{other} where nobody left"),
        }
        let seq = message["seq"].as_u64().unwrap();
        assert!(seq >= self.seq, "an older state after a newer one");
        self.seq = seq;
    }

    fn put(&mut self, agent: &Value) {
        self.agents.insert(agent["agent_id"].as_str().unwrap().to_owned(), agent.clone());
    }

    /// What the server itself says now.
    fn of(addr: SocketAddr) -> Self {
        let mut view = Self::default();
        view.take(&Request::get("/api/v1/agent-pools/pool-a/metrics").send(addr).json());
        view
    }
}

#[test]
fn who_never_reads_costs_the_others_nothing_and_holds_true_state_when_it_reads_again() {
    let _alone = heavy();
    let limits = Setup::open().busy_agents().limit(r#"lag_timeout = "10m""#);
    let server = Server::start(&limits.toml());
    let addr = server.addr();
    let stalled = connect_with(1, addr, Some(STALLED_BUFFER)).unwrap();
    let mut stalled = RawFeed::join_over(stalled, "pool-a");
    let mut readers: Vec<RawFeed> = (0..READERS)
        .map(|_| connect_with(1, addr, Some(READER_BUFFER)).unwrap())
        .map(|stream| RawFeed::join_over(stream, "pool-a"))
        .collect();
    // The handshake's answer may come before the hub has heard of the dashboard: who has its
    // snapshot has joined.
    assert!(readers.iter_mut().all(|feed| seq_of(&feed.text()) == 0));
    let mut agents = Agents::new(addr);
    let mut settled_kib = 0;

    std::thread::scope(|scope| {
        let (window_read, windows_read) = bounded(READERS);
        for feed in readers {
            let window_read = window_read.clone();
            scope.spawn(move || read_all(feed, &window_read));
        }
        drop(window_read);
        while agents.said < UPDATES {
            (0..WINDOW / Agents::COUNT).for_each(|_| agents.round());
            // It neither reads nor answers our Pings, but it is not silent.
            assert!(stalled.send(FIN | PONG, b""), "cut off although it may lag for minutes");
            for _ in 0..READERS {
                windows_read.recv_timeout(DEADLINE).expect("all readers keep up");
            }
            if agents.said == SETTLED_AFTER {
                settled_kib = resident_kib(server.pid());
            }
        }
    });
    let grown_kib = resident_kib(server.pid()).saturating_sub(settled_kib);
    assert!(grown_kib <= 2 * 1024, "{grown_kib} KiB more after {UPDATES} updates");
    let status = Status::read(addr);
    // More than once where the kernel's buffers grow meanwhile. That no reader fell behind is
    // proven by what it read.
    assert!(status.counter("lags") >= 1, "the kernel took all of it: this proves nothing");
    assert_eq!((status.counter("conflations"), status.counter("cut_offs")), (0, 0));

    let truth = View::of(addr);
    let mut view = View::default();
    while view.seq < truth.seq {
        view.take(&stalled.json());
    }
    assert!(view.messages < UPDATES, "a backlog instead of newest states");
    assert!(view.agents == truth.agents, "not the true state");

    // From there on it is a dashboard like any other.
    agents.round();
    for _ in 0..Agents::COUNT {
        view.take(&stalled.json());
    }
    assert!(view.agents == View::of(addr).agents, "the first updates after the snapshot are lost");
}

#[test]
fn who_never_reads_for_too_long_is_cut_off_and_nobody_else() {
    let _alone = heavy();
    let server = Server::start(&Setup::open().busy_agents().limit(r#"lag_timeout = "2s""#).toml());
    let addr = server.addr();
    let stalled = connect_with(1, addr, Some(STALLED_BUFFER)).unwrap();
    let mut stalled = RawFeed::join_over(stalled, "pool-a");
    let mut reader = RawFeed::join(addr, "pool-a");
    let mut agents = Agents::new(addr);
    let mut view = View::default();
    view.take(&reader.json());
    // Heartbeats flow on: what the kernel's buffers take, it is not behind with.
    eventually("who does not read is cut off", || {
        agents.round();
        (0..Agents::COUNT).for_each(|_| view.take(&reader.json()));
        (Status::read(addr).counter("cut_offs") == 1).then_some(())
    });
    eventually("it is gone", || (Status::read(addr).counter("dashboards") == 1).then_some(()));
    while stalled.hear() != Heard::End {}
    agents.round();
    (0..Agents::COUNT).for_each(|_| view.take(&reader.json()));
    assert!(view.agents == View::of(addr).agents, "the reader is none the worse");
}

#[test]
fn who_reads_again_in_time_is_not_cut_off() {
    let _alone = heavy();
    let server = Server::start(&Setup::open().busy_agents().limit(r#"lag_timeout = "10s""#).toml());
    let addr = server.addr();
    let stalled = connect_with(1, addr, Some(STALLED_BUFFER)).unwrap();
    let mut stalled = RawFeed::join_over(stalled, "pool-a");
    let mut agents = Agents::new(addr);
    for lag in 1..=3 {
        eventually("it falls behind", || {
            agents.round();
            (Status::read(addr).counter("lags") >= lag).then_some(())
        });
        let truth = View::of(addr);
        let mut view = View::default();
        while view.seq < truth.seq {
            view.take(&stalled.json());
        }
        assert!(view.agents == truth.agents, "not the true state after lag {lag}");
    }
    assert_eq!(Status::read(addr).counter("cut_offs"), 0);
}
