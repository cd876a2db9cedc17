//! Pools, agents, departures, eviction: what the server knows. Pure: no socket, no thread, no
//! channel, no clock. Instants arrive with the events, and what follows from an event is
//! returned as data for the hub to carry out.

mod changes;
mod deferred;
mod departures;
mod goodbyes;
mod history;
mod late;
mod pool;
mod summary;
#[cfg(test)]
mod transcripts;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::runtime::clock::UnixMillis;
use crate::server::event::{Stamp, Verdict};
use crate::wire::id::{AgentId, PoolIndex};
use crate::wire::{Departure, Metrics};
use deferred::Deferrals;
use goodbyes::Goodbyes;
pub(crate) use history::HistoryView;
pub(crate) use pool::Pool;

/// The registry's bounds and its notion of silence.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// Agents silent for longer than this are evicted.
    pub evict_after: Duration,
    /// The time between ticks while the server is well.
    pub tick: Duration,
    pub max_agents_per_pool: usize,
    /// [`Metrics::cost_bytes`] of one pool's agents together, and the histories of those that departed.
    pub max_pool_bytes: usize,
    /// Of one agent, in any second.
    pub max_updates_per_second: usize,
}

#[derive(Debug)]
pub(crate) struct Registry {
    rules: Rules,
    /// By [`PoolIndex`]. Only the registry changes them.
    pub pools: Vec<Pool>,
    goodbyes: Goodbyes,
    deferrals: Deferrals,
    last_tick: Option<Instant>,
}

/// The newest that is known of an agent, for its pool's dashboards.
#[derive(Debug, PartialEq)]
pub(crate) struct Change {
    /// The pool's sequence number with it.
    pub seq: u64,
    pub agent: AgentId,
    pub kind: ChangeKind,
}

#[derive(Debug, PartialEq)]
pub(crate) enum ChangeKind {
    /// Its state, and its observed interval between heartbeats.
    Update { metrics: Arc<Metrics>, interval_ms: Option<u64> },
    /// It went, and has not been heard of since.
    Departed(Arc<Departure>),
}

/// What became of a heartbeat that was taken.
#[derive(Debug)]
enum Heard {
    Announced(Change),
    /// It is to be announced then.
    Deferred(Instant),
}

/// What became of a goodbye.
#[derive(Debug, PartialEq)]
pub(crate) enum GoodbyeOutcome {
    Departed(Change),
    /// The agent is known, and a heartbeat of it arrived after this goodbye: it stays.
    Returned,
    Unknown,
}

impl Registry {
    pub(crate) fn new(pools: usize, rules: Rules) -> Self {
        Self {
            rules,
            pools: (0..pools).map(|_| Pool::default()).collect(),
            goodbyes: Goodbyes::default(),
            deferrals: Deferrals::default(),
            last_tick: None,
        }
    }

    /// What dashboards are to be told at `now`: nothing yet of an agent that beats too often.
    ///
    /// # Errors
    /// The [`Verdict`] that it was not taken: stale, or the pool is full. It is never
    /// [`Verdict::Accepted`].
    pub(crate) fn heartbeat(
        &mut self,
        pool: PoolIndex,
        agent: &AgentId,
        metrics: Metrics,
        stamp: Stamp,
        now: Instant,
    ) -> Result<Option<Change>, Verdict> {
        let has_left = || self.goodbyes.is_stale(pool, agent, stamp.number);
        let heard = self.pools[pool.0].heartbeat(agent, metrics, stamp, now, has_left, &self.rules);
        match heard? {
            Heard::Announced(change) => Ok(Some(change)),
            Heard::Deferred(due) => {
                self.deferrals.insert(due, pool, agent.clone());
                Ok(None)
            }
        }
    }

    /// When the next state that was deferred is to be announced.
    pub(crate) fn next_announcement(&self) -> Option<Instant> {
        self.deferrals.next_at()
    }

    /// Announces the states that were deferred until `now`, or before.
    pub(crate) fn announce_due(&mut self, now: Instant) -> Vec<(PoolIndex, Change)> {
        let mut announced = Vec::new();
        while let Some(deferred) = self.deferrals.take_due(now) {
            announced.extend(self.announce(deferred, now));
        }
        announced
    }

    /// Announces all of a pool's states that were deferred: somebody is about to see them.
    pub(crate) fn announce_all(&mut self, pool: PoolIndex, now: Instant) -> Vec<Change> {
        let deferred = self.deferrals.take_of(pool).into_iter();
        deferred.filter_map(|it| Some(self.announce(it, now)?.1)).collect()
    }

    fn announce(
        &mut self,
        (due, pool, agent): (Instant, PoolIndex, AgentId),
        now: Instant,
    ) -> Option<(PoolIndex, Change)> {
        Some((pool, self.pools[pool.0].announce(agent, due, now)?))
    }

    pub(crate) fn goodbye(
        &mut self,
        pool: PoolIndex,
        agent: &AgentId,
        stamp: Stamp,
    ) -> GoodbyeOutcome {
        let outcome = self.pools[pool.0].goodbye(agent, stamp);
        if outcome != GoodbyeOutcome::Returned {
            self.goodbyes.note(pool, agent, stamp);
        }
        outcome
    }

    /// Evicts who has been silent for longer than `evict_after`, as of `now`.
    ///
    /// Ticks that are further apart than two periods mean that the server itself was away
    /// (suspended, stopped, starved): then every deadline moves by the time that was lost. It
    /// stopped at some moment after the last tick: taking all of the gap, nobody is ever evicted
    /// early for it.
    pub(crate) fn tick(&mut self, now: Instant, wall: UnixMillis) -> Vec<(PoolIndex, Change)> {
        let last = self.last_tick.replace(now).unwrap_or(now);
        let gap = now.saturating_duration_since(last);
        self.goodbyes.expire(now);
        let mut evicted = Vec::new();
        for (index, pool) in self.pools.iter_mut().enumerate() {
            if gap > 2 * self.rules.tick {
                pool.note_stall(last, now);
            }
            let gone = pool.evict(now, wall, &self.rules);
            evicted.extend(gone.into_iter().map(|change| (PoolIndex(index), change)));
        }
        evicted
    }
}
