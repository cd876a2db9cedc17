//! JSON shapes, both ways: heartbeats in, messages and answers out. The only module that knows
//! the members' names. Values to text and back; no sockets, no state, no clock.
//!
//! An agent's metrics are serialised once, by the worker that received them, and kept as text
//! ([`Metrics`]): the hub and the fanout threads only put pieces side by side. The shapes are the
//! seed's, in its order of members, with ours behind them.

mod heartbeat;
pub(crate) mod id;
mod message;
mod object;
pub(crate) mod response;

pub(crate) use heartbeat::{
    GOODBYE, MAX_TEXT_CHARS, Metrics, Ping, is_valid_status, ping_received, read_ping,
};
pub(crate) use message::{
    Departure, Envelope, Load, Reason, Snapshot, SnapshotAgent, Summary, departed_answer,
    keepalive, offline, status, summaries, update,
};
pub(crate) use object::Object;

use serde::Serialize;

/// 1,024 bytes.
pub(crate) const KIB: usize = 1_024;

/// 1,024 KiB.
pub(crate) const MIB: usize = 1_024 * KIB;

/// Appends `value` as JSON. Our values have no maps with odd keys and no failing serialisers,
/// and a `Vec` takes every byte.
fn push_json<T: Serialize + ?Sized>(text: &mut Vec<u8>, value: &T) {
    let written = serde_json::to_writer(text, value);
    debug_assert!(written.is_ok(), "a plain value serialises");
}
