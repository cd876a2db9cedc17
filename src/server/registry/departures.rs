//! The agents that a pool has lost, and those that said goodbye: the newest of each, bounded apart, so
//! that the goodbyes of short-lived runners push no loss out, and how many there were in all.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::server::limits::MAX_DEPARTURES;
use crate::wire::id::AgentId;
use crate::wire::{Departure, DepartureTotals};

/// The newest first, with the pool's sequence number; at most one per agent, none of an agent that is
/// here.
type Newest = VecDeque<(u64, Arc<Departure>)>;

#[derive(Debug, Default)]
pub(super) struct Departures {
    losses: Newest,
    goodbyes: Newest,
    totals: DepartureTotals,
}

impl Departures {
    /// Returns the departure that is forgotten for it.
    pub(super) fn push(&mut self, seq: u64, departure: Departure) -> Option<Arc<Departure>> {
        let (newest, total) = if departure.is_loss() {
            (&mut self.losses, &mut self.totals.lost)
        } else {
            (&mut self.goodbyes, &mut self.totals.goodbyes)
        };
        *total += 1;
        newest.push_front((seq, Arc::new(departure)));
        if newest.len() > MAX_DEPARTURES {
            newest.pop_back().map(|(_, oldest)| oldest)
        } else {
            None
        }
    }

    /// `agent` is back.
    pub(super) fn forget(&mut self, agent: &AgentId) {
        for newest in [&mut self.losses, &mut self.goodbyes] {
            newest.retain(|(_, departure)| departure.agent != *agent);
        }
    }

    /// Both kinds, the newest first.
    pub(super) fn list(&self) -> Vec<Arc<Departure>> {
        let mut all: Vec<_> = self.losses.iter().chain(&self.goodbyes).collect();
        all.sort_unstable_by_key(|(seq, _)| std::cmp::Reverse(*seq));
        all.into_iter().map(|(_, departure)| Arc::clone(departure)).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.losses.len() + self.goodbyes.len()
    }

    pub(super) fn totals(&self) -> DepartureTotals {
        self.totals
    }
}
