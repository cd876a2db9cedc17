//! Hub, fanout and dashboards as a simulation: a seeded generator drives them on one thread, in
//! virtual time, with sockets that have a bandwidth and stall. After every step each dashboard is
//! held against a second registry that was told the same.
//!
//! The hub's window is not part of it, as `Hub::poll` does not wait: `hub/tests.rs` covers that.
//!
//! A failing schedule prints its seed. `AGENT_METRICS_SEED=<seed> cargo test --lib simulation`
//! runs that one alone.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};
use serde_json::json;

use crate::runtime::clock::{Clock, UnixMillis};
use crate::runtime::counters::Counters;
use crate::server::event::{Action, Control, FanoutIndex, Stamp, WriteSide};
use crate::server::fanout::{self, Fanout, Times, fanout};
use crate::server::hub::{self, Hub, HubHandle, hub};
use crate::server::limits::{Limits, MAX_BATCH_BYTES};
use crate::server::registry::{GoodbyeOutcome, Registry, Rules};
use crate::server::ring::MAX_RING_BYTES;
use crate::wire::id::{AgentId, DashboardId, PoolId, PoolIndex};
use crate::wire::{KIB, Metrics, Ping, read_ping};

/// Schedules that `make test` runs.
const SCHEDULES: u64 = 2_000;

const TICK: Duration = Duration::from_secs(1);
const STEP: Duration = Duration::from_millis(20);
const GREETING: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\n\r\n";
const POOLS: usize = 2;

/// A socket that takes as many bytes as it was given room for.
#[derive(Debug, Default)]
pub(super) struct Pipe(Mutex<PipeState>);

#[derive(Debug, Default)]
struct PipeState {
    room: usize,
    bytes: Vec<u8>,
    /// Bytes in all, of which only the last ones are kept.
    counted: Option<usize>,
    has_ended: bool,
}

impl Pipe {
    /// Room for so many bytes more.
    pub(super) fn give_room(&self, bytes: usize) {
        self.0.lock().unwrap().room += bytes;
    }

    /// What has arrived.
    pub(super) fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().unwrap().bytes)
    }
}

impl WriteSide for Pipe {
    fn send_now(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.0.lock().unwrap();
        let sent = bytes.len().min(state.room);
        state.room -= sent;
        if let Some(counted) = &mut state.counted {
            *counted += sent;
            state.bytes = bytes[sent.saturating_sub(TAIL_BYTES)..sent].to_vec();
        } else {
            state.bytes.extend_from_slice(&bytes[..sent]);
        }
        Ok(sent)
    }

    fn end(&self) {
        self.0.lock().unwrap().has_ended = true;
    }
}

/// The end of a message, with its sequence number.
const TAIL_BYTES: usize = 64;

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }
}

/// An agent's state in short: its CPU figure, which tells its heartbeats apart.
type Cpu = u32;

/// What a pool's registry went through, as a second one tells.
#[derive(Default)]
struct History {
    /// By sequence number, from 1: who changed, to what; nothing if it departed.
    changes: Vec<(String, Option<Cpu>)>,
    /// Each agent's last change.
    last: BTreeMap<String, u64>,
}

impl History {
    fn note(&mut self, agent: &AgentId, state: Option<Cpu>, seq: u64) {
        self.changes.push((agent.to_string(), state));
        assert_eq!(self.changes.len() as u64, seq);
        self.last.insert(agent.to_string(), seq);
    }

    fn seq(&self) -> u64 {
        self.changes.len() as u64
    }
}

/// A dashboard's far end.
struct Peer {
    id: DashboardId,
    pool: PoolIndex,
    fanout: usize,
    pipe: Arc<Pipe>,
    /// Bytes a step; without it, the socket always has room.
    rate: Option<usize>,
    is_stalled: bool,
    input: Vec<u8>,
    is_greeted: bool,
    /// The fragments of the message that was begun.
    message: Vec<u8>,
    view: BTreeMap<String, Cpu>,
    seq: Option<u64>,
    /// It had all, and so it is to get every change from then on.
    is_live: bool,
    received: usize,
    /// Steps without the beginning of its snapshot.
    waited: usize,
    taken: VecDeque<(Instant, usize)>,
}

/// What a schedule is about.
#[derive(Debug, Clone, Copy)]
struct Scene {
    /// Agents of each pool.
    agents: usize,
    /// Tasks of each agent: the size of its heartbeats.
    tasks: usize,
    /// Batches in a fanout thread's channel.
    capacity: usize,
}

struct World {
    random: Random,
    base: Instant,
    now: Instant,
    next_tick: Instant,
    ticks: Sender<Instant>,
    hub: Hub,
    handle: HubHandle,
    fanouts: Vec<(Fanout, Sender<Control>)>,
    counters: Arc<Counters>,
    conflations: u64,
    mirror: Registry,
    histories: [History; POOLS],
    peers: Vec<Peer>,
    joined: u64,
    stamps: u64,
    /// Heartbeats that a worker has not handed in yet.
    delayed: Vec<(PoolIndex, usize, usize, Stamp)>,
    agents: usize,
    /// Tasks of each heartbeat.
    tasks: usize,
    metrics: MetricsCache,
}

impl World {
    fn new(seed: u64, scene: Scene, metrics: MetricsCache) -> Self {
        let Scene { agents, tasks, capacity } = scene;
        let random = Random(seed);
        let clock = Clock::start();
        let base = clock.now();
        let counters = Arc::new(Counters::default());
        let pools: Arc<[PoolId]> = ["p", "q"].map(|id| PoolId::parse(id).unwrap()).into();
        let rules = Rules {
            evict_after: Duration::from_secs(60),
            tick: TICK,
            max_agents_per_pool: 1_000_000,
            max_pool_bytes: 1 << 40,
        };
        let (ticks, tick_receiver) = bounded(1);
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..2).map(|_| bounded(capacity)).unzip();
        let (hub, handle) = hub(hub::Parts {
            pools: Arc::clone(&pools),
            epoch: "e".into(),
            rules,
            timeout: Duration::from_secs(20),
            ticks: tick_receiver,
            windows: bounded(0).1,
            fanouts: senders,
            clock,
            counters: Arc::clone(&counters),
        });
        let fanouts = receivers.into_iter().map(|batches| {
            fanout(fanout::Parts {
                batches,
                hub: handle.clone(),
                pools: Arc::clone(&pools),
                epoch: "e".into(),
                times: Times::from(&Limits::default()),
                clock,
                counters: Arc::clone(&counters),
            })
        });
        Self {
            random,
            base,
            now: base,
            next_tick: base,
            ticks,
            hub,
            fanouts: fanouts.collect(),
            handle,
            counters,
            conflations: 0,
            mirror: Registry::new(POOLS, rules),
            histories: Default::default(),
            peers: Vec::new(),
            joined: 0,
            stamps: 0,
            delayed: Vec::new(),
            agents,
            tasks,
            metrics,
        }
    }

    fn stamp(&mut self) -> Stamp {
        self.stamps += 1;
        let wall = UnixMillis(u64::try_from((self.now - self.base).as_millis()).unwrap());
        Stamp { number: self.stamps, at: self.now, wall }
    }

    fn beat(&mut self, pool: PoolIndex, agent: usize) {
        let (cpu, stamp) = (self.random.below(CPUS), self.stamp());
        // Workers finish in any order.
        if self.random.one_in(16) {
            self.delayed.push((pool, agent, cpu, stamp));
        } else {
            self.hand_in(pool, agent, cpu, stamp);
        }
    }

    fn hand_in(&mut self, pool: PoolIndex, agent: usize, cpu: usize, stamp: Stamp) {
        let id = agent_id(agent);
        let metrics = self.metrics.get(agent, cpu, self.tasks);
        self.handle.heartbeat(pool, id.clone(), metrics.clone(), stamp).unwrap();
        if let Ok(update) = self.mirror.heartbeat(pool, &id, metrics, stamp) {
            self.histories[pool.0].note(&id, Some(Cpu::try_from(cpu).unwrap()), update.seq);
        }
    }

    fn goodbye(&mut self, pool: PoolIndex, agent: usize) {
        let (id, stamp) = (agent_id(agent), self.stamp());
        self.handle.goodbye(pool, id.clone(), stamp).unwrap();
        if let GoodbyeOutcome::Departed(departed) = self.mirror.goodbye(pool, &id, stamp) {
            self.histories[pool.0].note(&id, None, departed.seq);
        }
    }

    fn join(&mut self, pool: PoolIndex, rate: Option<usize>) {
        let id = DashboardId(self.joined);
        self.joined += 1;
        let fanout = self.random.below(self.fanouts.len());
        let pipe = Arc::new(Pipe::default());
        let socket = Arc::<Pipe>::clone(&pipe);
        self.control(fanout, id, pool, Action::Attach { socket, greeting: GREETING.to_vec() });
        self.handle.join(id, pool, FanoutIndex(fanout)).unwrap();
        self.peers.push(Peer {
            id,
            pool,
            fanout,
            pipe,
            rate,
            is_stalled: false,
            input: Vec::new(),
            is_greeted: false,
            message: Vec::new(),
            view: BTreeMap::new(),
            seq: None,
            is_live: false,
            received: 0,
            waited: 0,
            taken: VecDeque::new(),
        });
    }

    fn control(&self, fanout: usize, dashboard: DashboardId, pool: PoolIndex, action: Action) {
        self.fanouts[fanout].1.send(Control { dashboard, pool, action }).unwrap();
    }

    fn leave(&mut self, index: usize) {
        let Peer { id, pool, fanout, .. } = self.peers.swap_remove(index);
        self.control(fanout, id, pool, Action::Gone);
        self.handle.leave(id);
    }

    /// Time passes, and sockets with it; what is due comes.
    fn pass(&mut self, time: Duration) {
        self.now += time;
        let steps = usize::try_from(time.as_millis() / STEP.as_millis()).unwrap().max(1);
        for peer in &mut self.peers {
            let mut pipe = peer.pipe.0.lock().unwrap();
            pipe.room = match peer.rate {
                _ if peer.is_stalled => pipe.room,
                None => usize::MAX / 2,
                Some(rate) => (pipe.room + rate * steps).min(64 * KIB),
            };
        }
        if self.now >= self.next_tick {
            while self.hub.poll() {}
            self.ticks.send(self.now).unwrap();
            self.hub.poll();
            for (pool, departed) in self.mirror.tick(self.now, UnixMillis(0)) {
                self.histories[pool.0].note(&departed.agent, None, departed.seq);
            }
            self.next_tick = self.now + TICK;
        }
    }

    fn poll_fanout(&mut self, index: usize) {
        self.fanouts[index].0.poll(self.now);
        if self.counters.conflations.get() > self.conflations {
            self.conflations = self.counters.conflations.get();
            self.peers.iter_mut().for_each(|peer| peer.is_live = false);
        }
        let (now, histories) = (self.now, &self.histories);
        self.peers.retain_mut(|peer| {
            let is_there = peer.read(now, &histories[peer.pool.0]);
            if !is_there {
                self.handle.leave(peer.id);
            }
            is_there
        });
    }

    /// All threads have their turn.
    fn poll(&mut self) {
        self.hub.poll();
        for index in 0..self.fanouts.len() {
            self.poll_fanout(index);
        }
        for peer in &mut self.peers {
            peer.waited += usize::from(peer.received < 200 && !peer.is_stalled);
            assert!(peer.waited < 30, "dashboard {} waits for its snapshot", peer.id);
        }
    }

    /// Anything may happen.
    fn disturb(&mut self, is_hot: bool) {
        let pool = PoolIndex(self.random.below(POOLS));
        let agent = self.random.below(self.agents);
        match self.random.below(16) {
            0 => self.goodbye(pool, agent),
            1 | 2 if self.peers.len() < 6 => {
                let rate = [None, None, Some(500), Some(6_500), Some(40_000)];
                let rate = rate[self.random.below(rate.len())];
                self.join(pool, rate);
            }
            3 if !self.peers.is_empty() => {
                let index = self.random.below(self.peers.len());
                if self.random.one_in(4) {
                    self.leave(index);
                } else {
                    let peer = &mut self.peers[index];
                    peer.is_stalled = !peer.is_stalled && peer.rate.is_some();
                }
            }
            4 if !self.peers.is_empty() => {
                let peer = &self.peers[self.random.below(self.peers.len())];
                let pong = Action::Send(vec![0x8A, 1, b'p']);
                self.control(peer.fanout, peer.id, peer.pool, pong);
            }
            5 if !self.delayed.is_empty() => {
                let index = self.random.below(self.delayed.len());
                let (pool, agent, cpu, stamp) = self.delayed.swap_remove(index);
                self.hand_in(pool, agent, cpu, stamp);
            }
            _ => self.beat(pool, agent),
        }
        let burst = match (is_hot, self.tasks) {
            (false, _) => 0,
            (true, 0) => self.random.below(40),
            // At once, more than a ring holds.
            (true, _) => 60 * usize::from(self.random.one_in(12)),
        };
        for _ in 0..burst {
            let agent = self.random.below(self.agents);
            self.beat(PoolIndex(0), agent);
        }
        match self.random.below(300) {
            // The server is away: suspended, stopped.
            0 => self.pass(Duration::from_secs(100)),
            1 => (0..65).for_each(|_| {
                self.pass(TICK);
                self.poll();
            }),
            2 => self.fill_inbox(),
            _ => self.pass(STEP),
        }
        // Who reads slowly may fall behind at any time.
        for peer in &mut self.peers {
            peer.is_live &= peer.rate.is_none();
        }
        // Any thread may be slow.
        match self.random.below(8) {
            0 => {}
            1 => _ = self.hub.poll(),
            2 | 3 => {
                let index = self.random.below(self.fanouts.len());
                self.poll_fanout(index);
            }
            _ => self.poll(),
        }
    }

    /// The hub's inbox is full when fanout threads have something to ask.
    fn fill_inbox(&mut self) {
        while self.handle.inbox_room() > 0 {
            self.handle.leave(DashboardId(u64::MAX));
        }
        for _ in 0..30 {
            for index in 0..self.fanouts.len() {
                self.poll_fanout(index);
            }
            self.now += Duration::from_millis(1);
        }
        while self.hub.poll() {}
    }

    /// Everyone reads faster than the pool changes, and so becomes live, and stays so.
    fn settle(&mut self) {
        for peer in &mut self.peers {
            peer.is_stalled = false;
            peer.rate = peer.rate.map(|rate| rate.max(self.tasks * 170 + 2_000));
        }
        let busy = |world: &mut Self| {
            for pool in 0..POOLS {
                let agent = world.random.below(2);
                let (cpu, stamp) = (world.random.below(CPUS), world.stamp());
                world.hand_in(PoolIndex(pool), agent, cpu, stamp);
            }
            world.pass(STEP);
            // The threads keep up: however small the channels, each pool has its turn.
            (0..2 * POOLS).for_each(|_| world.poll());
        };
        // What a dashboard may have begun, a snapshot, a ring, and what changed: at the rate by
        // which it is faster than the changes.
        let snapshot = self.agents * (self.tasks * 170 + 500);
        let steps = 100 + (2 * snapshot + MAX_RING_BYTES + 4 * MAX_BATCH_BYTES) / 1_500;
        let mut left = steps;
        while !self.peers.iter().all(|peer| peer.is_live) {
            left -= 1;
            let waiting = || self.peers.iter().filter(|peer| !peer.is_live);
            let ids: Vec<_> = waiting().map(|peer| (peer.id, peer.rate, peer.seq)).collect();
            assert!(left > 0, "after {steps} steps of reading {ids:?} are not live");
            busy(self);
        }
        let readers = self.peers.len();
        for _ in 0..20 {
            busy(self);
            assert!(self.peers.iter().all(|peer| peer.is_live), "live again, and then not");
        }
        for _ in 0..60 {
            self.pass(STEP);
            self.poll();
        }
        assert_eq!(self.peers.len(), readers, "a reader was cut off");
        for peer in &self.peers {
            let history = &self.histories[peer.pool.0];
            assert_eq!(peer.seq, Some(history.seq()), "dashboard {}", peer.id);
        }
    }
}

impl Peer {
    /// Takes what has arrived. Whether the connection is still there.
    fn read(&mut self, now: Instant, history: &History) -> bool {
        if self.pipe.0.lock().unwrap().counted.is_some() {
            return true;
        }
        let bytes = self.pipe.take();
        self.received += bytes.len();
        if self.rate.is_some() {
            self.taken.push_back((now, bytes.len()));
        }
        let limits = Limits::default();
        while self.taken.front().is_some_and(|(at, _)| *at + limits.lag_timeout < now) {
            self.taken.pop_front();
        }
        self.input.extend(bytes);
        if !self.is_greeted && self.input.starts_with(GREETING) {
            self.input.drain(..GREETING.len());
            self.is_greeted = true;
        }
        while self.is_greeted && self.frame(history) {}
        if self.seq == Some(history.seq()) {
            self.is_live = true;
        }
        let has_ended = self.pipe.0.lock().unwrap().has_ended;
        if has_ended {
            let taken: usize = self.taken.iter().map(|(_, bytes)| bytes).sum();
            let is_slow = self.rate.is_some() && taken < limits.lag_min_bytes;
            assert!(is_slow, "dashboard {} took {taken} bytes and was cut off", self.id);
        }
        !has_ended
    }

    /// Takes the next frame (RFC 6455 section 5.2), if it is whole.
    fn frame(&mut self, history: &History) -> bool {
        let [first, second, ..] = self.input[..] else { return false };
        let length_bytes = match second {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let Some(extended) = self.input.get(2..2 + length_bytes) else { return false };
        let extended = extended.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        let length = if length_bytes == 0 { usize::from(second) } else { extended };
        let start = 2 + length_bytes;
        if self.input.len() < start + length {
            return false;
        }
        let payload: Vec<u8> = self.input.drain(..start + length).skip(start).collect();
        let (is_final, opcode) = (first & 0x80 != 0, first & 0x7F);
        match opcode {
            0x0 | 0x1 => {
                assert_eq!(opcode == 0x1, self.message.is_empty(), "a message within a message");
                self.message.extend(payload);
                if is_final {
                    let message = std::mem::take(&mut self.message);
                    self.take(std::str::from_utf8(&message).unwrap(), history);
                }
            }
            0x9 | 0xA => assert!(is_final && length < 126),
            other => panic!("opcode {other:x}"),
        }
        true
    }

    /// Holds a message against what happened.
    fn take(&mut self, text: &str, history: &History) {
        let kind = between(text, "\"type\":\"", '"').unwrap();
        let (_, seq) = text.strip_suffix('}').unwrap().rsplit_once("\"seq\":").unwrap();
        let seq: u64 = seq.parse().unwrap();
        if kind == "keepalive" {
            return assert_eq!(Some(seq), self.seq, "a keep-alive tells of what did not come");
        }
        let (metrics, _) = text.split_once("\"departed\":").unwrap_or((text, ""));
        let states: Vec<_> = metrics.split("\"agent_id\":\"").skip(1).map(state).collect();
        if kind == "initial_metrics" {
            assert!(Some(seq) >= self.seq, "an older snapshot");
            self.view = states.into_iter().map(|(id, cpu)| (id, cpu.unwrap())).collect();
        } else {
            let last = self.seq.expect("the snapshot comes first");
            assert!(seq > last, "{seq} after {last}");
            assert!(!self.is_live || seq == last + 1, "{seq} after {last} for one who keeps up");
            let [(agent, cpu)] = &states[..] else { panic!("{text}") };
            let change = &history.changes[usize::try_from(seq).unwrap() - 1];
            assert_eq!(change, &(agent.clone(), *cpu), "change {seq}");
            match cpu {
                Some(cpu) => _ = self.view.insert(agent.clone(), *cpu),
                None => _ = self.view.remove(agent),
            }
        }
        self.seq = Some(seq);
        // Of what has not changed since, it has the truth.
        for (agent, last) in history.last.iter().filter(|(_, last)| **last <= seq) {
            let (_, state) = &history.changes[usize::try_from(*last).unwrap() - 1];
            let held = self.view.get(agent).copied();
            assert_eq!(held, *state, "{agent} as of {last}, at {seq}, for {}", self.id);
        }
    }
}

/// An agent's id and state, from a metrics object behind `"agent_id":"`.
fn state(object: &str) -> (String, Option<Cpu>) {
    let (id, rest) = object.split_once('"').unwrap();
    let cpu = between(rest, "\"cpu_usage\":", ',').map(|it| it.parse::<f64>().unwrap());
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "below 100")]
    (id.to_owned(), cpu.map(|cpu| cpu as Cpu))
}

fn between<'a>(text: &'a str, before: &str, behind: char) -> Option<&'a str> {
    text.split_once(before)?.1.split(behind).next()
}

fn agent_id(agent: usize) -> AgentId {
    AgentId::parse(&format!("a{agent}")).unwrap()
}

/// Distinct CPU figures.
const CPUS: usize = 8;

/// Heartbeats, parsed once.
#[derive(Default)]
struct MetricsCache(BTreeMap<(usize, usize, usize), Metrics>);

impl MetricsCache {
    fn get(&mut self, agent: usize, cpu: usize, tasks: usize) -> Metrics {
        let make = || {
            let task = json!({
                "task_id": 1, "task_type": "x".repeat(100), "workspace_id": "", "started_at": "",
            });
            let body = json!({
                "status": "busy", "cpu_usage": cpu, "memory_usage": 1,
                "running_tasks": vec![task; tasks],
            });
            match read_ping(body.to_string().as_bytes(), &agent_id(agent), UnixMillis(0)) {
                Ok(Ping::Metrics(metrics)) => metrics,
                other => panic!("{other:?}"),
            }
        };
        self.0.entry((agent, cpu, tasks)).or_insert_with(make).clone()
    }
}

/// Everything that follows from a seed.
fn schedule(seed: u64, metrics: MetricsCache) -> MetricsCache {
    let mut random = Random(seed);
    // Snapshots that are longer than a ring, which costs time, or many small changes.
    let is_big = random.one_in(32);
    let (agents, tasks) = if is_big { (100, 30) } else { (1 + random.below(12), 0) };
    let scene = Scene { agents, tasks, capacity: 1 + random.below(8) };
    let is_hot = random.one_in(3);
    let mut world = World::new(random.next(), scene, metrics);
    if is_big {
        for agent in 0..agents {
            world.beat(PoolIndex(0), agent);
        }
    }
    for _ in 0..60 + random.below(120) {
        world.disturb(is_hot);
    }
    world.settle();
    world.metrics
}

/// Thousands of schedules, each of which keeps every promise and every bound after every step, and
/// ends with all readers live.
#[test]
fn every_schedule_keeps_the_promises() {
    let one = std::env::var("AGENT_METRICS_SEED").ok().map(|seed| seed.parse().unwrap());
    let seeds = one.map_or(0..SCHEDULES, |seed: u64| seed..seed + 1);
    let mut metrics = MetricsCache::default();
    for seed in seeds {
        let run = catch_unwind(AssertUnwindSafe(|| schedule(seed, std::mem::take(&mut metrics))));
        metrics = run.unwrap_or_else(|panic| {
            eprintln!("AGENT_METRICS_SEED={seed} cargo test --lib simulation  # fails");
            resume_unwind(panic)
        });
    }
}

/// Fanout threads that stand still for two seconds while few of many agents change: what is sent
/// afterwards is each changed state about once, and not the load of two seconds, nor the pool.
#[test]
fn what_was_missed_is_sent_once() {
    const AGENTS: usize = 10_000;
    const CHANGING: usize = AGENTS / 100;
    const DASHBOARDS: usize = 200;
    let scene = Scene { agents: AGENTS, tasks: 10, capacity: 2 };
    let mut world = World::new(1, scene, MetricsCache::default());
    let beat = |world: &mut World, agent| {
        let stamp = world.stamp();
        world.hand_in(PoolIndex(0), agent, 1, stamp);
    };
    for agent in 0..AGENTS {
        beat(&mut world, agent);
        while world.hub.poll() {}
    }
    for _ in 0..DASHBOARDS {
        world.join(PoolIndex(0), None);
    }
    for peer in &world.peers {
        peer.pipe.0.lock().unwrap().counted = Some(0);
    }
    let sent = |world: &World| -> usize {
        world.peers.iter().map(|peer| peer.pipe.0.lock().unwrap().counted.unwrap()).sum()
    };
    let all_have = |world: &World| {
        let end = format!("\"seq\":{}}}", world.histories[0].seq());
        let has = |peer: &Peer| peer.pipe.0.lock().unwrap().bytes.ends_with(end.as_bytes());
        world.peers.iter().all(has)
    };
    for _ in 0..2 {
        world.pass(STEP);
        world.hub.poll();
        world.fanouts.iter_mut().for_each(|(fanout, _)| fanout.poll(world.now));
    }
    assert!(all_have(&world));
    let before = sent(&world);
    let heartbeat = world.metrics.get(0, 1, 10).cost_bytes();
    // Each of the few beats 20 times: 2,000 heartbeats.
    for step in 0..100 {
        for agent in 0..20 {
            beat(&mut world, (20 * step + agent) % CHANGING);
        }
        world.pass(STEP);
        world.hub.poll();
    }
    for _ in 0..20 {
        world.pass(STEP);
        world.hub.poll();
        world.fanouts.iter_mut().for_each(|(fanout, _)| fanout.poll(world.now));
    }
    assert!(all_have(&world));
    let sent = sent(&world) - before;
    let changed = DASHBOARDS * CHANGING * heartbeat;
    assert!(sent < 2 * changed, "{sent} bytes sent for {changed} of changed states");
}

/// Of an agent that changes often, who reads more slowly than the pool changes sees a newer state
/// within the time of a few snapshots, though that agent is always the last to have changed.
#[test]
fn a_slow_reader_sees_a_hot_agent_change() {
    const COLD: usize = 98;
    const HOT: usize = COLD;
    const RATE: usize = 9_000;
    /// Of a message with 30 tasks, about.
    const MESSAGE_BYTES: usize = 5_500;
    const SNAPSHOT_STEPS: usize = COLD * MESSAGE_BYTES / RATE;
    let scene = Scene { agents: COLD + 1, tasks: 30, capacity: 8 };
    let mut world = World::new(1, scene, MetricsCache::default());
    let beat = |world: &mut World, agent, cpu| {
        let stamp = world.stamp();
        world.hand_in(PoolIndex(0), agent, cpu, stamp);
    };
    for agent in 0..=COLD {
        beat(&mut world, agent, 0);
    }
    while world.hub.poll() {}
    world.join(PoolIndex(0), Some(RATE));
    let hot = agent_id(HOT).to_string();
    let (mut seen, mut seen_at) = (None, 0);
    for step in 0..24 * SNAPSHOT_STEPS {
        for cold in 0..2 {
            beat(&mut world, (2 * step + cold) % COLD, step % CPUS);
        }
        if step % 5 == 0 {
            beat(&mut world, HOT, step / 5 % CPUS);
        }
        world.pass(STEP);
        world.poll();
        let state = world.peers[0].view.get(&hot).copied();
        if state != seen {
            (seen, seen_at) = (state, step);
        }
        let blind = step - seen_at;
        assert!(blind < 6 * SNAPSHOT_STEPS, "the hot agent was last seen to change at {seen_at}");
    }
}
