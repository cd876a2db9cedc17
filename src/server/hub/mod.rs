//! The one thread that owns what the server knows: the registry, and who watches what. Others
//! talk to it through a [`HubHandle`], which hides the messages; it talks to dashboards through
//! the fanout threads' channels. It waits for events and for ticks and never for a fanout thread:
//! where that one's channel is full, its [`Outbox`] keeps requests, not messages.

mod handle;
mod outbox;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::TryRecvError::{Disconnected, Empty};
use crossbeam_channel::{Receiver, RecvError, Select, Sender, bounded, select};
use thiserror::Error;

use crate::runtime::clock::{Clock, UnixMillis};
use crate::runtime::counters::Counters;
use crate::server::event::{Batch, Event, FanoutIndex, Stamp, Verdict};
use crate::server::frame::Frames;
use crate::server::limits::{HUB_INBOX, MAX_BATCH_BYTES};
use crate::server::registry::{Change, Departed, GoodbyeOutcome, Registry, Rules, Update};
use crate::server::ring::Ring;
use crate::wire::id::{AgentId, DashboardId, PoolId, PoolIndex};
use crate::wire::{self, Envelope, Metrics, Snapshot};
pub(crate) use handle::{HubError, HubHandle};
use handle::{Room, lock};
use outbox::Outbox;

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
    let Parts { pools, epoch, rules, timeout, ticks, windows, fanouts, clock, counters } = parts;
    let (sender, inbox) = bounded(HUB_INBOX);
    let (urgent_sender, urgent) = bounded(1);
    let rooms: Arc<[Mutex<Room>]> = pools.iter().map(|_| Mutex::default()).collect();
    let hub = Hub {
        registry: Registry::new(pools.len(), rules),
        watchers: HashMap::new(),
        rings: pools.iter().map(|_| Ring::default()).collect(),
        outboxes: fanouts.into_iter().map(|fanout| Outbox::new(fanout, pools.len())).collect(),
        inbox,
        urgent,
        ticks,
        windows,
        rooms: Arc::clone(&rooms),
        pools,
        epoch,
        clock,
        counters,
    };
    (hub, HubHandle { inbox: sender, urgent: urgent_sender, rooms, rules, timeout })
}

/// The hub. [`Hub::run`] is its thread.
#[derive(Debug)]
pub(crate) struct Hub {
    registry: Registry,
    watchers: HashMap<DashboardId, Watcher>,
    /// By pool: the messages that not every fanout thread has been sent.
    rings: Vec<Ring>,
    outboxes: Vec<Outbox>,
    inbox: Receiver<Event>,
    /// The inbox has an event that ends the window.
    urgent: Receiver<()>,
    ticks: Receiver<Instant>,
    windows: Receiver<Instant>,
    rooms: Arc<[Mutex<Room>]>,
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
#[derive(Debug, PartialEq, Eq, Error)]
pub(crate) enum HubFailure {
    #[error("fanout-{} has ended", .0.0)]
    FanoutEnded(FanoutIndex),
    /// Without ticks no agent would ever be evicted.
    #[error("the eviction tick has ended")]
    TicksEnded,
}

/// What ends the hub's wait.
enum Next {
    Event(Event),
    Tick(Instant),
    /// Requests of outboxes can be served.
    Requests,
}

impl Hub {
    /// Handles events and ticks until [`HubHandle::shutdown`], or until no handle is left.
    ///
    /// # Errors
    /// [`HubFailure`] when a thread that it cannot do without has ended.
    pub(crate) fn run(mut self) -> Result<(), HubFailure> {
        loop {
            match self.next()? {
                Next::Event(event) => {
                    if self.turn(event).is_break() {
                        return self.flush_all();
                    }
                }
                Next::Tick(now) => self.tick(now),
                Next::Requests => {}
            }
            self.flush()?;
        }
    }

    /// Waits for the next thing to do.
    fn next(&self) -> Result<Next, HubFailure> {
        if self.has_requests() {
            return self.poll_next();
        }
        if self.outboxes.iter().any(Outbox::is_blocked) {
            self.wait_while_blocked();
            return self.poll_next();
        }
        // Where events have come during the last turn, none need to gather.
        if self.inbox.is_empty() {
            select! {
                recv(self.ticks) -> now => return tick_or_end(now),
                recv(self.urgent) -> _ => {}
                recv(self.windows) -> _ => {}
            }
        }
        select! {
            recv(self.ticks) -> now => tick_or_end(now),
            recv(self.inbox) -> event => Ok(Next::Event(event.unwrap_or(Event::Shutdown))),
        }
    }

    /// Waits for the same, and for capacity in the fanout channels that are full. Only while
    /// something is to go there: a channel with capacity is always ready.
    fn wait_while_blocked(&self) {
        let mut select = Select::new();
        select.recv(&self.inbox);
        select.recv(&self.ticks);
        for outbox in self.outboxes.iter().filter(|outbox| outbox.is_blocked()) {
            outbox.wait_in(&mut select);
        }
        select.ready();
    }

    /// What there is to do now, if not for a tick or an event then for an outbox.
    fn poll_next(&self) -> Result<Next, HubFailure> {
        // The tick first, since it is rare. A closed channel is always ready, so its end is found
        // here.
        match self.ticks.try_recv() {
            Ok(now) => return Ok(Next::Tick(now)),
            Err(Disconnected) => return Err(HubFailure::TicksEnded),
            Err(Empty) => {}
        }
        Ok(match self.inbox.try_recv() {
            Ok(event) => Next::Event(event),
            Err(Empty) => Next::Requests,
            Err(Disconnected) => Next::Event(Event::Shutdown),
        })
    }

    /// Handles `first` and what waits behind it, as much as one turn takes.
    fn turn(&mut self, first: Event) -> ControlFlow<()> {
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

    /// The closed list of what changes or reads the hub's state. A reply whose receiver has given up
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
                let outcome = self.registry.goodbye(pool, &agent, stamp);
                if let Some(reply) = reply {
                    let _ = reply.try_send(outcome != GoodbyeOutcome::Unknown);
                }
                if let GoodbyeOutcome::Departed(departed) = outcome {
                    self.publish_departure(departed, self.clock.wall());
                }
            }
            Event::Join { dashboard, pool, fanout } => {
                self.watchers.insert(dashboard, Watcher { pool, fanout });
                let seq = self.registry.seq(pool);
                self.outboxes[fanout.0].join(pool, dashboard, seq);
            }
            Event::Resume { dashboard, since } => {
                if let Some(Watcher { pool, fanout }) = self.watchers.get(&dashboard) {
                    self.outboxes[fanout.0].resume(*pool, dashboard, since);
                }
            }
            Event::Leave { dashboard } => {
                if let Some(Watcher { pool, fanout }) = self.watchers.remove(&dashboard) {
                    self.outboxes[fanout.0].leave(pool, dashboard);
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
                self.publish(pool, Change::Update(update), self.clock.wall());
                Verdict::Accepted
            }
            Err(verdict) => {
                if verdict == Verdict::Stale {
                    self.counters.stale.add_one();
                }
                verdict
            }
        };
        let mut room = lock(&self.rooms[pool.0]);
        room.release(cost);
        room.note(self.registry.population(pool));
        verdict
    }

    fn tick(&mut self, now: Instant) {
        let wall = self.clock.wall();
        for departed in self.registry.tick(now, wall) {
            self.counters.evictions.add_one();
            self.publish_departure(departed, wall);
        }
    }

    fn publish_departure(&mut self, departed: Departed, wall: UnixMillis) {
        let population = self.registry.population(departed.pool);
        lock(&self.rooms[departed.pool.0]).note(population);
        self.publish(departed.pool, Change::Departed(departed), wall);
    }

    /// Makes the message once, if anyone watches the pool.
    fn publish(&mut self, pool: PoolIndex, change: Change, server_time: UnixMillis) {
        if self.outboxes.iter().all(|outbox| outbox.cursor(pool).is_none()) {
            return;
        }
        let mut envelope =
            Envelope { pool: &self.pools[pool.0], server_time, epoch: &self.epoch, seq: 0 };
        let text = message(&mut envelope, change);
        self.rings[pool.0].push_text(&text, envelope.seq);
        for outbox in &mut self.outboxes {
            outbox.note_update(pool);
        }
    }

    /// Hands on what is to be sent, to every fanout thread whose channel has capacity, and drops
    /// what all of them have.
    fn flush(&mut self) -> Result<(), HubFailure> {
        let state = State {
            registry: &self.registry,
            rings: &self.rings,
            pools: &self.pools,
            epoch: &self.epoch,
            wall: self.clock.wall(),
            counters: &self.counters,
        };
        for (index, outbox) in self.outboxes.iter_mut().enumerate() {
            outbox.flush(&state).map_err(|_| HubFailure::FanoutEnded(FanoutIndex(index)))?;
        }
        for (index, ring) in self.rings.iter_mut().enumerate() {
            let cursors = self.outboxes.iter().filter_map(|it| it.cursor(PoolIndex(index)));
            ring.trim(cursors.min().unwrap_or(u64::MAX));
        }
        Ok(())
    }

    /// The same, of all that is to be sent.
    fn flush_all(&mut self) -> Result<(), HubFailure> {
        self.flush()?;
        while self.has_requests() {
            self.flush()?;
        }
        Ok(())
    }

    /// Whether outboxes have requests that can be served now.
    fn has_requests(&self) -> bool {
        self.outboxes.iter().any(Outbox::is_busy)
    }
}

fn tick_or_end(now: Result<Instant, RecvError>) -> Result<Next, HubFailure> {
    now.map(Next::Tick).map_err(|_| HubFailure::TicksEnded)
}

/// The message about a change, whose sequence number it puts into the envelope.
fn message(envelope: &mut Envelope<'_>, change: Change) -> String {
    match change {
        Change::Update(Update { metrics, interval_ms, seq }) => {
            envelope.seq = seq;
            wire::update(envelope, &metrics, interval_ms)
        }
        Change::Departed(Departed { agent, reason, seq, .. }) => {
            envelope.seq = seq;
            wire::offline(envelope, &agent, reason)
        }
    }
}

/// What outboxes send of the hub's state.
struct State<'a> {
    registry: &'a Registry,
    rings: &'a [Ring],
    pools: &'a [PoolId],
    epoch: &'a str,
    wall: UnixMillis,
    counters: &'a Counters,
}

impl State<'_> {
    fn snapshot(&self, pool: PoolIndex) -> Snapshot {
        self.registry.snapshot(pool, self.wall)
    }

    /// Each agent's newest change after `since`, the oldest first, up to about
    /// [`MAX_BATCH_BYTES`]. `None` where the registry has forgotten some.
    fn changes(&self, pool: PoolIndex, since: u64) -> Option<Arc<Frames>> {
        if !self.registry.is_complete_since(pool, since) {
            return None;
        }
        let (server_time, epoch) = (self.wall, self.epoch);
        let mut envelope = Envelope { pool: &self.pools[pool.0], server_time, epoch, seq: since };
        let mut frames = Frames::default();
        for change in self.registry.changes(pool, since) {
            if frames.bytes().len() >= MAX_BATCH_BYTES {
                break;
            }
            let text = message(&mut envelope, change);
            frames.push_text(&text, envelope.seq);
        }
        Some(Arc::new(frames))
    }
}
