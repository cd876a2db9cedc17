//! What every process of ours needs, server and agent alike: time, threads, signals, the log and
//! counters. Knows nothing of agents, pools or dashboards.

pub(crate) mod clock;
pub(crate) mod counters;
pub(crate) mod logging;
pub(crate) mod signals;
pub(crate) mod threads;
