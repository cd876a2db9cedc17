//! The histories of a pool's agents.

use super::*;
use crate::wire::history::STEPS;

/// Nobody is evicted.
fn play() -> Play {
    play_with(|rules| rules.evict_after = Duration::from_secs(24 * 3_600))
}

impl Play {
    fn beat_of(&mut self, ms: u64, agent: &str, cpu: f64) {
        let stamp = self.stamp(ms);
        self.beat_stamped(agent, cpu, stamp).unwrap();
    }

    fn history_of(&self, ms: u64, agents: &[&str]) -> Value {
        let agents = agents.iter().map(|agent| id(agent)).collect();
        let view = self.pool().history(agents, self.at(ms), UnixMillis(ms));
        serde_json::from_slice(&view.text(&PoolId::parse("p").unwrap(), "e")).unwrap()
    }

    fn known_at(&self, ms: u64) -> Vec<String> {
        self.history_of(ms, &[])["agents"].as_object().unwrap().keys().cloned().collect()
    }

    /// The CPU figures of the agent in its last `count` steps; -1 where nothing is known, as in all
    /// steps before them.
    fn steps<const COUNT: usize>(&self, ms: u64, agent: &str) -> [f64; COUNT] {
        let history = self.history_of(ms, &[agent]);
        let figures = |member: &str| -> Vec<f64> {
            let figures = history["agents"][agent][member].as_array().unwrap();
            figures.iter().map(|figure| figure.as_f64().unwrap_or(-1.0)).collect()
        };
        let (cpu, memory) = (figures("cpu"), figures("memory"));
        assert_eq!((cpu.len(), memory.len()), (STEPS, STEPS));
        let memory_of = |cpu: &f64| if *cpu < 0.0 { -1.0 } else { 50.0 };
        assert_eq!(memory, cpu.iter().map(memory_of).collect::<Vec<_>>());
        let (before, last) = cpu.split_at(STEPS - COUNT);
        assert!(before.iter().all(|figure| *figure < 0.0), "{before:?} before {last:?}");
        last.try_into().unwrap()
    }
}

/// A step of 10 s has its last heartbeat; the last step is the one that has begun.
#[test]
fn a_step_has_its_last_heartbeat() {
    let mut play = play();
    play.beat_of(1_000, "a", 1.0);
    assert_eq!(play.steps(1_000, "a"), [1.0]);
    assert_eq!(play.history_of(1_000, &[])["end"], "1970-01-01T00:00:11.000Z");
    play.beat_of(10_999, "a", 2.04);
    assert_eq!(play.steps(10_999, "a"), [2.0], "one before the end, in tenths");
    assert_eq!(play.history_of(10_999, &[])["end"], "1970-01-01T00:00:11.000Z");
    play.beat_of(11_000, "a", 3.06);
    assert_eq!(play.steps(11_000, "a"), [2.0, 3.1]);
    assert_eq!(play.history_of(11_000, &[])["end"], "1970-01-01T00:00:21.000Z");
    let refused = Stamp { number: 0, ..play.stamp(12_000) };
    assert_eq!(play.beat_stamped("a", 9.0, refused), Err(Verdict::Stale));
    assert_eq!(play.steps(11_000, "a"), [2.0, 3.1]);
}

/// A step that begins while the agent isn't late repeats the one before, one that begins later
/// does not.
#[test]
fn a_step_is_repeated_until_the_agent_is_late() {
    let mut play = play();
    // Late when silent for longer than 2.5 × 8 s + 2 s: after 30 s, when a step begins.
    play.beat_of(0, "at-the-limit", 1.0);
    play.beat_of(8_000, "at-the-limit", 2.0);
    assert_eq!(play.steps(49_999, "at-the-limit"), [2.0, 2.0, 2.0, 2.0, -1.0]);
    // After 29,996.5 ms.
    play.beat_of(0, "before", 1.0);
    play.beat_of(7_999, "before", 2.0);
    assert_eq!(play.steps(49_999, "before"), [2.0, 2.0, 2.0, -1.0, -1.0]);
    // Heard again: what was not known stays so.
    play.beat_of(50_000, "before", 3.0);
    assert_eq!(play.steps(50_000, "before"), [2.0, 2.0, 2.0, -1.0, -1.0, 3.0]);
    // The rhythm is not known: after 152 s.
    play.beat_of(50_000, "new", 4.0);
    let mut expected = [4.0; 17];
    expected[16] = -1.0;
    assert_eq!(play.steps(219_999, "new"), expected);
}

/// 90 steps are kept, the oldest first.
#[test]
fn the_oldest_step_makes_room() {
    let mut play = play();
    for step in 0..=99_u32 {
        play.beat_of(u64::from(step) * 10_000, "a", f64::from(step));
    }
    let expected: [f64; STEPS] = std::array::from_fn(|n| n as f64 + 10.0);
    assert_eq!(play.steps(999_999, "a"), expected);
    let mut later = [-1.0; STEPS];
    later[..88].copy_from_slice(&expected[2..]);
    later[88] = 99.0;
    later[89] = 99.0;
    assert_eq!(play.steps(1_019_999, "a"), later);
}

/// A slow rhythm is repeated over the whole window, also from before it.
#[test]
fn a_slow_rhythm_is_repeated_from_before_the_window() {
    let mut play = play();
    play.beat_of(0, "a", 1.0);
    // Not late before 600 s + 1,502 s.
    play.beat_of(600_000, "a", 2.0);
    let repeated = [2.0; STEPS];
    assert_eq!(play.steps(2_109_999, "a"), repeated);
    let mut partly = repeated;
    partly[89] = -1.0;
    assert_eq!(play.steps(2_110_000, "a"), partly);
    let mut last = [-1.0; STEPS];
    last[0] = 2.0;
    assert_eq!(play.steps(2_990_000, "a"), last);
    assert_eq!(play.steps(3_000_000, "a"), [-1.0]);
    // The same after the window has moved by a heartbeat.
    play.beat_of(2_130_000, "a", 3.0);
    partly[87..].copy_from_slice(&[-1.0, -1.0, 3.0]);
    assert_eq!(play.steps(2_130_000, "a"), partly);
    play.beat_of(9_000_000, "a", 4.0);
    assert_eq!(play.steps(9_000_000, "a"), [4.0], "all else is too old");
}

/// Kept while the pool lists the departure, and continued by an agent that returns.
#[test]
fn a_history_outlives_its_agent_as_long_as_the_departure_is_listed() {
    let mut play = play();
    play.beat_of(0, "a", 1.0);
    play.goodbye(15_000, "a");
    assert_eq!(play.steps(39_999, "a"), [1.0, 1.0, -1.0, -1.0], "nothing after the goodbye");
    play.beat_of(40_000, "a", 2.0);
    assert_eq!(play.steps(40_000, "a"), [1.0, 1.0, -1.0, -1.0, 2.0]);
    play.goodbye(40_000, "a");
    for n in 0..MAX_DEPARTURES {
        assert_eq!(play.known_at(40_000).len(), n + 1, "a too");
        let agent = format!("b{n}");
        play.beat_of(40_000, &agent, 1.0);
        play.goodbye(40_000, &agent);
    }
    assert!(!play.known_at(40_000).contains(&"a".to_owned()), "one too many");
    assert_eq!(play.pool().population(), (0, MAX_DEPARTURES * HISTORY_BYTES));
    play.beat_of(50_000, "a", 3.0);
    assert_eq!(play.steps(50_000, "a"), [3.0], "starts anew");
}

/// An agent that is evicted before it would be late is not repeated after that.
#[test]
fn an_eviction_ends_a_history() {
    let mut play = super::play();
    play.beat_of(0, "a", 1.0);
    play.quiet(0, 10_000);
    assert_eq!(play.tick(10_001), ["a"]);
    assert_eq!(play.steps(39_999, "a"), [1.0, 1.0, -1.0, -1.0]);
    assert_eq!(play.known_at(39_999), ["a"]);
}

/// The histories of agents that departed are part of the pool's bytes; one that returns has paid
/// for its own.
#[test]
fn histories_of_the_departed_are_part_of_the_bound() {
    let small = metrics("a", 1.0, 0).cost_bytes();
    let full = 2 * small + HISTORY_BYTES;
    for (max_pool_bytes, accepts) in [(full, true), (full - 1, false)] {
        let mut play = play_with(|rules| rules.max_pool_bytes = max_pool_bytes);
        play.beat(0, "a").unwrap();
        play.beat(0, "b").unwrap();
        play.goodbye(1, "a");
        assert_eq!(play.pool().population(), (1, small + HISTORY_BYTES));
        assert_eq!(play.beat(2, "c").is_ok(), accepts, "{max_pool_bytes}");
        assert_eq!(play.known_at(2).contains(&"c".to_owned()), accepts, "refused is not heard");
    }
    let mut play = play_with(|rules| rules.max_pool_bytes = 2 * small);
    play.beat(0, "a").unwrap();
    play.beat(0, "b").unwrap();
    play.goodbye(1, "a");
    play.beat(2, "a").unwrap();
    assert_eq!(play.pool().population(), (2, 2 * small));
}

/// While the server was away for whole steps nobody could be heard: they are not known, nor are
/// those after them until the agent is heard. A shorter pause leaves nothing unknown.
#[test]
fn a_stall_of_the_server_leaves_steps_unknown() {
    let mut play = play();
    for agent in ["silent", "prompt", "queued"] {
        play.beat_of(0, agent, 1.0);
    }
    play.quiet(0, 5_000);
    let queued = play.stamp(5_500);
    // Heard after the stall, and before the hub's tick.
    play.beat_of(65_000, "prompt", 2.0);
    assert_eq!(play.tick(65_100), [""; 0]);
    // Sent before the stall, and handled afterwards.
    play.beat_stamped("queued", 3.0, queued).unwrap();
    let away = [-1.0; 5];
    assert_eq!(play.steps(79_999, "silent"), [1.0, -1.0, -1.0, -1.0, -1.0, -1.0, -1.0, -1.0]);
    assert_eq!(play.steps(79_999, "queued"), [3.0, -1.0, -1.0, -1.0, -1.0, -1.0, -1.0, -1.0]);
    let prompt: [f64; 8] = play.steps(79_999, "prompt");
    assert_eq!((prompt[0], &prompt[1..6], &prompt[6..]), (1.0, &away[..], &[2.0, 2.0][..]));
    play.quiet(66_000, 81_000);
    play.beat_of(81_000, "silent", 4.0);
    assert_eq!(play.tick(99_999), [""; 0], "a pause that touches two steps");
    assert_eq!(play.steps::<10>(99_999, "silent")[8..], [4.0, 4.0]);
    assert_eq!(play.tick(120_000), [""; 0], "exactly one whole step");
    assert_eq!(play.steps::<13>(120_000, "silent")[8..], [4.0, 4.0, -1.0, -1.0, -1.0]);
}

/// Some agents only: those that the pool doesn't know are left out, and each comes once.
#[test]
fn a_history_may_be_of_some_agents() {
    let mut play = play();
    assert_eq!(play.known_at(7), [""; 0]);
    assert_eq!(play.history_of(7, &[])["end"], "1970-01-01T00:00:10.007Z", "before any heartbeat");
    for agent in ["c", "a", "b"] {
        play.beat_of(0, agent, 1.0);
    }
    play.goodbye(0, "b");
    let stamp = play.stamp(0);
    play.registry
        .heartbeat(OTHER, &id("other"), metrics("other", 1.0, 0), stamp, stamp.at)
        .unwrap();
    assert_eq!(play.known_at(0), ["a", "b", "c"]);
    let some = play.history_of(0, &["c", "nobody", "b", "c", "other"]);
    let some: Vec<_> = some["agents"].as_object().unwrap().keys().collect();
    assert_eq!(some, ["b", "c"]);
    let agents = ["c", "b", "c"].map(id).to_vec();
    let text = play.pool().history(agents, play.at(0), UnixMillis(0));
    let text = String::from_utf8(text.text(&PoolId::parse("p").unwrap(), "e")).unwrap();
    let place = |member| text.find(member).unwrap();
    assert!(place(r#""b":{"#) < place(r#""c":{"#));
    assert_eq!(text.matches(r#""c":{"#).count(), 1);
}
