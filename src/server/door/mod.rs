//! The public port: one thread, one readiness loop, in front of tiny_http. It alone parses
//! HTTP/1.1 and speaks to HTTP clients; it knows no JSON member and no agent's state, and it
//! never waits for anyone: not for a client, not for a worker, not for a dashboard.
//!
//! What comes is made whole and checked here, within limits, deadlines and one budget for all
//! buffers. It is then stamped and written anew on a persistent connection to tiny_http (a
//! pipe), where it cannot do harm; answers come back in order and go to who asked:
//!
//! ```text
//!             listen ─▶ accept ─▶ clients
//!                                    │
//! sockets ─▶ connection ─▶ serve: parse ─▶ check ─┬▶ refused, /livez ────────▶ answer ─▶ sockets
//!                                                 ├▶ whole ─▶ workers ───────▶ answer ─▶ sockets
//!                                                 │           lanes ─▶ pipe ─▶ tiny_http
//!                                                 └▶ WebSocket ─▶ feed: the socket leaves
//! ```
//!
//! | room | owns |
//! |---|---|
//! | `listen`, `accept` | the listeners: accepting with back-off; caps on connections |
//! | `clients`, `connection`, `held` | the table of clients; one client's socket, phase and buffers |
//! | `parse`, `check`, `cors` | pure: bytes to a head, a head to a decision, and to what browsers are told |
//! | `serve` | reading: what a client's bytes lead to |
//! | `workers`, `lanes`, `pipe` | the way to tiny_http and back |
//! | `answer`, `reply` | writing: answers, their heads, and what follows them |
//! | `cutoff` | deadlines, the budget, stopping |
//! | `refusals`, `delay` | pure: which 401 waits, what the log says of refusals; and the waiting |
//! | `admission`, `feed` | places for dashboards, and the way out for their sockets |
//!
//! Three rules keep the loop alive. Work per client and turn is bounded: one read, one request;
//! the rest waits in a list for the next turn. Readiness is edge-triggered, so whatever is left
//! unread, unaccepted or unwritten is remembered. And a client that is slow costs memory only
//! within the budget, and time only within its deadlines.

mod accept;
mod admission;
mod answer;
mod check;
mod clients;
mod connection;
mod cors;
mod cutoff;
mod delay;
mod feed;
mod held;
mod lanes;
mod listen;
mod parse;
mod pipe;
mod refusals;
mod reply;
mod serve;
#[cfg(test)]
mod tests;
mod workers;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token, Waker};

pub(crate) use self::admission::Dashboards;
pub(crate) use self::feed::{OpenFeed, Upgrade};

use self::check::Rules;
use self::clients::Clients;
use self::lanes::Lanes;
use self::listen::Listener;
use self::pipe::Pipe;
use self::refusals::{Guesses, Refusals};
use self::reply::Date;
use crate::runtime::clock::Clock;
use crate::runtime::counters::Counters;
use crate::server::auth::Gate;
use crate::server::limits::Limits;
use crate::wire::KIB;
use crate::wire::id::PoolId;

/// How long requests that are in flight when the door is told to stop have for their answers.
pub(crate) const STOP_GRACE: Duration = Duration::from_millis(400);

/// Readiness events taken in one turn. Others come in the next.
const EVENTS_PER_TURN: usize = 1_024;

/// One read, of a client or a pipe: a heartbeat of the largest size in one or two.
const READ_BYTES: usize = 64 * KIB;

const WAKER: Token = Token(0);

/// What the door is made of.
pub(crate) struct Parts {
    /// Bound and listening; at least one.
    pub listeners: Vec<std::net::TcpListener>,
    /// The Unix socket where heartbeats, goodbyes and `/readyz` are served, over one connection: more would
    /// not do, see [`crate::server::workers::Pool`].
    pub ingest_path: PathBuf,
    /// The Unix socket where everything else is served, likewise.
    pub reads_path: PathBuf,
    /// Who may do what.
    pub gate: Arc<Gate>,
    /// Pools by their [`crate::wire::id::PoolIndex`].
    pub pools: Vec<PoolId>,
    /// Bounds.
    pub limits: Limits,
    /// Time.
    pub clock: Clock,
    /// What is counted here: everything about connections, requests and pipes.
    pub counters: Arc<Counters>,
    /// Places for dashboards.
    pub dashboards: Arc<Dashboards>,
    /// Who serves dashboards.
    pub feed: Box<dyn OpenFeed>,
}

/// The public port; see the module. Runs on a thread of its own until its [`DoorHandle`] says
/// stop.
pub(crate) struct Door {
    poll: Poll,
    listeners: Vec<Listener<TcpListener>>,
    /// Tokens of listeners, which stay theirs when the listeners are gone.
    listener_tokens: usize,
    clients: Clients,
    lanes: Lanes,
    rules: Rules,
    limits: Limits,
    clock: Clock,
    counters: Arc<Counters>,
    dashboards: Arc<Dashboards>,
    feed: Box<dyn OpenFeed>,
    guesses: Guesses,
    refusals: Refusals,
    /// The last stamp's number.
    stamped: u64,
    /// This turn's time.
    now: Instant,
    date: Date,
    /// What was read, until it is taken apart: one buffer for all.
    scratch: Box<[u8]>,
    /// What is being written: one buffer for all.
    composed: Vec<u8>,
    stop: Arc<AtomicBool>,
    /// Set when the door was told to stop: when it ends at the latest.
    ends_at: Option<Instant>,
}

/// Stops a [`Door`] from another thread.
#[derive(Debug, Clone)]
pub(crate) struct DoorHandle {
    stop: Arc<AtomicBool>,
    waker: Arc<Waker>,
}

impl DoorHandle {
    /// No new connection and no new request from here on; requests in flight get their answers
    /// within [`STOP_GRACE`], then [`Door::run`] returns. Says so and does not wait.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        if let Err(error) = self.waker.wake() {
            log::error!("cannot wake the door: {error}");
        }
    }
}

/// Why the door cannot go on. Nothing that a client sends leads here.
#[derive(Debug)]
pub(crate) enum DoorError {
    /// Waiting for readiness failed.
    Poll(io::Error),
    /// A pipe to the workers broke and cannot be made anew: every answer would be a 503.
    Workers(io::Error),
}

impl fmt::Display for DoorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Poll(error) => write!(f, "waiting for readiness failed: {error}"),
            Self::Workers(error) => write!(f, "the workers cannot be reached any more: {error}"),
        }
    }
}

impl std::error::Error for DoorError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Poll(error) | Self::Workers(error) => Some(error),
        }
    }
}

/// Whom a readiness event is about.
enum Source {
    Waker,
    Listener(usize),
    Pipe(usize),
    Client(usize),
}

impl Door {
    /// Sets everything up; nothing is accepted before [`Door::run`].
    ///
    /// # Errors
    /// When the system refuses to watch the listeners, or the workers cannot be reached.
    pub(crate) fn new(parts: Parts) -> io::Result<(Self, DoorHandle)> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let mut listeners = Vec::with_capacity(parts.listeners.len());
        for listener in parts.listeners {
            listener.set_nonblocking(true)?;
            let mut listener = TcpListener::from_std(listener);
            let token = Token(1 + listeners.len());
            poll.registry().register(&mut listener, token, Interest::READABLE)?;
            listeners.push(Listener::new(listener));
        }
        let now = parts.clock.now();
        let pipe = |path, number| Pipe::new(path, Token(1 + listeners.len() + number), now);
        let pipes = [pipe(parts.ingest_path, 0), pipe(parts.reads_path, 1)];
        let mut lanes = Lanes::new(pipes, parts.limits.max_in_flight);
        for pipe in &mut lanes.pipes {
            // One for which descriptors are missing now is tried again while the door runs.
            pipe.connect(poll.registry(), now)?;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let handle = DoorHandle { stop: Arc::clone(&stop), waker };
        let door = Self {
            poll,
            listener_tokens: listeners.len(),
            listeners,
            clients: Clients::new(parts.limits.max_connections, Arc::clone(&parts.counters), now),
            lanes,
            rules: Rules::new(parts.gate, parts.pools, parts.limits.max_body_bytes),
            limits: parts.limits,
            clock: parts.clock,
            counters: parts.counters,
            dashboards: parts.dashboards,
            feed: parts.feed,
            guesses: Guesses::default(),
            refusals: Refusals::default(),
            stamped: 0,
            now,
            date: Date::default(),
            scratch: vec![0; READ_BYTES].into_boxed_slice(),
            composed: Vec::new(),
            stop,
            ends_at: None,
        };
        Ok((door, handle))
    }

    /// Serves until told to stop.
    ///
    /// # Errors
    /// [`DoorError`], a fault of the system or of ours.
    pub(crate) fn run(mut self) -> Result<(), DoorError> {
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        loop {
            let timeout = self.timeout();
            match self.poll.poll(&mut events, timeout) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(DoorError::Poll(error)),
            }
            if self.turn(&events)? {
                return Ok(());
            }
        }
    }

    /// One turn of the loop; true when it was the last. Whatever has come is taken in before
    /// deadlines are looked at, so that a moment of ours is not held against others.
    fn turn(&mut self, events: &Events) -> Result<bool, DoorError> {
        self.now = self.clock.now();
        self.date.update(self.clock.wall());
        let listed = self.clients.listed();
        for event in events {
            self.on_event(event);
        }
        for _ in 0..listed {
            let Some(slot) = self.clients.unlist() else { break };
            self.serve(slot);
        }
        self.accept();
        self.read_pipes()?;
        self.hand_over_waiting();
        self.keep_deadlines();
        self.tell_refusals(false);
        self.flush_pipes();
        self.make_room_in_memory();
        Ok(self.stop.load(Ordering::Acquire) && self.wind_down())
    }

    fn on_event(&mut self, event: &Event) {
        match self.source(event.token()) {
            Source::Waker => {}
            Source::Listener(index) => {
                if let Some(listener) = self.listeners.get_mut(index) {
                    listener.knock();
                }
            }
            Source::Pipe(index) => {
                if let Some(pipe) = self.lanes.pipes.get_mut(index)
                    && (event.is_readable() || event.is_read_closed() || event.is_error())
                {
                    pipe.note_readable(event.is_read_closed() || event.is_error());
                }
            }
            Source::Client(slot) => self.on_client_event(slot, event),
        }
    }

    /// The client may have left in this turn already. New ones come after all events, so that
    /// nobody gets the event of who had the slot before.
    fn on_client_event(&mut self, slot: usize, event: &Event) {
        let Some(connection) = self.clients.get(slot) else { return };
        if event.is_error() || event.is_write_closed() {
            // Reset, or closed on both sides: no answer can reach this client.
            self.close(slot);
            return;
        }
        if event.is_writable() {
            connection.note_writable();
        }
        if event.is_readable() || event.is_read_closed() {
            connection.note_readable(event.is_read_closed());
        }
        if event.is_read_closed() && connection.is_delayed() {
            // It hung up: nobody waits for the answer.
            self.close(slot);
            return;
        }
        let unsent = !connection.is_flushed();
        if unsent {
            self.flush(slot);
        }
        self.serve(slot);
    }

    fn source(&self, token: Token) -> Source {
        let (listeners, pipes) = (self.listener_tokens, self.lanes.pipes.len());
        match token.0 {
            0 => Source::Waker,
            n if n <= listeners => Source::Listener(n - 1),
            n if n <= listeners + pipes => Source::Pipe(n - 1 - listeners),
            n => Source::Client(n - 1 - listeners - pipes),
        }
    }

    fn client_token(&self, slot: usize) -> Token {
        Token(1 + self.listener_tokens + self.lanes.pipes.len() + slot)
    }

    /// How long the loop may sleep: until the first of all deadlines, or for ever.
    fn timeout(&self) -> Option<Duration> {
        if self.clients.listed() > 0 || self.lanes.pipes.iter().any(Pipe::is_readable) {
            return Some(Duration::ZERO);
        }
        let now = self.clock.now();
        let accepts = self.listeners.iter().filter_map(|listener| listener.due(now));
        let patience = self.pipe_patience();
        let pipes = self.lanes.pipes.iter().filter_map(|pipe| pipe.deadline(now, patience));
        let others = [self.clients.next_sweep(), self.refusals.due(), self.ends_at];
        let first = accepts.chain(pipes).chain(others.into_iter().flatten()).min()?;
        Some(first.saturating_duration_since(now))
    }

    /// Stops taking work once; true when all that was in flight is answered, or has had its
    /// time.
    fn wind_down(&mut self) -> bool {
        if self.ends_at.is_none() {
            self.begin_to_stop();
        }
        self.ends_at.is_some_and(|ends_at| self.now >= ends_at) || !self.clients.any_unanswered()
    }
}
