//! The last snapshots of large pools, for dashboards that join within a second: they are sent it and
//! what came since. Decides whether one may still be given.

use std::collections::VecDeque;
use std::sync::Arc;

use super::State;
use crate::runtime::clock::UnixMillis;
use crate::server::snapshot::{SNAPSHOT_SHARED_FOR, SharedSnapshot};
use crate::wire::id::PoolIndex;
use crate::wire::{KIB, MIB};

/// Smaller ones are not kept: they are encoded in less than a millisecond.
const MIN_KEPT_BYTES: usize = 256 * KIB;

/// All kept ones together: two of a large pool.
const MAX_KEPT_BYTES: usize = 64 * MIB;

/// One is given until as many changes as this part of its agents have come: those that follow it
/// are hardly more to send, and most fit a fanout thread's ring.
const KEPT_UNTIL: u64 = 16;

#[derive(Debug)]
pub(super) struct KeptSnapshots {
    /// The newest last; at most one a pool.
    kept: VecDeque<Kept>,
    min_bytes: usize,
    /// See [`KEPT_UNTIL`].
    until: u64,
}

#[derive(Debug)]
struct Kept {
    pool: PoolIndex,
    snapshot: Arc<SharedSnapshot>,
    /// A tick has come since.
    is_old: bool,
}

impl Default for KeptSnapshots {
    fn default() -> Self {
        Self { kept: VecDeque::new(), min_bytes: MIN_KEPT_BYTES, until: KEPT_UNTIL }
    }
}

impl KeptSnapshots {
    /// The pool's, if it serves who joins now: the pool's last change is `seq`, and the changes since
    /// `complete_since` can be had.
    pub(super) fn get(
        &self,
        pool: PoolIndex,
        seq: u64,
        complete_since: u64,
        wall: UnixMillis,
    ) -> Option<Arc<SharedSnapshot>> {
        let Kept { snapshot, .. } = self.kept.iter().find(|kept| kept.pool == pool)?;
        let age_ms = u128::from(wall.0.abs_diff(snapshot.server_time.0));
        let is_recent = age_ms < SNAPSHOT_SHARED_FOR.as_millis()
            && snapshot.seq >= complete_since
            && (seq - snapshot.seq) * self.until < snapshot.agents;
        is_recent.then(|| Arc::clone(snapshot))
    }

    pub(super) fn keep(&mut self, pool: PoolIndex, snapshot: &Arc<SharedSnapshot>) {
        self.kept.retain(|kept| kept.pool != pool);
        if snapshot.text_bytes < self.min_bytes {
            return;
        }
        self.kept.push_back(Kept { pool, snapshot: Arc::clone(snapshot), is_old: false });
        while self.bytes() > MAX_KEPT_BYTES {
            self.kept.pop_front();
        }
    }

    /// Called with each tick, which come every second at most: lets go of those from before the last.
    pub(super) fn expire(&mut self) {
        self.kept.retain(|kept| !kept.is_old);
        self.kept.iter_mut().for_each(|kept| kept.is_old = true);
    }

    fn bytes(&self) -> usize {
        self.kept.iter().map(|kept| kept.snapshot.text_bytes).sum()
    }

    /// Those of small pools as well, until as many changes as agents have come.
    #[cfg(test)]
    pub(super) fn keep_all(&mut self) {
        (self.min_bytes, self.until) = (0, 1);
    }
}

impl State {
    /// A snapshot for dashboards of this pool: one that is kept, if they have none, or a new one.
    pub(super) fn shared_snapshot(
        &mut self,
        id: PoolIndex,
        have_none: bool,
    ) -> Arc<SharedSnapshot> {
        let (pool, wall) = (&self.registry.pools[id.0], self.clock.wall());
        let kept = || self.kept.get(id, pool.seq(), pool.complete_since(), wall);
        if let Some(snapshot) = have_none.then(kept).flatten() {
            return snapshot;
        }
        let snapshot = Arc::new(SharedSnapshot::from(self.snapshot(id)));
        self.kept.keep(id, &snapshot);
        snapshot
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::Receiver;

    use super::*;
    use crate::runtime::clock::Clock;
    use crate::server::event::{Batch, FanoutIndex, Stamp};
    use crate::server::feed::FeedId;
    use crate::server::hub::tests::{POOL, hand_in, polled};
    use crate::server::hub::{Hub, HubHandle};
    use crate::wire::Snapshot;
    use crate::wire::id::{AgentId, DashboardId};

    type Stage = (Hub, HubHandle, Receiver<Batch>);

    fn snapshot(text_bytes: usize, server_time: u64) -> Arc<SharedSnapshot> {
        let (agents, departed) = (Vec::new(), Vec::new());
        let (server_time, departures) = (UnixMillis(server_time), Default::default());
        let snapshot = Snapshot {
            agents,
            departed,
            departures,
            server_time,
            seq: 1_000,
            complete_since: 0,
            version: 1_000,
        };
        let mut shared = SharedSnapshot::from(snapshot);
        (shared.agents, shared.text_bytes) = (1_600, text_bytes);
        Arc::new(shared)
    }

    const POOLS: [PoolIndex; 4] = [PoolIndex(0), PoolIndex(1), PoolIndex(2), PoolIndex(3)];

    #[test]
    fn one_is_given_for_a_second_and_while_little_has_changed() {
        let mut kept = KeptSnapshots::default();
        kept.keep(POOLS[0], &snapshot(MIN_KEPT_BYTES, 5_000));
        let is_given = |pool, seq, complete_since, wall| {
            kept.get(pool, seq, complete_since, UnixMillis(wall)).is_some()
        };
        assert!(is_given(POOLS[0], 1_099, 1_000, 5_999));
        assert!(!is_given(POOLS[1], 1_099, 1_000, 5_999), "another pool");
        assert!(!is_given(POOLS[0], 1_100, 1_000, 5_999), "a sixteenth has changed");
        assert!(!is_given(POOLS[0], 1_099, 1_001, 5_999), "not all changes can be had");
        assert!(!is_given(POOLS[0], 1_099, 1_000, 6_000), "a second");
        assert!(!is_given(POOLS[0], 1_099, 1_000, 4_000), "the clock was set back");
    }

    /// Those that are quick to make are not kept, and all together have a bound.
    #[test]
    fn few_are_kept() {
        let mut kept = KeptSnapshots::default();
        kept.keep(POOLS[0], &snapshot(MIN_KEPT_BYTES, 0));
        kept.keep(POOLS[0], &snapshot(MIN_KEPT_BYTES - 1, 0));
        assert_eq!(kept.kept.len(), 0, "nor an older one in its place");
        for (pool, count) in POOLS.into_iter().zip([1, 2, 2, 2]) {
            kept.keep(pool, &snapshot(MAX_KEPT_BYTES / 2, 0));
            assert_eq!(kept.kept.len(), count);
            assert_eq!(kept.kept.back().map(|kept| kept.pool), Some(pool));
        }
        kept.keep(POOLS[3], &snapshot(MAX_KEPT_BYTES / 2, 1));
        assert_eq!(kept.kept.len(), 2, "at most one a pool");
        kept.keep(POOLS[0], &snapshot(MAX_KEPT_BYTES + 1, 0));
        assert_eq!(kept.kept.len(), 0);
    }

    /// What the hub sends a dashboard that joins, or that asks for a snapshot.
    fn snapshot_for(
        (hub, handle, batches): &mut Stage,
        dashboard: u64,
        joins: bool,
    ) -> Arc<SharedSnapshot> {
        let id = DashboardId(dashboard);
        if joins {
            handle.join(id, FeedId::Updates(POOL), FanoutIndex(0)).unwrap();
        } else {
            handle.resume(id, None).unwrap();
        }
        while hub.poll() {}
        loop {
            match batches.try_recv().unwrap() {
                Batch::Snapshot { snapshot, dashboards, .. } => {
                    assert_eq!(dashboards, [id]);
                    return snapshot;
                }
                Batch::Updates { .. } => {}
                Batch::Changes { .. } => panic!("it asked for no changes"),
            }
        }
    }

    /// Who joins soon after another gets the same snapshot, until too much has changed or time is up.
    /// Who had one already gets a new one: it may have seen more.
    #[test]
    fn who_joins_soon_shares_a_snapshot() {
        let mut stage = polled(64, 0, 100);
        stage.0.keep_all_snapshots();
        let change = |stage: &mut Stage, number| {
            hand_in(&stage.1, &format!("agent-{}", number % 4), number);
            while stage.0.poll() {}
        };
        (1..=4).for_each(|number| change(&mut stage, number));
        let mut last = snapshot_for(&mut stage, 1, true);
        assert_eq!(last.seq, 4);
        (5..=7).for_each(|number| change(&mut stage, number));
        assert!(Arc::ptr_eq(&last, &snapshot_for(&mut stage, 2, true)), "three of four changed");
        change(&mut stage, 8);
        for (joins, seq, why) in [(true, 8, "all have changed"), (false, 8, "it had one")] {
            let next = snapshot_for(&mut stage, if joins { 3 } else { 1 }, joins);
            assert!(!Arc::ptr_eq(&last, &next), "{why}");
            assert_eq!(next.seq, seq, "{why}");
            last = next;
        }
        assert!(Arc::ptr_eq(&last, &snapshot_for(&mut stage, 4, true)), "the newest is kept");
        let now = Clock::start().now();
        stage.0.tick(now);
        assert!(Arc::ptr_eq(&last, &snapshot_for(&mut stage, 5, true)), "one tick");
        stage.0.tick(now);
        let next = snapshot_for(&mut stage, 6, true);
        assert!(!Arc::ptr_eq(&last, &next), "two ticks");
        assert_eq!(Arc::strong_count(&last), 1, "the hub has let go of it");
        stage.0.limit_departures(0);
        let goodbye = Stamp { number: 9, at: now, wall: UnixMillis(0) };
        stage.1.goodbye(POOL, AgentId::parse("agent-0").unwrap(), goodbye).unwrap();
        assert_eq!(snapshot_for(&mut stage, 7, true).seq, 9, "the departure is forgotten");
    }
}
