//! What may happen in a schedule, by chance: what agents, dashboards, the clock and the threads do.

use std::collections::BTreeSet;
use std::time::Duration;

use super::peer::Peer;
use super::world::{Request, World};
use super::{POOLS, STEP, Scene, TICK};
use crate::server::event::Action;
use crate::server::feed::FeedId;
use crate::server::limits::{MAX_BATCH_BYTES, MAX_DEPARTURE_CHANGES};
use crate::server::ring::MAX_RING_BYTES;
use crate::wire::KIB;
use crate::wire::id::{DashboardId, PoolIndex};

/// Heartbeats with tasks: at once, more than a ring holds.
const BURST: usize = 60;

/// The longest time between batches.
const MAX_PERIOD: Duration = Duration::from_secs(5);

/// Bytes a step that dashboards take: of the slow ones, the first is too slow and the second just not.
const RATES: [Option<usize>; 7] =
    [None, None, Some(4), Some(20), Some(500), Some(6_500), Some(40_000)];

/// What dashboards ask for.
const QUERIES: [Option<&str>; 6] =
    [None, None, None, Some("batch_ms=50"), Some("batch_ms=200"), Some("batch_ms=5000")];

/// SplitMix64 (Steele, Lea, Flood 2014).
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    pub(super) fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    pub(super) fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

impl World {
    /// Anything may happen.
    pub(super) fn disturb(&mut self, is_hot: bool) {
        let pool = PoolIndex(self.random.below(POOLS));
        let agent = self.random.below(self.scene.agents);
        match self.random.below(16) {
            0 => {
                let goodbye = self.goodbye(pool, agent);
                self.receive(goodbye);
            }
            1 | 2 if self.peers.len() < 6 => {
                let rate = self.random.one_of(&RATES);
                let feed = self.feed(pool);
                self.join(feed, rate);
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
                self.control(peer.fanout, peer.id, peer.feed, pong);
            }
            5 if !self.delayed.is_empty() => {
                let index = self.random.below(self.delayed.len());
                let request = self.delayed.swap_remove(index);
                self.hand_in(request);
            }
            6 if self.random.one_in(8) => self.all_depart(pool),
            _ => {
                let heartbeat = self.heartbeat(pool, agent);
                self.receive(heartbeat);
            }
        }
        let burst = match (is_hot, self.scene.tasks) {
            (false, _) => 0,
            (true, 0) => self.random.below(40),
            (true, _) => BURST * usize::from(self.random.one_in(6)),
        };
        self.burst(burst);
        match self.random.below(300) {
            0 => self.stall(),
            1 => self.idle(),
            2 | 3 => self.fill_inbox(),
            4 if self.random.one_in(3) => self.join_storm(pool),
            _ => self.pass(STEP),
        }
        // Any thread may be slow.
        match self.random.below(8) {
            0 => {}
            1 => _ = self.poll_hub(),
            2 | 3 => {
                let index = self.random.below(self.fanouts.len());
                self.poll_fanout(index);
            }
            _ => self.poll(),
        }
    }

    /// Single messages for half of the dashboards, batches of any class for the others.
    fn feed(&mut self, pool: PoolIndex) -> FeedId {
        let query = self.random.one_of(&QUERIES);
        FeedId::of_pool(pool, query).unwrap()
    }

    fn burst(&mut self, heartbeats: usize) {
        for _ in 0..heartbeats {
            let agent = self.random.below(self.scene.agents);
            let heartbeat = self.heartbeat(PoolIndex(0), agent);
            self.receive(heartbeat);
        }
    }

    fn all_depart(&mut self, pool: PoolIndex) {
        for agent in 0..self.scene.agents.min(20) {
            let goodbye = self.goodbye(pool, agent);
            self.receive(goodbye);
        }
    }

    fn join_storm(&mut self, pool: PoolIndex) {
        while self.peers.len() < 12 {
            let rate = self.random.one_of(&[None, Some(500), Some(6_500)]);
            let feed = self.feed(pool);
            self.join(feed, rate);
        }
        self.reached.add("join storm");
        self.pass(STEP);
    }

    /// The fanout threads stand still while more changes than the hub's rings hold, and more depart
    /// than are remembered.
    fn overload(&mut self) {
        if self.scene.tasks > 0 {
            for _ in 0..4 {
                self.burst(BURST);
                self.poll_hub();
            }
        }
        self.all_depart(PoolIndex(0));
        self.reached.add("overload");
    }

    /// The hub's inbox is full when dashboards that have lost their place have something to ask:
    /// after some rounds of changes they have proved to be slow.
    fn fill_inbox(&mut self) {
        let rounds = if self.scene.tasks > 0 { self.random.below(8) } else { 0 };
        for _ in 0..rounds {
            self.burst(BURST);
            for _ in 0..3 {
                self.give_slow_ones_room(32 * KIB);
                self.now += 5 * STEP;
                self.poll();
            }
        }
        while self.handle.inbox_room() > 0 {
            self.handle.leave(DashboardId(u64::MAX));
        }
        for _ in 0..20 {
            self.give_slow_ones_room(256 * KIB);
            self.now += STEP;
            for index in 0..self.fanouts.len() {
                self.poll_fanout(index);
            }
        }
        self.full_at = Some(self.now);
        self.empty_inbox();
    }

    fn give_slow_ones_room(&mut self, bytes: usize) {
        let slow = self.peers.iter().filter(|peer| peer.rate.is_some());
        slow.for_each(|peer| peer.pipe.give_room(bytes));
    }

    /// Everyone reads faster than the pool changes, and so becomes live, and stays so: also where
    /// nothing changes any more that would make a fanout thread look at them.
    pub(super) fn settle(&mut self) {
        let is_quiet = self.random.one_in(2);
        match self.random.below(8) {
            0 | 1 => self.fill_inbox(),
            2 | 3 => self.overload(),
            _ => {}
        }
        let Scene { agents, tasks, max_departures, .. } = self.scene;
        for peer in &mut self.peers {
            (peer.is_stalled, peer.keeps_up) = (false, true);
            peer.rate = peer.rate.map(|rate| rate.max(tasks * 170 + 2_000));
        }
        let feeds: BTreeSet<_> = self.peers.iter().map(|peer| peer.feed).collect();
        let step = |world: &mut Self, is_quiet: bool| {
            for pool in (0..POOLS).filter(|_| !is_quiet) {
                let agent = world.random.below(2);
                world.beat(PoolIndex(pool), agent);
            }
            world.pass(STEP);
            // The threads keep up: however small the channels, each feed has its turn.
            (0..2 * feeds.len()).for_each(|_| world.poll());
        };
        // What a dashboard may have begun, a snapshot, a ring, and what changed: at the rate by
        // which it is faster than the changes.
        let snapshot = agents * (tasks * 170 + 500);
        let period = usize::try_from(MAX_PERIOD.as_millis() / STEP.as_millis()).unwrap();
        let steps =
            100 + 2 * period + (2 * snapshot + MAX_RING_BYTES + 4 * MAX_BATCH_BYTES) / 1_500;
        let mut left = steps;
        while !self.peers.iter().all(|peer| peer.is_live) {
            left -= 1;
            let waiting = || self.peers.iter().filter(|peer| !peer.is_live);
            let ids: Vec<_> = waiting().map(|peer| (peer.id, peer.rate, peer.seq)).collect();
            assert!(left > 0, "after {steps} steps of reading {ids:?} are not live");
            step(self, is_quiet);
        }
        let readers = self.peers.len();
        for _ in 0..20 {
            step(self, false);
            // A batch that lacks departures which were forgotten is not made.
            let may_end = |peer: &Peer| {
                peer.feed.period() > Duration::ZERO && max_departures < MAX_DEPARTURE_CHANGES
            };
            let goes_on = |peer: &Peer| peer.is_live || may_end(peer);
            assert!(self.peers.iter().all(goes_on), "live again, and then not");
            self.check_batches_in_time();
        }
        // The last evictions come, and then nothing more.
        for count in 0..60 {
            if count < 30 {
                self.pass(STEP);
            } else {
                self.read_for(STEP);
            }
            self.poll();
        }
        // And the last batches.
        self.read_for(MAX_PERIOD);
        for _ in 0..steps {
            let has_all =
                |peer: &Peer| peer.seq == Some(self.pools[peer.feed.pool().unwrap().0].seq());
            if self.peers.iter().all(has_all) {
                break;
            }
            self.poll();
            self.read_for(STEP);
        }
        assert_eq!(self.peers.len(), readers, "a reader was cut off");
        // Promise 4.
        for peer in &self.peers {
            let pool = &self.pools[peer.feed.pool().unwrap().0];
            assert!(pool.is_all_told());
            assert_eq!(peer.seq, Some(pool.seq()), "dashboard {}", peer.id);
            let present = pool.as_of(pool.seq()).filter_map(|it| Some((it.agent, it.state?)));
            assert_eq!(peer.view, present.collect(), "dashboard {}", peer.id);
        }
        self.reached.add_many("reader that became live", readers);
    }

    /// Where there is something new, the last batch was made less than a period ago.
    fn check_batches_in_time(&self) {
        for feed in self.peers.iter().map(|peer| peer.feed) {
            let pool = &self.pools[feed.pool().unwrap().0];
            let made = pool.last_made(feed);
            if made < pool.seq() {
                let ago = self.now - pool.made_at(feed, made).unwrap();
                assert!(ago < feed.period(), "{feed:?}: nothing new for {ago:?}");
            }
        }
    }

    /// The server is away: suspended, stopped.
    fn stall(&mut self) {
        // What was in flight then and nothing overtook may be forgotten, of an agent not known.
        let pools = &self.pools;
        self.delayed.retain(|Request { pool, agent, stamp, .. }| {
            pools[pool.0].is_known(*agent) || pools[pool.0].is_stale(*agent, *stamp)
        });
        self.peers.iter_mut().for_each(|peer| peer.full_since = None);
        self.pass(Duration::from_secs(100));
        self.reached.add("stall of the server");
    }

    /// Over a minute: who is silent is evicted, who is stalled is cut off.
    fn idle(&mut self) {
        let is_busy = self.random.one_in(2);
        for _ in 0..80 {
            if is_busy {
                let agent = self.random.below(self.scene.agents);
                let heartbeat = self.heartbeat(PoolIndex(0), agent);
                self.receive(heartbeat);
            }
            self.pass(TICK);
            self.poll();
        }
    }
}
