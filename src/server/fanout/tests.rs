//! One fanout thread with the real hub and real sockets: what only sockets can show. The
//! constants' times are shortened where a test is about one of them.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded, never};
use serde_json::{Value, json};
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{Role, WebSocket};
use tungstenite::{Error, Message};

use super::{Fanout, MAX_WRITE_BYTES, Parts, Times, fanout};
use crate::runtime::clock::{Clock, UnixMillis};
use crate::runtime::counters::Counters;
use crate::server::event::{Action, Batch, Control, FanoutIndex, Stamp};
use crate::server::feed::FeedId;
use crate::server::frame::{self, Frames};
use crate::server::hub::{self, Hub, HubHandle, hub};
use crate::server::limits::{FANOUT_BATCHES, Limits};
use crate::server::registry::Rules;
use crate::wire::id::{AgentId, DashboardId, PoolId, PoolIndex};
use crate::wire::{Ping, read_ping};

pub(super) const POOL: PoolIndex = PoolIndex(0);
pub(super) const FEED: FeedId = FeedId::Updates(POOL);
const TIMEOUT: Duration = Duration::from_secs(20);
const GREETING: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\n\r\n";

const RULES: Rules = Rules {
    evict_after: Duration::from_secs(300),
    tick: Duration::from_secs(1),
    max_agents_per_pool: 1_000,
    max_pool_bytes: 1 << 30,
    max_updates_per_second: usize::MAX,
};

struct Stage {
    hub: HubHandle,
    fanout: Sender<Control>,
    counters: Arc<Counters>,
    clock: Clock,
    number: u64,
    threads: Vec<JoinHandle<()>>,
}

fn stage(change: impl FnOnce(&mut Times)) -> Stage {
    let clock = Clock::start();
    let counters = Arc::new(Counters::default());
    let pools: Arc<[PoolId]> = [PoolId::parse("p").unwrap()].into();
    let (batches, batch_receiver) = bounded(FANOUT_BATCHES);
    let (hub, hub_handle) = hub(hub::Parts {
        pools: Arc::clone(&pools),
        names: Arc::default(),
        epoch: "e".into(),
        rules: RULES,
        timeout: TIMEOUT,
        ticks: never(),
        windows: bounded(0).1,
        fanouts: vec![batches],
        clock,
        counters: Arc::clone(&counters),
    });
    let mut times = Times::from(&Limits::default());
    change(&mut times);
    let (fanout, fanout_handle) = fanout(Parts {
        batches: batch_receiver,
        hub: hub_handle.clone(),
        pools,
        epoch: "e".into(),
        times,
        clock,
        counters: Arc::clone(&counters),
    });
    let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
        Builder::new().name(name.to_owned()).spawn(work).unwrap()
    };
    let threads = vec![
        spawn("hub", Box::new(move || hub.run().unwrap())),
        spawn("fanout-0", Box::new(move || fanout.run())),
    ];
    Stage { hub: hub_handle, fanout: fanout_handle, counters, clock, number: 0, threads }
}

/// A hub that nobody runs, for a fanout thread that asks it for nothing.
fn idle_hub() -> (Hub, HubHandle) {
    let clock = Clock::start();
    hub(hub::Parts {
        pools: [PoolId::parse("p").unwrap()].into(),
        names: Arc::default(),
        epoch: "e".into(),
        rules: RULES,
        timeout: TIMEOUT,
        ticks: never(),
        windows: bounded(0).1,
        fanouts: Vec::new(),
        clock,
        counters: Arc::default(),
    })
}

/// A fanout thread's work on the test's own thread, with room for `room` batches.
pub(super) fn alone(room: usize) -> (Fanout, Sender<Control>, Sender<Batch>) {
    let (batches, receiver) = bounded(room);
    let (fanout, handle) = fanout(Parts {
        batches: receiver,
        hub: idle_hub().1,
        pools: [PoolId::parse("p").unwrap()].into(),
        epoch: "e".into(),
        times: Times::from(&Limits::default()),
        clock: Clock::start(),
        counters: Arc::default(),
    });
    (fanout, handle, batches)
}

/// The far end of a dashboard's socket.
struct Peer {
    socket: TcpStream,
}

impl Peer {
    fn websocket(mut self) -> WebSocket<TcpStream> {
        let mut greeting = vec![0; GREETING.len()];
        self.socket.read_exact(&mut greeting).unwrap();
        assert_eq!(greeting, GREETING);
        WebSocket::from_raw_socket(self.socket, Role::Client, None)
    }
}

fn next(peer: &mut WebSocket<TcpStream>) -> Value {
    loop {
        match peer.read().unwrap() {
            Message::Text(text) => return serde_json::from_str(&text).unwrap(),
            Message::Ping(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// A dashboard, attached but not joined, with a small buffer on the server's side.
fn attach(fanout: &Sender<Control>, dashboard: u64) -> Peer {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    peer.set_read_timeout(Some(TIMEOUT)).unwrap();
    let (socket, _) = listener.accept().unwrap();
    socket2::SockRef::from(&socket).set_send_buffer_size(4096).unwrap();
    let attach = Action::Attach { socket: Arc::new(socket), greeting: GREETING.to_vec() };
    control(fanout, dashboard, attach);
    Peer { socket: peer }
}

fn control(fanout: &Sender<Control>, dashboard: u64, action: Action) {
    fanout.send(Control { dashboard: DashboardId(dashboard), feed: FEED, action }).unwrap();
}

impl Stage {
    fn attach(&self, dashboard: u64) -> Peer {
        attach(&self.fanout, dashboard)
    }

    fn join(&self, dashboard: u64) -> Peer {
        let peer = self.attach(dashboard);
        self.hub.join(DashboardId(dashboard), FEED, FanoutIndex(0)).unwrap();
        peer
    }

    /// A heartbeat of about `size` bytes.
    fn beat(&mut self, agent: &str, cpu: usize, size: usize) {
        let task = json!({
            "task_id": 1, "task_type": "x".repeat(100), "workspace_id": "", "started_at": "",
        });
        let body = json!({
            "status": "busy", "cpu_usage": cpu % 101, "memory_usage": 1,
            "running_tasks": vec![task; size / 170],
        });
        self.number += 1;
        let stamp = Stamp { number: self.number, at: self.clock.now(), wall: self.clock.wall() };
        let agent = AgentId::parse(agent).unwrap();
        match read_ping(body.to_string().as_bytes(), &agent, UnixMillis(0)) {
            Ok(Ping::Metrics(metrics)) => {
                self.hub.heartbeat(POOL, agent, metrics, stamp).unwrap();
            }
            other => panic!("{other:?}"),
        }
    }

    /// Beats until `done`, a bounded number of times.
    fn beat_until(&mut self, size: usize, done: impl Fn(&Counters) -> bool) -> usize {
        for n in 1..200_000 {
            self.beat("a", n, size);
            // Waits for the hub, which bounds what lies in its inbox.
            self.hub.alive().unwrap();
            if done(&self.counters) {
                return n;
            }
        }
        panic!("not after 200,000 heartbeats: {:?}", self.counters);
    }

    fn end(self) {
        self.hub.shutdown();
        for thread in self.threads {
            thread.join().unwrap();
        }
    }
}

/// The handshake's answer, the snapshot, and the updates come in this order.
#[test]
fn greeting_snapshot_updates() {
    let mut stage = stage(|_| {});
    stage.beat("a", 1, 0);
    let mut peer = stage.join(1).websocket();
    assert_eq!(next(&mut peer)["metrics"][0]["cpu_usage"], 1.0);
    for cpu in 2..5 {
        stage.beat("a", cpu, 0);
    }
    for cpu in 2..5 {
        assert_eq!(next(&mut peer)["metrics"]["cpu_usage"], f64::from(cpu));
    }
    stage.end();
}

/// Who has the handshake's answer has joined: what is heard of agents from then on comes as updates,
/// never hidden in the snapshot.
#[test]
fn the_greeting_means_joined() {
    let mut stage = stage(|_| {});
    for id in 0..50 {
        let peer = stage.attach(id);
        stage.hub.join(DashboardId(id), FEED, FanoutIndex(0)).unwrap();
        let mut peer = peer.websocket();
        stage.beat("a", 1, 0);
        assert_eq!(next(&mut peer)["seq"], id);
        assert_eq!(next(&mut peer)["seq"], id + 1);
    }
    stage.end();
}

/// One who does not read falls behind and costs the others nothing; when it reads again it gets
/// what was begun, then newest states, and from there on the truth.
#[test]
fn who_falls_behind_costs_others_nothing_and_gets_the_newest_state() {
    let mut stage = stage(|_| {});
    let slow = stage.join(1);
    let mut quick = stage.join(2).websocket();
    assert_eq!(next(&mut quick)["type"], "initial_metrics");
    let (seen, sights) = bounded(2);
    let drain = Builder::new().name("quick".to_owned()).spawn(move || {
        let mut last = 0;
        while let Ok(message) = quick.read() {
            if let Message::Text(text) = message {
                let seq = serde_json::from_str::<Value>(&text).unwrap()["seq"].as_u64().unwrap();
                assert!(seq > last, "{seq} after {last}");
                last = seq;
                seen.send(()).unwrap();
            }
        }
        last
    });
    // In step with the quick one: a fanout thread that the machine starves would make the hub
    // conflate, and then the numbers have gaps.
    let beats = stage.beat_until(4_000, |counters| {
        sights.recv_timeout(TIMEOUT).unwrap();
        counters.lags.get() > 0
    });
    stage.beat("b", 77, 0);
    let mut slow = slow.websocket();
    assert_eq!(next(&mut slow)["type"], "initial_metrics");
    let (mut seq, mut updates) = (0, 0);
    while seq < beats as u64 + 1 {
        let message = next(&mut slow);
        assert_eq!(message["type"], "metrics_update");
        assert!(message["seq"].as_u64().unwrap() > seq, "{message} after {seq}");
        seq = message["seq"].as_u64().unwrap();
        updates += 1;
    }
    assert!(updates < beats, "{updates} of {beats}: a backlog");
    stage.beat("b", 78, 0);
    let state = loop {
        let message = next(&mut slow);
        if message["metrics"]["agent_id"] == "b" {
            break message;
        }
    };
    assert_eq!(state["metrics"]["cpu_usage"], 78.0);
    assert_eq!(stage.counters.cut_offs.get(), 0);
    stage.end();
    assert_eq!(drain.unwrap().join().unwrap(), beats as u64 + 2);
}

/// One who stays behind and takes too little is cut off.
#[test]
fn who_stays_behind_is_cut_off() {
    let mut stage = stage(|times| {
        times.maintenance_every = Duration::from_millis(20);
        times.lag_timeout = Duration::from_millis(200);
    });
    let mut peer = stage.join(1);
    stage.beat_until(4_000, |counters| counters.cut_offs.get() > 0);
    // What the kernel had is still there, then the end.
    let mut rest = Vec::new();
    let _ = peer.socket.read_to_end(&mut rest);
    assert!(rest.starts_with(GREETING));
    assert_eq!(stage.counters.cut_offs.get(), 1);
    stage.end();
}

/// Who falls behind in a pool where little changes gets that little, not a snapshot of everything,
/// and is live afterwards.
#[test]
fn who_falls_behind_gets_what_changed() {
    let mut stage = stage(|_| {});
    for agent in 0..20 {
        stage.beat(&format!("idle-{agent}"), 1, 0);
    }
    let slow = stage.join(1);
    let beats = stage.beat_until(4_000, |counters| counters.lags.get() > 0);
    let last = 20 + beats as u64;
    let mut slow = slow.websocket();
    let snapshot = next(&mut slow);
    assert_eq!(snapshot["type"], "initial_metrics");
    let mut seq = snapshot["seq"].as_u64().unwrap();
    while seq < last {
        let message = next(&mut slow);
        assert_eq!(message["type"], "metrics_update");
        assert!(message["seq"].as_u64().unwrap() > seq, "{message} after {seq}");
        seq = message["seq"].as_u64().unwrap();
    }
    for cpu in 1..=5 {
        stage.beat("b", cpu, 0);
        let message = next(&mut slow);
        assert_eq!(message["seq"], last + cpu as u64, "live again");
    }
    stage.end();
}

/// In a quiet pool a dashboard gets keep-alives, with the pool's sequence number, and Pings.
#[test]
fn a_quiet_line_is_kept_alive() {
    let mut stage = stage(|times| {
        times.maintenance_every = Duration::from_millis(10);
        times.keepalive_after = Duration::from_millis(20);
        times.ping_every = Duration::from_millis(20);
    });
    stage.beat("a", 1, 0);
    let mut peer = stage.join(1).websocket();
    assert_eq!(next(&mut peer)["seq"], 1);
    let (mut pings, mut keepalives) = (0, 0);
    while pings < 2 || keepalives < 2 {
        match peer.read().unwrap() {
            Message::Ping(_) => pings += 1,
            Message::Text(text) => {
                let message: Value = serde_json::from_str(&text).unwrap();
                assert_eq!((&message["type"], &message["seq"]), (&json!("keepalive"), &json!(1)));
                assert_eq!(message["pool_id"], "p");
                keepalives += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    stage.end();
}

/// Control frames go out without a tick, a heartbeat or a snapshot; after a Close comes nothing.
#[test]
fn replies_go_out_at_once() {
    let mut stage = stage(|_| {});
    let peer = stage.attach(1);
    let pong = vec![0x8A, 2, b'h', b'i'];
    control(&stage.fanout, 1, Action::Send(pong));
    let mut peer = peer.websocket();
    assert_eq!(peer.read().unwrap(), Message::Pong(b"hi"[..].into()));
    control(&stage.fanout, 1, Action::Send(frame::close(CloseCode::Policy)));
    control(&stage.fanout, 1, Action::Send(frame::ping()));
    stage.beat("a", 1, 0);
    match peer.read().unwrap() {
        Message::Close(Some(close)) => assert_eq!(close.code, CloseCode::Policy),
        other => panic!("{other:?}"),
    }
    control(&stage.fanout, 1, Action::Gone);
    assert!(matches!(peer.read(), Err(Error::ConnectionClosed)));
    stage.end();
}

/// When the hub ends, who reads gets 1001 and who does not holds up nothing but the grace.
#[test]
fn the_end_is_a_close_with_1001() {
    let mut stage = stage(|times| times.close_grace = Duration::from_millis(200));
    let _deaf = stage.join(1);
    stage.beat_until(4_000, |counters| counters.lags.get() > 0);
    let mut peer = stage.join(2).websocket();
    assert_eq!(next(&mut peer)["type"], "initial_metrics");
    stage.hub.shutdown();
    let close = loop {
        match peer.read().unwrap() {
            Message::Close(close) => break close,
            Message::Text(_) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(close.unwrap().code, CloseCode::Away);
    for thread in stage.threads {
        thread.join().unwrap();
    }
}

/// Who was attached when the hub ended gets a Close as well, though the thread had not yet heard
/// of it.
#[test]
fn the_end_finds_who_was_just_attached() {
    // Several times: which of the two channels is looked at first is chance.
    for _ in 0..8 {
        let (fanout, handle, batches) = alone(1);
        let peer = attach(&handle, 1);
        drop(batches);
        let closes = Builder::new().spawn(move || {
            let mut peer = peer.websocket();
            let close = peer.read().unwrap();
            control(&handle, 1, Action::Gone);
            close
        });
        fanout.run();
        match closes.unwrap().join().unwrap() {
            Message::Close(Some(close)) => assert_eq!(close.code, CloseCode::Away),
            other => panic!("{other:?}"),
        }
    }
}

/// In a quiet pool, too, who takes nothing is cut off: also where only control frames are owed.
#[test]
fn who_takes_no_control_frames_is_cut_off() {
    let stage = stage(|times| {
        times.maintenance_every = Duration::from_millis(20);
        times.lag_timeout = Duration::from_millis(200);
    });
    let _peer = stage.join(1);
    let pongs = [0x8A, 0].repeat(8 << 20);
    control(&stage.fanout, 1, Action::Send(pongs));
    let deadline = stage.clock.now() + TIMEOUT;
    while stage.counters.cut_offs.get() == 0 {
        assert!(stage.clock.now() < deadline, "still there: {:?}", stage.counters);
        stage.hub.alive().unwrap();
    }
    stage.end();
}

/// However much the hub has to say, a turn ends, and with it the wait of everyone else.
#[test]
fn a_turn_ends_though_there_is_always_more() {
    let (mut fanout, handle, batches) = alone(4 * FANOUT_BATCHES);
    let batch = |seq| {
        let mut frames = Frames::default();
        frames.push_text("", seq);
        Batch::Updates { feed: FEED, since: seq - 1, frames: Arc::new(frames) }
    };
    for seq in 2..2 + 4 * FANOUT_BATCHES as u64 {
        batches.try_send(batch(seq)).unwrap();
    }
    let _peer = attach(&handle, 1);
    fanout.turn(Some(batch(1)), None, Clock::start().now());
    assert!(!batches.is_empty());
    assert_eq!(fanout.feeds[&FEED].dashboards.len(), 1);
}

impl Fanout {
    /// One turn on the caller's thread, without waiting.
    pub(crate) fn poll(&mut self, now: Instant) {
        // Now and then as in a turn, but with a look between batches.
        if self.parts.batches.len().is_multiple_of(2) {
            self.now = now;
            self.take_controls();
            while let Ok(batch) = self.parts.batches.try_recv() {
                self.batch(batch);
                let unwritten = self.feeds.values().map(|feed| feed.unwritten).max();
                assert!(
                    unwritten.is_none_or(|it| it < MAX_WRITE_BYTES),
                    "{unwritten:?} bytes for one write"
                );
            }
        }
        self.turn(None, None, now);
        assert!(
            self.feeds.values().all(|feed| feed.ring.is_bounded()),
            "a ring of a fanout thread's"
        );
        let dashboards: usize = self.feeds.values().map(|feed| feed.dashboards.len()).sum();
        assert!(self.retries.len() <= dashboards + 16, "{} retries", self.retries.len());
        let snapshots = self.snapshots.kept();
        assert!(snapshots <= dashboards + 16, "{snapshots} snapshots");
        assert!(self.snapshots.is_bounded(), "{:?}", self.snapshots);
    }

    /// With less memory for snapshots than the constant gives.
    pub(crate) fn limit_snapshots(&mut self, max_bytes: usize) {
        self.snapshots.limit(max_bytes);
    }

    /// What dashboards are to ask the hub for later, as they could not.
    pub(crate) fn postponed(&self) -> impl Iterator<Item = Option<u64>> {
        self.feeds.values().flat_map(|feed| {
            feed.dashboards.values().filter_map(|dashboard| dashboard.postponed(&feed.ring))
        })
    }
}
