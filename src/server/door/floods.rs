//! Which agents send too many heartbeats: counts by agent within one second. Pure: agents and instants
//! in, decisions out; refuses nothing itself.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::wire::id::{AgentId, PoolIndex};

/// Seconds begin when the first heartbeat after the last one's end comes: all agents share them.
const WINDOW: Duration = Duration::from_secs(1);

/// Agents that are counted in one window, 60 to 200 bytes each; of those beyond it none is refused. A
/// flood of so many agents is not one agent's.
const MAX_AGENTS: usize = 65_536;

#[derive(Debug, Default)]
pub(super) struct Floods {
    began: Option<Instant>,
    counts: HashMap<(PoolIndex, AgentId), usize>,
}

impl Floods {
    /// Notes a heartbeat; true when the agent has sent `max` within this second already.
    pub(super) fn note(
        &mut self,
        pool: PoolIndex,
        agent: &AgentId,
        max: usize,
        now: Instant,
    ) -> bool {
        let is_over = |began| now.saturating_duration_since(began) >= WINDOW;
        if self.began.is_none_or(is_over) {
            self.began = Some(now);
            self.counts.clear();
        }
        let key = (pool, agent.clone());
        if self.counts.len() >= MAX_AGENTS && !self.counts.contains_key(&key) {
            return false;
        }
        let count = self.counts.entry(key).or_default();
        *count += 1;
        *count > max
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::clock::Clock;

    const POOL: PoolIndex = PoolIndex(0);

    fn agent(number: usize) -> AgentId {
        AgentId::parse(&format!("a{number}")).unwrap()
    }

    #[test]
    fn the_fifty_first_in_a_second_is_too_many_and_the_next_second_is_another() {
        let start = Clock::start().now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut floods = Floods::default();
        for number in 0..50 {
            assert!(!floods.note(POOL, &agent(1), 50, at(number)), "{number}");
        }
        assert!(floods.note(POOL, &agent(1), 50, at(999)), "the 51st");
        assert!(!floods.note(POOL, &agent(2), 50, at(999)), "another agent");
        assert!(!floods.note(PoolIndex(1), &agent(1), 50, at(999)), "another pool's");
        for number in 0..50 {
            assert!(!floods.note(POOL, &agent(1), 50, at(1_000)), "{number}");
        }
        assert!(floods.note(POOL, &agent(1), 50, at(1_999)));
        assert!(!floods.note(POOL, &agent(1), 50, at(60_000)));
    }

    #[test]
    fn of_more_agents_than_are_counted_none_is_refused() {
        let now = Clock::start().now();
        let mut floods = Floods::default();
        for number in 0..MAX_AGENTS {
            assert!(!floods.note(POOL, &agent(number), 1, now));
        }
        let one_more = agent(MAX_AGENTS);
        assert!(!floods.note(POOL, &one_more, 1, now) && !floods.note(POOL, &one_more, 1, now));
        assert!(floods.note(POOL, &agent(0), 1, now), "who is counted is refused");
        assert_eq!(floods.counts.len(), MAX_AGENTS);
        assert!(!floods.note(POOL, &one_more, 1, now + WINDOW));
        assert!(floods.note(POOL, &one_more, 1, now + WINDOW));
    }
}
