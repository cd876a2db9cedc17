//! JSON shapes, both ways: heartbeats in, messages and responses out. The only module that knows the
//! members' names. No sockets, no state, no clock.
//!
//! The worker that received an agent's metrics serializes them once, and they are kept as text
//! ([`Metrics`]): the hub and the fanout threads only concatenate. The shapes are the seed's, in its
//! order of members, followed by ours.

mod batch;
mod heartbeat;
pub(crate) mod history;
pub(crate) mod id;
mod message;
mod object;
pub(crate) mod response;
mod summary;

pub(crate) use batch::MetricsBatch;
pub(crate) use heartbeat::{
    GOODBYE, HISTORY_BYTES, MAX_TASKS, MAX_TEXT_CHARS, Metrics, Ping, is_valid_status,
    ping_received, read_ping,
};
pub(crate) use message::{
    Departure, DepartureTotals, Envelope, Reason, Snapshot, SnapshotAgent, departed_answer,
    keepalive, offline, status, update,
};
pub(crate) use object::Object;
pub(crate) use summary::{
    AgentCounts, HIGH_MEMORY_PERCENT, Kind, ListedPool, Load, Summary, pool_list, pool_summaries,
    push_cell,
};

use serde::{Serialize, Serializer};

use crate::runtime::clock::UnixMillis;

pub(crate) const KIB: usize = 1_024;
pub(crate) const MIB: usize = 1_024 * KIB;

/// `value` as JSON, in a buffer that begins with this capacity. It cannot fail: all keys are strings, our
/// types serialize without errors, and a `Vec` takes every byte.
fn to_json(value: &impl Serialize, capacity: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity(capacity);
    let written = serde_json::to_writer(&mut text, value);
    debug_assert!(written.is_ok(), "a plain value serializes");
    text
}

impl Serialize for UnixMillis {
    /// As its text.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
