//! The flood limit as transcripts: what dashboards are told of an agent that beats too often, and when.

use super::WINDOW;
use crate::server::event::Verdict;
use crate::server::registry::transcripts::{DEFERRED, POOL, Play, metrics, play_with};
use crate::wire::HISTORY_BYTES;

/// At most four updates of an agent in a second.
fn limited() -> Play {
    play_with(|rules| rules.max_updates_per_second = 4)
}

impl Play {
    /// A heartbeat of "a", with this CPU figure.
    fn cpu(&mut self, ms: u64, cpu: f64) -> Result<u64, Verdict> {
        let stamp = self.stamp(ms);
        self.beat_stamped("a", cpu, stamp)
    }

    /// The sequence numbers of what is announced at `ms`.
    fn announced(&mut self, ms: u64) -> Vec<u64> {
        let now = self.at(ms);
        self.registry.announce_due(now).into_iter().map(|(_, change)| change.seq).collect()
    }

    /// What dashboards have that have all, and what other readers get.
    fn shown(&self) -> [serde_json::Value; 2] {
        let pool = self.pool();
        let wall = crate::runtime::clock::UnixMillis(0);
        [pool.snapshot(wall), pool.newest_snapshot(wall)].map(|snapshot| {
            let id = crate::wire::id::PoolId::parse("p").unwrap();
            let text = snapshot.text(&id, "e");
            let value: serde_json::Value = serde_json::from_str(&text).unwrap();
            value["metrics"][0]["cpu_usage"].clone()
        })
    }

    fn changed(&self, since: u64) -> Vec<u64> {
        self.pool().changes(since).unwrap().map(|change| change.seq).collect()
    }
}

/// Up to the limit nothing waits; the next one does, until the first is a second ago, and of those
/// that wait the newest is announced. Other readers have it at once.
#[test]
fn what_comes_too_often_waits_and_the_newest_follows() {
    let mut play = limited();
    for (ms, seq) in [(0, 1), (10, 2), (20, 3), (30, 4)] {
        assert_eq!(play.cpu(ms, 1.0), Ok(seq), "at {ms}");
    }
    for (ms, cpu) in [(40, 2.0), (500, 3.0), (999, 4.0)] {
        assert_eq!(play.cpu(ms, cpu), Ok(DEFERRED), "at {ms}");
        assert_eq!(play.shown(), [1.0, cpu]);
        assert_eq!(play.announced(ms), [0; 0]);
    }
    assert_eq!((play.pool().seq(), play.changed(0)), (4, vec![4]));
    assert_eq!(play.registry.next_announcement(), Some(play.at(1_000)));
    assert_eq!(play.announced(1_000), [5]);
    assert_eq!((play.shown(), play.changed(4)), ([4.0.into(), 4.0.into()], vec![5]));
    assert_eq!(play.registry.next_announcement(), None);
    assert_eq!(play.cpu(1_009, 5.0), Ok(DEFERRED), "10, 20, 30 and 1,000");
    assert_eq!(play.cpu(1_010, 6.0), Ok(6), "one of these is a second ago");
    assert_eq!(play.announced(2_000), [0; 0], "what waited was overtaken");
    assert_eq!(play.shown(), [6.0, 6.0]);
}

/// However often an agent beats: in no second more than the limit, in the long run the limit, and
/// the last heartbeat is always announced.
#[test]
fn no_second_has_more_than_the_limit() {
    for every_ms in [1, 7, 90, 249, 251, 400] {
        let (mut play, mut announced, mut cpu) = (limited(), Vec::new(), 0.0);
        for ms in 0..10_000 {
            if ms % every_ms == 0 {
                cpu = f64::from(u32::try_from(ms % 97).unwrap());
                let told = play.cpu(ms, cpu).unwrap();
                announced.extend((told != DEFERRED).then_some(ms));
            }
            announced.extend(play.announced(ms).iter().map(|_| ms));
        }
        for times in announced.windows(5) {
            assert!(times[4] - times[0] >= 1_000, "{times:?}, every {every_ms}");
        }
        let possible = (10_000 / every_ms).min(40);
        assert!(announced.len() as u64 >= possible - 1, "{announced:?}, every {every_ms}");
        play.announced(11_000);
        assert_eq!(play.shown(), [cpu, cpu]);
    }
}

/// An agent that leaves or is evicted is not announced afterwards, nor is the one that comes back,
/// which begins anew.
#[test]
fn who_departs_is_announced_no_more() {
    let mut play = limited();
    for ms in 0..5 {
        play.cpu(ms, 1.0).unwrap();
    }
    play.goodbye(5, "a");
    assert_eq!(play.pool().seq(), 5);
    assert_eq!(play.pool().population(), (0, HISTORY_BYTES), "no more than of any that departs");
    assert_eq!(play.cpu(6, 2.0), Ok(6), "as from a new agent");
    assert_eq!(play.announced(1_004), [0; 0]);
    for ms in 1_005..1_010 {
        play.cpu(ms, 3.0).unwrap();
    }
    play.quiet(1_010, 10_010);
    assert_eq!(play.tick(11_010), ["a"]);
    assert_eq!(play.announced(20_000), [0; 0]);
}

/// Who is about to see a pool has what was heard before, and it does not follow a second time.
#[test]
fn what_waited_is_announced_to_who_comes() {
    let mut play = limited();
    for ms in 0..5 {
        play.cpu(ms, 1.0).unwrap();
    }
    let now = play.at(5);
    let announced = play.registry.announce_all(POOL, now);
    assert_eq!(announced.iter().map(|change| change.seq).collect::<Vec<_>>(), [5]);
    assert_eq!(play.announced(5_000), [0; 0]);
}

/// Both states count while there are two. Where there is room for one only, it is announced at once:
/// an agent that is known and whose state fits is refused nothing.
#[test]
fn what_waits_is_bounded_with_the_pool() {
    let small = metrics("a", 1.0, 0).cost_bytes();
    let mut play = play_with(|rules| {
        (rules.max_updates_per_second, rules.max_pool_bytes) = (1, 2 * small);
    });
    assert_eq!(play.cpu(0, 1.0), Ok(1));
    assert_eq!(play.pool().population(), (1, small));
    assert_eq!((play.cpu(1, 1.0), play.cpu(2, 1.0)), (Ok(DEFERRED), Ok(DEFERRED)));
    assert_eq!(play.pool().population(), (1, 2 * small));
    assert_eq!(play.announced(1_000), [2]);
    assert_eq!(play.pool().population(), (1, small));
    assert_eq!(play.beat(1_001, "b"), Ok(3));
    assert_eq!(play.cpu(1_002, 1.0), Ok(4));
    assert_eq!(play.pool().population(), (2, 2 * small));
    assert_eq!(play.beat(1_003, "c"), Err(Verdict::TooManyBytes));
    assert_eq!(WINDOW.as_millis(), 1_000);
}

/// A snapshot for other readers tells two states apart that have one sequence number.
#[test]
fn each_heartbeat_is_another_version() {
    let mut play = limited();
    let mut versions = Vec::new();
    for ms in 0..8 {
        play.cpu(ms, 1.0).unwrap();
        versions.push(play.pool().newest_snapshot(crate::runtime::clock::UnixMillis(0)).version);
    }
    play.announced(1_000);
    versions.push(play.pool().newest_snapshot(crate::runtime::clock::UnixMillis(0)).version);
    assert!(versions.is_sorted_by(|a, b| a < b), "{versions:?}");
}
