//! Ids of agents and pools, and small indices for what never changes while the process lives. Parses and
//! checks; owns nothing.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Longest agent id or pool id, in bytes (which are ASCII characters).
pub(crate) const MAX_ID_BYTES: usize = 128;

/// What an id may be, for an error.
pub(crate) const ID_RULE: &str = "1 to 128 characters of A-Z a-z 0-9 . _ - (and not . or ..)";

/// See [`ID_RULE`].
pub(crate) fn is_valid_id(text: &str) -> bool {
    (1..=MAX_ID_BYTES).contains(&text.len())
        && text != "."
        && text != ".."
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

/// An id outside [`ID_RULE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an id is {ID_RULE}")]
pub(crate) struct InvalidId;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub(crate) struct $name(Arc<str>);

        impl $name {
            /// See [`ID_RULE`].
            pub(crate) fn parse(text: &str) -> Result<Self, InvalidId> {
                if is_valid_id(text) { Ok(Self(text.into())) } else { Err(InvalidId) }
            }

            pub(crate) fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

id! {
    /// An agent's id within its pool. Cloning shares the text.
    AgentId
}
id! {
    /// A pool's id. Cloning shares the text.
    PoolId
}

/// A pool's position in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct PoolIndex(pub usize);

/// One connected dashboard. Never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct DashboardId(pub u64);

impl fmt::Display for DashboardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule_holds_at_its_edges() {
        for good in ["a", "A.b_c-9", "...", ".a", &"x".repeat(MAX_ID_BYTES)] {
            assert!(AgentId::parse(good).is_ok(), "{good:?}");
        }
        for bad in ["", ".", "..", "a/b", "a%20b", "é", "a b", &"x".repeat(MAX_ID_BYTES + 1)] {
            assert!(PoolId::parse(bad).is_err(), "{bad:?}");
        }
    }
}
