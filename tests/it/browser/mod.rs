//! The page in a real browser, against a real server.

mod connection;
mod harness;
mod hooks;
mod login;
mod rows;
