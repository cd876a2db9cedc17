//! What is true: one pool as PROTOCOL.md has it, by the stamps that the simulation gave out. Shares
//! no code with the registry, which is under test.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::{Reached, Scene, agent_id};
use crate::server::event::Stamp;
use crate::server::feed::FeedId;

/// Which of its agent's heartbeats a state is, counted from 0.
pub(super) type Beat = u32;

/// What dashboards hear of an agent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Change {
    pub(super) agent: usize,
    /// None when it departs.
    pub(super) state: Option<Beat>,
    /// Of the heartbeat or goodbye; of the last heartbeat where the agent was silent for too long.
    pub(super) stamp: u64,
}

#[derive(Debug)]
pub(super) struct Pool {
    /// By sequence number, from 1.
    changes: Vec<Change>,
    agents: BTreeMap<usize, Agent>,
    /// The departures that must be remembered.
    departures: BTreeSet<u64>,
    max_departures: usize,
    complete_since: u64,
    evict_after: Duration,
    /// Of one agent, in any second.
    max_updates: usize,
    /// The newest stamp of an evicted agent.
    evicted_up_to: u64,
    /// When the batches of each feed were made, by the number of their newest change.
    batches: BTreeMap<FeedId, BTreeMap<u64, Instant>>,
}

#[derive(Debug, Default)]
struct Agent {
    /// By [`Beat`].
    stamps: Vec<u64>,
    /// The newest stamp of a heartbeat or goodbye that counted.
    newest: u64,
    /// When it was last heard, moved by the server's own absences; None when it is not there.
    heard: Option<Instant>,
    /// Sequence numbers.
    changes: Vec<u64>,
    /// When dashboards were told of it, since it came.
    told: Vec<Instant>,
    /// The heartbeat that they are yet to be told of.
    deferred: Option<Deferred>,
}

#[derive(Debug, Clone, Copy)]
struct Deferred {
    due: Instant,
    beat: Beat,
    stamp: u64,
}

impl Pool {
    pub(super) fn new(scene: Scene) -> Self {
        let Scene { evict_after, max_departures, max_updates, .. } = scene;
        Self {
            changes: Vec::new(),
            agents: BTreeMap::new(),
            departures: BTreeSet::new(),
            max_departures,
            complete_since: 0,
            evict_after,
            max_updates,
            evicted_up_to: 0,
            batches: BTreeMap::new(),
        }
    }

    /// The agent sends its next heartbeat.
    pub(super) fn issue(&mut self, agent: usize, stamp: Stamp) -> Beat {
        let stamps = &mut self.agents.entry(agent).or_default().stamps;
        stamps.push(stamp.number);
        Beat::try_from(stamps.len() - 1).unwrap()
    }

    pub(super) fn stamp(&self, agent: usize, beat: Beat) -> u64 {
        self.agents[&agent].stamps[usize::try_from(beat).unwrap()]
    }

    pub(super) fn is_known(&self, agent: usize) -> bool {
        self.agents.get(&agent).is_some_and(|agent| agent.heard.is_some())
    }

    /// Whether a newer heartbeat or goodbye of the agent was there before.
    pub(super) fn is_stale(&self, agent: usize, stamp: Stamp) -> bool {
        self.agents.get(&agent).is_some_and(|agent| stamp.number < agent.newest)
    }

    /// Whether an agent has been evicted that was heard after this: it may have been this one.
    pub(super) fn is_late(&self, stamp: Stamp) -> bool {
        stamp.number < self.evicted_up_to
    }

    pub(super) fn heartbeat(
        &mut self,
        agent: usize,
        beat: Beat,
        stamp: Stamp,
        now: Instant,
        reached: &mut Reached,
    ) {
        if self.is_stale(agent, stamp) || (self.is_late(stamp) && !self.is_known(agent)) {
            return;
        }
        let known = self.agents.entry(agent).or_default();
        known.heard = Some(known.heard.map_or(stamp.at, |heard| heard.max(stamp.at)));
        let limiting = known.told.iter().rev().nth(self.max_updates - 1);
        if let Some(due) = limiting.map(|at| *at + Duration::from_secs(1))
            && now < due
        {
            let replaced =
                known.deferred.replace(Deferred { due, beat, stamp: stamp.number }).is_some();
            known.newest = stamp.number;
            reached.add_because("deferred", if replaced { "again" } else { "newly" });
            return;
        }
        known.deferred = None;
        known.told.push(now);
        if let Some(last) = known.changes.last() {
            self.departures.remove(last);
        }
        self.change(Change { agent, state: Some(beat), stamp: stamp.number });
    }

    /// Dashboards are told of what was deferred until `now`.
    pub(super) fn announce_due(&mut self, now: Instant, reached: &mut Reached) {
        self.announce(now, |due| due <= now);
        let is_late = |agent: &Agent| agent.deferred.is_some_and(|it| it.due <= now);
        assert!(!self.agents.values().any(is_late));
        let waiting = self.agents.values().filter(|agent| agent.deferred.is_some());
        reached.add_many("deferred at a look", waiting.count());
    }

    /// Somebody joins, who is to have all that was heard before.
    pub(super) fn announce_all(&mut self, now: Instant) {
        self.announce(now, |_| true);
    }

    fn announce(&mut self, now: Instant, is_due: impl Fn(Instant) -> bool) {
        let deferred = self.agents.iter().filter_map(|(agent, known)| {
            known.deferred.filter(|it| is_due(it.due)).map(|it| (it.due, agent_id(*agent), *agent))
        });
        let mut deferred: Vec<_> = deferred.collect();
        deferred.sort_unstable();
        for (_, _, agent) in deferred {
            let known = self.agents.get_mut(&agent).unwrap();
            known.told.push(now);
            let Deferred { beat, stamp, .. } = known.deferred.take().unwrap();
            self.change(Change { agent, state: Some(beat), stamp });
        }
    }

    /// Whether dashboards that have all show the newest heartbeat of each agent that is there.
    pub(super) fn is_all_told(&self) -> bool {
        self.agents.values().all(|agent| {
            let told = agent.changes.last().map(|last| self.at(*last).stamp);
            agent.heard.is_none() || told == Some(agent.newest)
        })
    }

    pub(super) fn goodbye(&mut self, agent: usize, stamp: Stamp) {
        if self.is_known(agent) && !self.is_stale(agent, stamp) {
            self.depart(agent, stamp.number);
        }
        let known = self.agents.entry(agent).or_default();
        known.newest = known.newest.max(stamp.number);
    }

    /// Evicts who was silent for longer than `evict_after`, not counting the time that the server
    /// was `away`. Returns how many.
    pub(super) fn tick(&mut self, now: Instant, away: Duration) -> usize {
        for heard in self.agents.values_mut().filter_map(|agent| agent.heard.as_mut()) {
            *heard = (*heard).max(now.min(*heard + away));
        }
        let mut silent: Vec<_> = self
            .agents
            .iter()
            .filter_map(|(agent, known)| Some((known.heard?, agent_id(*agent), *agent)))
            .filter(|(heard, ..)| now.saturating_duration_since(*heard) > self.evict_after)
            .collect();
        silent.sort_unstable();
        for (_, _, agent) in &silent {
            self.evicted_up_to = self.evicted_up_to.max(self.agents[agent].newest);
            self.depart(*agent, self.agents[agent].newest);
        }
        silent.len()
    }

    fn depart(&mut self, agent: usize, stamp: u64) {
        self.change(Change { agent, state: None, stamp });
        let known = self.agents.entry(agent).or_default();
        (known.heard, known.deferred) = (None, None);
        known.told.clear();
        self.departures.insert(self.seq());
        if self.departures.len() > self.max_departures {
            self.complete_since = self.departures.pop_first().unwrap();
        }
    }

    fn change(&mut self, change: Change) {
        self.changes.push(change);
        let seq = self.seq();
        let known = self.agents.entry(change.agent).or_default();
        known.newest = change.stamp;
        known.changes.push(seq);
    }

    /// The number of the last change.
    pub(super) fn seq(&self) -> u64 {
        self.changes.len() as u64
    }

    /// The change with this number.
    pub(super) fn at(&self, seq: u64) -> Change {
        let change = self.changes.get(usize::try_from(seq).unwrap() - 1);
        *change.unwrap_or_else(|| panic!("change {seq} of {} changes", self.changes.len()))
    }

    /// Whether departures after `seq` need no longer be remembered.
    pub(super) fn is_forgotten(&self, seq: u64) -> bool {
        seq < self.complete_since
    }

    /// Each agent's last change up to `seq`.
    pub(super) fn as_of(&self, seq: u64) -> impl Iterator<Item = Change> {
        self.agents.keys().filter_map(move |agent| Some(self.at(self.newest(*agent, seq)?)))
    }

    /// The number of the agent's last change up to `seq`.
    pub(super) fn newest(&self, agent: usize, seq: u64) -> Option<u64> {
        let changes = &self.agents.get(&agent)?.changes;
        let count = changes.partition_point(|number| *number <= seq);
        changes.get(count.checked_sub(1)?).copied()
    }

    /// How many agents changed after `since`, up to `seq`.
    pub(super) fn count_changed(&self, since: u64, seq: u64) -> usize {
        let newest = self.agents.keys().filter_map(|agent| self.newest(*agent, seq));
        newest.filter(|newest| *newest > since).count()
    }

    /// The feed's dashboards have been made all changes up to `seq`.
    pub(super) fn note_made(&mut self, feed: FeedId, seq: u64, now: Instant) {
        self.batches.entry(feed).or_default().entry(seq).or_insert(now);
    }

    /// When the batch with this newest change was made, if there is one.
    pub(super) fn made_at(&self, feed: FeedId, seq: u64) -> Option<Instant> {
        self.batches.get(&feed)?.get(&seq).copied()
    }

    /// The last change that the feed's dashboards can have.
    pub(super) fn last_made(&self, feed: FeedId) -> u64 {
        let made = || self.batches.get(&feed)?.last_key_value().map(|(seq, _)| *seq);
        if matches!(feed, FeedId::Updates(_)) { self.seq() } else { made().unwrap_or_default() }
    }

    /// The last change of each agent that has not changed after `seq`.
    pub(super) fn unchanged_since(&self, seq: u64) -> impl Iterator<Item = Change> {
        let last = self.agents.values().filter_map(|agent| agent.changes.last());
        last.filter(move |last| **last <= seq).map(|last| self.at(*last))
    }
}
