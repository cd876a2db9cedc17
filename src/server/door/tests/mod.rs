//! The door as its clients and its workers see it: real loopback sockets in front, a stand-in
//! for tiny_http behind, that responds by itself or when the test says so. A connection alone, without
//! sockets, in `connection`.

mod clients;
mod connection;
mod guesses;
mod limits;
mod policy;
mod refusals;
mod support;
mod workers;
