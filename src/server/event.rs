//! What hub, fanout and the shells say to each other: types only.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::Sender;

use crate::runtime::clock::UnixMillis;
use crate::server::feed::FeedId;
use crate::server::frame::Frames;
use crate::server::registry::HistoryView;
use crate::server::snapshot::SharedSnapshot;
use crate::wire::id::{AgentId, DashboardId, PoolIndex};
use crate::wire::{Metrics, Snapshot, Summary};

/// The door's mark on a request, made when the request was whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Rises by one with each stamped request: the order of arrival.
    pub number: u64,
    /// When it arrived, for ages.
    pub at: Instant,
    /// When it arrived, for people.
    pub wall: UnixMillis,
}

/// Everything that can change the hub's state, or asks about it. Answers go to `reply`, a
/// channel with room for exactly one, so that the hub never waits for who asked.
#[derive(Debug)]
pub(crate) enum Event {
    /// An agent's newest state. A reply is asked for when the pool or the inbox may be full.
    Heartbeat {
        pool: PoolIndex,
        agent: AgentId,
        metrics: Metrics,
        stamp: Stamp,
        reply: Option<Sender<Verdict>>,
    },
    /// An agent leaves. DELETE asks whether it was known.
    Goodbye { pool: PoolIndex, agent: AgentId, stamp: Stamp, reply: Option<Sender<bool>> },
    /// A dashboard, whose write side `fanout` owns, wants a snapshot and every update after it.
    Join { dashboard: DashboardId, feed: FeedId, fanout: FanoutIndex },
    /// A dashboard that fell behind has taken all that it was sent, and wants what changed after
    /// `since`; without that, a snapshot.
    Resume { dashboard: DashboardId, since: Option<u64> },
    /// A dashboard is gone.
    Leave { dashboard: DashboardId },
    /// The `initial_metrics` object of a pool, for a reader without a WebSocket.
    Snapshot { pool: PoolIndex, reply: Sender<Snapshot> },
    /// The histories of these agents of a pool; without any, of all.
    History { pool: PoolIndex, agents: Vec<AgentId>, reply: Sender<HistoryView> },
    /// The summaries of all pools, in the configuration's order.
    Summaries { reply: Sender<Vec<Summary>> },
    /// Whether the hub runs.
    Alive { reply: Sender<()> },
    /// The last event. The hub ends, which closes its channels to the fanout threads, which close
    /// the dashboards with 1001.
    Shutdown,
}

/// What became of a heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is the agent's newest state now.
    Accepted,
    /// A newer heartbeat or a goodbye of the same agent was there before it, or may have been.
    Stale,
    /// The pool has `max_agents_per_pool` agents and this one is new.
    TooManyAgents,
    /// The pool's metrics would exceed `max_pool_bytes`.
    TooManyBytes,
}

/// A fanout thread's place among the fanout threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct FanoutIndex(pub usize);

/// From the hub to a fanout thread, in order: what dashboards are to be sent.
#[derive(Debug)]
pub(crate) enum Batch {
    /// For the feed's dashboards: what changed after `since`. Without frames, the changes after
    /// earlier ones are lost: who has not all up to `since` asks for them.
    Updates { feed: FeedId, since: u64, frames: Arc<Frames> },
    /// The state of the feed's pool, of now or of a moment ago, for dashboards that have none. A
    /// snapshot that others are still taking may be sent in its place. No update of the feed with a
    /// change up to `since` follows.
    Snapshot {
        feed: FeedId,
        since: u64,
        dashboards: Vec<DashboardId>,
        snapshot: Arc<SharedSnapshot>,
    },
    /// The answer to [`Event::Resume`] for those that lack the same: newest states of agents, the
    /// oldest change first, as the feed's messages. Where that is not all, they ask again. Of an
    /// overview, all pools, also for those that join.
    Changes { feed: FeedId, dashboards: Vec<DashboardId>, frames: Arc<Frames> },
}

/// From a subscriber to the fanout thread that owns its write side.
#[derive(Debug)]
pub(crate) struct Control {
    pub dashboard: DashboardId,
    pub feed: FeedId,
    pub action: Action,
}

/// What a [`Control`] asks for.
#[derive(Debug)]
pub(crate) enum Action {
    /// Take this write side over, before the hub hears of the dashboard. The subscriber goes on
    /// reading the socket. `greeting` is the handshake's response, which goes out in front of the
    /// first snapshot: a client that has it has joined, and gets whatever is heard of an agent
    /// from then on as an update.
    Attach { socket: Arc<dyn WriteSide>, greeting: Vec<u8> },
    /// Send these control frames: a Pong, or a Close, after which nothing more is sent.
    Send(Vec<u8>),
    /// Nothing more will be read: send what is owed of control frames, then end.
    Gone,
}

/// The write side of a dashboard's connection.
pub(crate) trait WriteSide: fmt::Debug + Send + Sync {
    /// Takes as many bytes as there is room for, which may be none, without waiting.
    ///
    /// # Errors
    /// The connection is over.
    fn send_now(&self, bytes: &[u8]) -> io::Result<usize>;

    /// Ends the connection in both directions.
    fn end(&self);
}
