//! Counters and gauges of one server, for `/api/v1/status` and for tests. Atomics that every thread may
//! change; no decision depends on them.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $($(#[$doc])* pub $name: Count,)*
        }

        impl Counters {
            pub(crate) fn read(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name.get()),)*].into_iter()
            }
        }
    };
}

counters! {
    /// Open HTTP connections (gauge).
    connections,
    /// Connected dashboards (gauge).
    dashboards,
    /// Connections refused or closed early because a cap was reached.
    connections_refused,
    /// Failed accepts: the system was out of descriptors or memory.
    accept_errors,
    /// Requests that the door has handed to a worker.
    requests,
    /// Requests that were answered with 503.
    overloads,
    // Agents' requests (401): a header is missing, no pool has the key, the secret is another's.
    refused_missing_header,
    refused_unknown_key,
    refused_wrong_secret,
    // Viewers' requests and logins (401).
    refused_missing_token,
    refused_wrong_token,
    /// Requests for a Host that is not served (421).
    refused_foreign_host,
    /// Requests of other sites' pages (403).
    refused_foreign_origin,
    /// Heartbeats and goodbyes that broke a rule (400, 411, 413): with a bad agent id, which is
    /// found before credentials are checked, or with the right credentials.
    refused_bad_heartbeat,
    /// Heartbeats beyond `max_agent_heartbeats_per_second` of one agent (429).
    refused_flood,
    /// 401s that were delayed because their address got too many.
    refusals_delayed,
    /// Connections closed to stay within `max_buffered_bytes`.
    buffer_evictions,
    /// Times that a pipe to tiny_http broke and was made anew.
    pipe_breaks,
    worker_panics,
    /// Heartbeats that became an agent's newest state.
    heartbeats,
    /// Of those, the ones of an agent that beats too often, which dashboards were not told of at once.
    deferred,
    /// Heartbeats that were dropped: a newer one or a goodbye came before them, or may have.
    stale,
    /// Of agents.
    evictions,
    /// Updates that a fanout thread was not sent one by one (of most a newer one of the same agent was),
    /// and batches that it was not sent as they were made.
    conflations,
    /// Batches of changes that were made, each once for all dashboards of a pool and period.
    batches,
    /// Of those, the ones that a fanout thread had no memory for: its dashboards got the same in parts.
    batches_split,
    /// Times that a dashboard fell behind.
    lags,
    /// Dashboards cut off for staying behind.
    cut_offs,
    /// Frames delivered to dashboards.
    deliveries,
    log_lines_dropped,
}

#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add_one(&self) {
        self.add(1);
    }

    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// Gauges only.
    pub(crate) fn remove_one(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
