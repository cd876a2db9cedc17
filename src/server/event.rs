//! What hub, fanout and the shells say to each other: types only.

use std::net::TcpStream;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::Sender;
use tungstenite::protocol::frame::coding::CloseCode;

use crate::runtime::clock::UnixMillis;
use crate::server::frame::Frames;
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
    /// An agent's newest state. With `reply`, the sender wants the registry's verdict.
    Heartbeat {
        /// The pool, as the key decided.
        pool: PoolIndex,
        /// The agent within the pool.
        agent: AgentId,
        /// What it said.
        metrics: Metrics,
        /// When, and in which order.
        stamp: Stamp,
        /// Asked for when the pool may be full.
        reply: Option<Sender<Verdict>>,
    },
    /// An agent leaves. `reply` says whether it was known.
    Goodbye {
        /// The pool, as the key decided.
        pool: PoolIndex,
        /// The agent within the pool.
        agent: AgentId,
        /// When, and in which order.
        stamp: Stamp,
        /// Asked for by DELETE.
        reply: Option<Sender<bool>>,
    },
    /// A dashboard wants the snapshot and every update after it, through this fanout thread.
    Join {
        /// Who.
        dashboard: DashboardId,
        /// Which pool.
        pool: PoolIndex,
        /// Which fanout thread owns its write side.
        fanout: FanoutIndex,
    },
    /// A dashboard that fell behind has taken all that it was sent, and wants what changed since.
    Resume {
        /// Who.
        dashboard: DashboardId,
        /// The sequence number up to which it knows all; without one it needs a snapshot.
        since: Option<u64>,
    },
    /// A dashboard is gone.
    Leave {
        /// Who.
        dashboard: DashboardId,
    },
    /// The `initial_metrics` object of a pool, for a reader without a WebSocket.
    Snapshot {
        /// Which pool.
        pool: PoolIndex,
        /// Gets it.
        reply: Sender<Snapshot>,
    },
    /// The summaries of all pools, in the configuration's order.
    Summaries {
        /// Gets them.
        reply: Sender<Vec<Summary>>,
    },
    /// Whether the hub turns.
    Alive {
        /// Gets the word.
        reply: Sender<()>,
    },
    /// The last event. The hub ends, which closes its channels to the fanout threads, which
    /// close the dashboards with 1001.
    Shutdown,
}

/// What became of a heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is the agent's newest state now.
    Accepted,
    /// A newer heartbeat or a goodbye of the same agent was there before it.
    Overtaken,
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
    /// For every live dashboard of a pool. Where a dashboard joined or resumed in between, it has
    /// had the first of the frames, and skips them by their sequence numbers.
    Updates {
        /// Which pool.
        pool: PoolIndex,
        /// The pool's next changes, one message a frame.
        frames: Frames,
    },
    /// A snapshot for dashboards that joined; they are live from here on. One that somebody is
    /// still taking may be sent in its place; those who get it are to ask for what changed since.
    Snapshot {
        /// Which pool.
        pool: PoolIndex,
        /// For whom.
        dashboards: Vec<DashboardId>,
        /// The pool's present state.
        snapshot: Snapshot,
    },
    /// For a dashboard that fell behind: newest states of agents that changed since.
    Changes {
        /// For whom.
        dashboard: DashboardId,
        /// The oldest changes first, one message a frame.
        frames: Frames,
        /// There is no other change: it is live from here on. Otherwise it is to ask for more.
        is_all: bool,
    },
    /// Changes were lost for the pool's live dashboards: each is to resume from where it is.
    Gap {
        /// Which pool.
        pool: PoolIndex,
    },
}

/// From client threads to the fanout thread that owns their dashboard's write side.
#[derive(Debug)]
pub(crate) enum Control {
    /// A dashboard's write side, before the hub hears of the dashboard.
    Attach {
        /// Who.
        dashboard: DashboardId,
        /// Which pool.
        pool: PoolIndex,
        /// The socket; the client thread goes on reading it.
        socket: Arc<TcpStream>,
        /// The answer to the handshake, which goes out in front of the first snapshot: who has it
        /// has joined, and whatever is heard of an agent from then on comes as an update.
        greeting: Vec<u8>,
    },
    /// Control frames that answer the dashboard's: a Pong, or the reply to its Close.
    Reply {
        /// Who.
        dashboard: DashboardId,
        /// Whole frames.
        frames: Vec<u8>,
    },
    /// The dashboard broke a rule: Close with this code, then nothing more.
    Close {
        /// Who.
        dashboard: DashboardId,
        /// Why (RFC 6455 section 7.4.1).
        code: CloseCode,
    },
    /// Nothing more will be read from the dashboard: what is owed of control frames, then the end.
    Gone {
        /// Who.
        dashboard: DashboardId,
    },
}
