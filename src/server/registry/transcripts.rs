//! The registry as transcripts: each case says what it is for, then what happened at which
//! millisecond and what came out of it.

mod history;

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{ChangeKind, GoodbyeOutcome, Pool, Registry, Rules};
use crate::runtime::clock::{Clock, UnixMillis};
use crate::server::event::{Stamp, Verdict};
use crate::server::limits::{MAX_DEPARTURE_CHANGES, MAX_DEPARTURES};
use crate::wire::id::{AgentId, PoolId, PoolIndex};
use crate::wire::{HISTORY_BYTES, Metrics, Ping, Reason, read_ping};

pub(super) const POOL: PoolIndex = PoolIndex(0);
const OTHER: PoolIndex = PoolIndex(1);
const EVICT_AFTER: u64 = 10_000;
const TICK: u64 = 1_000;

/// In place of a sequence number: dashboards are told later.
pub(super) const DEFERRED: u64 = 0;

/// A registry and a hand that feeds it.
pub(super) struct Play {
    pub(super) registry: Registry,
    base: Instant,
    number: u64,
}

pub(super) fn play() -> Play {
    play_with(|_| {})
}

pub(super) fn play_with(change: impl FnOnce(&mut Rules)) -> Play {
    let mut rules = Rules {
        evict_after: Duration::from_millis(EVICT_AFTER),
        tick: Duration::from_millis(TICK),
        max_agents_per_pool: 100,
        max_pool_bytes: 1 << 20,
        max_updates_per_second: usize::MAX,
    };
    change(&mut rules);
    Play { registry: Registry::new(2, rules), base: Clock::start().now(), number: 0 }
}

pub(super) fn id(agent: &str) -> AgentId {
    AgentId::parse(agent).unwrap()
}

pub(super) fn metrics(agent: &str, cpu: f64, tasks: usize) -> Metrics {
    let task = json!({"task_id": 1, "task_type": "plan", "workspace_id": "w", "started_at": "s"});
    let body = json!({
        "status": "busy", "cpu_usage": cpu, "memory_usage": 50, "running_tasks": vec![task; tasks],
    });
    match read_ping(body.to_string().as_bytes(), &id(agent), UnixMillis(0)) {
        Ok(Ping::Metrics(metrics)) => metrics,
        other => panic!("{other:?}"),
    }
}

impl Play {
    pub(super) fn at(&self, ms: u64) -> Instant {
        self.base + Duration::from_millis(ms)
    }

    pub(super) fn pool(&self) -> &Pool {
        &self.registry.pools[POOL.0]
    }

    /// The next request's stamp.
    pub(super) fn stamp(&mut self, ms: u64) -> Stamp {
        self.number += 1;
        Stamp { number: self.number, at: self.at(ms), wall: UnixMillis(ms) }
    }

    pub(super) fn beat_stamped(
        &mut self,
        agent: &str,
        cpu: f64,
        stamp: Stamp,
    ) -> Result<u64, Verdict> {
        let metrics = metrics(agent, cpu, 0);
        let update = self.registry.heartbeat(POOL, &id(agent), metrics, stamp, stamp.at)?;
        Ok(update.map_or(DEFERRED, |update| update.seq))
    }

    pub(super) fn beat(&mut self, ms: u64, agent: &str) -> Result<u64, Verdict> {
        let stamp = self.stamp(ms);
        self.beat_stamped(agent, 1.0, stamp)
    }

    pub(super) fn goodbye(&mut self, ms: u64, agent: &str) -> GoodbyeOutcome {
        let stamp = self.stamp(ms);
        self.registry.goodbye(POOL, &id(agent), stamp)
    }

    /// Who was evicted by a tick at `ms`.
    pub(super) fn tick(&mut self, ms: u64) -> Vec<String> {
        let now = self.at(ms);
        let gone = self.registry.tick(now, UnixMillis(ms));
        let is_timeout = |kind: &ChangeKind| matches!(kind, ChangeKind::Departed(it) if it.reason == Reason::Timeout);
        assert!(gone.iter().all(|(pool, gone)| *pool == POOL && is_timeout(&gone.kind)));
        gone.into_iter().map(|(_, gone)| gone.agent.to_string()).collect()
    }

    /// Ticks on time from `from` to `to`, of which none evicts anyone.
    pub(super) fn quiet(&mut self, from: u64, to: u64) {
        for ms in (from..=to).step_by(usize::try_from(TICK).unwrap()) {
            assert_eq!(self.tick(ms), [""; 0], "at {ms}");
        }
    }

    fn look(&self, pool: PoolIndex) -> Value {
        let text = self.registry.pools[pool.0]
            .snapshot(UnixMillis(0))
            .text(&PoolId::parse("p").unwrap(), "e");
        serde_json::from_str(&text).unwrap()
    }

    fn departed(&self) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let departed = self.look(POOL)["departed"].as_array().unwrap().clone();
        departed.iter().map(|gone| (text(&gone["agent_id"]), text(&gone["reason"]))).collect()
    }
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

/// An agent is evicted when its last heartbeat is over `evict_after` old: not before, not at.
#[test]
fn eviction_comes_just_after_the_limit() {
    let mut play = play();
    play.beat(500, "a").unwrap();
    play.quiet(500, 9_500);
    assert_eq!(play.tick(10_499), [""; 0], "one before");
    assert_eq!(play.tick(10_500), [""; 0], "at the limit");
    assert_eq!(play.tick(10_501), ["a"], "one after");
    assert_eq!(play.tick(10_502), [""; 0], "only once");
    assert_eq!(play.departed(), pairs(&[("a", "timeout")]));
}

/// Workers finish in any order: a heartbeat that came before the one that an evicted agent was last
/// heard by does not bring the agent back, with an older state. One that is not so old does.
#[test]
fn an_eviction_is_not_undone_by_an_older_heartbeat() {
    let mut play = play();
    let older = play.stamp(500);
    play.beat(500, "a").unwrap();
    play.quiet(500, 10_500);
    let at_the_limit = play.stamp(1_500);
    assert_eq!(play.tick(11_500), ["a"]);
    assert_eq!(play.beat_stamped("a", 1.0, older), Err(Verdict::Stale));
    assert_eq!(play.beat_stamped("a", 1.0, at_the_limit), Ok(3));
}

/// A heartbeat, however late before the limit, starts the time anew; the longest silent goes first.
#[test]
fn a_heartbeat_in_between_starts_anew() {
    let mut play = play();
    play.beat(0, "late").unwrap();
    play.beat(1, "silent").unwrap();
    play.quiet(0, 9_000);
    play.beat(10_000, "late").unwrap();
    assert_eq!(play.tick(10_002), ["silent"]);
    play.quiet(11_000, 20_000);
    assert_eq!(play.tick(20_001), ["late"]);
}

/// A tick that is merely late evicts who is due, and extends no deadline.
#[test]
fn a_late_tick_evicts_who_is_due() {
    let mut play = play();
    play.beat(0, "a").unwrap();
    play.quiet(0, 9_000);
    assert_eq!(play.tick(10_900), ["a"]);
}

/// While the server was away nobody could be heard: deadlines move by the time that was lost.
#[test]
fn a_stall_of_the_server_moves_deadlines() {
    let mut play = play();
    play.beat(0, "a").unwrap();
    play.quiet(0, 5_000);
    // Stopped right after the tick at 5 s, until 65 s: "a", 5 s silent then, is 5 s silent now.
    assert_eq!(play.tick(65_000), [""; 0]);
    // Heard after the stall: not moved into the future.
    play.beat(65_500, "b").unwrap();
    play.quiet(66_000, 70_000);
    assert_eq!(play.tick(70_001), ["a"]);
    play.quiet(71_000, 75_000);
    assert_eq!(play.tick(75_501), ["b"]);
}

/// Who was heard in the midst of what looked like a stall counts as heard at its end, no later.
#[test]
fn no_deadline_moves_beyond_now() {
    let mut play = play();
    play.quiet(0, 1_000);
    play.beat(60_000, "a").unwrap();
    assert_eq!(play.tick(60_100), [""; 0]);
    play.quiet(61_100, 69_100);
    assert_eq!(play.tick(70_100), [""; 0]);
    assert_eq!(play.tick(70_101), ["a"]);
}

/// Workers finish in any order: of one agent the newest stamp wins, and each change counts once.
#[test]
fn a_stale_heartbeat_changes_nothing() {
    let mut play = play();
    let (first, second) = (play.stamp(0), play.stamp(1));
    assert_eq!(play.beat_stamped("a", 2.0, second), Ok(1));
    assert_eq!(play.beat_stamped("a", 1.0, first), Err(Verdict::Stale));
    let look = play.look(POOL);
    assert_eq!((&look["metrics"][0]["cpu_usage"], &look["seq"]), (&json!(2.0), &json!(1)));
}

/// A heartbeat stamped before a goodbye never brings the agent back, one stamped after does.
#[test]
fn a_goodbye_holds_against_what_was_sent_before_it() {
    let mut play = play();
    play.beat(0, "a").unwrap();
    let before = play.stamp(1);
    assert!(matches!(play.goodbye(2, "a"), GoodbyeOutcome::Departed(gone) if gone.seq == 2));
    assert_eq!(play.beat_stamped("a", 9.0, before), Err(Verdict::Stale));
    assert_eq!(play.departed(), pairs(&[("a", "goodbye")]));
    assert_eq!(play.beat(3, "a"), Ok(3));
    assert_eq!(play.departed(), [], "who returned has not departed");
}

/// The same when the goodbye is all that the registry has ever heard of the agent.
#[test]
fn a_goodbye_of_an_unknown_agent_is_remembered() {
    let mut play = play();
    let before = play.stamp(0);
    assert_eq!(play.goodbye(1, "a"), GoodbyeOutcome::Unknown);
    assert_eq!(play.beat_stamped("a", 1.0, before), Err(Verdict::Stale));
    assert_eq!(play.goodbye(2, "a"), GoodbyeOutcome::Unknown, "twice is as good as once");
    assert_eq!(play.beat(3, "a"), Ok(1));
}

/// A goodbye that is older than a newer heartbeat leaves the agent where it is.
#[test]
fn a_late_goodbye_does_not_remove_who_returned() {
    let mut play = play();
    let goodbye = play.stamp(0);
    play.beat(1, "a").unwrap();
    assert_eq!(play.registry.goodbye(POOL, &id("a"), goodbye), GoodbyeOutcome::Returned);
    assert_eq!(play.look(POOL)["metrics"].as_array().unwrap().len(), 1);
}

/// An evicted agent that is heard of again is back, whatever it was taken for.
#[test]
fn an_evicted_agent_returns() {
    let mut play = play();
    play.beat(0, "a").unwrap();
    play.quiet(0, 10_000);
    assert_eq!(play.tick(10_001), ["a"]);
    assert_eq!(play.beat(10_002, "a"), Ok(3));
    assert_eq!(play.departed(), []);
    assert_eq!(play.look(POOL)["metrics"][0]["interval_ms"], Value::Null, "its rhythm starts anew");
}

/// Equal ids in two pools are two agents.
#[test]
fn pools_do_not_see_one_another() {
    let mut play = play();
    play.beat(0, "a").unwrap();
    let stamp = play.stamp(1);
    play.registry.heartbeat(OTHER, &id("a"), metrics("a", 99.0, 0), stamp, stamp.at).unwrap();
    assert_eq!(play.look(POOL)["metrics"][0]["cpu_usage"], 1.0);
    assert_eq!(play.look(OTHER)["metrics"][0]["cpu_usage"], 99.0);
    play.goodbye(2, "a");
    assert_eq!(play.look(OTHER)["metrics"].as_array().unwrap().len(), 1);
    assert_eq!(play.look(OTHER)["departed"], json!([]));
}

/// A pool remembers its last departures, the newest first, each agent once.
#[test]
fn departures_are_bounded() {
    let mut play = play();
    for n in 0..MAX_DEPARTURES + 5 {
        let agent = format!("a{n}");
        play.beat(0, &agent).unwrap();
        play.goodbye(0, &agent);
    }
    play.beat(0, "a10").unwrap();
    play.goodbye(0, "a10");
    let departed = play.departed();
    assert_eq!(departed.len(), MAX_DEPARTURES);
    assert_eq!(departed[0].0, "a10");
    assert_eq!(departed.iter().filter(|(agent, _)| agent == "a10").count(), 1);
    assert_eq!(departed[MAX_DEPARTURES - 1].0, "a5");
    let totals = json!({ "lost": 0, "goodbyes": MAX_DEPARTURES + 6 });
    assert_eq!(play.look(POOL)["departures"], totals, "since the start");
}

/// Plain goodbyes push no loss out, nor losses a goodbye: a timeout is a loss, and so is a goodbye
/// with running tasks. They stand in one list, the newest first.
#[test]
fn losses_and_goodbyes_are_bounded_apart() {
    let mut play = play();
    let working = |play: &mut Play, agent: &str| {
        let stamp = play.stamp(0);
        play.registry.heartbeat(POOL, &id(agent), metrics(agent, 1.0, 1), stamp, stamp.at).unwrap();
    };
    play.beat(0, "silent").unwrap();
    assert_eq!(play.tick(10_001), ["silent"]);
    working(&mut play, "broken-off");
    play.goodbye(10_002, "broken-off");
    for n in 0..=MAX_DEPARTURES {
        let agent = format!("runner-{n}");
        play.beat(10_003, &agent).unwrap();
        play.goodbye(10_003, &agent);
    }
    let departed = play.departed();
    assert_eq!(departed.len(), MAX_DEPARTURES + 2);
    assert_eq!(departed[0].0, format!("runner-{MAX_DEPARTURES}"));
    let last_three = [("runner-1", "goodbye"), ("broken-off", "goodbye"), ("silent", "timeout")];
    assert_eq!(departed[MAX_DEPARTURES - 1..], pairs(&last_three));
    assert_eq!(play.look(POOL)["departures"], json!({"lost": 2, "goodbyes": MAX_DEPARTURES + 1}));

    for n in 0..MAX_DEPARTURES - 1 {
        let agent = format!("lost-{n}");
        working(&mut play, &agent);
        play.goodbye(10_004, &agent);
    }
    let departed = play.departed();
    assert_eq!(departed.len(), 2 * MAX_DEPARTURES);
    assert_eq!(departed.last().unwrap().0, "broken-off", "\"silent\" was one too many");
    assert_eq!(departed[MAX_DEPARTURES - 2].0, "lost-0");
    assert_eq!(departed[MAX_DEPARTURES - 1].0, format!("runner-{MAX_DEPARTURES}"));
    // Who comes back has departed in neither way; the totals stay.
    play.beat(10_005, "broken-off").unwrap();
    play.beat(10_005, "runner-1").unwrap();
    assert_eq!(play.departed().len(), 2 * MAX_DEPARTURES - 2);
    let totals = json!({ "lost": MAX_DEPARTURES + 1, "goodbyes": MAX_DEPARTURES + 1 });
    assert_eq!(play.look(POOL)["departures"], totals);
}

/// A departure keeps what the agent was running when last heard from.
#[test]
fn a_departure_says_what_was_running() {
    let mut play = play();
    let stamp = play.stamp(0);
    play.registry.heartbeat(POOL, &id("a"), metrics("a", 1.0, 2), stamp, stamp.at).unwrap();
    play.goodbye(77, "a");
    let departed = &play.look(POOL)["departed"][0];
    assert_eq!(departed["running_tasks"].as_array().unwrap().len(), 2);
    assert_eq!(departed["at"], "1970-01-01T00:00:00.077Z");
}

/// A full pool refuses who is new and hears who is known; a departure makes room.
#[test]
fn a_full_pool_keeps_whom_it_knows() {
    let mut play = play_with(|rules| rules.max_agents_per_pool = 2);
    play.beat(0, "a").unwrap();
    play.beat(0, "b").unwrap();
    assert_eq!(play.beat(1, "c"), Err(Verdict::TooManyAgents));
    assert_eq!(play.beat(2, "a"), Ok(3));
    play.goodbye(3, "b");
    assert_eq!(play.beat(4, "c"), Ok(5));
}

/// A pool's bytes are bounded: nobody may grow beyond, but who says no more than before stays. A
/// heartbeat that is refused is not heard: a state that is not the agent's must not stay.
#[test]
fn a_pools_bytes_are_bounded() {
    let small = metrics("a", 1.0, 0).cost_bytes();
    let mut play = play_with(|rules| rules.max_pool_bytes = 2 * small);
    play.beat(0, "a").unwrap();
    play.beat(0, "b").unwrap();
    assert_eq!(play.pool().population(), (2, 2 * small));
    assert_eq!(play.beat(1, "c"), Err(Verdict::TooManyBytes));
    let stamp = play.stamp(9_000);
    let bigger = play.registry.heartbeat(POOL, &id("a"), metrics("a", 1.0, 1), stamp, stamp.at);
    assert_eq!(bigger, Err(Verdict::TooManyBytes));
    assert_eq!(play.beat(9_000, "b"), Ok(3));
    assert_eq!(play.look(POOL)["metrics"][0]["interval_ms"], Value::Null, "nor for its rhythm");
    play.quiet(0, 10_000);
    assert_eq!(play.tick(10_001), ["a"], "it was heard at 0 s, not at 9 s");
    play.quiet(10_002, 19_000);
    assert_eq!(play.tick(19_001), ["b"]);
    assert_eq!(play.pool().population(), (0, 2 * HISTORY_BYTES), "of those that departed");
}

/// What changed after a sequence number is each agent's newest change, once, in order, as far back
/// as departures are remembered.
#[test]
fn changes_lead_from_any_state_to_the_present() {
    let mut play = play();
    let changes = |play: &Play, since| -> Vec<(String, u64)> {
        let changes = play.pool().changes(since).unwrap();
        let text = |agent: AgentId, kind| match kind {
            ChangeKind::Update { metrics, .. } => format!("cpu {}", metrics.cpu),
            ChangeKind::Departed(_) => format!("{agent} left"),
        };
        changes.map(|change| (text(change.agent, change.kind), change.seq)).collect()
    };
    let told = |pairs: &[(&str, u64)]| -> Vec<(String, u64)> {
        pairs.iter().map(|(text, seq)| ((*text).to_owned(), *seq)).collect()
    };
    for (agent, cpu) in [("a", 1.0), ("b", 2.0), ("a", 3.0)] {
        let stamp = play.stamp(0);
        play.beat_stamped(agent, cpu, stamp).unwrap();
    }
    assert_eq!(changes(&play, 0), told(&[("cpu 2", 2), ("cpu 3", 3)]));
    assert_eq!(changes(&play, 2), told(&[("cpu 3", 3)]));
    play.goodbye(1, "b");
    assert_eq!(changes(&play, 0), told(&[("cpu 3", 3), ("b left", 4)]));
    play.beat(2, "b").unwrap();
    assert_eq!(changes(&play, 3), told(&[("cpu 1", 5)]), "left and came back");
    assert_eq!(changes(&play, 5), []);
    assert!(play.pool().changes(0).is_some());
    for _ in 0..2 * MAX_DEPARTURE_CHANGES {
        play.goodbye(3, "b");
        play.beat(3, "b").unwrap();
    }
    assert!(play.pool().changes(0).is_some(), "an agent that comes and goes counts once");
    let first = play.beat(4, "c").unwrap() + 1;
    play.goodbye(4, "c");
    for number in 0..MAX_DEPARTURE_CHANGES {
        assert!(play.pool().changes(0).is_some());
        let agent = format!("gone-{number}");
        play.beat(5, &agent).unwrap();
        play.goodbye(5, &agent);
    }
    assert!(play.pool().changes(first - 1).is_none(), "the first departure is forgotten");
    assert!(play.pool().changes(first).is_some());
    assert_eq!(changes(&play, first).len(), MAX_DEPARTURE_CHANGES);
}

/// The rhythm is unknown after one heartbeat, the gap after two, and steady afterwards.
#[test]
fn the_rhythm_is_observed() {
    assert_eq!(rhythm(&[0]), Value::Null);
    assert_eq!(rhythm(&[0, 1_000]), 1_000);
    assert_eq!(rhythm(&[0, 1_000, 2_000]), 1_000);
    assert_eq!(rhythm(&[0, 0]), 0);
    assert_eq!(rhythm(&[0, 0, 0]), 0);
}

/// Heartbeats in between don't pass for the rhythm: an agent of 30 s whose tasks came and went
/// for half a minute is not late when it is silent for 30 s again (the page allows for 2.5 of its
/// intervals). A rhythm that became longer is believed at once.
#[test]
fn a_burst_is_no_rhythm_and_a_longer_one_is() {
    let steady = [0, 30_000, 60_000, 90_000];
    let burst = (91..=120).map(|second| second * 1_000);
    let after: Vec<u64> = steady.into_iter().chain(burst).collect();
    let known = rhythm(&after).as_u64().unwrap();
    assert!((15_000..30_000).contains(&known), "{known}");
    let longer: Vec<u64> = (0..=60).chain([90, 120]).map(|second| second * 1_000).collect();
    let known = rhythm(&longer).as_u64().unwrap();
    assert!((20_000..=30_000).contains(&known), "{known}");
}

/// `interval_ms` after heartbeats at these times, in milliseconds.
fn rhythm(beats: &[u64]) -> Value {
    let mut play = play();
    for &ms in beats {
        play.beat(ms, "a").unwrap();
    }
    play.look(POOL)["metrics"][0]["interval_ms"].take()
}

impl Registry {
    /// With fewer departures for who is behind than the constant gives.
    pub(crate) fn limit_departures(&mut self, max: usize) {
        self.pools.iter_mut().for_each(|pool| pool.changes.max_departed = max);
    }
}
