//! agent-metrics: a small self-hosted server that shows, live, what your agents are doing. Built
//! with threads and channels, without an async runtime, and meant to be read.
//!
//! ```text
//!              :8080                    private Unix sockets
//!  agents ──▶ ┌──────┐  whole, checked   ┌───────────────┐ Event  ┌─────┐  Batch   ┌────────┐
//!  browsers ▶ │ door │ ───requests─────▶ │ tiny_http pool│ ─────▶ │ hub │ ───────▶ │ fanout │ ──▶ sockets
//!             └──┬───┘ ◀──responses────  └───────────────┘        └──▲──┘ ◀─resume─ └───▲────┘     of all
//!                │        (a channel)                                │ join, leave      │ Control   dashboards
//!                │ WebSocket upgrade: the socket moves into a thread │                  │
//!                └──────────────▶ subscriber thread (one a dashboard) ──────────────────┘
//! ```
//!
//! | thread | owns | blocks on | ends when |
//! |---|---|---|---|
//! | `main` | nothing but the others | signals, ends of threads | the server has stopped |
//! | `door` | the public port, all plain HTTP connections | readiness; up to 1 ms to gather events | [`server::relay::DoorHandle::stop`] |
//! | `http-N`, `read-0` | nothing | tiny_http's queue | [`server::workers::Workers::stop`] |
//! | `hub` | the registry, and who watches what | events, ticks, the time of a batch or a deferred update, capacity of fanout channels | [`server::hub::HubHandle::shutdown`] |
//! | `fanout-N` | the write side of its dashboards | its two channels | the hub's channel is closed |
//! | `subscriber-N` | the read side of one dashboard | that socket | the connection ends |
//! | `agent` | the thread `agent-http` | its stop channel, its thread's end | its stop channel is closed |
//! | `agent-http` | the first agent of `--dev` | its interval, its connection, task directories | `agent` has received the stop |
//! | `signals`, `log` | signals; stderr | those | the server has stopped |
//! | about ten without a name | nothing of ours | tiny_http's sockets and pipes | the process ends |
//!
//! A heartbeat's way: the [`door`] reads it whole, checks head, route, credentials and rate, stamps it
//! and sends it to tiny_http, in one batch with others that came at the same time; one of the
//! [`workers`] parses the body ([`wire`]), hands it to the [`hub`] and responds over a channel to the
//! door, as soon as the hub has the heartbeat in its queue. The hub lets heartbeats gather for up to
//! 10 ms; its [`registry`] takes each, finds that a newer one came before it, or defers what an agent
//! sends too often. The message is made and framed once, kept in the [`feed`]'s [`ring`], and sent to
//! each [`fanout`] thread that has dashboards of the feed, which writes it to all of them. A feed of
//! batches gets nothing then: only that its pool has changed is noted, and when its time has come one
//! message is made of all that did.
//!
//! What holds everywhere: [`wire`], [`registry`] and [`frame`] know no clock, socket or thread; the
//! hub waits for no fanout thread; every queue and wait has a bound ([`limits`]). Every thread that we
//! start has a name and a bounded stack, and is joined by its owner, unless it does not end in time: then
//! it ends with the process ([`threads`]). tiny_http starts five or six threads of its own for each socket
//! and gives no handle on them: they have no name, are not joined, hold nothing of the server's state,
//! and end with the process.
//!
//! Read `src/` from the bottom up: `runtime`, `wire`, then in `server` the [`limits`], `feed`, the
//! registry, `snapshot`, the hub and fanout, and last the door and the workers behind it.
//!
//! [`door`]: server::door
//! [`workers`]: server::workers
//! [`hub`]: server::hub
//! [`registry`]: server::registry
//! [`fanout`]: server::fanout
//! [`feed`]: server::feed
//! [`frame`]: server::frame
//! [`ring`]: server::ring
//! [`limits`]: server::limits
//! [`threads`]: runtime::threads

#![allow(
    rustdoc::private_intra_doc_links,
    reason = "the front page leads through the source: cargo doc --document-private-items"
)]

// From the bottom up: each module uses those above it only.
mod runtime;
mod wire;

mod dashboard;
mod server;

mod agent;
pub mod cli;

pub use runtime::clock::Clock;
