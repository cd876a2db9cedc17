//! What hub, fanout and the shells say to each other: types only.

use std::net::TcpStream;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::Sender;
use tungstenite::protocol::frame::coding::CloseCode;

use crate::clock::UnixMillis;
use crate::id::{AgentId, DashboardId, PoolIndex};
use crate::wire::{Metrics, Snapshot};

/// The door's mark on a request, made when the request was whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
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
pub enum Event {
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
    /// A dashboard that fell behind has caught up with what it was owed: a new snapshot, please.
    Rejoin {
        /// Who.
        dashboard: DashboardId,
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
pub enum Verdict {
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
pub struct FanoutIndex(pub usize);

/// One pool in numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Agents by status, by name of the status.
    pub by_status: Vec<(Arc<str>, usize)>,
    /// Agents in all.
    pub agents: usize,
    /// Departures that the pool remembers.
    pub departed: usize,
    /// Mean and highest CPU and memory in percent; none of a pool without agents.
    pub load: Option<Load>,
}

/// Mean and highest load over a pool's agents, in percent.
#[derive(Debug, Clone, Copy, PartialEq)]
#[expect(missing_docs, reason = "the type's line says it all")]
pub struct Load {
    pub cpu_mean: f64,
    pub cpu_max: f64,
    pub memory_mean: f64,
    pub memory_max: f64,
}

/// From the hub to a fanout thread, in order: what dashboards are to be sent.
#[derive(Debug)]
pub enum Batch {
    /// Whole frames for every live dashboard of a pool.
    Updates {
        /// Which pool.
        pool: PoolIndex,
        /// Frames, one behind the other.
        frames: Vec<u8>,
        /// How many.
        count: u64,
        /// The pool's sequence number after them.
        seq: u64,
    },
    /// A snapshot for dashboards that joined; they are live from here on.
    Snapshot {
        /// Which pool.
        pool: PoolIndex,
        /// For whom.
        dashboards: Vec<DashboardId>,
        /// The state that all updates before this batch led to.
        snapshot: Snapshot,
    },
}

/// From client threads to the fanout thread that owns their dashboard's write side.
#[derive(Debug)]
pub enum Control {
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
