//! The newest change of each agent, by sequence number: what a reader that is behind still needs.
//! Remembers a bounded number of departures, and says how far back it is complete.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound::{Excluded, Unbounded};

use crate::server::limits::MAX_DEPARTURE_CHANGES;
use crate::wire::Reason;
use crate::wire::id::AgentId;

/// Numbers rise with each change, from 1.
#[derive(Debug)]
pub(super) struct Changes {
    /// With a reason where the agent departed.
    newest: BTreeMap<u64, (AgentId, Option<Reason>)>,
    /// Those that departed, the oldest first.
    departed: VecDeque<(u64, AgentId)>,
    /// [`MAX_DEPARTURE_CHANGES`]; a test may set less.
    pub(super) max_departed: usize,
    /// No change after this one is missing: who has all up to it, or up to any later one, can go on
    /// with [`Changes::after`].
    pub(super) complete_since: u64,
}

impl Default for Changes {
    fn default() -> Self {
        Self {
            newest: BTreeMap::new(),
            departed: VecDeque::new(),
            max_departed: MAX_DEPARTURE_CHANGES,
            complete_since: 0,
        }
    }
}

impl Changes {
    /// `agent` was heard, the last time before that at `older`; none of an agent that is new, or
    /// is back.
    pub(super) fn heard(&mut self, agent: AgentId, seq: u64, older: Option<u64>) {
        let older = older.or_else(|| {
            let index = self.departed.iter().position(|(_, departed)| *departed == agent)?;
            self.departed.remove(index).map(|(seq, _)| seq)
        });
        if let Some(older) = older {
            self.newest.remove(&older);
        }
        self.newest.insert(seq, (agent, None));
    }

    /// `agent`, last heard at `older`, departed.
    pub(super) fn departed(&mut self, agent: AgentId, reason: Reason, seq: u64, older: u64) {
        self.newest.remove(&older);
        self.departed.push_back((seq, agent.clone()));
        self.newest.insert(seq, (agent, Some(reason)));
        if self.departed.len() > self.max_departed
            && let Some((oldest, _)) = self.departed.pop_front()
        {
            self.newest.remove(&oldest);
            self.complete_since = oldest;
        }
    }

    /// Each agent's newest change, of those after `seq`, the oldest first. None where some of them
    /// are forgotten.
    pub(super) fn after(
        &self,
        seq: u64,
    ) -> Option<impl Iterator<Item = (&u64, &(AgentId, Option<Reason>))>> {
        (seq >= self.complete_since).then(|| self.newest.range((Excluded(seq), Unbounded)))
    }
}
