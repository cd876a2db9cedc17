//! The snapshots that dashboards of one fanout thread are taking: shared among those who come close
//! together, and bounded in memory, together with large batches. Sends nothing.

use std::sync::{Arc, Weak};

use crate::server::frame::Frames;
use crate::server::snapshot::SharedSnapshot;
use crate::wire::MIB;
use crate::wire::id::{PoolId, PoolIndex};

/// All snapshots and large batches of a fanout thread together, in bytes: enough for two of a large pool. Beyond it
/// those who come get one that others are still taking. A pool may always have one, so that no
/// pool's slow readers keep another pool's waiting.
const MAX_SNAPSHOT_BYTES: usize = 64 * MIB;

/// A snapshot is shared until as many changes as a quarter of its agents have come: so many more
/// messages follow for who gets it late.
const SHARED_UNTIL: u64 = 4;

#[derive(Debug)]
pub(super) struct Snapshots {
    /// The last of each pool, while somebody takes it.
    newest: Vec<Weak<Frames>>,
    /// All that somebody may still be taking.
    taken: Vec<Weak<Frames>>,
    max_bytes: usize,
}

impl Snapshots {
    pub(super) fn new(pools: usize) -> Self {
        let newest = (0..pools).map(|_| Weak::new()).collect();
        Self { newest, taken: Vec::new(), max_bytes: MAX_SNAPSHOT_BYTES }
    }

    /// What to send where `present` is the pool's state: that, or a recent snapshot from which
    /// the changes since lead to it, those after `complete_since` being known. `None` when there is
    /// no memory and nothing to share.
    pub(super) fn get(
        &mut self,
        pool: PoolIndex,
        present: &SharedSnapshot,
        complete_since: u64,
        id: &PoolId,
        epoch: &str,
    ) -> Option<Arc<Frames>> {
        self.taken.retain(|frames| frames.strong_count() > 0);
        let newest = self.newest[pool.0].upgrade();
        let fits = self.fits(present.text_bytes);
        let may_be_made = newest.is_none() || fits;
        let shared = newest.filter(|frames| frames.last_seq() >= Some(complete_since));
        let is_recent = |frames: &Arc<Frames>| {
            let seq = frames.last_seq().unwrap_or_default();
            present.seq.saturating_sub(seq) * SHARED_UNTIL < present.agents
        };
        if shared.as_ref().is_some_and(is_recent) || !may_be_made {
            return shared;
        }
        match present.frames(id, epoch) {
            Ok(frames) => {
                self.newest[pool.0] = Arc::downgrade(&frames);
                self.taken.push(Arc::downgrade(&frames));
                Some(frames)
            }
            Err(error) => {
                log::warn!("no memory for a snapshot, trying again: {error}");
                shared
            }
        }
    }

    /// Whether dashboards may be given this batch, which some of them may take slowly. Small ones are
    /// not counted: what a ring holds of them is bounded, too.
    pub(super) fn admit(&mut self, batch: &Arc<Frames>) -> bool {
        self.taken.retain(|frames| frames.strong_count() > 0);
        let fits = !batch.is_large() || self.fits(batch.bytes().len());
        if fits && batch.is_large() {
            self.taken.push(Arc::downgrade(batch));
        }
        fits
    }

    fn fits(&self, bytes: usize) -> bool {
        let taken = self.taken.iter().filter_map(Weak::upgrade);
        taken.map(|frames| frames.bytes().len()).sum::<usize>() + bytes <= self.max_bytes
    }

    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.taken.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::clock::UnixMillis;
    use crate::wire::id::AgentId;
    use crate::wire::{Metrics, Ping, Snapshot, SnapshotAgent, read_ping};

    const POOL: PoolIndex = PoolIndex(0);

    impl Snapshots {
        pub(in crate::server::fanout) fn limit(&mut self, max_bytes: usize) {
            self.max_bytes = max_bytes;
        }

        /// Beside each pool's newest.
        pub(in crate::server::fanout) fn is_bounded(&self) -> bool {
            let is_older = |frames: &&Weak<Frames>| !self.newest.iter().any(|it| it.ptr_eq(frames));
            let older = self.taken.iter().filter(is_older).filter_map(Weak::upgrade);
            older.map(|frames| frames.bytes().len()).sum::<usize>() <= self.max_bytes
        }
    }

    fn metrics(agent: &AgentId) -> Metrics {
        let body = br#"{"status": "busy", "cpu_usage": 1, "memory_usage": 2}"#;
        match read_ping(body, agent, UnixMillis(0)) {
            Ok(Ping::Metrics(metrics)) => metrics,
            other => panic!("{other:?}"),
        }
    }

    /// Of a pool with eight agents.
    fn present(seq: u64, complete_since: u64) -> Snapshot {
        let agent = AgentId::parse("a").unwrap();
        let metrics = Arc::new(metrics(&agent));
        let agent = SnapshotAgent { agent, metrics, interval_ms: None };
        let agents = vec![agent; 8];
        Snapshot {
            agents,
            departed: vec![],
            departures: Default::default(),
            server_time: UnixMillis(0),
            seq,
            version: seq,
            complete_since,
        }
    }

    fn get(snapshots: &mut Snapshots, present: Snapshot) -> Option<Arc<Frames>> {
        {
            let since = present.complete_since;
            snapshots.get(POOL, &present.into(), since, &PoolId::parse("p").unwrap(), "e")
        }
    }

    /// Shared until a quarter of the agents have changed, and only while somebody takes it.
    #[test]
    fn a_recent_snapshot_is_shared() {
        let mut snapshots = Snapshots::new(1);
        let first = get(&mut snapshots, present(10, 0)).unwrap();
        assert_eq!(first.last_seq(), Some(10));
        assert!(Arc::ptr_eq(&first, &get(&mut snapshots, present(11, 0)).unwrap()));
        let second = get(&mut snapshots, present(12, 0)).unwrap();
        assert_eq!(second.last_seq(), Some(12), "a quarter has changed");
        assert_eq!(get(&mut snapshots, present(13, 13)).unwrap().last_seq(), Some(13), "a gap");
        drop(get(&mut snapshots, present(20, 0)));
        assert_eq!(get(&mut snapshots, present(20, 0)).unwrap().last_seq(), Some(20));
    }

    /// However many come and go one after the other, nothing is kept of those who have gone.
    #[test]
    fn nothing_is_kept_of_what_nobody_takes() {
        let mut snapshots = Snapshots::new(1);
        for seq in 1..=100 {
            drop(get(&mut snapshots, present(100 * seq, 0)).unwrap());
            assert!(snapshots.kept() <= 1, "{} kept after {seq}", snapshots.kept());
        }
    }

    /// Without memory an older one is shared; without one that may be, there is none. Another
    /// pool has its own.
    #[test]
    fn memory_is_bounded() {
        let mut snapshots = Snapshots { max_bytes: 4_000, ..Snapshots::new(2) };
        let first = get(&mut snapshots, present(10, 0)).unwrap();
        let id = PoolId::parse("q").unwrap();
        assert!(snapshots.get(PoolIndex(1), &present(10, 0).into(), 0, &id, "e").is_some());
        assert!(Arc::ptr_eq(&first, &get(&mut snapshots, present(99, 10)).unwrap()));
        assert!(get(&mut snapshots, present(99, 11)).is_none());
        drop(first);
        assert_eq!(get(&mut snapshots, present(99, 11)).unwrap().last_seq(), Some(99));
    }

    /// Large batches count with snapshots, while somebody takes them; small ones do not.
    #[test]
    fn large_batches_are_bounded() {
        let large = |bytes| {
            let mut frames = Frames::for_fragments(bytes).unwrap();
            frames.push_fragment(&vec![b'x'; bytes], true, 1, 2);
            Arc::new(frames)
        };
        let mut snapshots = Snapshots { max_bytes: 4_000, ..Snapshots::new(1) };
        let first = large(3_000);
        assert!(snapshots.admit(&first));
        assert!(!snapshots.admit(&large(1_500)) && snapshots.admit(&large(900)));
        let mut small = Frames::default();
        small.push_text(&"x".repeat(5_000), 1);
        assert!(snapshots.admit(&Arc::new(small)));
        drop(first);
        assert!(snapshots.admit(&large(3_900)));
        assert_eq!(snapshots.kept(), 1);
    }

    /// Somebody who is still taking an old one keeps nobody else of the pool waiting.
    #[test]
    fn there_is_always_room_for_a_pools_only_recent_snapshot() {
        let mut snapshots = Snapshots::new(1);
        let _slow = get(&mut snapshots, present(10, 0)).unwrap();
        drop(get(&mut snapshots, present(99, 11)).unwrap());
        snapshots.max_bytes = 0;
        assert_eq!(get(&mut snapshots, present(200, 100)).unwrap().last_seq(), Some(200));
    }
}
