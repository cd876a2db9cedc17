//! The newest change of each agent, by sequence number: what a reader that is behind still needs.
//! Remembers a bounded number of departures, and says how far back it is complete.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound::{Excluded, Unbounded};

use crate::server::limits::MAX_DEPARTURE_CHANGES;
use crate::wire::Reason;
use crate::wire::id::AgentId;

/// See the module. Numbers rise with each change, from 1.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// When each present agent was last heard.
    heard: BTreeMap<u64, AgentId>,
    /// The oldest first.
    departures: VecDeque<Departure>,
    complete_since: u64,
}

#[derive(Debug)]
struct Departure {
    seq: u64,
    agent: AgentId,
    reason: Reason,
}

/// What was the last that happened to an agent.
#[derive(Debug)]
pub(super) enum LastEvent<'a> {
    /// A heartbeat: the pool has its state.
    Heard(&'a AgentId),
    Departed(&'a AgentId, Reason),
}

impl Changes {
    /// `agent` was heard, the last time before that at `older`; none of an agent that is new, or
    /// is back.
    pub(super) fn heard(&mut self, agent: AgentId, seq: u64, older: Option<u64>) {
        match older {
            Some(older) => drop(self.heard.remove(&older)),
            None => self.departures.retain(|departed| departed.agent != agent),
        }
        self.heard.insert(seq, agent);
    }

    /// `agent`, last heard at `older`, departed.
    pub(super) fn departed(&mut self, agent: AgentId, reason: Reason, seq: u64, older: u64) {
        self.heard.remove(&older);
        self.departures.push_back(Departure { seq, agent, reason });
        if self.departures.len() > MAX_DEPARTURE_CHANGES
            && let Some(oldest) = self.departures.pop_front()
        {
            self.complete_since = oldest.seq;
        }
    }

    /// The sequence number from which on no change is missing: who has all up to it, or up to any
    /// later one, can go on with [`Changes::after`].
    pub(super) fn complete_since(&self) -> u64 {
        self.complete_since
    }

    /// Each agent's newest change, of those after `seq`, the oldest first.
    pub(super) fn after(&self, seq: u64) -> impl Iterator<Item = (u64, LastEvent<'_>)> {
        let mut heard = self.heard.range((Excluded(seq), Unbounded)).peekable();
        let first = self.departures.partition_point(|departed| departed.seq <= seq);
        let mut departures = self.departures.range(first..).peekable();
        std::iter::from_fn(move || {
            let is_departure = match (heard.peek(), departures.peek()) {
                (Some((heard, _)), Some(departed)) => departed.seq < **heard,
                (heard, _) => heard.is_none(),
            };
            if is_departure {
                let Departure { seq, agent, reason } = departures.next()?;
                return Some((*seq, LastEvent::Departed(agent, *reason)));
            }
            heard.next().map(|(seq, agent)| (*seq, LastEvent::Heard(agent)))
        })
    }
}
