//! Every limit of the server in one place: those of [`Limits`], which `[limits]` or a test may set,
//! and the constants that nothing sets. Values only.

use std::time::Duration;

use crate::wire::{KIB, MIB};

macro_rules! limits {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $default:expr,)*) => {
        /// What a server's clients may make it hold, and for how long. Sizes in bytes. The file's
        /// table `[limits]` may set the first eleven, for which load or machine give a reason. The
        /// others suit every load and machine: only tests set them.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub(crate) struct Limits {
            $($(#[$doc])* pub $name: $type,)*
        }

        impl Default for Limits {
            fn default() -> Self {
                Self { $($name: $default,)* }
            }
        }
    };
}

limits! {
    /// Open HTTP connections (dashboards apart).
    max_connections: usize = 8_000,
    /// Those of one address (IPv6: one /64); trusted proxies are exempt.
    max_connections_per_address: usize = 1_000,
    /// Connected dashboards.
    max_dashboards: usize = 8_000,
    /// Those of one address (IPv6: one /64).
    max_dashboards_per_address: usize = 1_000,
    /// Agents of one pool; a new one beyond it gets 503.
    max_agents_per_pool: usize = 10_000,
    /// Memory for one pool's metrics, with histories and deferred states; beyond it 503.
    max_pool_bytes: usize = 32 * MIB,
    /// Heartbeats of one agent within a second that are taken; those beyond it get 429. Far more than any
    /// rhythm that makes sense, and few enough that one agent cannot keep workers and hub busy. Counted in
    /// whole seconds.
    max_agent_heartbeats_per_second: usize = 50,
    /// Updates of one agent that dashboards get in a second; what comes sooner is deferred, and the newest
    /// state follows. An agent beats every few seconds, and when a task starts or ends.
    max_agent_updates_per_second: usize = 4,
    /// All requests and responses that the door holds. Responses over 64 KiB for which there is no
    /// room are refused with 503; beyond it, the connection that has made no progress for longest, in
    /// sending a request or taking a response, is closed.
    max_buffered_bytes: usize = 64 * MIB,
    /// A dashboard that is behind, or a client that has not taken all of its response, must take
    /// [`Limits::lag_min_bytes`] within this time or is cut off.
    lag_timeout: Duration = Duration::from_secs(30),
    /// See [`Limits::lag_timeout`].
    lag_min_bytes: usize = 16 * KIB,

    /// From a request's first byte (or the connection's start) to the end of its head; then 408.
    /// 8 KiB take less on any line, and a longer time only helps attackers.
    head_timeout: Duration = Duration::from_secs(10),
    /// From the end of the head to the end of the body; then 408. For the same reason.
    body_timeout: Duration = Duration::from_secs(10),
    /// How long a kept-alive connection may be idle between requests; then closed. More than twice
    /// the interval between heartbeats that we recommend. Where it is too long,
    /// [`Limits::max_connections`] closes the longest idle.
    idle_timeout: Duration = Duration::from_secs(75),
    /// From the whole request to the worker's response; then 503. A worker takes milliseconds, so
    /// beyond that the server is overloaded.
    worker_timeout: Duration = Duration::from_secs(5),
    /// Requests handed to tiny_http and not yet answered: the bound of its queue. Others wait in
    /// the door, one per connection. Less than [`MAX_GOODBYES`] without [`HUB_INBOX`], so that no
    /// goodbye is forgotten while a heartbeat that it makes stale is on its way.
    max_in_flight: usize = 1_024,
}

impl Limits {
    /// The longest wait for the hub. A worker waits at most twice for one request, to send it and for
    /// the reply, and must answer before the door does at `worker_timeout`.
    pub(crate) fn hub_timeout(&self) -> Duration {
        self.worker_timeout * 2 / 5
    }
}

/// Request line and headers together, in bytes; beyond it 431. Twice what browsers with long cookies
/// send.
pub(crate) const MAX_HEAD_BYTES: usize = 8 * KIB;

/// Header lines of a request; beyond it 431. Far more than browsers and proxies send together.
pub(crate) const MAX_HEADERS: usize = 64;

/// A heartbeat's body, in bytes; beyond it 413. 256 tasks with room. Part of the protocol.
pub(crate) const MAX_BODY_BYTES: usize = 64 * KIB;

/// Longest silence of an agent before it is evicted (seed: five minutes); `evict_after` overrides it.
pub(crate) const DEFAULT_EVICT_AFTER: Duration = Duration::from_secs(5 * 60);

/// The longest delay of an eviction. The tick is the lesser of this and a quarter of `evict_after`.
pub(crate) const MAX_EVICTION_TICK: Duration = Duration::from_secs(1);

/// Events waiting for the hub. When it is full, a worker waits for [`Limits::hub_timeout`] to
/// send and as long for the reply, then answers 503.
pub(crate) const HUB_INBOX: usize = 4_096;

/// Batches waiting for one fanout thread. When it is full, the hub sends only newest states.
pub(crate) const FANOUT_BATCHES: usize = 64;

/// One batch, in bytes; a larger frame is a batch of its own.
pub(crate) const MAX_BATCH_BYTES: usize = 64 * KIB;

/// Who has taken changed states of as many bytes as this many snapshots, and still has not all, is
/// slower than the pool changes, and gets a snapshot. Who reads half as fast again as the pool
/// changes, even if all agents do, has all before that.
pub(crate) const SLOW_SNAPSHOTS: usize = 2;

/// Control messages waiting for one fanout thread. When it is full, subscriber threads wait.
pub(crate) const FANOUT_CONTROLS: usize = 1_024;

/// Unsent bytes that the kernel may buffer for one connection (TCP_NOTSENT_LOWAT). Otherwise it
/// buffers megabytes for a client that reads nothing, which no budget counts, and the client seems to
/// keep up. Enough to keep a fast line busy when we write every few milliseconds.
pub(crate) const MAX_UNSENT_BYTES: u32 = 64 * 1_024;

/// Losses, and apart from them plain goodbyes, that a pool remembers for later dashboards.
pub(crate) const MAX_DEPARTURES: usize = 50;

/// How long a loss counts in a pool's summary: as long as pages show it as news.
pub(crate) const LOSS_MEMORY: Duration = Duration::from_secs(60 * 60);

/// Losses that a pool counts in its summary; of those beyond it the oldest are left out. An agent that
/// is heard of anew is looked for in all of them.
pub(crate) const MAX_COUNTED_LOSSES: usize = 1_024;

/// Agents up to which a pool's summary in the overview has a map of them: beyond it a page draws no
/// cells.
pub(crate) const MAX_CELLS: usize = 400;

/// Goodbyes that are remembered, of all pools, so that a stale heartbeat cannot undo one. More than
/// can be in flight ([`Limits::max_in_flight`]) and in the inbox together.
pub(crate) const MAX_GOODBYES: usize = 8_192;

/// How long they are remembered: longer than a heartbeat is in flight, which is
/// [`Limits::worker_timeout`] at its worker and as long again at the hub.
pub(crate) const GOODBYE_MEMORY: Duration = Duration::from_secs(60);

/// Departures that a pool can send to a dashboard that fell behind; beyond them it gets a snapshot.
pub(crate) const MAX_DEPARTURE_CHANGES: usize = 1_024;

/// Their running tasks, in bytes: many times what departures ordinarily hold, and a fraction of
/// [`Limits::max_pool_bytes`].
pub(crate) const MAX_DEPARTURE_BYTES: usize = 4 * MIB;

/// A dashboard to which nothing was sent for this long gets a `keepalive`. Less than half of the 12 s
/// after which clients show that they are not live, so that a late one does no harm.
pub(crate) const KEEPALIVE_AFTER: Duration = Duration::from_secs(5);

/// Time between our Pings; less than half of [`SILENCE_TIMEOUT`], so that one late Pong does no harm.
pub(crate) const PING_EVERY: Duration = Duration::from_secs(25);

/// A dashboard that sent nothing (not even a Pong) for this long is dropped.
pub(crate) const SILENCE_TIMEOUT: Duration = Duration::from_secs(60);

/// Largest message that a dashboard may send, in bytes; what it sends is ignored. Beyond it 1009.
pub(crate) const MAX_CLIENT_MESSAGE_BYTES: usize = 4 * KIB;

/// Frames (pongs aside) that a dashboard may send in a sliding minute; beyond it 1008.
pub(crate) const MAX_CLIENT_FRAMES_PER_MINUTE: usize = 100;

/// How long dashboards have at shutdown to receive their Close. Part of
/// [`STOP_WITHIN`](crate::server::STOP_WITHIN).
pub(crate) const CLOSE_GRACE: Duration = Duration::from_millis(800);

/// Descriptors that the process needs beside connections and dashboards: standard streams,
/// listeners, poll, wakers, signal pipe, tiny_http's sockets and pipes, files at start-up, the
/// agent of `--dev`.
pub(crate) const RESERVED_DESCRIPTORS: usize = 48;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goodbyes_are_remembered_for_longer_than_a_heartbeat_is_in_flight() {
        let Limits { max_in_flight, worker_timeout, .. } = Limits::default();
        assert!(max_in_flight + HUB_INBOX < MAX_GOODBYES);
        assert!(2 * worker_timeout < GOODBYE_MEMORY);
    }

    #[test]
    fn both_waits_for_the_hub_end_well_before_the_door_gives_up() {
        for worker_timeout in [Duration::from_millis(100), Duration::from_secs(5)] {
            let limits = Limits { worker_timeout, ..Limits::default() };
            assert!(2 * limits.hub_timeout() <= worker_timeout * 9 / 10, "{worker_timeout:?}");
        }
    }
}
