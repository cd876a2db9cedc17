//! agent-metrics (module docs to come)
pub mod agent;
pub mod answer;
pub mod auth;
pub mod clock;
pub mod config;
pub mod counters;
pub mod door;
pub mod event;
pub mod id;
pub mod limits;
pub mod logging;
pub mod page;
pub mod registry;
pub mod relay;
pub mod route;
pub mod signals;
pub mod wire;
