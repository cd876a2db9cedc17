//! hub tests
