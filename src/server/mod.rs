//! Starts and stops the server: binds, creates the channels, spawns the threads, receives their ends,
//! and stops them in order. Does none of their work.

pub(crate) mod auth;
pub(crate) mod config;
pub(crate) mod descriptors;
pub(crate) mod door;
pub(crate) mod event;
pub(crate) mod fanout;
pub(crate) mod feed;
pub(crate) mod frame;
pub(crate) mod hub;
pub(crate) mod limits;
pub(crate) mod registry;
pub(crate) mod relay;
pub(crate) mod ring;
pub(crate) mod route;
pub(crate) mod snapshot;
mod sockets;
mod start;
pub(crate) mod subscriber;
#[cfg(test)]
mod tests;
pub(crate) mod workers;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, select};

use self::door::STOP_GRACE;
use self::hub::HubHandle;
use self::limits::CLOSE_GRACE;
use self::relay::DoorHandle;
use self::sockets::SocketDirectory;
use self::workers::Workers;
use crate::runtime::clock::Clock;
use crate::runtime::signals::Signal;
use crate::runtime::threads::{Ended, Outcome, Role, Threads};

/// From the signal to the last thread's end. Process supervisors can count on two seconds in all.
pub(crate) const STOP_WITHIN: Duration = Duration::from_millis(1_800);

/// Of that, for the goodbye of the agent of `--dev`, and for the door to answer what is in flight.
const AGENT_STOP_WITHIN: Duration = Duration::from_millis(200);
const DOOR_STOP_WITHIN: Duration = Duration::from_millis(500);

/// And for waking and joining threads on a busy machine.
const STOP_SLACK: Duration = Duration::from_millis(300);

// One after the other; dashboards last.
const _: () = assert!(
    AGENT_STOP_WITHIN.as_millis()
        + DOOR_STOP_WITHIN.as_millis()
        + CLOSE_GRACE.as_millis()
        + STOP_SLACK.as_millis()
        <= STOP_WITHIN.as_millis()
);
const _: () = assert!(STOP_GRACE.as_millis() < DOOR_STOP_WITHIN.as_millis());

/// How many threads share each kind of work.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    /// Workers for heartbeats and goodbyes.
    pub workers: usize,
    /// Threads that write to dashboards.
    pub fanouts: usize,
}

impl Default for Sizes {
    /// One fanout thread per core: more would only compete. Half as many workers, since door, hub and
    /// tiny_http need a core too: on two cores a second worker was measured to cost a fifth more CPU
    /// per heartbeat, spent on wake-ups.
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        Self { workers: (cores / 2).clamp(1, 8), fanouts: cores.clamp(1, 8) }
    }
}

/// A running server.
pub(crate) struct Server {
    /// With the ports that the system chose.
    pub addresses: Vec<SocketAddr>,
    clock: Clock,
    threads: Threads,
    ends: Receiver<Ended>,
    door: Arc<DoorHandle>,
    hub: HubHandle,
    backends: [Arc<Workers>; 2],
    agent: Option<Sender<()>>,
    /// For tests that end a fanout thread.
    #[cfg(test)]
    fanouts: Vec<Sender<event::Control>>,
    /// Of the Unix sockets. Declared after the backends, so that it is removed after them:
    /// tiny_http's own threads end only while the sockets exist.
    _directory: SocketDirectory,
}

/// Why the server could not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("{}", cannot_listen(.0, .1))]
    Listen(SocketAddr, #[source] io::Error),
    #[error("cannot make {0}: {1}")]
    Resource(&'static str, #[source] io::Error),
}

fn cannot_listen(address: &SocketAddr, error: &io::Error) -> String {
    // For port 0 the system chose the port: there is no next one to propose.
    if error.kind() != io::ErrorKind::AddrInUse || address.port() == 0 {
        return format!("cannot listen on {address}: {error}");
    }
    let port = address.port().checked_add(1).unwrap_or(u16::MAX - 1);
    let next = SocketAddr::new(address.ip(), port);
    format!(
        "cannot listen on {address}: another program has this port; end that one, or choose \
         another port, as in --listen {next}"
    )
}

/// An essential thread has ended, and with it the server.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("thread {thread} ended: {reason}")]
pub(crate) struct ThreadDied {
    pub thread: String,
    /// Its error, or its panic.
    pub reason: String,
}

impl Server {
    /// Starts the agent of `--dev`. Its channel is closed first of all when the server stops, so that
    /// the agent can still send its goodbye.
    pub(crate) fn spawn_agent(
        &mut self,
        work: impl FnOnce(Receiver<()>) -> Outcome + Send + 'static,
    ) -> Result<(), StartError> {
        let (stop, stopped) = bounded(1);
        self.threads
            .spawn("agent", Role::Temporary, move || work(stopped))
            .map_err(|error| StartError::Resource("the thread agent", error))?;
        self.agent = Some(stop);
        Ok(())
    }

    /// Runs until a signal is received or an essential thread ends; then stops everything.
    pub(crate) fn run(self, signals: &Receiver<Signal>) -> Result<(), ThreadDied> {
        let result = loop {
            select! {
                recv(signals) -> signal => {
                    let signal = signal.map_or_else(|_| "end of signals".to_owned(), |it| it.to_string());
                    log::info!("stopping on {signal}");
                    break Ok(());
                }
                recv(self.ends) -> ended => {
                    // Never disconnected: `self.threads` has a sender.
                    let Ok(ended) = ended else { break Ok(()) };
                    if ended.role == Role::Temporary {
                        self.join(&ended);
                        continue;
                    }
                    self.threads.join(&ended);
                    let reason = ended.outcome.err().unwrap_or_else(|| "without a reason".to_owned());
                    let died = ThreadDied { thread: ended.name, reason };
                    log::error!("{died}; stopping");
                    break Err(died);
                }
            }
        };
        self.stop();
        result
    }

    fn join(&self, ended: &Ended) {
        self.threads.join(ended);
        if let Err(reason) = &ended.outcome {
            log::error!("thread {} failed: {reason}", ended.name);
        }
    }

    /// Stops everything, whatever the cause: first the threads that bring work, then those that do it.
    fn stop(mut self) {
        let deadline = self.clock.now() + STOP_WITHIN;
        self.agent = None;
        self.await_end("agent", AGENT_STOP_WITHIN);
        self.door.stop();
        self.await_end("door", DOOR_STOP_WITHIN);
        for workers in &self.backends {
            workers.stop();
        }
        // The hub's end closes the channels to the fanout threads, which close dashboards with 1001.
        self.hub.shutdown();
        while self.threads.count() > 0 {
            if !self.await_one(deadline) {
                log::warn!("{} threads did not stop in time", self.threads.count());
                return;
            }
        }
        log::info!("stopped");
    }

    /// Waits until this thread has been joined, at most for `within`.
    fn await_end(&self, name: &str, within: Duration) {
        let deadline = self.clock.now() + within;
        while self.threads.has(name) && self.await_one(deadline) {}
    }

    /// Joins the next thread that ends, if one does before `deadline`.
    fn await_one(&self, deadline: Instant) -> bool {
        let ended = self.ends.recv_deadline(deadline);
        ended.inspect(|ended| self.join(ended)).is_ok()
    }
}
