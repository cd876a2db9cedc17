//! The threads that write to dashboards, and the only ones that do. Each owns the write side of
//! its share of the dashboards. It keeps each feed's newest messages in a [`Ring`], from which
//! every dashboard takes what its socket has room for. A dashboard that the ring no longer reaches
//! asks the hub, batch by batch, for the newest state of what changed since. The thread waits for
//! its channels, and for a snapshot that another fanout thread encodes for both; never for a socket.
//!
//! Waking one of a few threads per heartbeat, instead of a thread per dashboard, is what makes a
//! delivery cheap: `make bench` has the figures.

mod dashboard;
mod maintenance;
mod snapshots;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded, select};

use crate::runtime::clock::Clock;
use crate::runtime::counters::Counters;
use crate::server::event::{Batch, Control};
use crate::server::feed::FeedId;
use crate::server::hub::HubHandle;
use crate::server::limits::{
    CLOSE_GRACE, FANOUT_BATCHES, FANOUT_CONTROLS, KEEPALIVE_AFTER, Limits, MAX_BATCH_BYTES,
    PING_EVERY,
};
use crate::server::ring::{MAX_RING_BYTES, Ring};
use crate::server::snapshot::{SNAPSHOT_SHARED_FOR, SharedSnapshot};
use crate::wire::KIB;
use crate::wire::id::{DashboardId, PoolId};
use dashboard::{Dashboard, Pumped};
use snapshots::Snapshots;

/// How often keep-alives, Pings and lags are looked at.
const MAINTENANCE_EVERY: Duration = Duration::from_secs(1);

/// Updates of one feed gather up to this size before they are written.
const MAX_WRITE_BYTES: usize = 128 * KIB;

// A dashboard that has all does not fall behind by what is written at once.
const _: () = assert!(MAX_WRITE_BYTES + MAX_BATCH_BYTES < MAX_RING_BYTES);

/// The times that a fanout thread keeps, each with its reason in [`crate::server::limits`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    pub keepalive_after: Duration,
    pub ping_every: Duration,
    pub close_grace: Duration,
    pub maintenance_every: Duration,
    pub lag_timeout: Duration,
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
    let (sender, controls) = bounded(FANOUT_CONTROLS);
    let now = parts.clock.now();
    let fanout = Fanout {
        controls,
        feeds: BTreeMap::new(),
        unwritten: Vec::new(),
        retries: BTreeSet::new(),
        snapshots: Snapshots::new(parts.pools.len()),
        now,
        maintenance_at: now,
        closing_until: None,
        parts,
    };
    (fanout, sender)
}

/// One fanout thread's state. [`Fanout::run`] is the thread.
#[derive(Debug)]
pub(crate) struct Fanout {
    parts: Parts,
    controls: Receiver<Control>,
    /// Of dashboards that are here.
    feeds: BTreeMap<FeedId, Feed>,
    /// Feeds in whose ring there is something new.
    unwritten: Vec<FeedId>,
    retries: Retries,
    snapshots: Snapshots,
    /// The time of this turn.
    now: Instant,
    maintenance_at: Instant,
    /// The hub has ended: all are being closed, until then.
    closing_until: Option<Instant>,
}

/// A feed's dashboards on this thread.
#[derive(Debug)]
struct Feed {
    /// None where it shows several.
    pool: Option<PoolId>,
    dashboards: BTreeMap<DashboardId, Dashboard>,
    ring: Ring,
    /// Bytes in the ring that idle dashboards have not been offered.
    unwritten: usize,
    /// Until then, the ring keeps what came after this number, for who joins and gets the snapshot
    /// of that number.
    held: Option<(u64, Instant)>,
}

impl Feed {
    fn new(pool: Option<PoolId>) -> Self {
        Self { pool, dashboards: BTreeMap::new(), ring: Ring::default(), unwritten: 0, held: None }
    }
}

/// When to try again to write to whom. What has become needless is skipped then.
type Retries = BTreeSet<(Instant, FeedId, DashboardId)>;

impl Fanout {
    /// Writes until the hub has ended, and then until every dashboard has taken its Close or the
    /// grace is over.
    pub(crate) fn run(mut self) {
        while !self.is_done() {
            let timeout = self.wake_at().saturating_duration_since(self.parts.clock.now());
            // Not `Select::ready`, which yields the processor several times before it waits.
            let (batch, control) = select! {
                recv(self.parts.batches) -> batch => (batch.ok(), None),
                recv(self.controls) -> control => (None, control.ok()),
                default(timeout) => (None, None),
            };
            self.turn(batch, control, self.parts.clock.now());
        }
    }

    fn is_done(&self) -> bool {
        let is_empty = || self.feeds.is_empty();
        self.closing_until.is_some_and(|until| self.now >= until || is_empty())
    }

    fn wake_at(&self) -> Instant {
        let retry_at = self.retries.first().map(|(at, ..)| *at);
        let others = [retry_at, self.closing_until];
        others.into_iter().flatten().fold(self.maintenance_at, Instant::min)
    }

    /// Takes what ended the wait and what else is there, as much as one turn takes, and writes what
    /// is due. Waits for nothing.
    ///
    /// A hub that has more than can be written refills its channel as fast as it is emptied:
    /// without an end to the turn, nobody would be answered, tried again or cut off until the
    /// load is over.
    fn turn(&mut self, batch: Option<Batch>, control: Option<Control>, now: Instant) {
        self.now = now;
        if let Some(control) = control {
            self.control(control);
        }
        self.take_controls();
        if let Some(batch) = batch {
            self.batch(batch);
        }
        let mut has_hub_ended = false;
        for _ in 1..FANOUT_BATCHES {
            match self.parts.batches.try_recv() {
                Ok(batch) => self.batch(batch),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    has_hub_ended = true;
                    break;
                }
            }
        }
        for feed in mem::take(&mut self.unwritten) {
            self.write_updates(feed);
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
            Batch::Updates { feed: id, mut since, mut frames } => {
                let Some(feed) = self.feeds.get_mut(&id) else { return };
                if !self.snapshots.admit(&frames) {
                    self.parts.counters.batches_split.add_one();
                    since = frames.last_seq().unwrap_or(since);
                    frames = Arc::default();
                }
                if feed.unwritten == 0 {
                    self.unwritten.push(id);
                }
                // Without frames as well, dashboards are to see that the ring has a gap.
                feed.unwritten += frames.bytes().len().max(1);
                feed.ring.append(since, frames);
                if feed.unwritten >= MAX_WRITE_BYTES {
                    self.write_updates(id);
                }
            }
            Batch::Snapshot { feed, since, dashboards, snapshot } => {
                // Each of them was attached before the hub heard of it, and so before this
                // batch was made: with what waits now read, all of them are known.
                self.take_controls();
                // Who gets an older one is to ask for what came since, if that is not in the ring.
                if let Some(feed) = self.feeds.get_mut(&feed) {
                    feed.ring.append(since, Arc::default());
                }
                self.snapshot(feed, dashboards, &snapshot);
            }
            Batch::Changes { feed, dashboards, frames } => {
                if feed.is_overview() {
                    // As before a snapshot: joiners were attached before this batch was made.
                    self.take_controls();
                }
                for id in dashboards {
                    let Some(waiting) = self.waiting(feed, id) else { continue };
                    waiting.take_changes(&frames);
                    self.parts.counters.deliveries.add(frames.count_after(0) as u64);
                    self.pump(feed, id);
                }
            }
        }
    }

    fn waiting(&mut self, feed: FeedId, id: DashboardId) -> Option<&mut Dashboard> {
        let dashboards = &mut self.feeds.get_mut(&feed)?.dashboards;
        dashboards.get_mut(&id).filter(|dashboard| dashboard.is_waiting())
    }

    /// Offers what is new in the feed's ring to the dashboards that have all before it.
    fn write_updates(&mut self, id: FeedId) {
        let Some(feed) = self.feeds.get_mut(&id) else { return };
        if mem::take(&mut feed.unwritten) == 0 {
            return;
        }
        let (cut, mut oldest) = (feed.ring.cut(), feed.ring.end());
        self.write_each(id, |writer, id, dashboard| {
            let Some(cursor) = dashboard.cursor() else { return true };
            let is_due = if writer.ring.reaches(cursor) {
                // Who has read since the last try is not to lose its place.
                dashboard.is_idle() || cursor < cut
            } else {
                dashboard.is_idle() && !dashboard.has_retry(writer.now)
            };
            if is_due && !writer.pump(id, dashboard) {
                return false;
            }
            if let Some(cursor) = dashboard.cursor().filter(|cursor| writer.ring.reaches(*cursor)) {
                if cursor < cut {
                    writer.parts.counters.lags.add_one();
                }
                oldest = oldest.min(cursor);
            }
            true
        });
        if let Some(feed) = self.feeds.get_mut(&id) {
            let held = feed.held.filter(|(_, until)| self.now < *until).map(|(seq, _)| seq);
            feed.ring.trim(held.map_or(oldest, |held| oldest.min(held)));
        }
    }

    fn snapshot(&mut self, feed: FeedId, mut waiting: Vec<DashboardId>, snapshot: &SharedSnapshot) {
        waiting.retain(|id| self.waiting(feed, *id).is_some());
        let Some(Feed { pool, dashboards, .. }) = self.feeds.get(&feed) else { return };
        let (Some(pool), Some(index)) = (pool, feed.pool()) else { return };
        if waiting.is_empty() {
            return;
        }
        // Who has newer states already is not to get older ones.
        let seqs = waiting.iter().filter_map(|id| dashboards.get(id)?.seq());
        let since = seqs.fold(snapshot.complete_since, u64::max);
        let frames = self.snapshots.get(index, snapshot, since, pool, &self.parts.epoch);
        if let (Some(frames), Some(feed)) = (&frames, self.feeds.get_mut(&feed)) {
            let until = self.now + SNAPSHOT_SHARED_FOR;
            feed.held = frames.last_seq().map(|seq| (seq, until));
        }
        for id in waiting {
            let now = self.now;
            let Some(dashboard) = self.waiting(feed, id) else { continue };
            if let Some(frames) = &frames {
                dashboard.take_snapshot(frames);
                self.parts.counters.deliveries.add_one();
                self.pump(feed, id);
            } else {
                let retry_at = dashboard.forgo_snapshot(now);
                self.retries.extend(retry_at.map(|at| (at, feed, id)));
            }
        }
    }

    /// Writes to one dashboard what waits, as far as there is room.
    fn pump(&mut self, feed: FeedId, id: DashboardId) {
        let Some((mut writer, dashboards)) = self.writer(feed) else { return };
        if let Entry::Occupied(mut dashboard) = dashboards.entry(id)
            && !writer.pump(id, dashboard.get_mut())
        {
            dashboard.remove();
            self.forget_if_empty(feed);
        }
    }

    /// Calls `write` for each of the feed's dashboards, and lets go of those for which it is false.
    fn write_each(
        &mut self,
        feed: FeedId,
        mut write: impl FnMut(&mut Writer<'_>, DashboardId, &mut Dashboard) -> bool,
    ) {
        let Some((mut writer, dashboards)) = self.writer(feed) else { return };
        dashboards.retain(|id, dashboard| write(&mut writer, *id, dashboard));
        self.forget_if_empty(feed);
    }

    fn forget_if_empty(&mut self, feed: FeedId) {
        if self.feeds.get(&feed).is_some_and(|feed| feed.dashboards.is_empty()) {
            self.feeds.remove(&feed);
        }
    }

    fn writer(
        &mut self,
        id: FeedId,
    ) -> Option<(Writer<'_>, &mut BTreeMap<DashboardId, Dashboard>)> {
        let Self { parts, feeds, retries, now, .. } = self;
        let Feed { pool, dashboards, ring, .. } = feeds.get_mut(&id)?;
        Some((
            Writer { parts, feed: id, pool: pool.as_ref(), ring, now: *now, retries },
            dashboards,
        ))
    }
}

/// What writing to a feed's dashboards needs of the thread, in one turn.
struct Writer<'a> {
    parts: &'a Parts,
    feed: FeedId,
    pool: Option<&'a PoolId>,
    ring: &'a Ring,
    now: Instant,
    retries: &'a mut Retries,
}

impl Writer<'_> {
    /// Writes, and does what follows from how that went. Whether the connection is still there.
    fn pump(&mut self, id: DashboardId, dashboard: &mut Dashboard) -> bool {
        let retry_at = match dashboard.pump(self.ring, self.now, &self.parts.counters) {
            Pumped::Ended => return false,
            Pumped::Drained => None,
            Pumped::Blocked => dashboard.retry_blocked(self.now),
            Pumped::FellBehind(since) => match self.parts.hub.resume(id, since) {
                Ok(()) => {
                    dashboard.wait();
                    None
                }
                Err(_) => dashboard.ask_later(self.now),
            },
        };
        self.retries.extend(retry_at.map(|at| (at, self.feed, id)));
        true
    }
}
