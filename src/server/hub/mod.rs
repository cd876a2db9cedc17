//! The one thread that owns what the server knows: the registry, and who watches what. Others
//! talk to it through a [`HubHandle`], which hides the messages; it talks to dashboards through
//! the fanout threads' channels. It waits for events and for ticks and never for a fanout thread:
//! where that one's channel is full, its [`Outbox`] keeps requests, not messages.

mod batches;
mod handle;
mod kept;
mod outbox;
mod overview;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::TryRecvError::{Disconnected, Empty};
use crossbeam_channel::{Receiver, Select, Sender, bounded};
use thiserror::Error;

use crate::runtime::clock::Clock;
use crate::runtime::counters::Counters;
use crate::server::event::{Batch, Event, FanoutIndex, Verdict};
use crate::server::feed::{FeedId, MAX_PERIOD};
use crate::server::frame::Frames;
use crate::server::limits::{HUB_INBOX, MAX_BATCH_BYTES};
use crate::server::registry::{Change, ChangeKind, GoodbyeOutcome, Registry, Rules};
use crate::server::ring::Ring;
use crate::wire::id::{DashboardId, PoolId, PoolIndex};
use crate::wire::{self, Envelope, Snapshot};
use batches::Schedule;
pub(crate) use handle::{HubError, HubHandle};
use handle::{Room, lock};
use kept::KeptSnapshots;
use outbox::Outbox;
use overview::Overview;

/// Events handled before the hub looks at the clock and at its outboxes again: enough to make
/// batches of, and few enough that a tick or a join does not wait noticeably.
const EVENTS_PER_TURN: usize = 256;

/// The time between beats of [`Parts::windows`]: how long heartbeats may wait for one another.
/// Waking the hub and the fanout threads is most of what a heartbeat costs. Long enough that the
/// heartbeats of an ordinary load share a wake-up; short enough that a person does not see it, and
/// that half an inbox lasts for 200,000 heartbeats a second.
pub(crate) const HUB_WINDOW: Duration = Duration::from_millis(10);

/// What the hub is made of. The times are the caller's, so that tests own them.
#[derive(Debug)]
pub(crate) struct Parts {
    /// The pools' ids, in the configuration's order.
    pub pools: Arc<[PoolId]>,
    /// Their names for people.
    pub names: Arc<[String]>,
    /// This run of the server.
    pub epoch: Arc<str>,
    pub rules: Rules,
    /// How long a handle's call waits for the hub.
    pub timeout: Duration,
    /// Eviction ticks, each with its instant, `rules.tick` apart.
    pub ticks: Receiver<Instant>,
    /// Beats, [`HUB_WINDOW`] apart. After a turn the hub lets heartbeats gather until the next
    /// beat; after a pause one has come already, and it does not wait.
    pub windows: Receiver<Instant>,
    /// One channel for each fanout thread, by [`FanoutIndex`].
    pub fanouts: Vec<Sender<Batch>>,
    pub clock: Clock,
    pub counters: Arc<Counters>,
}

/// Makes a hub, to be run on a thread of its own, and the handle to it.
pub(crate) fn hub(parts: Parts) -> (Hub, HubHandle) {
    let Parts { pools, names, epoch, rules, timeout, ticks, windows, fanouts, clock, counters } =
        parts;
    let (sender, inbox) = bounded(HUB_INBOX);
    let (urgent_sender, urgent) = bounded(1);
    let rooms: Arc<[Mutex<Room>]> = pools.iter().map(|_| Mutex::default()).collect();
    let registry = Registry::new(pools.len(), rules);
    let (rings, kept) = (BTreeMap::new(), KeptSnapshots::default());
    let schedule = Schedule::default();
    let overview = Overview::new(Arc::clone(&pools), names);
    let outboxes = fanouts.into_iter().enumerate();
    let outbox = |(index, fanout)| Outbox::new(FanoutIndex(index), fanout);
    let hub = Hub {
        outboxes: outboxes.map(outbox).collect(),
        now: clock.now(),
        state: State { registry, rings, kept, schedule, overview, pools, epoch, clock, counters },
        watchers: HashMap::new(),
        inbox,
        urgent,
        ticks,
        windows,
        rooms: Arc::clone(&rooms),
    };
    (hub, HubHandle { inbox: sender, urgent: urgent_sender, rooms, rules, timeout })
}

/// The hub. [`Hub::run`] is its thread.
#[derive(Debug)]
pub(crate) struct Hub {
    state: State,
    /// The time of this turn.
    now: Instant,
    /// Where each dashboard is to be reached.
    watchers: HashMap<DashboardId, (FeedId, FanoutIndex)>,
    outboxes: Vec<Outbox>,
    inbox: Receiver<Event>,
    /// The inbox has an event that ends the window.
    urgent: Receiver<()>,
    ticks: Receiver<Instant>,
    windows: Receiver<Instant>,
    rooms: Arc<[Mutex<Room>]>,
}

/// What there is to tell dashboards, and how.
#[derive(Debug)]
struct State {
    registry: Registry,
    /// By feed that somebody watches: the messages that not every fanout thread has been sent.
    rings: BTreeMap<FeedId, Ring>,
    kept: KeptSnapshots,
    schedule: Schedule,
    overview: Overview,
    pools: Arc<[PoolId]>,
    epoch: Arc<str>,
    clock: Clock,
    counters: Arc<Counters>,
}

/// Why the hub ended, other than by [`HubHandle::shutdown`].
#[derive(Debug, PartialEq, Eq, Error)]
pub(crate) enum HubFailure {
    #[error("fanout-{} has ended", .0.0)]
    FanoutEnded(FanoutIndex),
    /// Without ticks no agent would ever be evicted.
    #[error("the eviction tick has ended")]
    TicksEnded,
}

impl Hub {
    /// Handles events and ticks until [`HubHandle::shutdown`], or until no handle is left.
    ///
    /// # Errors
    /// [`HubFailure`] when a thread that it cannot do without has ended.
    pub(crate) fn run(mut self) -> Result<(), HubFailure> {
        while self.turn(self.state.clock.now())?.is_continue() {
            self.wait();
        }
        // Dashboards get what came before the end, as far as there is capacity; what is deferred and
        // batches do not wait for their time.
        self.now += MAX_PERIOD;
        self.tell_what_is_due();
        while self.has_requests() || self.state.schedule.is_due(self.now) {
            self.make_batches();
            self.flush()?;
        }
        Ok(())
    }

    /// Waits until there is something to do, and lets heartbeats gather before that.
    fn wait(&self) {
        if self.has_requests() {
            return;
        }
        let State { registry, schedule, .. } = &self.state;
        let next_at = [schedule.next_at(), registry.next_announcement()];
        let next_at = next_at.into_iter().flatten().min();
        let has_come = |select: &mut Select<'_>| match next_at {
            Some(at) => select.ready_deadline(at).is_ok(),
            None => {
                select.ready();
                true
            }
        };
        let mut select = Select::new();
        select.recv(&self.ticks);
        for outbox in &self.outboxes {
            outbox.wait_in(&mut select);
        }
        // Where events have come during the last turn, none need to gather.
        if self.inbox.is_empty() {
            let mut window = select.clone();
            window.recv(&self.urgent);
            window.recv(&self.windows);
            if !has_come(&mut window) {
                return;
            }
            let _ = (self.urgent.try_recv(), self.windows.try_recv());
        }
        select.recv(&self.inbox);
        has_come(&mut select);
    }

    /// Handles what there is, as much as one turn takes, without waiting.
    fn turn(&mut self, now: Instant) -> Result<ControlFlow<()>, HubFailure> {
        self.now = now;
        match self.ticks.try_recv() {
            Ok(now) => self.tick(now),
            Err(Empty) => {}
            Err(Disconnected) => return Err(HubFailure::TicksEnded),
        }
        let mut flow = ControlFlow::Continue(());
        for _ in 0..EVENTS_PER_TURN {
            flow = match self.inbox.try_recv() {
                Ok(event) => self.handle(event),
                Err(Empty) => break,
                Err(Disconnected) => ControlFlow::Break(()),
            };
            if flow.is_break() {
                break;
            }
        }
        self.tell_what_is_due();
        self.flush()?;
        Ok(flow)
    }

    /// Announces what was deferred until now, and makes the batches that may go.
    fn tell_what_is_due(&mut self) {
        for (pool, change) in self.state.registry.announce_due(self.now) {
            self.publish(pool, &change);
        }
        self.make_batches();
    }

    /// The closed list of what changes or reads the hub's state. A reply whose receiver has given up
    /// is dropped.
    fn handle(&mut self, event: Event) -> ControlFlow<()> {
        match event {
            Event::Heartbeat { pool, agent, metrics, stamp, reply } => {
                let cost = metrics.cost_bytes();
                let registry = &mut self.state.registry;
                let verdict = match registry.heartbeat(pool, &agent, metrics, stamp, self.now) {
                    Ok(change) => {
                        self.state.counters.heartbeats.add_one();
                        match change {
                            Some(change) => self.publish(pool, &change),
                            None => {
                                self.state.counters.deferred.add_one();
                                self.note_population(pool);
                            }
                        }
                        Verdict::Accepted
                    }
                    Err(Verdict::Stale) => {
                        self.state.counters.stale.add_one();
                        Verdict::Stale
                    }
                    Err(full) => full,
                };
                lock(&self.rooms[pool.0]).release(cost);
                let _ = reply.map(|reply| reply.try_send(verdict));
            }
            Event::Goodbye { pool, agent, stamp, reply } => {
                let outcome = self.state.registry.goodbye(pool, &agent, stamp);
                let _ = reply.map(|reply| reply.try_send(outcome != GoodbyeOutcome::Unknown));
                if let GoodbyeOutcome::Departed(change) = outcome {
                    self.publish(pool, &change);
                }
            }
            Event::Join { dashboard, feed, fanout } => {
                // Its snapshot is to have all that was heard before.
                if let Some(pool) = feed.pool().filter(|_| !feed.is_overview()) {
                    for change in self.state.registry.announce_all(pool, self.now) {
                        self.publish(pool, &change);
                    }
                }
                let seq = self.state.join(feed, self.now);
                self.watchers.insert(dashboard, (feed, fanout));
                self.state.rings.entry(feed).or_default();
                self.outboxes[fanout.0].join(feed, dashboard, seq);
            }
            Event::Resume { dashboard, since } => {
                if let Some(&(feed, fanout)) = self.watchers.get(&dashboard) {
                    self.outboxes[fanout.0].resume(feed, dashboard, since);
                }
            }
            Event::Leave { dashboard } => {
                if let Some((feed, fanout)) = self.watchers.remove(&dashboard) {
                    self.outboxes[fanout.0].leave(feed, dashboard);
                    if self.outboxes.iter().all(|outbox| outbox.cursor(feed).is_none()) {
                        self.state.rings.remove(&feed);
                        self.state.schedule.forget(feed);
                    }
                }
            }
            Event::Snapshot { pool, reply } => {
                let pool = &self.state.registry.pools[pool.0];
                let _ = reply.try_send(pool.newest_snapshot(self.state.clock.wall()));
            }
            Event::History { pool, agents, reply } => {
                let (pool, clock) = (&self.state.registry.pools[pool.0], &self.state.clock);
                let _ = reply.try_send(pool.history(agents, clock.now(), clock.wall()));
            }
            Event::Summaries { reply } => {
                let (now, wall) = (self.state.clock.now(), self.state.clock.wall());
                let pools = self.state.registry.pools.iter();
                let summaries = pools.map(|pool| pool.figures(now, wall, false).summary);
                let _ = reply.try_send(summaries.collect());
            }
            Event::Alive { reply } => {
                let _ = reply.try_send(());
            }
            Event::Shutdown => return ControlFlow::Break(()),
        }
        ControlFlow::Continue(())
    }

    fn tick(&mut self, now: Instant) {
        self.state.kept.expire();
        for (pool, change) in self.state.registry.tick(now, self.state.clock.wall()) {
            self.state.counters.evictions.add_one();
            self.publish(pool, &change);
        }
        self.look(now);
    }

    /// Tells the overview's dashboards what changed since they were told last.
    fn look(&mut self, now: Instant) {
        let State { registry, rings, overview, epoch, clock, .. } = &mut self.state;
        if !overview.is_due(now) {
            return;
        }
        let watched: Vec<_> = rings.keys().copied().filter(|feed| feed.is_overview()).collect();
        let messages = overview.look(&registry.pools, &watched, (now, clock.wall()), epoch);
        for (feed, text, seq) in messages {
            let mut frames = Frames::default();
            frames.push_long_text(&text, seq);
            rings.entry(feed).or_default().append(seq - 1, Arc::new(frames));
            for outbox in &mut self.outboxes {
                outbox.note_update(feed);
            }
        }
    }

    /// Tells workers how full the pool is now.
    fn note_population(&self, pool: PoolIndex) {
        lock(&self.rooms[pool.0]).note(self.state.registry.pools[pool.0].population());
    }

    /// The same, and tells dashboards what changed: the message is made once, if anyone watches.
    fn publish(&mut self, pool: PoolIndex, change: &Change) {
        self.note_population(pool);
        self.state.schedule.note(pool);
        let feed = FeedId::Updates(pool);
        if !self.state.rings.contains_key(&feed) {
            return;
        }
        let text = self.state.message(pool, change);
        self.state.rings.entry(feed).or_default().push_text(&text, change.seq);
        for outbox in &mut self.outboxes {
            outbox.note_update(feed);
        }
    }

    /// Hands on what is to be sent, to every fanout thread whose channel has capacity, and drops
    /// what all of them have.
    fn flush(&mut self) -> Result<(), HubFailure> {
        for outbox in &mut self.outboxes {
            outbox.flush(&mut self.state)?;
        }
        let rings = self.state.rings.iter_mut().filter(|(_, ring)| !ring.is_empty());
        for (feed, ring) in rings {
            let cursors = self.outboxes.iter().filter_map(|outbox| outbox.cursor(*feed));
            ring.trim(cursors.min().unwrap_or(u64::MAX));
        }
        Ok(())
    }

    /// Whether outboxes have requests that can be served now.
    fn has_requests(&self) -> bool {
        self.outboxes.iter().any(Outbox::is_busy)
    }
}

impl State {
    /// Somebody joins the feed, whose last change has the returned number.
    fn join(&mut self, feed: FeedId, now: Instant) -> u64 {
        match feed {
            FeedId::Updates(pool) => self.registry.pools[pool.0].seq(),
            FeedId::Batches(pool, _) => {
                let seq = self.registry.pools[pool.0].seq();
                self.schedule.watch(feed, seq, now);
                self.schedule.made(feed).unwrap_or(seq)
            }
            FeedId::AllPools | FeedId::OnePool(_) => {
                let time = (now, self.clock.wall());
                self.overview.join(feed, &self.registry.pools, time);
                self.overview.seq(feed)
            }
        }
    }

    /// All that an overview shows.
    fn overview(&self, feed: FeedId) -> Arc<Frames> {
        let text = self.overview.all(feed, self.clock.wall(), &self.epoch);
        let mut frames = Frames::default();
        frames.push_long_text(&text, self.overview.seq(feed));
        Arc::new(frames)
    }

    fn snapshot(&self, pool: PoolIndex) -> Snapshot {
        self.registry.pools[pool.0].snapshot(self.clock.wall())
    }

    fn message(&self, pool: PoolIndex, change: &Change) -> String {
        let (pool, server_time) = (&self.pools[pool.0], self.clock.wall());
        let envelope =
            Envelope { pool: Some(pool), server_time, epoch: &self.epoch, seq: change.seq };
        match &change.kind {
            ChangeKind::Update { metrics, interval_ms } => {
                wire::update(&envelope, metrics, *interval_ms)
            }
            ChangeKind::Departed(departure) => {
                wire::offline(&envelope, &change.agent, departure.reason)
            }
        }
    }

    /// Each agent's newest change after `since`, the oldest first, as the feed's messages, up to about
    /// [`MAX_BATCH_BYTES`]. `None` where the registry has forgotten some. Of an overview, all.
    fn changes(&self, feed: FeedId, since: u64) -> Option<Arc<Frames>> {
        let pool = match feed {
            FeedId::Updates(pool) => pool,
            FeedId::Batches(pool, _) => return self.missed_batch(feed, pool, since),
            FeedId::AllPools | FeedId::OnePool(_) => return Some(self.overview(feed)),
        };
        let mut frames = Frames::default();
        for change in self.registry.pools[pool.0].changes(since)? {
            if frames.bytes().len() >= MAX_BATCH_BYTES {
                break;
            }
            frames.push_text(&self.message(pool, &change), change.seq);
        }
        Some(Arc::new(frames))
    }
}
