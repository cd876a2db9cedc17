//! The goodbyes that a heartbeat may still be overtaken by. Remembers a bounded number of them
//! exactly, and of all older ones the newest stamp.

use std::collections::{HashMap, VecDeque};

use crate::id::AgentId;
use crate::limits::MAX_GOODBYES;

/// Which agents said goodbye lately, by stamp number.
///
/// Workers finish in any order, so a heartbeat may reach the hub after the goodbye that the same
/// agent sent later. Its stamp tells. Once more goodbyes came than fit, `floor` stands for the
/// forgotten ones: a heartbeat of an unknown agent stamped before it counts as overtaken. With
/// more room here than requests can be in flight, none but a truly overtaken one ever is.
#[derive(Debug, Default)]
pub(super) struct Goodbyes {
    by_agent: HashMap<AgentId, u64>,
    order: VecDeque<(AgentId, u64)>,
    floor: u64,
}

impl Goodbyes {
    /// `agent` said goodbye with this stamp number.
    pub(super) fn note(&mut self, agent: &AgentId, number: u64) {
        let newest = self.by_agent.entry(agent.clone()).or_default();
        *newest = number.max(*newest);
        self.order.push_back((agent.clone(), number));
        if self.order.len() > MAX_GOODBYES
            && let Some((agent, number)) = self.order.pop_front()
        {
            self.floor = self.floor.max(number);
            if self.by_agent.get(&agent) == Some(&number) {
                self.by_agent.remove(&agent);
            }
        }
    }

    /// Whether a heartbeat of an agent that is not known came before a goodbye of it.
    pub(super) fn overtook(&self, agent: &AgentId, number: u64) -> bool {
        number < self.floor || self.by_agent.get(agent).is_some_and(|goodbye| number < *goodbye)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_forgotten_is_still_covered_and_memory_is_bounded() {
        let agent = |n: usize| AgentId::parse(&format!("a{n}")).unwrap();
        let mut goodbyes = Goodbyes::default();
        for n in 1..=MAX_GOODBYES + 10 {
            goodbyes.note(&agent(n), n as u64);
        }
        assert_eq!(goodbyes.order.len(), MAX_GOODBYES);
        assert_eq!(goodbyes.by_agent.len(), MAX_GOODBYES);
        assert!(goodbyes.overtook(&agent(1), 0), "forgotten, and below the floor");
        assert!(goodbyes.overtook(&agent(11), 10), "remembered");
        assert!(!goodbyes.overtook(&agent(11), 12), "came back later");
        assert!(!goodbyes.overtook(&agent(0), 10), "never left, and at the floor");
    }
}
