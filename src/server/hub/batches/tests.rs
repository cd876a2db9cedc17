//! The hub's batches, on the test's own thread, with the time in the test's hands.

use std::time::Duration;

use crossbeam_channel::Receiver;
use serde_json::{Value, json};

use super::*;
use crate::runtime::clock::UnixMillis;
use crate::server::event::{Batch, FanoutIndex, Stamp};
use crate::server::hub::tests::{POOL, hand_in, messages, polled};
use crate::server::hub::{Hub, HubHandle};
use crate::server::limits::MAX_DEPARTURE_CHANGES;
use crate::server::ring::MAX_RING_BYTES;
use crate::wire::id::{AgentId, DashboardId};

struct Stage {
    hub: Hub,
    handle: HubHandle,
    batches: Receiver<Batch>,
    base: Instant,
    number: u64,
}

fn feed(ms: u64) -> FeedId {
    FeedId::of_pool(POOL, Some(&format!("batch_ms={ms}"))).unwrap()
}

/// A hub with these dashboards, numbered from 0, which have been sent their snapshots.
fn stage(feeds: &[FeedId]) -> Stage {
    let (hub, handle, batches) = polled(1_000, 0, 20_000);
    let base = hub.now;
    let mut stage = Stage { hub, handle, batches, base, number: 0 };
    for (id, feed) in feeds.iter().enumerate() {
        stage.join(id as u64, *feed);
    }
    assert_eq!(stage.poll(0).len(), feeds.iter().collect::<BTreeSet<_>>().len());
    stage
}

impl Stage {
    fn join(&self, id: u64, feed: FeedId) {
        self.handle.join(DashboardId(id), feed, FanoutIndex(0)).unwrap();
    }

    fn beat(&mut self, agents: &[&str]) {
        for agent in agents {
            self.number += 1;
            hand_in(&self.handle, agent, self.number);
        }
    }

    fn goodbye(&mut self, agent: &str) {
        self.number += 1;
        let stamp = Stamp { number: self.number, at: self.base, wall: UnixMillis(0) };
        self.handle.goodbye(POOL, AgentId::parse(agent).unwrap(), stamp).unwrap();
    }

    /// What the hub sends at `ms`.
    fn poll(&mut self, ms: u64) -> Vec<Batch> {
        while self.hub.poll_at(self.base + Duration::from_millis(ms)) {}
        self.batches.try_iter().collect()
    }

    /// The feed and the message of the only batch that it sends at `ms`.
    fn one(&mut self, ms: u64) -> (FeedId, Value) {
        match &self.poll(ms)[..] {
            [Batch::Updates { feed, frames, .. }] => (*feed, message(frames)),
            other => panic!("{other:?}"),
        }
    }

    /// What a dashboard gets that has all up to `since`, and who else got it.
    fn resume(&mut self, id: u64, since: u64) -> (Vec<DashboardId>, Vec<Value>) {
        self.handle.resume(DashboardId(id), Some(since)).unwrap();
        match &self.poll(0)[..] {
            [Batch::Changes { dashboards, frames, .. }] => (dashboards.clone(), messages(frames)),
            other => panic!("{other:?}"),
        }
    }
}

fn message(frames: &Frames) -> Value {
    let [message] = &messages(frames)[..] else { panic!("one message a batch") };
    assert_eq!(message["type"], "metrics_batch");
    message.clone()
}

/// Whom a batch is about.
fn agents(message: &Value) -> [Vec<&str>; 2] {
    ["metrics", "offline"].map(|member| {
        let entries = message[member].as_array().unwrap();
        entries.iter().map(|entry| entry["agent_id"].as_str().unwrap()).collect()
    })
}

/// After a pause the first change goes at once, the next not before a period is over, and then
/// what came meanwhile in one message. While nothing changes nothing is due.
#[test]
fn a_batch_goes_at_once_and_the_next_a_period_later() {
    let mut stage = stage(&[feed(250)]);
    assert_eq!(stage.hub.state.schedule.next_at(), None);
    stage.beat(&["a"]);
    assert_eq!(agents(&stage.one(1_000).1), [vec!["a"], vec![]]);
    stage.beat(&["b", "c", "b"]);
    stage.goodbye("c");
    assert!(stage.poll(1_001).is_empty());
    let due = stage.base + Duration::from_millis(1_250);
    assert_eq!(stage.hub.state.schedule.next_at(), Some(due));
    stage.beat(&["d"]);
    assert!(stage.poll(1_249).is_empty());
    let (_, batch) = stage.one(1_250);
    assert_eq!(agents(&batch), [vec!["b", "d"], vec!["c"]]);
    assert_eq!(batch["seq"], 6);
    assert_eq!(batch["offline"][0]["reason"], "goodbye");
    assert_eq!(stage.hub.state.schedule.next_at(), None);
    assert!(stage.poll(9_000).is_empty());
    stage.beat(&["a"]);
    assert_eq!(agents(&stage.one(9_001).1), [vec!["a"], vec![]]);
    stage.beat(&["a"]);
    assert!(stage.poll(9_250).is_empty());
    assert_eq!(stage.one(9_251).1["seq"], 8);
}

/// A batch is made once for all dashboards of a class, and each class has its own period.
#[test]
fn a_class_shares_its_batches() {
    let mut stage = stage(&[feed(1_000), feed(501), feed(1_000), feed(50)]);
    let made = |stage: &Stage| stage.hub.state.counters.batches.get();
    stage.beat(&["a"]);
    assert_eq!((stage.poll(0).len(), made(&stage)), (2, 2));
    stage.beat(&["a"]);
    assert_eq!(stage.one(50).0, feed(50));
    stage.beat(&["a"]);
    assert_eq!(stage.one(100).0, feed(50));
    let (slow, batch) = stage.one(1_000);
    assert_eq!((slow, made(&stage)), (feed(1_000), 5));
    assert_eq!(agents(&batch), [vec!["a"], vec![]]);
}

/// With the last dashboard of a class goes all that was kept for it.
#[test]
fn nothing_is_made_for_who_has_left() {
    let mut stage = stage(&[feed(250), feed(250)]);
    stage.beat(&["a"]);
    stage.one(0);
    stage.beat(&["a"]);
    assert!(stage.poll(1).is_empty());
    stage.handle.leave(DashboardId(0));
    assert!(stage.poll(2).is_empty());
    assert!(stage.hub.state.schedule.next_at().is_some(), "another one watches");
    stage.handle.leave(DashboardId(1));
    assert!(stage.poll(300).is_empty());
    let State { schedule, rings, .. } = &stage.hub.state;
    assert_eq!((schedule.next_at(), schedule.feeds.len(), rings.len()), (None, 0, 0));
}

/// Who fell behind, or joined within a period, gets what it lacks up to the last batch, in the
/// feed's own messages, and so goes on with the next one; who lacks the same shares it.
#[test]
fn who_lacks_something_gets_it_up_to_the_last_batch() {
    let mut stage = stage(&[feed(5_000), feed(5_000)]);
    stage.beat(&["a", "b", "c", "d"]);
    stage.goodbye("d");
    assert_eq!(stage.one(0).1["seq"], 5);
    stage.beat(&["c"]);
    stage.handle.resume(DashboardId(1), Some(1)).unwrap();
    let (dashboards, messages) = stage.resume(0, 1);
    assert_eq!(dashboards, [DashboardId(0), DashboardId(1)]);
    let [message] = &messages[..] else { panic!("{messages:?}") };
    assert_eq!(message["type"], "metrics_batch");
    assert_eq!(agents(message), [vec!["b"], vec!["d"]], "c follows with the next batch");
    assert_eq!(message["seq"], 5);
    assert_eq!(stage.resume(0, 5).1, [] as [Value; 0]);
    assert_eq!(stage.resume(0, 6).1, [] as [Value; 0], "a snapshot was newer");
    stage.beat(&["b"]);
    stage.goodbye("b");
    let (_, messages) = stage.resume(0, 1);
    assert_eq!(agents(&messages[0]), [vec![], vec!["d"]]);
    let (_, batch) = stage.one(5_000);
    assert_eq!(agents(&batch), [vec!["c"], vec!["b"]]);
    assert_eq!(batch["seq"], 8);
}

/// Where all that it lacks has changed again since, it still learns how far it is.
#[test]
fn what_has_changed_again_comes_with_the_next_batch() {
    let mut stage = stage(&[feed(5_000)]);
    stage.beat(&["a"]);
    stage.one(0);
    stage.beat(&["a"]);
    let (_, messages) = stage.resume(0, 0);
    assert_eq!((agents(&messages[0]), &messages[0]["seq"]), ([vec![], vec![]], &json!(1)));
}

/// Who is behind gets parts of about a batch's size, of which each has the oldest changes.
#[test]
fn what_was_missed_comes_in_parts() {
    let mut stage = stage(&[feed(1_000)]);
    let names: Vec<_> = (0..1_000).map(|agent| format!("agent-{agent}")).collect();
    stage.beat(&names.iter().map(String::as_str).collect::<Vec<_>>());
    // More than a turn handles: the first batch has a part of them.
    stage.poll(0);
    stage.poll(1_000);
    let (mut since, mut parts) = (0, 0);
    while since < 1_000 {
        let (_, messages) = stage.resume(0, since);
        let [message] = &messages[..] else { panic!("{messages:?}") };
        assert!(message.to_string().len() < 2 * MAX_BATCH_BYTES);
        let [heard, _] = agents(message);
        assert_eq!(heard[0], names[usize::try_from(since).unwrap()]);
        since += heard.len() as u64;
        assert_eq!(message["seq"], since);
        parts += 1;
    }
    assert!(parts > 2, "{parts}");
}

/// More departures than are remembered: dashboards see a gap, ask, and get a snapshot.
#[test]
fn forgotten_departures_are_a_gap() {
    let mut stage = stage(&[feed(250)]);
    stage.beat(&["a"]);
    stage.one(0);
    for _ in 0..=MAX_DEPARTURE_CHANGES {
        let agent = format!("agent-{}", stage.number);
        stage.beat(&[&agent]);
        stage.goodbye(&agent);
        stage.poll(1);
    }
    let seq = stage.hub.state.registry.pools[POOL.0].seq();
    match &stage.poll(250)[..] {
        [Batch::Updates { since, frames, .. }] => {
            assert_eq!((*since, frames.last_seq()), (seq, None));
        }
        other => panic!("{other:?}"),
    }
    stage.handle.resume(DashboardId(0), Some(1)).unwrap();
    assert!(matches!(stage.poll(250)[..], [Batch::Snapshot { .. }]));
}

/// A batch of many agents is one message in fragments, in pages of its own; it stays in the ring
/// for who is quick, however large it is.
#[test]
fn a_large_batch_is_one_message_in_fragments() {
    let mut stage = stage(&[feed(250)]);
    stage.beat(&["first"]);
    stage.one(0);
    for agent in 0..3_000 {
        stage.beat(&[&format!("agent-{agent}")]);
        if agent % 1_000 == 999 {
            assert!(stage.poll(1).is_empty());
        }
    }
    match &stage.poll(250)[..] {
        [Batch::Updates { since: 1, frames, .. }] => {
            assert!(frames.is_large() && frames.bytes().len() > MAX_RING_BYTES);
            assert_eq!(frames.last_seq(), Some(3_001));
            let count = frames.count_after(1);
            assert!(count > MAX_RING_BYTES / FRAGMENT_BYTES, "{count} fragments");
        }
        other => panic!("{other:?}"),
    }
}

/// Large batches of several periods that are due together are made in several turns, between which
/// events are handled; none waits for an event.
#[test]
fn few_large_batches_are_made_in_a_turn() {
    let feeds = [250, 500, 1_000].map(feed);
    let mut stage = stage(&feeds);
    for agent in 0..3_000 {
        stage.beat(&[&format!("agent-{agent}")]);
        if agent % 1_000 == 999 {
            while !stage.hub.inbox.is_empty() {
                let _ = stage.hub.turn(stage.base);
            }
        }
    }
    let made = |stage: &Stage| stage.hub.state.counters.batches.get();
    let at = stage.base + Duration::from_secs(1);
    let before = made(&stage);
    for turn in 1..=3 {
        assert!(stage.hub.state.schedule.is_due(at));
        let _ = stage.hub.turn(at);
        assert_eq!(made(&stage), before + turn);
    }
    assert!(!stage.hub.state.schedule.is_due(at));
}

/// What waits for its time goes out before the end.
#[test]
fn the_end_waits_for_no_period() {
    let mut stage = stage(&[feed(5_000)]);
    stage.beat(&["a"]);
    stage.one(0);
    stage.beat(&["b"]);
    stage.handle.shutdown();
    let Stage { hub, batches, .. } = stage;
    assert_eq!(hub.run(), Ok(()));
    match &batches.try_iter().collect::<Vec<_>>()[..] {
        [Batch::Updates { frames, .. }] => assert_eq!(agents(&message(frames))[0], ["b"]),
        other => panic!("{other:?}"),
    }
}
