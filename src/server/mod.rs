//! Puts the server together and takes it down: binds, makes the channels, spawns the threads,
//! hears of their ends, and stops them in order. Does none of their work.

pub(crate) mod auth;
pub(crate) mod config;
pub(crate) mod descriptors;
pub(crate) mod door;
pub(crate) mod event;
pub(crate) mod fanout;
pub(crate) mod frame;
pub(crate) mod hub;
pub(crate) mod limits;
pub(crate) mod registry;
pub(crate) mod relay;
pub(crate) mod route;
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

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, select};
use sockets::SocketDirectory;

use crate::runtime::clock::Clock;
use crate::runtime::signals::Signal;
use crate::runtime::threads::{Ended, Outcome, Role, Threads};
use crate::server::door::{DoorHandle, STOP_GRACE};
use crate::server::hub::HubHandle;
use crate::server::limits::CLOSE_GRACE;

/// All of a stop, from the signal to the last thread's end: within the two seconds that a
/// supervisor of processes can be promised, with room for what comes after.
pub(crate) const STOP_WITHIN: Duration = Duration::from_millis(1_800);

/// Of that, for the agent of `--dev` to say goodbye, and for the door to answer what is in flight.
const AGENT_STOP_WITHIN: Duration = Duration::from_millis(200);
const DOOR_STOP_WITHIN: Duration = Duration::from_millis(500);

/// And for what has no time of its own: to wake threads, and to join them, on a busy machine.
const STOP_SLACK: Duration = Duration::from_millis(300);

// One after the other, and dashboards last.
const _: () = assert!(
    AGENT_STOP_WITHIN.as_millis()
        + DOOR_STOP_WITHIN.as_millis()
        + CLOSE_GRACE.as_millis()
        + STOP_SLACK.as_millis()
        <= STOP_WITHIN.as_millis()
);
const _: () = assert!(STOP_GRACE.as_millis() < DOOR_STOP_WITHIN.as_millis());

/// How many threads do the work that can be spread.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    /// Workers for heartbeats and goodbyes.
    pub workers: usize,
    /// Threads that write to dashboards.
    pub fanouts: usize,
}

impl Default for Sizes {
    /// One fanout thread a core: more would only wait for one another. Half as many workers, since
    /// door, hub and tiny_http want a core as well: on two cores a second worker was measured to
    /// cost a fifth more CPU per heartbeat, spent on waking one another.
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        Self { workers: (cores / 2).clamp(1, 8), fanouts: cores.clamp(1, 8) }
    }
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    addresses: Vec<SocketAddr>,
    clock: Clock,
    threads: Threads,
    ends: Receiver<Ended>,
    door: DoorHandle,
    hub: HubHandle,
    /// Pools with how many workers each has.
    pools: Vec<(Arc<workers::Pool>, usize)>,
    agent: Option<Sender<()>>,
    /// For tests that end a fanout thread.
    #[cfg(test)]
    fanouts: Vec<crate::server::fanout::FanoutHandle>,
    /// The Unix sockets' home. Behind the pools, so that it is removed after them: tiny_http's
    /// own threads end only while the sockets are there.
    _directory: SocketDirectory,
}

/// Why the server could not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("{}", cannot_listen(.0, .1))]
    Listen(SocketAddr, #[source] io::Error),
    /// What could not be made, and why.
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

/// A thread that the server cannot do without has ended, and with it the server.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("thread {thread} ended: {reason}")]
pub(crate) struct ThreadDied {
    pub thread: String,
    /// Its error, or its panic.
    pub reason: String,
}

impl Server {
    /// Where it listens, with the ports that the system chose.
    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Starts a thread beside the server's own, with a channel that closes when the server stops:
    /// first of all, so that the thread may still use the server ([`AGENT_STOP_WITHIN`]).
    ///
    /// # Errors
    /// [`StartError::Resource`] without a thread to be had.
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

    /// Runs until a signal comes, or until a thread ends that the server cannot do without.
    ///
    /// # Errors
    /// [`ThreadDied`]; everything that could be stopped is stopped then, too.
    pub(crate) fn run(self, signals: &Receiver<Signal>) -> Result<(), ThreadDied> {
        let cause = loop {
            select! {
                recv(signals) -> signal => {
                    let signal = signal.map_or_else(|_| "end of signals".to_owned(), |it| it.to_string());
                    log::info!("stopping on {signal}");
                    break None;
                }
                recv(self.ends) -> ended => match ended {
                    Ok(ended) => if let Some(died) = self.bury(&ended) {
                        log::error!("{died}; stopping");
                        break Some(died);
                    },
                    Err(_) => break None,
                },
            }
        };
        self.stop();
        cause.map_or(Ok(()), Err)
    }

    /// Joins a thread that has ended, and says so if it should not have.
    fn bury(&self, ended: &Ended) -> Option<ThreadDied> {
        self.threads.join(ended);
        let Ended { name, role, outcome, .. } = ended;
        match (role, outcome) {
            (Role::Essential, _) => {
                let reason = outcome.clone().err().unwrap_or_else(|| "without a reason".to_owned());
                Some(ThreadDied { thread: name.clone(), reason })
            }
            (Role::Temporary, Err(reason)) => {
                log::error!("thread {name} failed: {reason}");
                None
            }
            (Role::Temporary, Ok(())) => None,
        }
    }

    /// The one way down, whatever the cause: first who brings work, then who does it.
    fn stop(mut self) {
        let deadline = self.clock.now() + STOP_WITHIN;
        if let Some(agent) = self.agent.take() {
            drop(agent);
            self.await_end("agent", deadline.min(self.clock.now() + AGENT_STOP_WITHIN));
        }
        self.door.stop();
        self.await_end("door", deadline.min(self.clock.now() + DOOR_STOP_WITHIN));
        for (pool, workers) in &self.pools {
            pool.stop(*workers);
        }
        // The hub's end closes the channels to the fanout threads, which say 1001 to dashboards.
        self.hub.shutdown();
        while self.threads.count() > 0 {
            if self.await_one(deadline).is_none() {
                log::warn!("{} threads did not stop in time", self.threads.count());
                return;
            }
        }
        log::info!("stopped");
    }

    /// Waits for a thread, unless it has been joined already.
    fn await_end(&self, name: &str, deadline: Instant) {
        while self.threads.has(name) && self.await_one(deadline).is_some() {}
    }

    /// Joins the next thread that ends before `deadline`.
    fn await_one(&self, deadline: Instant) -> Option<Ended> {
        match self.ends.recv_deadline(deadline) {
            Ok(ended) => {
                self.threads.join(&ended);
                if let Err(reason) = &ended.outcome {
                    log::error!("thread {} failed: {reason}", ended.name);
                }
                Some(ended)
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => None,
        }
    }
}
