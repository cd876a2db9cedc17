//! What the hub owes one fanout thread, pool by pool. While there is room in the thread's channel
//! every update is passed on; while there is none, only each agent's newest state is kept, so
//! that what waits is bounded by the pool and not by time.

use std::collections::{BTreeMap, HashMap};
use std::mem;

use crossbeam_channel::{Select, Sender, TrySendError};

use crate::event::Batch;
use crate::frame;
use crate::id::{AgentId, DashboardId, PoolIndex};
use crate::limits::MAX_BATCH_BYTES;
use crate::wire::Snapshot;

/// The fanout thread at the other end is gone.
#[derive(Debug)]
pub(super) struct FanoutGone;

/// See the module.
#[derive(Debug)]
pub(super) struct Outbox {
    /// The hub is its only sender, so room that was seen stays.
    channel: Sender<Batch>,
    pools: Vec<Pending>,
    /// Pools that owe something.
    dirty: Vec<PoolIndex>,
    /// Something is owed and the channel was full.
    blocked: bool,
}

/// What one pool's dashboards behind one fanout thread are owed.
#[derive(Debug, Default)]
struct Pending {
    /// Dashboards of the pool behind this thread.
    watchers: usize,
    is_dirty: bool,
    /// The next batch of updates: every one of them, in order.
    frames: Vec<u8>,
    count: u64,
    /// The sequence number of the newest in `frames`.
    seq: u64,
    /// Behind `frames`, while the channel is full: each agent's newest update, by sequence number.
    newest: BTreeMap<u64, (AgentId, Vec<u8>)>,
    /// Where in `newest` an agent's is.
    by_agent: HashMap<AgentId, u64>,
    /// Dashboards that wait for a snapshot, which comes behind all of the above.
    joins: Vec<DashboardId>,
}

impl Outbox {
    pub(super) fn new(channel: Sender<Batch>, pools: usize) -> Self {
        let pools = (0..pools).map(|_| Pending::default()).collect();
        Self { channel, pools, dirty: Vec::new(), blocked: false }
    }

    /// Whether something waits for room in the channel.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Adds the wait for room to `select`.
    pub(super) fn wait_in<'a>(&'a self, select: &mut Select<'a>) {
        select.send(&self.channel);
    }

    pub(super) fn is_watching(&self, pool: PoolIndex) -> bool {
        self.pools[pool.0].watchers > 0
    }

    /// A dashboard joins.
    pub(super) fn watch(&mut self, pool: PoolIndex, dashboard: DashboardId) {
        self.pools[pool.0].watchers += 1;
        self.owe_snapshot(pool, dashboard);
    }

    /// A dashboard of the pool leaves. With the last one goes what was owed.
    pub(super) fn unwatch(&mut self, pool: PoolIndex, dashboard: DashboardId) {
        let pending = &mut self.pools[pool.0];
        pending.joins.retain(|waiting| *waiting != dashboard);
        pending.watchers -= 1;
        if pending.watchers == 0 {
            let is_dirty = pending.is_dirty;
            *pending = Pending { is_dirty, ..Pending::default() };
        }
    }

    pub(super) fn owe_snapshot(&mut self, pool: PoolIndex, dashboard: DashboardId) {
        self.pools[pool.0].joins.push(dashboard);
        self.mark(pool);
    }

    /// Owes an update. Whether it took the place of an older one of the same agent.
    pub(super) fn owe_update(
        &mut self,
        pool: PoolIndex,
        agent: &AgentId,
        text: &str,
        seq: u64,
    ) -> bool {
        self.mark(pool);
        let pending = &mut self.pools[pool.0];
        let overflows = pending.frames.len() + text.len() > MAX_BATCH_BYTES;
        if !self.blocked && overflows && !pending.frames.is_empty() {
            // Without room for this batch, what follows is kept apart. That the thread is gone
            // shows again when the turn ends.
            self.blocked =
                self.channel.is_full() || pending.send_frames(&self.channel, pool).is_err();
        }
        if self.blocked { pending.keep_newest(agent, text, seq) } else { pending.append(text, seq) }
    }

    fn mark(&mut self, pool: PoolIndex) {
        if !mem::replace(&mut self.pools[pool.0].is_dirty, true) {
            self.dirty.push(pool);
        }
    }

    /// Passes on what is owed, as long as there is room.
    pub(super) fn flush(
        &mut self,
        mut snapshot: impl FnMut(PoolIndex) -> Snapshot,
    ) -> Result<(), FanoutGone> {
        while let Some(&pool) = self.dirty.last() {
            let pending = &mut self.pools[pool.0];
            while pending.owes() {
                if self.channel.is_full() {
                    self.blocked = true;
                    return Ok(());
                }
                pending.send_next(&self.channel, pool, &mut snapshot)?;
            }
            pending.is_dirty = false;
            self.dirty.pop();
        }
        self.blocked = false;
        Ok(())
    }
}

/// Sends into a channel that was just seen to have room.
fn send(channel: &Sender<Batch>, batch: Batch) -> Result<(), FanoutGone> {
    match channel.try_send(batch) {
        Ok(()) => Ok(()),
        Err(TrySendError::Disconnected(_)) => Err(FanoutGone),
        Err(TrySendError::Full(_)) => unreachable!("the hub is the only sender"),
    }
}

impl Pending {
    fn owes(&self) -> bool {
        !self.frames.is_empty() || !self.newest.is_empty() || !self.joins.is_empty()
    }

    fn append(&mut self, text: &str, seq: u64) -> bool {
        frame::push_text(&mut self.frames, text);
        self.count += 1;
        self.seq = seq;
        false
    }

    fn keep_newest(&mut self, agent: &AgentId, text: &str, seq: u64) -> bool {
        let mut frames = Vec::with_capacity(text.len() + 10);
        frame::push_text(&mut frames, text);
        let older = self.by_agent.insert(agent.clone(), seq);
        if let Some(older) = older {
            self.newest.remove(&older);
        }
        self.newest.insert(seq, (agent.clone(), frames));
        older.is_some()
    }

    /// Sends one batch, with the channel known to have room: first what was owed first.
    fn send_next(
        &mut self,
        channel: &Sender<Batch>,
        pool: PoolIndex,
        snapshot: &mut impl FnMut(PoolIndex) -> Snapshot,
    ) -> Result<(), FanoutGone> {
        while let Some(next) = self.newest.first_entry() {
            if !self.frames.is_empty() && self.frames.len() + next.get().1.len() > MAX_BATCH_BYTES {
                break;
            }
            let (seq, (agent, frame)) = next.remove_entry();
            self.by_agent.remove(&agent);
            self.frames.extend_from_slice(&frame);
            self.count += 1;
            self.seq = seq;
        }
        if !self.frames.is_empty() {
            return self.send_frames(channel, pool);
        }
        let dashboards = mem::take(&mut self.joins);
        send(channel, Batch::Snapshot { pool, dashboards, snapshot: snapshot(pool) })
    }

    /// Sends the frames as one batch, with the channel known to have room.
    fn send_frames(&mut self, channel: &Sender<Batch>, pool: PoolIndex) -> Result<(), FanoutGone> {
        let frames = mem::take(&mut self.frames);
        let count = mem::take(&mut self.count);
        send(channel, Batch::Updates { pool, frames, count, seq: self.seq })
    }
}
