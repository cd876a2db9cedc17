//! A pool in figures, as of a moment: agents become late, and losses old, by time alone.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::late::late_after;
use super::pool::{Agent, Pool};
use crate::runtime::clock::UnixMillis;
use crate::server::limits::MAX_CELLS;
use crate::wire::id::AgentId;
use crate::wire::{AgentCounts, HIGH_MEMORY_PERCENT, Kind, Load, Summary, push_cell};

/// Figures, and how long they hold.
#[derive(Debug)]
pub(crate) struct Figures {
    pub summary: Summary,
    /// From this moment on they are others, even if nothing changes in the pool before that.
    pub until: Option<Instant>,
}

impl Pool {
    /// The pool as of `now`, which is `wall` for people; small ones with [`Summary::cells`] where
    /// `wants_cells`.
    pub(crate) fn figures(&self, now: Instant, wall: UnixMillis, wants_cells: bool) -> Figures {
        let mut by_status: BTreeMap<&str, usize> = BTreeMap::new();
        let (mut cpu, mut memory) = (Load::default(), Load::default());
        let total = self.agents.len();
        let losses = self.departures.losses(wall);
        let mut summary = Summary {
            departed: self.departures.len(),
            lost: losses.agents,
            tasks_lost: losses.tasks,
            last_loss_at: losses.last_at,
            ..Summary::default()
        };
        let mut until = losses.holds_for.map(|time| now + time);
        let mut cells = (wants_cells && total <= MAX_CELLS).then(|| Vec::with_capacity(total));
        for (id, agent) in &self.agents {
            let metrics = &agent.metrics;
            *by_status.entry(metrics.status()).or_default() += 1;
            let late_from = agent.late_from();
            if now < late_from {
                until = Some(until.map_or(late_from, |until| until.min(late_from)));
            }
            let kind = Kind::of(metrics.status(), now >= late_from);
            summary.states.add(kind);
            // What a late agent said last is no load of now.
            if kind != Kind::Late {
                for (load, value) in [(&mut cpu, metrics.cpu), (&mut memory, metrics.memory)] {
                    load.mean += value;
                    load.max = load.max.max(value);
                }
            }
            summary.attention += usize::from(
                matches!(kind, Kind::Late | Kind::Error) || metrics.memory >= HIGH_MEMORY_PERCENT,
            );
            if let Some(cells) = &mut cells {
                cells.push((id, agent, kind));
            }
        }
        let in_time = total - summary.states.late;
        // No pool has so many agents that a f64 could not count them.
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let count = in_time as f64;
        let load =
            |Load { mean: sum, max }| (in_time > 0).then_some(Load { mean: sum / count, max });
        let by_status = by_status.into_iter().map(|(status, count)| (status.into(), count));
        summary.agents = AgentCounts { total, by_status: by_status.collect() };
        (summary.cpu, summary.memory) = (load(cpu), load(memory));
        (summary.late, summary.free) = (summary.states.late, summary.states.idle);
        summary.cells = cells.map(write_cells);
        Figures { summary, until }
    }
}

fn write_cells(mut agents: Vec<(&AgentId, &Agent, Kind)>) -> String {
    agents.sort_unstable_by_key(|(id, agent, _)| (&agent.metrics.name, *id));
    let mut cells = String::with_capacity(2 * agents.len());
    for (_, Agent { metrics, .. }, kind) in agents {
        push_cell(&mut cells, kind, metrics.cpu.max(metrics.memory));
    }
    cells
}

impl Agent {
    /// The first moment at which it is late, if it is not heard before.
    fn late_from(&self) -> Instant {
        // Silent for longer than that, and not as long.
        self.heard + late_after(self.interval) + Duration::from_nanos(1)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::server::limits::{LOSS_MEMORY, MAX_COUNTED_LOSSES};
    use crate::server::registry::transcripts::{POOL, Play, id, metrics, play, play_with};
    use crate::wire::{Ping, read_ping};

    fn beat(play: &mut Play, ms: u64, agent: &str, members: Value) {
        let mut body = json!({ "status": "idle", "cpu_usage": 1, "memory_usage": 1 });
        body.as_object_mut().unwrap().append(&mut members.as_object().unwrap().clone());
        let read = read_ping(body.to_string().as_bytes(), &id(agent), UnixMillis(0));
        let Ok(Ping::Metrics(metrics)) = read else { panic!("{read:?}") };
        let stamp = play.stamp(ms);
        play.registry.heartbeat(POOL, &id(agent), metrics, stamp, stamp.at).unwrap();
    }

    fn figures(play: &Play, ms: u64) -> Figures {
        play.pool().figures(play.at(ms), UnixMillis(ms), true)
    }

    fn summary(play: &Play, ms: u64) -> Summary {
        figures(play, ms).summary
    }

    /// Agents are counted by status and by kind, averaged, and those that need someone or are free are
    /// counted once each.
    #[test]
    fn a_summary_counts() {
        let mut play = play();
        assert_eq!((summary(&play, 0).cpu, summary(&play, 0).memory), (None, None));
        assert_eq!(summary(&play, 0).cells.as_deref(), Some(""));
        beat(&mut play, 0, "a", json!({ "status": "busy", "cpu_usage": 100 }));
        beat(&mut play, 0, "b", json!({ "status": "busy", "memory_usage": 90 }));
        beat(&mut play, 0, "c", json!({ "status": "error", "memory_usage": 99 }));
        beat(&mut play, 0, "d", json!({ "memory_usage": 89.9 }));
        beat(&mut play, 0, "e", json!({ "status": "draining" }));
        beat(&mut play, 0, "f", json!({ "status": "odd" }));
        beat(&mut play, 0, "g", json!({}));
        play.goodbye(0, "g");
        let summary = summary(&play, 0);
        let (cpu, memory) = (summary.cpu.unwrap(), summary.memory.unwrap());
        assert_eq!((summary.agents.total, summary.departed), (6, 1));
        assert_eq!((cpu.mean, cpu.max, memory.max), (105.0 / 6.0, 100.0, 99.0));
        let by_status = ["busy", "draining", "error", "idle", "odd"].map(Into::into);
        assert!(summary.agents.by_status.keys().eq(&by_status));
        assert_eq!(summary.agents.by_status["busy"], 2);
        let states = json!({
            "busy": 2, "idle": 1, "late": 0, "error": 1, "paused": 1, "other": 1,
        });
        assert_eq!(json!(summary.states), states);
        assert_eq!((summary.attention, summary.free, summary.late), (2, 1, 0));
        assert_eq!((summary.lost, summary.last_loss_at), (0, None), "a goodbye is no loss");
        assert_eq!(summary.cells.as_deref(), Some("b9b9e9i8p0o0"));
    }

    /// An agent is late by time alone, after its own rhythm: not at the limit, but just after it; and
    /// the figures say when they change next.
    #[test]
    fn lateness_comes_with_time() {
        let mut play = play();
        for ms in [0, 10_000] {
            beat(&mut play, ms, "steady", json!({}));
        }
        beat(&mut play, 10_000, "new", json!({ "status": "error" }));
        // 2.5 times 10 s, and 2 s.
        let limit = 10_000 + 27_000;
        assert_eq!((summary(&play, limit).late, summary(&play, limit).free), (0, 1));
        let until = figures(&play, limit).until.unwrap();
        assert!(until > play.at(limit) && until < play.at(limit + 1));
        let late = play.pool().figures(until, UnixMillis(0), false).summary;
        assert_eq!((late.states.late, late.states.error, late.late), (1, 1, 1));
        assert_eq!((late.attention, late.free, late.states.idle), (2, 0, 0), "each once");
        // The other one's rhythm is not known: 2.5 times 60 s, and 2 s.
        let until = figures(&play, limit + 1).until.unwrap();
        assert!(until > play.at(10_000 + 152_000) && until < play.at(10_000 + 152_001));
        let all = figures(&play, 10_000 + 152_001);
        assert_eq!((all.summary.late, all.summary.attention), (2, 2));
        assert_eq!(all.until, None, "nobody is left to become late");
        assert_eq!(all.summary.cells.as_deref(), Some("l0l0"));
        beat(&mut play, 170_000, "new", json!({}));
        assert_eq!(summary(&play, 170_000).late, 1);
    }

    /// What a late agent reported last is no load of now: mean and maximum leave it out, as its pool's own
    /// page does.
    #[test]
    fn loads_are_of_agents_in_time() {
        let mut play = play();
        for ms in [0, 10_000] {
            beat(&mut play, ms, "late", json!({ "cpu_usage": 100, "memory_usage": 80 }));
        }
        beat(&mut play, 10_000, "in-time", json!({ "cpu_usage": 10, "memory_usage": 20 }));
        let load = |mean, max| Some(Load { mean, max });
        let loads = |ms| (summary(&play, ms).cpu, summary(&play, ms).memory);
        assert_eq!(loads(37_000), (load(55.0, 100.0), load(50.0, 80.0)));
        assert_eq!(loads(37_001), (load(10.0, 10.0), load(20.0, 20.0)));
        assert_eq!(loads(10_000 + 152_001), (None, None), "all are late");
        assert_eq!(summary(&play, 10_000 + 152_001).agents.total, 2);
    }

    /// While the server was away nobody could be heard: nobody is late for it.
    #[test]
    fn a_stall_of_the_server_makes_nobody_late() {
        let mut play = play_with(|rules| rules.evict_after = Duration::from_secs(300));
        for ms in [0, 1_000] {
            beat(&mut play, ms, "a", json!({}));
        }
        play.quiet(0, 2_000);
        assert_eq!(play.tick(60_000), [""; 0]);
        // Silent for a second before the stall, and not late before the seven of its rhythm.
        assert_eq!(summary(&play, 66_000).late, 0);
        assert_eq!(summary(&play, 66_001).late, 1);
    }

    /// A loss counts for an hour, with its tasks, or until the agent is back. When the last one was, is
    /// known for longer.
    #[test]
    fn losses_count_for_an_hour_or_until_the_agent_returns() {
        const HOUR: u64 = LOSS_MEMORY.as_millis() as u64;
        let mut play = play();
        let lost = |play: &Play, ms| {
            let Summary { lost, tasks_lost, last_loss_at, .. } = summary(play, ms);
            (lost, tasks_lost, last_loss_at.map(|at| at.0))
        };
        play.beat(0, "silent").unwrap();
        assert_eq!(play.tick(10_001), ["silent"]);
        assert_eq!(lost(&play, 10_001), (1, 0, Some(10_001)));
        for (ms, agent, tasks) in [(20_000, "a", 2), (30_000, "b", 3)] {
            let stamp = play.stamp(ms);
            play.registry
                .heartbeat(POOL, &id(agent), metrics(agent, 1.0, tasks), stamp, stamp.at)
                .unwrap();
            play.goodbye(ms, agent);
        }
        assert_eq!(lost(&play, 30_000), (3, 5, Some(30_000)));
        assert_eq!(lost(&play, 10_001 + HOUR), (3, 5, Some(30_000)), "at the limit");
        let until = figures(&play, 10_001 + HOUR).until;
        assert_eq!(until, Some(play.at(10_002 + HOUR)));
        assert_eq!(lost(&play, 10_002 + HOUR), (2, 5, Some(30_000)));
        play.beat(10_003 + HOUR, "b").unwrap();
        assert_eq!(lost(&play, 10_003 + HOUR), (1, 2, Some(20_000)));
        assert_eq!(lost(&play, 20_001 + HOUR), (0, 0, Some(20_000)));
    }

    /// More losses are counted than the pool lists, and their number is bounded.
    #[test]
    fn counted_losses_are_bounded() {
        let mut play = play();
        let lose = |play: &mut Play, number| {
            let agent = format!("a-{number}");
            let stamp = play.stamp(0);
            play.registry
                .heartbeat(POOL, &id(&agent), metrics(&agent, 1.0, 1), stamp, stamp.at)
                .unwrap();
            play.goodbye(number, &agent);
        };
        for number in 0..60 {
            lose(&mut play, number);
        }
        assert_eq!((summary(&play, 60).lost, summary(&play, 60).departed), (60, 50));
        for number in 60..MAX_COUNTED_LOSSES as u64 + 1 {
            lose(&mut play, number);
        }
        assert_eq!(summary(&play, 2_000).lost, MAX_COUNTED_LOSSES);
        play.beat(2_000, "a-0").unwrap();
        assert_eq!(summary(&play, 2_000).lost, MAX_COUNTED_LOSSES, "the oldest was left out");
        play.beat(2_000, "a-1").unwrap();
        assert_eq!(summary(&play, 2_000).tasks_lost, MAX_COUNTED_LOSSES - 1);
    }

    /// Cells are ordered as a snapshot is, by name and then id, and only small pools have them.
    #[test]
    fn cells_are_ordered_and_of_small_pools_only() {
        let mut play = play_with(|rules| rules.max_agents_per_pool = 1_000);
        beat(&mut play, 0, "1", json!({ "agent_name": "b", "cpu_usage": 10 }));
        beat(&mut play, 0, "3", json!({ "agent_name": "a", "cpu_usage": 30 }));
        beat(&mut play, 0, "2", json!({ "agent_name": "a", "cpu_usage": 20 }));
        assert_eq!(summary(&play, 0).cells.as_deref(), Some("i2i3i1"));
        assert_eq!(play.pool().figures(play.at(0), UnixMillis(0), false).summary.cells, None);
        for agent in 4..=MAX_CELLS {
            play.beat(0, &agent.to_string()).unwrap();
        }
        assert_eq!(summary(&play, 0).cells.unwrap().len(), 2 * MAX_CELLS);
        play.beat(0, "one-more").unwrap();
        assert_eq!(summary(&play, 0).cells, None);
    }
}
