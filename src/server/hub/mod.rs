//! The one thread that owns what the server knows: the registry, and who watches what. Others
//! talk to it through a [`HubHandle`], which hides the messages; it talks to dashboards through
//! the fanout threads' channels. It waits for events and for ticks, and for nobody else: where a
//! fanout thread's channel is full, its `Outbox` knows from which change on to go on later.

mod handle;
mod outbox;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::TryRecvError::{Disconnected, Empty};
use crossbeam_channel::{Receiver, Select, Sender, bounded, select};

use crate::runtime::clock::{Clock, UnixMillis};
use crate::runtime::counters::Counters;
use crate::server::event::{Batch, Event, FanoutIndex, Stamp, Verdict};
use crate::server::frame::Frames;
use crate::server::limits::{HUB_INBOX, MAX_BATCH_BYTES};
use crate::server::registry::{Changed, Farewell, Gone, Registry, Rules, Update};
use crate::wire::id::{AgentId, DashboardId, PoolId, PoolIndex};
use crate::wire::{self, Envelope, Metrics, Snapshot};
use handle::Room;
pub(crate) use handle::{HubError, HubHandle};
use outbox::{Outbox, Source};

/// Events handled before the hub looks at the clock and at its outboxes again: long enough to
/// make batches of, short enough that a tick or a join does not wait noticeably.
const EVENTS_PER_TURN: usize = 256;

/// What the hub is made of. The tick's period is in `rules`; `ticks` itself is the caller's, so
/// that tests own time.
#[derive(Debug)]
pub(crate) struct Parts {
    /// The pools' ids, in the configuration's order.
    pub pools: Arc<[PoolId]>,
    /// This run of the server.
    pub epoch: Arc<str>,
    /// Bounds and the notion of silence.
    pub rules: Rules,
    /// How long a handle's call waits for the hub.
    pub patience: Duration,
    /// Eviction ticks, each with its instant.
    pub ticks: Receiver<Instant>,
    /// One channel for each fanout thread, by [`FanoutIndex`].
    pub fanouts: Vec<Sender<Batch>>,
    /// For the wall time in messages.
    pub clock: Clock,
    /// What is counted.
    pub counters: Arc<Counters>,
}

/// Makes a hub, to be run on a thread of its own, and the handle to it.
#[must_use]
pub(crate) fn hub(parts: Parts) -> (Hub, HubHandle) {
    let Parts { pools, epoch, rules, patience, ticks, fanouts, clock, counters } = parts;
    let (sender, inbox) = bounded(HUB_INBOX);
    let rooms: Arc<[Room]> = pools.iter().map(|_| Room::default()).collect();
    let hub = Hub {
        registry: Registry::new(pools.len(), rules),
        watchers: HashMap::new(),
        outboxes: fanouts.into_iter().map(|fanout| Outbox::new(fanout, pools.len())).collect(),
        inbox,
        ticks,
        rooms: Arc::clone(&rooms),
        pools,
        epoch,
        clock,
        counters,
    };
    (hub, HubHandle { inbox: sender, rooms, rules, patience })
}

/// The hub. [`Hub::run`] is its thread.
#[derive(Debug)]
pub(crate) struct Hub {
    registry: Registry,
    watchers: HashMap<DashboardId, Watcher>,
    outboxes: Vec<Outbox>,
    inbox: Receiver<Event>,
    ticks: Receiver<Instant>,
    rooms: Arc<[Room]>,
    pools: Arc<[PoolId]>,
    epoch: Arc<str>,
    clock: Clock,
    counters: Arc<Counters>,
}

/// Where a dashboard is to be reached.
#[derive(Debug, Clone, Copy)]
struct Watcher {
    pool: PoolIndex,
    fanout: FanoutIndex,
}

/// Why the hub ended, other than by [`HubHandle::shutdown`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HubFailure {
    /// A fanout thread is gone.
    FanoutGone(FanoutIndex),
    /// Whoever made the ticks is gone: nobody would ever be evicted.
    TicksGone,
}

impl fmt::Display for HubFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FanoutGone(FanoutIndex(index)) => write!(f, "fanout-{index} is gone"),
            Self::TicksGone => f.write_str("the eviction tick is gone"),
        }
    }
}

impl std::error::Error for HubFailure {}

/// What the hub wakes up for.
enum Next {
    Event(Event),
    Tick(Instant),
    /// A fanout thread that had no room has some.
    Room,
}

impl Hub {
    /// Handles events and ticks until [`HubHandle::shutdown`], or until no handle is left.
    ///
    /// # Errors
    /// [`HubFailure`] when a thread that it cannot do without is gone.
    pub(crate) fn run(mut self) -> Result<(), HubFailure> {
        loop {
            match self.next()? {
                Next::Event(event) => {
                    if self.take(event).is_break() {
                        return self.flush();
                    }
                }
                Next::Tick(now) => self.tick(now),
                Next::Room => {}
            }
            self.flush()?;
        }
    }

    /// Waits for the next thing to do. Room in a fanout thread's channel is waited for only while
    /// something is to go there: a channel with room is always ready.
    fn next(&self) -> Result<Next, HubFailure> {
        if self.outboxes.iter().any(Outbox::is_blocked) {
            let mut select = Select::new();
            select.recv(&self.inbox);
            select.recv(&self.ticks);
            for outbox in self.outboxes.iter().filter(|outbox| outbox.is_blocked()) {
                outbox.wait_in(&mut select);
            }
            select.ready();
            // Being ready is only a hint. The tick is asked first: it is rare. A channel that is
            // closed is always ready, so its end counts here as well.
            match self.ticks.try_recv() {
                Ok(now) => return Ok(Next::Tick(now)),
                Err(Disconnected) => return Err(HubFailure::TicksGone),
                Err(Empty) => {}
            }
            return Ok(match self.inbox.try_recv() {
                Ok(event) => Next::Event(event),
                Err(Empty) => Next::Room,
                Err(Disconnected) => Next::Event(Event::Shutdown),
            });
        }
        select! {
            recv(self.ticks) -> now => now.map(Next::Tick).map_err(|_| HubFailure::TicksGone),
            recv(self.inbox) -> event => Ok(Next::Event(event.unwrap_or(Event::Shutdown))),
        }
    }

    /// Handles `first` and what waits behind it, as much as one turn takes.
    fn take(&mut self, first: Event) -> ControlFlow<()> {
        self.handle(first)?;
        for _ in 1..EVENTS_PER_TURN {
            match self.inbox.try_recv() {
                Ok(event) => self.handle(event)?,
                Err(_) => break,
            }
        }
        // An inbox that is never empty must not keep a tick waiting.
        if let Ok(now) = self.ticks.try_recv() {
            self.tick(now);
        }
        ControlFlow::Continue(())
    }

    /// The closed list of what changes or reads the hub's state. A reply whose asker has given up
    /// is dropped.
    fn handle(&mut self, event: Event) -> ControlFlow<()> {
        match event {
            Event::Heartbeat { pool, agent, metrics, stamp, reply } => {
                let verdict = self.heartbeat(pool, &agent, metrics, stamp);
                if let Some(reply) = reply {
                    let _ = reply.try_send(verdict);
                }
            }
            Event::Goodbye { pool, agent, stamp, reply } => {
                let farewell = self.registry.goodbye(pool, &agent, stamp);
                if let Some(reply) = reply {
                    let _ = reply.try_send(farewell != Farewell::Unknown);
                }
                if let Farewell::Gone(gone) = farewell {
                    self.publish_gone(gone, self.clock.wall());
                }
            }
            Event::Join { dashboard, pool, fanout } => {
                self.watchers.insert(dashboard, Watcher { pool, fanout });
                self.outboxes[fanout.0].watch(pool, dashboard);
            }
            Event::Resume { dashboard, since } => {
                if let Some(Watcher { pool, fanout }) = self.watchers.get(&dashboard) {
                    // Those for whom a snapshot is needed share one.
                    let since = since.filter(|seq| self.registry.is_complete_since(*pool, *seq));
                    self.outboxes[fanout.0].resume(*pool, dashboard, since);
                }
            }
            Event::Leave { dashboard } => {
                if let Some(Watcher { pool, fanout }) = self.watchers.remove(&dashboard) {
                    self.outboxes[fanout.0].unwatch(pool, dashboard);
                }
            }
            Event::Snapshot { pool, reply } => {
                let _ = reply.try_send(self.registry.snapshot(pool, self.clock.wall()));
            }
            Event::Summaries { reply } => {
                let _ = reply.try_send(self.registry.summaries());
            }
            Event::Alive { reply } => {
                let _ = reply.try_send(());
            }
            Event::Shutdown => return ControlFlow::Break(()),
        }
        ControlFlow::Continue(())
    }

    fn heartbeat(
        &mut self,
        pool: PoolIndex,
        agent: &AgentId,
        metrics: Metrics,
        stamp: Stamp,
    ) -> Verdict {
        let cost = metrics.cost_bytes();
        let verdict = match self.registry.heartbeat(pool, agent, metrics, stamp) {
            Ok(update) => {
                self.counters.heartbeats.add_one();
                self.publish(pool, Changed::Update(update), self.clock.wall());
                Verdict::Accepted
            }
            Err(verdict) => {
                if verdict == Verdict::Overtaken {
                    self.counters.overtaken.add_one();
                }
                verdict
            }
        };
        self.note_population(pool);
        self.rooms[pool.0].handled(cost);
        verdict
    }

    fn tick(&mut self, now: Instant) {
        let wall = self.clock.wall();
        for gone in self.registry.tick(now, wall) {
            self.counters.evictions.add_one();
            self.publish_gone(gone, wall);
        }
    }

    fn publish_gone(&mut self, gone: Gone, wall: UnixMillis) {
        self.note_population(gone.pool);
        self.publish(gone.pool, Changed::Gone(gone), wall);
    }

    /// Makes the message once, if anyone is to get it now.
    fn publish(&mut self, pool: PoolIndex, changed: Changed, server_time: UnixMillis) {
        if !self.outboxes.iter().any(|outbox| outbox.takes_updates(pool)) {
            return;
        }
        let mut envelope =
            Envelope { pool: &self.pools[pool.0], server_time, epoch: &self.epoch, seq: 0 };
        let text = message(&mut envelope, changed);
        for outbox in &mut self.outboxes {
            if outbox.takes_updates(pool) {
                outbox.push_update(pool, &text, envelope.seq);
            }
        }
    }

    /// Hands on what is to be sent, to every fanout thread that has room.
    fn flush(&mut self) -> Result<(), HubFailure> {
        let state = State {
            registry: &self.registry,
            pools: &self.pools,
            epoch: &self.epoch,
            wall: self.clock.wall(),
        };
        for (index, outbox) in self.outboxes.iter_mut().enumerate() {
            outbox.flush(&state).map_err(|_| HubFailure::FanoutGone(FanoutIndex(index)))?;
            self.counters.conflations.add(outbox.take_conflated());
        }
        Ok(())
    }

    fn note_population(&self, pool: PoolIndex) {
        let (agents, bytes) = self.registry.population(pool);
        let room = &self.rooms[pool.0];
        room.agents.store(agents, Ordering::Relaxed);
        room.bytes.store(bytes, Ordering::Relaxed);
    }
}

/// The message about a change, whose sequence number it puts into the envelope.
fn message(envelope: &mut Envelope<'_>, changed: Changed) -> String {
    match changed {
        Changed::Update(Update { metrics, interval_ms, seq }) => {
            envelope.seq = seq;
            wire::update(envelope, &metrics, interval_ms)
        }
        Changed::Gone(Gone { agent, reason, seq, .. }) => {
            envelope.seq = seq;
            wire::offline(envelope, &agent, reason)
        }
    }
}

/// What outboxes send of the hub's state.
struct State<'a> {
    registry: &'a Registry,
    pools: &'a [PoolId],
    epoch: &'a str,
    wall: UnixMillis,
}

impl Source for State<'_> {
    fn snapshot(&self, pool: PoolIndex) -> Snapshot {
        self.registry.snapshot(pool, self.wall)
    }

    fn changes(&self, pool: PoolIndex, since: u64) -> Option<(Frames, bool)> {
        if !self.registry.is_complete_since(pool, since) {
            return None;
        }
        let (server_time, epoch) = (self.wall, self.epoch);
        let mut envelope = Envelope { pool: &self.pools[pool.0], server_time, epoch, seq: since };
        let mut frames = Frames::default();
        for changed in self.registry.changes(pool, since) {
            if frames.bytes().len() >= MAX_BATCH_BYTES {
                return Some((frames, false));
            }
            let text = message(&mut envelope, changed);
            frames.push_text(&text, envelope.seq);
        }
        Some((frames, true))
    }
}
