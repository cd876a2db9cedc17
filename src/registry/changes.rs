//! The newest change of each agent, by sequence number: what a reader that is behind still needs.
//! Remembers a bounded number of departures, and says how far back it is complete.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound::{Excluded, Unbounded};

use crate::id::AgentId;
use crate::limits::MAX_DEPARTURE_CHANGES;
use crate::wire::Reason;

/// What was the last that happened to an agent.
#[derive(Debug)]
pub(super) enum Change {
    /// A heartbeat: the pool has its state.
    Heard(AgentId),
    Departed(AgentId, Reason),
}

/// See the module. Numbers rise by one with each change, from 1.
#[derive(Debug, Default)]
pub(super) struct Changes {
    by_seq: BTreeMap<u64, Change>,
    /// The departures in `by_seq`, the oldest first.
    departures: VecDeque<u64>,
    complete_since: u64,
}

impl Changes {
    /// `agent` was heard, the last time before that at `older`.
    pub(super) fn heard(&mut self, agent: AgentId, seq: u64, older: Option<u64>) {
        self.replace(Change::Heard(agent), seq, older);
    }

    /// `agent`, last heard at `older`, departed.
    pub(super) fn departed(&mut self, agent: AgentId, reason: Reason, seq: u64, older: u64) {
        self.replace(Change::Departed(agent, reason), seq, Some(older));
        self.departures.push_back(seq);
        if self.departures.len() > MAX_DEPARTURE_CHANGES
            && let Some(oldest) = self.departures.pop_front()
        {
            self.by_seq.remove(&oldest);
            self.complete_since = oldest;
        }
    }

    fn replace(&mut self, change: Change, seq: u64, older: Option<u64>) {
        if let Some(older) = older {
            self.by_seq.remove(&older);
        }
        self.by_seq.insert(seq, change);
    }

    /// The sequence number from which on no change is missing: who has all up to it, or up to any
    /// later one, can go on with [`Changes::after`].
    pub(super) fn complete_since(&self) -> u64 {
        self.complete_since
    }

    /// Each agent's newest change, of those after `seq`, the oldest first.
    pub(super) fn after(&self, seq: u64) -> impl Iterator<Item = (u64, &Change)> {
        self.by_seq.range((Excluded(seq), Unbounded)).map(|(seq, change)| (*seq, change))
    }
}
