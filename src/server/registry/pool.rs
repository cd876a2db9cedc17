//! One pool: its agents, its departures, its count of changes. Pure, like the registry.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::changes::{Changes, LastEvent};
use super::{Change, Departed, GoodbyeOutcome, Rules, Update};
use crate::runtime::clock::UnixMillis;
use crate::server::event::{Stamp, Verdict};
use crate::server::limits::MAX_DEPARTURES;
use crate::wire::id::{AgentId, PoolIndex};
use crate::wire::{
    AgentCounts, Departure, Load, Metrics, Reason, Snapshot, SnapshotAgent, Summary,
};

#[derive(Debug, Default)]
pub(super) struct Pool {
    agents: HashMap<AgentId, Agent>,
    /// The sum of the agents' [`Metrics::cost_bytes`].
    bytes: usize,
    /// Rises by one with each change that dashboards see.
    seq: u64,
    /// The newest first, at most one per agent, none of an agent that is here.
    departed: VecDeque<Arc<Departure>>,
    changes: Changes,
    /// No agent was last heard before this: ticks that cannot evict anyone look no further.
    oldest: Option<Instant>,
}

#[derive(Debug)]
struct Agent {
    metrics: Arc<Metrics>,
    /// The pool's sequence number with its newest state.
    seq: u64,
    /// The newest stamp's number.
    number: u64,
    /// When the newest heartbeat arrived, for the rhythm.
    arrived: Instant,
    /// The same, moved by the times that the server was away, for the eviction.
    heard: Instant,
    interval: Option<Duration>,
}

impl Pool {
    /// `has_left` tells of an agent that is not known whether it may have left after this heartbeat.
    pub(super) fn heartbeat(
        &mut self,
        id: &AgentId,
        metrics: Metrics,
        stamp: Stamp,
        has_left: impl FnOnce() -> bool,
        rules: &Rules,
    ) -> Result<Update, Verdict> {
        let cost = metrics.cost_bytes();
        let agents = self.agents.len();
        let seq = self.seq + 1;
        let agent = match self.agents.entry(id.clone()) {
            Entry::Occupied(known) => {
                let agent = known.into_mut();
                if stamp.number < agent.number {
                    return Err(Verdict::Stale);
                }
                let before = agent.metrics.cost_bytes();
                // Refused is not heard: what is shown of the agent must not pass for its state.
                if cost > before && self.bytes - before + cost > rules.max_pool_bytes {
                    return Err(Verdict::TooManyBytes);
                }
                self.bytes = self.bytes - before + cost;
                self.changes.heard(id.clone(), seq, Some(agent.seq));
                agent.hear(metrics, seq, stamp);
                agent
            }
            Entry::Vacant(place) => {
                if has_left() {
                    return Err(Verdict::Stale);
                }
                if agents >= rules.max_agents_per_pool {
                    return Err(Verdict::TooManyAgents);
                }
                if self.bytes + cost > rules.max_pool_bytes {
                    return Err(Verdict::TooManyBytes);
                }
                self.bytes += cost;
                self.departed.retain(|departure| departure.agent != *id);
                self.changes.heard(id.clone(), seq, None);
                place.insert(Agent::new(metrics, seq, stamp))
            }
        };
        self.seq = seq;
        self.oldest = Some(self.oldest.map_or(agent.heard, |oldest| oldest.min(agent.heard)));
        Ok(agent.update())
    }

    pub(super) fn goodbye(
        &mut self,
        pool: PoolIndex,
        id: &AgentId,
        stamp: Stamp,
    ) -> GoodbyeOutcome {
        if self.agents.get(id).is_some_and(|agent| agent.number > stamp.number) {
            return GoodbyeOutcome::Returned;
        }
        match self.depart(pool, id, Reason::Goodbye, stamp.wall) {
            Some(gone) => GoodbyeOutcome::Departed(gone),
            None => GoodbyeOutcome::Unknown,
        }
    }

    /// The server was away until `now`, for `stalled`: nobody could be heard in that time.
    pub(super) fn extend_deadlines(&mut self, stalled: Duration, now: Instant) {
        for agent in self.agents.values_mut() {
            // Who was heard since is not later than now for it.
            agent.heard = agent.heard.max(now.min(agent.heard + stalled));
        }
        self.oldest = self.agents.values().map(|agent| agent.heard).min();
    }

    /// Removes who was last heard more than `evict_after` before `now`.
    pub(super) fn evict(
        &mut self,
        pool: PoolIndex,
        now: Instant,
        wall: UnixMillis,
        evict_after: Duration,
        gone: &mut Vec<Departed>,
    ) {
        let silent = |heard: Instant| now.saturating_duration_since(heard) > evict_after;
        if !self.oldest.is_some_and(silent) {
            return;
        }
        let mut due: Vec<_> = self
            .agents
            .iter()
            .filter(|(_, agent)| silent(agent.heard))
            .map(|(id, agent)| (agent.heard, id.clone()))
            .collect();
        due.sort_unstable();
        for (_, id) in due {
            gone.extend(self.depart(pool, &id, Reason::Timeout, wall));
        }
        self.oldest = self.agents.values().map(|agent| agent.heard).min();
    }

    fn depart(
        &mut self,
        pool: PoolIndex,
        id: &AgentId,
        reason: Reason,
        at: UnixMillis,
    ) -> Option<Departed> {
        let (id, agent) = self.agents.remove_entry(id)?;
        self.bytes -= agent.metrics.cost_bytes();
        self.seq += 1;
        self.changes.departed(id.clone(), reason, self.seq, agent.seq);
        self.departed.truncate(MAX_DEPARTURES - 1);
        self.departed.push_front(Arc::new(Departure {
            agent: id.clone(),
            name: agent.metrics.name.clone(),
            reason,
            at,
            tasks: agent.metrics.tasks_text(),
        }));
        Some(Departed { pool, agent: id, reason, seq: self.seq })
    }

    pub(super) fn snapshot(&self, server_time: UnixMillis) -> Snapshot {
        let agents = self.agents.iter().map(|(id, agent)| SnapshotAgent {
            agent: id.clone(),
            metrics: Arc::clone(&agent.metrics),
            interval_ms: agent.interval_ms(),
        });
        Snapshot {
            agents: agents.collect(),
            departed: self.departed.iter().cloned().collect(),
            server_time,
            seq: self.seq,
            complete_since: self.changes.complete_since(),
        }
    }

    pub(super) fn seq(&self) -> u64 {
        self.seq
    }

    pub(super) fn is_complete_since(&self, seq: u64) -> bool {
        seq >= self.changes.complete_since()
    }

    /// The newest change of each agent that changed after `seq`, the oldest first.
    pub(super) fn changes(&self, pool: PoolIndex, seq: u64) -> impl Iterator<Item = Change> {
        self.changes.after(seq).filter_map(move |(seq, change)| match change {
            LastEvent::Heard(id) => Some(Change::Update(self.agents.get(id)?.update())),
            LastEvent::Departed(id, reason) => {
                Some(Change::Departed(Departed { pool, agent: id.clone(), reason, seq }))
            }
        })
    }

    pub(super) fn summary(&self) -> Summary {
        let mut by_status: BTreeMap<&str, usize> = BTreeMap::new();
        let (mut cpu, mut memory) = (Load::default(), Load::default());
        for agent in self.agents.values() {
            let metrics = &agent.metrics;
            *by_status.entry(&metrics.status).or_default() += 1;
            for (load, value) in [(&mut cpu, metrics.cpu), (&mut memory, metrics.memory)] {
                load.mean += value;
                load.max = load.max.max(value);
            }
        }
        let total = self.agents.len();
        // No pool has so many agents that a f64 could not count them.
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let count = total as f64;
        let load = |Load { mean: sum, max }| (total > 0).then_some(Load { mean: sum / count, max });
        let by_status = by_status.into_iter().map(|(status, count)| (status.into(), count));
        Summary {
            agents: AgentCounts { total, by_status: by_status.collect() },
            departed: self.departed.len(),
            cpu: load(cpu),
            memory: load(memory),
        }
    }

    pub(super) fn population(&self) -> (usize, usize) {
        (self.agents.len(), self.bytes)
    }
}

impl Agent {
    fn new(metrics: Metrics, seq: u64, stamp: Stamp) -> Self {
        Self {
            metrics: Arc::new(metrics),
            seq,
            number: stamp.number,
            arrived: stamp.at,
            heard: stamp.at,
            interval: None,
        }
    }

    fn hear(&mut self, metrics: Metrics, seq: u64, stamp: Stamp) {
        let gap = stamp.at.saturating_duration_since(self.arrived);
        self.interval = Some(self.interval.map_or(gap, |known| smooth(known, gap)));
        self.metrics = Arc::new(metrics);
        self.seq = seq;
        self.number = stamp.number;
        self.arrived = stamp.at;
        self.heard = self.heard.max(stamp.at);
    }

    fn update(&self) -> Update {
        Update {
            metrics: Arc::clone(&self.metrics),
            interval_ms: self.interval_ms(),
            seq: self.seq,
        }
    }

    fn interval_ms(&self) -> Option<u64> {
        self.interval.map(|interval| u64::try_from(interval.as_millis()).unwrap_or(u64::MAX))
    }
}

/// How many of the known intervals one new gap of the same length is weighed against.
const MEMORY: f64 = 7.0;

/// A mean over time, in which each gap counts by its length. Heartbeats that come in between,
/// because tasks start and end, hardly shorten what an agent's rhythm is taken to be, or it would
/// seem late as soon as they stop; a longer rhythm is believed almost at once.
fn smooth(known: Duration, gap: Duration) -> Duration {
    let (known, gap) = (known.as_secs_f64(), gap.as_secs_f64());
    let length = MEMORY * known + gap;
    if length == 0.0 {
        return Duration::ZERO;
    }
    Duration::from_secs_f64((MEMORY * known * known + gap * gap) / length)
}
