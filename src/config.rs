//! From file, flags and environment to one checked [`Config`].

use std::net::SocketAddr;
use std::time::Duration;

use crate::auth::Gate;
use crate::id::PoolId;
use crate::limits::Limits;

/// A pool as the configuration has it.
#[derive(Debug, Clone)]
pub struct Pool {
    /// Its id, unique.
    pub id: PoolId,
    /// Its name for people; the id where the file gives none.
    pub name: String,
}

/// Everything the server is told, checked.
#[derive(Debug)]
pub struct Config {
    /// Where the door listens; at least one address.
    pub listen: Vec<SocketAddr>,
    /// See [`crate::limits::DEFAULT_EVICT_AFTER`].
    pub evict_after: Duration,
    /// In the file's order: a [`crate::id::PoolIndex`] counts from here.
    pub pools: Vec<Pool>,
    /// Who may do what.
    pub gate: Gate,
    /// Whether anyone may look without a token.
    pub open: bool,
    /// Bounds.
    pub limits: Limits,
}
