//! JSON shapes, both ways: heartbeats in, messages out. The only module that knows JSON members.
/// x
#[derive(Debug)]
pub struct Metrics {}
