//! The agents that a pool has lost, and those that said goodbye: the newest of each, bounded apart, so
//! that the goodbyes of short-lived runners push no loss out, and how many there were in all.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::runtime::clock::UnixMillis;
use crate::server::limits::{LOSS_MEMORY, MAX_COUNTED_LOSSES, MAX_DEPARTURES};
use crate::wire::id::AgentId;
use crate::wire::{Departure, DepartureTotals};

/// The newest first, with the pool's sequence number; at most one per agent, none of an agent that is
/// here.
type Newest = VecDeque<(u64, Arc<Departure>)>;

#[derive(Debug, Default)]
pub(super) struct Departures {
    losses: Newest,
    goodbyes: Newest,
    /// More of the losses than `losses` has, for their number; the newest first.
    counted: VecDeque<Loss>,
    totals: DepartureTotals,
}

#[derive(Debug)]
struct Loss {
    agent: AgentId,
    at: UnixMillis,
    tasks: usize,
}

/// What was lost within [`LOSS_MEMORY`] and did not come back.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Losses {
    pub(super) agents: usize,
    /// That they were running.
    pub(super) tasks: usize,
    /// When the last one was lost, however long ago.
    pub(super) last_at: Option<UnixMillis>,
    /// How long it takes until the first of them no longer counts.
    pub(super) holds_for: Option<Duration>,
}

impl Departures {
    /// Returns the departure that is forgotten for it.
    pub(super) fn push(&mut self, seq: u64, departure: Arc<Departure>) -> Option<Arc<Departure>> {
        let (newest, total) = if departure.is_loss() {
            let Departure { agent, at, task_count, .. } = &*departure;
            self.counted.truncate(MAX_COUNTED_LOSSES - 1);
            self.counted.push_front(Loss { agent: agent.clone(), at: *at, tasks: *task_count });
            (&mut self.losses, &mut self.totals.lost)
        } else {
            (&mut self.goodbyes, &mut self.totals.goodbyes)
        };
        *total += 1;
        newest.push_front((seq, departure));
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
        self.counted.retain(|loss| loss.agent != *agent);
    }

    /// Both kinds, the newest first.
    pub(super) fn list(&self) -> Vec<Arc<Departure>> {
        let mut all: Vec<_> = self.losses.iter().chain(&self.goodbyes).collect();
        all.sort_unstable_by_key(|(seq, _)| std::cmp::Reverse(*seq));
        all.into_iter().map(|(_, departure)| Arc::clone(departure)).collect()
    }

    /// As of `now`.
    pub(super) fn losses(&self, now: UnixMillis) -> Losses {
        let last_at = self.counted.front().map(|loss| loss.at);
        let mut losses = Losses { last_at, ..Losses::default() };
        for loss in &self.counted {
            let age = Duration::from_millis(now.0.saturating_sub(loss.at.0));
            let Some(left) = LOSS_MEMORY.checked_sub(age) else { continue };
            losses.agents += 1;
            losses.tasks += loss.tasks;
            let holds_for = left + Duration::from_millis(1);
            losses.holds_for = Some(losses.holds_for.map_or(holds_for, |it| it.min(holds_for)));
        }
        losses
    }

    pub(super) fn len(&self) -> usize {
        self.losses.len() + self.goodbyes.len()
    }

    pub(super) fn totals(&self) -> DepartureTotals {
        self.totals
    }
}
