//! What the hub has yet to send to one fanout thread: a queue of requests, served in order as the
//! thread's channel has capacity. What a request is served with is looked up then, in the feed's
//! ring or in the registry, so that what waits here is bounded, whatever the load.

use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;

use crossbeam_channel::{Select, Sender, TrySendError};

use super::{HubFailure, State};
use crate::server::event::{Batch, FanoutIndex};
use crate::server::feed::FeedId;
use crate::server::limits::{MAX_BATCH_BYTES, SLOW_SNAPSHOTS};
use crate::wire::id::DashboardId;

/// Batches of one turn: making one may take the hub some 100 µs, and events wait meanwhile.
const BATCHES_PER_TURN: usize = 16;

#[derive(Debug)]
pub(super) struct Outbox {
    fanout: FanoutIndex,
    channel: Sender<Batch>,
    /// Of feeds that somebody watches.
    watches: BTreeMap<FeedId, Watch>,
    /// At most one of each kind a feed. What needs more than one batch goes to the end, so that no
    /// feed starves another.
    requests: VecDeque<Request>,
    /// The next batch, while the channel is full.
    parked: Option<Batch>,
}

/// A feed's dashboards behind this fanout thread.
#[derive(Debug, Default)]
struct Watch {
    dashboards: usize,
    /// The fanout thread has been sent all changes up to this number.
    cursor: u64,
    is_queued: bool,
    /// Bytes of newest states that it has been sent since it last had all.
    conflated_bytes: usize,
    asked: BTreeMap<DashboardId, Ask>,
    /// Who was answered last: the next one's turn is after it, so that nobody starves.
    answered: Option<DashboardId>,
}

/// What a dashboard asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ask {
    /// Its first snapshot: a recent one serves.
    Join,
    /// A snapshot of all that it has not seen.
    Snapshot,
    /// What changed after this number.
    Changes(u64),
}

#[derive(Debug, PartialEq, Eq)]
enum Request {
    /// What changed after the feed's cursor.
    Updates(FeedId),
    /// An answer to one of those that asked, or the snapshot that some of them share. Queued while
    /// there are any.
    Answer(FeedId),
}

impl Outbox {
    pub(super) fn new(fanout: FanoutIndex, channel: Sender<Batch>) -> Self {
        let (watches, requests) = (BTreeMap::new(), VecDeque::new());
        Self { fanout, channel, watches, requests, parked: None }
    }

    /// Whether a request can be served now.
    pub(super) fn is_busy(&self) -> bool {
        self.parked.is_none() && !self.requests.is_empty()
    }

    /// Adds the wait for capacity to `select`, if a batch waits for it: a channel with capacity is
    /// always ready.
    pub(super) fn wait_in<'a>(&'a self, select: &mut Select<'a>) {
        if self.parked.is_some() {
            select.send(&self.channel);
        }
    }

    /// Requests, and dashboards that asked.
    #[cfg(test)]
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.requests.len(), self.watches.values().map(|watch| watch.asked.len()).sum())
    }

    /// The number up to which the fanout thread has been sent the feed's changes, if anyone there
    /// watches.
    pub(super) fn cursor(&self, feed: FeedId) -> Option<u64> {
        self.watches.get(&feed).map(|watch| watch.cursor)
    }

    /// A dashboard joins a feed whose last change has the number `seq`.
    pub(super) fn join(&mut self, feed: FeedId, dashboard: DashboardId, seq: u64) {
        let new = || Watch { cursor: seq, ..Watch::default() };
        self.watches.entry(feed).or_insert_with(new).dashboards += 1;
        self.ask(feed, dashboard, Ask::Join);
    }

    /// A dashboard of the feed leaves.
    pub(super) fn leave(&mut self, feed: FeedId, dashboard: DashboardId) {
        let Some(watch) = self.watches.get_mut(&feed) else { return };
        watch.dashboards -= 1;
        if watch.asked.remove(&dashboard).is_some() && watch.asked.is_empty() {
            self.requests.retain(|request| *request != Request::Answer(feed));
        }
        if watch.dashboards == 0 {
            self.requests.retain(|request| *request != Request::Updates(feed));
            self.watches.remove(&feed);
        }
    }

    /// A dashboard needs what changed after `since`, or a snapshot.
    pub(super) fn resume(&mut self, feed: FeedId, dashboard: DashboardId, since: Option<u64>) {
        self.ask(feed, dashboard, since.map_or(Ask::Snapshot, Ask::Changes));
    }

    fn ask(&mut self, feed: FeedId, dashboard: DashboardId, ask: Ask) {
        let Some(Watch { asked, .. }) = self.watches.get_mut(&feed) else { return };
        if asked.is_empty() {
            self.requests.push_back(Request::Answer(feed));
        }
        asked.insert(dashboard, ask);
    }

    /// The feed's ring has something new.
    pub(super) fn note_update(&mut self, feed: FeedId) {
        let Some(watch) = self.watches.get_mut(&feed) else { return };
        if !mem::replace(&mut watch.is_queued, true) {
            self.requests.push_back(Request::Updates(feed));
        }
    }

    /// Serves requests until there is none, the channel is full or it is others' turn.
    pub(super) fn flush(&mut self, state: &mut State) -> Result<(), HubFailure> {
        for _ in 0..BATCHES_PER_TURN {
            let next = self.parked.take().or_else(|| self.next_batch(state));
            let Some(batch) = next else { break };
            match self.channel.try_send(batch) {
                Ok(()) => {}
                Err(TrySendError::Full(batch)) => {
                    self.parked = Some(batch);
                    break;
                }
                Err(TrySendError::Disconnected(_)) => {
                    return Err(HubFailure::FanoutEnded(self.fanout));
                }
            }
        }
        Ok(())
    }

    fn next_batch(&mut self, state: &mut State) -> Option<Batch> {
        loop {
            let batch = match self.requests.pop_front()? {
                Request::Updates(feed) => self.updates(feed, state),
                Request::Answer(feed) => self.answer(feed, state),
            };
            if batch.is_some() {
                return batch;
            }
        }
    }

    /// Every change while the ring reaches back to the cursor, then newest states.
    fn updates(&mut self, feed: FeedId, state: &State) -> Option<Batch> {
        let (watch, ring) = (self.watches.get_mut(&feed)?, state.rings.get(&feed)?);
        watch.is_queued = false;
        let since = watch.cursor;
        if since >= ring.end() {
            watch.conflated_bytes = 0;
            return None;
        }
        // As for a dashboard: without a gap, agents that change often would never have their turn.
        let pool_bytes = feed.pool().map_or(0, |pool| state.registry.pools[pool.0].population().1);
        let pool_bytes = pool_bytes.max(MAX_BATCH_BYTES);
        let is_slow = watch.conflated_bytes > SLOW_SNAPSHOTS * pool_bytes;
        let (since, frames) = if ring.reaches(since) {
            (since, Arc::clone(ring.after(since)?))
        } else if let Some(frames) = state.changes(feed, since).filter(|_| !is_slow) {
            watch.conflated_bytes += frames.bytes().len();
            let covered = frames.last_seq().unwrap_or(since) - since;
            let sent = frames.count_after(since) as u64;
            state.counters.conflations.add(covered.saturating_sub(sent));
            (since, frames)
        } else {
            watch.conflated_bytes = 0;
            // At most so many: dashboards are yet to ask for what is still an agent's newest state.
            state.counters.conflations.add(ring.end() - since);
            (ring.end(), Arc::default())
        };
        watch.cursor = frames.last_seq().unwrap_or(since);
        self.note_update(feed);
        Some(Batch::Updates { feed, since, frames })
    }

    /// What the next dashboard asked for, and others that lack the same. Whom the registry cannot bring
    /// up to date gets a snapshot. Of an overview, all get all of it.
    fn answer(&mut self, feed: FeedId, state: &mut State) -> Option<Batch> {
        let Watch { cursor, asked, answered, .. } = self.watches.get_mut(&feed)?;
        let Some(pool) = feed.pool().filter(|_| !feed.is_overview()) else {
            let dashboards = mem::take(asked).into_keys().collect();
            return Some(Batch::Changes { feed, dashboards, frames: state.overview(feed) });
        };
        let next = asked.range((answered.map_or(Unbounded, Excluded), Unbounded)).next();
        let (&dashboard, &ask) = next.or_else(|| asked.first_key_value())?;
        *answered = Some(dashboard);
        let changes = match ask {
            Ask::Changes(since) => state.changes(feed, since),
            Ask::Join | Ask::Snapshot => None,
        };
        let batch = match changes {
            Some(frames) => {
                let sharers = asked.extract_if(.., |_, other| *other == ask);
                let dashboards = sharers.map(|(id, _)| id).collect();
                Batch::Changes { feed, dashboards, frames }
            }
            None => {
                let needs_snapshot = |ask: &Ask| match ask {
                    Ask::Changes(since) => state.registry.pools[pool.0].changes(*since).is_none(),
                    Ask::Join | Ask::Snapshot => true,
                };
                let sharers = asked.extract_if(.., |_, ask| needs_snapshot(ask));
                let (dashboards, asks): (_, Vec<_>) = sharers.unzip();
                let have_none = asks.iter().all(|ask| *ask == Ask::Join);
                let snapshot = state.shared_snapshot(pool, have_none);
                Batch::Snapshot { feed, since: *cursor, dashboards, snapshot }
            }
        };
        if !asked.is_empty() {
            self.requests.push_back(Request::Answer(feed));
        }
        Some(batch)
    }
}
