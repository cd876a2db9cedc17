//! Batches: which feeds have something new, when the next batch of each may go, and up to where the
//! last one went. That is all that is kept: what changed is looked up in the registry when a batch is
//! made, once for all dashboards of a feed.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Instant;

use super::{Hub, State};
use crate::server::feed::FeedId;
use crate::server::frame::{FRAGMENT_BYTES, Frames};
use crate::server::limits::MAX_BATCH_BYTES;
use crate::server::registry::ChangeKind;
use crate::wire::id::PoolIndex;
use crate::wire::{Envelope, MetricsBatch};

/// Events wait while batches are made: for as many bytes, and the batch that exceeds them, in one turn.
const MAX_TURN_BYTES: usize = 4 * MAX_BATCH_BYTES;

/// The feeds of batches that somebody watches. Knows no clock.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    feeds: BTreeMap<FeedId, Pace>,
    /// Feeds with something new, by when it may go.
    due: BTreeSet<(Instant, FeedId)>,
}

#[derive(Debug)]
struct Pace {
    /// Dashboards have been made all changes up to this number.
    made: u64,
    not_before: Instant,
    is_due: bool,
}

impl Schedule {
    /// Somebody watches this feed, whose pool's last change has the number `seq`.
    pub(super) fn watch(&mut self, feed: FeedId, seq: u64, now: Instant) {
        let new = || Pace { made: seq, not_before: now, is_due: false };
        self.feeds.entry(feed).or_insert_with(new);
    }

    pub(super) fn forget(&mut self, feed: FeedId) {
        if let Some(pace) = self.feeds.remove(&feed) {
            self.due.remove(&(pace.not_before, feed));
        }
    }

    /// The number up to which batches have been made; none of a feed that nobody watches.
    pub(super) fn made(&self, feed: FeedId) -> Option<u64> {
        self.feeds.get(&feed).map(|pace| pace.made)
    }

    /// The pool has changed.
    pub(super) fn note(&mut self, pool: PoolIndex) {
        for (feed, pace) in self.feeds.range_mut(FeedId::batches(pool)) {
            if !pace.is_due {
                pace.is_due = true;
                self.due.insert((pace.not_before, *feed));
            }
        }
    }

    /// Whether a batch is to go now.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.next_at().is_some_and(|at| at <= now)
    }

    /// When the next batch may go, if one is to.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// A feed of which a batch is to go now.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<FeedId> {
        let due = self.due.first().copied().filter(|(at, _)| *at <= now)?;
        self.due.remove(&due);
        Some(due.1)
    }

    /// A batch with all changes up to `seq` has been made.
    pub(super) fn note_made(&mut self, feed: FeedId, seq: u64, now: Instant) {
        if let Some(pace) = self.feeds.get_mut(&feed) {
            *pace = Pace { made: seq, not_before: now + feed.period(), is_due: false };
        }
    }
}

impl Hub {
    /// Makes the batches that are due, as many as one turn takes.
    pub(super) fn make_batches(&mut self) {
        let mut bytes = 0;
        while bytes < MAX_TURN_BYTES
            && let Some(feed) = self.state.schedule.take_due(self.now)
        {
            let Some(pool) = feed.pool() else { continue };
            let seq = self.state.registry.pools[pool.0].seq();
            let since = self.state.schedule.made(feed).unwrap_or(seq);
            let frames = self.state.batch(pool, since, seq, usize::MAX);
            self.state.schedule.note_made(feed, seq, self.now);
            self.state.counters.batches.add_one();
            bytes += frames.as_ref().map_or(0, |frames| frames.bytes().len());
            let Some(ring) = self.state.rings.get_mut(&feed) else { continue };
            match frames {
                Some(frames) => ring.append(since, frames),
                // Departures are forgotten: dashboards are to ask.
                None => ring.append(seq, Arc::default()),
            }
            self.outboxes.iter_mut().for_each(|outbox| outbox.note_update(feed));
        }
    }
}

impl State {
    /// A part of what the feed's batches since `since` brought, for who has not got them: up to the
    /// last batch, so that it can go on with the next one, and up to about [`MAX_BATCH_BYTES`], as it
    /// may be slow and memory is its own. `None` where the registry has forgotten departures.
    pub(super) fn missed_batch(
        &self,
        feed: FeedId,
        pool: PoolIndex,
        since: u64,
    ) -> Option<Arc<Frames>> {
        let made = self.schedule.made(feed)?;
        self.batch(pool, since, made, MAX_BATCH_BYTES)
    }

    /// One message: of each agent whose newest change comes after `since`, and not after `until`, that
    /// change. With the oldest of them only where they take more than about `max_bytes`. No frames
    /// where `since` is not before `until`.
    fn batch(
        &self,
        pool: PoolIndex,
        since: u64,
        until: u64,
        max_bytes: usize,
    ) -> Option<Arc<Frames>> {
        if since >= until {
            return Some(Arc::default());
        }
        let (mut batch, mut last) = (MetricsBatch::default(), since);
        let mut changes = self.registry.pools[pool.0].changes(since)?;
        let seq = loop {
            match changes.next().filter(|change| change.seq <= until) {
                Some(_) if batch.text_bytes() >= max_bytes => break last,
                Some(change) => {
                    last = change.seq;
                    match change.kind {
                        ChangeKind::Update { metrics, interval_ms } => {
                            batch.push_agent(metrics, interval_ms);
                        }
                        ChangeKind::Departed(departure) => batch.push_departure(departure),
                    }
                }
                None => break until,
            }
        };
        let server_time = self.clock.wall();
        let envelope =
            Envelope { pool: Some(&self.pools[pool.0]), server_time, epoch: &self.epoch, seq };
        match encode(&batch, &envelope, since) {
            Ok(frames) => Some(Arc::new(frames)),
            Err(error) => {
                log::warn!("no memory for a batch, dashboards get it in parts: {error}");
                None
            }
        }
    }
}

fn encode(batch: &MetricsBatch, envelope: &Envelope<'_>, since: u64) -> io::Result<Frames> {
    let is_small = batch.text_bytes() <= 2 * MAX_BATCH_BYTES;
    let mut frames =
        if is_small { Frames::default() } else { Frames::for_fragments(batch.text_bytes())? };
    batch.write(envelope, FRAGMENT_BYTES, |part, is_last| {
        frames.push_fragment(part.as_bytes(), is_last, since, envelope.seq);
    });
    Ok(frames)
}
