//! The page in a real browser, against a real server.

mod agent;
mod axe;
mod connection;
mod crowd;
mod harness;
mod hooks;
mod hostile;
mod layout;
mod list;
mod login;
mod map;
mod overview;
mod rows;
mod soak;
mod toolbar;
mod trouble;
mod wall;
mod window;
