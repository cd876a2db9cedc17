//! What the hub has yet to send to one fanout thread, pool by pool, in turn. While there is room
//! in the thread's channel every update is passed on. While there is none, only the sequence
//! number is kept from which on updates are missing: the registry has each agent's newest state,
//! so that what waits here is bounded, whatever the load.

use std::collections::VecDeque;
use std::mem;

use crossbeam_channel::{Select, Sender, TrySendError};

use crate::server::event::Batch;
use crate::server::frame::Frames;
use crate::server::limits::MAX_BATCH_BYTES;
use crate::wire::Snapshot;
use crate::wire::id::{DashboardId, PoolIndex};

/// The fanout thread at the other end is gone.
#[derive(Debug)]
pub(super) struct FanoutGone;

/// The pools' state, for what is to be sent.
pub(super) trait Source {
    fn snapshot(&self, pool: PoolIndex) -> Snapshot;

    /// Each agent's newest change after `since`, the oldest first, up to about
    /// [`MAX_BATCH_BYTES`]; and whether that is all. `None` where the registry has forgotten some.
    fn changes(&self, pool: PoolIndex, since: u64) -> Option<(Frames, bool)>;
}

/// See the module.
#[derive(Debug)]
pub(super) struct Outbox {
    channel: Sender<Batch>,
    pools: Vec<Pending>,
    /// Pools that have something to send, the next one first.
    turns: VecDeque<PoolIndex>,
    /// The next batch, for which the channel had no room.
    parked: Option<Batch>,
    conflated: u64,
}

/// What one pool has to send to its dashboards behind one fanout thread.
#[derive(Debug, Default)]
struct Pending {
    /// Dashboards of the pool behind this thread.
    watchers: usize,
    has_turn: bool,
    /// The next batch of updates: every one of them, in order.
    frames: Frames,
    /// After this number, behind `frames`, updates were left out.
    missing_since: Option<u64>,
    /// Dashboards that wait for a snapshot.
    joins: Vec<DashboardId>,
    /// Dashboards that wait for what changed since a sequence number.
    resumes: VecDeque<(DashboardId, u64)>,
    /// What is sent first the next time, so that nobody waits for ever.
    next: Kind,
}

/// The kinds of batches that a pool has to send.
#[derive(Debug, Default, Clone, Copy)]
enum Kind {
    #[default]
    Joins,
    Resumes,
    Updates,
}

impl Kind {
    fn following(self) -> Self {
        match self {
            Self::Joins => Self::Resumes,
            Self::Resumes => Self::Updates,
            Self::Updates => Self::Joins,
        }
    }
}

impl Outbox {
    pub(super) fn new(channel: Sender<Batch>, pools: usize) -> Self {
        Self {
            channel,
            pools: (0..pools).map(|_| Pending::default()).collect(),
            turns: VecDeque::new(),
            parked: None,
            conflated: 0,
        }
    }

    /// Whether something waits for room in the channel.
    pub(super) fn is_blocked(&self) -> bool {
        self.parked.is_some()
    }

    /// Adds the wait for room to `select`.
    pub(super) fn wait_in<'a>(&'a self, select: &mut Select<'a>) {
        select.send(&self.channel);
    }

    /// Whether updates of the pool are sent one by one now.
    pub(super) fn takes_updates(&self, pool: PoolIndex) -> bool {
        let pending = &self.pools[pool.0];
        pending.watchers > 0 && pending.missing_since.is_none()
    }

    /// Updates that newer ones of the same agent have replaced, since this was last asked.
    pub(super) fn take_conflated(&mut self) -> u64 {
        mem::take(&mut self.conflated)
    }

    /// A dashboard joins.
    pub(super) fn watch(&mut self, pool: PoolIndex, dashboard: DashboardId) {
        self.pools[pool.0].watchers += 1;
        self.resume(pool, dashboard, None);
    }

    /// A dashboard of the pool leaves. With the last one goes what was to be sent.
    pub(super) fn unwatch(&mut self, pool: PoolIndex, dashboard: DashboardId) {
        let pending = &mut self.pools[pool.0];
        pending.joins.retain(|waiting| *waiting != dashboard);
        pending.resumes.retain(|(waiting, _)| *waiting != dashboard);
        pending.watchers -= 1;
        if pending.watchers == 0 {
            let has_turn = pending.has_turn;
            *pending = Pending { has_turn, ..Pending::default() };
        }
    }

    /// A dashboard needs what changed since `since`, or a snapshot.
    pub(super) fn resume(&mut self, pool: PoolIndex, dashboard: DashboardId, since: Option<u64>) {
        let pending = &mut self.pools[pool.0];
        match since {
            Some(since) => pending.resumes.push_back((dashboard, since)),
            None => pending.joins.push(dashboard),
        }
        self.give_turn(pool);
    }

    /// The pool's next update, where [`Outbox::takes_updates`].
    pub(super) fn push_update(&mut self, pool: PoolIndex, text: &str, seq: u64) {
        let pending = &mut self.pools[pool.0];
        if !pending.frames.is_empty() && pending.frames.bytes().len() + text.len() > MAX_BATCH_BYTES
        {
            if self.parked.is_some() {
                pending.missing_since = Some(seq - 1);
                return;
            }
            let frames = mem::take(&mut pending.frames);
            // That the thread is gone shows again when the turn ends.
            let sent = self.channel.try_send(Batch::Updates { pool, frames });
            self.parked = sent.err().map(TrySendError::into_inner);
        }
        self.pools[pool.0].frames.push_text(text, seq);
        self.give_turn(pool);
    }

    fn give_turn(&mut self, pool: PoolIndex) {
        if !mem::replace(&mut self.pools[pool.0].has_turn, true) {
            self.turns.push_back(pool);
        }
    }

    /// Sends what there is to send, a batch of each pool in turn, as long as there is room.
    pub(super) fn flush(&mut self, source: &impl Source) -> Result<(), FanoutGone> {
        loop {
            let next = self.parked.take().or_else(|| self.next_batch(source));
            let Some(batch) = next else { return Ok(()) };
            match self.channel.try_send(batch) {
                Ok(()) => {}
                Err(TrySendError::Full(batch)) => {
                    self.parked = Some(batch);
                    return Ok(());
                }
                Err(TrySendError::Disconnected(_)) => return Err(FanoutGone),
            }
        }
    }

    fn next_batch(&mut self, source: &impl Source) -> Option<Batch> {
        while let Some(pool) = self.turns.pop_front() {
            let pending = &mut self.pools[pool.0];
            while pending.has_work() {
                let kind = pending.next;
                pending.next = kind.following();
                if let Some(batch) = pending.take(kind, pool, source, &mut self.conflated) {
                    self.turns.push_back(pool);
                    return Some(batch);
                }
            }
            pending.has_turn = false;
        }
        None
    }
}

impl Pending {
    fn has_work(&self) -> bool {
        !(self.frames.is_empty() && self.joins.is_empty() && self.resumes.is_empty())
            || self.missing_since.is_some()
    }

    /// One batch of this kind, if there is any. Without one there is less work than before.
    fn take(
        &mut self,
        kind: Kind,
        pool: PoolIndex,
        source: &impl Source,
        conflated: &mut u64,
    ) -> Option<Batch> {
        match kind {
            Kind::Joins if self.joins.is_empty() => None,
            Kind::Joins => {
                let dashboards = mem::take(&mut self.joins);
                Some(Batch::Snapshot { pool, dashboards, snapshot: source.snapshot(pool) })
            }
            Kind::Resumes => {
                let (dashboard, since) = self.resumes.pop_front()?;
                let Some((frames, is_all)) = source.changes(pool, since) else {
                    self.joins.push(dashboard);
                    return None;
                };
                Some(Batch::Changes { dashboard, frames, is_all })
            }
            Kind::Updates if !self.frames.is_empty() => {
                Some(Batch::Updates { pool, frames: mem::take(&mut self.frames) })
            }
            Kind::Updates => {
                let since = self.missing_since.take()?;
                let Some((frames, is_all)) = source.changes(pool, since) else {
                    return Some(Batch::Gap { pool });
                };
                let last = frames.last_seq()?;
                self.missing_since = (!is_all).then_some(last);
                *conflated += last - since - frames.count() as u64;
                Some(Batch::Updates { pool, frames })
            }
        }
    }
}
