//! The door as its clients and its workers see it: real loopback sockets in front, a stand-in
//! for tiny_http behind, that answers by itself or when the test says so.

mod clients;
mod guesses;
mod limits;
mod refusals;
mod support;
mod workers;
