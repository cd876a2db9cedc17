//! fanout tests
