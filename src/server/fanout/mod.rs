//! The threads that write to dashboards, and the only ones that do. Each owns the write side of
//! its share of the dashboards: it sends what the hub hands it, and keeps what a socket has no
//! room for, up to a bound. A dashboard that is beyond it gets no more updates until it has taken
//! what was begun; it then asks the hub, part by part, for the newest state of what changed since.
//! The thread waits for its channels only, never for a socket.
//!
//! Waking one of a few threads per heartbeat, instead of a thread per dashboard, is what makes a
//! delivery cheap: `make bench` has the figures.

mod dashboard;
mod keeping;
mod queue;
mod snapshots;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, SendError, Sender, bounded, never, select};

use crate::runtime::clock::Clock;
use crate::runtime::counters::Counters;
use crate::server::event::{Batch, Control, FanoutIndex};
use crate::server::frame::Frames;
use crate::server::hub::HubHandle;
use crate::server::limits::{
    CLOSE_GRACE, FANOUT_BATCHES, FANOUT_CONTROLS, KEEPALIVE_AFTER, Limits, PING_EVERY,
};
use crate::wire::KIB;
use crate::wire::Snapshot;
use crate::wire::id::{DashboardId, PoolId, PoolIndex};
use dashboard::{Dashboard, Sent};
use snapshots::Snapshots;

/// How often keep-alives, Pings and lags are looked at.
const HOUSEKEEPING_EVERY: Duration = Duration::from_secs(1);

/// Batches of one pool are put together up to this size before they are written, so that a burst
/// costs one system call per dashboard and not one per batch.
const MAX_WRITE_BYTES: usize = 128 * KIB;

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
    pub housekeeping_every: Duration,
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
            housekeeping_every: HOUSEKEEPING_EVERY,
            lag_timeout: limits.lag_timeout,
            lag_min_bytes: limits.lag_min_bytes,
        }
    }
}

/// The way for client threads to talk to the fanout thread that writes for them.
#[derive(Debug, Clone)]
pub(crate) struct FanoutHandle {
    /// Which one it is, for the hub.
    pub index: FanoutIndex,
    controls: Sender<Control>,
}

/// The fanout thread is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stopped;

impl FanoutHandle {
    /// Hands over `control`, waiting for room: the fanout thread never waits for a client.
    ///
    /// # Errors
    /// [`Stopped`] when nobody will read it.
    pub(crate) fn send(&self, control: Control) -> Result<(), Stopped> {
        self.controls.send(control).map_err(|SendError(_)| Stopped)
    }
}

/// What a fanout thread is made of.
#[derive(Debug)]
pub(crate) struct Parts {
    /// Which one it is.
    pub index: FanoutIndex,
    /// From the hub.
    pub batches: Receiver<Batch>,
    /// The pools' ids, in the configuration's order.
    pub pools: Arc<[PoolId]>,
    /// This run of the server.
    pub epoch: Arc<str>,
    /// What is when.
    pub times: Times,
    /// For what is when.
    pub clock: Clock,
    /// What is counted.
    pub counters: Arc<Counters>,
}

/// Makes a fanout thread's work, still without the hub, and the handle to it.
#[must_use]
pub(crate) fn fanout(parts: Parts) -> (Fanout, FanoutHandle) {
    let (sender, controls) = bounded(FANOUT_CONTROLS);
    let feeds = parts.pools.iter().map(|_| Feed::default()).collect();
    let handle = FanoutHandle { index: parts.index, controls: sender };
    let fanout = Fanout {
        batches: parts.batches,
        controls,
        feeds,
        homes: HashMap::new(),
        retries: BTreeSet::new(),
        snapshots: Snapshots::new(parts.pools.len()),
        now: parts.clock.now(),
        housekeeping_at: parts.clock.now(),
        closing_until: None,
        pools: parts.pools,
        epoch: parts.epoch,
        times: parts.times,
        clock: parts.clock,
        counters: parts.counters,
    };
    (fanout, handle)
}

/// One fanout thread's state. [`Fanout::run`] is the thread.
#[derive(Debug)]
pub(crate) struct Fanout {
    batches: Receiver<Batch>,
    controls: Receiver<Control>,
    feeds: Vec<Feed>,
    /// Which pool a dashboard is of.
    homes: HashMap<DashboardId, PoolIndex>,
    /// When to try again to write to whom.
    retries: BTreeSet<(Instant, DashboardId)>,
    snapshots: Snapshots,
    /// The time of this turn.
    now: Instant,
    housekeeping_at: Instant,
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
    dashboards: HashMap<DashboardId, Dashboard>,
    /// Updates of this turn, to be written at its end.
    frames: Frames,
}

impl Fanout {
    /// Writes until the hub is gone, and then until every dashboard has taken its Close or the
    /// grace is over.
    pub(crate) fn run(mut self, hub: &HubHandle) {
        while !self.is_done() {
            let timeout = self.wake_at().saturating_duration_since(self.clock.now());
            select! {
                recv(self.batches) -> batch => self.take_batches(batch.ok()),
                recv(self.controls) -> control => match control {
                    Ok(control) => {
                        self.now = self.clock.now();
                        self.control(control);
                        self.take_controls();
                    }
                    Err(_) => self.controls = never(),
                },
                default(timeout) => self.now = self.clock.now(),
            }
            self.retry(hub);
            self.keep_house();
        }
    }

    fn is_done(&self) -> bool {
        self.closing_until.is_some_and(|until| self.homes.is_empty() || self.now >= until)
    }

    fn wake_at(&self) -> Instant {
        let retry = self.retries.first().map_or(self.housekeeping_at, |(at, _)| *at);
        let close = self.closing_until.unwrap_or(self.housekeeping_at);
        self.housekeeping_at.min(retry).min(close)
    }

    /// Takes `first` and the batches that wait behind it, as much as one turn takes, and writes
    /// what they hold. `None` means that the hub has ended.
    ///
    /// A hub that has more than can be written refills its channel as fast as it is emptied:
    /// without an end to the turn, nobody would be answered, tried again or cut off until the
    /// load is over.
    fn take_batches(&mut self, first: Option<Batch>) {
        self.now = self.clock.now();
        let Some(first) = first else { return self.close_all() };
        self.batch(first);
        for _ in 1..FANOUT_BATCHES {
            match self.batches.try_recv() {
                Ok(batch) => self.batch(batch),
                Err(_) => break,
            }
        }
        for pool in 0..self.feeds.len() {
            self.write_updates(PoolIndex(pool));
        }
    }

    fn batch(&mut self, batch: Batch) {
        match batch {
            Batch::Updates { pool, frames } => {
                let feed = &mut self.feeds[pool.0];
                if feed.frames.is_empty() {
                    feed.frames = frames;
                } else {
                    feed.frames.append(&frames);
                }
                if feed.frames.bytes().len() >= MAX_WRITE_BYTES {
                    self.write_updates(pool);
                }
            }
            Batch::Snapshot { pool, dashboards, snapshot } => {
                // Each of them was attached before the hub heard of it, and so before this
                // batch was made: with what waits now read, all of them are known.
                self.take_controls();
                // What came before the snapshot goes out before it.
                self.write_updates(pool);
                self.write_snapshot(pool, &dashboards, snapshot);
            }
            Batch::Changes { dashboard, frames, is_all } => {
                self.write_changes(dashboard, frames, is_all);
            }
            Batch::Gap { pool } => {
                self.write_updates(pool);
                for id in self.live(pool) {
                    self.with(id, |dashboard, _| {
                        dashboard.note_gap();
                        Sent::FellBehind
                    });
                }
            }
        }
    }

    fn live(&self, pool: PoolIndex) -> Vec<DashboardId> {
        let dashboards = self.feeds[pool.0].dashboards.iter();
        dashboards.filter(|(_, dashboard)| dashboard.is_live()).map(|(id, _)| *id).collect()
    }

    fn write_updates(&mut self, pool: PoolIndex) {
        let feed = &mut self.feeds[pool.0];
        if feed.frames.is_empty() {
            return;
        }
        let frames = Arc::new(std::mem::take(&mut feed.frames));
        for id in self.live(pool) {
            match self.with(id, |dashboard, now| dashboard.send_updates(&frames, now)) {
                Sent::All | Sent::Queued => self.counters.deliveries.add(frames.count() as u64),
                Sent::FellBehind => self.counters.lags.add_one(),
                Sent::Broken => {}
            }
        }
    }

    fn write_snapshot(&mut self, pool: PoolIndex, dashboards: &[DashboardId], snapshot: Snapshot) {
        let feed = &self.feeds[pool.0];
        let waits = |id: &&DashboardId| feed.dashboards.get(id).is_some_and(Dashboard::is_waiting);
        let waiting: Vec<_> = dashboards.iter().filter(waits).copied().collect();
        if waiting.is_empty() {
            return;
        }
        let seq = snapshot.seq;
        let frames = self.snapshots.get(pool, snapshot, &self.pools[pool.0], &self.epoch);
        for id in waiting {
            let Some(dashboard) = self.feeds[pool.0].dashboards.get_mut(&id) else { continue };
            // Who has newer state already must not get an older one that others share.
            let Some(frames) = frames.as_ref().filter(|it| it.last_seq() >= dashboard.seq()) else {
                self.retries.extend(dashboard.put_off(self.now).map(|at| (at, id)));
                continue;
            };
            let is_present = frames.last_seq() == Some(seq);
            if self.with(id, |it, now| it.send_snapshot(frames, is_present, now)) != Sent::Broken {
                self.counters.deliveries.add_one();
            }
        }
    }

    fn write_changes(&mut self, id: DashboardId, frames: Frames, is_all: bool) {
        let Some(pool) = self.homes.get(&id).copied() else { return };
        // What came before goes out before it.
        self.write_updates(pool);
        let frames = Arc::new(frames);
        if self.feeds[pool.0].dashboards.get(&id).is_some_and(Dashboard::is_waiting)
            && self.with(id, |it, now| it.send_changes(&frames, is_all, now)) != Sent::Broken
        {
            self.counters.deliveries.add(frames.count() as u64);
        }
    }

    /// Does something with one dashboard's write side, and what follows from how that went.
    fn with(&mut self, id: DashboardId, act: impl FnOnce(&mut Dashboard, Instant) -> Sent) -> Sent {
        let home = self.homes.get(&id);
        let Some(dashboard) = home.and_then(|pool| self.feeds[pool.0].dashboards.get_mut(&id))
        else {
            return Sent::Broken;
        };
        let sent = act(dashboard, self.now);
        if sent == Sent::Broken {
            self.remove(id);
        } else if let Some(at) = dashboard.schedule_retry(self.now) {
            self.retries.insert((at, id));
        }
        sent
    }

    /// Forgets a dashboard and ends its connection, which also ends its client thread.
    fn remove(&mut self, id: DashboardId) {
        let Some(pool) = self.homes.remove(&id) else { return };
        let dashboard = self.feeds[pool.0].dashboards.remove(&id);
        if let Some(at) = dashboard.and_then(|dashboard| dashboard.retry_at()) {
            self.retries.remove(&(at, id));
        }
    }

    fn cut_off(&mut self, id: DashboardId, why: &str) {
        self.counters.cut_offs.add_one();
        log::info!("dashboard {id} cut off: {why}");
        self.remove(id);
    }
}
