//! agent-metrics: a small self-hosted server that shows, live, what your agents are doing. Built
//! with threads and channels, without an async runtime, and meant to be read, in the order of the
//! modules below: registry, hub and fanout in an hour, the door in another.
//!
//! ```text
//!             :8080                    private Unix sockets
//!  agents ──▶ ┌──────┐  whole, checked   ┌───────────────┐  Event   ┌─────┐ Batch  ┌────────┐
//!  browsers ▶ │ door │ ───requests─────▶ │ tiny_http pool│ ───────▶ │ hub │ ─────▶ │ fanout │ ──▶ sockets
//!             └──┬───┘ ◀──answers──────  └───────────────┘          └──▲──┘        └───▲────┘     of all
//!                │ WebSocket upgrade: the socket moves into a thread   │ join, leave   │ Control   dashboards
//!                └────────────────▶ client thread (one a dashboard) ───┴───────────────┘
//! ```
//!
//! | thread | owns | blocks on | ends when |
//! |---|---|---|---|
//! | `main` | nothing but the others | signals, ends of threads | the server has stopped |
//! | `door` | the public port, all plain HTTP connections | readiness | [`door::DoorHandle::stop`] |
//! | `http-N`, `read-0` | nothing | tiny_http's queue | [`http::Pool::stop`] |
//! | `hub` | the registry, and who watches what | events, ticks, room in fanout | [`hub::HubHandle::shutdown`] |
//! | `fanout-N` | the write side of its dashboards | its two channels | the hub's channel is closed |
//! | `client-N` | the read side of one dashboard | that socket | the connection ends |
//! | `agent`, `agent-http` | the first agent of `--dev` | its interval, its connection | its stop channel is closed |
//! | `signals`, `log` | signals; stderr | those | the process ends |
//! | about ten without a name | nothing of ours | tiny_http's sockets and pipes | the process ends |
//!
//! A heartbeat's way: [`door`] reads it whole, checks head, route and credentials, stamps it and
//! writes it anew into a pipe; an [`http`] worker parses the body ([`wire`]) and hands it to the
//! [`hub`], whose [`registry`] takes it or says that it was overtaken; the message is made and
//! framed once and batched to each [`fanout`] thread that has dashboards of the pool, which sends
//! it to all of them. The worker answers as soon as the hub has the heartbeat in its queue.
//!
//! What holds everywhere: the core ([`registry`], [`wire`], [`route`], [`frame`]) knows no clock,
//! socket or thread; the hub waits for nobody; every queue and wait has a bound ([`limits`]);
//! every thread that we start has a name, a small stack, and someone who joins it ([`crew`]).
//! tiny_http starts five or six threads of its own a socket, an accept loop and the others for its
//! connections (the pipes), and gives no handle on them: they are unnamed and joined by nobody,
//! hold nothing of the server's state, and end with the process.

// Words and values.
pub mod answer;
pub mod clock;
pub mod counters;
pub mod event;
pub mod frame;
pub mod id;
pub mod limits;
pub mod relay;
pub mod route;
pub mod wire;

// The core.
pub mod auth;
pub mod registry;

// The shells, from the inside out.
pub mod client;
pub mod door;
pub mod fanout;
pub mod http;
pub mod hub;
pub mod page;

// Putting it together.
pub mod agent;
pub mod check;
pub mod cli;
pub mod config;
pub mod crew;
pub mod descriptors;
pub mod init;
pub mod logging;
pub mod recipe;
pub mod server;
pub mod signals;
pub mod task;
pub mod tasks;
