//! What server and agent both need: clock, threads, signals, log and counters. Knows nothing of agents,
//! pools or dashboards.

pub(crate) mod clock;
pub(crate) mod counters;
pub(crate) mod logging;
pub(crate) mod signals;
pub(crate) mod threads;
