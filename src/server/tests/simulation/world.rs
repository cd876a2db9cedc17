//! Hub, fanout threads and dashboards on one thread, in virtual time, beside what is true.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};
use serde_json::json;

use super::generator::Random;
use super::model::{Beat, Pool};
use super::peer::Peer;
use super::pipe::Pipe;
use super::{GREETING, POOLS, Reached, STEP, Scene, TICK, agent_id};
use crate::runtime::clock::{Clock, UnixMillis};
use crate::runtime::counters::Counters;
use crate::server::event::{Action, Control, FanoutIndex, Stamp};
use crate::server::fanout::{self, Fanout, Times, fanout};
use crate::server::feed::FeedId;
use crate::server::hub::{self, Hub, HubHandle, hub};
use crate::server::limits::Limits;
use crate::server::registry::Rules;
use crate::wire::id::{DashboardId, PoolId, PoolIndex};
use crate::wire::{KIB, Metrics, Ping, read_ping};

/// Heartbeats, parsed once.
#[derive(Default)]
pub(super) struct MetricsCache(BTreeMap<(usize, Beat, usize), Metrics>);

impl MetricsCache {
    /// The agent's heartbeat, which its CPU figure tells from its others.
    pub(super) fn get(&mut self, agent: usize, beat: Beat, tasks: usize) -> &Metrics {
        let make = || {
            let task = json!({
                "task_id": 1, "task_type": "x".repeat(100), "workspace_id": "", "started_at": "",
            });
            let body = json!({
                "status": "busy", "cpu_usage": f64::from(beat) / 100.0, "memory_usage": 1,
                "running_tasks": vec![task; tasks],
            });
            match read_ping(body.to_string().as_bytes(), &agent_id(agent), UnixMillis(0)) {
                Ok(Ping::Metrics(metrics)) => metrics,
                other => panic!("{other:?}"),
            }
        };
        self.0.entry((agent, beat, tasks)).or_insert_with(make)
    }
}

/// A worker's request: a heartbeat, or a goodbye.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request {
    pub(super) pool: PoolIndex,
    pub(super) agent: usize,
    beat: Option<Beat>,
    pub(super) stamp: Stamp,
}

pub(super) struct World {
    pub(super) random: Random,
    pub(super) scene: Scene,
    base: Instant,
    pub(super) now: Instant,
    polled_at: Instant,
    last_tick: Instant,
    next_tick: Instant,
    ticks: Sender<Instant>,
    pub(super) hub: Hub,
    pub(super) handle: HubHandle,
    pub(super) fanouts: Vec<(Fanout, Sender<Control>)>,
    counters: Arc<Counters>,
    conflations: u64,
    pub(super) pools: [Pool; POOLS],
    pub(super) peers: Vec<Peer>,
    joined: u64,
    stamps: u64,
    /// What a worker has not handed in yet: workers finish in any order.
    pub(super) delayed: Vec<Request>,
    /// The inbox was last full then.
    pub(super) full_at: Option<Instant>,
    pub(super) metrics: MetricsCache,
    pub(super) reached: Reached,
}

impl World {
    pub(super) fn new(seed: u64, scene: Scene, metrics: MetricsCache) -> Self {
        let clock = Clock::start();
        let base = clock.now();
        let counters = Arc::new(Counters::default());
        let pools: Arc<[PoolId]> = ["p", "q"].map(|id| PoolId::parse(id).unwrap()).into();
        let rules = Rules {
            evict_after: scene.evict_after,
            tick: TICK,
            max_agents_per_pool: 1_000_000,
            max_pool_bytes: 1 << 40,
            max_updates_per_second: scene.max_updates,
        };
        let (ticks, tick_receiver) = bounded(1);
        let (senders, receivers): (Vec<_>, Vec<_>) =
            (0..2).map(|_| bounded(scene.capacity)).unzip();
        let (mut hub, handle) = hub(hub::Parts {
            pools: Arc::clone(&pools),
            names: Arc::default(),
            epoch: "e".into(),
            rules,
            timeout: Duration::from_secs(20),
            ticks: tick_receiver,
            windows: bounded(0).1,
            fanouts: senders,
            clock,
            counters: Arc::clone(&counters),
        });
        hub.limit_departures(scene.max_departures);
        if scene.keeps_snapshots {
            hub.keep_all_snapshots();
        }
        let fanouts = receivers.into_iter().map(|batches| {
            let (mut fanout, fanout_handle) = fanout(fanout::Parts {
                batches,
                hub: handle.clone(),
                pools: Arc::clone(&pools),
                epoch: "e".into(),
                times: Times::from(&Limits::default()),
                clock,
                counters: Arc::clone(&counters),
            });
            fanout.limit_snapshots(scene.max_snapshot_bytes);
            (fanout, fanout_handle)
        });
        let mut world = Self {
            random: Random(seed),
            scene,
            base,
            now: base,
            polled_at: base,
            last_tick: base,
            next_tick: base,
            ticks,
            hub,
            fanouts: fanouts.collect(),
            handle,
            counters,
            conflations: 0,
            pools: std::array::from_fn(|_| Pool::new(scene)),
            peers: Vec::new(),
            joined: 0,
            stamps: 0,
            delayed: Vec::new(),
            full_at: None,
            metrics,
            reached: Reached::default(),
        };
        // Without a tick before it, a stall cannot be told from silence.
        world.tick();
        world
    }

    fn stamp(&mut self) -> Stamp {
        self.stamps += 1;
        let wall = UnixMillis(u64::try_from((self.now - self.base).as_millis()).unwrap());
        Stamp { number: self.stamps, at: self.now, wall }
    }

    pub(super) fn heartbeat(&mut self, pool: PoolIndex, agent: usize) -> Request {
        let stamp = self.stamp();
        let beat = Some(self.pools[pool.0].issue(agent, stamp));
        Request { pool, agent, beat, stamp }
    }

    pub(super) fn goodbye(&mut self, pool: PoolIndex, agent: usize) -> Request {
        Request { pool, agent, beat: None, stamp: self.stamp() }
    }

    /// A worker gets it, and hands it in now or later.
    pub(super) fn receive(&mut self, request: Request) {
        if self.random.one_in(16) {
            self.delayed.push(request);
        } else {
            self.hand_in(request);
        }
    }

    pub(super) fn hand_in(&mut self, Request { pool, agent, beat, stamp }: Request) {
        let (id, truth) = (agent_id(agent), &mut self.pools[pool.0]);
        if truth.is_stale(agent, stamp) {
            let why = if truth.is_known(agent) { "overtaken" } else { "after it departed" };
            self.reached.add_because("stale request", why);
            if truth.is_late(stamp) && !truth.is_known(agent) {
                self.reached.add_because("stale request", "after it may have been evicted");
            }
        }
        match beat {
            Some(beat) => {
                let metrics = self.metrics.get(agent, beat, self.scene.tasks).clone();
                self.handle.heartbeat(pool, id, metrics, stamp).unwrap();
                truth.heartbeat(agent, beat, stamp, self.now, &mut self.reached);
            }
            None => {
                self.handle.goodbye(pool, id, stamp).unwrap();
                truth.goodbye(agent, stamp);
            }
        }
        self.handle_at_once();
    }

    /// Where updates are deferred it matters when the hub handles what it is told.
    fn handle_at_once(&mut self) {
        if self.scene.max_updates < usize::MAX {
            self.empty_inbox();
        }
    }

    /// The agent's next heartbeat, without delay.
    pub(super) fn beat(&mut self, pool: PoolIndex, agent: usize) {
        let heartbeat = self.heartbeat(pool, agent);
        self.hand_in(heartbeat);
    }

    pub(super) fn join(&mut self, feed: FeedId, rate: Option<usize>) {
        let id = DashboardId(self.joined);
        self.joined += 1;
        let fanout = self.random.below(self.fanouts.len());
        let seq = feed.pool().map_or(0, |pool| self.pools[pool.0].seq());
        let peer = Peer::new(id, feed, fanout, rate, seq);
        let socket = Arc::<Pipe>::clone(&peer.pipe);
        self.control(fanout, id, feed, Action::Attach { socket, greeting: GREETING.to_vec() });
        self.handle.join(id, feed, FanoutIndex(fanout)).unwrap();
        self.peers.push(peer);
        self.pools[feed.pool().unwrap().0].announce_all(self.now);
        self.handle_at_once();
    }

    pub(super) fn control(
        &self,
        fanout: usize,
        dashboard: DashboardId,
        feed: FeedId,
        action: Action,
    ) {
        self.fanouts[fanout].1.send(Control { dashboard, feed, action }).unwrap();
    }

    pub(super) fn leave(&mut self, index: usize) {
        let Peer { id, feed, fanout, .. } = self.peers.swap_remove(index);
        self.control(fanout, id, feed, Action::Gone);
        self.handle.leave(id);
    }

    /// Time passes, and what is due comes.
    pub(super) fn pass(&mut self, time: Duration) {
        self.read_for(time);
        if self.now >= self.next_tick {
            self.tick();
        }
        // No worker takes longer, to hand in and to be answered.
        let in_flight = 2 * Limits::default().worker_timeout;
        let (overdue, delayed): (Vec<_>, Vec<_>) =
            self.delayed.drain(..).partition(|it| it.stamp.at + in_flight < self.now);
        self.delayed = delayed;
        overdue.into_iter().for_each(|request| self.hand_in(request));
    }

    /// Time passes, and dashboards read.
    pub(super) fn read_for(&mut self, time: Duration) {
        self.now += time;
        let steps = usize::try_from(time.as_millis() / STEP.as_millis()).unwrap().max(1);
        for peer in &mut self.peers {
            match peer.rate {
                _ if peer.is_stalled => {}
                None => peer.pipe.give_room_up_to(usize::MAX, usize::MAX / 2),
                Some(rate) => peer.pipe.give_room_up_to(rate * steps, 64 * KIB),
            }
        }
    }

    fn tick(&mut self) {
        self.empty_inbox();
        self.ticks.send(self.now).unwrap();
        let gap = self.now - self.last_tick;
        let away = if gap > 2 * TICK { gap } else { Duration::ZERO };
        for pool in &mut self.pools {
            let evicted = pool.tick(self.now, away);
            self.reached.add_many("eviction", evicted);
        }
        self.poll_hub();
        self.last_tick = self.now;
        self.next_tick = self.now + TICK;
    }

    /// The hub has its turn. Whether it has more to do.
    pub(super) fn poll_hub(&mut self) -> bool {
        let has_more = self.hub.poll_at(self.now);
        for pool in &mut self.pools {
            pool.announce_due(self.now, &mut self.reached);
        }
        for peer in &self.peers {
            let pool = &mut self.pools[peer.feed.pool().unwrap().0];
            if let Some(seq) = self.hub.made(peer.feed) {
                pool.note_made(peer.feed, seq, self.now);
            }
        }
        has_more
    }

    pub(super) fn empty_inbox(&mut self) {
        while self.poll_hub() {}
    }

    pub(super) fn poll_fanout(&mut self, index: usize) {
        let fanout = &mut self.fanouts[index].0;
        fanout.poll(self.now);
        let is_full = self.handle.inbox_room() == 0;
        for since in fanout.postponed() {
            let what = if since.is_some() { "changes" } else { "a snapshot" };
            if is_full {
                self.reached.add_because("full inbox when asking for", what);
            } else if self.full_at.is_none_or(|at| at + Duration::from_secs(1) < self.now) {
                self.reached.add_because("no memory for a snapshot, later", what);
            }
        }
        let Counters { conflations, batches_split, .. } = &*self.counters;
        let conflations = conflations.get() + batches_split.get();
        if conflations > self.conflations {
            self.conflations = conflations;
            self.peers.iter_mut().for_each(|peer| peer.is_live = false);
        }
        let Self { now, pools, handle, reached, .. } = self;
        self.peers.retain_mut(|peer| {
            let is_there = peer.read(*now, &pools[peer.feed.pool().unwrap().0], reached);
            if !is_there {
                handle.leave(peer.id);
            }
            is_there
        });
    }

    /// All threads have their turn.
    pub(super) fn poll(&mut self) {
        self.poll_hub();
        for index in 0..self.fanouts.len() {
            self.poll_fanout(index);
        }
        if self.now == self.polled_at {
            return;
        }
        self.polled_at = self.now;
        for peer in &mut self.peers {
            let pool = &self.pools[peer.feed.pool().unwrap().0];
            peer.wait(pool.last_made(peer.feed));
            // Where there is no memory and departures were forgotten, somebody must first end.
            let needs_snapshot = peer.seq.is_none_or(|seq| pool.is_forgotten(seq));
            let is_in_time = peer.waited < 30 || (self.scene.is_scarce() && needs_snapshot);
            assert!(
                is_in_time,
                "dashboard {} of {:?} waits, with {:?} of {}, made up to {}",
                peer.id,
                peer.feed,
                peer.seq,
                pool.seq(),
                pool.last_made(peer.feed)
            );
        }
    }
}
