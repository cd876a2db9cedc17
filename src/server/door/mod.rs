//! The public port: one thread, one readiness loop, in front of tiny_http. It alone parses HTTP/1.1
//! and speaks to HTTP clients; it knows no JSON member and no agent's state, and it never blocks
//! on a client, a worker or a dashboard.
//!
//! A request is received whole and checked here, within limits, deadlines and one budget for all
//! buffers. It is then stamped, written anew and sent over a persistent connection to tiny_http (a
//! pipe), where it cannot do harm. A worker reads it there and sends its response back over a
//! channel, which wakes the loop.
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
//! | type | owns | I/O |
//! |---|---|---|
//! | [`Door`] | the loop: events, what they lead to (`serve`), what bounds it (`bounds`) | mio |
//! | `Acceptor` | when to accept from a listener, with back-off | none |
//! | `Clients` | the table of clients: sockets, sums over all of them, the sweep of deadlines | read, write |
//! | `Connection` | one client's state, input, output and deadline | none |
//! | `Head`, `Policy`, `Origins` | bytes to a head, a head to a decision, what browsers are told | none |
//! | `Pipe` | the connection to one tiny_http server, and the requests at its workers | write |
//! | `Moderation` | whether the loop waits a moment, to do more at once | none |
//! | `Guesses`, `Refusals` | which 401 is delayed, and what the log says of refusals | none |
//! | `Dashboards` | the places for dashboards | none |
//!
//! Four rules keep the loop responsive and its memory bounded. Work per client and turn is bounded:
//! one read, one request; the rest is listed for the next turn. Readiness is edge-triggered, so
//! whatever is left unread, unaccepted or unwritten is remembered. A slow client costs memory only
//! within the budget, and time only within its deadlines. And whatever is done with a client ends
//! with [`Door::settle`], which sends, accounts and lists.

mod addresses;
mod bounds;
mod clients;
mod connection;
mod cors;
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
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, UNIX_EPOCH};

use crossbeam_channel::never;
use mio::event::Event;
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token, Waker};

pub(crate) use self::addresses::{Dashboards, Permit};

use self::clients::Clients;
use self::connection::Context;
use self::listener::Acceptor;
use self::moderation::Moderation;
use self::pipe::Pipe;
use self::policy::Policy;
use self::refusals::{Guesses, Refusals};
use crate::runtime::clock::{Clock, UnixMillis};
use crate::runtime::counters::Counters;
use crate::server::auth::Gate;
use crate::server::limits::Limits;
use crate::server::relay::{DoorWaker, Responder};
use crate::wire::KIB;
use crate::wire::id::{PoolId, PoolIndex};

/// How long requests in flight have for their responses when the door stops.
pub(crate) const STOP_GRACE: Duration = Duration::from_millis(400);

/// Readiness events taken in one turn. Others come in the next.
const EVENTS_PER_TURN: usize = 1_024;

/// Responses of one backend taken in one turn.
const MAX_RESPONSES_PER_TURN: usize = 1_024;

/// One read of a client: a heartbeat of the largest size in one or two.
const READ_BYTES: usize = 64 * KIB;

/// Of the requests in flight, reads may be one in so many.
const READS_SHARE: usize = 4;

/// Responses of reads that wait for the door. A snapshot may take megabytes and is in no budget
/// before the door has taken it, so the workers wait for the door, which never waits for them.
const MAX_READS_RESPONSES: usize = 4;

/// Tokens: a client's is its slot, and there are never so many of them.
const WAKER: usize = usize::MAX;
const PIPES: [usize; 2] = [usize::MAX - 1, usize::MAX - 2];
const FIRST_LISTENER: usize = usize::MAX / 2;

/// What the door is made of.
pub(crate) struct DoorParts {
    /// Bound and listening; at least one.
    pub listeners: Vec<std::net::TcpListener>,
    /// The Unix sockets of the tiny_http servers: for heartbeats, goodbyes and `/readyz`, and for
    /// everything else.
    pub backends: [PathBuf; 2],
    pub gate: Arc<Gate>,
    /// Pools by their [`PoolIndex`].
    pub pools: Vec<PoolId>,
    pub limits: Limits,
    pub clock: Clock,
    pub counters: Arc<Counters>,
    pub dashboards: Arc<Dashboards>,
    pub feed: Box<dyn OpenFeed>,
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
    /// The pool that it may and wants to watch.
    pub pool: PoolIndex,
    /// Its place among the dashboards; given back when dropped.
    pub permit: Permit,
}

/// Serves dashboards: the door itself writes no 101 and reads no frame.
pub(crate) trait OpenFeed: Send {
    /// Takes over the client, without waiting for it.
    ///
    /// # Errors
    /// When it cannot be served (no thread, say), it is given back with the reason, and the
    /// door responds with 503.
    fn open(&self, upgrade: Upgrade) -> Result<(), (Upgrade, io::Error)>;
}

/// See the module. Runs on a thread of its own until its [`DoorHandle`] says stop.
pub(crate) struct Door {
    poll: Poll,
    listeners: Vec<(TcpListener, Acceptor)>,
    clients: Clients,
    /// In the order of [`policy::Backend`].
    pipes: [Pipe; 2],
    context: Context,
    clock: Clock,
    counters: Arc<Counters>,
    dashboards: Arc<Dashboards>,
    feed: Box<dyn OpenFeed>,
    guesses: Guesses,
    refusals: Refusals,
    moderation: Moderation,
    /// The last stamp's number.
    stamped: u64,
    /// The value of `Date` (RFC 9110 section 6.6.1), and the second since 1970 that it is of.
    date: String,
    date_second: u64,
    /// What was read, until its client's connection has it: one buffer for all.
    scratch: Box<[u8]>,
    waker: Arc<DoorWaker>,
    stop: Arc<AtomicBool>,
    /// Set by the stop: when the door ends at the latest.
    ends_at: Option<Instant>,
}

/// Stops a [`Door`] from another thread.
#[derive(Debug, Clone)]
pub(crate) struct DoorHandle {
    stop: Arc<AtomicBool>,
    waker: Arc<DoorWaker>,
}

impl DoorHandle {
    /// No new connection and no new request from here on; requests in flight get their responses
    /// within [`STOP_GRACE`], then [`Door::run`] returns. Does not wait for that.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        self.waker.wake();
    }
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
    /// workers of the two backends.
    ///
    /// # Errors
    /// When the system refuses to watch the listeners, or the workers cannot be reached.
    pub(crate) fn new(parts: DoorParts) -> io::Result<(Self, DoorHandle, [Responder; 2])> {
        let poll = Poll::new()?;
        let waker = DoorWaker::new(Waker::new(poll.registry(), Token(WAKER))?);
        let mut listeners = Vec::with_capacity(parts.listeners.len());
        for (index, listener) in parts.listeners.into_iter().enumerate() {
            listener.set_nonblocking(true)?;
            let mut listener = TcpListener::from_std(listener);
            let token = Token(FIRST_LISTENER + index);
            poll.registry().register(&mut listener, token, Interest::READABLE)?;
            listeners.push((listener, Acceptor::new()));
        }
        let now = parts.clock.now();
        let reads = (parts.limits.max_in_flight / READS_SHARE).max(1);
        let ingest = parts.limits.max_in_flight.saturating_sub(reads).max(1);
        let [ingest_path, reads_path] = parts.backends;
        let pipe = |path, token, max_in_flight, max_responses| {
            let (responder, responses) = Responder::new(max_responses, Arc::clone(&waker));
            let mut pipe = Pipe::new(path, Token(token), responses, max_in_flight);
            // One for which descriptors are missing now is tried again while the door runs.
            pipe.connect(poll.registry(), now)?;
            io::Result::Ok((pipe, responder))
        };
        let (ingest, ingest_responder) = pipe(ingest_path, PIPES[0], ingest, ingest)?;
        let (reads, reads_responder) = pipe(reads_path, PIPES[1], reads, MAX_READS_RESPONSES)?;
        let max_connections = parts.limits.max_connections;
        let stop = Arc::new(AtomicBool::new(false));
        let handle = DoorHandle { stop: Arc::clone(&stop), waker: Arc::clone(&waker) };
        let door = Self {
            poll,
            listeners,
            clients: Clients::new(max_connections, Arc::clone(&parts.counters), now),
            pipes: [ingest, reads],
            context: Context {
                policy: Policy::new(parts.gate, parts.pools, parts.limits.max_body_bytes),
                limits: parts.limits,
                now,
                is_stopping: false,
            },
            clock: parts.clock,
            counters: parts.counters,
            dashboards: parts.dashboards,
            feed: parts.feed,
            guesses: Guesses::default(),
            refusals: Refusals::default(),
            moderation: Moderation::default(),
            stamped: 0,
            date: String::new(),
            date_second: 0,
            scratch: vec![0; READ_BYTES].into_boxed_slice(),
            waker,
            stop,
            ends_at: None,
        };
        Ok((door, handle, [ingest_responder, reads_responder]))
    }

    /// Serves until [`DoorHandle::stop`].
    ///
    /// # Errors
    /// [`DoorError`], a fault of the system or of ours.
    pub(crate) fn run(mut self) -> Result<(), DoorError> {
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        loop {
            // In this order: what comes after the look wakes us.
            self.waker.set_sleeping(true);
            let timeout = if self.has_work() { Some(Duration::ZERO) } else { self.timeout() };
            let polled = self.poll.poll(&mut events, timeout);
            self.waker.set_sleeping(false);
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
            if !wait.is_zero() && self.clients.body_bytes() == 0 {
                // Nothing that comes meanwhile ends the wait: that is its purpose.
                let _ = never::<()>().recv_timeout(wait);
            }
        }
    }

    /// One turn of the loop; true when it was the last. Whatever has come is taken in before
    /// deadlines are looked at, so that a delay of ours is not held against others.
    fn turn(&mut self, events: &Events) -> Result<bool, DoorError> {
        self.context.now = self.clock.now();
        self.update_date(self.clock.wall());
        let listed = self.clients.listed();
        for event in events {
            self.on_event(event);
        }
        for _ in 0..listed {
            let Some(slot) = self.clients.next_listed() else { break };
            self.serve(slot);
        }
        self.accept();
        for index in 0..self.pipes.len() {
            for _ in 0..MAX_RESPONSES_PER_TURN {
                let Some((number, slot, response)) = self.pipes[index].next_response() else {
                    break;
                };
                self.deliver(number, slot, response);
            }
        }
        self.keep_pipes()?;
        self.relay_waiting();
        self.keep_deadlines();
        self.log_refusals(false);
        self.flush_pipes();
        self.make_room_in_memory();
        Ok(self.stop.load(Ordering::SeqCst) && self.wind_down())
    }

    fn on_event(&mut self, event: &Event) {
        match event.token().0 {
            WAKER => {}
            token if PIPES.contains(&token) => {
                // Writability needs no note: every turn ends with a try to write.
                if event.is_readable() || event.is_read_closed() || event.is_error() {
                    self.pipes[PIPES[0] - token].set_readable();
                }
            }
            token if token >= FIRST_LISTENER => {
                if let Some((_, acceptor)) = self.listeners.get_mut(token - FIRST_LISTENER) {
                    acceptor.set_ready();
                }
            }
            slot => self.on_client_event(slot, event),
        }
    }

    /// The client may have been closed in this turn already. New ones are accepted after all
    /// events, so that none gets the event of the slot's previous client.
    fn on_client_event(&mut self, slot: usize, event: &Event) {
        let Some(client) = self.clients.get(slot) else { return };
        let has_hung_up = event.is_read_closed() && client.connection.is_delayed();
        if event.is_error() || event.is_write_closed() || has_hung_up {
            // Reset, closed on both sides, or gone before its response had waited.
            return self.close(slot);
        }
        if event.is_writable() {
            client.set_writable();
        }
        if event.is_readable() || event.is_read_closed() {
            client.set_readable(event.is_read_closed());
        }
        if !client.connection.unsent().is_empty() {
            self.settle(slot);
        }
        self.serve(slot);
    }

    /// Connects pipes that broke. Responses that came before they broke were taken before.
    ///
    /// # Errors
    /// [`DoorError::Workers`] when the workers cannot be reached any more.
    fn keep_pipes(&mut self) -> Result<(), DoorError> {
        let now = self.context.now;
        for index in 0..self.pipes.len() {
            if let Err(error) = self.pipes[index].check() {
                self.fail_pipe(index, &error);
            }
            let pipe = &mut self.pipes[index];
            if pipe.retry_at(now).is_some_and(|at| at <= now) {
                pipe.connect(self.poll.registry(), now).map_err(DoorError::Workers)?;
            }
        }
        Ok(())
    }

    fn flush_pipes(&mut self) {
        for index in 0..self.pipes.len() {
            if let Err(error) = self.pipes[index].flush(self.poll.registry()) {
                self.fail_pipe(index, &error);
            }
        }
    }

    /// Whether there is something to do that no event reports.
    fn has_work(&self) -> bool {
        self.clients.listed() > 0
            || self.pipes.iter().any(Pipe::has_response)
            || self.stop.load(Ordering::SeqCst) && self.ends_at.is_none()
    }

    /// How long the loop may sleep: until the first of all deadlines, or for ever.
    fn timeout(&self) -> Option<Duration> {
        let now = self.clock.now();
        let accepts = self.listeners.iter().filter_map(|(_, acceptor)| acceptor.due(now));
        let pipes = self.pipes.iter().filter_map(|pipe| pipe.retry_at(now));
        let others = [self.clients.next_sweep(), self.refusals.due(), self.ends_at];
        let first = accepts.chain(pipes).chain(others.into_iter().flatten()).min()?;
        Some(first.saturating_duration_since(now))
    }

    /// The date is formatted once a second and not once a response.
    fn update_date(&mut self, now: UnixMillis) {
        // The last second that HTTP's four-digit year can write.
        const LAST: u64 = 253_402_300_799;
        let second = (now.0 / 1_000).min(LAST);
        if self.date_second != second || self.date.is_empty() {
            self.date_second = second;
            self.date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second));
        }
    }
}
