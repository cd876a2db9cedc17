//! The real loop, on a thread of the test's, with channels in the test's hands: ticks come when
//! the test sends them, and batches stay where they are until the test takes them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, Builder, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use serde_json::{Value, json};

use super::{HubError, HubFailure, HubHandle, Parts, hub};
use crate::runtime::clock::{Clock, UnixMillis};
use crate::runtime::counters::Counters;
use crate::server::event::{Batch, FanoutIndex, Stamp, Verdict};
use crate::server::feed::FeedId;
use crate::server::frame::Frames;
use crate::server::limits::{HUB_INBOX, MAX_BATCH_BYTES, MAX_DEPARTURE_CHANGES};
use crate::server::registry::Rules;
use crate::wire::id::{AgentId, DashboardId, PoolId, PoolIndex};
use crate::wire::{HISTORY_BYTES, Metrics, Ping, read_ping};

pub(super) const POOL: PoolIndex = PoolIndex(0);
const OTHER: PoolIndex = PoolIndex(1);
/// More updates of one agent in a second than a test makes.
const NO_LIMIT: usize = usize::MAX;
const EVICT_AFTER: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(20);

struct Stage {
    hub: HubHandle,
    ticks: Sender<Instant>,
    batches: Receiver<Batch>,
    counters: Arc<Counters>,
    clock: Clock,
    number: u64,
    thread: JoinHandle<Result<(), HubFailure>>,
}

/// A hub with two pools and one fanout thread's channel of this size.
fn stage(fanout_room: usize, max_agents: usize) -> Stage {
    // A closed channel is always ready: no window.
    stage_with(fanout_room, max_agents, bounded(0).1)
}

fn stage_with(fanout_room: usize, max_agents: usize, windows: Receiver<Instant>) -> Stage {
    let clock = Clock::start();
    let counters = Arc::new(Counters::default());
    let (ticks, tick_receiver) = bounded(8);
    let (fanout, batches) = bounded(fanout_room);
    let (hub, handle) = hub(Parts {
        pools: ["p", "q"].map(|id| PoolId::parse(id).unwrap()).into(),
        names: Arc::default(),
        epoch: "e".into(),
        rules: Rules {
            evict_after: EVICT_AFTER,
            tick: Duration::from_secs(1),
            max_agents_per_pool: max_agents,
            max_pool_bytes: (1 << 20) + 1_000 * HISTORY_BYTES,
            max_updates_per_second: NO_LIMIT,
        },
        timeout: TIMEOUT,
        ticks: tick_receiver,
        windows,
        fanouts: vec![fanout],
        clock,
        counters: Arc::clone(&counters),
    });
    let thread = Builder::new().name("hub".to_owned()).spawn(move || hub.run()).unwrap();
    Stage { hub: handle, ticks, batches, counters, clock, number: 0, thread }
}

fn metrics(agent: &str, cpu: u32) -> Metrics {
    let body = json!({"status": "busy", "cpu_usage": cpu, "memory_usage": 1});
    let agent = AgentId::parse(agent).unwrap();
    match read_ping(body.to_string().as_bytes(), &agent, UnixMillis(0)) {
        Ok(Ping::Metrics(metrics)) => metrics,
        other => panic!("{other:?}"),
    }
}

impl Stage {
    fn stamp(&mut self) -> Stamp {
        self.number += 1;
        Stamp { number: self.number, at: self.clock.now(), wall: self.clock.wall() }
    }

    fn beat(&mut self, pool: PoolIndex, agent: &str, cpu: u32) -> Result<Verdict, HubError> {
        let stamp = self.stamp();
        self.hub.heartbeat(pool, AgentId::parse(agent).unwrap(), metrics(agent, cpu), stamp)
    }

    fn join(&self, dashboard: u64, pool: PoolIndex) {
        self.hub.join(DashboardId(dashboard), FeedId::Updates(pool), FanoutIndex(0)).unwrap();
    }

    fn batch(&self) -> Batch {
        self.batches.recv_timeout(TIMEOUT).unwrap()
    }

    /// The next batch as the messages in it; of a snapshot, for whom.
    fn next(&self) -> (Vec<DashboardId>, Vec<Value>) {
        match self.batch() {
            Batch::Updates { frames, .. } => (vec![], messages(&frames)),
            Batch::Snapshot { feed, dashboards, snapshot, .. } => {
                let id = PoolId::parse(["p", "q"][feed.pool().unwrap().0]).unwrap();
                let text = snapshot.snapshot().text(&id, "e");
                (dashboards, vec![serde_json::from_str(&text).unwrap()])
            }
            other => panic!("{other:?}"),
        }
    }

    /// What a dashboard gets that asks for what changed.
    fn resume(&self, dashboard: u64, since: u64) -> Vec<Value> {
        self.hub.resume(DashboardId(dashboard), Some(since)).unwrap();
        match self.batch() {
            Batch::Changes { dashboards, frames, .. } if dashboards == [DashboardId(dashboard)] => {
                messages(&frames)
            }
            other => panic!("{other:?}"),
        }
    }

    fn end(self) -> Result<(), HubFailure> {
        self.hub.shutdown();
        self.thread.join().unwrap()
    }
}

pub(super) fn messages(frames: &Frames) -> Vec<Value> {
    let mut messages = Vec::new();
    let mut start = 0;
    while start < frames.bytes().len() {
        let end = frames.boundary(start + 1);
        let frame = &frames.bytes()[start..end];
        let payload = frame.iter().position(|byte| *byte == b'{').unwrap();
        messages.push(serde_json::from_slice(&frame[payload..]).unwrap());
        start = end;
    }
    assert_eq!(messages.len(), frames.count_after(0));
    messages
}

/// A snapshot holds all that came before the join, and the updates after it follow, in order.
#[test]
fn a_snapshot_comes_first_and_nothing_is_lost_behind_it() {
    let mut stage = stage(64, 100);
    stage.beat(POOL, "a", 1).unwrap();
    stage.join(7, POOL);
    let (dashboards, snapshot) = stage.next();
    assert_eq!(dashboards, [DashboardId(7)]);
    assert_eq!(snapshot[0]["type"], "initial_metrics");
    assert_eq!(snapshot[0]["metrics"][0]["cpu_usage"], 1.0);
    assert_eq!(snapshot[0]["seq"], 1);
    stage.beat(OTHER, "a", 9).unwrap();
    for cpu in 2..12 {
        stage.beat(POOL, "a", cpu).unwrap();
    }
    let mut updates = Vec::new();
    while updates.len() < 10 {
        updates.extend(stage.next().1);
    }
    for (index, update) in updates.iter().enumerate() {
        assert_eq!(update["type"], "metrics_update");
        assert_eq!(update["seq"], index + 2);
        assert_eq!(update["metrics"]["cpu_usage"], json!((index + 2) as f64));
    }
    assert_eq!(stage.counters.conflations.get(), 0);
    assert_eq!(stage.end(), Ok(()));
}

/// Without room in the fanout thread's channel the hub goes on, keeps each agent's newest state,
/// and passes it on in the order of the changes when there is room again.
#[test]
fn without_room_only_the_newest_state_is_kept() {
    let mut stage = stage(1, 100);
    stage.join(1, POOL);
    let (_, first) = stage.next();
    assert_eq!(first[0]["metrics"], json!([]));
    for round in 1..=3_000 {
        for agent in ["a", "b"] {
            stage.beat(POOL, agent, round / 30).unwrap();
        }
        // Answered, so the hub has been through the above with its channel full.
        stage.hub.alive().unwrap();
    }
    stage.join(2, POOL);
    let (mut seq, mut newest) = (0, [0.0, 0.0]);
    let mut count = 0;
    let mut snapshot = None;
    while snapshot.is_none() || seq < 6_000 {
        let (dashboards, messages) = stage.next();
        if !dashboards.is_empty() {
            snapshot = Some(messages[0].clone());
            continue;
        }
        for message in messages {
            count += 1;
            assert!(message["seq"].as_u64().unwrap() > seq, "{message} after {seq}");
            seq = message["seq"].as_u64().unwrap();
            let agent = usize::from(message["metrics"]["agent_id"] == "b");
            newest[agent] = message["metrics"]["cpu_usage"].as_f64().unwrap();
        }
    }
    let snapshot = snapshot.unwrap();
    assert_eq!(newest, [100.0, 100.0]);
    assert_eq!(snapshot["seq"], 6_000);
    assert!(count < 1_500, "{count} of 6,000 updates were kept");
    stage.hub.alive().unwrap();
    assert_eq!(stage.counters.conflations.get() + count, 6_000);
    assert_eq!(stage.end(), Ok(()));
}

/// A tick with a later time evicts, and watchers hear of it, once.
#[test]
fn a_tick_evicts_and_watchers_hear_of_it() {
    let mut stage = stage(64, 100);
    stage.beat(POOL, "a", 1).unwrap();
    stage.join(1, POOL);
    stage.next();
    let start = stage.clock.now();
    // Ticks as they would come: far apart, they would pass for a stall.
    for second in 0..=11 {
        stage.ticks.send(start + Duration::from_secs(second)).unwrap();
    }
    let (_, messages) = stage.next();
    assert_eq!(messages[0]["type"], "agent_offline");
    assert_eq!(messages[0]["reason"], "timeout");
    assert_eq!(stage.hub.snapshot(POOL).unwrap().departed.len(), 1);
    assert_eq!(stage.counters.evictions.get(), 1);
    assert!(stage.batches.is_empty());
    assert_eq!(stage.end(), Ok(()));
}

/// When the pool may be full the caller gets the hub's own word; a known agent is heard.
#[test]
fn a_full_pool_is_answered_by_the_hub() {
    let mut stage = stage(64, 2);
    assert_eq!(stage.beat(POOL, "a", 1), Ok(Verdict::Accepted));
    assert_eq!(stage.beat(POOL, "b", 1), Ok(Verdict::Accepted));
    assert_eq!(stage.beat(POOL, "c", 1), Ok(Verdict::TooManyAgents));
    assert_eq!(stage.beat(POOL, "a", 2), Ok(Verdict::Accepted));
    assert_eq!(stage.beat(OTHER, "c", 1), Ok(Verdict::Accepted));
    let stamp = stage.stamp();
    let b = AgentId::parse("b").unwrap();
    assert_eq!(stage.hub.remove(POOL, b.clone(), stamp), Ok(true));
    assert_eq!(stage.hub.remove(POOL, b, stamp), Ok(false));
    assert_eq!(stage.beat(POOL, "c", 1), Ok(Verdict::Accepted));
    assert_eq!(stage.end(), Ok(()));
}

/// Of several new agents that come at the same moment for the last place, each that is told so is in
/// the pool, whichever worker is the faster.
#[test]
fn who_is_promised_the_last_place_has_it() {
    const WORKERS: u64 = 8;
    const ROUNDS: u64 = 10_000;
    let stage = stage(64, 1);
    let (number, broken) = (AtomicU64::new(0), AtomicU64::new(0));
    let stamp = || Stamp {
        number: number.fetch_add(1, Ordering::Relaxed),
        at: stage.clock.now(),
        wall: UnixMillis(0),
    };
    thread::scope(|scope| {
        for worker in 0..WORKERS {
            let (hub, broken, stamp) = (&stage.hub, &broken, &stamp);
            let id = AgentId::parse(&format!("agent-{worker}")).unwrap();
            let metrics = metrics(id.as_str(), 1);
            let work = move || {
                for _ in 0..ROUNDS {
                    let (agent, metrics) = (id.clone(), metrics.clone());
                    if hub.heartbeat(POOL, agent, metrics, stamp()) == Ok(Verdict::Accepted) {
                        let is_there = hub.remove(POOL, id.clone(), stamp()).unwrap();
                        broken.fetch_add(u64::from(!is_there), Ordering::Relaxed);
                    }
                }
            };
            Builder::new().name(format!("http-{worker}")).spawn_scoped(scope, work).unwrap();
        }
    });
    assert_eq!(broken.into_inner(), 0);
    assert_eq!(stage.end(), Ok(()));
}

/// The same while the inbox is full, which lets another worker overtake the one that was first.
#[test]
fn a_full_inbox_breaks_no_promise() {
    let (mut hub, handle, _batches) = polled(1, 1, 1);
    while handle.inbox_room() > 0 {
        handle.leave(DashboardId(u64::MAX));
    }
    let first = handle.clone();
    let work = move || beat(&first, "first", 1);
    let first = Builder::new().name("http-0".to_owned()).spawn(work).unwrap();
    // It has been counted, and waits for room.
    let deadline = Clock::start().now() + TIMEOUT;
    while hub.rooms[0].lock().unwrap().queued == 0 {
        assert!(Clock::start().now() < deadline, "it is not counted");
        thread::yield_now();
    }
    hub.poll();
    let hasty = HubHandle { timeout: Duration::ZERO, ..handle.clone() };
    let second = beat(&hasty, "second", 2);
    while !first.is_finished() {
        assert!(Clock::start().now() < deadline, "it gets no verdict");
        hub.poll();
    }
    while hub.poll() {}
    let agents = hub.state.snapshot(POOL).agents;
    let is_there = |agent: &str| agents.iter().any(|it| it.agent.as_str() == agent);
    assert!(is_there("first") || is_there("second"));
    assert_eq!(first.join().unwrap() == Ok(Verdict::Accepted), is_there("first"));
    assert!(is_there("second") || second != Ok(Verdict::Accepted));
}

/// Who has left is owed nothing, and what was owed to the last watcher is dropped.
#[test]
fn who_leaves_is_owed_nothing() {
    let mut stage = stage(1, 100);
    stage.join(1, POOL);
    stage.join(2, POOL);
    stage.hub.leave(DashboardId(1));
    stage.hub.leave(DashboardId(2));
    for cpu in 1..10 {
        stage.beat(POOL, "a", cpu).unwrap();
    }
    stage.hub.alive().unwrap();
    stage.join(3, POOL);
    let mut seen = Vec::new();
    while !seen.contains(&DashboardId(3)) {
        let (dashboards, messages) = stage.next();
        assert_eq!(messages[0]["type"], "initial_metrics");
        seen.extend(dashboards);
    }
    assert_eq!(stage.end(), Ok(()));
}

/// Without its fanout thread the hub ends with the reason, and callers are told that it stopped.
#[test]
fn a_dead_fanout_thread_ends_the_hub() {
    let mut stage = stage(64, 100);
    stage.join(1, POOL);
    stage.next();
    stage.batches = bounded(0).1;
    stage.beat(POOL, "a", 1).unwrap();
    assert_eq!(stage.thread.join().unwrap(), Err(HubFailure::FanoutEnded(FanoutIndex(0))));
    assert_eq!(stage.hub.alive(), Err(HubError::Stopped));
    stage.hub.leave(DashboardId(1));
}

/// Without anyone to make ticks nobody would be evicted: that is a failure, too.
#[test]
fn a_dead_tick_ends_the_hub() {
    let mut stage = stage(64, 100);
    stage.ticks = bounded(0).0;
    assert_eq!(stage.thread.join().unwrap(), Err(HubFailure::TicksEnded));
}

/// The same while something waits for room in a fanout thread's channel.
#[test]
fn a_dead_tick_ends_a_blocked_hub() {
    let mut stage = stage(1, 100);
    stage.join(1, POOL);
    stage.beat(POOL, "a", 1).unwrap();
    // Answered, so the hub has begun to wait for room.
    stage.hub.alive().unwrap();
    stage.beat(POOL, "a", 2).unwrap();
    stage.hub.alive().unwrap();
    stage.ticks = bounded(0).0;
    assert_eq!(stage.thread.join().unwrap(), Err(HubFailure::TicksEnded));
}

/// Without its fanout thread a blocked hub ends as well, instead of spinning.
#[test]
fn a_dead_fanout_thread_ends_a_blocked_hub() {
    let mut stage = stage(1, 100);
    stage.join(1, POOL);
    for cpu in 1..5 {
        stage.beat(POOL, "a", cpu).unwrap();
        // Answered, so the hub has begun to wait for room.
        stage.hub.alive().unwrap();
    }
    stage.batches = bounded(0).1;
    assert_eq!(stage.thread.join().unwrap(), Err(HubFailure::FanoutEnded(FanoutIndex(0))));
}

/// Who fell behind gets the newest state of each agent that changed since, departures too, and
/// nothing else; who has nothing yet gets a snapshot.
#[test]
fn who_fell_behind_gets_what_changed_since() {
    let mut stage = stage(64, 100);
    for agent in ["a", "b", "c", "d", "e"] {
        stage.beat(POOL, agent, 1).unwrap();
    }
    stage.join(1, POOL);
    stage.next();
    assert_eq!(stage.resume(1, 5), [] as [Value; 0]);
    for cpu in 2..5 {
        stage.beat(POOL, "b", cpu).unwrap();
        stage.next();
    }
    let stamp = stage.stamp();
    stage.hub.goodbye(POOL, AgentId::parse("c").unwrap(), stamp).unwrap();
    stage.next();
    let messages = stage.resume(1, 5);
    let seen: Vec<_> = messages.iter().map(|it| (&it["type"], &it["seq"])).collect();
    let expected = [(json!("metrics_update"), json!(8)), (json!("agent_offline"), json!(9))];
    assert_eq!(seen, expected.iter().map(|(kind, seq)| (kind, seq)).collect::<Vec<_>>());
    assert_eq!(messages[0]["metrics"]["cpu_usage"], 4.0);
    assert_eq!(stage.resume(1, 8).len(), 1, "after the update, the departure");
    stage.hub.resume(DashboardId(1), None).unwrap();
    assert_eq!(stage.next().1[0]["type"], "initial_metrics");
    assert_eq!(stage.end(), Ok(()));
}

/// What changed comes in parts of about a batch's size, which join without a gap.
#[test]
fn what_changed_comes_in_parts() {
    let mut stage = stage(64, 10_000);
    for agent in 0..1_000 {
        stage.beat(POOL, &format!("agent-{agent}"), 1).unwrap();
    }
    stage.join(1, POOL);
    stage.next();
    let (mut since, mut parts) = (1, 0);
    loop {
        let messages = stage.resume(1, since);
        for message in &messages {
            since += 1;
            assert_eq!(message["seq"], since);
        }
        parts += 1;
        if since == 1_000 {
            break;
        }
        let bytes: usize = messages.iter().map(|message| message.to_string().len()).sum();
        assert!((MAX_BATCH_BYTES / 2..2 * MAX_BATCH_BYTES).contains(&bytes), "{bytes}");
    }
    assert_eq!(since, 1_000);
    assert!(parts > 2, "{parts}");
    assert_eq!(stage.end(), Ok(()));
}

/// More departures than are remembered: dashboards that were sent them late, or not at all, get a
/// snapshot, and share it.
#[test]
fn forgotten_departures_call_for_a_snapshot() {
    let mut stage = stage(1, 10_000);
    stage.beat(POOL, "stays", 1).unwrap();
    stage.join(1, POOL);
    stage.hub.alive().unwrap();
    for agent in 0..2 * MAX_DEPARTURE_CHANGES {
        let agent = format!("agent-{agent}");
        stage.beat(POOL, &agent, 1).unwrap();
        let stamp = stage.stamp();
        stage.hub.goodbye(POOL, AgentId::parse(&agent).unwrap(), stamp).unwrap();
    }
    stage.hub.alive().unwrap();
    assert_eq!(stage.next().0, [DashboardId(1)]);
    let gap = loop {
        match stage.batch() {
            Batch::Updates { frames, .. } if frames.last_seq().is_some() => {}
            other => break other,
        }
    };
    assert!(
        matches!(gap, Batch::Updates { feed: FeedId::Updates(POOL), since: 4_097, .. }),
        "{gap:?}"
    );
    let conflations = stage.counters.conflations.get();
    assert!(conflations > 2_000, "{conflations} of 4,097 changes were not passed on one by one");
    // The channel is full while they ask.
    for dashboard in [2, 3] {
        stage.join(dashboard, OTHER);
        stage.hub.alive().unwrap();
    }
    for _ in 0..2 {
        stage.join(4, POOL);
        stage.hub.resume(DashboardId(1), Some(1)).unwrap();
        stage.hub.alive().unwrap();
    }
    let shared = loop {
        match stage.next() {
            (dashboards, messages) if dashboards.contains(&DashboardId(1)) => {
                assert_eq!(messages[0]["metrics"].as_array().unwrap().len(), 1);
                break dashboards;
            }
            _ => {}
        }
    };
    assert!(shared.len() > 1, "{shared:?}");
    assert_eq!(stage.end(), Ok(()));
}

/// Pools have their turns, and a joiner of a pool that never stops changing waits for a bounded
/// number of batches.
#[test]
fn neither_a_hot_pool_nor_its_updates_starve_a_joiner() {
    let mut stage = stage(1, 100);
    stage.join(1, POOL);
    stage.hub.alive().unwrap();
    let busy = |stage: &mut Stage| {
        for cpu in 0..40 {
            for agent in 0..20 {
                stage.beat(POOL, &format!("agent-{agent}"), cpu).unwrap();
            }
        }
        stage.hub.alive().unwrap();
    };
    busy(&mut stage);
    stage.join(2, POOL);
    stage.join(3, OTHER);
    stage.hub.resume(DashboardId(1), Some(0)).unwrap();
    stage.hub.alive().unwrap();
    let mut joined = Vec::new();
    for taken in 0.. {
        assert!(taken < 10, "only {joined:?} after {taken} batches");
        if let Batch::Snapshot { dashboards, .. } = stage.batch() {
            joined.extend(dashboards);
        }
        if joined.contains(&DashboardId(2)) && joined.contains(&DashboardId(3)) {
            break;
        }
        // The hot pool is never done.
        busy(&mut stage);
    }
    assert_eq!(stage.end(), Ok(()));
}

/// In its window the hub lets heartbeats gather; an event that cannot wait ends it, and is handled
/// behind all that was handed in before: a heartbeat that was answered, then a join, a snapshot, a
/// DELETE.
#[test]
fn what_cannot_wait_ends_the_window_and_overtakes_nothing() {
    let (windows, window_receiver) = bounded(1);
    let mut stage = stage_with(64, 100, window_receiver);
    // Not in a window yet, or in the first one: either way it is handled with what follows.
    assert_eq!(stage.beat(POOL, "a", 1), Ok(Verdict::Accepted));
    stage.join(1, POOL);
    let (dashboards, snapshot) = stage.next();
    assert_eq!(dashboards, [DashboardId(1)]);
    assert_eq!(snapshot[0]["metrics"][0]["cpu_usage"], 1.0);
    for cpu in 2..=5 {
        assert_eq!(stage.beat(POOL, "a", cpu), Ok(Verdict::Accepted), "without the hub's help");
        assert_eq!(stage.hub.snapshot(POOL).unwrap().seq, u64::from(cpu));
        let stamp = stage.stamp();
        let unknown = AgentId::parse("x").unwrap();
        assert_eq!(stage.hub.remove(POOL, unknown, stamp), Ok(false));
        stage.join(u64::from(cpu), POOL);
        let mut joined = Value::Null;
        while joined.is_null() {
            let (dashboards, messages) = stage.next();
            if dashboards.is_empty() {
                assert_eq!(messages[0]["metrics"]["cpu_usage"], f64::from(cpu));
            } else {
                joined = messages[0]["seq"].clone();
            }
        }
        assert_eq!(joined, cpu);
    }
    let stamp = stage.stamp();
    assert_eq!(stage.beat(POOL, "a", 6), Ok(Verdict::Accepted));
    let a = AgentId::parse("a").unwrap();
    assert_eq!(stage.hub.remove(POOL, a.clone(), stamp), Ok(true), "known, and newer than that");
    let stamp = stage.stamp();
    assert_eq!(stage.hub.remove(POOL, a, stamp), Ok(true));
    // The window's end without anything urgent.
    assert_eq!(stage.beat(POOL, "b", 7), Ok(Verdict::Accepted));
    windows.send(stage.clock.now()).unwrap();
    let last = loop {
        let last = stage.next().1.pop().unwrap();
        if last["metrics"]["agent_id"] == "b" {
            break last;
        }
    };
    assert_eq!(last["metrics"]["cpu_usage"], 7.0);
    // Nor does the window hold up the end.
    assert_eq!(stage.end(), Ok(()));
}

/// Half an inbox of heartbeats ends the window, too.
#[test]
fn a_window_never_fills_the_inbox() {
    let mut stage = stage_with(64, 100, crossbeam_channel::never());
    stage.join(1, POOL);
    stage.next();
    for _ in 0..3 * HUB_INBOX {
        assert_eq!(stage.beat(POOL, "a", 1), Ok(Verdict::Accepted));
    }
    while stage.counters.heartbeats.get() < 2 * HUB_INBOX as u64 {
        stage.batch();
    }
    assert_eq!(stage.end(), Ok(()));
}

/// A hub on the test's own thread, of which `dashboards` have joined and been sent their snapshot.
pub(super) fn polled(
    fanout_room: usize,
    dashboards: u64,
    max_agents: usize,
) -> (super::Hub, HubHandle, Receiver<Batch>) {
    polled_with(fanout_room, dashboards, max_agents, NO_LIMIT)
}

fn polled_with(
    fanout_room: usize,
    dashboards: u64,
    max_agents: usize,
    max_updates_per_second: usize,
) -> (super::Hub, HubHandle, Receiver<Batch>) {
    let (fanout, batches) = bounded(fanout_room);
    let (mut hub, handle) = hub(Parts {
        pools: ["p", "q"].map(|id| PoolId::parse(id).unwrap()).into(),
        names: ["P", "Q"].map(str::to_owned).into(),
        epoch: "e".into(),
        rules: Rules {
            evict_after: EVICT_AFTER,
            tick: Duration::from_secs(1),
            max_agents_per_pool: max_agents,
            max_pool_bytes: 1 << 30,
            max_updates_per_second,
        },
        timeout: TIMEOUT,
        ticks: crossbeam_channel::never(),
        windows: bounded(0).1,
        fanouts: vec![fanout],
        clock: Clock::start(),
        counters: Arc::default(),
    });
    for dashboard in 0..dashboards {
        handle.join(DashboardId(dashboard), FeedId::Updates(POOL), FanoutIndex(0)).unwrap();
    }
    while hub.poll() {}
    while batches.try_recv().is_ok() {}
    (hub, handle, batches)
}

fn beat(handle: &HubHandle, agent: &str, number: u64) -> Result<Verdict, HubError> {
    let stamp = Stamp { number, at: Clock::start().now(), wall: UnixMillis(0) };
    handle.heartbeat(POOL, AgentId::parse(agent).unwrap(), metrics(agent, 1), stamp)
}

pub(super) fn hand_in(handle: &HubHandle, agent: &str, number: u64) {
    beat(handle, agent, number).unwrap();
}

/// Who joins a pool's feed is to have all that was heard before, so what waited is announced. The
/// overview has the newest figures without that, and undoes no limit.
#[test]
fn a_join_of_the_overview_announces_nothing() {
    let (mut hub, handle, batches) = polled_with(64, 1, 10, 1);
    (1..=3).for_each(|number| hand_in(&handle, "a", number));
    while hub.poll() {}
    let seq = |hub: &super::Hub| hub.state.registry.pools[POOL.0].seq();
    assert_eq!((seq(&hub), batches.try_iter().count()), (1, 1));
    for (dashboard, feed, seq_after) in
        [(7, FeedId::OnePool(POOL), 1), (8, FeedId::AllPools, 1), (9, FeedId::Updates(POOL), 2)]
    {
        handle.join(DashboardId(dashboard), feed, FanoutIndex(0)).unwrap();
        while hub.poll() {}
        assert_eq!(seq(&hub), seq_after, "{feed:?}");
    }
}

/// Between a few of the answers to many dashboards that have fallen behind, the hub handles its
/// events; and the rest of the answers wait for no event.
#[test]
fn a_crowd_that_fell_behind_does_not_hold_up_the_hub() {
    const DASHBOARDS: u64 = 200;
    let (mut hub, handle, batches) = polled(1_000, DASHBOARDS, 10_000);
    for dashboard in 0..DASHBOARDS {
        // Each lacks something else.
        handle.resume(DashboardId(dashboard), Some(dashboard)).unwrap();
    }
    hub.poll();
    assert!(batches.len() <= 20, "{} batches before the next event", batches.len());
    hand_in(&handle, "a", 1);
    hub.poll();
    assert_eq!(hub.state.counters.heartbeats.get(), 1);
    assert!(batches.len() <= 40, "{} batches in two turns", batches.len());
    let thread = Builder::new().name("hub".to_owned()).spawn(move || hub.run()).unwrap();
    for _ in 0..=DASHBOARDS {
        batches.recv_timeout(TIMEOUT).unwrap();
    }
    handle.shutdown();
    assert_eq!(thread.join().unwrap(), Ok(()));
}

/// Dashboards that have fallen behind are answered in turn, who asks again after the others; and
/// when they leave, nothing is left of what they asked for.
#[test]
fn who_asks_again_waits_for_the_others() {
    let (mut hub, handle, batches) = polled(1, 3, 10_000);
    for dashboard in 0..3 {
        handle.resume(DashboardId(dashboard), Some(dashboard)).unwrap();
    }
    let mut answered = Vec::new();
    for _ in 0..9 {
        while hub.poll() {}
        let Ok(Batch::Changes { dashboards, .. }) = batches.try_recv() else { panic!("a stall") };
        let [dashboard] = dashboards[..] else { panic!("{dashboards:?}") };
        answered.push(dashboard);
        handle.resume(dashboard, Some(dashboard.0)).unwrap();
    }
    for [first, second, third] in answered.array_windows() {
        assert!(first != second && second != third && third != first, "{answered:?}");
    }
    for dashboard in 0..3 {
        handle.leave(DashboardId(dashboard));
    }
    while hub.poll() {}
    assert_eq!(hub.outboxes[0].counts(), (0, 0));
}

/// A fanout thread that is slower than the pool's agents change hears, after a while, of one that
/// is always the last to change: or that dashboards are to ask for themselves.
#[test]
fn a_slow_fanout_thread_hears_of_the_last_to_change() {
    const AGENTS: u64 = 1_000;
    let (mut hub, handle, batches) = polled(1, 1, 10_000);
    let hot = format!("agent-{}", AGENTS - 1);
    let mut number = 0;
    for taken in 0.. {
        assert!(taken < 50, "not heard of after {taken} batches");
        for _ in 0..2 {
            for agent in 0..AGENTS {
                number += 1;
                hand_in(&handle, &format!("agent-{agent}"), number);
            }
            while hub.poll() {}
        }
        let Ok(Batch::Updates { frames, .. }) = batches.try_recv() else { panic!("{taken}") };
        let is_gap = frames.last_seq().is_none();
        if is_gap || messages(&frames).iter().any(|it| it["metrics"]["agent_id"] == hot) {
            break;
        }
    }
}

impl HubHandle {
    pub(crate) fn inbox_room(&self) -> usize {
        HUB_INBOX - self.inbox.len()
    }
}

impl super::Hub {
    /// One turn on the caller's thread. Whether more is to be done.
    pub(crate) fn poll(&mut self) -> bool {
        self.poll_at(Clock::start().now())
    }

    /// The same, at this time.
    pub(crate) fn poll_at(&mut self, now: Instant) -> bool {
        assert!(self.turn(now).unwrap().is_continue());
        let (feeds, dashboards) = (self.state.rings.len(), self.watchers.len());
        assert!(self.state.rings.values().all(super::Ring::is_bounded), "a ring of the hub's");
        for outbox in &self.outboxes {
            let (requests, asked) = outbox.counts();
            assert!(requests <= 2 * feeds && asked <= dashboards, "requests of {outbox:?}");
        }
        !self.inbox.is_empty() || self.has_requests()
    }

    /// The number up to which the feed's batches have been made.
    pub(crate) fn made(&self, feed: FeedId) -> Option<u64> {
        self.state.schedule.made(feed)
    }

    /// Keeps snapshots of small pools as well, and for longer.
    pub(crate) fn keep_all_snapshots(&mut self) {
        self.state.kept.keep_all();
    }

    /// With fewer departures for who is behind than the constant gives.
    pub(crate) fn limit_departures(&mut self, max: usize) {
        self.state.registry.limit_departures(max);
    }
}
