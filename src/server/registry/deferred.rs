//! The flood limit: how often an agent's state is announced to dashboards. What comes sooner is kept
//! and announced later, or not at all where a newer state takes its place. Knows no clock.

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::wire::Metrics;
use crate::wire::id::{AgentId, PoolIndex};

/// The limit is a number of updates in any time of this length.
const WINDOW: Duration = Duration::from_secs(1);

/// When an agent was announced lately.
#[derive(Debug, Default)]
pub(super) struct Announced(VecDeque<Instant>);

impl Announced {
    /// Until when a further update must wait, if `max` were announced in the window before `now`.
    pub(super) fn wait_until(&mut self, now: Instant, max: usize) -> Option<Instant> {
        while self.0.pop_front_if(|at| *at + WINDOW <= now).is_some() {}
        // More than the limit, where somebody joined.
        let last = self.0.get(self.0.len().checked_sub(max)?)?;
        Some(*last + WINDOW)
    }

    pub(super) fn note(&mut self, now: Instant) {
        self.0.push_back(now);
    }
}

/// Of an agent whose newest state is not announced yet.
#[derive(Debug)]
pub(super) struct Deferral {
    /// The state that dashboards have.
    pub(super) shown: Arc<Metrics>,
    /// When the newest is to be announced.
    pub(super) due: Instant,
}

/// Which agents are to be announced when. An agent that departed, or was announced sooner, stays here
/// until it would have been due, for less than the window.
#[derive(Debug, Default)]
pub(super) struct Deferrals(BTreeSet<(Instant, PoolIndex, AgentId)>);

impl Deferrals {
    pub(super) fn insert(&mut self, due: Instant, pool: PoolIndex, agent: AgentId) {
        self.0.insert((due, pool, agent));
    }

    pub(super) fn next_at(&self) -> Option<Instant> {
        self.0.first().map(|(due, ..)| *due)
    }

    pub(super) fn take_due(&mut self, now: Instant) -> Option<(Instant, PoolIndex, AgentId)> {
        if self.next_at()? > now { None } else { self.0.pop_first() }
    }

    pub(super) fn take_of(&mut self, pool: PoolIndex) -> Vec<(Instant, PoolIndex, AgentId)> {
        self.0.extract_if(.., |(_, of, _)| *of == pool).collect()
    }
}
