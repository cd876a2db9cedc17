//! The public port: one thread, one readiness loop, in front of tiny_http. It alone parses HTTP/1.1
//! and speaks to HTTP clients; it knows no JSON member and no agent's state, and it never blocks
//! on a client, a worker or a dashboard.
//!
//! A request is received whole and checked here, within limits, deadlines and one budget for all
//! buffers. It is then stamped, and what a worker needs of it is encoded. All such requests of a turn go
//! over a persistent connection to tiny_http (a pipe) as the body of one HTTP request: a batch. A worker
//! reads it there and sends each response back over a channel, which wakes the loop.
//!
//! ```text
//! listeners ─▶ Door ─▶ Clients: a socket and a Connection each
//!               │ readable                                      writable ▲
//!               ▼                                                        │
//!         Connection::advance ─▶ Policy::decide ─┬▶ refused, /livez ─▶ respond
//!         (frames a request)     (from its head) ├▶ relay ─▶ Pipe ─▶ tiny_http's workers ┐
//!                                                │           respond ◀─ Responder ◀──────┘
//!                                                └▶ upgrade ─▶ OpenFeed: the socket leaves
//! ```
//!
//! Four rules keep the loop responsive and its memory bounded. Work per client and turn is bounded:
//! one read, one request; the rest is listed for the next turn. Readiness is edge-triggered, so
//! whatever is left unread or unaccepted is remembered. A slow client costs memory only within the
//! budget, and time only within its deadlines. And whatever is done with a client ends with
//! [`Door::settle`], which sends, accounts and lists.

mod addresses;
mod bounds;
mod clients;
mod connection;
mod cors;
mod floods;
mod head;
mod input;
mod listener;
mod moderation;
mod pipe;
mod policy;
mod refusals;
mod serve;
#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::never;
use mio::event::Event as Readiness;
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token, Waker};

use self::addresses::{Permit, Permits};
use self::clients::Clients;
use self::connection::{Context, Event};
use self::floods::Floods;
use self::listener::Acceptor;
use self::moderation::Moderation;
use self::pipe::Pipe;
use self::policy::Policy;
use self::refusals::{Guesses, Refusals};
use crate::runtime::clock::Clock;
use crate::runtime::counters::Counters;
use crate::server::auth::Gate;
use crate::server::feed::FeedId;
use crate::server::limits::Limits;
use crate::server::relay::{DoorHandle, Responder};
use crate::wire::KIB;
use crate::wire::id::PoolId;
use crate::wire::response::Response;

/// How long requests in flight have for their responses when the door stops.
pub(crate) const STOP_GRACE: Duration = Duration::from_millis(400);

/// Readiness events taken in one turn. Others come in the next.
const EVENTS_PER_TURN: usize = 1_024;

/// One read of a client: a heartbeat of the largest size in one or two.
const READ_BYTES: usize = 64 * KIB;

/// Of the requests in flight, reads may be one in so many.
const READS_SHARE: usize = 4;

/// Responses of reads that wait for the door. A snapshot may take megabytes and is in no budget
/// before the door has taken it, so the workers wait for the door, which never waits for them.
const MAX_READS_RESPONSES: usize = 4;

/// Tokens: a client's is its slot, and there are never so many of them.
const WAKER: usize = usize::MAX;
const PIPES: [Token; 2] = [Token(usize::MAX - 1), Token(usize::MAX - 2)];
const FIRST_LISTENER: usize = usize::MAX / 2;

/// What the door is made of.
pub(crate) struct DoorParts {
    /// Bound and listening, with the options that accepted sockets are to inherit; at least one.
    pub listeners: Vec<std::net::TcpListener>,
    /// The Unix sockets of the tiny_http servers, in the order of [`policy::Backend`].
    pub backends: [PathBuf; 2],
    pub gate: Arc<Gate>,
    /// Pools by their [`PoolIndex`](crate::wire::id::PoolIndex).
    pub pools: Vec<PoolId>,
    pub limits: Limits,
    pub clock: Clock,
    pub counters: Arc<Counters>,
    pub open_feed: OpenFeed,
}

/// A checked WebSocket handshake (RFC 6455 section 4.2) and its socket. Nothing has been sent yet.
#[derive(Debug)]
pub(crate) struct Upgrade {
    /// The client's socket, blocking, with `TCP_NODELAY`.
    pub socket: std::net::TcpStream,
    /// The value of `Sec-WebSocket-Accept`.
    pub accept_key: String,
    /// What the client sent beyond the handshake: the beginning of its frames.
    pub read_ahead: Vec<u8>,
    /// What it may and wants to watch.
    pub feed: FeedId,
    /// Counts it among the dashboards, until its threads have let go of it.
    pub _permit: Permit,
}

/// Takes over a dashboard, without waiting for it: the door itself writes no 101 and reads no frame.
/// One that cannot be served (no thread, say) is given back with the reason, and gets 503.
pub(crate) type OpenFeed = Box<dyn Fn(Upgrade) -> Result<(), (Upgrade, io::Error)> + Send>;

pub(crate) struct Door {
    poll: Poll,
    listeners: Vec<(TcpListener, Acceptor)>,
    clients: Clients,
    /// In the order of [`policy::Backend`].
    pipes: [Pipe; 2],
    context: Context,
    clock: Clock,
    counters: Arc<Counters>,
    connections: Arc<Permits>,
    dashboards: Arc<Permits>,
    open_feed: OpenFeed,
    guesses: Guesses,
    floods: Floods,
    /// Referred to once more by each delayed response.
    delayed: Arc<()>,
    refusals: Refusals,
    moderation: Moderation,
    /// The last stamp's number.
    stamped: u64,
    /// Memory for large bodies of which clients have not taken all.
    body_bytes: Arc<AtomicUsize>,
    /// What was read, until its client's connection has it: one buffer for all.
    scratch: Box<[u8]>,
    handle: Arc<DoorHandle>,
    /// Set by the stop: when the door ends at the latest.
    ends_at: Option<Instant>,
}

/// Why the door cannot go on. Nothing that a client sends leads here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DoorError {
    #[error("waiting for readiness failed: {0}")]
    Poll(#[source] io::Error),
    /// A pipe cannot be connected any more: every response would be a 503.
    #[error("the workers cannot be reached any more: {0}")]
    Workers(#[source] io::Error),
}

impl Door {
    /// Sets everything up; nothing is accepted before [`Door::run`]. The responders are for the
    /// workers of the two backends, which must be listening.
    pub(crate) fn new(parts: DoorParts) -> io::Result<(Self, Arc<DoorHandle>, [Responder; 2])> {
        let DoorParts { backends, gate, pools, limits, clock, counters, open_feed, .. } = parts;
        let poll = Poll::new()?;
        let handle = DoorHandle::new(Waker::new(poll.registry(), Token(WAKER))?);
        let mut listeners = Vec::with_capacity(parts.listeners.len());
        for (index, listener) in parts.listeners.into_iter().enumerate() {
            listener.set_nonblocking(true)?;
            let mut listener = TcpListener::from_std(listener);
            let token = Token(FIRST_LISTENER + index);
            poll.registry().register(&mut listener, token, Interest::READABLE)?;
            listeners.push((listener, Acceptor::default()));
        }
        let now = clock.now();
        let reads = (limits.max_in_flight / READS_SHARE).max(1);
        let ingest = limits.max_in_flight.saturating_sub(reads).max(1);
        let (ingest_responder, ingest_responses) = Responder::new(ingest, Arc::clone(&handle));
        let (reads_responder, reads_responses) =
            Responder::new(MAX_READS_RESPONSES, Arc::clone(&handle));
        let [ingest_path, reads_path] = backends;
        let door = Self {
            listeners,
            clients: Clients::new(limits.max_connections, now),
            pipes: [
                Pipe::connect(ingest_path, poll.registry(), PIPES[0], ingest_responses, ingest)?,
                Pipe::connect(reads_path, poll.registry(), PIPES[1], reads_responses, reads)?,
            ],
            connections: Permits::new(
                limits.max_connections,
                limits.max_connections_per_address,
                Arc::clone(&counters),
                |counters| &counters.connections,
            ),
            dashboards: Permits::new(
                limits.max_dashboards,
                limits.max_dashboards_per_address,
                Arc::clone(&counters),
                |counters| &counters.dashboards,
            ),
            context: Context::new(Policy::new(gate, pools), limits, now),
            clock,
            counters,
            open_feed,
            guesses: Guesses::default(),
            floods: Floods::default(),
            delayed: Arc::default(),
            refusals: Refusals::default(),
            moderation: Moderation::default(),
            stamped: 0,
            body_bytes: Arc::default(),
            scratch: vec![0; READ_BYTES].into_boxed_slice(),
            handle: Arc::clone(&handle),
            ends_at: None,
            poll,
        };
        Ok((door, handle, [ingest_responder, reads_responder]))
    }

    /// Serves until [`DoorHandle::stop`].
    pub(crate) fn run(mut self) -> Result<(), DoorError> {
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        loop {
            // In this order: what comes after the look at what there is wakes us.
            self.handle.set_sleeping(true);
            let polled = self.poll.poll(&mut events, self.timeout());
            self.handle.set_sleeping(false);
            match polled {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(DoorError::Poll(error)),
            }
            if self.turn(&events)? {
                return Ok(());
            }
            let wait = self.moderation.wait(self.context.now, self.clock.now());
            // Who takes a large response as fast as we send it is not slowed down.
            if !wait.is_zero() && self.body_bytes.load(Ordering::Relaxed) == 0 {
                // Nothing that comes meanwhile ends the wait: that is its purpose.
                let _ = never::<()>().recv_timeout(wait);
            }
        }
    }

    /// How long the loop may sleep: until the first of all deadlines, or for ever.
    fn timeout(&self) -> Option<Duration> {
        let has_work = !self.clients.listed.is_empty()
            || self.pipes.iter().any(|pipe| !pipe.responses.is_empty() || pipe.is_ready())
            || self.handle.is_stopped() && self.ends_at.is_none();
        if has_work {
            return Some(Duration::ZERO);
        }
        let now = self.clock.now();
        let accepts = self.listeners.iter().filter_map(|(_, acceptor)| acceptor.due(now));
        let others = [self.clients.next_sweep(), self.refusals.due(), self.ends_at];
        let first = accepts.chain(others.into_iter().flatten()).min()?;
        Some(first.saturating_duration_since(now))
    }

    /// One turn of the loop; true when it was the last. Whatever has come is taken in before
    /// deadlines are looked at, so that a delay of ours is not held against others.
    fn turn(&mut self, events: &Events) -> Result<bool, DoorError> {
        self.context.set_time(self.clock.now(), self.clock.wall());
        let listed = self.clients.listed.len();
        for event in events {
            self.on_readiness(event)?;
        }
        for _ in 0..listed {
            let Some(slot) = self.clients.next_listed() else { break };
            self.serve(slot);
        }
        self.accept();
        for index in 0..self.pipes.len() {
            self.take_responses(index);
        }
        self.keep_deadlines();
        for index in 0..self.pipes.len() {
            self.relay_waiting(index);
            if let Err(error) = self.pipes[index].flush(self.poll.registry()) {
                self.replace_pipe(index, &error)?;
            }
        }
        self.log_refusals(false);
        Ok(self.handle.is_stopped() && self.wind_down())
    }

    fn on_readiness(&mut self, event: &Readiness) -> Result<(), DoorError> {
        let token = event.token().0;
        if let Some(index) = PIPES.iter().position(|pipe| *pipe == event.token()) {
            // Responses that came before it broke are valid.
            self.take_responses(index);
            if let Err(error) = self.pipes[index].check() {
                self.replace_pipe(index, &error)?;
            }
        } else if token >= FIRST_LISTENER {
            if let Some((_, acceptor)) = self.listeners.get_mut(token - FIRST_LISTENER) {
                acceptor.is_backlog_empty = false;
            }
        } else {
            self.on_client_readiness(token, event);
        }
        Ok(())
    }

    /// The client may have been closed in this turn already. New ones are accepted after all
    /// events, so that none gets the event of the slot's previous client.
    fn on_client_readiness(&mut self, slot: usize, event: &Readiness) {
        let Some(client) = self.clients.get(slot) else { return };
        let has_hung_up = event.is_read_closed() && client.connection.is_delayed();
        if event.is_error() || event.is_write_closed() || has_hung_up {
            // Reset, closed on both sides, or gone before its response had waited.
            return self.close(slot);
        }
        client.is_readable |= event.is_readable() || event.is_read_closed();
        client.is_half_closed |= event.is_read_closed();
        self.serve(slot);
    }

    /// What was in flight gets 503.
    fn replace_pipe(&mut self, index: usize, error: &io::Error) -> Result<(), DoorError> {
        log::warn!("a pipe to the workers broke and is connected again: {error}");
        self.counters.pipe_breaks.add_one();
        let lost = self.pipes[index].reconnect(self.poll.registry());
        for (number, slot) in lost.map_err(DoorError::Workers)? {
            if self.clients.pending(number, slot).is_some() {
                let lost = Response::problem(503, "the request was lost on its way; try again");
                self.act(slot, Event::Respond(lost, None));
            }
        }
        Ok(())
    }
}

/// One read or write: `None` when it would block. The end of the connection is an error.
fn nonblocking(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<Option<usize>> {
    loop {
        return match call() {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => Ok(Some(count)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Err(error),
        };
    }
}
