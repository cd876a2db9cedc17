//! Pools, agents, departures, eviction: what the server knows. Pure: no socket, no thread, no
//! channel, no clock. Instants arrive with the events, and what follows from an event is
//! returned as data for the hub to carry out.

mod changes;
mod goodbyes;
mod pool;
#[cfg(test)]
mod transcripts;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::runtime::clock::UnixMillis;
use crate::server::event::{Stamp, Verdict};
use crate::wire::Summary;
use crate::wire::id::{AgentId, PoolIndex};
use crate::wire::{Metrics, Reason, Snapshot};
use goodbyes::Goodbyes;
use pool::Pool;

/// The registry's bounds and its notion of silence.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// Agents silent for longer than this are evicted.
    pub evict_after: Duration,
    /// The time between ticks while the server is well.
    pub tick: Duration,
    /// Agents of one pool.
    pub max_agents_per_pool: usize,
    /// [`Metrics::cost_bytes`] of one pool's agents together.
    pub max_pool_bytes: usize,
}

/// All pools, and the time of the last tick.
#[derive(Debug)]
pub(crate) struct Registry {
    rules: Rules,
    pools: Vec<Pool>,
    goodbyes: Goodbyes,
    last_tick: Option<Instant>,
}

/// An agent's newest state, for its pool's dashboards.
#[derive(Debug, PartialEq)]
pub(crate) struct Update {
    /// The state.
    pub metrics: Arc<Metrics>,
    /// The agent's observed rhythm.
    pub interval_ms: Option<u64>,
    /// The pool's sequence number with this change.
    pub seq: u64,
}

/// An agent went, for its pool's dashboards.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Departed {
    /// The pool.
    pub pool: PoolIndex,
    /// The agent.
    pub agent: AgentId,
    /// Why.
    pub reason: Reason,
    /// The pool's sequence number with this change.
    pub seq: u64,
}

/// What a reader that is behind still needs.
#[derive(Debug, PartialEq)]
pub(crate) enum Change {
    /// An agent's newest state.
    Update(Update),
    /// An agent went, and has not been heard of since.
    Departed(Departed),
}

impl Registry {
    /// A registry of `pools` empty pools.
    pub(crate) fn new(pools: usize, rules: Rules) -> Self {
        Self {
            rules,
            pools: (0..pools).map(|_| Pool::default()).collect(),
            goodbyes: Goodbyes::default(),
            last_tick: None,
        }
    }

    /// Takes a heartbeat.
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
    ) -> Result<Update, Verdict> {
        // The agent may have been evicted since, after a newer heartbeat than this one.
        let is_too_old =
            |tick: Instant| tick.saturating_duration_since(stamp.at) > self.rules.evict_after;
        let has_left = || {
            self.goodbyes.is_stale(pool, agent, stamp.number)
                || self.last_tick.is_some_and(is_too_old)
        };
        self.pools[pool.0].heartbeat(agent, metrics, stamp, has_left, &self.rules)
    }

    /// Takes a goodbye.
    pub(crate) fn goodbye(
        &mut self,
        pool: PoolIndex,
        agent: &AgentId,
        stamp: Stamp,
    ) -> GoodbyeOutcome {
        let outcome = self.pools[pool.0].goodbye(pool, agent, stamp);
        if outcome != GoodbyeOutcome::Returned {
            self.goodbyes.note(pool, agent, stamp);
        }
        outcome
    }

    /// Evicts who has been silent for longer than `evict_after`, as of `now`.
    ///
    /// Ticks that are further apart than two periods mean that the server itself was away
    /// (suspended, stopped, starved): then every deadline moves by the time that was lost.
    pub(crate) fn tick(&mut self, now: Instant, wall: UnixMillis) -> Vec<Departed> {
        let stalled = match self.last_tick.replace(now) {
            Some(last) => stall(now.saturating_duration_since(last), self.rules.tick),
            None => Duration::ZERO,
        };
        self.goodbyes.expire(now);
        let mut gone = Vec::new();
        for (index, pool) in self.pools.iter_mut().enumerate() {
            if !stalled.is_zero() {
                pool.extend_deadlines(stalled, now);
            }
            pool.evict(PoolIndex(index), now, wall, self.rules.evict_after, &mut gone);
        }
        gone
    }

    /// The pool at this moment.
    pub(crate) fn snapshot(&self, pool: PoolIndex, now: UnixMillis) -> Snapshot {
        self.pools[pool.0].snapshot(now)
    }

    /// The number of the pool's last change.
    pub(crate) fn seq(&self, pool: PoolIndex) -> u64 {
        self.pools[pool.0].seq()
    }

    /// Whether [`Registry::changes`] after `seq` are all that happened.
    pub(crate) fn is_complete_since(&self, pool: PoolIndex, seq: u64) -> bool {
        self.pools[pool.0].is_complete_since(seq)
    }

    /// The newest change of each agent of the pool that changed after `seq`, the oldest first.
    pub(crate) fn changes(&self, pool: PoolIndex, seq: u64) -> impl Iterator<Item = Change> {
        self.pools[pool.0].changes(pool, seq)
    }

    /// All pools in numbers.
    pub(crate) fn summaries(&self) -> Vec<Summary> {
        self.pools.iter().map(Pool::summary).collect()
    }

    /// How many agents `pool` has, and what they cost in bytes.
    pub(crate) fn population(&self, pool: PoolIndex) -> (usize, usize) {
        self.pools[pool.0].population()
    }
}

/// What became of a goodbye.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum GoodbyeOutcome {
    /// The agent is gone now.
    Departed(Departed),
    /// The agent is known, and a heartbeat of it arrived after this goodbye: it stays.
    Returned,
    /// No such agent.
    Unknown,
}

/// How long the server may have been away, when ticks `period` apart came `gap` apart. It stopped at
/// some moment after the last tick: taking all of the gap, nobody is ever evicted early for it.
fn stall(gap: Duration, period: Duration) -> Duration {
    if gap > 2 * period { gap } else { Duration::ZERO }
}
