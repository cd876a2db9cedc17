//! The newest change of each agent, by sequence number: what a reader that is behind still needs.
//! Remembers a bounded number of departures, and bytes of them, and says how far back it is complete.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;

use crate::server::limits::{MAX_DEPARTURE_BYTES, MAX_DEPARTURE_CHANGES};
use crate::wire::Departure;
use crate::wire::id::AgentId;

/// An agent, and how it departed if it did.
type Newest = (AgentId, Option<Arc<Departure>>);

/// Numbers rise with each change, from 1.
#[derive(Debug)]
pub(super) struct Changes {
    newest: BTreeMap<u64, Newest>,
    /// Those that departed, the oldest first.
    departed: VecDeque<(u64, AgentId)>,
    /// Of their departures.
    departed_bytes: usize,
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
            departed_bytes: 0,
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
            self.remove(older);
        }
        self.newest.insert(seq, (agent, None));
    }

    /// An agent, last heard at `older`, departed.
    pub(super) fn departed(&mut self, departure: Arc<Departure>, seq: u64, older: u64) {
        self.remove(older);
        let agent = departure.agent.clone();
        self.departed.push_back((seq, agent.clone()));
        self.departed_bytes += departure.tasks.len();
        self.newest.insert(seq, (agent, Some(departure)));
        while (self.departed.len() > self.max_departed || self.departed_bytes > MAX_DEPARTURE_BYTES)
            && let Some((oldest, _)) = self.departed.pop_front()
        {
            self.remove(oldest);
            self.complete_since = oldest;
        }
    }

    fn remove(&mut self, seq: u64) {
        if let Some((_, Some(departure))) = self.newest.remove(&seq) {
            self.departed_bytes -= departure.tasks.len();
        }
    }

    /// Each agent's newest change, of those after `seq`, the oldest first. None where some of them
    /// are forgotten.
    pub(super) fn after(&self, seq: u64) -> Option<impl Iterator<Item = (&u64, &Newest)>> {
        (seq >= self.complete_since).then(|| self.newest.range((Excluded(seq), Unbounded)))
    }
}
