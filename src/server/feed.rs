//! What a dashboard can watch, as a value: hub and fanout threads keep a ring and readers for each
//! feed that somebody watches, and nothing for the others.

use crate::wire::id::PoolIndex;

/// One stream of messages, the same for all dashboards that watch it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum FeedId {
    /// A pool, each change in a message of its own.
    Updates(PoolIndex),
}

impl FeedId {
    /// The pool that it shows.
    pub(crate) fn pool(self) -> PoolIndex {
        match self {
            Self::Updates(pool) => pool,
        }
    }
}
