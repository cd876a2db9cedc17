//! One pool: its agents, its departures, its count of changes. Pure, like the registry.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::changes::Changes;
use super::departures::Departures;
use super::history::{History, HistoryView, Track};
use super::late::late_after;
use super::{Change, ChangeKind, GoodbyeOutcome, Rules};
use crate::runtime::clock::UnixMillis;
use crate::server::event::{Stamp, Verdict};
use crate::wire::history::Sample;
use crate::wire::id::AgentId;
use crate::wire::{Departure, Metrics, Reason, Snapshot, SnapshotAgent};

#[derive(Debug, Default)]
pub(crate) struct Pool {
    pub(super) agents: HashMap<AgentId, Agent>,
    /// The sum of the agents' [`Metrics::cost_bytes`].
    bytes: usize,
    /// Rises by one with each change that dashboards see.
    seq: u64,
    pub(super) departures: Departures,
    /// Has the track of each agent in `departures`.
    history: History,
    pub(super) changes: Changes,
    /// The highest number of a heartbeat whose agent was evicted. What came before it is as old, and
    /// may be of one of these agents.
    evicted_up_to: u64,
}

#[derive(Debug)]
pub(super) struct Agent {
    pub(super) metrics: Arc<Metrics>,
    /// The pool's sequence number with its newest state.
    seq: u64,
    /// Of the newest heartbeat.
    stamp: Stamp,
    /// When that arrived, moved by the times that the server was away, for eviction and lateness.
    pub(super) heard: Instant,
    pub(super) interval: Option<Duration>,
    /// Always there while the agent is in the pool.
    track: Option<Track>,
}

impl Pool {
    /// `has_left` tells of an agent that is not known whether it left after this heartbeat.
    pub(super) fn heartbeat(
        &mut self,
        id: &AgentId,
        metrics: Metrics,
        stamp: Stamp,
        has_left: impl FnOnce() -> bool,
        rules: &Rules,
    ) -> Result<Change, Verdict> {
        let agents = self.agents.len();
        let mut entry = self.agents.entry(id.clone());
        let known = match &entry {
            Entry::Occupied(known) => Some(known.get()),
            Entry::Vacant(_) => None,
        };
        let may_have_left = || stamp.number < self.evicted_up_to || has_left();
        if known.map_or_else(may_have_left, |known| stamp.number < known.stamp.number) {
            return Err(Verdict::Stale);
        }
        if known.is_none() && agents >= rules.max_agents_per_pool {
            return Err(Verdict::TooManyAgents);
        }
        let before = known.map_or(0, |known| known.metrics.cost_bytes());
        let cost = metrics.cost_bytes();
        let bytes = self.bytes - before + cost;
        // Refused is not heard: what is shown of the agent must not pass for its state.
        if cost > before && bytes + self.history.departed_bytes(id) > rules.max_pool_bytes {
            return Err(Verdict::TooManyBytes);
        }
        if known.is_none() {
            self.departures.forget(id);
        }
        self.bytes = bytes;
        self.seq += 1;
        self.changes.heard(id.clone(), self.seq, known.map(|known| known.seq));
        let mut agent = Agent::heard(known, metrics, self.seq, stamp);
        let track = match &mut entry {
            Entry::Occupied(known) => known.get_mut().track.take(),
            Entry::Vacant(_) => self.history.remove_departed(id),
        };
        let (sample, late_after) = (Sample::from(&*agent.metrics), late_after(agent.interval));
        agent.track = Some(self.history.hear(track, sample, stamp.at, late_after));
        let kind = agent.update();
        entry.insert_entry(agent);
        Ok(Change { seq: self.seq, agent: id.clone(), kind })
    }

    pub(super) fn goodbye(&mut self, id: &AgentId, stamp: Stamp) -> GoodbyeOutcome {
        if self.agents.get(id).is_some_and(|agent| agent.stamp.number > stamp.number) {
            return GoodbyeOutcome::Returned;
        }
        let departed = self.depart(id, Reason::Goodbye, stamp.at, stamp.wall);
        departed.map_or(GoodbyeOutcome::Unknown, GoodbyeOutcome::Departed)
    }

    /// The server was away from `since` to `now`: nobody could be heard in that time.
    pub(super) fn note_stall(&mut self, since: Instant, now: Instant) {
        let stalled = now.saturating_duration_since(since);
        for agent in self.agents.values_mut() {
            // Who was heard since is not later than now for it.
            agent.heard = agent.heard.max(now.min(agent.heard + stalled));
        }
        let tracks = self.agents.values_mut().filter_map(|agent| agent.track.as_mut());
        self.history.note_stall(tracks, since, now);
    }

    /// Removes who was last heard more than `evict_after` before `now`, the longest silent first.
    pub(super) fn evict(&mut self, now: Instant, wall: UnixMillis, rules: &Rules) -> Vec<Change> {
        let age = |agent: &Agent| now.saturating_duration_since(agent.heard);
        let silent = self.agents.iter().filter(|(_, agent)| age(agent) > rules.evict_after);
        let mut silent: Vec<_> =
            silent.map(|(id, agent)| (agent.heard, id.clone(), agent.stamp.number)).collect();
        silent.sort_unstable();
        let depart = |(_, id, number)| {
            self.evicted_up_to = self.evicted_up_to.max(number);
            self.depart(&id, Reason::Timeout, now, wall)
        };
        silent.into_iter().filter_map(depart).collect()
    }

    fn depart(
        &mut self,
        id: &AgentId,
        reason: Reason,
        now: Instant,
        at: UnixMillis,
    ) -> Option<Change> {
        let (agent, Agent { metrics, seq: older, track, .. }) = self.agents.remove_entry(id)?;
        self.bytes -= metrics.cost_bytes();
        self.seq += 1;
        let departure = Arc::new(Departure {
            agent: agent.clone(),
            name: metrics.name.clone(),
            reason,
            at,
            tasks: metrics.tasks_text(),
            task_count: metrics.task_count,
        });
        self.changes.departed(Arc::clone(&departure), self.seq, older);
        if let Some(track) = track {
            self.history.depart(agent.clone(), track, now);
        }
        if let Some(forgotten) = self.departures.push(self.seq, Arc::clone(&departure)) {
            self.history.remove_departed(&forgotten.agent);
        }
        Some(Change { seq: self.seq, agent, kind: ChangeKind::Departed(departure) })
    }

    pub(crate) fn snapshot(&self, server_time: UnixMillis) -> Snapshot {
        let agents = self.agents.iter().map(|(id, agent)| SnapshotAgent {
            agent: id.clone(),
            metrics: Arc::clone(&agent.metrics),
            interval_ms: agent.interval_ms(),
        });
        Snapshot {
            agents: agents.collect(),
            departed: self.departures.list(),
            departures: self.departures.totals(),
            server_time,
            seq: self.seq,
            complete_since: self.changes.complete_since,
        }
    }

    /// The number since which all changes can be had.
    pub(crate) fn complete_since(&self) -> u64 {
        self.changes.complete_since
    }

    /// The number of the last change.
    pub(crate) fn seq(&self) -> u64 {
        self.seq
    }

    /// The newest change of each agent that changed after `seq`, the oldest first. None where some
    /// of them are forgotten.
    pub(crate) fn changes(&self, seq: u64) -> Option<impl Iterator<Item = Change>> {
        let changes = self.changes.after(seq)?;
        Some(changes.filter_map(|(&seq, (id, departure))| {
            let kind = match departure {
                None => self.agents.get(id)?.update(),
                Some(departure) => ChangeKind::Departed(Arc::clone(departure)),
            };
            Some(Change { seq, agent: id.clone(), kind })
        }))
    }

    /// The histories of `agents`, or, without any, of all that are here or among the departures.
    pub(crate) fn history(
        &self,
        agents: Vec<AgentId>,
        now: Instant,
        server_time: UnixMillis,
    ) -> HistoryView {
        let known = |id: &AgentId| {
            let present = self.agents.get(id).and_then(|agent| agent.track.as_ref());
            present.or_else(|| self.history.departed().get(id)).cloned()
        };
        let tracks = if agents.is_empty() {
            let present = self.agents.iter();
            let present = present.filter_map(|(id, agent)| Some((id, agent.track.as_ref()?)));
            let all = present.chain(self.history.departed());
            all.map(|(id, track)| (id.clone(), track.clone())).collect()
        } else {
            agents.into_iter().filter_map(|id| known(&id).map(|track| (id, track))).collect()
        };
        self.history.view(tracks, now, server_time)
    }

    /// How many agents there are, and what they and the histories of those that departed take in
    /// bytes.
    pub(crate) fn population(&self) -> (usize, usize) {
        (self.agents.len(), self.bytes + self.history.all_departed_bytes())
    }
}

impl Agent {
    /// The agent with its newest heartbeat, `known` being what it was before.
    fn heard(known: Option<&Self>, metrics: Metrics, seq: u64, stamp: Stamp) -> Self {
        let interval = known.map(|known| {
            let gap = stamp.at.saturating_duration_since(known.stamp.at);
            known.interval.map_or(gap, |interval| smooth(interval, gap))
        });
        let heard = known.map_or(stamp.at, |known| known.heard.max(stamp.at));
        Self { metrics: Arc::new(metrics), seq, stamp, heard, interval, track: None }
    }

    fn update(&self) -> ChangeKind {
        let metrics = Arc::clone(&self.metrics);
        ChangeKind::Update { metrics, interval_ms: self.interval_ms() }
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
