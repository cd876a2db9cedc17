//! Black-box tests of the binary `agent-metrics`: real processes, real sockets, no knowledge of
//! the inside. One module for each line of what the server promises; `support` holds what they
//! share and asserts nothing about the product itself.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on stops")]

mod access;
mod agent;
mod agent_tasks;
mod agent_tls;
mod attacks;
mod batches;
mod browser;
mod client_module;
mod command_line;
mod cors;
mod every_heartbeat;
mod eviction;
mod feed_refusals;
mod floods;
mod frames;
mod guessing;
mod heartbeat_limit;
mod history;
mod idle;
mod keepalive;
mod maxima;
mod modes;
mod origins;
mod overview;
mod page;
mod pools;
mod recipe;
mod refusals;
mod scarcity;
mod seed_examples;
mod shutdown;
mod signals;
mod slow;
mod snapshots;
mod stderr;
mod support;
mod task;
mod task_place;
mod task_signals;
