//! What the tests share: starting processes, raw HTTP, dashboards, a browser, waiting, and reading
//! `/proc`. Asserts nothing about the product, except that it responds before a deadline.

pub(crate) mod browser;
pub(crate) mod child;
pub(crate) mod crowd;
pub(crate) mod feed;
pub(crate) mod flood;
pub(crate) mod frames;
pub(crate) mod http;
pub(crate) mod machine;
pub(crate) mod members;
pub(crate) mod own_network;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod seed;
pub(crate) mod server;
pub(crate) mod setup;
pub(crate) mod status;
pub(crate) mod tools;
pub(crate) mod wait;

pub(crate) use browser::Browser;
pub(crate) use child::Process;
pub(crate) use feed::Dashboard;
pub(crate) use http::{Conn, Request, Response};
pub(crate) use proxy::Proxy;
pub(crate) use server::{Launch, Server, Stderr};
pub(crate) use setup::Setup;
pub(crate) use wait::{DEADLINE, eventually};
