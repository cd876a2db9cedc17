//! Forwards signals to the command of `agent-metrics task`, which keeps the terminal, its input and
//! output, and its process group, and waits for its end. Starts nothing; knows no server.
//!
//! One thread waits for signals only; SIGCHLD is one of them. Only this thread reaps the command,
//! so no signal can go to another process that got the command's number. [`probe`] is a second
//! process that finds out whether a signal has already reached the command.

pub(crate) mod forward;
pub(crate) mod probe;
