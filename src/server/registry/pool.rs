//! One pool: its agents, its departures, its count of changes. Pure, like the registry.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::changes::Changes;
use super::deferred::{Announced, Deferral};
use super::departures::Departures;
use super::history::{History, HistoryView, Track};
use super::late::late_after;
use super::{Change, ChangeKind, GoodbyeOutcome, Heard, Rules};
use crate::runtime::clock::UnixMillis;
use crate::server::event::{Stamp, Verdict};
use crate::wire::history::Sample;
use crate::wire::id::AgentId;
use crate::wire::{Departure, Metrics, Reason, Snapshot, SnapshotAgent};

#[derive(Debug, Default)]
pub(crate) struct Pool {
    pub(super) agents: HashMap<AgentId, Agent>,
    /// The sum of the agents' [`Metrics::cost_bytes`], of those that dashboards have where they are not
    /// the newest, too.
    bytes: usize,
    /// Rises by one with each change that dashboards see.
    seq: u64,
    /// Heartbeats that were deferred.
    deferred: u64,
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
    /// The newest.
    pub(super) metrics: Arc<Metrics>,
    /// What dashboards have instead of that, for now.
    deferral: Option<Deferral>,
    announced: Announced,
    /// The pool's sequence number with the state that dashboards have.
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
    /// Dashboards are told at `now`. `has_left` tells of an agent that is not known whether it left after this heartbeat.
    pub(super) fn heartbeat(
        &mut self,
        id: &AgentId,
        metrics: Metrics,
        stamp: Stamp,
        now: Instant,
        has_left: impl FnOnce() -> bool,
        rules: &Rules,
    ) -> Result<Heard, Verdict> {
        let agents = self.agents.len();
        let mut entry = self.agents.entry(id.clone());
        let mut known = match &mut entry {
            Entry::Occupied(known) => Some(known.get_mut()),
            Entry::Vacant(_) => None,
        };
        let may_have_left = || stamp.number < self.evicted_up_to || has_left();
        let is_older = |known: &Agent| stamp.number < known.stamp.number;
        if known.as_deref().map_or_else(may_have_left, is_older) {
            return Err(Verdict::Stale);
        }
        if known.is_none() && agents >= rules.max_agents_per_pool {
            return Err(Verdict::TooManyAgents);
        }
        let before = known.as_deref().map_or(0, Agent::cost_bytes);
        let others = self.bytes - before;
        let departed = self.history.departed_bytes(id);
        let fits = |cost| cost <= before || others + cost + departed <= rules.max_pool_bytes;
        let (mut cost, mut wait_until) = (metrics.cost_bytes(), None);
        // Refused is not heard: what is shown of the agent must not pass for its state.
        if !fits(cost) {
            return Err(Verdict::TooManyBytes);
        }
        if let Some(known) = &mut known {
            let both = cost + known.shown().cost_bytes();
            // Where there is no room for two states, the newest is announced at once.
            wait_until = known.announced.wait_until(now, rules.max_updates_per_second);
            wait_until = wait_until.filter(|_| fits(both));
            cost = wait_until.map_or(cost, |_| both);
        }
        if known.is_none() {
            self.departures.forget(id);
        }
        self.bytes = others + cost;
        let (agent, older, track) = match entry {
            Entry::Occupied(known) => {
                let agent = known.into_mut();
                agent.hear(metrics, stamp, wait_until);
                let (older, track) = (agent.seq, agent.track.take());
                (agent, Some(older), track)
            }
            Entry::Vacant(vacant) => {
                let agent = vacant.insert(Agent::new(metrics, stamp));
                (agent, None, self.history.remove_departed(id))
            }
        };
        let (sample, late_after) = (Sample::from(&*agent.metrics), late_after(agent.interval));
        agent.track = Some(self.history.hear(track, sample, stamp.at, late_after));
        if let Some(due) = wait_until {
            self.deferred += 1;
            return Ok(Heard::Deferred(due));
        }
        self.seq += 1;
        self.changes.heard(id.clone(), self.seq, older);
        Ok(Heard::Announced(agent.announce(id.clone(), self.seq, now)))
    }

    /// The newest state of an agent that was deferred until `due`, if it still is.
    pub(super) fn announce(&mut self, id: AgentId, due: Instant, now: Instant) -> Option<Change> {
        let agent = self.agents.get_mut(&id)?;
        let deferral = agent.deferral.take_if(|deferral| deferral.due == due)?;
        self.bytes -= deferral.shown.cost_bytes();
        self.seq += 1;
        self.changes.heard(id.clone(), self.seq, Some(agent.seq));
        Some(agent.announce(id, self.seq, now))
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
        let (agent, known) = self.agents.remove_entry(id)?;
        self.bytes -= known.cost_bytes();
        let Agent { metrics, seq: older, track, .. } = known;
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

    /// For dashboards: what those have that have all.
    pub(crate) fn snapshot(&self, server_time: UnixMillis) -> Snapshot {
        self.snapshot_of(server_time, Agent::shown)
    }

    /// For other readers: the newest states.
    pub(crate) fn newest_snapshot(&self, server_time: UnixMillis) -> Snapshot {
        self.snapshot_of(server_time, |agent| &agent.metrics)
    }

    fn snapshot_of(
        &self,
        server_time: UnixMillis,
        metrics: impl Fn(&Agent) -> &Arc<Metrics>,
    ) -> Snapshot {
        let agents = self.agents.iter().map(|(id, agent)| SnapshotAgent {
            agent: id.clone(),
            metrics: Arc::clone(metrics(agent)),
            interval_ms: agent.interval_ms(),
        });
        Snapshot {
            agents: agents.collect(),
            departed: self.departures.list(),
            departures: self.departures.totals(),
            server_time,
            seq: self.seq,
            version: self.seq + self.deferred,
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
    /// An agent with its first heartbeat, which has yet to be announced.
    fn new(metrics: Metrics, stamp: Stamp) -> Self {
        Self {
            metrics: Arc::new(metrics),
            deferral: None,
            announced: Announced::default(),
            seq: 0,
            stamp,
            heard: stamp.at,
            interval: None,
            track: None,
        }
    }

    /// Takes a newer heartbeat, of which dashboards are told at `wait_until`, or now.
    fn hear(&mut self, metrics: Metrics, stamp: Stamp, wait_until: Option<Instant>) {
        let gap = stamp.at.saturating_duration_since(self.stamp.at);
        self.interval = Some(self.interval.map_or(gap, |interval| smooth(interval, gap)));
        self.heard = self.heard.max(stamp.at);
        self.stamp = stamp;
        let shown = Arc::clone(self.shown());
        self.deferral = wait_until.map(|due| Deferral { shown, due });
        self.metrics = Arc::new(metrics);
    }

    /// Dashboards are told of the newest state, as the pool's change `seq`.
    fn announce(&mut self, agent: AgentId, seq: u64, now: Instant) -> Change {
        self.announced.note(now);
        self.seq = seq;
        Change { seq, agent, kind: self.update() }
    }

    /// The state that dashboards have.
    fn shown(&self) -> &Arc<Metrics> {
        self.deferral.as_ref().map_or(&self.metrics, |deferral| &deferral.shown)
    }

    /// Of all that is kept of it.
    fn cost_bytes(&self) -> usize {
        let shown = self.deferral.as_ref().map_or(0, |deferral| deferral.shown.cost_bytes());
        self.metrics.cost_bytes() + shown
    }

    fn update(&self) -> ChangeKind {
        let metrics = Arc::clone(self.shown());
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
