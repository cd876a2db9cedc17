//! The way to talk to the hub: calls instead of messages, each bounded in time. Owns a sender and
//! the counts that tell a worker whether a pool may be full; decides nothing else.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use thiserror::Error;

use crate::server::event::{Event, FanoutIndex, Stamp, Verdict};
use crate::server::feed::FeedId;
use crate::server::limits::HUB_INBOX;
use crate::server::registry::{HistoryView, Rules};
use crate::wire::id::{AgentId, DashboardId, PoolIndex};
use crate::wire::{Metrics, Snapshot, Summary};

/// How full a pool is, and what is on its way there: enough for a worker to tell whether a
/// heartbeat may be promised without asking the hub.
#[derive(Debug, Default)]
pub(super) struct Room {
    agents: usize,
    bytes: usize,
    pub(super) queued: usize,
    queued_bytes: usize,
}

impl Room {
    /// Counts a heartbeat as on its way. Whether there is certainly room for it and for all
    /// before it, even if every one of them is of a new agent.
    fn reserve(&mut self, cost: usize, rules: &Rules) -> bool {
        self.queued += 1;
        self.queued_bytes += cost;
        self.agents + self.queued <= rules.max_agents_per_pool
            && self.bytes + self.queued_bytes <= rules.max_pool_bytes
    }

    /// The hub has handled it, or it never got there.
    pub(super) fn release(&mut self, cost: usize) {
        self.queued -= 1;
        self.queued_bytes -= cost;
    }

    pub(super) fn note(&mut self, (agents, bytes): (usize, usize)) {
        (self.agents, self.bytes) = (agents, bytes);
    }
}

/// Held only for moments, and never while waiting for anything.
pub(super) fn lock(room: &Mutex<Room>) -> MutexGuard<'_, Room> {
    room.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The way to talk to the hub; clones share it. Every call is bounded in time.
#[derive(Debug, Clone)]
pub(crate) struct HubHandle {
    pub(super) inbox: Sender<Event>,
    /// Ends the hub's window. It carries no event, so that the order is the inbox's alone.
    pub(super) urgent: Sender<()>,
    pub(super) rooms: Arc<[Mutex<Room>]>,
    pub(super) rules: Rules,
    pub(super) timeout: Duration,
}

/// Why the hub did not do what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum HubError {
    /// Its inbox stayed full, or its reply away, for the whole of the handle's timeout.
    #[error("the server is overloaded")]
    Overloaded,
    #[error("the server is shutting down")]
    Stopped,
}

type Result<T> = std::result::Result<T, HubError>;

impl HubHandle {
    /// Hands in a heartbeat. `Accepted` means that the hub has it in its queue, in order, and that no
    /// other takes its place; only for a pool or an inbox that may be full does this wait for the
    /// hub's verdict.
    ///
    /// # Errors
    /// [`HubError`]; then the heartbeat may or may not count.
    pub(crate) fn heartbeat(
        &self,
        pool: PoolIndex,
        agent: AgentId,
        metrics: Metrics,
        stamp: Stamp,
    ) -> Result<Verdict> {
        let cost = metrics.cost_bytes();
        let mut event = Event::Heartbeat { pool, agent, metrics, stamp, reply: None };
        // Locked while it is sent: no other may take the place that this one is promised. An inbox
        // without capacity is waited for without the lock, and so without a promise.
        let mut room = lock(&self.rooms[pool.0]);
        if room.reserve(cost, &self.rules) {
            match self.inbox.try_send(event) {
                Ok(()) => {
                    drop(room);
                    if self.inbox.len() >= HUB_INBOX / 2 {
                        self.end_window();
                    }
                    return Ok(Verdict::Accepted);
                }
                Err(error) => event = error.into_inner(),
            }
        }
        drop(room);
        let (sender, verdict) = bounded(1);
        if let Event::Heartbeat { reply, .. } = &mut event {
            *reply = Some(sender);
        }
        self.send(event).inspect_err(|_| lock(&self.rooms[pool.0]).release(cost))?;
        self.await_reply(&verdict)
    }

    /// An agent leaves, whether it is known or not.
    pub(crate) fn goodbye(&self, pool: PoolIndex, agent: AgentId, stamp: Stamp) -> Result<()> {
        self.send(Event::Goodbye { pool, agent, stamp, reply: None })
    }

    /// The same, and says whether the agent was known.
    pub(crate) fn remove(&self, pool: PoolIndex, agent: AgentId, stamp: Stamp) -> Result<bool> {
        self.ask(|reply| Event::Goodbye { pool, agent, stamp, reply: Some(reply) })
    }

    /// The pool as it is after everything that was handed in before.
    pub(crate) fn snapshot(&self, pool: PoolIndex) -> Result<Snapshot> {
        self.ask(|reply| Event::Snapshot { pool, reply })
    }

    /// The histories of these agents of the pool, but for those that it does not know; without any,
    /// of all.
    pub(crate) fn history(&self, pool: PoolIndex, agents: Vec<AgentId>) -> Result<HistoryView> {
        self.ask(|reply| Event::History { pool, agents, reply })
    }

    /// All pools in numbers, in the configuration's order.
    pub(crate) fn summaries(&self) -> Result<Vec<Summary>> {
        self.ask(|reply| Event::Summaries { reply })
    }

    /// Returns when the hub has replied.
    pub(crate) fn alive(&self) -> Result<()> {
        self.ask(|reply| Event::Alive { reply })
    }

    /// A dashboard whose write side `fanout` owns already wants the feed's snapshot and every
    /// update after it.
    pub(crate) fn join(
        &self,
        dashboard: DashboardId,
        feed: FeedId,
        fanout: FanoutIndex,
    ) -> Result<()> {
        self.send(Event::Join { dashboard, feed, fanout })
    }

    /// A dashboard that fell behind wants what changed since `since`, or a snapshot. Does not wait:
    /// the caller tries again.
    pub(crate) fn resume(&self, dashboard: DashboardId, since: Option<u64>) -> Result<()> {
        let sent = self.inbox.try_send(Event::Resume { dashboard, since });
        self.end_window();
        sent.map_err(|error| hub_error(error.is_disconnected()))
    }

    /// A dashboard is gone. Waits for room however long that takes: the hub always makes some.
    pub(crate) fn leave(&self, dashboard: DashboardId) {
        let _ = self.inbox.send(Event::Leave { dashboard });
    }

    /// Ends the hub, after everything that was handed in before.
    pub(crate) fn shutdown(&self) {
        let _ = self.inbox.send(Event::Shutdown);
        self.end_window();
    }

    /// Has the hub handle what is in its inbox now.
    fn end_window(&self) {
        // A token that is there already serves.
        let _ = self.urgent.try_send(());
    }

    /// Sends what cannot wait for the window's end.
    fn send(&self, event: Event) -> Result<()> {
        let sent = self.inbox.send_timeout(event, self.timeout);
        self.end_window();
        sent.map_err(|error| hub_error(error.is_disconnected()))
    }

    fn ask<T>(&self, question: impl FnOnce(Sender<T>) -> Event) -> Result<T> {
        let (sender, reply) = bounded(1);
        self.send(question(sender))?;
        self.await_reply(&reply)
    }

    fn await_reply<T>(&self, reply: &Receiver<T>) -> Result<T> {
        let received = reply.recv_timeout(self.timeout);
        received.map_err(|error| hub_error(error.is_disconnected()))
    }
}

fn hub_error(is_disconnected: bool) -> HubError {
    if is_disconnected { HubError::Stopped } else { HubError::Overloaded }
}
