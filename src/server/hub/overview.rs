//! What the overview's dashboards have been told: each pool in figures, as of the last look. Looks once
//! a second, and only at pools that somebody watches and that changed, also by time alone. Pure: pools
//! and instants in, messages out; the hub puts them into the feeds' rings.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use crate::runtime::clock::UnixMillis;
use crate::server::feed::FeedId;
use crate::server::registry::Pool;
use crate::wire::id::PoolId;
use crate::wire::{self, Envelope, ListedPool};

#[derive(Debug)]
pub(super) struct Overview {
    ids: Arc<[PoolId]>,
    /// For people.
    names: Arc<[String]>,
    /// By pool.
    shown: Vec<Shown>,
    /// The number of the last look; who joins between two looks is told of the same figures.
    look: u64,
    next_look: Option<Instant>,
    /// Numbers of the last messages, of feeds that have had one.
    seqs: BTreeMap<FeedId, u64>,
}

/// A pool as dashboards know it.
#[derive(Debug, Default)]
struct Shown {
    /// JSON.
    text: String,
    /// When it was worked out last.
    look: u64,
    /// The pool's count of changes with that.
    seq: u64,
    until: Option<Instant>,
}

/// A message, and its number.
pub(super) type Message = (FeedId, String, u64);

/// The time of a look, on both clocks.
pub(super) type Time = (Instant, UnixMillis);

impl Overview {
    pub(super) fn new(ids: Arc<[PoolId]>, names: Arc<[String]>) -> Self {
        let shown = ids.iter().map(|_| Shown::default()).collect();
        Self { ids, names, shown, look: 1, next_look: None, seqs: BTreeMap::new() }
    }

    /// Begins the next look, if it is time for one.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self.next_look.is_none_or(|at| now >= at);
        if is_due {
            self.next_look = Some(now + FeedId::AllPools.period());
            self.look += 1;
        }
        is_due
    }

    /// Looks at what these feeds show, and says what changed.
    pub(super) fn look(
        &mut self,
        pools: &[Pool],
        watched: &[FeedId],
        time: Time,
        epoch: &str,
    ) -> Vec<Message> {
        let mut changed = vec![false; pools.len()];
        for feed in watched {
            for index in self.pools_of(*feed) {
                changed[index] |= self.refresh(index, &pools[index], time);
            }
        }
        let mut messages = Vec::new();
        for &feed in watched {
            let mut shown = self.pools_of(feed).filter(|index| changed[*index]).peekable();
            if shown.peek().is_none() {
                continue;
            }
            let seq = self.seq(feed) + 1;
            let texts = shown.map(|index| &*self.shown[index].text);
            let envelope = Envelope { pool: None, server_time: time.1, epoch, seq };
            messages.push((feed, wire::pool_summaries(&envelope, texts), seq));
            self.seqs.insert(feed, seq);
        }
        messages
    }

    /// Somebody joins this feed. What nobody watched at the last look is worked out now.
    pub(super) fn join(&mut self, feed: FeedId, pools: &[Pool], time: Time) {
        for index in self.pools_of(feed) {
            self.refresh(index, &pools[index], time);
        }
    }

    /// The number of the feed's last message.
    pub(super) fn seq(&self, feed: FeedId) -> u64 {
        self.seqs.get(&feed).copied().unwrap_or_default()
    }

    /// All that the feed shows, as of the last look.
    pub(super) fn all(&self, feed: FeedId, server_time: UnixMillis, epoch: &str) -> String {
        let texts = self.pools_of(feed).map(|index| &*self.shown[index].text);
        let envelope = Envelope { pool: None, server_time, epoch, seq: self.seq(feed) };
        wire::pool_summaries(&envelope, texts)
    }

    fn pools_of(&self, feed: FeedId) -> std::ops::Range<usize> {
        match feed.pool() {
            Some(pool) => pool.0..pool.0 + 1,
            None => 0..self.shown.len(),
        }
    }

    /// Works out a pool's figures, unless this look has done so. Whether they are others now.
    fn refresh(&mut self, index: usize, pool: &Pool, (now, wall): Time) -> bool {
        let shown = &mut self.shown[index];
        if shown.look == self.look {
            return false;
        }
        shown.look = self.look;
        let holds = shown.seq == pool.seq() && shown.until.is_none_or(|until| now < until);
        if holds && !shown.text.is_empty() {
            return false;
        }
        let figures = pool.figures(now, wall, true);
        (shown.seq, shown.until) = (pool.seq(), figures.until);
        let (pool_id, name) = (self.ids[index].as_str(), &*self.names[index]);
        let listed = ListedPool { pool_id, name, app_keys: None, summary: &figures.summary };
        let text = listed.text();
        let has_changed = shown.text != text;
        shown.text = text;
        has_changed
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crossbeam_channel::{bounded, never};
    use serde_json::{Value, json};

    use super::*;
    use crate::runtime::clock::Clock;
    use crate::server::event::{Batch, FanoutIndex, Stamp};
    use crate::server::hub::{Parts, hub};
    use crate::server::registry::{Registry, Rules};
    use crate::wire::id::{AgentId, DashboardId, PoolIndex};
    use crate::wire::{Ping, read_ping};

    const ALL: FeedId = FeedId::AllPools;
    const ONE: FeedId = FeedId::OnePool(PoolIndex(1));

    const RULES: Rules = Rules {
        evict_after: Duration::from_secs(300),
        tick: Duration::from_secs(1),
        max_agents_per_pool: 1_000,
        max_pool_bytes: 1 << 20,
        max_updates_per_second: usize::MAX,
    };

    /// Three pools, and a hand that feeds them.
    struct Play {
        overview: Overview,
        registry: Registry,
        start: Instant,
        number: u64,
    }

    fn play() -> Play {
        let ids: Arc<[_]> = ["p", "q", "r"].map(|id| PoolId::parse(id).unwrap()).into();
        let names: Arc<[_]> = ["P \"1\"", "Q", "R"].map(str::to_owned).into();
        let registry = Registry::new(ids.len(), RULES);
        let (overview, start) = (Overview::new(ids, names), Clock::start().now());
        Play { overview, registry, start, number: 0 }
    }

    impl Play {
        fn time(&self, ms: u64) -> Time {
            (self.start + Duration::from_millis(ms), UnixMillis(ms))
        }

        fn beat(&mut self, ms: u64, pool: usize, agent: &str, cpu: u64) {
            let agent = AgentId::parse(agent).unwrap();
            let body = json!({ "status": "idle", "cpu_usage": cpu, "memory_usage": 1 });
            let read = read_ping(body.to_string().as_bytes(), &agent, UnixMillis(ms));
            let Ok(Ping::Metrics(metrics)) = read else { panic!("{read:?}") };
            self.number += 1;
            let (at, wall) = self.time(ms);
            let stamp = Stamp { number: self.number, at, wall };
            self.registry.heartbeat(PoolIndex(pool), &agent, metrics, stamp, stamp.at).unwrap();
        }

        /// What a look at `ms` sends to these feeds, as `feed seq: pools`.
        fn look(&mut self, ms: u64, watched: &[FeedId]) -> Vec<String> {
            let time = self.time(ms);
            assert!(self.overview.is_due(time.0), "at {ms}");
            let messages = self.overview.look(&self.registry.pools, watched, time, "e");
            let show = |(feed, text, seq): Message| {
                let message: Value = serde_json::from_str(&text).unwrap();
                assert_eq!(message["seq"], seq);
                format!("{feed:?} {seq}: {}", pools(&message))
            };
            messages.into_iter().map(show).collect()
        }

        fn join(&mut self, ms: u64, feed: FeedId) -> Value {
            let time = self.time(ms);
            self.overview.join(feed, &self.registry.pools, time);
            serde_json::from_str(&self.overview.all(feed, time.1, "e")).unwrap()
        }
    }

    /// Ids, with the highest CPU load.
    fn pools(message: &Value) -> String {
        let pools = message["pools"].as_array().unwrap().iter();
        let show =
            |pool: &Value| format!("{} {}", pool["pool_id"].as_str().unwrap(), pool["cpu"]["max"]);
        pools.map(show).collect::<Vec<_>>().join(", ")
    }

    /// The first message has all pools that the feed shows, those without agents too, in the
    /// configuration's order.
    #[test]
    fn who_joins_is_told_of_all() {
        let mut play = play();
        play.beat(0, 1, "a", 7);
        let message = play.join(5, ALL);
        assert_eq!(pools(&message), "p null, q 7.0, r null");
        assert_eq!((&message["type"], &message["seq"]), (&json!("pool_summaries"), &json!(0)));
        assert_eq!((&message["epoch"], message.get("pool_id")), (&json!("e"), None));
        assert_eq!(message["server_time"], "1970-01-01T00:00:00.005Z");
        assert_eq!(message["pools"][0]["name"], "P \"1\"");
        assert_eq!(message["pools"][1]["cells"], "i0");
        assert_eq!(message["pools"][1].get("app_keys"), None);
        assert_eq!(pools(&play.join(5, ONE)), "q 7.0");
    }

    /// Later messages have the pools that changed, each feed's numbered one by one, and none comes
    /// where nothing changed.
    #[test]
    fn a_look_tells_of_what_changed() {
        let mut play = play();
        play.join(0, ALL);
        assert_eq!(play.look(0, &[ALL]), [""; 0]);
        play.beat(10, 0, "a", 1);
        play.beat(20, 2, "b", 2);
        play.beat(30, 2, "b", 3);
        assert!(!play.overview.is_due(play.time(999).0), "once a second");
        assert_eq!(play.look(1_000, &[ALL]), ["AllPools 1: p 1.0, r 3.0"]);
        assert_eq!(play.look(2_000, &[ALL]), [""; 0]);
        // The pool has changed, and its figures have not.
        play.beat(2_100, 0, "a", 1);
        assert_eq!(play.look(3_000, &[ALL]), [""; 0]);
        play.join(3_100, ONE);
        play.beat(3_200, 1, "c", 4);
        play.beat(3_200, 2, "b", 5);
        let both = ["AllPools 2: q 4.0, r 5.0", "OnePool(PoolIndex(1)) 1: q 4.0"];
        assert_eq!(play.look(4_000, &[ALL, ONE]), both);
        play.beat(4_100, 2, "b", 6);
        assert_eq!(play.look(5_000, &[ALL, ONE]), ["AllPools 3: r 6.0"]);
        assert_eq!(play.overview.seq(ONE), 1);
    }

    /// Who joins between two looks is told what the others know, and then with them what changed:
    /// joiners cost no look.
    #[test]
    fn who_joins_between_two_looks_misses_nothing() {
        let mut play = play();
        play.join(0, ALL);
        assert_eq!(play.look(0, &[ALL]), [""; 0]);
        play.beat(100, 0, "a", 1);
        let joined = play.join(200, ALL);
        assert_eq!(
            (pools(&joined).as_str(), &joined["seq"]),
            ("p null, q null, r null", &json!(0))
        );
        assert_eq!(play.look(1_000, &[ALL]), ["AllPools 1: p 1.0"]);
        // Nobody watched for a while: who joins is told of now.
        play.beat(1_100, 0, "a", 2);
        assert_eq!(play.look(2_000, &[]), [""; 0]);
        assert_eq!(pools(&play.join(2_100, ALL)), "p 2.0, q null, r null");
        assert_eq!(play.look(3_000, &[ALL]), [""; 0]);
        // Nor does one pool's dashboard stand for the others.
        play.beat(3_100, 0, "a", 3);
        play.beat(3_100, 1, "b", 4);
        assert_eq!(play.look(4_000, &[ONE]), ["OnePool(PoolIndex(1)) 1: q 4.0"]);
        play.beat(4_100, 0, "a", 5);
        assert_eq!(pools(&play.join(4_200, ALL)), "p 5.0, q 4.0, r null");
    }

    /// Through the hub: who joins, and who fell behind, gets all pools, each at once with all others who
    /// wait; in between come those that changed, once for all.
    #[test]
    fn the_hub_answers_with_all_and_sends_what_changed() {
        let (fanout, batches) = bounded(10);
        let (tick, ticks) = bounded(1);
        let clock = Clock::start();
        let (mut hub, handle) = hub(Parts {
            pools: ["p", "q"].map(|id| PoolId::parse(id).unwrap()).into(),
            names: ["P", "Q"].map(str::to_owned).into(),
            epoch: "e".into(),
            rules: RULES,
            timeout: Duration::from_secs(20),
            ticks,
            windows: never(),
            fanouts: vec![fanout],
            clock,
            counters: Arc::default(),
        });
        let dashboards = [1, 2].map(DashboardId);
        for dashboard in dashboards {
            handle.join(dashboard, ALL, FanoutIndex(0)).unwrap();
        }
        while hub.poll() {}
        let all = |batch: Batch| match batch {
            Batch::Changes { feed: ALL, dashboards, frames } => (dashboards, frames.last_seq()),
            other => panic!("{other:?}"),
        };
        assert_eq!(all(batches.try_recv().unwrap()), (dashboards.to_vec(), Some(0)));
        let body = br#"{"status":"idle","cpu_usage":1,"memory_usage":1}"#;
        let agent = AgentId::parse("a").unwrap();
        for (number, pool) in [(1, 1), (2, 0)] {
            let Ok(Ping::Metrics(metrics)) = read_ping(body, &agent, UnixMillis(0)) else {
                panic!("no metrics")
            };
            let stamp = Stamp { number, at: clock.now(), wall: UnixMillis(0) };
            handle.heartbeat(PoolIndex(pool), agent.clone(), metrics, stamp).unwrap();
            while hub.poll() {}
            assert!(batches.is_empty(), "before the second is over");
            tick.send(clock.now() + number as u32 * ALL.period()).unwrap();
            while hub.poll() {}
            let Ok(Batch::Updates { feed: ALL, since, frames }) = batches.try_recv() else {
                panic!("no update")
            };
            assert_eq!((since, frames.last_seq()), (number - 1, Some(number)));
            let text = String::from_utf8_lossy(frames.bytes()).into_owned();
            let is_told = |id: &str| text.contains(&format!(r#""pool_id":"{id}""#));
            assert_eq!((is_told("p"), is_told("q")), (pool == 0, pool == 1), "{text}");
        }
        for (dashboard, since) in dashboards.into_iter().zip([Some(0), None]) {
            handle.resume(dashboard, since).unwrap();
        }
        while hub.poll() {}
        assert_eq!(all(batches.try_recv().unwrap()), (dashboards.to_vec(), Some(2)));
        for dashboard in dashboards {
            handle.leave(dashboard);
        }
        while hub.poll() {}
        tick.send(clock.now() + 9 * ALL.period()).unwrap();
        while hub.poll() {}
        assert!(batches.is_empty());
    }

    /// An agent becomes late without any change in its pool.
    #[test]
    fn a_pool_changes_by_time_alone() {
        let mut play = play();
        for ms in [0, 1_000] {
            play.beat(ms, 0, "a", 1);
        }
        play.join(1_000, ALL);
        assert_eq!(play.look(8_000, &[ALL]), [""; 0], "at the limit of seven seconds");
        assert_eq!(play.look(9_000, &[ALL]), ["AllPools 1: p null"]);
        let message = play.join(9_000, ALL);
        assert_eq!(
            (&message["pools"][0]["late"], &message["pools"][0]["free"]),
            (&json!(1), &json!(0))
        );
        assert_eq!(message["pools"][0]["cells"], "l0");
        assert_eq!(play.look(10_000, &[ALL]), [""; 0]);
    }
}
