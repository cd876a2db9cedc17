//! The threads that write to dashboards, and the only ones that do. Each owns the write side of
//! its share of the dashboards. It keeps each pool's newest messages in a [`Ring`], from which
//! every dashboard takes what its socket has room for. A dashboard that the ring no longer reaches
//! asks the hub, batch by batch, for the newest state of what changed since. The thread waits for
//! its channels only, never for a socket.
//!
//! Waking one of a few threads per heartbeat, instead of a thread per dashboard, is what makes a
//! delivery cheap: `make bench` has the figures.

mod dashboard;
mod maintenance;
mod snapshots;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded, never, select};

use crate::runtime::clock::Clock;
use crate::runtime::counters::Counters;
use crate::server::event::{Batch, Control};
use crate::server::hub::HubHandle;
use crate::server::limits::{
    CLOSE_GRACE, FANOUT_BATCHES, FANOUT_CONTROLS, KEEPALIVE_AFTER, Limits, MAX_BATCH_BYTES,
    PING_EVERY,
};
use crate::server::ring::{MAX_RING_BYTES, Ring};
use crate::wire::id::{DashboardId, PoolId, PoolIndex};
use crate::wire::{KIB, Snapshot};
use dashboard::{Dashboard, Pumped};
use snapshots::Snapshots;

/// How often keep-alives, Pings and lags are looked at.
const MAINTENANCE_EVERY: Duration = Duration::from_secs(1);

/// Updates of one pool gather up to this size before they are written.
const MAX_WRITE_BYTES: usize = 128 * KIB;

// A dashboard that has all does not fall behind by what is written at once.
const _: () = assert!(MAX_WRITE_BYTES + MAX_BATCH_BYTES < MAX_RING_BYTES);

/// The times that a fanout thread keeps, each with its reason in [`crate::server::limits`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    /// [`KEEPALIVE_AFTER`].
    pub keepalive_after: Duration,
    /// [`PING_EVERY`].
    pub ping_every: Duration,
    /// [`CLOSE_GRACE`].
    pub close_grace: Duration,
    /// How often the above are looked at.
    pub maintenance_every: Duration,
    /// [`Limits::lag_timeout`].
    pub lag_timeout: Duration,
    /// [`Limits::lag_min_bytes`].
    pub lag_min_bytes: usize,
}

impl From<&Limits> for Times {
    fn from(limits: &Limits) -> Self {
        Self {
            keepalive_after: KEEPALIVE_AFTER,
            ping_every: PING_EVERY,
            close_grace: CLOSE_GRACE,
            maintenance_every: MAINTENANCE_EVERY,
            lag_timeout: limits.lag_timeout,
            lag_min_bytes: limits.lag_min_bytes,
        }
    }
}

/// What a fanout thread is made of.
#[derive(Debug)]
pub(crate) struct Parts {
    /// From the hub.
    pub batches: Receiver<Batch>,
    pub hub: HubHandle,
    /// The pools' ids, in the configuration's order.
    pub pools: Arc<[PoolId]>,
    /// This run of the server.
    pub epoch: Arc<str>,
    pub times: Times,
    pub clock: Clock,
    pub counters: Arc<Counters>,
}

/// Makes a fanout thread's work, and the way for subscribers to talk to it.
pub(crate) fn fanout(parts: Parts) -> (Fanout, Sender<Control>) {
    let Parts { batches, hub, pools, epoch, times, clock, counters } = parts;
    let (sender, controls) = bounded(FANOUT_CONTROLS);
    let fanout = Fanout {
        batches,
        controls,
        hub,
        feeds: pools.iter().map(|_| Feed::default()).collect(),
        retries: BTreeSet::new(),
        snapshots: Snapshots::new(),
        now: clock.now(),
        maintenance_at: clock.now(),
        closing_until: None,
        pools,
        epoch,
        times,
        clock,
        counters,
    };
    (fanout, sender)
}

/// One fanout thread's state. [`Fanout::run`] is the thread.
#[derive(Debug)]
pub(crate) struct Fanout {
    batches: Receiver<Batch>,
    controls: Receiver<Control>,
    hub: HubHandle,
    feeds: Vec<Feed>,
    /// When to try again to write to whom. What has become needless is skipped then.
    retries: BTreeSet<(Instant, PoolIndex, DashboardId)>,
    snapshots: Snapshots,
    /// The time of this turn.
    now: Instant,
    maintenance_at: Instant,
    /// The hub has ended: all are being closed, until then.
    closing_until: Option<Instant>,
    pools: Arc<[PoolId]>,
    epoch: Arc<str>,
    times: Times,
    clock: Clock,
    counters: Arc<Counters>,
}

/// A pool's dashboards on this thread.
#[derive(Debug, Default)]
struct Feed {
    dashboards: BTreeMap<DashboardId, Dashboard>,
    ring: Ring,
    /// Bytes in the ring that idle dashboards have not been offered.
    unwritten: usize,
}

/// What wakes the thread.
#[derive(Debug)]
enum Wake {
    Batch(Batch),
    Control(Control),
    /// It is time for something, or a channel has closed.
    Time,
}

impl Fanout {
    /// Writes until the hub has ended, and then until every dashboard has taken its Close or the
    /// grace is over.
    pub(crate) fn run(mut self) {
        while !self.is_done() {
            let timeout = self.wake_at().saturating_duration_since(self.clock.now());
            let wake = select! {
                recv(self.batches) -> batch => batch.map_or(Wake::Time, Wake::Batch),
                recv(self.controls) -> control => match control {
                    Ok(control) => Wake::Control(control),
                    Err(_) => {
                        self.controls = never();
                        Wake::Time
                    }
                },
                default(timeout) => Wake::Time,
            };
            self.turn(wake, self.clock.now());
        }
    }

    fn is_done(&self) -> bool {
        let is_empty = || self.feeds.iter().all(|feed| feed.dashboards.is_empty());
        self.closing_until.is_some_and(|until| self.now >= until || is_empty())
    }

    fn wake_at(&self) -> Instant {
        let retry = self.retries.first().map_or(self.maintenance_at, |(at, ..)| *at);
        let close = self.closing_until.unwrap_or(self.maintenance_at);
        self.maintenance_at.min(retry).min(close)
    }

    /// Takes what is there, as much as one turn takes, and writes what is due. Waits for nothing.
    ///
    /// A hub that has more than can be written refills its channel as fast as it is emptied:
    /// without an end to the turn, nobody would be answered, tried again or cut off until the
    /// load is over.
    fn turn(&mut self, wake: Wake, now: Instant) {
        self.now = now;
        match wake {
            Wake::Batch(batch) => self.batch(batch),
            Wake::Control(control) => self.control(control),
            Wake::Time => {}
        }
        self.take_controls();
        let mut has_hub_ended = false;
        for _ in 1..FANOUT_BATCHES {
            match self.batches.try_recv() {
                Ok(batch) => self.batch(batch),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    has_hub_ended = true;
                    break;
                }
            }
        }
        for pool in 0..self.feeds.len() {
            self.write_updates(PoolIndex(pool));
        }
        // Nothing follows a Close, so what the hub sent last goes out first.
        if has_hub_ended {
            self.close_all();
        }
        self.retry();
        self.maintain();
    }

    fn batch(&mut self, batch: Batch) {
        match batch {
            Batch::Updates { pool, since, frames } => {
                let feed = &mut self.feeds[pool.0];
                // Without frames as well, dashboards are to see that the ring has a gap.
                feed.unwritten += frames.bytes().len().max(1);
                feed.ring.append(since, frames);
                if feed.unwritten >= MAX_WRITE_BYTES {
                    self.write_updates(pool);
                }
            }
            Batch::Snapshot { pool, dashboards, snapshot } => {
                // Each of them was attached before the hub heard of it, and so before this
                // batch was made: with what waits now read, all of them are known.
                self.take_controls();
                self.snapshot(pool, &dashboards, snapshot);
            }
            Batch::Changes { pool, dashboard, frames } => {
                let Some(waiting) = self.waiting(pool, dashboard) else { return };
                waiting.take_changes(&frames);
                self.counters.deliveries.add(frames.count_after(0) as u64);
                self.pump(pool, dashboard);
            }
        }
    }

    fn waiting(&mut self, pool: PoolIndex, id: DashboardId) -> Option<&mut Dashboard> {
        self.feeds[pool.0].dashboards.get_mut(&id).filter(|dashboard| dashboard.is_waiting())
    }

    /// Offers what is new in the pool's ring to the dashboards that have all before it.
    fn write_updates(&mut self, pool: PoolIndex) {
        let feed = &mut self.feeds[pool.0];
        if mem::take(&mut feed.unwritten) == 0 {
            return;
        }
        let (cut, mut oldest) = (feed.ring.cut(), feed.ring.end());
        let Self { now, hub, counters, retries, .. } = self;
        let mut turn = Turn { pool, now: *now, hub, counters, retries };
        feed.dashboards.retain(|id, dashboard| {
            let Some(cursor) = dashboard.cursor() else { return true };
            // It asks the hub for what it lacks when it is its time.
            if dashboard.has_retry(turn.now) && !feed.ring.reaches(cursor) {
                return true;
            }
            // Who has read since the last try is not to lose its place.
            let is_last_chance = cursor < cut && feed.ring.reaches(cursor);
            if (dashboard.is_idle() || is_last_chance) && !turn.pump(*id, dashboard, &feed.ring) {
                return false;
            }
            if let Some(cursor) = dashboard.cursor().filter(|cursor| feed.ring.reaches(*cursor)) {
                if cursor < cut {
                    turn.counters.lags.add_one();
                }
                oldest = oldest.min(cursor);
            }
            true
        });
        feed.ring.trim(oldest);
    }

    fn snapshot(&mut self, pool: PoolIndex, dashboards: &[DashboardId], mut snapshot: Snapshot) {
        let waiting: Vec<_> =
            dashboards.iter().filter(|id| self.waiting(pool, **id).is_some()).copied().collect();
        if waiting.is_empty() {
            return;
        }
        // Who has newer states already is not to get older ones.
        let seqs = waiting.iter().filter_map(|id| self.feeds[pool.0].dashboards.get(id)?.seq());
        snapshot.complete_since = seqs.fold(snapshot.complete_since, u64::max);
        let frames = self.snapshots.get(pool, snapshot, &self.pools[pool.0], &self.epoch);
        for id in waiting {
            let now = self.now;
            let Some(dashboard) = self.waiting(pool, id) else { continue };
            let Some(frames) = &frames else {
                dashboard.forgo_snapshot();
                let retry_at = dashboard.ask_later(now);
                self.retries.extend(retry_at.map(|at| (at, pool, id)));
                continue;
            };
            dashboard.take_snapshot(frames);
            self.counters.deliveries.add_one();
            self.pump(pool, id);
        }
    }

    /// Writes to one dashboard what waits, as far as there is room.
    fn pump(&mut self, pool: PoolIndex, id: DashboardId) {
        let feed = &mut self.feeds[pool.0];
        let Some(dashboard) = feed.dashboards.get_mut(&id) else { return };
        let Self { now, hub, counters, retries, .. } = self;
        let mut turn = Turn { pool, now: *now, hub, counters, retries };
        if !turn.pump(id, dashboard, &feed.ring) {
            feed.dashboards.remove(&id);
        }
    }
}

/// What writing to a dashboard needs of its thread.
struct Turn<'a> {
    pool: PoolIndex,
    now: Instant,
    hub: &'a HubHandle,
    counters: &'a Counters,
    retries: &'a mut BTreeSet<(Instant, PoolIndex, DashboardId)>,
}

impl Turn<'_> {
    /// Writes, and does what follows from how that went. Whether the connection is still there.
    fn pump(&mut self, id: DashboardId, dashboard: &mut Dashboard, ring: &Ring) -> bool {
        let retry_at = match dashboard.pump(ring, self.now, self.counters) {
            Pumped::Ended => return false,
            Pumped::Drained => None,
            Pumped::Blocked => dashboard.schedule_retry(self.now),
            Pumped::FellBehind(since) => match self.hub.resume(id, since) {
                Ok(()) => {
                    dashboard.wait();
                    None
                }
                Err(_) => dashboard.ask_later(self.now),
            },
        };
        self.retries.extend(retry_at.map(|at| (at, self.pool, id)));
        true
    }
}
