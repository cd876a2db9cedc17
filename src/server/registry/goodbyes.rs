//! The goodbyes that may still make a heartbeat stale, of all pools together. Remembers a bounded
//! number of them exactly, for a while, and of all older ones the newest stamp.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use crate::server::event::Stamp;
use crate::server::limits::{GOODBYE_MEMORY, MAX_GOODBYES};
use crate::wire::id::{AgentId, PoolIndex};

/// Which agents said goodbye lately, by stamp number.
///
/// Workers finish in any order, so a heartbeat may reach the hub after the goodbye that the same
/// agent sent later. Its stamp tells. `floor` stands for the goodbyes that were forgotten: a
/// heartbeat of an unknown agent stamped before it counts as stale. More goodbyes are
/// remembered, and for longer, than requests are in flight, so that it says so of no other
/// heartbeat, unless the server was stopped while it was in flight.
#[derive(Debug, Default)]
pub(super) struct Goodbyes {
    by_agent: HashMap<(PoolIndex, AgentId), u64>,
    order: VecDeque<(PoolIndex, AgentId, Stamp)>,
    floor: u64,
}

impl Goodbyes {
    /// `agent` said goodbye with this stamp.
    pub(super) fn note(&mut self, pool: PoolIndex, agent: &AgentId, stamp: Stamp) {
        let newest = self.by_agent.entry((pool, agent.clone())).or_default();
        *newest = stamp.number.max(*newest);
        self.order.push_back((pool, agent.clone(), stamp));
        if self.order.len() > MAX_GOODBYES {
            self.forget_oldest();
        }
    }

    /// Forgets those that no heartbeat in flight can be older than.
    pub(super) fn expire(&mut self, now: Instant) {
        let is_old = |stamp: &Stamp| now.saturating_duration_since(stamp.at) > GOODBYE_MEMORY;
        while self.order.front().is_some_and(|(_, _, stamp)| is_old(stamp)) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((pool, agent, stamp)) = self.order.pop_front() {
            self.floor = self.floor.max(stamp.number);
            let key = (pool, agent);
            if self.by_agent.get(&key) == Some(&stamp.number) {
                self.by_agent.remove(&key);
            }
        }
    }

    /// Whether a heartbeat of an agent that is not known came before a goodbye of it.
    pub(super) fn is_stale(&self, pool: PoolIndex, agent: &AgentId, number: u64) -> bool {
        let goodbye = self.by_agent.get(&(pool, agent.clone()));
        number < self.floor || goodbye.is_some_and(|goodbye| number < *goodbye)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::runtime::clock::{Clock, UnixMillis};

    const POOL: PoolIndex = PoolIndex(0);

    fn agent(n: usize) -> AgentId {
        AgentId::parse(&format!("a{n}")).unwrap()
    }

    #[test]
    fn what_is_forgotten_is_still_covered_and_memory_is_bounded() {
        let at = Clock::start().now();
        let mut goodbyes = Goodbyes::default();
        for n in 1..=MAX_GOODBYES + 10 {
            // All pools share the bound.
            let stamp = Stamp { number: n as u64, at, wall: UnixMillis(0) };
            goodbyes.note(PoolIndex(n % 3), &agent(n), stamp);
        }
        assert_eq!(goodbyes.order.len(), MAX_GOODBYES);
        assert_eq!(goodbyes.by_agent.len(), MAX_GOODBYES);
        assert!(goodbyes.is_stale(PoolIndex(1), &agent(1), 0), "forgotten, and below the floor");
        assert!(goodbyes.is_stale(PoolIndex(2), &agent(11), 10), "remembered");
        assert!(!goodbyes.is_stale(PoolIndex(2), &agent(11), 12), "came back later");
        assert!(!goodbyes.is_stale(PoolIndex(0), &agent(11), 10), "another pool's");
        assert!(!goodbyes.is_stale(POOL, &agent(0), 10), "never left, and at the floor");
    }

    #[test]
    fn goodbyes_expire_and_stay_covered() {
        let at = Clock::start().now();
        let mut goodbyes = Goodbyes::default();
        goodbyes.note(POOL, &agent(1), Stamp { number: 5, at, wall: UnixMillis(0) });
        goodbyes.expire(at + GOODBYE_MEMORY);
        assert_eq!(goodbyes.order.len(), 1, "at the limit");
        goodbyes.expire(at + GOODBYE_MEMORY + Duration::from_millis(1));
        assert!(goodbyes.order.is_empty() && goodbyes.by_agent.is_empty());
        assert!(goodbyes.is_stale(POOL, &agent(1), 4));
        assert!(!goodbyes.is_stale(POOL, &agent(1), 5));
    }
}
